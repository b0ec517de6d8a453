//! Access tokens in the shape of a JSON Web Token. The signature is noise: the sandbox accepts a token because it remembers it.

use serde_json::{Value, json};

use super::keys;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A token with these claims.
pub(super) fn token(claims: &Value) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "sandbox" });
    let parts = [header.to_string(), claims.to_string(), keys::secret()];
    parts.map(|part| base64url(part.as_bytes())).join(".")
}

/// Base64 with the alphabet of URLs and without padding.
fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or_default()));
        for at in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * at)) & 0x3f;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_urls_without_padding() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("\u{3f}\u{3e}~", "Pz5-")] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
    }
}

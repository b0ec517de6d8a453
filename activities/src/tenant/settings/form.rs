//! Secrets and addresses in a form that no tenant accepts, as they come out of editors, shells and documentation: named by their key, and
//! never shown.

use super::{Refusal, TenantSettings};

/// What a program puts at the beginning of a text file.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The beginnings of the tenant's own paths, which are added to its address.
const OWN_PATHS: [&str; 4] = ["/api/service", "/api/meta", "/api", "/auth"];
const ROOT: &str = "write the address alone, such as https://acme.example.com";

/// Refuses a secret that was not pasted alone. `key` is where it is set.
pub(in crate::tenant) fn secret(key: &'static str, secret: &str) -> Result<(), Refusal> {
    let is_quoted = |quote: char| secret.len() > 1 && secret.starts_with(quote) && secret.ends_with(quote);
    let problem = if secret.contains(BYTE_ORDER_MARK) {
        "holds a byte order mark"
    } else if ['"', '\'', '`'].into_iter().any(is_quoted) {
        "is in quotes"
    } else if secret.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        "begins with `Bearer `, which is added to it"
    } else {
        return Ok(());
    };
    Err((key, problem.to_owned(), "paste the secret alone"))
}

/// Refuses an address that ends in a path of the tenant's own.
pub(in crate::tenant) fn address(settings: &TenantSettings) -> Result<(), Refusal> {
    let base_url = settings.base_url.trim().trim_end_matches('/');
    match OWN_PATHS.into_iter().find(|path| base_url.ends_with(path)) {
        Some(path) => Err(("base_url", format!("ends in {path}, which is added to it"), ROOT)),
        None => Ok(()),
    }
}

/// What is unusual about an address and may still be right, as behind a gateway: the key, the problem, the hint.
pub(in crate::tenant) fn warning(settings: &TenantSettings) -> Option<Refusal> {
    let url = reqwest::Url::parse(settings.base_url.trim()).ok()?;
    let path = url.path().trim_end_matches('/');
    (!path.is_empty()).then(|| ("base_url", format!("has the path {path}, which most tenants do not have"), ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_was_not_pasted_alone_is_refused_by_key_and_not_shown() {
        for (pasted, problem) in [
            ("\u{feff}hush-hush", "byte order mark"),
            ("\"hush-hush\"", "is in quotes"),
            ("'hush-hush'", "is in quotes"),
            ("Bearer hush-hush", "begins with `Bearer `"),
            ("bearer hush-hush", "begins with `Bearer `"),
        ] {
            let (key, said, _) = secret("api_key", pasted).expect_err("it is refused");
            assert!(key == "api_key" && said.contains(problem) && !said.contains("hush"), "{said}");
        }
        for fine in ["hush-hush", "\"", "it's", "bearer", "ключ-из-букв"] {
            assert_eq!(secret("api_key", fine), Ok(()));
        }
    }

    #[test]
    fn an_address_with_a_path_of_the_tenants_own_is_refused_and_with_another_one_is_warned_of() {
        let of = |base_url: &str| TenantSettings { base_url: base_url.into(), ..TenantSettings::default() };
        for path in ["/api/service", "/api/service/", "/api/meta", "/api", "/auth/"] {
            assert_eq!(address(&of(&format!("https://acme.example.com{path}"))).expect_err("it is refused").0, "base_url");
        }
        let gateway = of("https://gateway.example.com/acme");
        assert_eq!(address(&gateway), Ok(()));
        assert!(warning(&gateway).is_some_and(|(key, problem, _)| key == "base_url" && problem.contains("/acme")));
        for plain in ["https://acme.example.com", "https://acme.example.com/", "INTERNAL", ""] {
            assert_eq!((address(&of(plain)), warning(&of(plain))), (Ok(()), None), "{plain}");
        }
    }
}

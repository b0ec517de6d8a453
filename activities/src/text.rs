//! Texts that come from a tenant, kept to a bound.

/// The longest message, in bytes. Longer ones, which are the tenant's, are cut at a character and end in `…`.
pub const MESSAGE_LIMIT: usize = 4 * 1024;

/// Cuts a text to [`MESSAGE_LIMIT`] bytes.
pub fn clip(mut message: String) -> String {
    const MARK: &str = "…";
    if message.len() > MESSAGE_LIMIT {
        let mut end = MESSAGE_LIMIT - MARK.len();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str(MARK);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let cut = clip("é".repeat(MESSAGE_LIMIT));
        assert!(cut.len() <= MESSAGE_LIMIT && cut.ends_with("é…"), "{}", cut.len());
        assert_eq!(clip("short".into()), "short");
    }
}

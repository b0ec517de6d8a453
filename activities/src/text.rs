//! Texts of others: kept to a bound, and quoted where they stand in a command.

use std::borrow::Cow;

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

/// A word of a command, quoted where a POSIX shell would take it apart or for something else. Every suggested command is put together
/// with this.
///
/// ```
/// # use iolaus_activities::shell_word;
/// assert_eq!(shell_word("since=2026-01-31T02:00:00Z"), "since=2026-01-31T02:00:00Z");
/// assert_eq!(shell_word("it's mine"), r"'it'\''s mine'");
/// ```
pub fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@=,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
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

    #[test]
    fn a_word_that_a_shell_would_take_apart_is_quoted() {
        for plain in ["nightly", "@atlan/snowflake", "a.b_c-d:1,2+3%", "default/snowflake/1"] {
            assert_eq!(shell_word(plain), plain);
        }
        for special in ["", "a b", "$HOME", "`x`", "a;b", "a&b", "~", "*", "a\"b", "#a", "(a)", "a|b", "a\\b", "é", "!a"] {
            assert_eq!(shell_word(special), format!("'{special}'"));
        }
        assert_eq!(shell_word("a'b"), r"'a'\''b'");
    }
}

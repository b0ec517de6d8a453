//! Texts of others: kept to a bound, and quoted where they stand in a command.

use std::borrow::Cow;

/// The longest message, in bytes. Longer ones, which are the tenant's, are cut at a character and end in `…`.
pub const MESSAGE_LIMIT: usize = 4 * 1024;

/// Cuts a text to [`MESSAGE_LIMIT`] bytes.
pub fn clip(message: String) -> String {
    clip_to(message, MESSAGE_LIMIT)
}

/// Cuts a text to so many bytes, at least three.
pub(crate) fn clip_to(mut text: String, limit: usize) -> String {
    const MARK: &str = "…";
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit.saturating_sub(MARK.len())));
        text.push_str(MARK);
        text.shrink_to_fit();
    }
    text
}

/// Whether a character is none that shows: a control character, a line separator, or one that hides text or reverses its direction.
/// Ids have none of them: two that look alike must be the same.
///
/// ```
/// # use iolaus_activities::is_invisible;
/// assert!(is_invisible('\n') && is_invisible('\u{202E}') && !is_invisible(' ') && !is_invisible('é'));
/// ```
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
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

//! What may not reach a terminal as it is: control characters, which can clear a screen or forge a line, and characters that change the
//! direction of writing, which can make a name look like another one. Tenants' texts are cleaned where they enter the program; this is
//! the second time, at the way out.

use std::fmt::Write;

/// Whether a character does something to a terminal instead of being shown.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// One line of text, with a space for every such character.
pub(crate) fn line(text: &str) -> String {
    text.chars().map(|c| if acts(c) { ' ' } else { c }).collect()
}

/// JSON with those characters as escapes, so that it has the same meaning.
pub(crate) fn json(text: String) -> String {
    if !text.chars().any(acts) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            // Writing to a String cannot fail.
            write!(escaped, "\\u{:04x}", u32::from(c)).ok();
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const NASTY: &str = "a\u{1b}[2Jb\u{9b}c\u{7f}d\u{202e}e\u{2066}f\u{200f}g\u{61c}h\u{2028}i";

    #[test]
    fn nothing_that_moves_a_cursor_or_turns_the_writing_round_is_left() {
        assert_eq!(line(NASTY), "a [2Jb c d e f g h i");
        assert_eq!(line("a\nb\rc"), "a b c");
        assert_eq!(line("Größe 数据 🚀"), "Größe 数据 🚀");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let json = json(serde_json::to_string(NASTY).expect("JSON"));
        assert!(json.is_ascii(), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), NASTY);
    }
}

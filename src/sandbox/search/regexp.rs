//! Lucene's regular expressions, translated.

use regex::{Regex, RegexBuilder};

use super::Unsupported;

/// Elasticsearch's `index.max_regex_length`.
const MAX_PATTERN: usize = 1_000;

/// Lucene's regular expressions are anchored and have operators of their own, which are refused.
pub(super) fn compile(pattern: &str, ignore_case: bool) -> Result<Regex, Unsupported> {
    let refuse = |why: String| Unsupported::new(format!("[regexp] {pattern:?}: {why}"));
    if pattern.len() > MAX_PATTERN {
        return Err(refuse(format!("longer than {MAX_PATTERN} bytes")));
    }
    let mut translated = String::from("^(?s:");
    let (mut in_class, mut previous) = (false, ' ');
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped) if !escaped.is_alphanumeric() => {
                    translated.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4])));
                }
                _ => return Err(refuse("an escape of a letter, or none".to_owned())),
            },
            '[' if !in_class => {
                in_class = true;
                translated.push('[');
            }
            ']' => {
                in_class = false;
                translated.push(']');
            }
            '[' | '&' | '~' if in_class => translated.extend(['\\', character]),
            '@' | '&' | '<' | '>' | '~' | '#' | '"' if !in_class => {
                return Err(refuse(format!("operator {character:?} is not supported")));
            }
            '?' if previous == '(' => return Err(refuse("groups have no options".to_owned())),
            '^' | '$' if !in_class => translated.extend(['\\', character]),
            other => translated.push(other),
        }
        previous = character;
    }
    translated.push_str(")$");
    RegexBuilder::new(&translated)
        .case_insensitive(ignore_case)
        .size_limit(1 << 20)
        .build()
        .map_err(|error| refuse(error.to_string()))
}

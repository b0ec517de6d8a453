//! What the inputs of several activities have in common.

use std::time::Duration;

use crate::activity::InputError;
use crate::duration;
use crate::text::is_invisible;

/// A wait is at least a second and at most thirty days long.
pub(crate) fn check_timeout(timeout: Duration) -> Result<(), InputError> {
    const LONGEST: Duration = Duration::from_secs(30 * 86_400);
    let reason = format!("must be between 1s and {}", duration::format(LONGEST));
    InputError::unless((Duration::from_secs(1)..=LONGEST).contains(&timeout), "timeout", &reason)
}

/// Serde's default for `timeout`.
pub(crate) fn one_day() -> Duration {
    Duration::from_secs(86_400)
}

/// A name that may stand in a path and in a search.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), InputError> {
    let fine = name.len() <= 253
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    let reason = "must be a name: letters, digits, `-`, `.` and `_`, the first one a letter or digit";
    InputError::unless(fine, field, reason)
}

/// The id of a run of an app. What it is made of is not publicly known; it may stand in a path, where it is encoded.
pub(crate) fn check_run_id(field: &str, id: &str) -> Result<(), InputError> {
    let fine = (1..=512).contains(&id.len()) && !id.contains(char::is_whitespace) && are_parts(id);
    let reason = "must be the id of a run: 1 to 512 bytes without spaces, control or invisible characters; no part between `/` may be \
                  empty, `.` or `..`";
    InputError::unless(fine && !id.contains(is_invisible), field, reason)
}

/// The qualified name of a connection.
pub(crate) fn check_qualified_name(field: &str, name: &str) -> Result<(), InputError> {
    let fine = name.len() <= 500 && name.contains('/') && are_parts(name) && name.trim() == name && !name.contains(is_invisible);
    InputError::unless(fine, field, "must be a qualified name such as default/snowflake/1234567890")
}

/// A text that is shown to people and sent as it is, such as a display name.
pub(crate) fn check_visible(field: &str, text: &str) -> Result<(), InputError> {
    InputError::unless(!text.contains(is_invisible), field, "must not contain control, newline or invisible characters")
}

/// Whether none of the parts between `/` is empty or would lead elsewhere in a path.
fn are_parts(text: &str) -> bool {
    text.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_leads_elsewhere_and_a_character_that_does_not_show_are_refused_in_ids() {
        for id in ["../x", "x/..", "x/../y", ".", "..", "./x", "a//b", "/a", "a/", "a b", "a\nb", "a\u{202E}b", "a\u{200B}b", ""] {
            assert_eq!(check_run_id("app_run", id).expect_err(id).field, "app_run");
            assert!(check_name("run", id).is_err() && check_qualified_name("connection", id).is_err(), "{id:?}");
        }
        for id in ["9e3779b97f4a7c15", "a/b", "a:b/c", "v1..2"] {
            assert_eq!(check_run_id("app_run", id), Ok(()), "{id}");
        }
        assert_eq!(check_qualified_name("connection", "default/snowflake/1234567890"), Ok(()));
        assert_eq!(check_visible("api_token_name", "my token é"), Ok(()));
        for text in ["a\nb", "a\0", "a\u{61C}", "\u{FEFF}a", "a\u{2066}b", "a\u{2028}b"] {
            assert!(check_visible("api_token_name", text).is_err(), "{text:?}");
        }
    }
}

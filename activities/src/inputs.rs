//! What the inputs of several activities have in common.

use std::time::Duration;

use crate::activity::InputError;
use crate::duration;

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
    let fine =
        (1..=512).contains(&id.len()) && !id.contains(|c: char| c.is_control() || c.is_whitespace()) && !matches!(id, "." | "..");
    InputError::unless(fine, field, "must be the id of a run: 1 to 512 bytes without spaces and control characters")
}

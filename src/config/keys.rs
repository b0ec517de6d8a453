//! Keys of the configuration as they are written, and the names in them that their owner chose.

use config::{Map, Value, ValueKind};

use super::ConfigError;
use super::load::{at, find};
use crate::job::limits;

/// The sections whose keys are names that the owner of the file chose.
const NAMED: [&str; 4] = ["tenants", "activities", "limits.activities", "limits.tenants"];
const RULE: &str = "use letters, digits, `-` and `_`";

/// Refuses a name that could not be written as a command-line option, a variable, or a part of a key.
pub(super) fn check_names(merged: &Map<String, Value>) -> Result<(), ConfigError> {
    for section in NAMED {
        let Some(ValueKind::Table(table)) = find(merged, section).map(|value| &value.kind) else { continue };
        let mut names: Vec<&String> = table.keys().filter(|name| !is_plain(name) || name.len() > limits::NAME).collect();
        names.sort_unstable();
        if let Some(name) = names.first() {
            let problem = match name.len() {
                0 => "the name is empty".to_owned(),
                length if length > limits::NAME => format!("the name has {length} bytes, and {} is the most", limits::NAME),
                _ => "the name holds a character that no name may have".to_owned(),
            };
            return Err(at(merged, &format!("{section}.{}", quoted(name)), &problem, RULE));
        }
    }
    Ok(())
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A part of a key as it is written: in quotes if it has other characters than a plain one.
pub(super) fn quoted(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { format!("{name:?}") }
}

/// The first part of a key, as the table knows it, and what follows.
pub(super) fn step<'k>(table: &Map<String, Value>, key: &'k str) -> Option<(String, &'k str)> {
    table.keys().find_map(|name| {
        let rest = key.strip_prefix(quoted(name).as_str())?;
        if rest.is_empty() { Some((name.clone(), rest)) } else { Some((name.clone(), rest.strip_prefix('.')?)) }
    })
}

//! The environment as a layer: which variables are keys, and what they say.

use std::ffi::OsStr;

use config::{ConfigError as Foreign, Map, Source, Value, ValueKind};

use super::load::{is_known, plain};
use super::{ConfigError, Environment};

pub(super) const PREFIX: &str = "IOLAUS_";
/// Variables that are no keys. Kubernetes sets the last ones in every pod beside a service named `iolaus`.
const NO_KEYS: [&str; 5] = ["IOLAUS_CONFIG", "IOLAUS_PORT", "IOLAUS_PORT_", "IOLAUS_SERVICE_HOST", "IOLAUS_SERVICE_PORT"];

/// The longest name of a variable that is a key, in bytes, and the most parts of a key. The longest key there is has four; a tenant's name
/// has at most 64 bytes.
const NAME_LIMIT: usize = 256;
const MOST_PARTS: usize = 8;
/// How much of a name is shown that is too long, in characters.
const SHOWN: usize = 40;

/// Variables as a source, each value with the name of its variable.
#[derive(Debug, Clone)]
pub(super) struct Variables(Vec<(String, Value)>);

impl Variables {
    pub(super) fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let mut keys = Vec::new();
        for (variable, key) in [
            ("RUST_LOG", "log.level"),
            ("IOLAUS_LOG", "log.level"),
            ("ATLAN_BASE_URL", "tenants.default.base_url"),
            ("ATLAN_API_KEY", "tenants.default.api_key"),
            ("ATLAN_OAUTH_CLIENT_ID", "tenants.default.oauth_client_id"),
            ("ATLAN_OAUTH_CLIENT_SECRET", "tenants.default.oauth_client_secret"),
        ] {
            if let Some(text) = non_empty(environment, variable) {
                keys.push((key.to_owned(), value(variable, key, utf8(variable, text)?)?));
            }
        }
        let mut ours: Vec<_> = environment
            .iter()
            .filter_map(|(name, text)| Some((name.to_str()?, text)))
            .filter(|(name, _)| name.starts_with(PREFIX) && *name != "IOLAUS_LOG" && !is_no_key(name))
            .collect();
        ours.sort_unstable();
        for (name, text) in ours {
            check_bounds(name)?;
            let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
            keys.push((key.clone(), value(name, &key, utf8(name, text)?)?));
        }
        Ok(Self(keys))
    }
}

impl Source for Variables {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, Foreign> {
        let mut root = Map::new();
        for (key, value) in &self.0 {
            insert(&mut root, key, value.clone());
        }
        Ok(root)
    }
}

/// Each part of a name is a table within a table, whose cost grows with the square of the depth.
fn check_bounds(name: &str) -> Result<(), ConfigError> {
    if name.len() <= NAME_LIMIT && name.matches("__").count() < MOST_PARTS {
        return Ok(());
    }
    let shown: String = name.chars().take(SHOWN).collect();
    Err(plain(
        &format!("the variable {shown}…"),
        &format!("its name is longer than {NAME_LIMIT} bytes or has more than {MOST_PARTS} parts"),
        "unset it; `iolaus schema config` prints every key",
    ))
}

/// Whether a refusal of this variable, whose name may be cut, means that one.
pub(super) fn means(shown: &str, name: &OsStr) -> bool {
    match shown.strip_suffix('…') {
        Some(start) => name.as_encoded_bytes().starts_with(start.as_bytes()),
        None => name == shown,
    }
}

fn insert(table: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head.to_owned()).or_insert_with(|| Value::new(None, ValueKind::Table(Map::new())));
            if !matches!(inner.kind, ValueKind::Table(_)) {
                inner.kind = ValueKind::Table(Map::new());
            }
            if let ValueKind::Table(inner) = &mut inner.kind {
                insert(inner, rest, value);
            }
        }
    }
}

fn value(variable: &str, key: &str, text: &str) -> Result<Value, ConfigError> {
    let origin = format!("the variable {variable}");
    if key.ends_with(".non_retryable_codes") {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        return Ok(Value::new(Some(&origin), parts.map(String::from).collect::<Vec<_>>()));
    }
    let last = key.rsplit('.').next().unwrap_or(key);
    let may_be_empty =
        matches!(last, "path" | "level" | "listen" | "api_key" | "proxy") || last.ends_with("_url") || last.contains("_client_");
    if text.trim().is_empty() && !may_be_empty && is_known(key) {
        return Err(ConfigError {
            key: Some(key.to_owned()),
            origin,
            problem: "it is set but empty".into(),
            hint: format!("unset {variable} for the default, or give it a value"),
        });
    }
    Ok(Value::new(Some(&origin), text))
}

fn is_no_key(name: &str) -> bool {
    NO_KEYS.iter().any(|no_key| name == *no_key || (no_key.contains("PORT") && name.starts_with(no_key)))
}

pub(super) fn non_empty<'a>(environment: &'a Environment, name: &str) -> Option<&'a OsStr> {
    environment.iter().find(|(key, text)| key == name && !text.is_empty()).map(|(_, text)| text.as_os_str())
}

fn utf8<'a>(name: &str, text: &'a OsStr) -> Result<&'a str, ConfigError> {
    text.to_str().ok_or_else(|| plain(&format!("the variable {name}"), "its value is not UTF-8", "set it again as UTF-8 text"))
}

//! From layers to a checked [`Config`]. The `config` crate merges and converts; what it does not say well (which variable, which
//! key was meant, a value out of range) is said here.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use config::{ConfigError as Foreign, File, FileFormat, Map, Source, Value, ValueKind};
use iolaus_activities::named_file;

use super::variables::{PREFIX, Variables, non_empty};
use super::{Config, ConfigError, DEFAULTS, Environment, check, keys, logins};

const BUILT_IN: &str = "the built-in defaults";
const EVERY_KEY: &str = "`iolaus schema config` prints every key";
/// How many keys that might be meant are named.
const RELATED: usize = 3;
/// How much of a wrong value is shown, in characters.
const SHOWN: usize = 40;
/// The longest configuration file, in bytes.
const FILE_LIMIT: u64 = 1024 * 1024;
/// The most dots in a line of it before `=`. Each dot of a key is a table within a table.
const DOTS: usize = 256;

pub(super) fn load(file: Option<PathBuf>, environment: &Environment) -> Result<Config, ConfigError> {
    load_from(named_file(file, environment)?, environment, &BTreeSet::new())
}

/// The file that is named, or else the usual one if it is there.
pub(super) fn named_file(file: Option<PathBuf>, environment: &Environment) -> Result<Option<PathBuf>, ConfigError> {
    let named = file.or_else(|| non_empty(environment, "IOLAUS_CONFIG").map(PathBuf::from));
    if let Some(file) = &named {
        read(file)?;
    }
    Ok(named.or_else(|| usual_file(environment)))
}

/// The bytes of a configuration file, which is no pipe, device or directory, and not longer than one may be.
fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    named_file::read(file, FILE_LIMIT).map_err(|error| {
        let named = "check --config and IOLAUS_CONFIG";
        let (problem, hint) = match error.kind() {
            ErrorKind::NotFound => ("there is no such file".to_owned(), named),
            ErrorKind::PermissionDenied => (format!("the file cannot be read: {error}"), "check its permissions"),
            _ => (format!("the file cannot be read: {error}"), named),
        };
        plain(&file.display().to_string(), &problem, hint)
    })
}

/// Reads this file, if any, and the environment; the keys in `without` are left at their defaults, whatever is said of them.
pub(super) fn load_from(
    file: Option<PathBuf>,
    environment: &Environment,
    without: &BTreeSet<String>,
) -> Result<Config, ConfigError> {
    let own = file.as_deref().map(|file| layer(file, without)).transpose()?;
    let (own, left_out) = own.unwrap_or_default();
    let mut merged = merge(file.as_deref(), own, environment)?;
    if !without.is_empty() {
        let defaults = merge(None, Map::new(), &Environment::new())?;
        for key in without.difference(&left_out) {
            reset(&mut merged, &defaults, "", key);
        }
    }
    logins::prefer_the_later(&mut merged);
    keys::check_names(&merged)?;
    check_keys(&merged)?;
    let value = Value::new(None, ValueKind::Table(merged.clone()));
    let mut config: Config = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        wrong_type(&merged, &path, &error.into_inner())
    })?;
    config.database.path = database_path(&config, &merged, environment)?;
    check::values(&config, &merged)?;
    check::proxies(environment)?;
    config.http.chosen = find(&merged, "http.listen").is_some_and(|value| value.origin().is_some());
    config.file = file;
    Ok(config)
}

/// What a file says. A value in the place of a section is refused here, before the environment's keys of that section replace it; those
/// in `without` are left out, which the second answer names.
fn layer(file: &Path, without: &BTreeSet<String>) -> Result<(Map<String, Value>, BTreeSet<String>), ConfigError> {
    check_bounds(file)?;
    let unreadable = |error| unreadable(&file.display().to_string(), &error);
    let mut own = File::from(file.to_owned()).format(FileFormat::Toml).collect().map_err(unreadable)?;
    let mut leaves = Vec::new();
    flatten("", &own, &mut leaves);
    leaves.sort_unstable();
    let mut left_out = BTreeSet::new();
    for (key, origin) in leaves.into_iter().filter(|(key, _)| is_section(key)) {
        if !without.contains(&key) {
            let (problem, hint) = ("is a section, and has no value of its own", "`iolaus schema config` shows what belongs there");
            return Err(ConfigError { key: Some(key), origin, problem: problem.into(), hint: hint.into() });
        }
        reset(&mut own, &Map::new(), "", &key);
        left_out.insert(key);
    }
    Ok((own, left_out))
}

fn merge(file: Option<&Path>, own: Map<String, Value>, environment: &Environment) -> Result<Map<String, Value>, ConfigError> {
    let builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).add_source(Layer(own));
    let built = builder.add_source(Variables::read(environment)?).build();
    let origin = file.map_or_else(|| BUILT_IN.to_owned(), |file| file.display().to_string());
    built.and_then(|config| config.collect()).map_err(|error| unreadable(&origin, &error))
}

/// A layer that was read before.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, Foreign> {
        Ok(self.0.clone())
    }
}

/// Refuses a file that would cost memory and stack without bounds.
fn check_bounds(file: &Path) -> Result<(), ConfigError> {
    let refuse = |problem: &str, hint: &str| plain(&file.display().to_string(), problem, hint);
    let bytes = read(file)?;
    // It would be read with other characters in their place, also in a secret.
    if let Err(error) = std::str::from_utf8(&bytes) {
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        return Err(refuse(&format!("line {line} is not UTF-8"), "save the file as UTF-8"));
    }
    let dots = |line: &[u8]| line.split(|byte| *byte == b'=').next().unwrap_or_default().split(|byte| *byte == b'.').count() - 1;
    match bytes.split(|byte| *byte == b'\n').position(|line| dots(line) > DOTS) {
        Some(n) => Err(refuse(&format!("line {}: a key has more than {DOTS} parts", n + 1), EVERY_KEY)),
        None => Ok(()),
    }
}

fn usual_file(environment: &Environment) -> Option<PathBuf> {
    let base = base_directory(environment, "XDG_CONFIG_HOME", ".config")?;
    Some(base.join("iolaus/config.toml")).filter(|file| file.is_file())
}

/// A base directory of the XDG specification, which says that a relative one is ignored.
fn base_directory(environment: &Environment, variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name| non_empty(environment, name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| Some(absolute("HOME")?.join(below_home)))
}

fn database_path(config: &Config, merged: &Map<String, Value>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    let path = &config.database.path;
    if path.as_os_str().is_empty() {
        let base = base_directory(environment, "XDG_STATE_HOME", ".local/state");
        return base.map(|base| base.join("iolaus/iolaus.db")).ok_or_else(|| {
            at(
                merged,
                "database.path",
                "is empty, and neither XDG_STATE_HOME nor HOME is set",
                "set IOLAUS_DATABASE__PATH=/absolute/iolaus.db",
            )
        });
    }
    if path.is_relative() {
        let problem = format!("`{}` is relative, and would be another queue in every directory", path.display());
        return Err(at(merged, "database.path", &problem, "write an absolute path"));
    }
    Ok(path.clone())
}

/// Gives a key its default, or removes it where it has none, and a section that is empty then.
fn reset(table: &mut Map<String, Value>, defaults: &Map<String, Value>, section: &str, key: &str) {
    let Some((name, rest)) = keys::step(table, key) else { return };
    let whole = if section.is_empty() { keys::quoted(&name) } else { format!("{section}.{}", keys::quoted(&name)) };
    let inner = table.get_mut(&name).map(|value| &mut value.kind);
    match (rest, inner) {
        ("", _) => match find(defaults, &whole) {
            Some(default) => drop(table.insert(name, default.clone())),
            None => drop(table.remove(&name)),
        },
        (rest, Some(ValueKind::Table(inner))) => {
            reset(inner, defaults, &whole, rest);
            if inner.is_empty() && !is_section(&whole) {
                table.remove(&name);
            }
        }
        _ => drop(table.remove(&name)),
    }
}

fn check_keys(merged: &Map<String, Value>) -> Result<(), ConfigError> {
    let mut leaves = Vec::new();
    flatten("", merged, &mut leaves);
    leaves.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (key, origin) in leaves {
        if is_known(&key) {
            continue;
        }
        let hint = match nearest(&key) {
            Some(known) => format!("did you mean `{known}`?{}", as_variable(&origin, &known)),
            None => match related(&key).as_slice() {
                [] => EVERY_KEY.to_owned(),
                [known] => format!("did you mean `{known}`?{} {EVERY_KEY}", as_variable(&origin, known)),
                several => format!("did you mean `{}`? {EVERY_KEY}", several.join("` or `")),
            },
        };
        return Err(ConfigError { key: Some(key), origin, problem: "there is no such key".into(), hint });
    }
    Ok(())
}

fn as_variable(origin: &str, key: &str) -> String {
    if origin.starts_with("the variable IOLAUS_") {
        format!(" Its variable is {PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
    } else {
        String::new()
    }
}

fn flatten(prefix: &str, table: &Map<String, Value>, leaves: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let name = keys::quoted(name);
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match &value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => flatten(&key, inner, leaves),
            ValueKind::Table(_) if is_section(&key) => {}
            _ => leaves.push((key, value.origin().unwrap_or(BUILT_IN).to_owned())),
        }
    }
}

fn is_section(key: &str) -> bool {
    let start = format!("{}.", pattern(key));
    known_keys().iter().any(|known| known.starts_with(&start))
        || matches!(key, "tenants" | "activities" | "limits" | "limits.activities" | "limits.tenants")
}

pub(super) fn is_known(key: &str) -> bool {
    known_keys().contains(&pattern(key))
}

/// A key with `*` for the name that its owner chose.
fn pattern(key: &str) -> String {
    let mut parts: Vec<&str> = key.split('.').collect();
    if parts.len() > 1 && matches!(parts[0], "tenants" | "activities") {
        parts[1] = "*";
    }
    if parts.len() > 2 && parts[0] == "limits" {
        parts[2] = "*";
    }
    parts.join(".")
}

/// Every key there is, read off the reference, where the keys without a default stand behind a `#`.
pub(super) fn known_keys() -> &'static BTreeSet<String> {
    // Asked for every key of every tenant.
    static KEYS: LazyLock<BTreeSet<String>> = LazyLock::new(read_known_keys);
    &KEYS
}

fn read_known_keys() -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in DEFAULTS.lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        {
            keys.insert(pattern(&format!("{section}.{key}")));
        }
    }
    keys
}

/// The known key that is at most a few typing errors away.
fn nearest(key: &str) -> Option<String> {
    let wanted = pattern(key);
    let scored = known_keys().iter().map(|known| (distance(&wanted, known), known));
    let (errors, known) = scored.min()?;
    let name = key.split('.').nth(1).unwrap_or("NAME");
    (errors <= 1 + wanted.len() / 6).then(|| known.replace('*', name))
}

/// The known keys that share words with what was written: those of its own section first, else those of any. The more words, the better.
fn related(key: &str) -> Vec<String> {
    let wanted = pattern(key);
    let (section, last) = wanted.rsplit_once('.').unwrap_or(("", &wanted));
    let name = key.split('.').nth(1).filter(|_| wanted.contains('*'));
    let words: Vec<&str> = last.split('_').filter(|word| word.len() > 2).collect();
    let score = |known: &&String| {
        let last = known.rsplit('.').next().unwrap_or_default();
        words.iter().filter(|word| last.split('_').any(|part| alike(part, word))).count()
    };
    let (own, others): (Vec<_>, Vec<_>) =
        known_keys().iter().partition(|known| known.rsplit_once('.').is_some_and(|(of, _)| of == section));
    let keys = if own.iter().any(|known| score(known) > 0) { own } else { others };
    let best = keys.iter().map(score).max().unwrap_or(0);
    let found = keys.into_iter().filter(|known| best > 0 && score(known) == best).take(RELATED);
    let owner = |known: &str| if known.starts_with("tenants") { "default" } else { "NAME" };
    found.map(|known| known.replace('*', name.unwrap_or_else(|| owner(known)))).collect()
}

/// The same word, but for its ending or a typing error.
fn alike(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    (short.len() > 3 && long.starts_with(short)) || distance(one, other) <= short.len() / 4
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// The keys that take one of a few words, and these words.
const WORDS: [(&str, &str); 3] =
    [("host.kind", "embedded, temporal"), ("log.format", "auto, text, json"), ("tenants.*.generation", "auto, argo, native")];

fn wrong_type(merged: &Map<String, Value>, path: &str, error: &Foreign) -> ConfigError {
    if let Some((_, words)) = WORDS.iter().find(|(key, _)| *key == pattern(path))
        && let Some(Ok(given)) = find(merged, path).map(|value| value.clone().into_string())
    {
        let given: String = given.chars().take(SHOWN).collect();
        return at(merged, path, &format!("`{given}` is not one of {words}"), &format!("write one of {words}"));
    }
    let problem = match error {
        Foreign::Type { unexpected, expected, .. } => format!("{unexpected} is not {expected}"),
        Foreign::At { error, .. } => error.to_string(),
        other => other.to_string(),
    };
    let problem = problem.split(" for key `").next().unwrap_or_default();
    at(merged, path, problem, "`iolaus schema config` shows what belongs there")
}

/// A syntax error, without the line that it quotes: that line may hold a secret.
fn unreadable(origin: &str, error: &Foreign) -> ConfigError {
    let text = match error {
        Foreign::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    let said: Vec<&str> = text.lines().filter(|line| !line.contains('|') && !line.trim().is_empty()).collect();
    plain(origin, &said.join(": "), "correct the file; `iolaus schema config` shows the form")
}

pub(super) fn find<'a>(merged: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let (name, rest) = keys::step(merged, key)?;
    let value = merged.get(&name)?;
    match &value.kind {
        ValueKind::Table(table) if !rest.is_empty() => find(table, rest),
        _ => Some(value),
    }
}

pub(super) fn at(merged: &Map<String, Value>, key: &str, problem: &str, hint: &str) -> ConfigError {
    let origin = find(merged, key).and_then(origin_of).unwrap_or(BUILT_IN);
    ConfigError { key: Some(key.to_owned()), origin: origin.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() }
}

/// Where a value was set; a section was set where its first key was.
fn origin_of(value: &Value) -> Option<&str> {
    let below = || match &value.kind {
        ValueKind::Table(table) => table.values().find_map(origin_of),
        _ => None,
    };
    value.origin().or_else(below)
}

pub(super) fn plain(origin: &str, problem: &str, hint: &str) -> ConfigError {
    ConfigError { key: None, origin: origin.to_owned(), problem: problem.to_owned(), hint: hint.to_owned() }
}

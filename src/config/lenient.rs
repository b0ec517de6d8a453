//! The configuration as far as it can be used. Only `doctor` wants that: it names every mistake, and still checks what it can.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::load::{load_from, named_file};
use super::variables::means;
use super::{Config, ConfigError, Environment};

/// What is named is bounded; a file that is not a configuration at all would fill screens.
const MOST_PROBLEMS: usize = 50;

/// Reads what is configured, and puts aside what is refused: a variable, a key, or the whole file. A refusal only where nothing is left to
/// put aside.
pub(super) fn load(file: Option<PathBuf>, environment: &Environment) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let mut file = named_file(file, environment).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let (mut environment, mut without) = (environment.clone(), BTreeSet::new());
    loop {
        let problem = match load_from(file.clone(), &environment, &without) {
            Ok(config) => return Ok(Config { problems, ..config }),
            Err(problem) => problem,
        };
        if problems.len() >= MOST_PROBLEMS {
            return Err(problem);
        }
        let again = problems.contains(&problem);
        match (problem.origin.strip_prefix("the variable "), &problem.key) {
            (Some(variable), _) if !again => environment.retain(|(name, _)| !means(variable, name)),
            (_, Some(key)) if put_aside(&mut without, key) => {}
            _ if file.is_some() => file = None,
            _ => return Err(problem),
        }
        if !again {
            problems.push(problem);
        }
    }
}

/// Leaves out a key; if that was in vain, as where a key is missing, the section that it belongs to. False if both were left out before.
fn put_aside(without: &mut BTreeSet<String>, key: &str) -> bool {
    without.insert(key.to_owned()) || key.rsplit_once('.').is_some_and(|(section, _)| without.insert(section.to_owned()))
}

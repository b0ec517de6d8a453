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
        if problems.len() >= MOST_PROBLEMS || problems.contains(&problem) {
            return Err(problem);
        }
        match (problem.origin.strip_prefix("the variable "), &problem.key) {
            (Some(variable), _) => environment.retain(|(name, _)| !means(variable, name)),
            (None, Some(key)) => drop(without.insert(key.clone())),
            (None, None) => file = None,
        }
        problems.push(problem);
    }
}

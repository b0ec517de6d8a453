//! How many files this process may open. Below what a command needs, whatever it opens next fails, or ends the program.

use rustix::process::{Resource, getrlimit};

use super::exit::Problem;

/// Files, sockets and pipes that a worker of one tenant has open with a few connections, and some room.
const NEEDED: u64 = 64;

/// Refuses to run where too few may be opened.
pub fn check() -> anyhow::Result<()> {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < NEEDED => {
            let problem = Problem::unusable(format!("this process may open {limit} files, and needs {NEEDED} or more"));
            Err(problem.hint("raise the limit of open files: `ulimit -n 1024`, or LimitNOFILE= of its unit").into())
        }
        _ => Ok(()),
    }
}

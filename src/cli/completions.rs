//! `iolaus completions`: for the shell.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::exit::Exit;
use super::out::Out;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus completions bash > ~/.local/share/bash-completion/completions/iolaus
  iolaus completions zsh > ~/.zfunc/_iolaus";

/// Print a completion script for a shell
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, out: Out) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "iolaus", &mut script);
        out.line(String::from_utf8_lossy(&script).trim_end())?;
        Ok(Exit::Passed)
    }
}

//! `iolaus oauth-clients purge`: irreversible, so a person is asked, and a program has to say that it means it.

use std::io::{self, IsTerminal};

use clap::Args;
use serde::Serialize;

use super::Named;
use crate::cli::App;
use crate::cli::exit::{Exit, Problem};
use crate::cli::render::plain_line;

/// Purge an OAuth client and its tokens. This cannot be undone; you are asked, unless --yes
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus oauth-clients purge oauth-client-1f3a
  iolaus oauth-clients purge oauth-client-1f3a --yes")]
pub(crate) struct Purge {
    #[command(flatten)]
    client: Named,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Purged<'a> {
    client_id: &'a str,
    purged: bool,
}

impl Purge {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = app.tenants()?.get(&self.client.tenant.tenant)?;
        let client_id = &self.client.client_id;
        let mut purged = self.yes;
        if !purged {
            if !(io::stdin().is_terminal() && app.out.is_watched()) {
                let problem = Problem::usage(format!("purging {client_id} cannot be undone, and nobody is there to be asked"));
                return Err(problem.hint("say that you mean it: --yes").into());
            }
            let name = tenant.oauth_client(client_id).await?.display_name;
            app.out
                .note(&plain_line(&format!("{name} ({client_id}) of tenant {} and all its tokens will be gone.", tenant.name())));
            app.out.draw("This cannot be undone. Purge it? [y/N] ");
            purged = is_yes(&answer().await?);
        }
        if purged {
            tenant.purge_oauth_client(client_id).await?;
        }
        let told = if purged { "is purged" } else { "is left as it is" };
        app.out.data(&Purged { client_id, purged }, || format!("{client_id} {told}"))?;
        Ok(if purged { Exit::Passed } else { Exit::Cancelled })
    }
}

/// One line of stdin.
async fn answer() -> anyhow::Result<String> {
    let read = || {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    };
    Ok(tokio::task::spawn_blocking(read).await??)
}

/// Everything that is no clear yes is a no.
fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (line, expected) in [("y\n", true), (" YES \n", true), ("", false), ("\n", false), ("n\n", false), ("yess\n", false)] {
            assert_eq!(is_yes(line), expected, "{line:?}");
        }
    }
}

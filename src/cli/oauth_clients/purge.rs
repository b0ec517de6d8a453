//! `iolaus oauth-clients purge`: irreversible, so a person is asked, and a program has to confirm that it means it.

use clap::Args;
use serde::Serialize;

use super::Named;
use crate::cli::App;
use crate::cli::clean;
use crate::cli::confirm;
use crate::cli::exit::Exit;

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
        let tenant = self.client.tenant.open(app)?;
        let client_id = &self.client.client_id;
        let mut purged = self.yes;
        if !purged {
            if !confirm::can_ask(app) {
                return Err(confirm::no_terminal(&format!("purging {client_id} cannot be undone")).into());
            }
            let name = tenant.oauth_client(client_id).await?.display_name;
            let what = format!("{name} ({client_id}) of tenant {} and all its tokens will be gone.", tenant.name());
            purged = confirm::ask(app, &what, "This cannot be undone. Purge it?").await?;
        }
        if purged {
            tenant.purge_oauth_client(client_id).await?;
        }
        let told = if purged { "is purged" } else { "is left as it is" };
        app.out.outcome(&Purged { client_id, purged }, || clean::line(&format!("{client_id} {told}")));
        Ok(if purged { Exit::Passed } else { Exit::Cancelled })
    }
}

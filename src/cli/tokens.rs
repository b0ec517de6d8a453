//! `iolaus tokens`: API tokens of a tenant, by the name that people know. Their values are never shown: the tenant does not tell them.

use clap::{Args, Subcommand};
use iolaus_activities::tenant::ApiToken;
use iolaus_activities::timestamp;
use jiff::Timestamp;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::render::{moment, table};
use super::tenant_args::{OfTenant, not_empty};

/// Find API tokens of a tenant
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus tokens find ci")]
pub(crate) enum Tokens {
    Find(Find),
}

/// API tokens of this display name, with their guid, client id and expiry
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus tokens find ci
  iolaus tokens find 'nightly pipeline' --tenant acme --output json

Exit codes: 0, also when nothing is found; 3 the tenant could not be asked")]
pub(crate) struct Find {
    /// The token's display name, exactly as the tenant shows it
    #[arg(value_name = "NAME", value_parser = not_empty())]
    name: String,
    #[command(flatten)]
    tenant: OfTenant,
}

/// A token as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    guid: String,
    client_id: String,
    username: String,
    display_name: Option<String>,
    #[serde(with = "timestamp::optional")]
    created_at: Option<Timestamp>,
    #[serde(with = "timestamp::optional")]
    expires_at: Option<Timestamp>,
    expired: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    tenant: &'a str,
    api_tokens: Vec<Shown>,
}

impl Tokens {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        match self {
            Self::Find(find) => find.run(app).await,
        }
    }
}

impl Find {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.tenant.open(app)?;
        let found = tenant.api_tokens_named(&self.name).await?;
        let now = tenant.on_its_clock(app.clock.now());
        let api_tokens: Vec<_> = found.into_iter().map(|token| shown(token, now)).collect();
        let rows: Vec<_> = api_tokens.iter().map(row).collect();
        let nothing = api_tokens.is_empty();
        let listing = Listing { tenant: tenant.name(), api_tokens };
        app.out.data(&listing, || table(&["GUID", "CLIENT ID", "NAME", "CREATED", "EXPIRES"], &rows))?;
        if nothing {
            app.out.note(&format!("tenant {} has no API token named {:?}", tenant.name(), self.name));
        }
        Ok(Exit::Passed)
    }
}

fn shown(token: ApiToken, now: Timestamp) -> Shown {
    let username = token.username();
    let ApiToken { guid, client_id, display_name, created_at, expires_at } = token;
    let expired = expires_at.map(|at| at <= now);
    Shown { guid, client_id, username, display_name, created_at, expires_at, expired }
}

fn row(token: &Shown) -> Vec<String> {
    let expires = match (token.expires_at, token.expired) {
        (Some(at), Some(true)) => format!("{} (expired)", moment(Some(at))),
        (at, _) => moment(at),
    };
    let name = token.display_name.clone().unwrap_or_default();
    vec![token.guid.clone(), token.client_id.clone(), name, moment(token.created_at), expires]
}

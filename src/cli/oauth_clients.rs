//! `iolaus oauth-clients`: the OAuth clients of a tenant, from their creation to their purge. Commands and no jobs, since the secret of
//! a new client may enter no database.

mod create;
mod purge;

use clap::{Args, Subcommand};
use iolaus_activities::tenant::OAuthClient;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::input::utf8;
use super::render::table;

/// Create, list, show, change and purge OAuth clients of a tenant
#[derive(Debug, Clone, Subcommand)]
#[command(after_help = "\
Examples:
  iolaus oauth-clients create --name ci --role Admin --secret-file ci.secret
  iolaus oauth-clients list
  iolaus oauth-clients update oauth-client-1f3a --description 'for the nightly runs'
  iolaus oauth-clients purge oauth-client-1f3a")]
pub(crate) enum OAuthClients {
    Create(create::Create),
    List(List),
    Get(Get),
    Update(Update),
    Purge(purge::Purge),
}

/// All OAuth clients, page by page as they are fetched; in JSON one line for each page
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus oauth-clients list
  iolaus oauth-clients list --sort createdAt --offset 100 --limit 50")]
pub(crate) struct List {
    /// How many in a page, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
    limit: u8,
    /// How many to leave out before the first
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u32,
    /// createdAt, or -createdAt for the newest first
    #[arg(long, value_name = "ORDER", default_value = "-createdAt", allow_hyphen_values = true, value_parser = ["createdAt", "-createdAt"])]
    sort: String,
    #[command(flatten)]
    tenant: OfTenant,
}

/// One OAuth client by its id
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus oauth-clients get oauth-client-1f3a")]
pub(crate) struct Get {
    #[command(flatten)]
    client: Named,
}

/// Change the name or the description of an OAuth client
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  iolaus oauth-clients update oauth-client-1f3a --name nightly
  iolaus oauth-clients update oauth-client-1f3a --description 'for the nightly runs'")]
#[group(id = "change", required = true, multiple = true, args = ["name", "description"])]
pub(crate) struct Update {
    #[command(flatten)]
    client: Named,
    /// The new name
    #[arg(long, value_name = "NAME", value_parser = create::not_empty())]
    name: Option<String>,
    /// The new description; may be empty
    #[arg(long, value_name = "TEXT", value_parser = utf8())]
    description: Option<String>,
}

/// The client that is meant.
#[derive(Debug, Clone, Args)]
struct Named {
    /// The client's id, as in oauth-client-1f3a
    #[arg(value_name = "CLIENT_ID", value_parser = create::not_empty())]
    client_id: String,
    #[command(flatten)]
    tenant: OfTenant,
}

#[derive(Debug, Clone, Args)]
struct OfTenant {
    /// The tenant to ask
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = utf8())]
    tenant: String,
}

/// A client as it is shown.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    client_id: &'a str,
    display_name: &'a str,
    description: &'a str,
    role: Option<&'a str>,
    personas: &'a [String],
    token_expiry_seconds: Option<u64>,
    created_at: Option<&'a str>,
    created_by: Option<&'a str>,
    updated_at: Option<&'a str>,
    updated_by: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct ShownPage<'a> {
    total: Option<u64>,
    offset: usize,
    oauth_clients: Vec<Shown<'a>>,
}

impl OAuthClients {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        match self {
            Self::Create(create) => create.run(app).await,
            Self::List(list) => list.run(app).await,
            Self::Get(get) => get.run(app).await,
            Self::Update(update) => update.run(app).await,
            Self::Purge(purge) => purge.run(app).await,
        }
    }
}

impl List {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = app.tenants()?.get(&self.tenant.tenant)?;
        let mut offset = usize::try_from(self.offset)?;
        let (mut listed, mut total) = (0, None);
        for number in 0..tenant.settings().max_pages {
            let page = tenant.oauth_clients(offset, usize::from(self.limit), Some(&self.sort)).await?;
            total = page.total.or(total);
            let done = page.clients.is_empty();
            // The first page is there even if it is empty: whoever reads JSON gets one value at least.
            if number == 0 || !done {
                let oauth_clients: Vec<_> = page.clients.iter().map(shown).collect();
                let rows: Vec<_> = oauth_clients.iter().map(row).collect();
                let page = ShownPage { total, offset, oauth_clients };
                app.out.data(&page, || table(&["CLIENT ID", "NAME", "ROLE", "CREATED", "CREATED BY"], &rows))?;
            }
            listed += page.clients.len();
            offset += page.clients.len();
            if done || total.is_some_and(|total| u64::try_from(offset).unwrap_or(u64::MAX) >= total) {
                break;
            }
        }
        let left = total.is_none_or(|total| u64::try_from(offset).unwrap_or(u64::MAX) < total) && listed > 0;
        let more = if left { format!("; --offset {offset} may show more") } else { String::new() };
        let total = total.map_or_else(|| "an unknown number".to_owned(), |total| total.to_string());
        app.out.note(&format!("{listed} of {total} OAuth clients of tenant {} are shown{more}", self.tenant.tenant));
        Ok(Exit::Passed)
    }
}

impl Get {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = app.tenants()?.get(&self.client.tenant.tenant)?;
        show(app, &tenant.oauth_client(&self.client.client_id).await?)
    }
}

impl Update {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = app.tenants()?.get(&self.client.tenant.tenant)?;
        let (name, description) = (self.name.as_deref(), self.description.as_deref());
        show(app, &tenant.update_oauth_client(&self.client.client_id, name, description).await?)
    }
}

fn show(app: &App, client: &OAuthClient) -> anyhow::Result<Exit> {
    let shown = shown(client);
    app.out.data(&shown, || table(&["OAUTH CLIENT", ""], &fields(&shown)))?;
    Ok(Exit::Passed)
}

fn shown(client: &OAuthClient) -> Shown<'_> {
    Shown {
        client_id: &client.client_id,
        display_name: &client.display_name,
        description: &client.description,
        role: client.role.as_deref(),
        personas: &client.personas,
        token_expiry_seconds: client.token_seconds,
        created_at: client.created_at.as_deref(),
        created_by: client.created_by.as_deref(),
        updated_at: client.updated_at.as_deref(),
        updated_by: client.updated_by.as_deref(),
    }
}

fn row(client: &Shown<'_>) -> Vec<String> {
    let Shown { client_id, display_name, role, created_at, created_by, .. } = *client;
    let cells = [Some(client_id), Some(display_name), role, created_at, created_by];
    cells.map(|cell| cell.unwrap_or_default().to_owned()).to_vec()
}

fn fields(client: &Shown<'_>) -> Vec<Vec<String>> {
    let seconds = client.token_expiry_seconds.map(|seconds| format!("{seconds} s"));
    let personas = client.personas.join(", ");
    let rows = [
        ("client id", Some(client.client_id)),
        ("name", Some(client.display_name)),
        ("description", Some(client.description)),
        ("role", client.role),
        ("personas", Some(personas.as_str())),
        ("tokens live", seconds.as_deref()),
        ("created", client.created_at),
        ("created by", client.created_by),
        ("updated", client.updated_at),
        ("updated by", client.updated_by),
    ];
    let told = rows.into_iter().filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    told.map(|(name, value)| vec![name.to_owned(), value.to_owned()]).collect()
}

//! `iolaus oauth-clients`: the OAuth clients of a tenant, from their creation to their purge. Commands and no jobs, since the secret of
//! a new client may enter no database.

mod create;
mod purge;

use clap::{Args, Subcommand};
use iolaus_activities::tenant::{OAuthClient, OAuthClientPage};
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::input::utf8;
use super::render::table;
use super::tenant_args::{OfTenant, not_empty, path_name};

/// A listing is read no further than this, so that a tenant that always has more cannot hold a command for ever.
const MOST_PAGES: usize = 10_000;

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
  iolaus oauth-clients list --sort displayName --offset 100 --limit 50

Exit codes: 0; 3 the tenant could not be asked, or gave fewer clients than it says there are")]
pub(crate) struct List {
    /// The most clients to list in all [default: every one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// How many to ask for in one request, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=100))]
    page_size: u8,
    /// How many to leave out before the first
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u32,
    /// The field to sort by, as the tenant names it, as in createdAt or displayName; with - in front the other way round
    #[arg(long, value_name = "FIELD", default_value = "-createdAt", allow_hyphen_values = true, value_parser = not_empty())]
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
    #[arg(long, value_name = "NAME", value_parser = not_empty())]
    name: Option<String>,
    /// The new description; may be empty
    #[arg(long, value_name = "TEXT", value_parser = utf8())]
    description: Option<String>,
}

/// The client that is meant.
#[derive(Debug, Clone, Args)]
struct Named {
    /// The client's id, as in oauth-client-1f3a
    #[arg(value_name = "CLIENT_ID", value_parser = path_name())]
    client_id: String,
    #[command(flatten)]
    tenant: OfTenant,
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
        let tenant = self.tenant.open(app)?;
        let limit = self.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut progress = Progress { offset: usize::try_from(self.offset)?, listed: 0, total: None, unreadable: 0 };
        for number in 0..MOST_PAGES {
            let size = usize::from(self.page_size).min(limit.saturating_sub(progress.listed));
            if size == 0 {
                break;
            }
            let page = tenant.oauth_clients(progress.offset, size, Some(&self.sort)).await?;
            // The first page is printed even if it is empty: a reader of JSON gets one value at least.
            if number == 0 || !page.clients.is_empty() {
                print(app, &page, progress.offset)?;
            }
            progress.add(&page);
            if page.records == 0 || progress.left(&page) == Some(0) {
                break;
            }
        }
        Ok(progress.report(app, tenant.name(), limit))
    }
}

/// How far a listing is.
struct Progress {
    offset: usize,
    listed: usize,
    total: Option<u64>,
    unreadable: usize,
}

impl Progress {
    fn add(&mut self, page: &OAuthClientPage) {
        self.total = page.total.or(self.total);
        self.offset += page.records;
        self.listed += page.clients.len();
        self.unreadable += page.records - page.clients.len();
    }

    /// How many clients were not read, as far as that is known.
    fn left(&self, page: &OAuthClientPage) -> Option<u64> {
        let offset = u64::try_from(self.offset).unwrap_or(u64::MAX);
        self.total.map(|total| total.saturating_sub(offset)).or_else(|| (page.records < page.asked).then_some(0))
    }

    /// Says what was listed, and what was not. A list that was cut off by the tenant is not a success.
    fn report(&self, app: &App, tenant: &str, limit: usize) -> Exit {
        let offset = u64::try_from(self.offset).unwrap_or(u64::MAX);
        let complete = self.total.is_none_or(|total| offset >= total);
        let more = if complete { String::new() } else { format!("; --offset {} shows more", self.offset) };
        let total = self.total.map_or_else(|| "an unknown number".to_owned(), |total| total.to_string());
        app.out.note(&format!("{} of {total} OAuth clients of tenant {tenant} are shown{more}", self.listed));
        if self.unreadable > 0 {
            app.out.note(&format!("left out {} records that name no client", self.unreadable));
        }
        if complete || self.listed >= limit {
            return Exit::Passed;
        }
        app.out.note(&format!("tenant {tenant} listed fewer clients than it says there are"));
        Exit::Unresolved
    }
}

fn print(app: &App, page: &OAuthClientPage, offset: usize) -> anyhow::Result<()> {
    let oauth_clients: Vec<_> = page.clients.iter().map(shown).collect();
    let rows: Vec<_> = oauth_clients.iter().map(row).collect();
    let shown = ShownPage { total: page.total, offset, oauth_clients };
    Ok(app.out.data(&shown, || table(&["CLIENT ID", "NAME", "ROLE", "CREATED", "CREATED BY"], &rows))?)
}

impl Get {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.client.tenant.open(app)?;
        show(app, &tenant.oauth_client(&self.client.client_id).await?)
    }
}

impl Update {
    async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let tenant = self.client.tenant.open(app)?;
        let (name, description) = (self.name.as_deref(), self.description.as_deref());
        let client = tenant.update_oauth_client(&self.client.client_id, name, description).await?;
        let shown = shown(&client);
        app.out.outcome(&shown, || table(&["OAUTH CLIENT", ""], &fields(&shown)));
        Ok(Exit::Passed)
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

//! OAuth clients: `/api/service/oauth-clients`. Creating and purging one are effects, sent once. The secret of a new client stands in
//! the answer to its creation and nowhere else, so no failure quotes that answer.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Tenant;
use super::answer::{Count, Element, Exact, List, NAME, Plain, Secret, Text};
use super::apps::Object;
use super::classify::Effect;
use super::documents::{Page, Records};
use super::send::Call;
use super::target::{encoded, segment};
use crate::failure::{Category, Failure};

const CLIENTS: &str = "api/service/oauth-clients";
const NEEDS: &str = "the right to manage OAuth clients (as the role Admin has)";
/// The longest description that is shown, in bytes.
const DESCRIPTION: usize = 1024;
/// Where a client that may have been created is looked for: among so many of the newest.
const NEWEST: usize = 100;

/// An OAuth client, as the tenant shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClient {
    /// Its id, as in `oauth-client-…`.
    pub client_id: String,
    /// What people call it; others may be called the same.
    pub display_name: String,
    /// What it is for.
    pub description: String,
    /// The name of its role, as in `$admin`. The answer to a creation does not tell it.
    pub role: Option<String>,
    /// Qualified names of its personas.
    pub personas: Vec<String>,
    /// How long its tokens live.
    pub token_seconds: Option<u64>,
    /// When it was created, as the tenant writes it.
    pub created_at: Option<String>,
    /// Who created it.
    pub created_by: Option<String>,
    /// When it was changed last, as the tenant writes it.
    pub updated_at: Option<String>,
    /// Who changed it last.
    pub updated_by: Option<String>,
}

/// What a new client shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOAuthClient {
    /// What people call it.
    pub display_name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// The name of its role, as in `$admin`.
    pub role: String,
    /// Qualified names of its personas.
    pub personas: Vec<String>,
}

/// What became of a creation.
#[derive(Debug)]
pub enum OAuthCreation {
    /// The client is there, and this is its secret.
    Created(Box<OAuthClient>, SecretString),
    /// There is no client.
    NotCreated(Failure),
    /// There may be a client, and its secret is lost.
    UnknownFate(Failure),
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthClientPage {
    /// How many there are in all, where the tenant says so.
    pub total: Option<u64>,
    /// Those of this page that have an id.
    pub clients: Vec<OAuthClient>,
    /// How many records the page had. The next page begins after them.
    pub records: usize,
    /// How many were asked for: fewer than the caller wanted if so many made too long an answer.
    pub asked: usize,
}

impl Tenant {
    /// Creates a client. Sent once.
    pub async fn create_oauth_client(&self, new: &NewOAuthClient) -> OAuthCreation {
        let body = json!({"displayName": new.display_name, "description": new.description, "role": new.role,
            "personaQNs": new.personas});
        let call = Call::post("oauth_clients.create", CLIENTS, Some(body)).needs(NEEDS);
        let sent = self.send_effect(self.permit().await, &call).await;
        self.learn_who_was_denied(&call, &sent).await;
        let unreadable = |failure: Failure| {
            let status = failure.source.http_status.map(|status| format!(" ({status})")).unwrap_or_default();
            let message = format!("tenant `{}` gave no readable answer to {}{status}", self.name, call.operation);
            OAuthCreation::UnknownFate(Failure { message, ..failure })
        };
        match self.effect::<ClientRecord>(&call, sent) {
            Effect::Applied(mut record) => match (record.client_secret.0.take(), record.into_client()) {
                (Some(secret), Some(client)) => OAuthCreation::Created(Box::new(client), secret),
                _ => unreadable(self.unexpected(&call, "it names no client or no secret")),
            },
            Effect::AlreadyActive(failure) | Effect::Conflict(failure) | Effect::NotApplied(failure) => {
                OAuthCreation::NotCreated(failure)
            }
            Effect::UnknownFate(failure) if failure.source.http_status.is_some() => unreadable(failure),
            Effect::UnknownFate(failure) => OAuthCreation::UnknownFate(failure),
        }
    }

    /// Clients that may come of a creation whose answer was lost: of this name, and created at `since` (on the tenant's clock) or later,
    /// or at a time that cannot be read.
    pub async fn possibly_created(&self, display_name: &str, since: Timestamp) -> Result<Vec<OAuthClient>, Failure> {
        let page = self.oauth_clients(0, NEWEST, Some("-createdAt")).await?;
        let possible = |client: &OAuthClient| {
            let at = client.created_at.as_deref().and_then(moment);
            client.display_name == display_name && at.is_none_or(|at| at >= since)
        };
        Ok(page.clients.into_iter().filter(possible).collect())
    }

    /// One page of at most `limit` of the clients, and of fewer if its answer is too long. `sort` goes to the tenant as it is: a field
    /// such as `createdAt` or `displayName`, with `-` in front for the reverse order.
    pub async fn oauth_clients(&self, offset: usize, limit: usize, sort: Option<&str>) -> Result<OAuthClientPage, Failure> {
        let sort = sort.map(|sort| format!("&sort={}", encoded(sort))).unwrap_or_default();
        let list = |size| {
            let target = format!("{CLIENTS}?count=true&offset={offset}&limit={size}{sort}");
            Call::get("oauth_clients.list", target).needs(NEEDS)
        };
        let (call, asked, page) = self.read_page::<Records<ClientRecord>>(limit, list).await?;
        let total = page.total();
        let (found, records) = page.into_items().ok_or_else(|| self.unexpected(&call, Records::<ClientRecord>::LACKS))?;
        let clients = found.into_iter().filter_map(ClientRecord::into_client).collect();
        Ok(OAuthClientPage { total, clients, records, asked })
    }

    /// One client.
    pub async fn oauth_client(&self, client_id: &str) -> Result<OAuthClient, Failure> {
        self.one(client_id, &Call::get("oauth_clients.show", path(client_id)).needs(NEEDS)).await
    }

    /// Changes what is given and leaves the rest. Doing so twice is the same as once.
    pub async fn update_oauth_client(
        &self,
        client_id: &str,
        display_name: Option<&str>,
        description: Option<&str>,
    ) -> Result<OAuthClient, Failure> {
        let given = [("displayName", display_name), ("description", description)];
        let body: Map<_, _> = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect();
        self.one(client_id, &Call::put("oauth_clients.update", path(client_id), Value::Object(body)).needs(NEEDS)).await
    }

    /// Purges a client and its tokens, for good. Sent once.
    pub async fn purge_oauth_client(&self, client_id: &str) -> Result<(), Failure> {
        let call = Call::delete("oauth_clients.purge", path(client_id)).small().may_be_empty().needs(NEEDS);
        let sent = self.send_effect(self.permit().await, &call).await;
        self.learn_who_was_denied(&call, &sent).await;
        match self.effect::<Object>(&call, sent) {
            Effect::Applied(_) => Ok(()),
            Effect::AlreadyActive(failure) | Effect::Conflict(failure) | Effect::NotApplied(failure) => {
                Err(self.knowing_of_clients(failure))
            }
            Effect::UnknownFate(failure) => {
                let message = format!("{}; whether {client_id} is purged is not known", failure.message);
                Err(Failure { message, ..failure }.suggest(self.command("get", client_id)))
            }
        }
    }

    async fn one(&self, client_id: &str, call: &Call) -> Result<OAuthClient, Failure> {
        let record: ClientRecord = self.read(call).await.map_err(|failure| self.knowing_of_clients(failure))?;
        let client = record.into_client().ok_or_else(|| self.unexpected(call, "the client has no id"))?;
        if client.client_id == client_id { Ok(client) } else { Err(self.unexpected(call, "it shows another client")) }
    }

    /// Where to look for a client that is not there.
    fn knowing_of_clients(&self, failure: Failure) -> Failure {
        match failure.category {
            Category::NotFound => failure.suggest(self.command("list", "")),
            _ => failure,
        }
    }

    /// The command that does this with a client.
    fn command(&self, verb: &str, client_id: &str) -> String {
        oauth_client_command(&self.name, verb, client_id)
    }
}

/// The command that does something with an OAuth client of a tenant.
///
/// ```
/// # use iolaus_activities::tenant::oauth_client_command;
/// assert_eq!(oauth_client_command("acme", "purge", "oauth-client-1"), "iolaus oauth-clients purge oauth-client-1 --tenant acme");
/// ```
pub fn oauth_client_command(tenant: &str, verb: &str, client_id: &str) -> String {
    let mut command = format!("iolaus oauth-clients {verb}");
    if !client_id.is_empty() {
        command = format!("{command} {}", crate::shell_word(client_id));
    }
    if tenant != "default" {
        command = format!("{command} --tenant {}", crate::shell_word(tenant));
    }
    command
}

fn path(client_id: &str) -> String {
    format!("{CLIENTS}/{}", segment(client_id))
}

/// A client, as the tenant shows it. Only the answer to a creation holds a secret.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClientRecord {
    client_id: Exact,
    client_secret: Secret,
    display_name: Text<NAME>,
    description: Text<DESCRIPTION>,
    role: Text<NAME>,
    #[serde(rename = "personaQNs")]
    personas: List<PersonaName>,
    token_expiry_seconds: Count,
    created_at: Plain<NAME>,
    created_by: Text<NAME>,
    updated_at: Plain<NAME>,
    updated_by: Text<NAME>,
}

impl Element for ClientRecord {}

#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct PersonaName(Exact);

impl Element for PersonaName {
    const MOST: usize = 64;
}

impl ClientRecord {
    fn into_client(self) -> Option<OAuthClient> {
        let personas = self.personas.into_items().unwrap_or_default().0;
        Some(OAuthClient {
            client_id: self.client_id.0?,
            display_name: self.display_name.0.unwrap_or_default(),
            description: self.description.0.unwrap_or_default(),
            role: self.role.0,
            personas: personas.into_iter().filter_map(|persona| persona.0.0).collect(),
            token_seconds: self.token_expiry_seconds.whole(),
            created_at: self.created_at.0,
            created_by: self.created_by.0,
            updated_at: self.updated_at.0,
            updated_by: self.updated_by.0,
        })
    }
}

/// RFC 3339, or Unix milliseconds as a string.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| Timestamp::from_millisecond(text.parse().ok()?).ok())
}

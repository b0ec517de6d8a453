//! `token_admin_grant`: makes an API token an admin of a connection, and reads back that it is one.

mod direct;
mod package;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::activity::{Activity, ActivityError, ActivityOptions, CancelPlan, InputError, Timeouts};
use crate::context::{ActivityContext, Stop};
use crate::failure::{Category, Failure};
use crate::follow::{Patience, alive, command, tokens_command};
use crate::inputs::{check_name, check_qualified_name, check_visible};
use crate::submission::Effort;
use crate::tenant::{ApiToken, Connection, Generation, Kind, TOKEN_ADMIN_PACKAGE, Tenant, Tenants, is_absence};
use crate::text::{clip, shell_word};
use crate::timestamp;
use crate::verdict::Verdict;

/// What every verdict answers.
const IS_ADMIN: &str = "TokenIsConnectionAdmin";
/// The least wait between two tries to read back.
const READ_BACK_WAIT: Duration = Duration::from_secs(1);
/// How long an execution takes at most.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Makes an API token an admin of a connection.
///
/// Repeat story: every attempt reads the connection first, and sends nothing once the token is an admin. By the package, the name of
/// the workflow is saved before it is created, and a creation or run of unknown fate is searched under that name before anything is
/// sent again. Directly, a write puts the token into a set, so a second one adds nothing; whatever became of the first is seen in the
/// connection. The limit: the tenant replaces the whole list of admins, so what a foreign writer adds between our read and our write,
/// or before a write that was given up for lost arrives after all, is lost unseen.
///
/// Only a token that is seen among the admins passes. The package reports success even when it could not save.
pub struct TokenAdminGrant {
    tenants: Arc<Tenants>,
}

/// What `token_admin_grant` takes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenAdminGrantInput {
    /// The connection, as in `default/snowflake/1234567890`.
    pub connection_qualified_name: String,
    /// The guid of the API token. It is not the uuid within `apikey-…`. Either this or `api_token_name` is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub api_token_guid: String,
    /// The display name of the API token, which must be that of one token alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_token_name: Option<String>,
    /// How it is granted.
    #[serde(default)]
    pub method: Method,
}

/// How a token is made an admin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// By the package if the tenant has a workflow of it already, which shows that the package is enabled there; else, or if it turns
    /// out to be gone, directly.
    #[default]
    Auto,
    /// By a workflow of the package `@csa/api-token-connection-admin`, which is created for it. The package also drops admins that no
    /// longer exist.
    Package,
    /// By writing the connection's admins.
    Direct,
}

/// What outlives an attempt. Saved before the first effect, so that there is none as long as nothing was sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkpoint {
    /// When the first attempt began.
    #[serde(with = "timestamp")]
    begun: Timestamp,
    way: Way,
}

/// How it is granted, chosen once, and how far that is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "lowercase")]
enum Way {
    Direct(direct::Writes),
    Package(Box<package::Creating>),
}

/// One grant, as an attempt sees it.
struct Grant<'a> {
    ctx: &'a ActivityContext,
    tenant: &'a Tenant,
    input: &'a TokenAdminGrantInput,
    begun: Timestamp,
    /// The token's guid.
    token: String,
    /// The user that the token's holder is.
    user: String,
}

#[derive(Serialize)]
struct Progress<'a> {
    step: &'static str,
    connection: &'a str,
}

impl TokenAdminGrant {
    /// Grants at these tenants.
    pub fn new(tenants: Arc<Tenants>) -> Self {
        Self { tenants }
    }
}

impl Activity for TokenAdminGrant {
    const NAME: &'static str = "token_admin_grant";
    type Input = TokenAdminGrantInput;

    fn options(_: &Self::Input) -> ActivityOptions {
        let start_to_close = Duration::from_secs(600);
        let timeouts = Timeouts { start_to_close, schedule_to_close: Some(LONGEST), ..Timeouts::default() };
        ActivityOptions { timeouts, ..ActivityOptions::default() }
    }

    fn validate(input: &Self::Input) -> Result<(), InputError> {
        check_qualified_name("connection_qualified_name", &input.connection_qualified_name)?;
        match input.api_token_name.as_deref() {
            None if input.api_token_guid.is_empty() => {
                Err(InputError::new("api_token_guid", "is missing: name the API token by it or by `api_token_name`"))
            }
            None => check_name("api_token_guid", &input.api_token_guid),
            Some(_) if !input.api_token_guid.is_empty() => {
                Err(InputError::new("api_token_name", "must not be given beside `api_token_guid`"))
            }
            Some(name) => {
                let fine = (1..=256).contains(&name.len()) && name.trim() == name;
                InputError::unless(fine, "api_token_name", "must be a display name: 1 to 256 bytes, no space around it")?;
                check_visible("api_token_name", name)
            }
        }
    }

    /// There is a checkpoint once something may have been sent.
    fn on_cancel(_: &str, input: &Self::Input, _: &Value) -> CancelPlan {
        let connection = &input.connection_qualified_name;
        let message = format!("the token may have become an admin of {connection}; that was not read back");
        let facts = Map::from_iter([("connection_qualified_name".to_owned(), json!(connection))]);
        CancelPlan::Close { message: Some(message), facts }
    }

    async fn run(&self, ctx: &ActivityContext, input: Self::Input) -> Result<Verdict, ActivityError> {
        let tenant = self.tenants.get(ctx.tenant())?;
        check_generation(&tenant, &input)?;
        let saved: Option<Checkpoint> = ctx.checkpoint()?;
        let begun = saved.as_ref().map_or_else(|| ctx.now(), |saved| saved.begun);
        let token = find_token(ctx, &tenant, &input).await?;
        let (token, user) = (token.guid.clone(), token.username());
        let grant = Grant { ctx, tenant: &tenant, input: &input, begun, token, user };
        let connection = grant.look("reading the connection").await??;
        let way = match saved {
            Some(Checkpoint { way, .. }) if grant.is_seen(&connection) => return Ok(grant.seen(&connection, &way)),
            Some(Checkpoint { way, .. }) => way,
            None if grant.is_seen(&connection) => return Ok(grant.already(&connection)),
            None => grant.choose().await?,
        };
        let mut method = way.method();
        let granted = match way {
            Way::Direct(writes) => grant.directly(writes).await,
            Way::Package(creating) => match grant.by_package(*creating).await {
                // What was found are leftovers of a package that the tenant has no more. Nothing was created.
                Err(ActivityError::Failed(failure)) if input.method == Method::Auto && failure.code == package::ABSENT => {
                    method = "direct";
                    grant.directly(direct::Writes::default()).await
                }
                granted => granted,
            },
        };
        granted.map_err(|error| grant.with_facts(error, &connection, method))
    }
}

impl Way {
    fn method(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Package(_) => "package",
        }
    }
}

impl Grant<'_> {
    /// The connection as it is now.
    async fn look(&self, step: &'static str) -> Result<Result<Connection, Failure>, Stop> {
        let name = &self.input.connection_qualified_name;
        let found = alive(self.ctx, &Progress { step, connection: name }, self.tenant.connection(name)).await?;
        Ok(found.and_then(|found| found.ok_or_else(|| self.not_found())))
    }

    /// The connection as it is after something was sent: a refusal to show it decides nothing for a while.
    async fn read_back(&self) -> Result<Connection, ActivityError> {
        let mut patience = Patience::default();
        loop {
            let looked = self.look("reading back").await.map_err(|stop| self.stopped_after_sending(stop))?;
            let wait = match looked {
                Ok(connection) => return Ok(connection),
                Err(failure) => {
                    patience.after_effect(self.ctx, self.tenant, failure).map_err(|failure| self.not_read_back(failure))?
                }
            };
            let nap = self.ctx.clock().sleep(wait.max(READ_BACK_WAIT));
            let progress = Progress { step: "reading back", connection: &self.input.connection_qualified_name };
            alive(self.ctx, &progress, nap).await.map_err(|stop| self.stopped_after_sending(stop))?;
        }
    }

    fn not_read_back(&self, failure: Failure) -> Failure {
        if failure.retryable {
            return failure;
        }
        let message = format!("{}: {}", self.may_be_admin(), failure.message);
        Failure { message: clip(message), ..failure }.suggest(self.again(self.input.method))
    }

    fn not_found(&self) -> Failure {
        let message = format!("tenant `{}` has no connection {}", self.tenant.name(), self.input.connection_qualified_name);
        Failure::new("connection.not_found", Category::NotFound, message)
            .suggest("check the qualified name, as in default/snowflake/1234567890; an archived connection does not count")
    }

    fn is_seen(&self, connection: &Connection) -> bool {
        connection.is_administered_by(&self.user)
    }

    async fn choose(&self) -> Result<Way, ActivityError> {
        let package = match self.input.method {
            Method::Package => true,
            Method::Direct => false,
            Method::Auto if self.tenant.settings().generation == Generation::Native => false,
            Method::Auto => {
                let progress = Progress { step: "choosing the method", connection: &self.input.connection_qualified_name };
                match alive(self.ctx, &progress, self.tenant.workflows_of_package(TOKEN_ADMIN_PACKAGE)).await? {
                    // It has no workflows at all.
                    Err(failure) if is_absence(&failure) => false,
                    found => !found?.is_empty(),
                }
            }
        };
        if !package {
            return Ok(Way::Direct(direct::Writes::default()));
        }
        let name = self.free_name(None).await?;
        Ok(Way::Package(Box::new(package::Creating { created: false, effort: Effort::new(Kind::Workflow, &name) })))
    }

    async fn save(&self, way: Way) -> Result<(), ActivityError> {
        Ok(self.ctx.save(&self.checkpoint(way)).await?)
    }

    fn checkpoint(&self, way: Way) -> Checkpoint {
        Checkpoint { begun: self.begun, way }
    }

    /// The verdict of a token that was an admin before anything was sent.
    fn already(&self, connection: &Connection) -> Verdict {
        let message = format!("{} is an admin of {} already; nothing was sent", self.user, connection.qualified_name);
        self.verdict(true, message, connection, None).fact("already_admin", true)
    }

    /// The verdict of a token that is an admin now, and was none when something was first sent.
    fn seen(&self, connection: &Connection, way: &Way) -> Verdict {
        let message = format!("{} is an admin of {}", self.user, connection.qualified_name);
        let mut verdict = self.verdict(true, message, connection, Some(way.method()));
        if let Way::Package(creating) = way {
            verdict.facts.extend(creating.facts());
        }
        verdict
    }

    fn verdict(&self, passed: bool, message: String, connection: &Connection, method: Option<&str>) -> Verdict {
        let verdict = if passed { Verdict::passed(message) } else { Verdict::failed(message) };
        let mut verdict = verdict.check(IS_ADMIN, passed).fact("already_admin", false);
        verdict.facts.extend(self.facts(connection, method));
        verdict.fact("admin_users_count", connection.admin_users.len())
    }

    fn facts(&self, connection: &Connection, method: Option<&str>) -> Map<String, Value> {
        Map::from_iter([
            ("connection_qualified_name".to_owned(), json!(connection.qualified_name)),
            ("connection_guid".to_owned(), json!(connection.guid)),
            ("token_user".to_owned(), json!(self.user)),
            ("method".to_owned(), json!(method)),
        ])
    }

    /// Adds to an end without a verdict what is known all the same.
    fn with_facts(&self, mut error: ActivityError, connection: &Connection, method: &str) -> ActivityError {
        let known = match &mut error {
            ActivityError::Failed(failure) => &mut failure.facts,
            ActivityError::Cancelled { facts, .. } => facts,
            ActivityError::Interrupted => return error,
        };
        let mut all = self.facts(connection, Some(method));
        all.append(known);
        *known = all;
        error
    }

    /// A denial, with what would fix it. Any other failure stays as it is.
    fn permitted(&self, failure: Failure) -> Failure {
        if failure.category != Category::Permission {
            return failure;
        }
        let connection = &self.input.connection_qualified_name;
        let message = format!("{} was not made an admin of {connection}: {}", self.user, failure.message);
        Failure { facts: failure.facts, ..Failure::new("grant.not_permitted", Category::Permission, message) }
            .with_source(failure.source)
            .suggest(format!(
                "use an API key of somebody who is an admin of {connection}, or have one of its admins add that key's owner"
            ))
    }

    /// The command that asks for the same again, by this method.
    fn again(&self, method: Method) -> String {
        let (connection, token) = (&self.input.connection_qualified_name, &self.token);
        let method = match method {
            Method::Auto => "",
            Method::Package => " method=package",
            Method::Direct => " method=direct",
        };
        let connection = format!("connection_qualified_name={connection}");
        let token = format!("api_token_guid={token}");
        command(self.ctx, &format!("token_admin_grant {} {}{method}", shell_word(&connection), shell_word(&token)))
    }

    fn may_be_admin(&self) -> String {
        let connection = &self.input.connection_qualified_name;
        format!("{} may have become an admin of {connection}; that was not read back", self.user)
    }

    /// How a stop ends the attempt once something was sent that was not read back.
    fn stopped_after_sending(&self, stop: Stop) -> ActivityError {
        let Stop::Cancelled { reason } = stop else { return stop.into() };
        let outcome = format!("{}; see by `{}`", self.may_be_admin(), self.again(self.input.method));
        let message = reason.map_or_else(|| outcome.clone(), |reason| format!("{reason}; {outcome}"));
        ActivityError::Cancelled { message: Some(message), facts: Map::new() }
    }
}

async fn find_token(ctx: &ActivityContext, tenant: &Tenant, input: &TokenAdminGrantInput) -> Result<ApiToken, ActivityError> {
    let progress = Progress { step: "finding the token", connection: &input.connection_qualified_name };
    let Some(name) = &input.api_token_name else {
        let guid = &input.api_token_guid;
        let found = alive(ctx, &progress, tenant.api_token(guid)).await??;
        return found.ok_or_else(|| {
            let message = format!("tenant `{}` has no API token with guid {guid}", tenant.name());
            let failure = Failure::new("token.not_found", Category::NotFound, message);
            failure.suggest("give the token's own guid, which is not the uuid within its client id apikey-…").into()
        });
    };
    let mut found = alive(ctx, &progress, tenant.api_tokens_named(name)).await??;
    match (found.pop(), found.len()) {
        (Some(token), 0) => Ok(token),
        (None, _) => {
            let message = format!("tenant `{}` has no API token named {name}", tenant.name());
            let failure = Failure::new("token.not_found", Category::NotFound, message);
            Err(failure.suggest(tokens_command(ctx.tenant(), name)).into())
        }
        (Some(_), others) => {
            let message = format!("tenant `{}` has {} API tokens named {name}; give api_token_guid", tenant.name(), others + 1);
            let failure = Failure::new("token.ambiguous", Category::Precondition, message);
            Err(failure.suggest(tokens_command(ctx.tenant(), name)).into())
        }
    }
}

fn check_generation(tenant: &Tenant, input: &TokenAdminGrantInput) -> Result<(), Failure> {
    if (tenant.settings().generation, input.method) != (Generation::Native, Method::Package) {
        return Ok(());
    }
    let message = format!("tenant `{}` is set to native and has no workflows; give method=direct", tenant.name());
    Err(Failure::new("generation.unsupported", Category::Unimplemented, message))
}

#[cfg(test)]
mod tests;

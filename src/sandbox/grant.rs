//! The end of a run, and what the token-admin package does there.
//!
//! Played after the package's public source: it resolves the token, drops admins that no longer exist, appends the
//! token, and saves the whole list.

use serde_json::Value;

use super::ledger::What;
use super::runs::{Ending, Run, RunId};
use super::state::Tenant;

/// The annotation value by which a workflow is of the token-admin package.
const PACKAGE: &str = "@csa/api-token-connection-admin";

/// What a run of the package was asked to do, as the template stood when the run started.
#[derive(Clone, Debug, Default)]
pub(super) struct GrantRequest {
    connection: String,
    token: String,
}

impl GrantRequest {
    /// Reads both parameters from a template of the package; `None` for any other template.
    pub(super) fn of_template(template: &Value) -> Option<Self> {
        if template["metadata"]["annotations"]["package.argoproj.io/name"] != PACKAGE {
            return None;
        }
        let mut request = Self::default();
        for (name, value) in parameters(&template["spec"]) {
            match name {
                "connection_qualified_name" => value.clone_into(&mut request.connection),
                "api_token_guid" => value.clone_into(&mut request.token),
                _ => {}
            }
        }
        Some(request)
    }
}

fn parameters(spec: &Value) -> impl Iterator<Item = (&str, &str)> {
    items(&spec["templates"])
        .flat_map(|template| items(&template["dag"]["tasks"]))
        .flat_map(|task| items(&task["arguments"]["parameters"]))
        .filter_map(|parameter| Some((parameter["name"].as_str()?, parameter["value"].as_str()?)))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Ends a run whose time has come; called once for each.
pub(super) fn settle(tenant: &mut Tenant, id: RunId) {
    let Some(run) = tenant.runs.get(id) else {
        return;
    };
    if !run.applies_grant() {
        return;
    }
    let run = run.clone();
    let Some(request) = run.grant.clone() else {
        return;
    };
    if let Err(message) = apply(tenant, &run, &request)
        && let Some(run) = tenant.runs.get_mut(id)
    {
        run.end = Ending::failed(message);
    }
}

fn apply(tenant: &mut Tenant, run: &Run, request: &GrantRequest) -> Result<(), String> {
    if request.connection.is_empty() || request.token.is_empty() {
        return Err("missing required parameters (exit code 4)".to_owned());
    }
    let (known, strict) = (known_users(tenant), tenant.settings.strict_admins);
    let token = tenant.tokens.iter().find(|token| token.guid == request.token);
    let user = token.ok_or_else(|| format!("unable to find API token {} (exit code 5)", request.token))?.username();
    let connection = tenant.connections.get_mut(&request.connection);
    let connection = connection.ok_or_else(|| format!("unable to find connection {} (exit code 6)", request.connection))?;
    if !connection.may_administer(&run.by, strict) {
        return Err(format!("{} is not permitted to administer connection {}", run.by.username, request.connection));
    }
    let mut admins = connection.admins().clone();
    if admins.users.contains(&user) {
        return Ok(());
    }
    let (kept, pruned) = admins.users.into_iter().partition(|name| known.contains(name));
    admins.users = kept;
    admins.users.push(user.clone());
    connection.set_admins(run.finished_at(), admins);
    let what = What::AdminGrantedByRun { connection: request.connection.clone(), user, run: run.name.clone(), pruned };
    tenant.ledger.record(run.finished_at(), what);
    Ok(())
}

/// The user names that exist, those of service accounts too.
pub(super) fn known_users(tenant: &Tenant) -> Vec<String> {
    let principals = tenant.principals.iter().map(|principal| principal.username.clone());
    let users = tenant.users.iter().map(|user| user.username.clone());
    let tokens = tenant.tokens.iter().map(super::tokens::ApiToken::username);
    principals.chain(users).chain(tokens).collect()
}

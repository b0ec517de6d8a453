//! Workflows, that is templates: search, show, submit, create.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::classify::{Effect, is_already_active};
use super::runs::{Run, hits, newest_created_first, text, time};
use super::send::Call;
use super::token_admin::made_for;
use super::{Identity, Permit, Tenant};
use crate::failure::{Category, Failure};
use crate::text::shell_word;

/// The namespace of every workflow.
const NAMESPACE: &str = "default";
/// How many matches a search by package reads.
const BY_PACKAGE: usize = 50;
/// The annotation that names the package of a workflow.
const PACKAGE: &str = "package.argoproj.io/name";

/// A workflow of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    /// Its name, as in `atlan-snowflake-1684500411`.
    pub name: String,
    /// Its package, as in `@atlan/snowflake`.
    pub package: Option<String>,
    /// When it was created.
    pub created_at: Option<Timestamp>,
    /// Who created it, as far as the tenant says.
    pub creator: Option<String>,
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submission {
    /// The answer names the run.
    Applied(Run),
    /// The tenant refused because a run of this workflow is active.
    AlreadyActive(Failure),
    /// It was not carried out.
    NotApplied(Failure),
    /// It may have been carried out; only the tenant's runs can tell.
    UnknownFate(Failure),
}

/// What became of a creation.
#[derive(Debug, Clone, PartialEq)]
pub enum Creation {
    /// The workflow is there and was submitted. Some tenants name the run.
    Applied(Option<Run>),
    /// The tenant refused because a workflow of this name is there.
    Taken(Failure),
    /// It was not carried out.
    NotApplied(Failure),
    /// It may have been carried out; only the tenant's workflows can tell.
    UnknownFate(Failure),
}

/// The full name of a package: `snowflake` and `atlan-snowflake` are `@atlan/snowflake`, `csa-asset-import` is `@csa/asset-import`; what
/// starts with `@` stays.
///
/// ```
/// # use iolaus_activities::tenant::package_name;
/// assert_eq!(package_name("atlan-snowflake-miner"), "@atlan/snowflake-miner");
/// assert_eq!(package_name("@csa/asset-import"), "@csa/asset-import");
/// ```
pub fn package_name(written: &str) -> String {
    let written = written.trim();
    if written.starts_with('@') {
        return written.to_owned();
    }
    if let Some(package) = written.strip_prefix("csa-") {
        return format!("@csa/{package}");
    }
    format!("@atlan/{}", written.strip_prefix("atlan-").unwrap_or(written))
}

/// The command that helps when a tenant has no workflow of this name: it lists those of the type that the name tells of, else it checks
/// the tenant.
///
/// ```
/// # use iolaus_activities::tenant::where_to_look;
/// assert_eq!(where_to_look("default", "atlan-snowflake-1684500500"), "iolaus workflows find @atlan/snowflake");
/// assert_eq!(where_to_look("acme", "nightly"), "iolaus doctor --tenant acme");
/// ```
pub fn where_to_look(tenant: &str, workflow: &str) -> String {
    match package_of_name(workflow) {
        Some(package) => find_command(tenant, &package),
        None => format!("iolaus doctor{}", of_tenant(tenant)),
    }
}

/// The command that lists the workflows of a package.
pub(crate) fn find_command(tenant: &str, package: &str) -> String {
    format!("iolaus workflows find {}{}", shell_word(package), of_tenant(tenant))
}

fn of_tenant(tenant: &str) -> String {
    if tenant == "default" { String::new() } else { format!(" --tenant {}", shell_word(tenant)) }
}

/// The package that a name tells of: `atlan-` or `csa-`, the package, and the second of its creation, with or without a run's suffix.
fn package_of_name(name: &str) -> Option<String> {
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name.split('-').collect();
    let end = parts.iter().position(is_number).unwrap_or(parts.len());
    let (scope, package) = parts[..end].split_first()?;
    let plain = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let fine = matches!(*scope, "atlan" | "csa") && !package.is_empty() && package.iter().all(plain);
    fine.then(|| format!("@{scope}/{}", package.join("-")))
}

impl Tenant {
    /// The workflow of this name.
    pub async fn workflow(&self, name: &str) -> Result<Option<Workflow>, Failure> {
        Ok(self.template(name).await?.as_ref().and_then(decode))
    }

    /// Whether the name of `workflow` is in use, and if so, whether by `workflow` itself: false only if what is there shows that it was
    /// made for another connection or token.
    pub async fn stands(&self, workflow: &Value) -> Result<Option<bool>, Failure> {
        let found = self.template(&text(&workflow["metadata"]["name"]).unwrap_or_default()).await?;
        Ok(found.map(|found| made_for(&found).is_none_or(|shown| Some(shown) == made_for(workflow))))
    }

    async fn template(&self, name: &str) -> Result<Option<Value>, Failure> {
        let must = json!([{"term": {"metadata.name.keyword": {"value": name}}}]);
        let query = json!({"nested": {"path": "metadata", "query": {"bool": {"must": must}}}});
        let call = search("workflows.show", 1, &query);
        let found = self.templates(&call).await?;
        Ok(found.into_iter().find(|template| template["metadata"]["name"] == name))
    }

    /// The workflows of a package, newest first, at most 50. Packages that only start alike do not match.
    pub async fn workflows_of_package(&self, package: &str) -> Result<Vec<Workflow>, Failure> {
        let package = package_name(package);
        let term = json!({"term": {format!("metadata.annotations.{PACKAGE}.keyword"): {"value": package}}});
        let query = json!({"nested": {"path": "metadata", "query": term}});
        let call = search("workflows.find", BY_PACKAGE, &query);
        let mut found = self.workflows(&call).await?;
        found.retain(|workflow| workflow.package.as_deref() == Some(&package));
        Ok(found)
    }

    /// Submits a workflow once, as `identity`. The permit was waited for before, and no other request is made, so nothing stands between
    /// a caller's saved intent and this one. `request_id` was saved too, for a support case about a submission of unknown fate.
    pub async fn submit(&self, permit: Permit<'_>, identity: &Identity, workflow: &str, request_id: &str) -> Submission {
        let path = identity.workflows_path();
        let body = json!({"namespace": NAMESPACE, "resourceKind": "WorkflowTemplate", "resourceName": workflow});
        let call = Call::post("workflows.submit", format!("api/service/{path}/submit"), Some(body))
            .with_request_id(request_id)
            .needs("the right to run workflows");
        let sent = self.send_now(permit, &call).await;
        match self.effect(&call, sent) {
            Effect::Applied(body) => match Run::of_answer(&body, workflow) {
                Some(run) => Submission::Applied(run),
                None => Submission::UnknownFate(self.unexpected(&call, "it names no run")),
            },
            Effect::Conflict(failure) => Submission::AlreadyActive(failure),
            Effect::NotApplied(failure) => Submission::NotApplied(failure),
            Effect::UnknownFate(failure) => Submission::UnknownFate(failure),
        }
    }

    /// Creates a workflow and submits it, in one request that is sent once and at once, as `identity`. The answer names the workflow
    /// and, as a rule, no run.
    pub async fn create_and_submit(&self, permit: Permit<'_>, identity: &Identity, workflow: &Value, request_id: &str) -> Creation {
        let path = identity.workflows_path();
        let call = Call::post("workflows.create", format!("api/service/{path}?submit=true"), Some(workflow.clone()))
            .with_request_id(request_id)
            .needs("the right to create and run workflows");
        let name = text(&workflow["metadata"]["name"]).unwrap_or_default();
        let sent = self.send_now(permit, &call).await;
        match self.effect(&call, sent) {
            Effect::Applied(body) => match Run::of_answer(&body, &name) {
                None if body["metadata"]["name"] != name.as_str() => {
                    Creation::UnknownFate(self.unexpected(&call, "it does not name the workflow"))
                }
                run => Creation::Applied(run),
            },
            // It was stored, or was there before; its submission met a run.
            Effect::Conflict(failure) if is_already_active(&failure) => Creation::UnknownFate(failure),
            Effect::Conflict(failure) => Creation::Taken(failure),
            Effect::NotApplied(failure) => Creation::NotApplied(failure),
            Effect::UnknownFate(failure) => Creation::UnknownFate(failure),
        }
    }

    async fn workflows(&self, call: &Call) -> Result<Vec<Workflow>, Failure> {
        Ok(self.templates(call).await?.iter().filter_map(decode).collect())
    }

    async fn templates(&self, call: &Call) -> Result<Vec<Value>, Failure> {
        let body = self.read(call).await?;
        let hits = hits(&body).map_err(|problem| self.unexpected(call, &problem))?;
        Ok(hits.iter().map(|hit| hit["_source"].clone()).collect())
    }

    /// A success whose body is not what the operation promises.
    pub(super) fn unexpected(&self, call: &Call, problem: &str) -> Failure {
        let message = format!("tenant `{}` answered {} with something unexpected: {problem}", self.name, call.operation);
        Failure::new("tenant.unreadable", Category::DependencyUnavailable, message).with_source(call.source())
    }
}

fn search(operation: &'static str, size: usize, filter: &Value) -> Call {
    let body = json!({
        "from": 0, "size": size, "track_total_hits": true,
        "query": {"bool": {"filter": [filter]}},
        "sort": newest_created_first(),
    });
    Call::post(operation, "api/service/workflows/indexsearch", Some(body)).needs("the right to see workflows")
}

pub(super) fn decode(source: &Value) -> Option<Workflow> {
    let metadata = &source["metadata"];
    Some(Workflow {
        name: text(&metadata["name"])?,
        package: text(&metadata["annotations"][PACKAGE]),
        created_at: time(&metadata["creationTimestamp"]),
        creator: text(&metadata["labels"]["workflows.argoproj.io/creator"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_of_its_package_or_of_none() {
        for (name, package) in [
            ("atlan-snowflake-miner-1684500600", Some("@atlan/snowflake-miner")),
            ("atlan-snowflake-1684500500-f4aw5", Some("@atlan/snowflake")),
            ("csa-api-token-connection-admin-1684500411", Some("@csa/api-token-connection-admin")),
            ("atlan-nothing", Some("@atlan/nothing")),
            ("atlan", None),
            ("atlan-1684500600", None),
            ("nightly-1684500600", None),
            ("atlan-a b", None),
            ("", None),
        ] {
            assert_eq!(package_of_name(name).as_deref(), package, "{name}");
        }
    }

    #[test]
    fn a_package_is_found_by_every_way_to_write_it() {
        for (written, package) in [
            ("snowflake", "@atlan/snowflake"),
            ("atlan-snowflake", "@atlan/snowflake"),
            ("@atlan/snowflake", "@atlan/snowflake"),
            ("csa-api-token-connection-admin", "@csa/api-token-connection-admin"),
            ("@csa/api-token-connection-admin", "@csa/api-token-connection-admin"),
        ] {
            assert_eq!(package_name(written), package, "{written}");
        }
    }
}

//! Workflows, that is templates: search, show, submit, create.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Element, Lenient, decode_ours};
use super::classify::Effect;
use super::documents::{Hits, Metadata};
use super::packages::package_name;
use super::runs::{Run, Started, newest_created_first};
use super::send::Call;
use super::token_admin::{Template, made_for};
use super::{Identity, Permit, Tenant};
use crate::failure::Failure;

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

/// What stands under the name of a workflow that is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namesake {
    /// Whether it was made for the same connection and token. None: its template does not show that.
    pub is_same: Option<bool>,
    /// What else it shows.
    pub workflow: Workflow,
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

/// The document of a workflow, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    metadata: Lenient<Metadata>,
    spec: Lenient<Template>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkflowHit {
    #[serde(rename = "_source")]
    source: Lenient<Document>,
}

impl Element for WorkflowHit {}

impl WorkflowHit {
    pub(super) fn into_workflow(self) -> Option<Workflow> {
        self.source.0.into_workflow()
    }
}

impl Document {
    fn into_workflow(self) -> Option<Workflow> {
        let metadata = self.metadata.0;
        Some(Workflow {
            name: metadata.name.0?,
            package: metadata.annotations.0.package.0,
            created_at: metadata.creation_timestamp.0,
            creator: metadata.labels.0.creator.0,
        })
    }
}

impl Tenant {
    /// The workflow of this name.
    pub async fn workflow(&self, name: &str) -> Result<Option<Workflow>, Failure> {
        Ok(self.document(name, &SOURCE).await?.and_then(Document::into_workflow))
    }

    /// What stands under the name of `workflow`, which may be that itself.
    pub async fn stands(&self, workflow: &Value) -> Result<Option<Namesake>, Failure> {
        let source = ["metadata.name", "metadata.creationTimestamp", "metadata.labels", "spec.templates"];
        let Some(found) = self.document(name_of(workflow), &source).await? else { return Ok(None) };
        let wanted = decode_ours::<Template>(&workflow["spec"]).as_ref().and_then(made_for);
        let is_same = made_for(&found.spec.0).map(|shown| Some(shown) == wanted);
        Ok(found.into_workflow().map(|workflow| Namesake { is_same, workflow }))
    }

    async fn document(&self, name: &str, source: &[&str]) -> Result<Option<Document>, Failure> {
        let must = json!([{"term": {"metadata.name.keyword": {"value": name}}}]);
        let query = json!({"nested": {"path": "metadata", "query": {"bool": {"must": must}}}});
        let show = |from, size| search("workflows.show", from, size, &query, source);
        let (found, whole) = self.documents(1, show).await?;
        match found.into_iter().find(|document| document.metadata.name.0.as_deref() == Some(name)) {
            None if !whole => Err(self.unexpected(&show(0, 1), IN_PART)),
            found => Ok(found),
        }
    }

    /// The workflows of a package, newest first, at most 50. Packages that only start alike do not match.
    pub async fn workflows_of_package(&self, package: &str) -> Result<Vec<Workflow>, Failure> {
        let package = package_name(package);
        let term = json!({"term": {format!("metadata.annotations.{PACKAGE}.keyword"): {"value": package}}});
        let query = json!({"nested": {"path": "metadata", "query": term}});
        let find = |from, size| search("workflows.find", from, size, &query, &SOURCE);
        let (found, whole) = self.documents(BY_PACKAGE, find).await?;
        let workflows = found.into_iter().filter_map(Document::into_workflow);
        let (workflows, others): (Vec<_>, Vec<_>) =
            workflows.partition(|workflow| workflow.package.as_deref() == Some(package.as_str()));
        let whole = whole && others.iter().all(|workflow| workflow.package.is_some());
        // Two are several, however many more there are.
        if !whole && workflows.len() < 2 {
            return Err(self.unexpected(&find(0, BY_PACKAGE), IN_PART));
        }
        Ok(workflows)
    }

    /// Submits a workflow once, as `identity`. The permit was waited for before, and no other request is made, so nothing stands between
    /// a caller's saved intent and this one. `request_id` was saved too, for a support case about a submission of unknown fate.
    pub async fn submit(&self, permit: Permit<'_>, identity: &Identity, workflow: &str, request_id: &str) -> Submission {
        let path = identity.workflows_path();
        let body = json!({"namespace": NAMESPACE, "resourceKind": "WorkflowTemplate", "resourceName": workflow});
        let call = Call::post("workflows.submit", format!("api/service/{path}/submit"), Some(body))
            .with_request_id(request_id)
            .needs("the right to run workflows");
        let sent = self.send_effect(permit, &call).await;
        match self.effect::<Started>(&call, sent) {
            Effect::Applied(answer) => match Run::of_answer(answer, workflow) {
                Some(run) => Submission::Applied(run),
                None => Submission::UnknownFate(self.unexpected(&call, "it names no run of this workflow")),
            },
            Effect::AlreadyActive(failure) => Submission::AlreadyActive(failure),
            // Something else was writing at this moment; nothing says that the next moment is no better.
            Effect::Conflict(failure) => Submission::NotApplied(failure.with_retryable(true)),
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
        let name = name_of(workflow);
        let sent = self.send_effect(permit, &call).await;
        match self.effect::<Started>(&call, sent) {
            Effect::Applied(answer) => {
                let is_named = answer.name() == Some(name);
                match Run::of_answer(answer, name) {
                    None if !is_named => Creation::UnknownFate(self.unexpected(&call, "it does not name the workflow")),
                    run => Creation::Applied(run),
                }
            }
            Effect::Conflict(failure) => Creation::Taken(failure),
            Effect::NotApplied(failure) => Creation::NotApplied(failure),
            // Already active: it was stored, or was there before, and its submission met a run.
            Effect::AlreadyActive(failure) | Effect::UnknownFate(failure) => Creation::UnknownFate(failure),
        }
    }

    /// The first `wanted` documents of a search, and whether they are all that match, and all name a workflow. Reads on behind a page
    /// that is shorter than asked for.
    async fn documents(&self, wanted: usize, search: impl Fn(usize, usize) -> Call) -> Result<(Vec<Document>, bool), Failure> {
        let (mut documents, mut from, mut whole) = (Vec::new(), 0, false);
        for _ in 0..self.settings.max_pages {
            let found = self.page::<Hits<WorkflowHit>>(wanted - from, from, |size| search(from, size)).await?;
            from += found.count;
            documents.extend(found.items.into_iter().map(|hit| hit.source.0));
            whole = found.told.map_or(!found.more, |told| u64::try_from(from).is_ok_and(|shown| told <= shown));
            if !found.more || whole || from >= wanted {
                break;
            }
        }
        let readable = documents.iter().filter(|document| document.metadata.name.0.is_some()).count();
        Ok((documents, whole && readable == from))
    }
}

/// The fields of a workflow's document that [`Workflow`] shows: documents can be large.
pub(super) const SOURCE: [&str; 4] = ["metadata.name", "metadata.creationTimestamp", "metadata.labels", "metadata.annotations"];

/// What is wrong with a search that cannot prove that something is absent, or the only one.
const IN_PART: &str = "it does not show all workflows that it counts, or some that cannot be read";

fn search(operation: &'static str, from: usize, size: usize, filter: &Value, source: &[&str]) -> Call {
    let body = json!({
        "from": from, "size": size, "track_total_hits": true,
        "query": {"bool": {"filter": [filter]}},
        "sort": newest_created_first(),
        "_source": source,
    });
    Call::post(operation, "api/service/workflows/indexsearch", Some(body)).needs("the right to see workflows")
}

fn name_of(workflow: &Value) -> &str {
    workflow["metadata"]["name"].as_str().unwrap_or_default()
}

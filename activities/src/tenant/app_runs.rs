//! Runs of apps. One is read by its id, strongly; those of an app are only found in the metastore's index, which lags, and where the last
//! segment of a qualified name is taken for the run's id. So a hit is a hint, and is to be confirmed by reading the run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Tenant;
use super::answer::{Element, Exact, Flag, Lenient, Moment, NAME, PHASE, Pairs, Text};
use super::apps::is_absence;
use super::classify::Effect;
use super::documents::Entities;
use super::runs::{Kind, Run, StopError};
use super::runs_shown::{Reading, RunsShown};
use super::send::Call;
use super::target::{is_segment, segment};
use crate::failure::Failure;
use crate::text::clip;

/// What the qualified name of every run begins with; the slug and the id of the run follow.
pub(super) const ROOT: &str = "default/apps/automation_engine/workflows/";
/// How many runs one page of a search holds.
const PAGE: usize = 50;
/// What a run that is at its end is shown as.
const ENDED: [&str; 9] = ["Succeeded", "Failed", "Error", "Stopped", "Terminated", "Skipped", "Omitted", "Cancelled", "TimedOut"];
/// What is shown of a run.
const ATTRIBUTES: [&str; 4] =
    ["appWorkflowRunStatus", "appWorkflowRunStartedAt", "appWorkflowRunCompletedAt", "appWorkflowRunStartedBy"];
/// The longest message of one step that is told, in bytes.
const STEP_MESSAGE: usize = 1024;

/// A run, as the apps' part of the API shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AppRun {
    run_id: Exact,
    status: Text<PHASE>,
    slug: Exact,
    started_at: Moment,
}

/// A run with its steps, as the engine shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NativeStatus {
    run_id: Exact,
    status: Text<PHASE>,
    workflow_slug: Exact,
    dag_nodes: Pairs<Lenient<StepState>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StepState {
    error_message: Text<STEP_MESSAGE>,
}

impl Element for StepState {}

/// A run, as the index shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunEntity {
    attributes: Lenient<Attributes>,
}

impl Element for RunEntity {}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Attributes {
    qualified_name: Exact,
    app_workflow_run_status: Text<PHASE>,
    app_workflow_run_started_at: Moment,
    app_workflow_run_completed_at: Moment,
    app_workflow_run_started_by: Text<NAME>,
}

/// The answer to a request to cancel a run.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cancelling {
    run_id: Exact,
    cancelled: Flag,
}

impl Tenant {
    /// A run as it is now; None if there is none of this id. A failure if the tenant has no apps at all.
    pub async fn app_run(&self, id: &str) -> Result<Option<Run>, Failure> {
        self.run_of_app(id, None).await
    }

    /// The same for a run of which the app is known: an answer that names another app is not about this run, and is a failure.
    pub(crate) async fn run_of_app(&self, id: &str, slug: Option<&str>) -> Result<Option<Run>, Failure> {
        match self.shown_app_run(id, slug).await? {
            Some(run) => Ok(Some(run)),
            None => self.must_have_apps().await.map(|()| None),
        }
    }

    /// The same for a run that is followed. One that was started through the workflows' part of the API may be known only to the engine,
    /// which is asked if the apps' part knows none.
    pub(super) async fn followed_app_run(&self, id: &str, slug: Option<&str>) -> Result<Option<Run>, Failure> {
        match self.shown_app_run(id, slug).await? {
            Some(run) => Ok(Some(run)),
            None => self.native_run(id, slug).await,
        }
    }

    async fn shown_app_run(&self, id: &str, of: Option<&str>) -> Result<Option<Run>, Failure> {
        let call =
            Call::get("app_runs.show", format!("api/service/v1/app/runs/{}", segment(id))).small().needs("the right to see runs");
        let shown: AppRun = match self.read(&call).await {
            Ok(shown) => shown,
            Err(failure) if is_absence(&failure) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        self.learned(|learned| learned.has_apps = true);
        let AppRun { run_id, status, slug, started_at } = shown;
        self.must_be_of(&call, of, slug.0.as_deref())?;
        self.run_shown(&call, id, run_id.0, slug.0, status.0, started_at.0).map(Some)
    }

    async fn native_run(&self, id: &str, of: Option<&str>) -> Result<Option<Run>, Failure> {
        let call = native_status(id);
        match self.read(&call).await {
            Ok(NativeStatus { run_id, status, workflow_slug, .. }) => {
                self.must_be_of(&call, of, workflow_slug.0.as_deref())?;
                self.run_shown(&call, id, run_id.0, workflow_slug.0, status.0, None).map(Some)
            }
            Err(failure) if is_absence(&failure) => self.must_have_apps().await.map(|()| None),
            Err(failure) => Err(failure),
        }
    }

    fn must_be_of(&self, call: &Call, slug: Option<&str>, shown: Option<&str>) -> Result<(), Failure> {
        match (slug, shown) {
            (Some(slug), Some(shown)) if slug != shown => {
                Err(self.unexpected(call, &format!("it shows a run of {shown}, not of {slug}")))
            }
            _ => Ok(()),
        }
    }

    fn run_shown(
        &self,
        call: &Call,
        id: &str,
        shown: Option<String>,
        slug: Option<String>,
        phase: Option<String>,
        started_at: Option<Timestamp>,
    ) -> Result<Run, Failure> {
        if shown.is_some_and(|shown| shown != id) || phase.is_none() {
            return Err(self.unexpected(call, "it does not show that run"));
        }
        Ok(Run {
            kind: Kind::App,
            name: id.to_owned(),
            workflow: slug,
            phase,
            created_at: started_at,
            started_at,
            finished_at: None,
            creator: None,
            message: None,
        })
    }

    /// What the steps of a run say went wrong; None if nothing is said.
    pub async fn app_run_message(&self, id: &str) -> Result<Option<String>, Failure> {
        let status: NativeStatus = self.read(&native_status(id)).await?;
        let steps = status.dag_nodes.0.into_iter();
        let said: Vec<_> =
            steps.filter_map(|(step, state)| Some(format!("{step}: {}", state.0.error_message.0?))).take(32).collect();
        Ok((!said.is_empty()).then(|| clip(said.join("; "))))
    }

    /// The runs of an app that the index shows: those that have not started yet, then the others, the newest first. Reads page by page
    /// until one is older than `bound`, there are no more, or `max_pages` are read; without a bound, one full page.
    pub async fn app_runs_of(&self, slug: &str, bound: Option<Timestamp>) -> Result<RunsShown, Failure> {
        let prefix = json!({"prefix": {"qualifiedName": {"value": format!("{ROOT}{slug}/"), "case_insensitive": false}}});
        // One that ended without a start never did anything. In their number such runs would hide the others.
        let ended = json!({"terms": {"appWorkflowRunStatus": ENDED}});
        let counts =
            json!({"bool": {"should": [{"exists": {"field": "appWorkflowRunStartedAt"}}, {"bool": {"must_not": [ended]}}]}});
        let mut reading = Reading::new(slug, bound);
        for _ in 0..self.settings.max_pages {
            let from = reading.from;
            let page = |size| search("app_runs.find", from, size, &[prefix.clone(), counts.clone()]);
            let found = self.page::<Entities<RunEntity>>(PAGE, from, page).await?;
            if !reading.take(found, RunEntity::read) {
                break;
            }
        }
        Ok(reading.shown)
    }

    /// Asks the tenant to stop a run of an app. Sent once.
    pub async fn cancel_app_run(&self, id: &str) -> Result<(), StopError> {
        let target = format!("api/service/v1/app/runs/{}/cancel", segment(id));
        let call = Call::post("app_runs.cancel", target, None).small().may_be_empty().needs("the right to cancel runs");
        let sent = self.send_effect(self.permit().await, &call).await;
        match self.effect::<Cancelling>(&call, sent) {
            Effect::Applied(Cancelling { run_id, .. }) if run_id.0.as_deref().is_some_and(|named| named != id) => {
                Err(StopError::UnknownFate(self.unexpected(&call, "it names another run")))
            }
            Effect::Applied(Cancelling { cancelled: Flag(Some(false)), .. }) => {
                Err(StopError::NotAsked(self.unexpected(&call, "it says that the run was not cancelled")))
            }
            Effect::Applied(_) => Ok(()),
            other => Err(StopError::of(other)),
        }
    }

    /// What the index shows of runs of apps, by their qualified names.
    pub(super) async fn indexed_by_name(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Run>, Failure> {
        let call = search("app_runs.look", 0, names.len(), &[json!({"terms": {"qualifiedName": names}})]);
        let answer: Entities<RunEntity> = self.read(&call).await?;
        let (found, _) = self.items_of(&call, answer)?;
        Ok(found
            .into_iter()
            .filter_map(RunEntity::into_run)
            .filter_map(|run| Some((qualified_name(run.workflow.as_deref()?, &run.name), run)))
            .collect())
    }
}

fn native_status(id: &str) -> Call {
    let target = format!("api/service/package-workflows/native-status/{}?execution_mode=automation-engine", segment(id));
    Call::get("app_runs.steps", target).needs("the right to see runs")
}

pub(super) fn search(operation: &'static str, from: usize, size: usize, filters: &[Value]) -> Call {
    let exactly = |field: &str, value: &str| json!({"term": {field: {"value": value, "case_insensitive": false}}});
    let mut filter = vec![exactly("__state", "ACTIVE"), exactly("__typeName.keyword", "AppWorkflowRun")];
    filter.extend_from_slice(filters);
    let body = json!({
        "attributes": ATTRIBUTES,
        "dsl": {
            "from": from, "size": size, "track_total_hits": true, "aggregations": {},
            "query": {"bool": {"filter": filter}},
            "sort": [{"appWorkflowRunStartedAt": {"order": "desc", "missing": "_first"}}],
        },
        // The tenant's people see what was searched for by people.
        "requestMetadata": {"saveSearchLog": false, "utmTags": ["project_iolaus"]},
    });
    Call::post(operation, "api/meta/search/indexsearch", Some(body)).needs("the right to see runs")
}

/// What the index is expected to call a run.
pub(super) fn qualified_name(slug: &str, id: &str) -> String {
    format!("{ROOT}{slug}/{id}")
}

impl RunEntity {
    /// None: it has no name.
    pub(super) fn into_run(self) -> Option<Run> {
        Some(self.read()).filter(|run| !run.name.is_empty())
    }

    /// The same, with an empty name where there is none. A name that is not built as expected names no run of an app, nor does one by
    /// which the run could not be asked for.
    fn read(self) -> Run {
        let attributes = self.attributes.0;
        let named = attributes.qualified_name.0.as_deref().and_then(|name| name.strip_prefix(ROOT)?.split_once('/'));
        let id = named.filter(|(_, rest)| is_segment(rest)).and_then(|(_, rest)| rest.rsplit('/').next());
        let started_at = attributes.app_workflow_run_started_at.0;
        Run {
            workflow: named.map(|(slug, _)| slug.to_owned()),
            phase: attributes.app_workflow_run_status.0,
            created_at: started_at,
            started_at,
            finished_at: attributes.app_workflow_run_completed_at.0,
            creator: attributes.app_workflow_run_started_by.0,
            ..Run::named(Kind::App, id.unwrap_or_default().to_owned(), "")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::scripted::{Reply, Scripted, clock, drive};

    fn page(runs: impl IntoIterator<Item = (String, Value)>) -> Reply {
        let entity = |(name, started): (String, Value)| json!({"attributes": {"qualifiedName": name, "appWorkflowRunStatus": "Failed", "appWorkflowRunStartedAt": started}});
        let entities: Vec<_> = runs.into_iter().map(entity).collect();
        Reply::ok(&json!({"approximateCount": 1_000, "entities": entities}))
    }

    #[tokio::test]
    async fn pages_are_read_until_a_run_is_older_than_the_bound() {
        let bound = Timestamp::from_second(1_767_225_600).expect("a time");
        let started = |n: i64| json!((1_767_225_600 + n) * 1_000);
        let full = |from: i64| page((0..50).map(|n| (format!("{ROOT}s/{}", from + n), started(1_000 - from - n))));
        // The last page begins with runs that the one before has shown, is full, and ends with one that is too old.
        let last = page((98..148).map(|n| (format!("{ROOT}s/{n}"), started(if n == 147 { -1 } else { 1_000 - n }))));
        let server = Scripted::script([full(0), full(50), last]).await;
        let runs = server.tenant(&clock()).app_runs_of("s", Some(bound)).await.expect("an answer").runs;
        assert_eq!((runs.len(), runs[0].name.as_str()), (148, "0"));
        let from: Vec<_> = server.requests().iter().map(|request| request.body["dsl"]["from"].clone()).collect();
        assert_eq!(from, [0, 50, 100]);
    }

    #[tokio::test]
    async fn a_hit_that_names_another_app_or_no_run_is_none() {
        let names =
            [format!("{ROOT}s/1"), format!("{ROOT}t/2"), format!("{ROOT}s/"), "elsewhere/s/4".into(), format!("{ROOT}s/v2/5")];
        let server = Scripted::script([page(names.map(|name| (name, Value::Null)))]).await;
        let runs = server.tenant(&clock()).app_runs_of("s", None).await.expect("an answer").runs;
        assert_eq!(runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(), ["1", "5"]);
    }

    #[tokio::test]
    async fn an_answer_without_a_list_is_an_empty_one_only_if_it_counts() {
        let server = Scripted::script([Reply::ok(&json!({"approximateCount": 0})), Reply::ok(&json!({}))]).await;
        let tenant = server.tenant(&clock());
        assert_eq!(tenant.app_runs_of("s", None).await.map(|shown| shown.runs), Ok(Vec::new()));
        assert_eq!(tenant.app_runs_of("s", None).await.expect_err("no answer").code, "tenant.unreadable");
    }

    #[tokio::test]
    async fn a_run_is_not_taken_from_an_answer_about_another_one() {
        let shown = json!({"run_id": "other", "status": "Succeeded", "slug": "s"});
        let server = Scripted::script([Reply::ok(&shown), Reply::ok(&json!({"run_id": "r"}))]).await;
        let tenant = server.tenant(&clock());
        for _ in 0..2 {
            assert_eq!(tenant.app_run("r").await.expect_err("no answer").code, "tenant.unreadable");
        }
    }
    #[tokio::test]
    async fn a_run_of_a_known_app_is_not_taken_from_an_answer_that_names_another_app() {
        let server = Scripted::answering(|request| {
            Some(match request.target.as_str() {
                target if target.contains("/v1/app/runs/engine") => Reply::json(404, &json!({})),
                target if target.contains("/native-status/") => {
                    Reply::ok(&json!({"status": "Succeeded", "workflow_slug": "other-app"}))
                }
                target if target.contains("/v1/app/runs/") => Reply::ok(&json!({"status": "Succeeded", "slug": "other-app"})),
                _ => Reply::ok(&json!({"approximateCount": 0, "entities": []})),
            })
        })
        .await;
        let clock = clock();
        let tenant = server.tenant(&clock);
        for id in ["r", "engine"] {
            let failure = drive(&clock, tenant.look_at_app_run(id, Some("s"))).await.expect_err("no answer");
            assert!(failure.code == "tenant.unreadable" && failure.retryable, "{failure}");
            let run = drive(&clock, tenant.look_at_app_run(id, Some("other-app"))).await.expect("an answer").expect("a run");
            assert_eq!(run.workflow.as_deref(), Some("other-app"));
            assert!(tenant.look_at_app_run(id, None).await.is_ok(), "no app is known that it could contradict");
        }
        assert_eq!(tenant.run_of_app("r", Some("s")).await.expect_err("no answer").code, "tenant.unreadable");
    }
}

//! Runs of apps. One is read by its id, strongly; those of an app are only found in the metastore's index, which lags, and where the last
//! segment of a qualified name is taken for the run's id. So a hit is a hint, and is to be confirmed by reading the run.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Tenant;
use super::classify::Effect;
use super::runs::{Kind, Run, segment, text, time};
use super::send::Call;
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
/// A number of milliseconds since 1970 is larger than this, a number of seconds is not.
const LEAST_MILLIS: i64 = 100_000_000_000;

impl Tenant {
    /// A run as it is now; None if there is none of this id. A failure if the tenant has no apps at all.
    pub async fn app_run(&self, id: &str) -> Result<Option<Run>, Failure> {
        let call = Call::get("app_runs.show", format!("api/service/v1/app/runs/{}", segment(id))).needs("the right to see runs");
        let Some(body) = self.read_of_apps(&call).await? else { return Ok(None) };
        if text(&body["run_id"]).is_some_and(|shown| shown != id) || !body["status"].is_string() {
            return Err(self.unexpected(&call, "it does not show that run"));
        }
        let started_at = moment(&body["started_at"]);
        Ok(Some(Run {
            kind: Kind::App,
            name: id.to_owned(),
            workflow: text(&body["slug"]),
            phase: text(&body["status"]),
            created_at: started_at,
            started_at,
            finished_at: None,
            creator: None,
            message: None,
        }))
    }

    /// What the steps of a run say went wrong; None if nothing is said.
    pub async fn app_run_message(&self, id: &str) -> Result<Option<String>, Failure> {
        let target = format!("api/service/package-workflows/native-status/{}?execution_mode=automation-engine", segment(id));
        let body = self.read(&Call::get("app_runs.steps", target).needs("the right to see runs")).await?;
        let steps = body["dag_nodes"].as_object().into_iter().flatten();
        let said: Vec<_> = steps.filter_map(|(step, state)| Some(format!("{step}: {}", text(&state["error_message"])?))).collect();
        Ok((!said.is_empty()).then(|| clip(said.join("; "))))
    }

    /// The runs of an app that the index shows: those that have not started yet, then the others, the newest first. Reads page by page
    /// until one is older than `bound`, there are no more, or `max_pages` are read; without a bound, one page.
    pub async fn app_runs_of(&self, slug: &str, bound: Option<Timestamp>) -> Result<Vec<Run>, Failure> {
        let prefix = json!({"prefix": {"qualifiedName": {"value": format!("{ROOT}{slug}/"), "case_insensitive": false}}});
        // One that ended without a start never did anything. In their number such runs would hide the others.
        let ended = json!({"terms": {"appWorkflowRunStatus": ENDED}});
        let counts =
            json!({"bool": {"should": [{"exists": {"field": "appWorkflowRunStartedAt"}}, {"bool": {"must_not": [ended]}}]}});
        let mut runs: Vec<Run> = Vec::new();
        for page in 0..self.settings.max_pages {
            let call = search("app_runs.find", page * PAGE, PAGE, &[prefix.clone(), counts.clone()]);
            let found = self.indexed_app_runs(&call).await?;
            let full = found.len() >= PAGE;
            let past = found.iter().any(|run| run.created_at.zip(bound).is_some_and(|(created, bound)| created < bound));
            let before = runs.len();
            for run in found {
                if run.workflow.as_deref() == Some(slug) && runs.iter().all(|known| known.name != run.name) {
                    runs.push(run);
                }
            }
            if !full || past || bound.is_none() || runs.len() == before {
                break;
            }
        }
        Ok(runs)
    }

    /// Asks the tenant to stop a run of an app. Sent once.
    pub async fn cancel_app_run(&self, id: &str) -> Result<(), Failure> {
        let target = format!("api/service/v1/app/runs/{}/cancel", segment(id));
        let call = Call::post("app_runs.cancel", target, None).needs("the right to cancel runs");
        let sent = self.send(&call).await;
        match self.effect(&call, sent) {
            Effect::Applied(_) => Ok(()),
            Effect::Conflict(failure) | Effect::NotApplied(failure) | Effect::UnknownFate(failure) => Err(failure),
        }
    }

    /// What the index shows of runs of apps, by their qualified names.
    pub(super) async fn indexed_by_name(&self, names: &BTreeSet<&str>) -> Result<BTreeMap<String, Run>, Failure> {
        let call = search("app_runs.look", 0, names.len(), &[json!({"terms": {"qualifiedName": names}})]);
        let found = self.indexed_app_runs(&call).await?;
        Ok(found.into_iter().filter_map(|run| Some((qualified_name(run.workflow.as_deref()?, &run.name), run))).collect())
    }

    async fn indexed_app_runs(&self, call: &Call) -> Result<Vec<Run>, Failure> {
        let body = self.read(call).await?;
        let entities = entities(&body).map_err(|problem| self.unexpected(call, problem))?;
        Ok(entities.iter().filter_map(|entity| decode(&entity["attributes"])).collect())
    }
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

/// The entities of a search. The metastore leaves the list out when it is empty, and then says so in another way.
pub(super) fn entities(body: &Value) -> Result<&[Value], &'static str> {
    match &body["entities"] {
        Value::Array(entities) => Ok(entities),
        Value::Null if body["approximateCount"].is_number() => Ok(&[]),
        _ => Err("it has no list of entities"),
    }
}

/// What the index is expected to call a run.
pub(super) fn qualified_name(slug: &str, id: &str) -> String {
    format!("{ROOT}{slug}/{id}")
}

/// A name that is not built as expected names no run of an app.
pub(super) fn decode(attributes: &Value) -> Option<Run> {
    let (slug, id) = attributes["qualifiedName"].as_str()?.strip_prefix(ROOT)?.split_once('/')?;
    let id = id.rsplit('/').next().filter(|id| !id.is_empty())?;
    let started_at = moment(&attributes["appWorkflowRunStartedAt"]);
    Some(Run {
        phase: text(&attributes["appWorkflowRunStatus"]),
        created_at: started_at,
        started_at,
        finished_at: moment(&attributes["appWorkflowRunCompletedAt"]),
        creator: text(&attributes["appWorkflowRunStartedBy"]),
        ..Run::named(Kind::App, id.to_owned(), slug)
    })
}

/// A time as RFC 3339, in milliseconds or in seconds; cut to the second, as times of the other generation are. Zero is none.
fn moment(value: &Value) -> Option<Timestamp> {
    let number = value.as_i64().filter(|number| *number > 0);
    let at = match number {
        Some(millis) if millis > LEAST_MILLIS => Timestamp::from_millisecond(millis).ok(),
        Some(seconds) => Timestamp::from_second(seconds).ok(),
        None => time(value),
    }?;
    Timestamp::from_second(at.as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::scripted::{Reply, Scripted, clock};

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
        let runs = server.tenant(&clock()).app_runs_of("s", Some(bound)).await.expect("an answer");
        assert_eq!((runs.len(), runs[0].name.as_str()), (148, "0"));
        let from: Vec<_> = server.requests().iter().map(|request| request.body["dsl"]["from"].clone()).collect();
        assert_eq!(from, [0, 50, 100]);
    }

    #[tokio::test]
    async fn a_hit_that_names_another_app_or_no_run_is_none() {
        let names =
            [format!("{ROOT}s/1"), format!("{ROOT}t/2"), format!("{ROOT}s/"), "elsewhere/s/4".into(), format!("{ROOT}s/v2/5")];
        let server = Scripted::script([page(names.map(|name| (name, Value::Null)))]).await;
        let runs = server.tenant(&clock()).app_runs_of("s", None).await.expect("an answer");
        assert_eq!(runs.iter().map(|run| run.name.as_str()).collect::<Vec<_>>(), ["1", "5"]);
    }

    #[tokio::test]
    async fn an_answer_without_a_list_is_an_empty_one_only_if_it_counts() {
        let server = Scripted::script([Reply::ok(&json!({"approximateCount": 0})), Reply::ok(&json!({}))]).await;
        let tenant = server.tenant(&clock());
        assert_eq!(tenant.app_runs_of("s", None).await, Ok(Vec::new()));
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

    #[test]
    fn times_are_read_in_each_of_their_forms() {
        let at = Timestamp::from_second(1_767_225_600).ok();
        for value in [json!(1_767_225_600_123_i64), json!(1_767_225_600), json!("2026-01-01T00:00:00Z")] {
            assert_eq!(moment(&value), at, "{value}");
        }
        for value in [json!(null), json!(0), json!(""), json!("soon")] {
            assert_eq!(moment(&value), None, "{value}");
        }
    }
}

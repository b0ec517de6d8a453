//! The Automation Engine's own list of the runs of an app. It may show a run that the metastore's index does not show yet, where these
//! credentials may read it, which takes more than the apps' part of the API does. So it is evidence for a run and never of absence, and
//! whatever goes wrong with it is nobody's failure: the index remains.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::Tenant;
use super::answer::{Element, Exact, Lenient, List, Moment, PHASE, Text};
use super::classify::{is_out_of_reach, is_oversized};
use super::runs::{Kind, Run};
use super::send::{Call, Sent};
use super::target::encoded;
use crate::failure::Failure;

/// How many runs one page holds; the engine's own bound.
const PAGE: usize = 100;
/// For how long a tenant that refuses the list to these credentials, or has none, is not asked for it again.
const REFUSAL_BELIEVED: Duration = Duration::from_secs(600);
/// The same for one that failed at it.
const FAILURE_BELIEVED: Duration = Duration::from_secs(30);

/// One page of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AutomationPage {
    data: List<Lenient<AutomationRun>>,
}

/// A run, as the list shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AutomationRun {
    guid: Exact,
    run_id: Exact,
    workflow_slug: Exact,
    status: Text<PHASE>,
    created_at: Moment,
    started_at: Moment,
    completed_at: Moment,
}

impl Element for AutomationRun {}

impl AutomationRun {
    /// None: it has no id, or it is another app's.
    fn into_run(self, slug: &str) -> Option<Run> {
        if self.workflow_slug.0.as_deref().is_some_and(|named| named != slug) {
            return None;
        }
        Some(Run {
            phase: self.status.0,
            created_at: self.created_at.0,
            started_at: self.started_at.0,
            finished_at: self.completed_at.0,
            ..Run::named(Kind::App, self.guid.0.or(self.run_id.0)?, slug)
        })
    }
}

impl Tenant {
    /// The runs of an app that the Automation Engine lists, the newest first. Reads page by page until one was created before `bound`,
    /// there are no more, or `max_pages` are read. None: the list cannot be read by us, or not for now. An empty list proves nothing.
    pub async fn automation_runs_of(&self, slug: &str, bound: Timestamp) -> Option<Vec<Run>> {
        let now = self.clock.monotonic();
        if self.learned(|learned| learned.automation_skipped.is_some_and(|until| now < until)) {
            return None;
        }
        match self.read_automation_runs(slug, bound).await {
            Ok(Some(runs)) => Some(runs),
            Ok(None) => {
                self.skip_automation(REFUSAL_BELIEVED);
                tracing::info!(
                    tenant = self.name,
                    "the Automation Engine's list of runs cannot be read; the index alone is searched"
                );
                None
            }
            Err(failure) => {
                self.skip_automation(FAILURE_BELIEVED);
                tracing::warn!(tenant = self.name, %failure, "the Automation Engine did not list the runs; the index alone is searched");
                None
            }
        }
    }

    /// The same, or why not. None: a refusal.
    async fn read_automation_runs(&self, slug: &str, bound: Timestamp) -> Result<Option<Vec<Run>>, Failure> {
        // The same on every page, since pages are counted in it.
        let size = PAGE.min(self.page_size.at(self.clock.monotonic()));
        let (mut seen, mut runs) = (BTreeSet::new(), Vec::new());
        for page in 0..self.settings.max_pages {
            let call = list(slug, page, size);
            // Sent once: who searches comes again, and the index is searched in any case.
            let sent = self.send(&call).await;
            if is_out_of_reach(&sent) {
                return Ok(None);
            }
            let (found, count) = self.automation_page(&call, sent, size)?;
            let found: Vec<_> = found.into_iter().filter_map(|Lenient(run)| run.into_run(slug)).collect();
            let past = found.iter().any(|run| run.created_at.is_some_and(|created| created < bound));
            let before = runs.len();
            // A run that is created while we read pushes others to the next page, where they are seen again.
            runs.extend(found.into_iter().filter(|run| seen.insert(run.name.clone())));
            if count < size || past || runs.len() == before {
                break;
            }
        }
        Ok(Some(runs))
    }

    /// The rows of one page, and how many there were.
    fn automation_page(&self, call: &Call, sent: Sent, size: usize) -> Result<(Vec<Lenient<AutomationRun>>, usize), Failure> {
        let page: AutomationPage = match sent {
            Sent::Answered(answer) => self.read_answer(call, answer).inspect_err(|failure| {
                if is_oversized(failure) {
                    self.page_size.shrink(size, self.clock.monotonic());
                }
            })?,
            Sent::NotDelivered(failure) | Sent::UnknownDelivery(failure) => return Err(failure),
        };
        match page.data {
            List::Null => Ok((Vec::new(), 0)),
            data => data.into_items().ok_or_else(|| self.unexpected(call, "it has no list of runs")),
        }
    }

    /// The runs that it lists are dated by another clock than its own, so that it cannot be told which are from before a moment.
    pub(crate) fn distrust_automation_runs(&self) {
        tracing::info!(tenant = self.name, "the Automation Engine lists runs of the future; the index alone is searched");
        self.skip_automation(REFUSAL_BELIEVED);
    }

    fn skip_automation(&self, time: Duration) {
        let until = self.clock.monotonic().saturating_add(time);
        self.learned(|learned| learned.automation_skipped = Some(until));
    }
}

fn list(slug: &str, page: usize, size: usize) -> Call {
    let more = "include_test_runs=true&include_system=true";
    let target = format!("automation/api/v1/runs?workflow_slug={}&page={page}&page_size={size}&{more}", encoded(slug));
    Call::get("automation.runs", target).needs("the role realm-admin")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tenant::scripted::{Reply, Scripted, clock};

    const AT: i64 = 1_767_225_600;

    fn bound() -> Timestamp {
        Timestamp::from_second(AT).expect("a time")
    }

    fn row(id: &str, after: i64) -> Value {
        json!({"guid": id, "created_at": Timestamp::from_second(AT + after).expect("a time").to_string()})
    }

    async fn listed(data: &Value) -> Option<Vec<Run>> {
        let server = Scripted::script([Reply::ok(data)]).await;
        server.tenant(&clock()).automation_runs_of("s", bound()).await
    }

    #[tokio::test]
    async fn rows_are_read_by_either_id_and_an_odd_one_does_not_lose_the_rest() {
        let created = "2026-01-01T00:00:07.345Z";
        let data = json!([
            {"guid": "a", "run_id": "other", "created_at": created, "status": "Running", "workflow_slug": "s"},
            {"guid": null, "run_id": "b", "created_at": AT * 1_000 + 7_345},
            {"guid": "c", "workflow_slug": "another-app", "created_at": created},
            {"created_at": created},
            {"guid": ["d"], "created_at": created},
            {"guid": "e", "created_at": "yesterday", "status": 7},
            7, null, [], "f",
            {"guid": "a", "created_at": created},
        ]);
        let runs = listed(&json!({"data": data, "total": "many"})).await.expect("a list");
        let shown: Vec<_> =
            runs.iter().map(|run| (run.name.as_str(), run.phase.as_deref(), run.created_at.map(Timestamp::as_second))).collect();
        assert_eq!(shown, [("a", Some("Running"), Some(AT + 7)), ("b", None, Some(AT + 7)), ("e", None, None)]);
        assert!(runs.iter().all(|run| run.kind == Kind::App && run.workflow.as_deref() == Some("s")));
    }

    #[tokio::test]
    async fn no_data_is_an_empty_list_only_if_it_says_so() {
        assert_eq!(listed(&json!({"data": null})).await, Some(Vec::new()));
        assert_eq!(listed(&json!({"data": []})).await, Some(Vec::new()));
        for odd in [json!({}), json!({"data": {}}), json!({"data": "none"}), json!([])] {
            assert_eq!(listed(&odd).await, None, "{odd}");
        }
    }

    #[tokio::test]
    async fn pages_are_read_until_a_run_is_older_than_the_bound() {
        let full =
            |from: i64| Reply::ok(&json!({"data": (from..from + 100).map(|n| row(&n.to_string(), 500 - n)).collect::<Vec<_>>()}));
        let last = Reply::ok(&json!({"data": [row("199", 301), row("200", 300), row("old", -1)]}));
        let server = Scripted::script([full(0), full(100), last]).await;
        let runs = server.tenant(&clock()).automation_runs_of("a slug", bound()).await.expect("a list");
        assert_eq!((runs.len(), runs[201].name.as_str()), (202, "old"));
        let targets: Vec<_> = server.requests().into_iter().map(|request| request.target).collect();
        let target = |page| {
            format!(
                "/automation/api/v1/runs?workflow_slug=a%20slug&page={page}&page_size=100&include_test_runs=true&include_system=true"
            )
        };
        assert_eq!(targets, [target(0), target(1), target(2)]);
        // A tenant that shows the same page for ever is left.
        let server = Scripted::script([full(0), full(0)]).await;
        assert_eq!(server.tenant(&clock()).automation_runs_of("s", bound()).await.map(|runs| runs.len()), Some(100));
    }

    #[tokio::test]
    async fn a_tenant_that_does_not_let_us_read_the_list_is_asked_once_in_ten_minutes() {
        let page = "<!doctype html><html>Sign in</html>";
        for refusal in [
            Reply::json(403, &json!({"code": "AE-COMMON-403-01", "message": "lacks role realm-admin"})),
            Reply::json(404, &json!({"message": "no route"})),
            Reply::json(405, &json!({})),
            Reply::text(404, "404 page not found"),
            Reply::text(200, page),
            Reply::text(403, page),
            Reply::text(302, "").header("location", "/login"),
        ] {
            let clock = clock();
            let server = Scripted::script([refusal.clone(), Reply::ok(&json!({"data": [row("r", 0)]}))]).await;
            let tenant = server.tenant(&clock);
            for _ in 0..3 {
                assert_eq!(tenant.automation_runs_of("s", bound()).await, None, "{refusal:?}");
            }
            assert_eq!((server.requests().len(), tenant.hold().is_none()), (1, true), "{refusal:?}");
            clock.advance(REFUSAL_BELIEVED).await;
            assert_eq!(tenant.automation_runs_of("s", bound()).await.map(|runs| runs.len()), Some(1), "{refusal:?}");
        }
    }

    #[tokio::test]
    async fn a_page_that_is_too_long_is_asked_for_in_a_smaller_one_the_next_time() {
        let clock = clock();
        let rows = json!({"data": [row("r", 0)]});
        let huge = json!({"data": [], "pad": "x".repeat(2 << 20)});
        let server = Scripted::script([Reply::ok(&huge), Reply::ok(&rows)]).await;
        let settings = crate::tenant::TenantSettings { body_limit: 1 << 20, ..server.settings() };
        let tenant = crate::tenant::scripted::tenants(settings, &clock).get("default").expect("it is configured");
        assert_eq!(tenant.automation_runs_of("s", bound()).await, None);
        clock.advance(FAILURE_BELIEVED).await;
        assert_eq!(tenant.automation_runs_of("s", bound()).await.map(|runs| runs.len()), Some(1));
        let sizes: Vec<_> = server.requests().iter().map(|request| request.target.contains("&page_size=50&")).collect();
        assert_eq!(sizes, [false, true]);
    }

    #[tokio::test]
    async fn a_tenant_that_fails_at_the_list_is_asked_again_after_half_a_minute() {
        for failing in [
            Reply::cut(),
            Reply::json(500, &json!({})),
            Reply::text(502, "<html>Bad gateway</html>"),
            Reply::text(200, "{\"data\": [{"),
            Reply::cut_body(),
        ] {
            let clock = clock();
            let server = Scripted::script([failing.clone(), Reply::ok(&json!({"data": [row("r", 0)]}))]).await;
            let tenant = server.tenant(&clock);
            for _ in 0..2 {
                assert_eq!(tenant.automation_runs_of("s", bound()).await, None, "{failing:?}");
            }
            assert_eq!(server.requests().len(), 1, "{failing:?}");
            clock.advance(FAILURE_BELIEVED).await;
            assert!(tenant.automation_runs_of("s", bound()).await.is_some(), "{failing:?}");
        }
    }
}

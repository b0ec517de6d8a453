//! Looking at runs of apps. The tenant's API shows one at a time, and its index shows many in one request but lags. So the index is asked
//! for all of them together, and a run is asked for by itself only if the index shows it at its end, or does not show it: its end is
//! taken from nowhere else. How often that is done is bounded, however many wait.

use std::time::Duration;

use super::Tenant;
use super::app_runs::qualified_name;
use super::looks::Looks;
use super::pace::Pace;
use super::runs::{Kind, Run, Standing};
use crate::failure::Failure;

/// So many runs are read one by one in each `poll_interval`: of those that the index shows at their end, and of the others.
const READS: u32 = 100;

/// The looks of one tenant at runs of apps.
pub(super) struct AppLooks {
    shared: Looks,
    /// For runs that the index shows at their end. As a rule each needs one read.
    ended: Pace,
    /// For all others, which may need one at each look.
    others: Pace,
}

impl AppLooks {
    pub(super) fn new(interval: Duration, now: Duration) -> Self {
        let pace = || Pace::new(f64::from(READS) / interval.as_secs_f64().max(0.001), READS, now);
        Self { shared: Looks::at(Kind::App), ended: pace(), others: pace() }
    }
}

impl Tenant {
    /// One look at one run of an app; None if there is none of this id. Without the slug, or if the index is of no help, the run itself
    /// is read. What is shown at its end is so.
    pub async fn look_at_app_run(&self, id: &str, slug: Option<&str>) -> Result<Option<Run>, Failure> {
        self.look_at_run_of_app(id, slug, true).await
    }

    /// The same, where the index may be left out. An answer that names another app than a known one is a failure.
    pub(crate) async fn look_at_run_of_app(&self, id: &str, slug: Option<&str>, by_index: bool) -> Result<Option<Run>, Failure> {
        let indexed = match slug.filter(|_| by_index) {
            Some(slug) => self.look_with_others(&self.app_looks.shared, &qualified_name(slug, id)).await?,
            None => None,
        };
        let pace = match &indexed {
            Some(run) if run.standing() == Standing::Active => return Ok(indexed),
            Some(_) => &self.app_looks.ended,
            None => &self.app_looks.others,
        };
        let early = pace.take(self.clock.monotonic());
        if !early.is_zero() {
            self.clock.sleep(early).await;
        }
        let run = self.followed_app_run(id, slug).await?;
        let known = indexed.map(|known| (known.finished_at, known.creator));
        Ok(run.map(|run| {
            let (finished_at, creator) = known.unwrap_or_default();
            Run { finished_at, creator, ..run }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::tenant::scripted::{Reply, Scripted, clock, drive};

    /// A tenant whose index says `indexed` of every run (None: nothing), and which itself says `truth`. Notes when a run is read.
    async fn tenant(
        clock: &Arc<ManualClock>,
        indexed: Option<&'static str>,
        truth: Option<&'static str>,
    ) -> (Scripted, Arc<Mutex<Vec<Duration>>>) {
        let (at, reads) = (clock.clone(), Arc::new(Mutex::new(Vec::new())));
        let noting = reads.clone();
        let server = Scripted::answering(move |request| {
            if let Some(id) = request.target.strip_prefix("/api/service/v1/app/runs/") {
                noting.lock().expect("no panic").push(at.monotonic());
                let shown = truth.map(|status| json!({"run_id": id, "status": status, "slug": "s", "started_at": null}));
                return Some(shown.map_or_else(|| Reply::json(404, &json!({})), |shown| Reply::ok(&shown)));
            }
            if request.target.starts_with("/api/service/package-workflows/native-status/") {
                return Some(Reply::json(404, &json!({})));
            }
            if request.target == "/api/service/v1/app?limit=1" {
                return Some(Reply::ok(&json!({"workflows": []})));
            }
            let names = request.body["dsl"]["query"]["bool"]["filter"][2]["terms"]["qualifiedName"].as_array()?;
            let entity = |name: &Value| {
                json!({"attributes": {"qualifiedName": name, "appWorkflowRunStatus": indexed, "appWorkflowRunStartedBy": "jane"}})
            };
            let entities: Vec<_> = names.iter().filter(|_| indexed.is_some()).map(entity).collect();
            Some(Reply::ok(&json!({"approximateCount": entities.len(), "entities": entities})))
        })
        .await;
        (server, reads)
    }

    async fn looks(server: &Scripted, clock: &Arc<ManualClock>, number: usize, slug: Option<&'static str>) -> Vec<Option<Run>> {
        let tenant = server.tenant(clock);
        let looks: Vec<_> = (0..number)
            .map(|n| {
                let tenant = tenant.clone();
                tokio::spawn(async move { tenant.look_at_app_run(&format!("r-{n}"), slug).await })
            })
            .collect();
        let mut seen = Vec::new();
        for look in looks {
            seen.push(drive(clock, look).await.expect("no panic").expect("an answer"));
        }
        seen
    }

    #[tokio::test]
    async fn a_thousand_active_runs_take_three_requests() {
        let clock = clock();
        let (server, reads) = tenant(&clock, Some("Running"), Some("Running")).await;
        let seen = looks(&server, &clock, 1_000, Some("s")).await;
        for (n, run) in seen.iter().enumerate() {
            assert_eq!(run.as_ref().map(|run| run.name.as_str()), Some(format!("r-{n}").as_str()));
        }
        assert!(server.requests().len() <= 3 && reads.lock().expect("no panic").is_empty());
    }

    #[tokio::test]
    async fn the_end_of_a_run_is_believed_only_from_the_run_itself() {
        for (indexed, truth, phase) in [
            (Some("Succeeded"), Some("Running"), Some("Running")),
            (Some("Failed"), Some("Succeeded"), Some("Succeeded")),
            (Some("Succeeded"), None, None),
            (None, Some("Stopped"), Some("Stopped")),
            (None, None, None),
        ] {
            let clock = clock();
            let (server, reads) = tenant(&clock, indexed, truth).await;
            let seen = looks(&server, &clock, 1, Some("s")).await.remove(0);
            assert_eq!(seen.as_ref().and_then(|run| run.phase.as_deref()), phase, "{indexed:?} {truth:?}");
            assert_eq!(reads.lock().expect("no panic").len(), 1);
            let creator = seen.and_then(|run| run.creator);
            assert_eq!(creator.is_some(), indexed.is_some() && truth.is_some(), "the index alone knows who started it");
        }
    }

    #[tokio::test]
    async fn without_a_slug_the_run_itself_is_read() {
        let clock = clock();
        let (server, reads) = tenant(&clock, Some("Running"), Some("Running")).await;
        looks(&server, &clock, 3, None).await;
        assert_eq!((server.requests().len(), reads.lock().expect("no panic").len()), (3, 3));
    }

    #[tokio::test]
    async fn however_many_wait_runs_are_read_one_by_one_only_so_often() {
        for indexed in [None, Some("Succeeded")] {
            let clock = clock();
            let (server, reads) = tenant(&clock, indexed, Some("Succeeded")).await;
            looks(&server, &clock, 600, Some("s")).await;
            let reads = reads.lock().expect("no panic");
            assert_eq!(reads.len(), 600);
            for (n, at) in reads.iter().enumerate().skip(100) {
                let within = reads[..=n].iter().filter(|earlier| **earlier + Duration::from_secs(5) > *at).count();
                // A burst, and what is earned in one interval; the clock of this test jumps from sleep to sleep, so a few more.
                assert!(within <= 2 * 100 + 5, "{within} reads in one interval");
            }
            let took = reads[599].saturating_sub(reads[0]);
            assert!(took >= Duration::from_secs(24), "500 beyond the burst take five intervals, and took {took:?}");
        }
    }
}

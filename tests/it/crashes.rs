//! A worker that dies between any two steps of a rerun, on both generations, before an index that lags or does not: another one goes on
//! from what was stored. One verdict, and exactly one effect. The store dies instead of saving, or right after it has saved.

use std::sync::Arc;

use iolaus::sandbox::Generation;
use iolaus_activities::testing::TestHost as MemoryHost;
use iolaus_activities::{ActivityError, Clock, Verdict, WorkflowRerun};
use serde_json::{Value, json};

use crate::support::tenant::{BOTH, TestTenant, idle, with};

/// More saves than a rerun makes, a lost answer and a submission again included.
const MOST_SAVES: usize = 8;
/// More attempts than any of these jobs needs.
const MOST_ATTEMPTS: usize = 20;

#[derive(Debug, Clone, Copy)]
enum Death {
    Before(usize),
    After(usize),
}

fn deaths() -> Vec<Death> {
    (1..=MOST_SAVES).flat_map(|save| [Death::Before(save), Death::After(save)]).collect()
}

struct Crash {
    tenant: TestTenant,
    host: MemoryHost,
}

impl Crash {
    async fn new(generation: Generation, lag: u64, death: Death) -> Self {
        let tenant = TestTenant::lagging(generation, lag).await;
        let host = MemoryHost::new(tenant.host.clock.clone());
        match death {
            Death::Before(save) => host.die_at_save(save),
            Death::After(save) => host.die_after_save(save),
        }
        Self { tenant, host }
    }

    /// Attempt after attempt, each by a process of its own, until there is a verdict. Tells how many of them died.
    async fn to_the_verdict(&self, input: &Value) -> (Verdict, usize) {
        let mut died = 0;
        for _ in 0..MOST_ATTEMPTS {
            let attempt = self.host.attempt(WorkflowRerun::new(self.tenant.tenants()), input.clone());
            match self.tenant.host.drive(attempt).await {
                Ok(verdict) => return (verdict, died),
                Err(ActivityError::Interrupted) => died += 1,
                Err(ActivityError::Failed(failure)) if failure.retryable => {
                    let delay = failure.retry_after.unwrap_or_default().max(std::time::Duration::from_secs(1));
                    let clock: Arc<dyn Clock> = self.tenant.host.clock.clone();
                    self.tenant.host.drive(clock.sleep(delay)).await;
                }
                Err(other) => panic!("no verdict: {other:?}"),
            }
        }
        panic!("no verdict after {MOST_ATTEMPTS} attempts");
    }
}

/// True if the worker died.
async fn one_effect(generation: Generation, lag: u64, death: Death, input: &Value, fault: Option<&Value>) -> bool {
    let crash = Crash::new(generation, lag, death).await;
    if let Some(action) = fault {
        crash.tenant.fault(json!({"path": "/submit", "action": action}));
    }
    let (verdict, died) = crash.to_the_verdict(input).await;
    let case = format!("{generation:?}, lag {lag} s, {death:?}, {fault:?}, {input}: {verdict:?}");
    assert!(verdict.is_passed(), "{case}");
    assert_eq!(crash.tenant.submissions(), [verdict.facts()["run"].as_str().unwrap()], "{case}");
    died > 0
}

#[tokio::test]
async fn a_worker_that_dies_between_any_two_steps_of_a_rerun_leaves_one_effect_and_one_verdict() {
    for generation in BOTH {
        for lag in [0, 30] {
            for more in [json!({}), json!({"until": "submitted"}), json!({"since": "2026-01-01T00:00:00Z"})] {
                let mut died = 0;
                for death in deaths() {
                    died += usize::from(one_effect(generation, lag, death, &with(idle(generation), more.clone()), None).await);
                }
                assert!(died >= 4, "a rerun saves its deadline, its intent and its run: {died} deaths");
            }
        }
    }
}

#[tokio::test]
async fn nor_does_it_matter_that_the_answer_was_lost_as_well() {
    let lost = json!({"kind": "cut_after_applying"});
    let refused = json!({"kind": "status", "status": 503, "headers": [], "body": null});
    for generation in BOTH {
        for lag in [0, 30] {
            for fault in [&lost, &refused] {
                for death in deaths() {
                    one_effect(generation, lag, death, &idle(generation), Some(fault)).await;
                }
            }
        }
    }
}

//! The rule that reruns of one workflow are held to, whatever interleaves: effects equal intents, and every verdict is true by the
//! tenant's ledger. Included by the tests that play the jobs of one queue in memory, and by those that play them in two processes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// A run that the tenant really started.
#[derive(Debug, Clone)]
pub(crate) struct Applied {
    pub(crate) request_id: String,
    pub(crate) run: String,
    pub(crate) active_then: Vec<String>,
}

/// What really happened at the tenant.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) applied: Vec<Applied>,
    /// Every run there is, and how it ended or will end.
    pub(crate) runs: BTreeMap<String, &'static str>,
    pub(crate) stopped: BTreeSet<String>,
}

/// What a job says of itself in the end.
#[derive(Debug)]
pub(crate) enum Ended {
    Verdict { passed: bool, message: String, facts: Map<String, Value> },
    Cancelled { message: Option<String>, facts: Map<String, Value> },
    Unresolved { code: String },
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) input: Value,
    /// Whether somebody asked to cancel it.
    pub(crate) cancelled: bool,
    /// The intents that it saved, by the id of the request that followed.
    pub(crate) intents: BTreeSet<String>,
    pub(crate) ended: Ended,
}

impl Job {
    fn wants_its_own(&self) -> bool {
        self.input["idempotent"] == false && self.input.get("since").is_none()
    }

    fn adopts_what_is_active(&self) -> bool {
        self.input["idempotent"] != false && self.input.get("since").is_none()
    }
}

/// The input of a rerun of the one workflow, without its name.
pub(crate) fn random_input(random: &mut fastrand::Rng, now: &str) -> Value {
    let mut input = json!({"idempotent": random.u8(..100) < 65, "stop_on_cancel": random.bool()});
    if random.u8(..100) < 15 {
        input["since"] = json!(now);
    }
    if random.u8(..100) < 40 {
        input["until"] = json!("submitted");
    }
    input
}

/// The seeds to try: `IOLAUS_INTERLEAVINGS` says how many, `IOLAUS_INTERLEAVINGS_SEED` which is the first.
pub(crate) fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let first = number("IOLAUS_INTERLEAVINGS_SEED").unwrap_or(1);
    first..first + number("IOLAUS_INTERLEAVINGS").unwrap_or(usual)
}

/// Holds what every job says against what was applied.
///
/// # Panics
/// If anything is not true; `case` says with which seed it is tried again.
pub(crate) fn check(ledger: &Ledger, jobs: &[Job], case: &str) {
    let intents: BTreeSet<&String> = jobs.iter().flat_map(|job| &job.intents).collect();
    for applied in &ledger.applied {
        assert!(intents.contains(&applied.request_id), "an effect without an intent: {case}: {applied:?}");
    }
    for job in jobs {
        let told = format!("{case}, {job:?}; the tenant: {ledger:#?}");
        let applied: Vec<&Applied> = ledger.applied.iter().filter(|applied| job.intents.contains(&applied.request_id)).collect();
        assert!(applied.len() <= 1, "more than one effect of one execution: {told}");
        let own = applied.first().copied();
        if let Some(own) = own.filter(|_| job.adopts_what_is_active()) {
            assert_eq!(own.active_then, Vec::<String>::new(), "an active run would have been enough: {told}");
        }
        match &job.ended {
            Ended::Verdict { passed, message, facts } => check_verdict(ledger, jobs, job, (*passed, message, facts), own, &told),
            Ended::Cancelled { message, facts } => check_cancelled(ledger, job, (message.as_deref(), facts), own, &told),
            // Three answers in a row were lost, and nothing was applied.
            Ended::Unresolved { code } => assert!(code == "rerun.ambiguous" && own.is_none(), "{told}"),
        }
    }
}

fn check_verdict(
    ledger: &Ledger,
    jobs: &[Job],
    job: &Job,
    (passed, message, facts): (bool, &str, &Map<String, Value>),
    own: Option<&Applied>,
    told: &str,
) {
    let run = facts["run"].as_str().expect("a run");
    let end = ledger.runs.get(run).unwrap_or_else(|| panic!("a run that is not there: {told}"));
    let phase = facts["phase"].as_str().unwrap_or("none");
    let awaited = job.input.get("until").is_none();
    assert!(phase == *end || !awaited && ["none", "Pending", "Running"].contains(&phase), "the run ends as {end}: {told}");
    assert_eq!(passed, !["Failed", "Error"].contains(&phase), "{told}");
    let is_own = own.is_some_and(|own| own.run == run);
    if facts["started"] == true || message.contains("of this job") {
        assert!(is_own, "a run that is called ours and is not: {told}");
    }
    assert_eq!(facts["started"] == false, message.contains("(adopted: "), "{told}");
    if let Some((_, rest)) = message.split_once("(adopted: job ") {
        let other = rest.split(' ').next().and_then(|id| jobs.iter().find(|job| job.id == id)).expect("a job of the queue");
        let applied = ledger.applied.iter().find(|applied| applied.run == run).expect("it was applied");
        assert!(other.intents.contains(&applied.request_id), "a run that is called job {}'s and is not: {told}", other.id);
    }
    if job.wants_its_own() {
        assert!(is_own, "a job that wants a run of its own has none: {told}");
    } else if !is_own {
        assert!(own.is_none(), "an effect that the verdict hides: {told}");
    }
}

fn check_cancelled(
    ledger: &Ledger,
    job: &Job,
    (message, facts): (Option<&str>, &Map<String, Value>),
    own: Option<&Applied>,
    told: &str,
) {
    assert!(job.cancelled, "nobody cancelled it: {told}");
    let named = facts.get("run").and_then(Value::as_str);
    let in_doubt = facts.contains_key("submissions_of_unknown_fate");
    if let Some(own) = own {
        assert!(named == Some(&own.run) || in_doubt, "an effect that the verdict hides: {told}");
    }
    if message.is_some_and(|message| message.contains("no run was submitted")) {
        assert!(own.is_none(), "{told}");
    }
    if facts.get("stop_requested") == Some(&json!(true)) {
        assert!(named.is_some_and(|run| ledger.stopped.contains(run)), "no stop has arrived: {told}");
    }
}

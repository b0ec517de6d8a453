//! What comes next, row by row; what a request may say; how a verdict is kept within its size.

use std::collections::BTreeMap;

use iolaus_activities::tenant::Tenants;
use iolaus_activities::{ActivityOptions, Category, Check, Failure, FailureRecord, Status, VerdictRecord, codes, shipped};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::executor::Conclusion;
use crate::intake::Intake;
use crate::job::{JobState, NewJob, Refused, TraceContext, json_len, limits};

const GUID: &str = "8c1e2d8a-1564-4e95-8b14-ea14522fcf61";

fn definition(gates: &[Gate]) -> Definition {
    let step = |(n, gate): (usize, &Gate)| Step {
        name: format!("s{n}"),
        activity: "probe".into(),
        activity_version: 1,
        tenant: "default".into(),
        gate: *gate,
        input: json!({}),
        facts: BTreeMap::new(),
        options: ActivityOptions::default(),
    };
    Definition { steps: gates.iter().enumerate().map(step).collect() }
}

fn failure() -> FailureRecord {
    Failure::new("probe.denied", Category::Permission, "denied").suggest("iolaus doctor").record()
}

fn ended(status: Status) -> VerdictRecord {
    VerdictRecord {
        job_id: "nightly/1".into(),
        run_id: "0190".into(),
        activity: "probe".into(),
        tenant: "default".into(),
        status,
        message: Some("so it ended".into()),
        checks: Vec::new(),
        facts: serde_json::Map::new(),
        failure: matches!(status, Status::Unresolved | Status::Cancelled).then(failure),
        attempts: 1,
        enqueued_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: Timestamp::UNIX_EPOCH,
        duration_ms: 0,
        trace_id: "0af7".into(),
    }
}

/// Gates, how steps ended, what else is known; then the step that is started, or the status of the end.
type Row<'a> = (&'a [Gate], &'a [Status], &'a Standing, Result<usize, Status>);

fn closed(next: Next) -> Conclusion {
    match next {
        Next::Close(conclusion) => *conclusion,
        Next::Start { step, .. } => panic!("step {step} was started"),
    }
}

#[test]
fn what_follows_is_the_next_step_or_the_end_for_every_gate_and_status() {
    use Gate::{Hard, Soft};
    use Status::{Cancelled, Failed, Passed, Unresolved};
    let none = Standing::default();
    let cancel = Standing { cancel_requested: true, ..Standing::default() };
    let late = Standing { out_of_time: true, ..Standing::default() };
    let rows: &[Row<'_>] = &[
        (&[Hard], &[], &none, Ok(0)),
        (&[Hard], &[Passed], &none, Err(Passed)),
        (&[Hard], &[Failed], &none, Err(Failed)),
        (&[Hard], &[Unresolved], &none, Err(Unresolved)),
        (&[Hard], &[Cancelled], &none, Err(Cancelled)),
        (&[Soft], &[Failed], &none, Err(Passed)),
        (&[Soft], &[Unresolved], &none, Err(Passed)),
        (&[Soft], &[Cancelled], &none, Err(Passed)),
        (&[Hard, Hard], &[Passed], &none, Ok(1)),
        (&[Hard, Hard], &[Failed], &none, Err(Failed)),
        (&[Soft, Hard], &[Cancelled], &none, Ok(1)),
        (&[Soft, Hard], &[Unresolved, Failed], &none, Err(Failed)),
        (&[Soft, Soft, Hard], &[Failed, Unresolved], &none, Ok(2)),
        // A cancel comes before everything, even after the last step has passed.
        (&[Hard, Hard], &[], &cancel, Err(Cancelled)),
        (&[Hard, Hard], &[Passed], &cancel, Err(Cancelled)),
        (&[Hard], &[Passed], &cancel, Err(Cancelled)),
        (&[Hard], &[Failed], &cancel, Err(Cancelled)),
        // Time stops what is still to come, and changes nothing about what has ended.
        (&[Hard, Hard], &[Passed], &late, Err(Unresolved)),
        (&[Soft, Hard], &[Unresolved], &late, Err(Unresolved)),
        (&[Hard, Hard], &[Passed, Passed], &late, Err(Passed)),
        (&[Hard, Hard], &[Failed], &late, Err(Failed)),
        // More verdicts than steps: a damaged file still ends.
        (&[Hard], &[Passed, Passed], &none, Err(Passed)),
    ];
    for (gates, statuses, standing, expected) in rows {
        let verdicts: Vec<VerdictRecord> = statuses.iter().map(|status| ended(*status)).collect();
        let came = match next(&definition(gates), &verdicts, standing) {
            Next::Start { step, .. } => Ok(step),
            Next::Close(conclusion) => Err(conclusion.status),
        };
        assert_eq!(came, *expected, "{gates:?} {statuses:?} {standing:?}");
    }
    let full = definition(&[Hard; limits::STEPS]);
    let passed = vec![ended(Passed); limits::STEPS];
    assert!(matches!(next(&full, &passed[1..], &none), Next::Start { step: 49, .. }));
    assert_eq!(closed(next(&full, &passed, &none)).message, "all 50 steps passed");
}

#[test]
fn a_verdict_has_a_check_for_each_step_and_the_failure_of_the_one_that_stopped_it() {
    let three = definition(&[Gate::Soft, Gate::Hard, Gate::Hard]);
    let stopped = closed(next(&three, &[ended(Status::Failed), ended(Status::Unresolved)], &Standing::default()));
    assert_eq!((stopped.state, stopped.status), (JobState::Discarded, Status::Unresolved));
    assert_eq!(stopped.message, "step s1 is unresolved: so it ended");
    assert_eq!(stopped.failure, Some(failure()));
    let because = |passed, message: &str| (passed, Some(message.to_owned()));
    let told: Vec<_> = stopped.checks.into_iter().map(|Check { passed, message, .. }| (passed, message)).collect();
    assert_eq!(told, [because(false, "failed (soft)"), because(false, "unresolved"), because(false, "not started")]);
    let steps = stopped.facts["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 2, "only what was started has a verdict");
    assert_eq!((&steps[1]["name"], &steps[1]["status"], &steps[1]["gate"]), (&json!("s1"), &json!("unresolved"), &json!("hard")));
    for (status, state) in
        [(Status::Passed, JobState::Completed), (Status::Failed, JobState::Completed), (Status::Cancelled, JobState::Cancelled)]
    {
        let conclusion = closed(next(&definition(&[Gate::Hard]), &[ended(status)], &Standing::default()));
        assert_eq!((conclusion.state, conclusion.failure.is_some()), (state, status == Status::Cancelled));
    }
    let reason = Standing { cancel_requested: true, cancel_reason: Some("enough".into()), out_of_time: true };
    let cancelled = closed(next(&three, &[], &reason));
    assert_eq!((cancelled.message.as_str(), cancelled.failure.unwrap().code.as_str()), ("enough", codes::CANCELLED));
}

#[test]
fn a_fact_is_handed_on_and_a_missing_one_ends_the_sequence_as_unresolved() {
    let mut two = definition(&[Gate::Soft, Gate::Hard]);
    two.steps[1].input = json!({"timeout": "1h"});
    two.steps[1].facts.insert("run".into(), FactOf { from: "s0".into(), fact: "run".into() });
    let with = |fact: Value| {
        let mut verdict = ended(Status::Failed);
        verdict.facts.insert("run".into(), fact);
        next(&two, &[verdict], &Standing::default())
    };
    assert_eq!(with(json!("r-1")), Next::Start { step: 1, input: json!({"timeout": "1h", "run": "r-1"}) });
    for missing in [with(Value::Null), next(&two, &[ended(Status::Failed)], &Standing::default())] {
        let conclusion = closed(missing);
        let failure = conclusion.failure.unwrap();
        assert_eq!((conclusion.status, failure.code.as_str()), (Status::Unresolved, FACT_MISSING));
        assert_eq!(failure.message, "step s1: input.run is the fact `run` of step s0, which is failed, and there is none");
        assert_eq!(failure.suggested_action.as_deref(), Some("iolaus jobs show nightly/1"));
    }
    let huge = closed(with(json!("x".repeat(limits::INPUT))));
    assert_eq!(huge.failure.unwrap().code, codes::INPUT_INVALID);
}

#[test]
fn the_largest_facts_are_left_out_until_the_verdict_fits_and_it_says_so() {
    let fifty = definition(&[Gate::Hard; limits::STEPS]);
    let verdict = |bytes: usize| {
        let mut verdict = ended(Status::Passed);
        verdict.facts.insert("rows".into(), "x".repeat(bytes).into());
        verdict
    };
    let size =
        |conclusion: &Conclusion| json_len(&json!([conclusion.message, conclusion.checks, conclusion.failure, conclusion.facts]));
    let mut verdicts = vec![verdict(1_000); limits::STEPS];
    verdicts[7] = verdict(200_000);
    verdicts[9] = verdict(100_000);
    let conclusion = closed(next(&fifty, &verdicts, &Standing::default()));
    assert!(size(&conclusion) < limits::VERDICT);
    let steps = conclusion.facts["steps"].as_array().unwrap();
    assert_eq!(steps[7]["facts"], json!({"facts_dropped_bytes": 200_011}));
    assert!(steps[9]["facts"]["rows"].is_string() && steps[8]["facts"]["rows"].is_string(), "the smaller ones are kept");
    assert!(conclusion.facts["steps_dropped_bytes"].as_u64().unwrap() > 190_000);

    // Nothing but what names the steps is left of the worst that there may be.
    let mut worst = verdict(200_000);
    worst.message = Some("\u{1}".repeat(4_096));
    worst.status = Status::Failed;
    worst.checks = vec![Check { name: "x".repeat(4_000), passed: false, message: None }; 10];
    worst.failure = Some(Failure::new("a.b", Category::Internal, "\u{1}".repeat(4_096)).record());
    let conclusion = closed(next(&definition(&[Gate::Soft; limits::STEPS]), &vec![worst; limits::STEPS], &Standing::default()));
    assert!(size(&conclusion) < limits::VERDICT, "{}", size(&conclusion));
    assert_eq!(conclusion.facts["steps"][49]["status"], "failed");
    let small = closed(next(&fifty, &vec![verdict(10); limits::STEPS], &Standing::default()));
    assert!(!small.facts.contains_key("steps_dropped_bytes"));
}

#[test]
fn a_sequence_that_does_not_decode_is_unresolved() {
    let conclusion = undecodable("missing field `steps`");
    assert_eq!((conclusion.status, conclusion.failure.unwrap().code.as_str()), (Status::Unresolved, codes::INPUT_UNDECODABLE));
}

fn admitted(request: Value) -> Result<NewJob, Refused> {
    let request: SequenceRequest = serde_json::from_value(request).unwrap();
    let intake = Intake::new(&shipped(&Tenants::none()), BTreeMap::new(), vec!["default".into(), "acme".into()]);
    admit(&intake, request, TraceContext::generate(), Timestamp::UNIX_EPOCH)
}

fn defined(request: Value) -> Definition {
    serde_json::from_value(admitted(request).unwrap().input).unwrap()
}

fn pipeline() -> Value {
    json!({"tenant": "acme", "schedule_to_close": "2h", "steps": [
        {"name": "check", "activity": "publish_preflight", "input": {"user-id": GUID, "connection_qualified_name": ""}},
        {"name": "run", "activity": "workflow_rerun", "input": {"type": "snowflake", "until": "submitted"}, "gate": "soft",
         "options": {"start_to_close": "9m"}},
        {"activity": "await_completion", "tenant": "default", "input": {"run": {"from": "run", "fact": "run"}, "timeout": "3h"}},
        {"name": "creator", "activity": "publish_preflight",
         "input": {"user-id": {"from": "run", "fact": "creator"}, "connection_qualified_name": {"from": "check", "fact": "c"}}},
    ]})
}

#[test]
fn everything_resolves_at_enqueue_and_facts_stand_under_the_fields_own_names() {
    let job = admitted(pipeline()).unwrap();
    assert_eq!((job.activity.as_str(), job.tenant.as_str()), ("sequence", "acme"));
    assert_eq!(job.options.timeouts.schedule_to_close, Some(std::time::Duration::from_secs(7_200)));
    let steps = defined(pipeline()).steps;
    assert_eq!(steps.iter().map(|step| step.tenant.as_str()).collect::<Vec<_>>(), ["acme", "acme", "default", "acme"]);
    assert_eq!(steps[0].input["user_id"], GUID);
    assert_eq!((steps[1].gate, steps[1].options.timeouts.start_to_close.as_secs()), (Gate::Soft, 540));
    assert_eq!(steps[2].name, "await_completion");
    assert_eq!(steps[2].input, json!({"timeout": "3h", "stop_on_cancel": false}), "the stand-in is gone");
    assert_eq!(steps[2].options.timeouts.start_to_close.as_secs(), 3 * 3_600 + 600);
    assert_eq!(steps[2].facts["run"], FactOf { from: "run".into(), fact: "run".into() });
    assert_eq!(steps[3].facts.keys().collect::<Vec<_>>(), ["connection_qualified_name", "user_id"]);
    // As a fact may be a time, a name or a guid, each field takes what it takes.
    let since = json!({"steps": [pipeline()["steps"][1],
        {"activity": "workflow_rerun", "input": {"app": {"from": "run", "fact": "slug"}, "since": {"from": "run", "fact": "created_at"}}}]});
    assert_eq!(defined(since).steps[1].facts.len(), 2);
}

#[test]
fn what_is_refused_names_the_step_and_the_field() {
    let step = json!({"activity": "await_completion", "input": {"run": "r"}});
    let fact = |from: &str| json!({"from": from, "fact": "run"});
    let second = |step: Value| json!({"steps": [pipeline()["steps"][1], step]});
    let awaits = |input: Value| second(json!({"activity": "await_completion", "input": input}));
    let input = json!({"user_id": "x".repeat(600_000), "connection_qualified_name": ""});
    let wide = |name: &str| json!({"name": name, "activity": "publish_preflight", "input": input});
    let rows = [
        (json!({"steps": []}), "steps", "1 to 50"),
        (json!({"steps": vec![step.clone(); 51]}), "steps", "are 51"),
        (json!({"steps": [step, step]}), "steps[1].name", "earlier step"),
        (json!({"steps": [step], "job_id": "x".repeat(191)}), "job_id", "191 bytes"),
        (json!({"steps": [step], "job_id": "nightly/1"}), "job_id", "`/` and digits"),
        (json!({"steps": [step], "tenant": "nobody"}), "tenant", "not configured"),
        (json!({"steps": [step], "priority": 9}), "priority", "is 9"),
        (json!({"steps": [step], "schedule_to_close": "0s"}), "schedule_to_close", "longer than nothing"),
        (second(json!({"activity": "nothing", "input": {"run": fact("later")}})), "steps[1].activity", "unknown"),
        (second(json!({"activity": "sequence", "input": {}})), "steps[1].activity", "unknown"),
        (second(json!({"name": "a b", "activity": "await_completion"})), "steps[1].name", "letters"),
        (
            second(json!({"activity": "await_completion", "input": {"run": "r"}, "tenant": "x"})),
            "steps[1].tenant",
            "not configured",
        ),
        (
            second(json!({"activity": "await_completion", "input": {"run": "r"}, "options": {"heartbeat": "0s"}})),
            "steps[1].options.heartbeat",
            "longer",
        ),
        (awaits(json!({"run": fact("nowhere")})), "steps[1].input.run.from", "no step `nowhere`; the earlier ones are run"),
        (awaits(json!({"run": fact("await_completion")})), "steps[1].input.run.from", "does not come before"),
        (awaits(json!({"run": {"from": "run", "fact": ""}})), "steps[1].input.run.fact", "empty"),
        (awaits(json!({"run": {"from": "run"}})), "steps[1].input.run", "missing field `fact`"),
        (awaits(json!({"run": {"from": "run", "fact": "run", "x": 1}})), "steps[1].input.run.x", "unknown field"),
        (awaits(json!({"colour": fact("run")})), "steps[1].input.colour", "unknown field"),
        (awaits(json!({"run": fact("run"), "timeout": "3weeks"})), "steps[1].input.timeout", "duration"),
        (awaits(json!({"run": fact("run"), "app_run": "x"})), "steps[1].input.run", "exactly one"),
        (awaits(json!({"run": "r", "timeout": fact("run")})), "steps[1].input.timeout", "options"),
        (json!({"steps": [wide("a"), wide("b")]}), "steps", "1048576"),
        (awaits(json!(7)), "steps[1].input", "object"),
        (
            second(json!({"activity": "workflow_rerun", "input": {"app": "a", "pick": fact("run")}})),
            "steps[1].input.pick",
            "unknown variant",
        ),
    ];
    for (request, field, part) in rows {
        let refused = admitted(request.clone()).expect_err(&request.to_string());
        assert!(refused.field == field && refused.reason.contains(part), "{refused} instead of {field}: {part}");
    }
    let most = json!({"steps": [step], "job_id": "x".repeat(190)});
    assert!(admitted(most).is_ok());
}

#[test]
fn the_preset_is_preflight_grant_if_asked_for_and_rerun() {
    let of = |words: Value| preset("connector_pipeline", words.as_object().cloned().unwrap());
    let names = |words: Value| of(words).unwrap().steps.into_iter().map(|step| step.name.unwrap()).collect::<Vec<_>>();
    let plain = json!({"user_id": GUID, "connection": "default/snowflake/1", "type": "snowflake", "since": "2026-01-01T00:00:00Z"});
    assert_eq!(names(plain.clone()), ["preflight", "rerun"]);
    let mut granted = plain.clone();
    granted["api_token_guid"] = json!("92588c67-5ddf-4a45-8b5c-dd92f4b84e99");
    assert_eq!(names(granted.clone()), ["preflight", "grant", "rerun"]);
    let steps = of(granted).unwrap().steps;
    assert_eq!(steps[1].input["connection_qualified_name"], "default/snowflake/1");
    assert_eq!(steps[2].input, json!({"type": "snowflake", "since": "2026-01-01T00:00:00Z"}));
    assert!(admitted(serde_json::to_value(of(plain).unwrap()).unwrap()).is_ok());
    assert_eq!(of(json!({"connection": "c", "type": "t"})).unwrap_err().field, "user_id");
    assert_eq!(of(json!({"user_id": "u", "type": "t"})).unwrap_err().field, "connection_qualified_name");
    assert_eq!(of(json!({"user_id": "u", "connection": "c", "method": "direct"})).unwrap_err().field, "method");
    assert!(preset("other", serde_json::Map::new()).unwrap_err().reason.contains("connector_pipeline"));
}

#[test]
fn no_activity_is_named_as_a_sequence_is() {
    assert!(shipped(&Tenants::none()).get(crate::job::SEQUENCE).is_none());
    let intake = Intake::new(&shipped(&Tenants::none()), BTreeMap::new(), vec!["default".into()]);
    let request = crate::intake::JobRequest { activity: "sequence".into(), ..Default::default() };
    let refused = intake.admit(request, TraceContext::generate(), Timestamp::UNIX_EPOCH).unwrap_err();
    assert!(refused.reason.contains("iolaus sequence"), "{refused}");
}

//! What people read: a verdict, an execution, tables. Pure: from values to text. A tenant's words never reach a terminal as control
//! characters.

use std::fmt::Write;

use iolaus_activities::{FailureRecord, Status, VerdictRecord, clip, duration, timestamp};
use jiff::Timestamp;
use serde_json::Value;

use super::clean;
use crate::client::{JobDetail, StepDetail};
use crate::job::{JobPause, NewJob, SEQUENCE};
use crate::sequence::Definition;

/// The longest fact that is shown to people, in characters. The JSON has it whole.
const FACT: usize = 160;

/// A verdict with its checks, facts, failure and trace.
pub(crate) fn verdict(record: &VerdictRecord, colour: bool) -> String {
    with_steps(record, &[], colour)
}

/// The same, of a sequence whose steps are known.
fn with_steps(verdict: &VerdictRecord, steps: &[StepDetail], colour: bool) -> String {
    let mut text = format!("{}  {} of tenant {}\n", status(verdict.status, colour), verdict.activity, verdict.tenant);
    if let Some(message) = &verdict.message {
        field(&mut text, "message", message);
    }
    let is_sequence = verdict.activity == SEQUENCE;
    for check in verdict.checks.iter().filter(|_| is_sequence && steps.is_empty()) {
        field(&mut text, "step", &format!("{}: {}", check.name, check.message.as_deref().unwrap_or("passed")));
    }
    for (n, of) in steps.iter().enumerate() {
        step(&mut text, n, of);
    }
    for check in verdict.checks.iter().filter(|_| !is_sequence) {
        let answer = if check.passed { "passed" } else { "failed" };
        let why = check.message.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        field(&mut text, "check", &format!("{} {answer}{why}", check.name));
    }
    // The lines above tell of the steps.
    for (name, value) in verdict.facts.iter().filter(|(name, _)| !is_sequence || *name != "steps") {
        field(&mut text, "fact", &format!("{name} = {}", fact(value)));
    }
    if let Some(record) = &verdict.failure {
        failure(&mut text, record, verdict.message.as_deref());
    }
    field(&mut text, "job", &format!("{}  run {}", verdict.job_id, verdict.run_id));
    let of = if is_sequence {
        count(verdict.facts.get("steps").and_then(Value::as_array).map_or(0, Vec::len), "step")
    } else {
        count(usize::try_from(verdict.attempts).unwrap_or(usize::MAX), "attempt")
    };
    field(&mut text, "took", &format!("{of}, {}", milliseconds(verdict.duration_ms)));
    field(&mut text, "trace", &verdict.trace_id);
    text
}

/// An execution: its verdict once there is one, else where it stands.
pub(crate) fn detail(detail: &JobDetail, colour: bool) -> String {
    let job = &detail.job;
    let mut text = match &detail.verdict {
        Some(record) => with_steps(record, &detail.steps, colour),
        None => format!("{}  {} of tenant {}\n", job.state, job.activity, job.tenant),
    };
    if detail.verdict.is_none() {
        field(&mut text, "job", &format!("{}  run {}", job.job_id, job.run_id));
        field(&mut text, "trace", detail.trace.trace_id());
        field(&mut text, "due", &timestamp::format(job.run_at));
        if job.activity != SEQUENCE {
            field(&mut text, "attempts", &job.attempts.to_string());
        }
        for (n, of) in detail.steps.iter().enumerate() {
            step(&mut text, n, of);
        }
    }
    if let Some(worker) = &job.worker {
        field(&mut text, "worker", worker);
    }
    if job.cancel_requested && job.state.is_open() {
        field(&mut text, "cancel", "requested");
    }
    if let Some(pause) = &job.paused {
        field(&mut text, "paused", &paused(pause));
    }
    if let Some(since) = job.stalled_since {
        field(&mut text, "stalled", &format!("since {}", timestamp::format(since)));
    }
    if job.activity != SEQUENCE {
        field(&mut text, "input", &fact(&detail.input));
    }
    for (name, value) in &detail.labels {
        field(&mut text, "label", &format!("{name} = {value}"));
    }
    for (name, value) in [("progress", &detail.progress), ("checkpoint", &detail.checkpoint)] {
        if let Some(value) = value {
            field(&mut text, name, &fact(value));
        }
    }
    for attempt in &detail.failures {
        let at = timestamp::format(attempt.at);
        field(
            &mut text,
            "attempt",
            &format!("{} at {at}: {} ({})", attempt.attempt, attempt.failure.message, attempt.failure.code),
        );
    }
    text
}

/// A pause by the host's own tools: by whom, why, and what resumes it.
pub(crate) fn paused(pause: &JobPause) -> String {
    let by = pause.by.as_ref().map_or_else(|| "with the cluster's tools".to_owned(), |by| format!("by {by}"));
    let reason = pause.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{by}{reason}; resume it with: {}", pause.resume)
}

/// A sequence as it was resolved: a step, then what it is asked and under which options.
pub(crate) fn sequence(job: &NewJob, definition: &Definition) -> String {
    let mut text = format!("{} of tenant {}, in {}\n", job.activity, job.tenant, count(definition.steps.len(), "step"));
    if let Some(limit) = job.options.timeouts.schedule_to_close {
        field(&mut text, "in all", &duration::format(limit));
    }
    for (n, step) in definition.steps.iter().enumerate() {
        let told = format!("{} {}: {} of tenant {}, {}", n + 1, step.name, step.activity, step.tenant, step.gate.as_str());
        field(&mut text, "step", &told);
        field(&mut text, "  input", &fact(&step.input));
        for (name, of) in &step.facts {
            field(&mut text, "  fact", &format!("{name} = {} of {}", of.fact, of.from));
        }
        field(&mut text, "  options", &serde_json::to_string(&step.options).unwrap_or_default());
    }
    text
}

fn step(text: &mut String, n: usize, step: &StepDetail) {
    let stands = match (&step.job, step.status) {
        (_, Some(status)) => status.as_str().to_owned(),
        (Some(job), None) => format!("{}, {}", job.state, count(usize::try_from(job.attempts).unwrap_or(usize::MAX), "attempt")),
        (None, None) => "not started".to_owned(),
    };
    let id = step.job.as_ref().map(|job| format!("  {}", job.job_id)).unwrap_or_default();
    field(text, "step", &format!("{} {} ({}): {stands}{id}", n + 1, step.name, step.activity));
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Columns, as wide as they need to be.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| plain_line(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A moment, or nothing.
pub(crate) fn moment(at: Option<Timestamp>) -> String {
    at.map(timestamp::format).unwrap_or_default()
}

/// A status, in its colour. The word is always there.
pub(crate) fn status(status: Status, colour: bool) -> String {
    let code = match status {
        Status::Passed => 32,
        Status::Failed => 31,
        Status::Unresolved => 33,
        Status::Cancelled => 35,
    };
    if colour { format!("\u{1b}[1;{code}m{}\u{1b}[0m", status.as_str()) } else { status.as_str().to_owned() }
}

/// One line, without characters that act on a terminal.
pub(crate) fn plain_line(text: &str) -> String {
    clean::line(text)
}

/// As a person says it.
pub(crate) fn milliseconds(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) }
}

fn failure(text: &mut String, record: &FailureRecord, said: Option<&str>) {
    let kind = serde_json::to_value(record.category).unwrap_or_default();
    let what = format!("{} ({}): {}", record.code, kind.as_str().unwrap_or_default(), record.message);
    let shown = if said == Some(record.message.as_str()) { what.split(": ").next().unwrap_or_default() } else { &what };
    field(text, "failure", shown);
    let source = &record.source;
    let parts = [
        source.operation.clone(),
        source.http_status.map(|status| format!("HTTP {status}")),
        source.tenant_code.as_ref().map(|code| format!("code {code}")),
        source.request_id.as_ref().map(|id| format!("request {id}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        field(text, "source", &parts.join(", "));
    }
    if let Some(action) = &record.suggested_action {
        field(text, "try", action);
    }
}

/// A name and a text of one or more lines, indented.
fn field(text: &mut String, name: &str, value: &str) {
    for (n, line) in clip(value.to_owned()).lines().enumerate() {
        let name = if n == 0 { name } else { "" };
        // Writing to a String cannot fail.
        writeln!(text, "  {name:<10} {}", plain_line(line)).ok();
    }
}

fn fact(value: &Value) -> String {
    let whole = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if whole.chars().count() <= FACT { whole } else { whole.chars().take(FACT - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iolaus_activities::{Category, Check, Failure, FailureSource};
    use serde_json::json;

    fn record(status: Status) -> VerdictRecord {
        VerdictRecord {
            job_id: "nightly".into(),
            run_id: "0190".into(),
            activity: "publish_preflight".into(),
            tenant: "default".into(),
            status,
            message: Some("user 8c1e may not publish".into()),
            checks: vec![
                Check { name: "UserEnabled".into(), passed: true, message: None },
                Check { name: "AtlanPublishPermission".into(), passed: false, message: Some("no \u{1b}[31mright".into()) },
            ],
            facts: json!({"user_id": "8c1e", "failed_checks": ["x"]}).as_object().cloned().expect("an object"),
            failure: None,
            attempts: 1,
            enqueued_at: Timestamp::UNIX_EPOCH,
            started_at: None,
            finished_at: Timestamp::UNIX_EPOCH,
            duration_ms: 1_240,
            trace_id: "0af7".into(),
        }
    }

    #[test]
    fn a_verdict_is_told_with_checks_facts_and_trace_and_without_control_characters() {
        insta::assert_snapshot!(verdict(&record(Status::Failed), false), @r#"
        failed  publish_preflight of tenant default
          message    user 8c1e may not publish
          check      UserEnabled passed
          check      AtlanPublishPermission failed: no  [31mright
          fact       failed_checks = ["x"]
          fact       user_id = 8c1e
          job        nightly  run 0190
          took       1 attempt, 1.2 s
          trace      0af7
        "#);
    }

    #[test]
    fn an_unresolved_verdict_names_code_source_and_what_to_try() {
        let source = FailureSource {
            operation: Some("preflight.ask".into()),
            http_status: Some(403),
            request_id: Some("r-1".into()),
            ..FailureSource::default()
        };
        let failure = Failure::new("tenant.forbidden", Category::Permission, "not yours\nat all")
            .suggest("iolaus doctor")
            .with_source(source);
        let unresolved = VerdictRecord { failure: Some(failure.record()), checks: Vec::new(), ..record(Status::Unresolved) };
        let text = verdict(&unresolved, true);
        for part in [
            "\u{1b}[1;33munresolved\u{1b}[0m",
            "tenant.forbidden (PERMISSION): not yours",
            "at all",
            "preflight.ask, HTTP 403, request r-1",
            "try        iolaus doctor",
        ] {
            assert!(text.contains(part), "`{part}` is missing in:\n{text}");
        }
    }

    #[test]
    fn a_table_is_as_wide_as_its_widest_cell() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["longer\n".to_owned(), String::new()]];
        assert_eq!(table(&["ONE", "TWO"], &rows), "ONE      TWO\na        b\nlonger\n");
    }

    #[test]
    fn no_cell_of_a_table_acts_on_a_terminal_or_begins_a_line_of_its_own() {
        let rows = [vec!["a\u{1b}[2Jb".to_owned(), "c\nd\u{202e}e".to_owned()]];
        assert_eq!(table(&["ONE", "TWO"], &rows), "ONE     TWO\na [2Jb  c d e\n");
    }
}

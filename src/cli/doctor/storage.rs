//! What `doctor` says about the queue's file and its disk. It looks at a bounded sample; `iolaus fsck` reads every row.

use std::time::Duration;

use iolaus_activities::duration;
use jiff::SignedDuration;

use crate::cli::App;
use crate::cli::doctor::{Finding, State};
use crate::client::{ClientError, Health, LogSize};
use crate::embedded::{DiskSpeed, describe_step};

/// Broken rows that are named one by one.
const NAMED: usize = 5;

/// What a sample of the rows shows, and the log. `own` is the retention that is configured here.
pub(super) fn health(health: &Health, own: Duration) -> Vec<Finding> {
    let mut findings = rows(health);
    findings.extend(health.log.as_ref().map(log));
    findings.extend(step(health.wall_clock_ahead));
    findings.extend(health.retention.and_then(|recorded| retention(own, recorded)));
    findings
}

fn rows(health: &Health) -> Vec<Finding> {
    let Health { sampled, broken, .. } = health;
    if health.log.is_none() {
        return Vec::new();
    }
    if broken.is_empty() {
        let message = format!("no fault in {sampled} executions that were looked at; iolaus fsck checks all");
        return vec![Finding::new("rows", State::Ok, message)];
    }
    let named = broken.iter().take(NAMED).map(|row| {
        let message = format!("job {} (run {}) {}: {}", row.job_id, row.run_id, row.code, row.message);
        Finding::new("rows", State::Fail, message)
            .hint("iolaus fsck names every broken row, and iolaus fsck --repair sets them aside")
    });
    let more = broken.len().saturating_sub(NAMED);
    let rest =
        (more > 0).then(|| Finding::new("rows", State::Fail, format!("{more} more of {sampled} executions that were looked at")));
    named.chain(rest).collect()
}

/// What is said where the wall clock was set since the first of its processes opened the queue.
fn step(ahead: SignedDuration) -> Option<Finding> {
    if ahead.is_zero() {
        return None;
    }
    let message = format!("the machine's wall clock is {}: it was set while the queue was in use", describe_step(ahead));
    Some(
        Finding::new("clock", State::Warn, message).hint(
            "no job starts or ends earlier or later for it; to show right times, restart all processes of the queue together",
        ),
    )
}

/// What is said where this process and the workers are told different times to keep closed jobs.
fn retention(own: Duration, workers: Duration) -> Option<Finding> {
    if own == workers {
        return None;
    }
    let (longer, own, workers) = (own.max(workers), duration::format(own), duration::format(workers));
    let message = format!(
        "database.retention is {own} here and {workers} for the workers of this queue; from here, closed jobs are deleted after {}",
        duration::format(longer)
    );
    Some(
        Finding::new("retention", State::Warn, message)
            .hint(format!("give both the same configuration; workers that are restarted with {own} record that")),
    )
}

fn log(log: &LogSize) -> Finding {
    let LogSize { bytes, limit, readers } = log;
    let message = format!("the write-ahead log has {} KiB", bytes.div_ceil(1024));
    if bytes <= limit {
        return Finding::new("log", State::Ok, message);
    }
    let who = if readers.is_empty() { String::new() } else { format!("; the file is being read by {}", readers.join(", ")) };
    let message =
        format!("{message}, more than database.wal_warn_bytes: a reader of an old state keeps it from being shortened{who}");
    Finding::new("log", State::Warn, message)
        .hint("end the process that keeps a read transaction open, such as a backup or a database shell")
}

/// How fast the disk syncs, and what that allows.
pub(super) async fn disk(app: &App) -> (Option<Finding>, Option<DiskSpeed>) {
    match app.measure_disk().await {
        None => (None, None),
        Some(Ok(disk)) => (Some(speed(&disk)), Some(disk)),
        Some(Err(error)) => {
            let finding = Finding::new("disk", State::Warn, format!("could not be measured: {error}"));
            // A directory that too many may write to is refused as well as one that this user may not: the error knows.
            let hint = if let ClientError::Unavailable { hint, .. } = error { hint } else { None };
            (Some(hint.into_iter().fold(finding, Finding::hint)), None)
        }
    }
}

/// More jobs a second than processors do: past it the disk is no limit.
const PROCESSORS: u64 = 20_000;

fn speed(disk: &DiskSpeed) -> Finding {
    let full = if disk.jobs_per_second_batched > PROCESSORS {
        "with full commits the processors are the limit and not the disk (iolaus bench measures it)".to_owned()
    } else {
        format!("with full commits at most {}", disk.jobs_per_second_batched)
    };
    let message = format!(
        "a sync takes {} µs alone and {} µs beside another ({} were made): about {} jobs a second one after the other; {full}",
        disk.sync_us, disk.overlapped_sync_us, disk.syncs, disk.jobs_per_second_alone
    );
    match &disk.implausible {
        None => Finding::new("disk", State::Ok, message),
        Some(why) => Finding::new("disk", State::Warn, format!("{why}; {message}"))
            .hint("put the queue's file (database.path) on a disk that keeps what is synced, unless the jobs may be lost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::BrokenRow;

    #[test]
    fn broken_rows_are_named_up_to_a_bound() {
        let row =
            |n: usize| BrokenRow { code: "input.missing", job_id: format!("j{n}"), run_id: "r".into(), message: "no row".into() };
        let log = Some(LogSize { bytes: 1, limit: 2, readers: Vec::new() });
        let found = health(&Health { sampled: 40, broken: (0..9).map(row).collect(), log, ..Health::default() }, Duration::ZERO);
        assert_eq!(found.iter().filter(|finding| finding.state == State::Fail).count(), NAMED + 1);
        assert!(found[0].message.contains("job j0") && found[NAMED].message.contains("4 more of 40"), "{found:?}");
    }

    #[test]
    fn a_wall_clock_that_was_set_is_a_warning() {
        assert_eq!(step(SignedDuration::ZERO).map(|found| found.message), None);
        let found = step(SignedDuration::from_hours(-1)).unwrap();
        assert!(found.state == State::Warn && found.message.contains("is 1h behind the queue's time"), "{found:?}");
    }

    #[test]
    fn a_log_over_its_limit_is_a_warning_that_names_who_reads() {
        let found = log(&LogSize { bytes: 4096, limit: 1024, readers: vec!["sqlite3 (pid 7)".into()] });
        assert!(found.state == State::Warn && found.message.contains("sqlite3 (pid 7)"), "{found:?}");
    }
}

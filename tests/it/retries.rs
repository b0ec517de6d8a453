//! Dead jobs, retried by filter.

use iolaus::client::{ClientError, RetryFilter};
use iolaus::job::JobState;
use iolaus::sequence::{SequenceRequest, StepRequest};

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

/// Every step of a retry: what was retried, and how many were left out.
async fn retry(host: &TestHost, filter: RetryFilter) -> (Vec<String>, usize) {
    let (mut retried, mut skipped, mut cursor) = (Vec::new(), 0, None);
    loop {
        let page = host.client.retry_matching(filter.clone(), cursor).await.unwrap();
        retried.extend(page.retried.iter().map(|job| job.job_id.to_string()));
        skipped += page.skipped.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            return (retried, skipped);
        }
    }
}

#[tokio::test]
async fn only_what_matches_is_retried_and_saying_it_again_retries_nothing() {
    let host = TestHost::new();
    let worker = host.worker().await;
    for (id, act) in [("denied", Act::Denied), ("refused", Act::Refuse), ("passed", Act::Pass), ("down", Act::Unavailable)] {
        host.enqueue_acts(id, [act]).await;
        host.verdict(id).await;
    }
    worker.drain().await.unwrap();
    host.enqueue_acts("unwanted", [Act::Pass]).await;
    host.client.cancel(target("unwanted"), None).await.unwrap();
    let by_code = RetryFilter { code: Some("probe.denied".into()), ..RetryFilter::default() };
    let dry = RetryFilter { dry_run: true, ..by_code.clone() };
    assert_eq!(retry(&host, dry).await, (vec!["denied".to_owned()], 0));
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM jobs"), 5, "a dry run opens nothing");
    assert_eq!(retry(&host, by_code.clone()).await, (vec!["denied".to_owned()], 0));
    assert_eq!(retry(&host, by_code).await, (vec![], 0), "its newest execution is open now");
    let discarded = RetryFilter { states: vec![JobState::Discarded], activity: Some("probe".into()), ..RetryFilter::default() };
    assert_eq!(retry(&host, discarded).await.0, ["down"], "a verdict `failed` is not a failed job");
    let elsewhere = RetryFilter { tenant: Some("other".into()), ..RetryFilter::default() };
    assert_eq!(retry(&host, elsewhere).await.0, [""; 0]);
    assert_eq!(retry(&host, RetryFilter::default()).await.0, ["unwanted"]);
    assert_eq!(host.detail("denied").await.job.attempts, 0);
}

#[tokio::test]
async fn an_ambiguous_one_is_left_out_and_named_unless_duplicates_are_accepted() {
    let host = TestHost::new();
    let worker = host.worker().await;
    host.enqueue_acts("maybe", [Act::Denied]).await;
    host.verdict("maybe").await;
    host.tamper(
        "UPDATE job_verdicts SET code = 'rerun.ambiguous', verdict = json_set(verdict, '$.failure.code', 'rerun.ambiguous', \
         '$.failure.suggested_action', 'iolaus execute workflow_rerun since=T')",
    );
    let page = host.client.retry_matching(RetryFilter::default(), None).await.unwrap();
    assert_eq!((page.retried.len(), page.skipped.len()), (0, 1));
    assert_eq!(page.skipped[0].instead.as_deref(), Some("iolaus execute workflow_rerun since=T"));
    let accepting = RetryFilter { accept_duplicate: true, ..RetryFilter::default() };
    assert_eq!(retry(&host, accepting).await, (vec!["maybe".to_owned()], 0));
    host.verdict("maybe").await;
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn many_are_retried_in_small_steps_and_what_dies_again_meanwhile_is_not_retried_twice() {
    let host = TestHost::new();
    for n in 0..600 {
        host.enqueue_acts(&format!("n-{n}"), [Act::Pass]).await;
        host.client.cancel(target(&format!("n-{n}")), None).await.unwrap();
    }
    let first = host.client.retry_matching(RetryFilter::default(), None).await.unwrap();
    assert_eq!(first.retried.len(), 256, "one transaction is bounded");
    // The first dies again before the next step.
    host.client.cancel(target("n-0"), None).await.unwrap();
    let mut all: Vec<String> = first.retried.iter().map(|job| job.job_id.to_string()).collect();
    let mut cursor = first.next_cursor;
    while cursor.is_some() {
        let page = host.client.retry_matching(RetryFilter::default(), cursor).await.unwrap();
        all.extend(page.retried.iter().map(|job| job.job_id.to_string()));
        cursor = page.next_cursor;
    }
    assert_eq!(all, (0..600).map(|n| format!("n-{n}")).collect::<Vec<_>>());
    let state = host.client.retry_matching(RetryFilter { states: vec![JobState::Completed], ..RetryFilter::default() }, None).await;
    assert!(matches!(state, Err(ClientError::Refused(refused)) if refused.field == "state"));
}

#[tokio::test]
async fn a_dead_sequence_is_retried_as_a_whole_and_never_by_its_steps() {
    let host = TestHost::new();
    let worker = host.worker().await;
    let denied = probe_job("unused", [Act::Denied]).input;
    let step = StepRequest { activity: "probe".into(), input: denied, ..StepRequest::default() };
    let request = SequenceRequest { steps: vec![step], job_id: Some("dead".into()), ..SequenceRequest::default() };
    host.enqueue_sequence(request).await.unwrap();
    host.verdict("dead").await;
    let of = |activity: &str| RetryFilter { activity: Some(activity.into()), ..RetryFilter::default() };
    assert_eq!(retry(&host, RetryFilter { dry_run: true, ..of("probe") }).await, (vec![], 0));
    assert_eq!(retry(&host, of("probe")).await, (vec![], 0));
    assert_eq!(retry(&host, of("sequence")).await, (vec!["dead".to_owned()], 0));
    host.verdict("dead").await;
    assert_eq!(host.probe.attempts("dead/1"), [1, 1]);
    worker.drain().await.unwrap();
}

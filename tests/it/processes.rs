//! Several processes on one file, as far as one process can play them: each has its own writer, connections and wakes.

use std::time::Duration;

use iolaus::client::{Cancelled, ClientError};
use iolaus::embedded::{Executed, execute};
use iolaus::intake::JobRequest;
use iolaus::job::IdConflictPolicy;
use iolaus_activities::Status;
use serde_json::json;

use crate::support::host::{TestHost, probe_job, target};
use crate::support::probe::Act;

#[tokio::test]
async fn a_worker_wakes_when_another_process_enqueues_and_the_enqueuer_when_it_is_done() {
    let host = TestHost::new();
    let enqueuer = host.another();
    let worker = host.worker().await;
    // Nobody moves the clock here: only wakes can bring this about.
    enqueuer.enqueue_acts("across", [Act::Pass]).await;
    let verdict = enqueuer.client.wait(target("across")).await.unwrap();
    assert_eq!(verdict.status, Status::Passed);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn a_cancel_from_another_process_reaches_the_running_attempt() {
    let host = TestHost::new();
    let other = host.another();
    let worker = host.worker().await;
    host.enqueue_acts("far", [Act::UntilStopped]).await;
    host.probe.started.notified().await;
    assert_eq!(other.client.cancel(target("far"), Some("from afar".into())).await.unwrap(), Cancelled::Requested);
    let verdict = host.client.wait(target("far")).await.unwrap();
    assert_eq!((verdict.status, verdict.message.as_deref()), (Status::Cancelled, Some("from afar")));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn thousands_wait_in_a_process_for_what_another_one_does_and_each_gets_its_own_verdict() {
    const WAITERS: usize = 2_000;
    let host = TestHost::new();
    let asker = host.another();
    let jobs = (0..WAITERS).map(|n| asker.admit(probe_job(&format!("job-{n}"), [Act::Pass])).unwrap()).collect();
    asker.client.enqueue_many(jobs).await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..WAITERS {
        let client = asker.client.clone();
        waiting.spawn(async move { client.wait(target(&format!("job-{n}"))).await.unwrap().job_id });
    }
    // Nobody moves the clock: only wakes bring this about.
    let worker = host.worker().await;
    let mut told: Vec<String> = waiting.join_all().await;
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), WAITERS);
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn whoever_waits_for_a_job_that_is_forgotten_meanwhile_is_told_so() {
    let host = TestHost::new();
    host.enqueue_acts("gone", [Act::Pass]).await;
    let asker = host.another();
    let wait = asker.client.wait(target("gone"));
    let forget = async {
        // It waits; then the row goes, as pruning lets it go. Nobody is woken for that: the next slow round finds it.
        asker.client.status().await.unwrap();
        host.tamper("DELETE FROM jobs");
        std::future::pending::<()>().await;
    };
    let told = async {
        tokio::select! { told = wait => told, () = forget => unreachable!("it waits for ever") }
    };
    let told = host.pass_time(Duration::from_secs(1), told).await;
    assert!(matches!(&told, Err(ClientError::NotFound(id)) if id.as_str() == "gone"), "{told:?}");
}

#[tokio::test]
async fn execute_works_one_job_and_leaves_the_others_alone() {
    let host = TestHost::new();
    host.enqueue_acts("bystander", [Act::Pass]).await;
    let job = host.admit(probe_job("mine", [Act::Unavailable, Act::Pass])).unwrap();
    let executed = host.drive(execute(&host.embedded, host.worker_options(), job, std::future::pending())).await.unwrap();
    let Executed::Verdict(verdict) = executed else { panic!("it ended") };
    assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    assert_eq!(host.detail("bystander").await.job.attempts, 0);
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM workers"), 0);
}

#[tokio::test]
async fn execute_gives_the_job_back_when_it_is_told_to_stop() {
    let host = TestHost::new();
    let job = host.admit(probe_job("mine", [Act::UntilStopped])).unwrap();
    let stop = async { host.probe.started.notified().await };
    let executed = execute(&host.embedded, host.worker_options(), job, stop).await.unwrap();
    assert_eq!(executed, Executed::NotYet);
    let job = host.detail("mine").await.job;
    assert_eq!((job.state.as_str(), job.attempts), ("available", 0));
}

#[tokio::test]
async fn execute_refuses_an_id_that_is_open_for_another_activity_or_tenant_and_leaves_that_job_alone() {
    let host = TestHost::new();
    host.enqueue_acts("gate-42", [Act::Pass]).await;
    let with = |request: JobRequest| JobRequest { id_conflict_policy: IdConflictPolicy::UseExisting, ..request };
    let preflight = json!({"user_id": "u", "connection_qualified_name": ""});
    let other_activity = JobRequest { activity: "publish_preflight".into(), input: preflight, ..probe_job("gate-42", [Act::Pass]) };
    let other_tenant = JobRequest { tenant: Some("other".into()), ..probe_job("gate-42", [Act::Pass]) };
    for (request, asked) in [(other_activity, "publish_preflight of tenant default"), (other_tenant, "probe of tenant other")] {
        let job = host.admit(with(request)).unwrap();
        let refused = execute(&host.embedded, host.worker_options(), job, std::future::pending()).await;
        let Err(error @ ClientError::OtherJob(_)) = refused else { panic!("it is another job: {refused:?}") };
        let (text, both) = (error.to_string(), ["activity probe of tenant default", asked]);
        assert!(both.iter().all(|part| text.contains(part)), "{text}");
    }
    let open = host.detail("gate-42").await.job;
    assert_eq!((open.state.as_str(), open.attempts), ("available", 0), "nothing of it was worked");
    let job = host.admit(with(probe_job("gate-42", [Act::Pass]))).unwrap();
    let executed = execute(&host.embedded, host.worker_options(), job, std::future::pending()).await.unwrap();
    assert!(matches!(executed, Executed::Verdict(verdict) if verdict.run_id == open.run_id.to_string()));
}

#[tokio::test]
async fn execute_waits_for_the_live_worker_that_holds_the_job() {
    let host = TestHost::new();
    let other = host.another();
    let worker = other.worker().await;
    host.enqueue_acts("held", [Act::Gate]).await;
    host.probe.started.notified().await;
    let mut job = host.admit(probe_job("held", [Act::Gate])).unwrap();
    job.id_conflict_policy = iolaus::job::IdConflictPolicy::UseExisting;
    let executing = execute(&host.embedded, host.worker_options(), job, std::future::pending());
    let opening = async {
        host.until_sql("SELECT count(*) = 2 FROM workers").await;
        // Its enqueue, sent when it had registered, is through.
        host.clock.until_at_rest().await;
        host.probe.gate.add_permits(1);
    };
    let (executed, ()) = tokio::join!(executing, opening);
    let executed = executed.unwrap();
    assert!(matches!(executed, Executed::Verdict(verdict) if verdict.attempts == 1));
    worker.drain().await.unwrap();
}

#[tokio::test]
async fn many_processes_enqueue_and_work_at_once_and_every_job_has_one_verdict() {
    let host = TestHost::new();
    let others: Vec<TestHost> = (0..3).map(|_| host.another()).collect();
    let mut workers = Vec::new();
    for other in &others {
        workers.push(other.worker().await);
    }
    let enqueue = |n: usize| {
        let (client, job) = (others[n % 3].client.clone(), host.admit(probe_job(&format!("job-{n}"), [Act::Pass])).unwrap());
        tokio::spawn(async move {
            client.enqueue(job.clone()).await.unwrap();
            client.wait(target(job.job_id.as_str())).await.unwrap().attempts
        })
    };
    let waiting: Vec<_> = (0..150).map(enqueue).collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), 1);
    }
    assert_eq!(host.sql::<i64>("SELECT count(*) FROM job_verdicts"), 150);
    for worker in workers {
        worker.drain().await.unwrap();
    }
}

#[tokio::test]
async fn a_job_that_a_waiting_process_finds_due_is_started_by_the_worker() {
    let host = TestHost::new();
    let waiter = host.another();
    let worker = host.worker().await;
    // For a lost wake there is a slow round; here nothing but the wakes can bring it about, whoever promotes.
    for n in 0..20 {
        let job = probe_job(&format!("due-{n}"), [Act::Unavailable, Act::Pass]);
        host.enqueue(job).await.unwrap();
        let verdict = waiter.drive(waiter.client.wait(target(&format!("due-{n}")))).await.unwrap();
        assert_eq!((verdict.status, verdict.attempts), (Status::Passed, 2));
    }
    worker.drain().await.unwrap();
}

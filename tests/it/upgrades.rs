//! What earlier versions stored is read for ever.

use std::path::Path;
use std::time::Duration;

use iolaus_activities::{Clock, Status};
use serde_json::json;

use crate::support::host::{TestHost, target};

const FIRST_SCHEMA: &str = include_str!("../../src/embedded/store/schema/001_initial.sql");
/// What the first version stored: a job that waits with a checkpoint, one that its worker ran when it died two minutes ago, and one
/// that is closed.
const FIRST_ROWS: &str = include_str!("../fixtures/first_schema.sql");

fn of_the_first_version(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = rusqlite::Connection::open(path).unwrap();
    file.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
    file.pragma_update(None, "application_id", 0x494F_4C41).unwrap();
    file.execute_batch(FIRST_SCHEMA).unwrap();
    file.execute_batch(FIRST_ROWS).unwrap();
    file.pragma_update(None, "user_version", 1).unwrap();
}

#[tokio::test]
async fn a_file_of_the_first_schema_is_upgraded_and_its_jobs_go_on_where_they_stood() {
    let host = TestHost::on_file(Duration::from_secs(10), of_the_first_version);
    assert!(host.sql::<i64>("PRAGMA user_version") > 1);
    let before = host.client.wait(target("closed")).await.unwrap();
    assert_eq!((before.status, before.message.as_deref()), (Status::Failed, Some("the tenant said no")));
    let worker = host.worker().await;
    let waiting = host.client.wait(target("waiting")).await.unwrap();
    assert_eq!((waiting.status, waiting.attempts, &waiting.facts["checkpoint"]), (Status::Passed, 1, &json!({"step": 2})));
    assert_eq!(host.clock.monotonic(), Duration::ZERO, "it was claimed at once");
    let rescued = host.pass_time(Duration::from_secs(1), host.client.wait(target("running"))).await.unwrap();
    assert_eq!((rescued.status, rescued.attempts), (Status::Passed, 2));
    assert_eq!(host.detail("running").await.failures[0].failure.code, "worker.lost");
    assert_eq!(host.client.presence().await.unwrap().workers.len(), 1, "the worker of before is gone");
    worker.drain().await.unwrap();
}

//! What a search proves: one that failed in part, or that contradicts itself, shows neither that something is absent nor that it is the only one.

use serde_json::{Value, json};

use super::super::scripted::{Reply, Scripted, clock};
use super::super::*;

fn workflow(name: &str) -> Value {
    json!({"_source": {"metadata": {"name": name, "annotations": {"package.argoproj.io/name": "@atlan/x"}}}})
}

fn found(total: &Value, hits: &[Value]) -> Value {
    json!({"timed_out": false, "_shards": {"total": 5, "failed": 0}, "hits": {"total": {"value": total}, "hits": hits}})
}

async fn of_package(replies: &[Value]) -> Result<Vec<String>, Failure> {
    let server = Scripted::script(replies.iter().map(Reply::ok)).await;
    let found = server.tenant(&clock()).workflows_of_package("@atlan/x").await?;
    Ok(found.into_iter().map(|workflow| workflow.name).collect())
}

async fn named(reply: &Value) -> Result<Option<String>, Failure> {
    let server = Scripted::script([Reply::ok(reply)]).await;
    Ok(server.tenant(&clock()).workflow("x-1").await?.map(|workflow| workflow.name))
}

#[tokio::test]
async fn a_search_that_says_that_it_failed_proves_nothing() {
    let mut timed_out = found(&json!(0), &[]);
    timed_out["timed_out"] = json!(true);
    let mut failed = found(&json!(0), &[]);
    failed["_shards"]["failed"] = json!(2);
    for answer in [&timed_out, &failed] {
        let mut entities = answer.clone();
        entities["approximateCount"] = json!(0);
        let server = Scripted::answering({
            let (answer, entities) = (answer.clone(), entities.clone());
            move |request| Some(Reply::ok(if request.target.contains("meta/search") { &entities } else { &answer }))
        })
        .await;
        let tenant = server.tenant(&clock());
        let failures = [
            tenant.workflow("x-1").await.map(drop),
            tenant.workflows_of_package("@atlan/x").await.map(drop),
            tenant.list_workflows(10).await.map(drop),
            tenant.runs_of("x-1", None).await.map(drop),
            tenant.last_run("x-1").await.map(drop),
            tenant.look("x-1-run").await.map(drop),
            tenant.app_runs_of("x", None).await.map(drop),
            tenant.personas_named("x").await.map(drop),
        ];
        for (nth, answered) in failures.into_iter().enumerate() {
            let failure = answered.expect_err("it proves nothing");
            assert!(failure.code == "tenant.unavailable" && failure.retryable, "{nth}: {failure}");
            assert!(failure.message.contains("the search is incomplete: "), "{nth}: {failure}");
        }
    }
}

#[tokio::test]
async fn a_workflow_is_absent_only_if_the_search_shows_all_that_it_counts() {
    assert_eq!(named(&found(&json!(0), &[])).await, Ok(None));
    assert_eq!(named(&found(&json!(1), &[workflow("x-1")])).await, Ok(Some("x-1".to_owned())));
    for (total, hits) in [(1, vec![]), (1, vec![json!(null)]), (1, vec![json!({"_source": {}})]), (2, vec![workflow("y")])] {
        let failure = named(&found(&json!(total), &hits)).await.expect_err("it proves nothing");
        assert!(failure.code == "tenant.unreadable" && failure.retryable, "{hits:?}: {failure}");
    }
}

#[tokio::test]
async fn a_workflow_is_the_only_one_only_if_the_search_shows_all_that_it_counts() {
    let (one, two) = (workflow("x-1"), workflow("x-2"));
    assert_eq!(of_package(&[found(&json!(0), &[])]).await, Ok(vec![]));
    assert_eq!(of_package(&[found(&json!(1), std::slice::from_ref(&one))]).await, Ok(vec!["x-1".to_owned()]));
    // A short page is continued.
    let pages = [found(&json!(2), std::slice::from_ref(&one)), found(&json!(2), std::slice::from_ref(&two))];
    assert_eq!(of_package(&pages).await, Ok(vec!["x-1".to_owned(), "x-2".to_owned()]));
    let unnamed = json!({"_source": {"metadata": {"name": "x-2"}}});
    for pages in [
        vec![found(&json!(3), &[])],
        vec![found(&json!(2), std::slice::from_ref(&one)), found(&json!(2), &[])],
        vec![found(&json!(2), &[one.clone(), json!(7)])],
        vec![found(&json!(2), &[one.clone(), unnamed])],
    ] {
        let failure = of_package(&pages).await.expect_err("it proves nothing");
        assert!(failure.code == "tenant.unreadable" && failure.retryable, "{pages:?}: {failure}");
    }
}

#[tokio::test]
async fn a_part_of_an_answer_is_no_answer() {
    let me = json!({"username": "jane", "roles": []});
    let server = Scripted::script([Reply::json(206, &me)]).await;
    let failure = server.tenant(&clock()).whoami().await.expect_err("it is a part");
    assert!(failure.code == "tenant.unreadable" && failure.retryable, "{failure}");
    let server = Scripted::script([Reply::json(206, &json!({"metadata": {"name": "x-1-run"}}))]).await;
    let StopError::UnknownFate(failure) = server.tenant(&clock()).stop_run("x-1-run").await.expect_err("it is a part") else {
        panic!("it may have been asked")
    };
    assert_eq!(failure.code, "tenant.unreadable");
}

fn run(name: &str) -> Value {
    json!({"_id": name, "_source": {"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:01Z"}}})
}

#[tokio::test]
async fn a_search_for_runs_says_whether_a_new_run_can_be_missing_from_it() {
    let many: Vec<_> = (0..50).map(|n| run(&format!("w-{n}"))).collect();
    let zero = |relation: &str| json!({"hits": {"total": {"value": 0, "relation": relation}, "hits": []}});
    // (the pages, whether they end at a bound) -> reaches, complete, runs, without a name
    for (pages, bound, expected) in [
        (vec![found(&json!(0), &[])], None, (true, true, 0, 0)),
        (vec![zero("eq")], None, (true, true, 0, 0)),
        (vec![zero("gte")], None, (false, false, 0, 0)),
        (vec![json!({"hits": {"hits": []}})], None, (false, false, 0, 0)),
        (vec![found(&json!(3), &[])], None, (false, false, 0, 0)),
        (vec![found(&json!(1), &[run("w-1")])], None, (true, true, 1, 0)),
        (vec![found(&json!(900), &many)], None, (true, false, 50, 0)),
        (vec![found(&json!(2), &[run("w-1")]), found(&json!(2), &[run("w-2")])], None, (true, true, 2, 0)),
        (vec![found(&json!(2), &[run("w-1")]), found(&json!(2), &[])], None, (false, false, 1, 0)),
        (vec![found(&json!(2), &[run("w-1")]), found(&json!(2), &[run("w-1")])], None, (false, false, 1, 0)),
        (vec![found(&json!(900), &[run("w-1")])], Some("2026-01-01T00:00:02Z"), (true, false, 1, 0)),
        (vec![found(&json!(2), &[run("w-1"), json!(null)])], None, (true, false, 1, 1)),
        (vec![found(&json!(1), &[run("..")])], None, (true, false, 0, 1)),
    ] {
        let server = Scripted::script(pages.iter().map(Reply::ok)).await;
        let bound = bound.map(|bound| bound.parse().expect("a time"));
        let shown = server.tenant(&clock()).runs_of("w", bound).await.expect("an answer");
        assert_eq!((shown.reaches, shown.complete, shown.runs.len(), shown.nameless.len()), expected, "{pages:?}");
        assert_eq!(server.requests().len(), pages.len());
    }
}

#[tokio::test]
async fn a_run_without_the_name_of_its_workflow_is_told_by_its_own() {
    let long = "a".repeat(70);
    let jane = Identity { user_id: "u-1".into(), username: "jane".into(), roles: vec![] };
    for (workflow, name, applied) in [
        ("w-1", "w-1-abcde".to_owned(), true),
        ("w-1", "w-1".to_owned(), false),
        ("w-1", "w-1-".to_owned(), false),
        ("w-1", "w-10-abcde".to_owned(), false),
        ("w-1", "w-2-abcde".to_owned(), false),
        // A name that is too long is cut before random characters are put behind it.
        (long.as_str(), format!("{}-bcde", "a".repeat(58)), true),
    ] {
        let server = Scripted::script([Reply::ok(&json!({"metadata": {"name": name}}))]).await;
        let tenant = server.tenant(&clock());
        let submitted = tenant.submit(tenant.permit().await, &jane, workflow, "id").await;
        assert_eq!(matches!(submitted, Submission::Applied(_)), applied, "{name}: {submitted:?}");
        assert_eq!(matches!(submitted, Submission::UnknownFate(_)), !applied, "{name}: {submitted:?}");
    }
}

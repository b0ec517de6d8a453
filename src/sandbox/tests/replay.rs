//! Every recorded request of the vendor's own client is answered here with the status and the fields of its recording. The
//! recordings stand in `tests/fixtures/recorded`; names in them are replaced by names that the sandbox knows.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

const API_TOKEN: &str = "sandbox-api-token";
const MEMBER: &str = "sandbox-member";
const ADMIN: &str = "sandbox-admin";
const SERVICE: &str = "sandbox-service-account";
const OLD_RUN: &str = "csa-api-token-connection-admin-1684500411-t7s8b";

/// One recording: who sends it, to which generation, and what happens before.
struct Replay {
    recording: &'static str,
    bearer: &'static str,
    generation: Generation,
    before: Vec<Before>,
    /// Names of the recording, and what they are called here.
    renamed: Vec<(String, String)>,
    /// What of the recorded answer is not in ours, and why.
    lacking: Vec<(&'static str, &'static str)>,
}

/// What happens before an exchange.
enum Before {
    /// Before the first: a run of this workflow starts, and stands for that name.
    Run(&'static str, &'static str),
    /// Before the first: a run of this app's workflow starts, and stands for that name.
    AppRun(&'static str, &'static str),
    /// Before the first: a workflow of a scheduled query is stored under this name.
    ScheduledQuery(&'static str),
    /// Before the first: this much time passes.
    Pass(Duration),
    /// Before each: so much time passes.
    PassEach(Duration),
    /// Before the exchange of this number: the tenant accepts other credentials.
    Change(u64, CredentialChange),
    /// Before the first: so many OAuth clients are created.
    OAuthClients(usize),
    /// So many exchanges are answered by a fault, as recorded: nothing of the sandbox answers so by itself.
    Faults(u64),
}

fn argo(recording: &'static str) -> Replay {
    let (before, renamed, lacking) = (Vec::new(), Vec::new(), Vec::new());
    Replay { recording, bearer: API_TOKEN, generation: Generation::Argo, before, renamed, lacking }
}

fn native(recording: &'static str) -> Replay {
    Replay { generation: Generation::Native, ..argo(recording) }
}

impl Replay {
    fn by(mut self, bearer: &'static str) -> Self {
        self.bearer = bearer;
        self
    }

    fn after(mut self, before: Before) -> Self {
        self.before.push(before);
        self
    }

    fn renaming(mut self, theirs: &str, ours: &str) -> Self {
        self.renamed.push((theirs.to_owned(), ours.to_owned()));
        self
    }

    fn lacking(mut self, at: &'static str, because: &'static str) -> Self {
        self.lacking.push((at, because));
        self
    }
}

/// A run that was just submitted has not started.
fn pending(replay: Replay) -> Replay {
    replay.lacking("/status/startedAt", "a Pending run has not started")
}

fn replays() -> Vec<Replay> {
    let mut all = apps();
    all.extend(workflows());
    all.extend(the_rest());
    all.extend(logins());
    all
}

fn apps() -> Vec<Replay> {
    let slug = "bq-prod-3f9ab2c1";
    vec![
        native("app-cancel").after(Before::AppRun(slug, "run-2")),
        native("app-create").renaming("bq-prod", "bq-new").lacking("/run_id", "it asks for no run"),
        native("app-create-409-slug"),
        native("app-create-full").renaming("bq-prod", "bq-new"),
        native("app-describe"),
        native("app-get"),
        native("app-get-run").after(Before::AppRun(slug, "run-2")).after(Before::Pass(Duration::from_secs(1))),
        native("app-inputs")
            .lacking("/required/0", "the contract of this app demands nothing")
            .lacking("/properties/connection/type", "both forms that the vendor's client sends are taken"),
        native("app-list"),
        native("app-run-search-active").after(Before::AppRun(slug, "run-1")),
        native("app-submit"),
        native("app-submit-500-already-active").after(Before::AppRun(slug, "run-1")),
    ]
}

fn workflows() -> Vec<Replay> {
    let bare = "the workflow was stored with no more than its package";
    let unfinished = "a run that has not ended has no end";
    vec![
        argo("wf-find-by-id"),
        argo("wf-find-by-type"),
        argo("wf-find-by-type-empty"),
        argo("wf-find-current-run"),
        argo("wf-find-latest-run"),
        argo("wf-find-run-by-id"),
        argo("wf-find-runs-by-status-time")
            .after(Before::Run("atlan-postgres-1684500700", "(the run)"))
            .after(Before::Pass(Duration::from_secs(90 * 60))),
        argo("wf-find-schedule-query")
            .after(Before::ScheduledQuery("asq-sq-1-123"))
            .lacking("/hits/hits/0/_source/metadata/annotations/orchestration.atlan.com/atlanName", bare)
            .lacking("/hits/hits/0/_source/metadata/labels", bare)
            .lacking("/hits/hits/0/_source/spec", bare),
        argo("wf-get-runs-paged"),
        argo("wf-monitor-pending-running-success")
            .after(Before::Run(GRANT, "(the run)"))
            .after(Before::PassEach(Duration::from_millis(400)))
            .lacking("/hits/hits/0/_source/status/finishedAt", unfinished),
        argo("wf-monitor-stale-previous-run"),
        pending(argo("wf-rerun-api-token")),
        pending(argo("wf-rerun-by-package-enum")),
        pending(argo("wf-rerun-idempotent-idle")),
        argo("wf-rerun-idempotent-running")
            .after(Before::Run(GRANT, "(the run)"))
            .after(Before::Pass(Duration::from_secs(1)))
            .lacking("/hits/hits/0/_source/status/finishedAt", unfinished),
        pending(argo("wf-rerun-member").by(MEMBER)),
        argo("wf-rerun-no-prior"),
        pending(argo("wf-rerun-schedule-query").after(Before::ScheduledQuery("asq-sq-1-123"))),
        argo("wf-run-token-admin-api-token"),
        argo("wf-run-token-admin-member").by(MEMBER),
        argo("wf-run-with-schedule"),
        argo("wf-stop").after(Before::Run(GRANT, OLD_RUN)).after(Before::Pass(Duration::from_secs(1))),
    ]
}

fn the_rest() -> Vec<Replay> {
    let token = |recording| argo(recording).lacking("/records/0/attributes/accessToken", "only its creation shows it");
    let searched = |recording| {
        let unasked =
            ["/entities/0/attributes/adminGroups", "/entities/0/attributes/adminRoles", "/entities/0/attributes/connectorName"];
        unasked.into_iter().fold(argo(recording), |replay, at| replay.lacking(at, "only what was asked for is answered"))
    };
    let no_role = "no role administers a seeded connection";
    vec![
        argo("connection-add-admin")
            .lacking("/guidAssignments/-1", "the recorded answer has another guid than its request")
            .lacking("/mutatedEntities/UPDATE/0/attributes/adminRoles/0", no_role),
        argo("connection-get-by-guid")
            .renaming("c-guid-1", "c0000000-0000-4000-8000-000000000001")
            .lacking("/entity/attributes/adminRoles/0", no_role),
        searched("connection-get-by-qn"),
        searched("connection-search-admins"),
        argo("err-429-retry-after-7").after(Before::Faults(2)),
        argo("errbody-atlas").after(Before::Faults(1)),
        argo("preflight-user-publish").by(SERVICE),
        argo("role-check-admin-human").by(ADMIN),
        argo("role-check-api-token"),
        argo("role-check-member").by(MEMBER),
        argo("role-check-no-roles-key").after(Before::Faults(1)),
        token("token-get"),
        token("token-get-by-guid"),
        token("token-get-by-id"),
        token("token-get-by-name"),
    ]
}

fn logins() -> Vec<Replay> {
    let client = |recording| {
        argo(recording)
            .renaming("oauth-client-abc123def456", "oauth-client-sandbox")
            .renaming("s3cr3t", "sandbox-oauth-secret")
            .renaming("default/personaxyz", "default/xS2hdJ7TWUqhVcZHC3zoVN")
    };
    let expired = |n| Before::Change(n, CredentialChange::ExpireIssued);
    vec![
        argo("impersonate-user")
            .renaming("argo-secret", "sandbox-argo-secret")
            .renaming("kc-user-1", "8c1e2d8a-1564-4e95-8b14-ea14522fcf61"),
        client("oauth-auth-401-plain-text").after(expired(2)).after(Before::Change(2, CredentialChange::Plain401 { on: true })),
        client("oauth-auth-401-refresh").after(expired(2)),
        client("oauth-auth-401-twice").after(expired(2)).after(expired(4)),
        client("oauth-auth-short-expiry")
            .after(Before::Change(1, CredentialChange::TokenLifetime { seconds: 60, client_id: None })),
        client("oauth-auth-two-calls"),
        client("oauth-create"),
        client("oauth-create-bad-role"),
        client("oauth-create-min-subrole"),
        client("oauth-create-raw-role-name"),
        client("oauth-get-by-id"),
        client("oauth-list-paged").after(Before::OAuthClients(2)),
        client("oauth-purge"),
        client("oauth-token-429").after(Before::Faults(1)),
        client("oauth-update"),
        argo("persona-find-by-name"),
    ]
}

#[tokio::test]
async fn every_recording_is_answered_with_its_status_and_its_fields() {
    let mut wrong = Vec::new();
    for replay in replays() {
        play(replay, &mut wrong).await;
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_recording_is_replayed_once() {
    let directory = std::fs::read_dir(directory()).expect("a directory");
    let files = directory.map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned());
    let names: Vec<_> = replays().iter().map(|replay| replay.recording.to_owned()).collect();
    let replayed: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!((replayed.len(), &replayed), (names.len(), &files.collect()));
}

async fn play(mut replay: Replay, wrong: &mut Vec<String>) {
    let harness = Harness::with(SandboxOptions { generation: replay.generation, ..SandboxOptions::default() }).await;
    let recording = read(replay.recording);
    let (mut each, mut changes) = (Duration::ZERO, Vec::new());
    replay.renamed.push(("test-api-key".to_owned(), replay.bearer.to_owned()));
    for before in std::mem::take(&mut replay.before) {
        match before {
            Before::Run(workflow, name) => replay.renamed.push((name.to_owned(), harness.started(workflow).await)),
            Before::AppRun(slug, name) => {
                let (_, run) = harness.post(&format!("/api/service/v1/app/{slug}/submit"), &Value::Null).await;
                replay.renamed.push((name.to_owned(), run["run_id"].as_str().expect("a run").to_owned()));
            }
            Before::ScheduledQuery(name) => {
                let annotations = json!({ "package.argoproj.io/name": "@atlan/schedule-query" });
                let body = json!({ "metadata": { "name": name, "annotations": annotations }, "spec": {} });
                harness.post("/api/service/workflows?submit=false", &body).await;
                let owner = json!({ "username": "jane" });
                harness.post(&format!("/api/service/workflows/{name}/changeownership"), &owner).await;
            }
            Before::Pass(time) => harness.pass(time),
            Before::PassEach(time) => each = time,
            Before::Change(n, change) => changes.push((n, change)),
            Before::OAuthClients(number) => {
                for _ in 0..number {
                    harness.post("/api/service/oauth-clients", &json!({ "displayName": "ci", "role": "$member" })).await;
                }
            }
            Before::Faults(times) => {
                let answer = &recording["exchanges"][0]["answer_given"];
                let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok()).expect("a status");
                let action = Action::Status { status, headers: Vec::new(), body: answer["body"].clone() };
                harness.sandbox.add_fault(Fault::new(action).times(times));
            }
        }
    }
    let mut missed = Vec::new();
    for (exchange, n) in recording["exchanges"].as_array().expect("exchanges").iter().zip(1..) {
        harness.pass(each);
        for (_, change) in changes.iter().filter(|(at, _)| *at == n) {
            harness.sandbox.change_credentials(change.clone()).expect("it can be made");
        }
        let at = format!("{} {n}", replay.recording);
        let (status, ours) = send(&harness, &replay, &exchange["request"]).await;
        let theirs = &exchange["answer_given"];
        if theirs["status"] != status {
            wrong.push(format!("{at}: {status} in place of {}: {ours}", theirs["status"]));
            continue;
        }
        for token in ["accessToken", "access_token"] {
            if let (Some(theirs), Some(ours)) = (theirs["body"][token].as_str(), ours[token].as_str()) {
                // The newest token of this name is the one that is sent.
                replay.renamed.insert(0, (theirs.to_owned(), ours.to_owned()));
            }
        }
        compare(&theirs["body"], &ours, "", &mut missed);
    }
    for (at, because) in &replay.lacking {
        if !missed.iter().any(|missed: &String| missed.starts_with(at)) {
            wrong.push(format!("{}: {at} is there now, and lacked because {because}", replay.recording));
        }
    }
    missed.retain(|missed| !replay.lacking.iter().any(|(at, _)| missed.starts_with(at)));
    wrong.extend(missed.into_iter().map(|missed| format!("{}: {missed}", replay.recording)));
}

async fn send(harness: &Harness, replay: &Replay, request: &Value) -> (u16, Value) {
    let mut text = request.to_string();
    for (theirs, ours) in &replay.renamed {
        text = text.replace(theirs.as_str(), ours);
    }
    let request: Value = serde_json::from_str(&text).expect("it is JSON still");
    let field = |name: &str| request[name].as_str().expect("a string").to_owned();
    let method = Method::from_bytes(field("method").as_bytes()).expect("a method");
    let mut sent = harness.client.request(method, format!("{}{}", harness.sandbox.base_url(), field("target")));
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        sent = sent.header(name, value.as_str().expect("a header"));
    }
    let body = &request["body"];
    if request["headers"]["content-type"].as_str().is_some_and(|content_type| content_type.contains("form")) {
        sent = sent.body(form(body));
    } else if !body.is_null() {
        sent = sent.body(body.to_string());
    }
    let answer = sent.send().await.expect("an answer");
    let (status, text) = (answer.status().as_u16(), answer.text().await.expect("text"));
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// What stands in the recorded answer and not in ours: a key, the first of a list, or its type. Null stands for nothing.
fn compare(theirs: &Value, ours: &Value, at: &str, missed: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Null, _)
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => {}
        (Value::Array(theirs), Value::Array(ours)) => match (theirs.first(), ours.first()) {
            (Some(theirs), Some(ours)) => compare(theirs, ours, &format!("{at}/0"), missed),
            (Some(_), None) => missed.push(format!("{at}/0 is missing")),
            (None, _) => {}
        },
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, theirs) in theirs {
                match ours.get(key) {
                    Some(ours) => compare(theirs, ours, &format!("{at}/{key}"), missed),
                    None if theirs.is_null() => {}
                    None => missed.push(format!("{at}/{key} is missing")),
                }
            }
        }
        _ => missed.push(format!("{at} is {ours} in place of {theirs}")),
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/recorded")
}

fn read(recording: &str) -> Value {
    let text = std::fs::read_to_string(directory().join(format!("{recording}.json"))).expect("a recording");
    serde_json::from_str(&text).expect("it is JSON")
}

//! Jobs from a shell: execute, enqueue, wait, cancel, retry, a worker, and being stopped.

use std::time::Duration;

use iolaus::sandbox::{Action, Fault, Generation, SandboxOptions};

use super::harness::{CONNECTION, Place, USER};

const DISABLED: &str = "user_id=0d15ab1e-d000-4000-8000-000000000001";
/// The run that is active when a sandbox starts.
const ACTIVE: &str = "run=atlan-redshift-1684500800-k2v9d";

fn place() -> Place {
    Place::with_tenant(SandboxOptions::default())
}

#[test]
fn execute_exits_by_the_verdict() {
    let place = place();
    let preflight = |user: &str| place.run(&format!("execute publish_preflight {user} {CONNECTION}"));
    for (user, code, status) in [(USER, 0, "passed"), (DISABLED, 1, "failed"), ("user_id=nobody", 3, "unresolved")] {
        let ran = preflight(user);
        assert_eq!((ran.code, ran.json()["status"].as_str()), (code, Some(status)), "{ran:?}");
        assert_eq!(ran.stdout.lines().count(), 1, "one line of JSON: {ran:?}");
        assert_eq!(ran.json()["trace_id"].as_str().map(str::len), Some(32));
    }
}

#[test]
fn the_tenant_is_sent_the_trace_of_the_verdict() {
    let mut place = place();
    place.set("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION}"));
    assert_eq!(ran.json()["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let sent = format!("{:?}", place.sandbox().requests());
    assert!(sent.contains("00-0af7651916cd43dd8448eb211c80319c-"), "{sent}");
}

#[test]
fn enqueue_answers_with_the_id_alone_and_a_second_one_is_refused() {
    let place = place();
    let line = format!("enqueue publish_preflight {USER} {CONNECTION} --job-id nightly");
    assert_eq!(place.run(&line).stdout, "nightly\n");
    let again = place.run(&line);
    assert!(again.code == 2 && again.stderr.contains("hint: iolaus jobs wait nightly"), "{again:?}");
    let existing = place.run(&format!("{line} --id-conflict-policy use_existing --output json"));
    assert_eq!((existing.code, existing.json()["existing"].as_bool()), (0, Some(true)));
    assert_eq!(place.stored(), 1);
}

#[test]
fn what_a_closed_job_was_doing_is_not_shown() {
    let place = place();
    assert_eq!(place.run("execute workflow_rerun type=snowflake --job-id n").code, 0);
    let shown = place.run("jobs show n").json();
    assert!(shown["verdict"].is_object() && shown["progress"].is_null(), "{shown}");
    let text = place.run("jobs show n --output text").stdout;
    assert!(!text.contains("  progress "), "{text}");
}

#[test]
fn a_wait_without_a_worker_says_so_and_ends_as_not_yet() {
    let place = place();
    let ran = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id n --wait --timeout 2500ms"));
    assert_eq!((ran.code, ran.json()["state"].as_str()), (5, Some("available")), "{ran:?}");
    let database = place.database().display().to_string();
    for part in ["no live worker runs publish_preflight", &database, "iolaus worker", "iolaus jobs wait n"] {
        assert!(ran.stderr.contains(part), "`{part}` is missing in {}", ran.stderr);
    }
}

#[test]
fn execute_says_what_its_job_waits_for_though_nobody_watches() {
    let place = place();
    let execute = format!("execute publish_preflight {USER} {CONNECTION}");
    let mut delayed = place.start(&format!("{execute} --job-id later --delay 1h"));
    delayed.until("later waits until it is due, at 2");
    assert_eq!(delayed.terminate().code, 5);
    place.iolaus(["pause", "activity", "publish_preflight", "--reason", "maintenance"]);
    let mut paused = place.start(&format!("{execute} --job-id held"));
    paused.until("is paused (maintenance); let it go on with: iolaus resume activity publish_preflight");
    assert_eq!(paused.terminate().code, 5);
    let waited = place.run("jobs wait held --timeout 300ms");
    assert!(waited.code == 5 && waited.stderr.contains("is paused (maintenance)"), "at once: {waited:?}");
}

#[test]
fn execute_says_which_worker_holds_its_job() {
    let place = Place::with_tenant(SandboxOptions { running: Duration::from_secs(60), ..SandboxOptions::default() });
    let line = format!("execute await_completion {ACTIVE} --job-id follow");
    let mut first = place.start(&line);
    first.until("the worker is ready");
    let held = || place.run("jobs show follow").json()["worker"].as_str().map(str::to_owned);
    let holder = std::iter::repeat_with(held).take(50).flatten().next().expect("somebody holds it");
    let mut second = place.start(&line);
    second.until(&format!("follow is held by the live worker {holder}"));
    assert_eq!(second.terminate().code, 5);
    assert_eq!(first.terminate().code, 5);
}

#[test]
fn a_worker_that_dies_during_a_wait_is_missed() {
    let mut place = place();
    place.set("IOLAUS_WORKER__WORKER_TIMEOUT", "4s");
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    worker.kill();
    let mut waiting = place.start(&format!("enqueue publish_preflight {USER} {CONNECTION} --wait"));
    waiting.until("no live worker runs publish_preflight");
    assert_eq!(waiting.terminate().code, 5);
}

#[test]
fn a_required_worker_that_is_not_there_stores_nothing() {
    let place = place();
    let ran = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --require-worker"));
    assert_eq!((ran.code, place.stored()), (6, 0), "{ran:?}");
}

#[test]
fn a_cancelled_job_ends_with_4_and_can_be_retried_and_executed() {
    let place = place();
    place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id n"));
    let open = place.run("jobs retry n");
    assert!(open.code == 2 && open.stderr.contains("still open"), "{open:?}");
    assert_eq!(place.iolaus(["jobs", "cancel", "n", "--reason", "not today"]).json()["cancel"], "closed");
    let waited = place.run("jobs wait n");
    assert_eq!((waited.code, waited.json()["message"].as_str()), (4, Some("not today")));
    assert_eq!(place.run("jobs retry n").code, 0);
    let executed = place.run(&format!("execute publish_preflight {USER} {CONNECTION} --job-id n"));
    assert_eq!((executed.code, place.stored()), (0, 2), "the open one is worked, not another: {executed:?}");
    assert_eq!(place.run("jobs show n").json()["verdict"]["status"], "passed");
}

#[test]
fn unknown_jobs_are_bad_input_and_a_broken_queue_is_6() {
    let mut place = place();
    let unknown = place.run("jobs wait nowhere");
    assert!(unknown.code == 2 && unknown.stderr.contains("no job nowhere is known"), "{unknown:?}");
    place.file("no-directory", "");
    let broken = place.database().ancestors().nth(4).expect("the home").join("no-directory/q.db");
    place.set("IOLAUS_DATABASE__PATH", broken);
    for line in ["status", "jobs list", "doctor", "worker"] {
        let ran = place.run(line);
        assert_eq!(ran.code, 6, "{line}: {ran:?}");
    }
}

#[test]
fn a_list_goes_on_where_its_cursor_says() {
    let place = Place::new();
    let line = r#"{"activity": "publish_preflight", "input": {"user_id": "u", "connection_qualified_name": ""}}"#;
    place.file("jobs.jsonl", format!("{line}\n").repeat(5));
    assert_eq!(place.run("enqueue --jobs jobs.jsonl").stdout.lines().count(), 5);
    let first = place.run("jobs list --limit 3").json();
    let cursor = first["next_cursor"].as_str().expect("there are more");
    let second = place.iolaus(["jobs", "list", "--limit", "3", "--cursor", cursor]).json();
    let ids = |page: &serde_json::Value| {
        page["jobs"].as_array().expect("a list").iter().map(|job| job["job_id"].to_string()).collect::<Vec<_>>()
    };
    let mut all = [ids(&first), ids(&second)].concat();
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), second["next_cursor"].as_str()), (5, None));
}

#[test]
fn a_worker_works_what_another_process_enqueues_and_stops_in_order() {
    let place = place();
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let ran = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --wait --require-worker"));
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("passed")), "{ran:?}");
    let status = place.run("status").json();
    assert_eq!(status["workers"][0]["live"], true);
    let stopped = worker.terminate();
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(
        stopped.stderr.contains("iolaus.job.verdict") && stopped.stderr.contains("\\\"status\\\":\\\"passed\\\""),
        "{}",
        stopped.stderr
    );
    assert_eq!(place.run("status").json()["workers"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_worker_whose_log_nobody_reads_works_on_and_stops_in_order() {
    let place = place();
    let line = format!(
        r#"{{"activity":"publish_preflight","input":{{"user_id":"{}","connection_qualified_name":"{}"}}}}"#,
        USER.split_once('=').unwrap().1,
        CONNECTION.split_once('=').unwrap().1
    );
    // Several times what a pipe holds, at more than a kilobyte of log for each.
    let jobs = place.file("jobs.jsonl", format!("{line}\n").repeat(300));
    let worker = place.start_unread("worker");
    let ran = place.iolaus(["enqueue", "--jobs", jobs.to_str().unwrap(), "--wait", "--timeout", "5m"]);
    assert_eq!((ran.code, ran.stdout.matches(r#""status":"passed""#).count()), (0, 300), "{ran:?}");
    assert_eq!(worker.terminate_in_order(), Some(0));
}

#[test]
fn execute_that_is_stopped_gives_the_job_back_and_goes_on_later() {
    let place = Place::with_tenant(SandboxOptions { running: Duration::from_secs(3), ..SandboxOptions::default() });
    let line = format!("execute await_completion {ACTIVE} --job-id follow");
    let mut first = place.start(&line);
    first.until("the worker is ready");
    // As `timeout` does it: the process, then its group.
    first.ask_to_stop();
    let stopped = first.terminate();
    assert_eq!(stopped.code, 5, "{stopped:?}");
    assert!(stopped.stderr.contains("not yet") && stopped.stderr.contains("--job-id follow"), "{}", stopped.stderr);
    let ran = place.run(&line);
    assert_eq!((ran.code, place.stored()), (0, 1), "{ran:?}");
}

#[test]
fn a_cancelled_job_that_has_started_a_run_says_what_its_last_attempt_waits_for_and_stops_the_run() {
    let place = Place::with_tenant(SandboxOptions { running: Duration::from_secs(3_600), ..SandboxOptions::default() });
    let line = "execute workflow_rerun type=snowflake stop_on_cancel=true --job-id nightly";
    let first = place.start(line);
    let (mut shown, mut run) = (serde_json::Value::Null, None);
    while run.is_none() {
        shown = serde_json::from_str(&place.run("jobs show nightly").stdout).unwrap_or_default();
        run = shown["checkpoint"]["effort"]["obtained"]["run"]["name"].as_str();
    }
    let run = run.expect("a run").to_owned();
    assert_eq!(first.terminate().code, 5);
    let cancelled = place.run("jobs cancel nightly");
    assert_eq!((cancelled.code, cancelled.json()["cancel"].as_str()), (0, Some("last_attempt")), "{shown}");
    assert!(cancelled.stderr.contains("no live worker runs workflow_rerun"), "{}", cancelled.stderr);
    let told = place.run("jobs cancel nightly --output text");
    assert!(told.stdout.contains("nightly gets one last attempt, which undoes what it began"), "{told:?}");
    let ended = place.run(line);
    let verdict = ended.json();
    assert_eq!((ended.code, verdict["status"].as_str(), verdict["facts"]["run"].as_str()), (4, Some("cancelled"), Some(&*run)));
    assert_eq!(verdict["facts"]["stop_requested"], true, "{verdict}");
    let stops = place.sandbox().effects().iter().filter(|effect| format!("{effect:?}").contains(&run)).count();
    assert_eq!(stops, 2, "it was started once and stopped once");
}

#[test]
fn a_pause_holds_jobs_until_it_is_resumed() {
    let place = place();
    assert_eq!(place.run("pause activity publish_preflight").code, 0);
    assert_eq!(place.run("status").json()["pauses"][0]["name"], "publish_preflight");
    assert_eq!(place.run("pause activity publish_prefligth").code, 2);
    assert_eq!(place.run("resume activity publish_preflight").json()["was_paused"], true);
    assert_eq!(place.run(&format!("execute publish_preflight {USER} {CONNECTION}")).code, 0);
}

#[test]
fn status_doctor_and_whoever_waits_say_which_worker_holds_which_tenant_back_since_when_and_why() {
    let mut place = place();
    place.set("ATLAN_API_KEY", "not-known-here");
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    let mut waiting = place.start(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id held --wait"));
    waiting.until("takes no job of tenant default since 20");
    assert_eq!(waiting.terminate().code, 5);
    let status = place.run("status").json();
    let (hold, holder) = (&status["holds"][0], status["workers"][0]["name"].as_str().expect("a worker"));
    assert!(hold["tenant"] == "default" && hold["worker"] == holder && hold["until"].is_null(), "{status}");
    let since = hold["since"].as_str().expect("a time");
    let told = place.run("status --output text").stdout;
    assert!(told.contains("TENANT HELD") && told.contains(since) && told.contains("(401)"), "{told}");
    let doctor = place.run("doctor --output text").stdout;
    assert!(doctor.contains(&format!("worker {holder} asks nothing of tenant default since {since}: ")), "{doctor}");
    let job = place.run("jobs show held").json();
    assert_eq!((job["state"].as_str(), job["attempts"].as_u64()), (Some("available"), Some(0)), "{job}");
    assert_eq!(worker.terminate().code, 0);
    let after = place.run("status");
    assert!(after.json()["holds"] == serde_json::json!([]), "{after:?}");
    assert!(![told, doctor].iter().any(|text| text.contains("not-known-here")), "no key is shown");
}

#[test]
fn doctor_tells_trouble_with_a_tenant_by_3_and_its_hint() {
    let bare = Place::new();
    let ran = bare.run("doctor");
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stdout.contains("ATLAN_BASE_URL"), "{}", ran.stdout);
    let mut place = place();
    let fine = place.run("doctor");
    assert_eq!((fine.code, fine.json()["ok"].as_bool()), (0, Some(true)), "{fine:?}");
    place.set("ATLAN_API_KEY", "sandbox-admin");
    let person = place.run("doctor --output text");
    assert!(person.code == 3 && person.stdout.contains("needs credentials of a service account"), "{person:?}");
    place.set("ATLAN_API_KEY", "wrong");
    let stranger = place.run("doctor --output text");
    assert!(stranger.code == 3 && stranger.stdout.contains("FAIL  tenant default credentials"), "{stranger:?}");
    assert!(!stranger.stdout.contains("wrong"), "no credential is shown: {}", stranger.stdout);
}

#[test]
fn doctor_asks_a_native_tenant_for_apps_and_tells_one_that_has_none() {
    for (generation, code) in [(Generation::Native, 0), (Generation::Argo, 3)] {
        let mut place = Place::with_tenant(SandboxOptions { generation, ..SandboxOptions::default() });
        place.set("IOLAUS_TENANTS__DEFAULT__GENERATION", "native");
        let ran = place.run("doctor --output text");
        let told = if code == 0 { "may see apps" } else { "tenants.default.generation" };
        assert!(ran.code == code && ran.stdout.contains(told), "{ran:?}");
    }
}

#[test]
fn workflows_are_found_by_type_and_shown_with_their_last_run() {
    let place = place();
    let found = place.run("workflows find tableau --max-results 1");
    assert_eq!(found.json().as_array().map(Vec::len), Some(1), "{found:?}");
    assert!(found.stderr.contains("1 of 2"), "{}", found.stderr);
    let shown = place.run("workflows show atlan-redshift-1684500800").json();
    assert_eq!((shown["package"].as_str(), shown["last_run"]["phase"].as_str()), (Some("@atlan/redshift"), Some("Running")));
    let nothing = place.run("workflows show atlan-nothing-1684500800");
    assert!(nothing.code == 3 && nothing.stderr.contains("hint: iolaus workflows find @atlan/nothing\n"), "{nothing:?}");
}

#[test]
fn the_creator_of_a_workflow_is_a_user_who_can_be_asked_about() {
    let place = place();
    let found = place.run("workflows find snowflake").json();
    let shown = place.run("workflows show atlan-snowflake-1684500500").json();
    let creator = shown["creator"].as_str().expect("a creator");
    assert_eq!(found[0]["creator"], creator);
    let asked = place.run(&format!("execute publish_preflight user_id={creator} {CONNECTION}"));
    assert_eq!(asked.code, 0, "{asked:?}");
}

#[test]
fn an_answer_that_takes_two_unavailable_moments_is_still_a_verdict() {
    let place = place();
    let unavailable = Action::Status { status: 503, headers: Vec::new(), body: serde_json::Value::Null };
    place.sandbox().add_fault(Fault::new(unavailable).on("user-publish-check").times(2));
    let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION}"));
    assert_eq!((ran.code, place.sandbox().faults_fired()), (0, 2), "{ran:?}");
}

#[test]
fn many_jobs_are_all_stored_before_any_is_waited_for_and_share_one_timeout() {
    let place = Place::new();
    let line = r#"{"activity": "publish_preflight", "input": {"user_id": "u", "connection_qualified_name": ""}}"#;
    place.file("jobs.jsonl", format!("{line}\n").repeat(3));
    let ran = place.run("enqueue --jobs jobs.jsonl --wait --timeout 0s");
    assert_eq!((ran.code, ran.stdout.lines().count(), place.stored()), (5, 3, 3), "{ran:?}");
}

#[test]
fn dead_jobs_are_retried_by_filter_and_without_id_or_filter_nothing_is() {
    let place = place();
    for id in ["a", "b"] {
        place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id {id}"));
        place.run(&format!("jobs cancel {id}"));
    }
    let neither = place.run("jobs retry");
    assert!(neither.code == 2 && neither.stderr.contains("JOB_ID"), "{neither:?}");
    let both = place.run("jobs retry a --state cancelled");
    assert_eq!(both.code, 2, "{both:?}");
    let dry = place.run("jobs retry --state cancelled --dry-run --output text");
    assert_eq!((dry.code, dry.stdout.as_str()), (0, "a\nb\n"), "{dry:?}");
    assert!(dry.stderr.contains("2 would be retried"), "{dry:?}");
    let retried = place.run("jobs retry --state cancelled --activity publish_preflight --code cancelled --output text");
    assert_eq!((retried.code, retried.stdout.as_str()), (0, "a\nb\n"), "{retried:?}");
    assert_eq!(place.run("jobs retry --state cancelled --output text").stdout, "");
    assert_eq!(place.stored(), 4);
}

#[test]
fn lines_are_stored_as_they_come_and_a_bad_one_is_named_and_skipped() {
    let mut place = Place::new();
    place.set("PATH", std::env::var("PATH").expect("there is one"));
    let line = |id: &str| {
        format!(
            r#"{{"activity": "publish_preflight", "input": {{"user_id": "u", "connection_qualified_name": ""}}, "job_id": "{id}"}}"#
        ) + "\n"
    };
    place.file("first", (0..256).map(|n| line(&format!("n-{n}"))).collect::<String>());
    place.file(
        "second",
        format!("{}{{\"activity\": \"publish_preflight\"\n{}{}", line("n-0"), "x".repeat(17 << 20) + "\n", line("last")),
    );
    // What follows is written only once the ids of the first chunk were told: whoever read everything first would wait for ever.
    let ran = place.shell(
        "{ cat first; until [ -s ids ]; do :; done; cat second; } | $IOLAUS enqueue --jobs - --on-error skip --output text >ids; \
         code=$?; cat ids; exit $code",
        "",
    );
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    let told: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!((told.len(), told[0], told[256]), (257, "n-0", "last"));
    for part in ["error: job n-0 exists already", "line 258: ", "line 259: has more than 16777216 bytes; skipped"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}

#[test]
fn status_doctor_and_a_waiting_command_name_the_tenant_that_no_worker_serves() {
    let mut place = place();
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    place.set("IOLAUS_TENANTS__ACME__BASE_URL", "http://127.0.0.1:9");
    let job = format!("{USER} {CONNECTION} --tenant acme --job-id elsewhere");
    let none = place.run(&format!("enqueue publish_preflight {job} --require-worker"));
    assert_eq!((none.code, place.stored()), (6, 0), "{none:?}");
    assert!(none.stderr.contains("hint: the workers serve default; set tenants.acme"), "{none:?}");
    let mut waiting = place.start(&format!("enqueue publish_preflight {job} --wait"));
    waiting.until("has an address and credentials for tenant acme; the workers serve default");
    assert_eq!(waiting.terminate().code, 5);
    let status = place.run("status").json();
    let without = serde_json::json!([{"activity": "publish_preflight", "tenant": "acme", "jobs": 1, "missing": "tenant"}]);
    assert_eq!((&status["without_worker"], &status["workers"][0]["tenants"]), (&without, &serde_json::json!(["default"])));
    let told = place.run("status --output text").stdout;
    assert!(told.contains("JOBS WITHOUT A WORKER") && told.contains("an address and credentials for the tenant"), "{told}");
    let doctor = place.run("doctor --tenant default --output text").stdout;
    assert!(doctor.contains("1 open jobs of publish_preflight for tenant acme have no live worker"), "{doctor}");
    assert_eq!(place.run("jobs show elsewhere").json()["attempts"], 0);
    // Worked here, it needs the key, and is refused as before.
    let here = place.run(&format!("execute publish_preflight {job}"));
    assert!(here.code == 2 && here.stderr.contains("`tenants.acme.api_key` is not set"), "{here:?}");
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn a_gate_never_answers_with_the_verdict_of_another_question() {
    let mut place = place();
    place.set("IOLAUS_TENANTS__PROD__BASE_URL", place.sandbox().base_url());
    place.set("IOLAUS_TENANTS__PROD__API_KEY", "sandbox-api-token");
    let gate = "--job-id gate-42";
    place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} {gate}"));
    let other_tenant = place.run(&format!("execute publish_preflight {USER} {CONNECTION} {gate} --tenant prod"));
    let other_activity = place.run(&format!("execute workflow_rerun type=tableau pick=newest {gate}"));
    for (ran, asked) in [(other_tenant, "publish_preflight of tenant prod"), (other_activity, "workflow_rerun of tenant default")] {
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
        let both = ["activity publish_preflight of tenant default", asked, "hint: choose another --job-id"];
        assert!(both.iter().all(|part| ran.stderr.contains(part)), "{ran:?}");
    }
    assert_eq!(place.run("jobs show gate-42").json()["attempts"], 0, "nothing of it was worked");
    let other_user = format!("publish_preflight user_id=someone-else {CONNECTION} {gate}");
    let enqueued = place.run(&format!("enqueue {other_user} --id-conflict-policy use_existing --output json"));
    assert_eq!((&enqueued.json()["existing"], &enqueued.json()["input_differs"]), (&true.into(), &true.into()), "{enqueued:?}");
    let told = "warning: gate-42 was open already, with another input";
    assert!(enqueued.stderr.contains(told), "{enqueued:?}");
    let ran = place.run(&format!("execute {other_user}"));
    let verdict = ran.json();
    assert_eq!((ran.code, verdict["status"].as_str(), place.stored()), (0, Some("passed"), 1), "{ran:?}");
    assert_eq!((&verdict["existing"], &verdict["input_differs"]), (&true.into(), &true.into()), "{verdict}");
    assert!(ran.stderr.contains(told), "{ran:?}");
    // Its own verdict says nothing of the kind.
    let own = place.run(&format!("execute publish_preflight {USER} {CONNECTION} {gate}")).json();
    assert!(own.get("existing").is_none() && own.get("input_differs").is_none(), "{own}");
}

#[test]
fn execute_ends_soon_and_says_why_where_no_attempt_reaches_the_tenant() {
    let mut place = Place::new();
    place.set("ATLAN_BASE_URL", format!("http://127.0.0.1:{}", crate::support::port::free_port()));
    place.set("ATLAN_API_KEY", "some-key");
    place.set("IOLAUS_WORKER__UNREACHED_TIMEOUT", "2s");
    let line = "execute workflow_rerun type=tableau pick=newest until=submitted --job-id nightly";
    let ran = place.run(line);
    // The end comes between two attempts or within one, which is then given back.
    let open = ran.json()["state"].as_str().is_some_and(|state| ["retryable", "available"].contains(&state));
    assert!(ran.code == 5 && open, "{ran:?}");
    let hint = "hint: nothing listens there: check host and port of tenants.default.base_url";
    let end = ran.stderr.lines().last().unwrap_or_default();
    assert!(
        end.starts_with("not yet, after ") && end.contains("no attempt reached the tenant for 2s") && end.contains(hint),
        "{ran:?}"
    );
    let log: Vec<_> = ran.stderr.lines().filter(|line| line.contains("the tenant was not reached")).collect();
    assert!(log.len() == 1 && log[0].contains("next_attempt") && log[0].contains("nothing listens there"), "{ran:?}");
    // Nothing is lost: with the address put right, the same command continues with the same job.
    let tenant = self::place();
    place.set("ATLAN_BASE_URL", tenant.sandbox().base_url());
    place.set("ATLAN_API_KEY", "sandbox-api-token");
    let again = place.run(line);
    assert!(again.code == 0 && again.json()["existing"] == true, "{again:?}");
    assert_eq!(place.stored(), 1);
}

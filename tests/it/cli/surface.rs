//! What is printed without a job: help, schemas, completions, and who reads it.

use std::ffi::OsStr;
use std::process::Stdio;

use iolaus::sandbox::SandboxOptions;

use super::harness::{CONNECTION, Place, USER};

#[test]
fn every_schema_is_one_line_of_json() {
    let place = Place::new();
    let all = place.run("schema");
    assert_eq!((all.code, all.stdout.lines().count()), (0, 1));
    for name in ["verdict", "job_request", "sequence", "publish_preflight"] {
        let one = place.run(&format!("schema {name}")).json();
        assert_eq!(one["type"], "object", "{name}");
    }
    let required = place.run("schema verdict").json()["required"].to_string();
    assert!(required.contains("trace_id") && required.contains("checks"), "{required}");
    assert_eq!(place.run("schema nothing").code, 2);
    assert!(!place.database().exists(), "a schema needs no queue");
    let reference = place.run("schema config");
    assert_eq!((reference.code, reference.stdout.as_str()), (0, include_str!("../../../config/default.toml")));
    let file = place.file("config.toml", &reference.stdout);
    assert_eq!(place.iolaus([OsStr::new("--config"), file.as_os_str(), OsStr::new("status")]).code, 0, "it is a configuration");
    let json = place.run("schema config --output json").json();
    assert_eq!(json["config"], reference.stdout);
}

#[test]
fn completions_and_help_need_nothing() {
    let mut place = Place::new();
    place.set("IOLAUS_NONSENSE", "1");
    assert!(place.run("completions bash").stdout.contains("iolaus"));
    for line in ["--help", "help jobs wait", "--version"] {
        assert_eq!(place.run(line).code, 0, "{line}");
    }
    assert_eq!(place.run("").code, 2);
}

#[test]
fn a_sandbox_prints_what_to_export_and_stops_in_order() {
    let place = Place::new();
    let mut sandbox = place.start("sandbox --listen 127.0.0.1:0");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(sandbox.stdout()), &mut line).expect("a line");
    let said: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let url = said["ATLAN_BASE_URL"].as_str().expect("a URL");
    let address = url.strip_prefix("http://").filter(|address| address.starts_with("127.0.0.1:")).expect("on loopback");
    let port = address.rsplit(':').next().expect("a port");
    for line in [format!("sandbox --listen {address} --probe"), format!("sandbox --listen 0.0.0.0:{port} --probe")] {
        assert_eq!(place.run(&line).code, 0, "{line}");
    }
    let ended = sandbox.terminate();
    assert_eq!((ended.code, ended.stderr.contains("beyond loopback")), (0, false), "{ended:?}");
    let ran = place.run(&format!("sandbox --listen {address} --probe"));
    assert!(ran.code == 6 && ran.stderr.contains(&format!("no sandbox answers on {address}")), "{ran:?}");
}

#[test]
fn a_sandbox_plays_the_generation_that_it_is_told_to() {
    // It fails only if another test was first, which serves as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let place = Place::new();
    for (line, status) in [("sandbox --listen 127.0.0.1:0", 404), ("sandbox --listen 127.0.0.1:0 --generation native", 200)] {
        let mut sandbox = place.start(line);
        let mut said = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(sandbox.stdout()), &mut said).expect("a line");
        let said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let apps = format!("{}/api/service/v1/app", said["ATLAN_BASE_URL"].as_str().expect("a URL"));
        let asked = client.get(apps).bearer_auth(said["ATLAN_API_KEY"].as_str().expect("a key")).send();
        assert_eq!(runtime.block_on(asked).expect("an answer").status(), status, "{line}");
        assert_eq!(sandbox.terminate().code, 0);
    }
}

#[test]
fn a_sandbox_beyond_loopback_says_that_whoever_reaches_it_may_use_it() {
    let place = Place::new();
    let mut sandbox = place.start("sandbox --listen 0.0.0.0:0");
    sandbox.until("beyond loopback");
    assert_eq!(sandbox.terminate().code, 0);
}

#[test]
fn status_tells_by_its_exit_code_whether_a_worker_lives() {
    let mut place = Place::with_tenant(iolaus::sandbox::SandboxOptions::default());
    place.set("HOSTNAME", "here");
    let codes =
        |place: &Place| ["status", "status --require-worker", "status --require-worker=here"].map(|line| place.run(line).code);
    assert_eq!(codes(&place), [0, 6, 6]);
    let alone = place.run("status --require-worker");
    assert!(alone.stderr.contains("no live worker works on") && alone.json()["workers"].is_array(), "{alone:?}");
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    assert_eq!(codes(&place), [0, 0, 0]);
    place.set("HOSTNAME", "elsewhere");
    assert_eq!(codes(&place), [0, 0, 6]);
    assert_eq!(worker.terminate().code, 0);
    assert_eq!(codes(&place), [0, 6, 6]);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let place = Place::new();
    let mut child = place.spawn("schema", Stdio::piped());
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// What differs from run to run.
fn filtered(snapshot: impl FnOnce()) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[id]");
    settings.add_filter(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "[time]");
    settings.add_filter(r#""duration_ms":\d+"#, r#""duration_ms":[ms]"#);
    settings.add_filter(r#""trace_id":"[0-9a-f]{32}""#, r#""trace_id":"[trace]""#);
    settings.bind(snapshot);
}

#[test]
fn the_verdict_of_a_shell_is_this_line() {
    let place = Place::with_tenant(SandboxOptions::default());
    let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION} --job-id nightly"));
    assert!(ran.stderr.is_empty(), "{ran:?}");
    filtered(|| {
        insta::assert_snapshot!(ran.stdout, @r#"{"job_id":"nightly","run_id":"[id]","activity":"publish_preflight","tenant":"default","status":"passed","message":"All user publish preflight checks passed.","checks":[{"name":"UserEnabled","passed":true},{"name":"AtlanPublishPermission","passed":true}],"facts":{"connection_qualified_name":"default/snowflake/1234567890","failed_checks":[],"user_id":"8c1e2d8a-1564-4e95-8b14-ea14522fcf61"},"failure":null,"attempts":1,"enqueued_at":"[time]","started_at":"[time]","finished_at":"[time]","duration_ms":[ms],"trace_id":"[trace]"}"#);
    });
}

#[test]
fn a_refusal_is_one_line_and_a_hint() {
    let place = Place::new();
    place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id nightly"));
    let ran = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id nightly"));
    filtered(|| {
        insta::assert_snapshot!(ran.stderr, @r#"
    error: job nightly exists already: its execution [id] is available
    hint: iolaus jobs wait nightly, or enqueue with --id-conflict-policy use_existing
    "#);
    });
    let ran = place.run("enqueue publish_preflight");
    filtered(|| {
        insta::assert_snapshot!(ran.stderr, @"error: input: missing field `user_id`");
    });
}

#[test]
fn help_tells_the_commands_and_the_exit_codes() {
    let place = Place::new();
    filtered(|| {
        insta::assert_snapshot!(place.run("-h").stdout, @r#"
    A durable activity worker for Atlan tenants

    Usage: iolaus [OPTIONS] <COMMAND>

    Commands:
      demo           See it all in one process: a sandbox, a worker and a dozen real jobs
      execute        Enqueue a job, work it in this process, print its verdict, exit by it
      enqueue        Store a job durably and print its id
      sequence       Jobs one after the other: execute, enqueue or show a sequence
      worker         Work what others enqueue, until told to stop
      status         States, the oldest due job, workers, pauses
      jobs           List, show, wait for, cancel and retry jobs
      pause          Stop claiming jobs of an activity or a tenant, on all workers, until it is resumed
      resume         Take a pause back
      workflows      List, find and show workflows of a tenant
      runs           List, show and stop runs of a tenant's workflows
      oauth-clients  Create, list, show, change and purge OAuth clients of a tenant
      tokens         Find API tokens of a tenant
      whoami         Show which user a tenant takes the configured credentials for, and its roles
      doctor         Check configuration, queue, tenants and permissions, and suggest fixes
      fsck           Check every row of the queue's file, and set aside what is broken
      sandbox        Play a tenant on loopback, until told to stop
      schema         Print JSON Schemas of what goes in and what comes out, or the reference of the
                     configuration
      bench          Measure the queue on this machine, beside the bare thing that bounds it
      completions    Print a completion script for a shell
      help           Print this message or the help of the given subcommand(s)

    Options:
          --config <FILE>    The configuration file [default: `IOLAUS_CONFIG`, else
                             `~/.config/iolaus/config.toml` if there is one]
          --output <FORMAT>  How data is written to stdout [default: text on a terminal, one line of
                             JSON otherwise] [possible values: text, json]
      -h, --help             Print help (see more with '--help')
      -V, --version          Print version

    Examples:
      iolaus demo                                           see it all in one process
      iolaus execute workflow_rerun type=snowflake          one job, and its verdict
      iolaus worker                                         work what others enqueue
      iolaus enqueue workflow_rerun type=snowflake --wait   one job for a worker

    Exit codes:
      0 passed, 1 failed, 2 usage or bad input, 3 unresolved, 4 cancelled, 5 not yet,
      6 queue or host unusable
    "#);
    });
}

//! The image and the stack of the Compose file, on a real Docker engine, without a registry. Where there is no engine each test says
//! so on stderr and passes, unless `IOLAUS_REQUIRE_DOCKER=1`.

#[cfg(feature = "temporal")]
mod cluster;
pub(crate) mod engine;
mod stack;

use std::time::Duration;

use serde_json::{Value, json};
use testcontainers::core::{ExecCommand, Healthcheck, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use engine::{Engine, IMAGE};
use stack::Stack;

const USER: &str = "user_id=8c1e2d8a-1564-4e95-8b14-ea14522fcf61";
const DISABLED: &str = "user_id=0d15ab1e-d000-4000-8000-000000000001";
const CONNECTION: &str = "connection_qualified_name=default/snowflake/1234567890";

/// The port of the sandbox, as in the Compose file.
const PORT: u16 = 8100;
/// From the start of a container to its being ready.
const START: Duration = Duration::from_secs(60);

type Container = ContainerAsync<GenericImage>;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_a_container_is_healthy_no_root_answers_jobs_and_drains_when_it_is_stopped() {
    let Some(engine) = Engine::with_image() else { return };
    let sandbox = sandbox(&engine).await;
    let worker = worker(&engine).await;
    let processes = engine::run("docker", ["top", worker.id(), "-eo", "pid,uid,gid,comm"]);
    let owners: Vec<_> = processes.lines().skip(1).map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>()).collect();
    assert!(owners.contains(&vec!["10001", "10001", "iolaus"]) && !owners.iter().any(|owner| owner[0] == "0"), "{processes}");

    let passed = iolaus(&worker, ["enqueue", "publish_preflight", USER, CONNECTION, "--wait", "--output", "json"]).await;
    assert_eq!((passed.0, passed.1["status"].as_str()), (0, Some("passed")), "{passed:?}");
    assert_eq!(passed.1["facts"]["connection_qualified_name"], "default/snowflake/1234567890");
    let refused = iolaus(&worker, ["enqueue", "publish_preflight", DISABLED, CONNECTION, "--wait", "--output", "json"]).await;
    assert_eq!((refused.0, refused.1["status"].as_str()), (1, Some("failed")), "{refused:?}");

    slow_down_the_next_preflight(&sandbox).await;
    iolaus(&worker, ["enqueue", "publish_preflight", USER, CONNECTION, "--job-id", "in-hand"]).await;
    until_running(&worker).await;
    worker.stop_with_timeout(Some(30)).await.unwrap();
    assert_eq!(worker.exit_code().await.unwrap(), Some(0));
    let log = String::from_utf8(worker.stderr_to_vec().await.unwrap()).unwrap();
    let after = log.split_once("asked to stop").expect("it was told").1;
    assert!(after.contains("in-hand") && after.contains("the worker has drained"), "{log}");
}

/// A sandbox, reachable from this machine too, so that faults can be switched on.
async fn sandbox(engine: &Engine) -> Container {
    let image = GenericImage::new(IMAGE, engine.id())
        .with_exposed_port(PORT.tcp())
        .with_wait_for(WaitFor::message_on_stdout("ATLAN_BASE_URL"));
    // The image's own health check asks for a worker.
    let request = within(engine, "sandbox", image.into()).with_health_check(Healthcheck::none());
    request.with_cmd(["sandbox", "--listen", &format!("0.0.0.0:{PORT}")]).start().await.unwrap()
}

/// A worker that the image's own health check calls healthy.
async fn worker(engine: &Engine) -> Container {
    let image = GenericImage::new(IMAGE, engine.id()).with_wait_for(WaitFor::healthcheck());
    let request = within(engine, "worker", image.into())
        .with_env_var("ATLAN_BASE_URL", format!("http://{}:{PORT}", name(engine, "sandbox")))
        .with_env_var("IOLAUS_TENANTS__DEFAULT__ALLOW_CLEARTEXT", "true")
        .with_env_var("ATLAN_API_KEY", "sandbox-api-token");
    request.start().await.unwrap()
}

fn within(engine: &Engine, part: &str, request: ContainerRequest<GenericImage>) -> ContainerRequest<GenericImage> {
    let network = format!("iolaus-test-{}", engine.id());
    request.with_network(network).with_container_name(name(engine, part)).with_startup_timeout(START)
}

fn name(engine: &Engine, part: &str) -> String {
    format!("iolaus-test-{}-{part}", engine.id())
}

/// Runs the program beside a worker: its exit code, and its last line of stdout as JSON, if it is some.
async fn iolaus<const N: usize>(worker: &Container, arguments: [&str; N]) -> (i64, Value) {
    let command = std::iter::once("iolaus").chain(arguments);
    let mut ran = worker.exec(ExecCommand::new(command)).await.unwrap();
    let stdout = String::from_utf8(ran.stdout_to_vec().await.unwrap()).unwrap();
    let code = ran.exit_code().await.unwrap().expect("it ended");
    (code, last_line(&stdout))
}

fn last_line(stdout: &str) -> Value {
    stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default()
}

async fn slow_down_the_next_preflight(sandbox: &Container) {
    let port = sandbox.get_host_port_ipv4(PORT.tcp()).await.unwrap();
    break_the_tenant(&format!("127.0.0.1:{port}"), &json!({"path": "publish", "action": {"kind": "delay", "ms": 4_000}})).await;
}

/// Hands a fault to the sandbox at this address.
async fn break_the_tenant(address: &str, fault: &Value) {
    let answer = http().post(format!("http://{address}/sandbox/faults")).json(fault).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

fn http() -> reqwest::Client {
    // It fails only if another test was first, which serves as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The engine tells nothing of jobs, so the queue is asked, and each question takes the start of a process.
async fn until_running(worker: &Container) {
    for _ in 0..50 {
        let (_, detail) = iolaus(worker, ["jobs", "show", "in-hand", "--output", "json"]).await;
        match detail["state"].as_str() {
            Some("scheduled" | "available") => {}
            state => return assert_eq!(state, Some("running"), "{detail}"),
        }
    }
    panic!("it was not claimed");
}

#[test]
fn the_compose_file_brings_up_a_worker_whose_queue_outlives_its_container_and_goes_without_a_trace() {
    let Some(engine) = Engine::with_image() else { return };
    let Some(stack) = Stack::up(&engine, "", []) else { return };
    engine::until_healthy(&stack.container("worker"));
    assert_eq!(stack.size(), 2, "a sandbox and a worker, and no cluster");
    let (code, verdict) = stack.iolaus("worker", &format!("execute publish_preflight {USER} {CONNECTION} --job-id nightly"));
    assert_eq!((code, verdict["status"].as_str()), (Some(0), Some("passed")), "{verdict}");
    let (code, verdict) = stack.iolaus("worker", "execute workflow_rerun type=snowflake");
    assert_eq!((code, verdict["status"].as_str()), (Some(0), Some("passed")), "{verdict}");

    let first = stack.container("worker");
    stack.run("stop worker");
    assert_eq!(engine::run("docker", ["inspect", "--format", "{{.State.ExitCode}}", &first]), "0");
    stack.run("up --detach --no-build --no-deps --force-recreate worker");
    assert_ne!(stack.container("worker"), first);
    let (code, job) = stack.iolaus("worker", "jobs wait nightly");
    assert_eq!((code, job["status"].as_str()), (Some(0), Some("passed")), "{job}");
    stack.down_without_a_trace(&["container ls --all", "volume ls", "network ls"]);
}

#[test]
fn what_the_image_is_compiled_from_is_a_whole_package() {
    let dockerfile = std::fs::read_to_string(engine::repository().join("Dockerfile")).unwrap();
    let copied = dockerfile.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.starts_with(['-', '$']));
    let context = tempfile::tempdir().unwrap();
    for line in copied {
        let (sources, _) = line.rsplit_once(' ').expect("sources and a place");
        for source in sources.split(' ') {
            engine::run("cp", ["-R".as_ref(), engine::repository().join(source).as_os_str(), context.path().as_os_str()]);
        }
    }
    // It reads every target of every package, and the lock file, and compiles nothing.
    let manifest = context.path().join("Cargo.toml");
    let fetch = ["fetch", "--offline", "--locked", "--target", "host-tuple", "--manifest-path", manifest.to_str().unwrap()];
    engine::run(env!("CARGO"), fetch);
}

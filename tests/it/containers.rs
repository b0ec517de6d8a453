//! The image and the stack of the Compose file, on a real Docker engine, without a registry. Where there is no engine each test says
//! so on stderr and passes, unless `IOLAUS_REQUIRE_DOCKER=1`.

pub(crate) mod engine;

use std::time::Duration;

use serde_json::{Value, json};
use testcontainers::core::{ExecCommand, Healthcheck, IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use engine::{Engine, IMAGE};

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
    let fault = json!({"path": "publish", "action": {"kind": "delay", "ms": 4_000}});
    // It fails only if another test was first, which serves as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(format!("http://127.0.0.1:{port}/sandbox/faults")).json(&fault).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
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

/// The stack of the Compose file under a name of the test's own. Dropping it takes it down with its volume.
struct Stack<'a> {
    engine: &'a Engine,
    compose: Vec<&'static str>,
}

impl Stack<'_> {
    fn up(engine: &Engine) -> Option<Stack<'_>> {
        let forms = [vec!["docker", "compose"], vec!["docker-compose"]];
        let there = |form: &Vec<&str>| engine::attempt(form[0], form[1..].iter().chain(&["version"])).is_ok();
        let Some(compose) = forms.into_iter().find(there) else { return engine::skipped("no Docker Compose") };
        let stack = Stack { engine, compose };
        stack.run("up --detach --no-build");
        Some(stack)
    }

    fn project(&self) -> String {
        format!("iolaus-test-{}", self.engine.id())
    }

    /// The command line with the image of this build, and any free port for the sandbox.
    fn command(&self, line: &str) -> (&'static str, Vec<String>) {
        let file = engine::repository().join("docker-compose.yml");
        let variables = [format!("WORKER_IMAGE={}", self.engine.image()), "SANDBOX_PORT=0".to_owned()];
        let form = self.compose.iter().map(|word| (*word).to_owned());
        let options = ["--file".to_owned(), file.display().to_string(), "--project-name".to_owned(), self.project()];
        let words = line.split_whitespace().map(str::to_owned);
        ("env", variables.into_iter().chain(form).chain(options).chain(words).collect())
    }

    fn run(&self, line: &str) -> String {
        let (program, arguments) = self.command(line);
        engine::run(program, arguments)
    }

    /// Runs the program in the worker's container: its exit code, and its last line of stdout as JSON.
    fn iolaus(&self, line: &str) -> (Option<i32>, Value) {
        let (program, arguments) = self.command(&format!("exec -T worker iolaus {line}"));
        let (code, stdout) = engine::ended(program, arguments);
        (code, last_line(&stdout))
    }

    fn container(&self, service: &str) -> String {
        self.run(&format!("ps --quiet {service}"))
    }
}

impl Drop for Stack<'_> {
    fn drop(&mut self) {
        let (program, arguments) = self.command("down --volumes --remove-orphans --timeout 5");
        engine::forgive(engine::attempt(program, arguments));
    }
}

#[test]
fn the_compose_file_brings_up_a_worker_whose_queue_outlives_its_container_and_goes_without_a_trace() {
    let Some(engine) = Engine::with_image() else { return };
    let Some(stack) = Stack::up(&engine) else { return };
    engine::until_healthy(&stack.container("worker"));
    let (code, verdict) = stack.iolaus(&format!("execute publish_preflight {USER} {CONNECTION} --job-id nightly"));
    assert_eq!((code, verdict["status"].as_str()), (Some(0), Some("passed")), "{verdict}");
    let (code, verdict) = stack.iolaus("execute workflow_rerun type=snowflake");
    assert_eq!((code, verdict["status"].as_str()), (Some(0), Some("passed")), "{verdict}");

    let first = stack.container("worker");
    stack.run("stop worker");
    assert_eq!(engine::run("docker", ["inspect", "--format", "{{.State.ExitCode}}", &first]), "0");
    stack.run("up --detach --no-build --no-deps --force-recreate worker");
    assert_ne!(stack.container("worker"), first);
    let (code, job) = stack.iolaus("jobs wait nightly");
    assert_eq!((code, job["status"].as_str()), (Some(0), Some("passed")), "{job}");

    let project = format!("label=com.docker.compose.project={}", stack.project());
    let things = |list: &str| engine::run("docker", list.split_whitespace().chain(["--quiet", "--filter", &project]));
    assert!(!things("volume ls").is_empty() && !things("network ls").is_empty());
    drop(stack);
    for list in ["container ls --all", "volume ls", "network ls"] {
        assert_eq!(things(list), "", "{list}");
    }
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

//! What an operator's machines see of a real worker: probes, metrics, and the dashboard's expressions in a real Prometheus.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use iolaus::sandbox::SandboxOptions;
use serde_json::Value;

use super::harness::{CONNECTION, Place, Running, USER};
use crate::support::port::free_port;
use crate::support::skip::{Need, skip};
use crate::support::watchdog::Patience;

const ACTIVE: &str = "run=atlan-redshift-1684500800-k2v9d";

fn place() -> Place {
    let mut place = Place::with_tenant(SandboxOptions { running: Duration::from_secs(600), ..SandboxOptions::default() });
    place.set("IOLAUS_HTTP__LISTEN", "127.0.0.1:0");
    place
}

/// Where a worker answers, read off its log.
pub(crate) fn address(worker: &mut Running) -> String {
    let line = worker.line("answering /livez, /readyz and /metrics");
    let log: Value = serde_json::from_str(&line).expect("a line of JSON");
    log["address"].as_str().expect("an address").to_owned()
}

/// Status and body.
pub(crate) fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn a_worker_is_ready_until_it_drains_and_lives_until_it_ends() {
    let place = place();
    let mut worker = place.start("worker");
    let address = address(&mut worker);
    assert_eq!(get(&address, "/livez").expect("an answer").0, 200);
    assert_eq!(get(&address, "/readyz").expect("an answer"), (200, "ready\n".to_owned()));
    let (status, text) = get(&address, "/metrics").expect("an answer");
    assert!(status == 200 && text.contains("iolaus_worker_slots_limit{slot_class=\"work\"} 32"), "{text}");
    assert_eq!(get(&address, "/jobs").expect("an answer").0, 404, "nothing of a job is told here");
    std::fs::rename(place.database(), place.database().with_extension("gone")).expect("moved away");
    let (status, why) = get(&address, "/readyz").expect("an answer");
    assert!(status == 503 && why.starts_with("not ready: the queue does not answer"), "{status} {why}");
    std::fs::rename(place.database().with_extension("gone"), place.database()).expect("moved back");
    assert_eq!(get(&address, "/readyz").expect("an answer").0, 200);
    assert_eq!(worker.terminate().code, 0);
}

#[test]
fn an_address_that_was_chosen_must_be_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut place = place();
    place.set("IOLAUS_HTTP__LISTEN", taken.local_addr().expect("bound").to_string());
    let ran = place.run("worker");
    assert!(ran.code == 6 && ran.stderr.contains("`http.listen`") && ran.stderr.contains("choose a free address"), "{ran:?}");
    place.set("IOLAUS_HTTP__LISTEN", "here");
    let ran = place.run("worker");
    assert!(ran.code == 2 && ran.stderr.contains("http.listen") && ran.stderr.contains("no address and port"), "{ran:?}");
}

#[test]
fn a_real_prometheus_answers_every_expression_of_the_dashboard() {
    let prometheus = match prometheus() {
        Ok(program) => program,
        Err(why) => {
            skip(Need::Prometheus, &format!("there is no Prometheus to ask: {why}"));
            return;
        }
    };
    let place = place();
    let mut worker = place.start("worker");
    let worker_address = address(&mut worker);
    place.run(&format!("enqueue await_completion {ACTIVE} --job-id follows"));
    let server = Prometheus::start(&prometheus, &worker_address);
    let load = |round: usize| {
        for n in 0..3 {
            place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --job-id ok-{round}-{n}"));
            place.run(&format!(
                "enqueue publish_preflight user_id=90000000-0000-4000-8000-000000000002 {CONNECTION} --job-id no-{round}-{n}"
            ));
        }
    };
    // What was there at the first scrape of a series is no increase.
    load(0);
    server.until_answered("iolaus_check_verdicts_total{passed=\"false\"} >= 3");
    load(1);
    place.run("jobs wait no-1-2");
    place.run("pause tenant default --reason maintenance");
    load(2);
    let expressions = expressions();
    assert!(expressions.len() > 25, "{expressions:?}");
    for expression in &expressions {
        server.until_answered(expression);
    }
    assert_eq!(server.ask("count({__name__=~\".+\", otel_metric_overflow=\"true\"})"), 0);
    place.run("resume tenant default");
    place.run("jobs cancel follows");
    place.run("jobs wait no-2-2");
    assert_eq!(worker.terminate().code, 0);
}

/// Every expression, with what Grafana would put in.
fn expressions() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/grafana/iolaus.json");
    let dashboard: Value = serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expression = |target: &Value| target["expr"].as_str().expect("an expression").to_owned();
    targets.map(expression).map(|text| text.replace("$__rate_interval", "5m").replace("$job", ".+")).collect()
}

/// Debian's package, unpacked into the build directory, unless there is one on the path.
fn prometheus() -> Result<PathBuf, String> {
    if Command::new("prometheus").arg("--version").output().is_ok() {
        return Ok("prometheus".into());
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
    let program = place.join("usr/bin/prometheus");
    if program.exists() {
        return Ok(program);
    }
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let script =
        "apt-get download prometheus >&2 && dpkg-deb -x prometheus_*.deb unpacked && rm prometheus_*.deb && cp -r unpacked/. .";
    let output = Command::new("sh").args(["-ec", script]).current_dir(&place).output().map_err(|error| error.to_string())?;
    if program.exists() {
        return Ok(program);
    }
    Err(format!("`apt-get download prometheus` says: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A server that scrapes one worker ten times a second.
struct Prometheus {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn start(program: &Path, worker: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("prometheus.yml");
        let scrape = format!(
            "global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\n\
             scrape_configs: [{{job_name: iolaus, scrape_interval: 250ms, scrape_timeout: 250ms, static_configs: [{{targets: ['{worker}']}}]}}]\n"
        );
        std::fs::write(&config, scrape).expect("written");
        let address = format!("127.0.0.1:{}", free_port());
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Self { child, address, _directory: directory }
    }

    /// How many series answer an expression. Zero as long as the server is not there.
    fn ask(&self, expression: &str) -> usize {
        let mut query = String::new();
        for byte in expression.bytes() {
            write!(query, "%{byte:02x}").expect("a text takes all");
        }
        let Some((status, body)) = get(&self.address, &format!("/api/v1/query?query={query}")) else { return 0 };
        assert!(status == 200 || status == 503, "{expression}: {body}");
        let body = body.find('{').map_or("", |at| &body[at..=body.rfind('}').unwrap_or(at)]);
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        let number = |series: &&Value| series["value"][1].as_str().is_some_and(|value| value != "NaN");
        answer["data"]["result"].as_array().map_or(0, |series| series.iter().filter(number).count())
    }

    fn until_answered(&self, expression: &str) {
        let patience = Patience::new();
        while self.ask(expression) == 0 {
            patience.check(|| format!("no series answers {expression}"));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

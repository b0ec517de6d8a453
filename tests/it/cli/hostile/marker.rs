//! A marker in every place where a tenant can put a text, against all four activities as a worker process runs them. No metric shows any
//! of it, and nothing that the process writes shows our key or a control character.

use std::fmt::Write as _;

use marked::{marked, marker, places, refusal};

use super::*;
use crate::cli::metrics::{address, get};

#[path = "../../../../activities/tests/support/marked.rs"]
mod marked;

const STATUSES: [u16; 10] = [302, 400, 403, 404, 409, 422, 500, 502, 599, 999];
/// More places than any answer of `regular` has.
const PLACES: usize = 40;

/// How the marker stands in the answers of one tenant.
#[derive(Debug, Clone, Copy)]
enum Mark {
    /// At this place of every answer, as far as it has so many.
    Place(usize),
    /// In every field of a refusal of the request in question.
    Refusal(u16),
    /// In a page that is the answer to it.
    Page(u16),
}

fn marks() -> Vec<Mark> {
    (0..PLACES).map(Mark::Place).chain(STATUSES.map(Mark::Refusal)).chain([200, 502].map(Mark::Page)).collect()
}

/// Serves every mark under `/ACTIVITY/NUMBER/`, and in every header.
fn serve_marked() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (worlds, marks) = (Worlds::default(), Arc::new(marks()));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (worlds, marks) = (worlds.clone(), marks.clone());
            thread::spawn(move || answer_marked(stream, &worlds, &marks));
        }
    });
    base
}

fn answer_marked(mut stream: TcpStream, worlds: &Worlds, marks: &[Mark]) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let Some(request) = read(&mut stream) else { return };
    let mut parts = request.path.splitn(4, '/').skip(1);
    let activity = Activity::ALL[parts.next().and_then(|part| part.parse::<usize>().ok()).expect("an activity")];
    let number: usize = parts.next().and_then(|part| part.parse().ok()).expect("a number");
    let path = format!("/{}", parts.next().unwrap_or_default());
    let text = marker(KEY);
    let healthy = regular(worlds.lock().expect("no panic").entry((activity, number)).or_default(), &request, &path);
    let (status, body) = match marks[number] {
        Mark::Place(mut at) => {
            let healthy: Value = serde_json::from_str(&healthy).expect("JSON");
            assert!(places(&healthy) <= PLACES, "{} places: {healthy}", places(&healthy));
            (200, marked(healthy, &mut at, &text).to_string())
        }
        Mark::Refusal(status) if activity.is_asked(&path) => (status, refusal(&text).to_string()),
        Mark::Page(status) if activity.is_asked(&path) => (status, format!("<html>{text}")),
        Mark::Refusal(_) | Mark::Page(_) => (200, healthy),
    };
    let mut head = format!("HTTP/1.1 {status} forged {KEY}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for name in ["content-type", "server", "date", "retry-after", "x-request-id", "location", "www-authenticate"] {
        write!(head, "{name}: forged {KEY}\r\n").expect("a text");
    }
    // The client may have gone away, which is its right.
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok();
    stream.shutdown(Shutdown::Write).ok();
    stream.read_to_end(&mut Vec::new()).ok();
}

/// The tenants and jobs of every mark: a file of settings, and one of jobs.
fn cases(base: &str) -> (String, String) {
    let (mut settings, mut jobs) = (String::new(), String::new());
    for activity in Activity::ALL {
        let command = activity.command();
        let input: BTreeMap<_, _> = command[1..].iter().filter_map(|word| word.split_once('=')).collect();
        let mut input = json!(input);
        match activity {
            Activity::Rerun => {
                input["idempotent"] = json!(false);
                input["timeout"] = json!("3s");
            }
            Activity::Await => input["timeout"] = json!("3s"),
            Activity::Preflight | Activity::Grant => {}
        }
        for number in 0..marks().len() {
            let tenant = format!("t{}_{number}", activity as usize);
            write!(
                settings,
                "[tenants.{tenant}]\nbase_url = '{base}/{}/{number}/'\napi_key = '{KEY}'\nrequest_timeout = '5s'\n\
                 reconcile_window = '1s'\nindex_lag = '10ms'\nindex_grace = '100ms'\nlook_patience = '0s'\ngrant_recheck = '10ms'\n",
                activity as usize
            )
            .expect("a text");
            let options = json!({"maximum_attempts": 2, "initial_interval": "10ms", "maximum_interval": "100ms",
                "schedule_to_close": "20s"});
            let job = json!({"activity": command[0], "tenant": tenant, "job_id": tenant, "input": input, "options": options});
            writeln!(jobs, "{job}").expect("a text");
        }
    }
    (settings, jobs)
}

/// Nothing that is read on a terminal or by a machine shows our key or a control character.
fn check_shown(what: &str, shown: &str) {
    for hidden in [KEY, "\u{1b}", "\\u001b", "\\u{1b}", "\u{202e}", "\\u202e", "\r"] {
        assert!(!shown.contains(hidden), "{what} shows {hidden:?}: {shown}");
    }
}

#[test]
fn no_metric_shows_what_a_tenant_says_and_no_output_shows_our_key_or_control_characters() {
    let (settings, jobs) = cases(&serve_marked());
    let mut place = Place::new();
    let config = place.file("marked.toml", settings);
    let number = jobs.lines().count();
    let jobs = place.file("jobs.ndjson", jobs);
    place.set("IOLAUS_CONFIG", &config);
    place.set("IOLAUS_HTTP__LISTEN", "127.0.0.1:0");
    let mut worker = place.start("worker");
    let address = address(&mut worker);
    let ran = place.run(&format!("enqueue --jobs {} --wait --timeout 90s --output json", jobs.display()));
    assert_eq!(ran.stdout.matches("\"attempts\":").count(), number, "a verdict for each job: {ran:?}");
    check_shown("enqueue", &ran.stdout);
    check_shown("enqueue", &ran.stderr);
    let (status, metrics) = get(&address, "/metrics").expect("an answer");
    assert!(status == 200 && metrics.contains("http_client_request_duration_seconds_count{"), "{metrics}");
    assert!(metrics.contains("iolaus_job_verdicts_total{") && metrics.contains("iolaus_check"), "{metrics}");
    for said in ["forged", KEY, "their words", WORKFLOW, RUN] {
        assert!(!metrics.contains(said), "a metric shows {said}: {metrics}");
    }
    for command in ["jobs list", "status"] {
        let ran = place.run(command);
        check_shown(command, &ran.stdout);
        check_shown(command, &ran.stderr);
    }
    let ended = worker.terminate();
    check_shown("the log", &ended.stderr);
    std::fs::remove_file(config).expect("ours");
    for (path, bytes) in place.files() {
        assert!(!String::from_utf8_lossy(&bytes).contains(KEY), "our key stands in {}", path.display());
    }
}

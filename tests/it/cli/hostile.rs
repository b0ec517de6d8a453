//! A tenant that misbehaves in every way that one answer can: raw sockets, one behaviour for each address, against all four activities
//! as the shell runs them. Whatever it does, the verdict is one that a person would call true, an effect happens once, and our key is
//! found nowhere.

mod marker;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Place, Ran};

const KEY: &str = "very-secret-key-0123456789abcdef";
const WORKFLOW: &str = "atlan-snowflake-1684500411";
const RUN: &str = "atlan-snowflake-1684500411-await";
const CONNECTION: &str = "default/snowflake/1";
const TOKEN: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
const TOKEN_USER: &str = "service-account-apikey-1";

/// What the answer to the operation in question looks like.
#[derive(Debug, Clone, Copy)]
enum Behaviour {
    CutBefore,
    CutAfter,
    /// This status with an answer as the API gives it.
    Status(u16),
    /// This status with a web page, as something in between gives it.
    WebPage(u16),
    /// A text page that echoes the request.
    Echo(u16),
    /// The request in the fields of a refusal.
    EchoInFields(u16),
    /// This body under 200.
    Body(&'static str),
    Nested(usize),
    Huge,
    /// The right answer, written in another way.
    Spelled(Spelling),
    /// Bytes that are no HTTP.
    Raw(&'static str),
    /// The right answer with this header.
    Header(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Spelling {
    ByteOrderMark,
    UntilClosed,
    ShortLength,
    LongLength,
    Chunked,
    BrokenChunks,
    UnknownFields,
    ManyHeaders,
}

const BEHAVIOURS: &[Behaviour] = {
    use Behaviour as B;
    use Spelling as S;
    &[
        B::CutBefore,
        B::CutAfter,
        B::Status(204),
        B::Status(206),
        B::Status(301),
        B::Status(302),
        B::Status(307),
        B::Status(400),
        B::Status(401),
        B::Status(403),
        B::Status(404),
        B::Status(405),
        B::Status(408),
        B::Status(409),
        B::Status(413),
        B::Status(418),
        B::Status(422),
        B::Status(429),
        B::Status(500),
        B::Status(501),
        B::Status(502),
        B::Status(503),
        B::Status(504),
        B::Status(599),
        B::Status(999),
        B::WebPage(200),
        B::WebPage(302),
        B::WebPage(401),
        B::WebPage(403),
        B::WebPage(404),
        B::WebPage(500),
        B::WebPage(502),
        B::WebPage(503),
        B::Echo(200),
        B::Echo(400),
        B::Echo(500),
        B::EchoInFields(400),
        B::EchoInFields(403),
        B::EchoInFields(500),
        B::Body(""),
        B::Body(" "),
        B::Body("null"),
        B::Body("true"),
        B::Body("7"),
        B::Body("[]"),
        B::Body("{}"),
        B::Body("\"passed\""),
        B::Body("{\"passed\":\"true\",\"metadata\":{\"name\":7},\"hits\":{\"hits\":{}},\"entity\":[]}"),
        B::Body("{\"passed\":true,\"passed\":false,\"metadata\":1,\"metadata\":2}"),
        B::Body("{\"passed\":true,\"failed_checks\":[\"UserEnabled\"],\"message\":\"contradicts itself\"}"),
        B::Body("{\"error\":\"internal\",\"code\":1006}"),
        // Runs that are not ours: of another workflow, of another user, of a name that leads elsewhere, of none that exists.
        B::Body("{\"metadata\":{\"name\":\"atlan-redshift-1684500800-k2v9d\"}}"),
        B::Body(
            "{\"metadata\":{\"name\":\"atlan-snowflake-1684500411-x\",\"labels\":{\"workflows.argoproj.io/creator\":\"u-other\"}}}",
        ),
        B::Body("{\"metadata\":{\"name\":\"..\"}}"),
        B::Body("{\"metadata\":{\"name\":\"atlan-snowflake-1684500411-zzzzz\"}}"),
        // Searches that prove nothing.
        B::Body("{\"hits\":{\"total\":{\"value\":3,\"relation\":\"eq\"},\"hits\":[]}}"),
        B::Body("{\"error\":{\"code\":500},\"hits\":{\"total\":{\"value\":0},\"hits\":[]}}"),
        B::Body("{\"half\":"),
        B::Body("NaN"),
        B::Nested(200),
        B::Nested(100_000),
        B::Huge,
        B::Spelled(S::ByteOrderMark),
        B::Spelled(S::UntilClosed),
        B::Spelled(S::ShortLength),
        B::Spelled(S::LongLength),
        B::Spelled(S::Chunked),
        B::Spelled(S::BrokenChunks),
        B::Spelled(S::UnknownFields),
        B::Spelled(S::ManyHeaders),
        B::Raw("garbage\r\n\r\n"),
        B::Raw("HTTP/1.1 200"),
        B::Raw("HTTP/1.1 OK fine\r\n\r\n{}"),
        B::Header("date: Mon, 01 Jan 1900 00:00:00 GMT"),
        B::Header("date: Fri, 31 Dec 2100 23:59:59 GMT"),
        B::Header("date: tomorrow"),
        B::Header("retry-after: 99999999999999999999999"),
        B::Header("content-type: text/html"),
        B::Header("content-encoding: br"),
    ]
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Activity {
    Preflight,
    Rerun,
    Await,
    Grant,
}

impl Activity {
    const ALL: [Self; 4] = [Self::Preflight, Self::Rerun, Self::Await, Self::Grant];

    fn command(self) -> Vec<String> {
        let words = match self {
            Self::Preflight => format!("publish_preflight user_id=u-1 connection_qualified_name={CONNECTION}"),
            Self::Rerun => format!("workflow_rerun workflow={WORKFLOW} idempotent=false"),
            Self::Await => format!("await_completion run={RUN} poll_interval=100ms"),
            Self::Grant => {
                format!("token_admin_grant connection_qualified_name={CONNECTION} api_token_guid={TOKEN} method=direct")
            }
        };
        words.split(' ').map(str::to_owned).collect()
    }

    /// Whether a request is the one whose answer is in question.
    fn is_asked(self, path: &str) -> bool {
        match self {
            Self::Preflight => path.ends_with("/user-publish-check"),
            Self::Rerun => path.ends_with("/workflows/submit"),
            Self::Await => path.ends_with("/runs/indexsearch"),
            Self::Grant => path.contains("/entity/bulk/"),
        }
    }

    fn has_an_effect(self) -> bool {
        matches!(self, Self::Rerun | Self::Grant)
    }
}

/// The tenant behind one address.
#[derive(Clone, Default)]
struct World {
    asked: usize,
    runs: Vec<String>,
    admins: Vec<String>,
    writes: usize,
}

type Worlds = Arc<Mutex<BTreeMap<(Activity, usize), World>>>;

struct Request {
    path: String,
    head: String,
    body: Value,
}

/// Serves every behaviour under `/ACTIVITY/NUMBER/`.
fn serve(worlds: Worlds) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let worlds = worlds.clone();
            thread::spawn(move || answer(stream, &worlds));
        }
    });
    base
}

fn answer(mut stream: TcpStream, worlds: &Worlds) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let Some(request) = read(&mut stream) else { return };
    let mut parts = request.path.splitn(4, '/').skip(1);
    let activity = Activity::ALL[parts.next().and_then(|part| part.parse::<usize>().ok()).expect("an activity")];
    let number: usize = parts.next().and_then(|part| part.parse().ok()).expect("a number");
    let path = format!("/{}", parts.next().unwrap_or_default());
    let bytes = {
        let mut worlds = worlds.lock().expect("no panic");
        let world = worlds.entry((activity, number)).or_default();
        let is_asked = activity.is_asked(&path);
        world.asked += usize::from(is_asked);
        // A read is always answered so, an effect only at first.
        let hostile = is_asked && (world.asked == 1 || !activity.has_an_effect());
        if hostile {
            misbehave(BEHAVIOURS[number], world, &request, &path)
        } else {
            whole(200, "", &regular(world, &request, &path))
        }
    };
    // The client may have gone away, which is its right.
    stream.write_all(&bytes).ok();
    stream.shutdown(Shutdown::Write).ok();
    stream.read_to_end(&mut Vec::new()).ok();
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        let body = &bytes[end + 4..];
        if body.len() < length.unwrap_or_default() {
            continue;
        }
        let path = head.split(' ').nth(1)?.to_owned();
        return Some(Request { path, body: serde_json::from_slice(body).unwrap_or_default(), head });
    }
}

fn run(name: &str, phase: &str) -> Value {
    let created = iolaus_activities::Clock::now(&iolaus_activities::SystemClock::new()).to_string();
    json!({"_id": name, "_source": {"metadata": {"name": name, "creationTimestamp": created},
        "spec": {"workflowTemplateRef": {"name": WORKFLOW}}, "status": {"phase": phase}}})
}

fn hits(hits: &[Value]) -> Value {
    json!({"hits": {"total": {"value": hits.len(), "relation": "eq"}, "hits": hits}})
}

/// What a tenant in good health answers; effects are applied.
fn regular(world: &mut World, request: &Request, path: &str) -> String {
    let body = match path {
        "/api/service/whoami" => json!({"userId": "u-me", "username": "service-account-me", "roles": [{"name": "$admin"}]}),
        path if path.ends_with("/user-publish-check") => json!({"passed": true, "failed_checks": [], "message": "fine"}),
        path if path.ends_with("/workflows/indexsearch") => hits(&[json!({"_source": {"metadata": {"name": WORKFLOW}}})]),
        path if path.ends_with("/runs/indexsearch") => {
            let wanted = request.body["query"]["bool"]["filter"][0]["term"]["_id"]["value"].as_str();
            let known =
                world.runs.iter().map(String::as_str).chain([RUN]).filter(|name| wanted.is_none_or(|wanted| wanted == *name));
            let shown: Vec<_> = known.filter(|name| wanted.is_some() || *name != RUN).map(|name| run(name, "Succeeded")).collect();
            hits(&shown)
        }
        path if path.ends_with("/workflows/submit") => {
            world.runs.push(format!("{WORKFLOW}-ours{}", world.runs.len()));
            run(world.runs.last().expect("one"), "Running")["_source"].clone()
        }
        path if path.contains("/apikeys") => {
            let token = json!({"id": TOKEN, "clientId": "apikey-1", "attributes": {"clientId": "apikey-1"}});
            json!({"totalRecord": 1, "filterRecord": 1, "records": [token]})
        }
        path if path.contains("/entity/uniqueAttribute/") => {
            json!({"entity": {"guid": "c-1", "status": "ACTIVE",
                "attributes": {"qualifiedName": CONNECTION, "name": "prod", "adminUsers": world.admins}}})
        }
        path if path.contains("/entity/bulk/") => {
            let admins = request.body["entities"][0]["attributes"]["adminUsers"].as_array().cloned().unwrap_or_default();
            world.admins = admins.iter().filter_map(|admin| admin.as_str().map(str::to_owned)).collect();
            world.writes += 1;
            json!({"mutatedEntities": {"UPDATE": [{"guid": "c-1"}]}, "guidAssignments": {}})
        }
        _ => json!({}),
    };
    body.to_string()
}

fn whole(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let json = "content-type: application/json\r\nconnection: close\r\n";
    format!("HTTP/1.1 {status} X\r\n{json}{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn misbehave(behaviour: Behaviour, world: &mut World, request: &Request, path: &str) -> Vec<u8> {
    let refusal = |status: u16| json!({"code": 1006, "message": format!("refused with {status}")}).to_string();
    let page = "<html><head><title>Sign in</title></head><body>Please sign in</body></html>";
    match behaviour {
        Behaviour::CutBefore => Vec::new(),
        Behaviour::CutAfter => {
            regular(world, request, path);
            Vec::new()
        }
        Behaviour::Status(status) => whole(status, "location: http://127.0.0.1:1/\r\n", &refusal(status)),
        Behaviour::WebPage(status) => whole(status, "", page),
        Behaviour::Echo(status) => whole(status, "", &request.head),
        Behaviour::EchoInFields(status) => {
            let head = &request.head;
            let said = json!({"errorCode": head, "code": head, "message": head, "errorMessage": head, "error": head});
            whole(status, "", &said.to_string())
        }
        Behaviour::Body(body) => whole(200, "", body),
        Behaviour::Nested(depth) => whole(200, "", &format!("{}1{}", "{\"a\":[".repeat(depth), "]}".repeat(depth))),
        Behaviour::Huge => whole(200, "", &format!("[{}]", "{\"\":1},".repeat(1_200_000).trim_end_matches(','))),
        Behaviour::Spelled(spelling) => spelled(spelling, &regular(world, request, path)),
        Behaviour::Raw(bytes) => bytes.as_bytes().to_vec(),
        Behaviour::Header(header) => whole(200, &format!("{header}\r\n"), &regular(world, request, path)),
    }
}

fn spelled(spelling: Spelling, body: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 X\r\ncontent-type: application/json\r\nconnection: close\r\n";
    match spelling {
        Spelling::ByteOrderMark => whole(200, "", &format!("\u{FEFF}{body}")),
        Spelling::UntilClosed => format!("{head}\r\n{body}").into_bytes(),
        Spelling::ShortLength => format!("{head}content-length: 5\r\n\r\n{body}").into_bytes(),
        Spelling::LongLength => format!("{head}content-length: {}\r\n\r\n{body}", body.len() + 9).into_bytes(),
        Spelling::Chunked => {
            format!("{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
        }
        Spelling::BrokenChunks => format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{body}\r\n").into_bytes(),
        Spelling::UnknownFields => {
            let more = format!("{{\"unknown\":{{\"deep\":[1,2,3]}},\"\":null,{}", body.strip_prefix('{').expect("an object"));
            whole(200, "", &more)
        }
        Spelling::ManyHeaders => whole(200, &"x-more: value\r\n".repeat(60), body),
    }
}

/// Whether it is the right answer, in a spelling that HTTP and JSON allow.
fn is_right(behaviour: Behaviour) -> bool {
    use Spelling as S;
    match behaviour {
        Behaviour::Spelled(spelling) => !matches!(spelling, S::ShortLength | S::LongLength | S::BrokenChunks),
        // A body that is JSON is read, whatever a header says of it.
        Behaviour::Header(_) => true,
        _ => false,
    }
}

fn check(activity: Activity, number: usize, world: Option<&World>, ran: &Ran) {
    let behaviour = BEHAVIOURS[number];
    let told = format!("{activity:?} {behaviour:?}: {ran:?}");
    let verdict = ran.json();
    let status = verdict["status"].as_str().unwrap_or_default();
    assert_eq!(
        ran.code,
        match status {
            "passed" => 0,
            "failed" => 1,
            _ => 3,
        },
        "{told}"
    );
    let empty = World::default();
    let world = world.unwrap_or(&empty);
    match activity {
        Activity::Preflight | Activity::Await => {
            let expected = if is_right(behaviour) { "passed" } else { "unresolved" };
            assert_eq!(status, expected, "{told}");
        }
        Activity::Rerun => {
            assert!(world.runs.len() <= 1, "one effect: {told}");
            if status == "passed" {
                let named = verdict["facts"]["run"].as_str();
                assert_eq!(named, world.runs.first().map(String::as_str), "{told}");
                let started = verdict["facts"]["started"] == true;
                assert!(started || verdict["message"].as_str().is_some_and(|said| said.contains("answer was lost")), "{told}");
            } else {
                assert_eq!((status, world.runs.len()), ("unresolved", 0), "a run that the verdict hides: {told}");
            }
            assert!(status == "passed" || !is_right(behaviour), "{told}");
        }
        Activity::Grant => {
            let is_admin = world.admins.iter().any(|admin| admin == TOKEN_USER);
            assert_eq!(status == "passed", is_admin, "{told}");
            assert!(status != "failed" && world.writes <= 1, "{told}");
            assert!(status == "passed" || !is_right(behaviour), "{told}");
        }
    }
}

#[test]
fn whatever_a_tenant_answers_verdicts_are_true_effects_happen_once_and_our_key_is_nowhere() {
    assert!(BEHAVIOURS.len() >= 60, "{}", BEHAVIOURS.len());
    let worlds: Worlds = Arc::default();
    let base = serve(worlds.clone());
    let cases: Vec<(Activity, usize)> =
        Activity::ALL.into_iter().flat_map(|activity| (0..BEHAVIOURS.len()).map(move |number| (activity, number))).collect();
    let next = Mutex::new(cases.into_iter());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let Some((activity, number)) = next.lock().expect("no panic").next() else { return };
                    let case = || one(&base, &worlds, activity, number);
                    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case)) {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failed.lock().expect("no panic").push(text);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    assert!(failed.is_empty(), "{} of them are not as expected:\n{}", failed.len(), failed.join("\n\n"));
}

fn one(base: &str, worlds: &Worlds, activity: Activity, number: usize) {
    let mut place = Place::new();
    place.set("ATLAN_BASE_URL", format!("{base}/{}/{number}/", activity as usize));
    place.set("ATLAN_API_KEY", KEY);
    place.set("IOLAUS_LOG", "trace");
    for (setting, value) in [
        ("REQUEST_TIMEOUT", "5s"),
        ("RECONCILE_WINDOW", "1s"),
        ("INDEX_LAG", "10ms"),
        ("INDEX_GRACE", "100ms"),
        ("LOOK_PATIENCE", "0s"),
        ("GRANT_RECHECK", "10ms"),
    ] {
        place.set(&format!("IOLAUS_TENANTS__DEFAULT__{setting}"), value);
    }
    let mut command = vec!["execute".to_owned()];
    command.extend(activity.command());
    // A wait asks five times in one attempt; the others have an attempt to recover in.
    let attempts = if activity == Activity::Await { "--maximum-attempts=1" } else { "--maximum-attempts=2" };
    command.extend([attempts, "--initial-interval=10ms", "--maximum-interval=100ms"].map(str::to_owned));
    let ran = place.iolaus(&command);
    let world = worlds.lock().expect("no panic").get(&(activity, number)).cloned();
    check(activity, number, world.as_ref(), &ran);
    let said = [("stdout".to_owned(), ran.stdout.into_bytes()), ("stderr".to_owned(), ran.stderr.into_bytes())];
    let kept = place.files().into_iter().map(|(path, bytes)| (path.display().to_string(), bytes));
    for (name, bytes) in said.into_iter().chain(kept) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(KEY), "our key stands in {name}: {activity:?} {:?}", BEHAVIOURS[number]);
    }
}

//! Hostile and odd answers, clocks that differ, and the parts of a document that a search asks for.

use std::io::Read;

use flate2::read::GzDecoder;
use reqwest::Response;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, DATE};

use super::*;

const WHOAMI: &str = "/api/service/whoami";
const ROLES: &str = "/api/service/roles";

async fn with(action: Action) -> Harness {
    let harness = Harness::start().await;
    harness.sandbox.add_fault(Fault::new(action));
    harness
}

async fn answer(harness: &Harness, method: Method, path: &str) -> Response {
    harness.request("sandbox-api-token", method, path).send().await.expect("an answer")
}

fn header(answer: &Response, name: reqwest::header::HeaderName) -> Option<String> {
    answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned())
}

fn unzipped(bytes: &[u8]) -> Value {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn a_page_in_place_of_the_answer_applies_only_where_it_is_told_to() {
    let page = |apply| Action::WebPage { status: 502, apply };
    let raw = |apply| Action::Raw { status: 200, headers: Vec::new(), body: "{\"a\":1,\"a\":2".to_owned(), apply };
    for (action, status, part, effects) in [
        (page(false), 502, "Sign in", 0),
        (page(true), 502, "Sign in", 1),
        (raw(false), 200, "{\"a\":1,\"a\":2", 0),
        (raw(true), 200, "{\"a\":1,\"a\":2", 1),
        (Action::EchoHeaders { apply: false }, 200, "authorization: Bearer sandbox-api-token", 0),
        (Action::EchoHeaders { apply: true }, 200, "authorization: Bearer sandbox-api-token", 1),
    ] {
        let harness = with(action.clone()).await;
        let request = harness.request("sandbox-api-token", Method::POST, "/api/service/workflows/submit");
        let answer = request.json(&submission(CRAWLER)).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{action:?}");
        assert!(answer.text().await.expect("text").contains(part), "{action:?}");
        assert_eq!(harness.kinds().len(), effects, "{action:?}");
    }
}

#[tokio::test]
async fn a_huge_body_has_the_size_that_was_asked_for_compressed_or_not() {
    for gzip in [false, true] {
        let harness = with(Action::Huge { bytes: 3_000_000, gzip }).await;
        let answer = answer(&harness, Method::GET, WHOAMI).await;
        let bytes = answer.bytes().await.expect("a body");
        let body: Value = if gzip { unzipped(&bytes) } else { serde_json::from_slice(&bytes).expect("JSON") };
        assert_eq!(body.to_string().len(), 3_000_000);
        assert_eq!(bytes.len() < 100_000, gzip);
    }
}

#[tokio::test]
async fn a_deep_body_is_nested_as_deep_as_was_asked_for() {
    let harness = with(Action::Deep { depth: 5_000 }).await;
    let text = answer(&harness, Method::GET, WHOAMI).await.text().await.expect("text");
    assert_eq!((text.len(), &text[4_999..5_001]), (10_000, "[]"));
}

#[tokio::test]
async fn an_answer_is_compressed_where_gzip_is_accepted_or_a_fault_says_so() {
    let harness = Harness::start().await;
    let plain = answer(&harness, Method::GET, ROLES).await;
    assert_eq!(header(&plain, CONTENT_ENCODING), None);
    let plain: Value = plain.json().await.expect("JSON");
    let request = harness.request("sandbox-api-token", Method::GET, ROLES).header(ACCEPT_ENCODING, "gzip, br");
    let asked = request.send().await.expect("an answer");
    harness.sandbox.add_fault(Fault::new(Action::Gzip).on("roles"));
    let unasked = answer(&harness, Method::GET, ROLES).await;
    for compressed in [asked, unasked] {
        assert_eq!(header(&compressed, CONTENT_ENCODING).as_deref(), Some("gzip"));
        assert_eq!(unzipped(&compressed.bytes().await.expect("a body")), plain);
    }
    assert_eq!(harness.sandbox.requests()[1].accept_encoding.as_deref(), Some("gzip, br"));
}

#[tokio::test]
async fn a_byte_order_mark_and_another_encoding_change_only_the_bytes() {
    let harness = with(Action::Bom).await;
    assert!(answer(&harness, Method::GET, WHOAMI).await.bytes().await.expect("a body").starts_with(b"\xef\xbb\xbf{"));
    harness.sandbox.add_fault(Fault::new(Action::Latin1).on("submit"));
    let body = json!({ "namespace": "default", "resourceKind": "WorkflowTemplate", "resourceName": "\u{e9}" });
    let request = harness.request("sandbox-api-token", Method::POST, "/api/service/workflows/submit");
    let answer = request.json(&body).send().await.expect("an answer");
    assert_eq!(header(&answer, CONTENT_TYPE).as_deref(), Some("application/json; charset=iso-8859-1"));
    let bytes = answer.bytes().await.expect("a body");
    assert!(bytes.contains(&0xe9) && str::from_utf8(&bytes).is_err());
}

#[tokio::test]
async fn a_wrong_length_cuts_the_body_or_promises_more_than_there_is() {
    let harness = with(Action::WrongLength { delta: -5 }).await;
    let cut = answer(&harness, Method::GET, WHOAMI).await.text().await.expect("a shorter body");
    assert!(cut.starts_with('{') && !cut.ends_with('}'), "{cut}");
    harness.sandbox.add_fault(Fault::new(Action::WrongLength { delta: 5 }));
    answer(&harness, Method::GET, WHOAMI).await.bytes().await.expect_err("the body ends early");
}

#[tokio::test]
async fn a_stalled_answer_sends_one_half_and_keeps_the_connection_open() {
    let harness = with(Action::Stall).await;
    let mut answer = answer(&harness, Method::GET, WHOAMI).await;
    let length = usize::try_from(answer.content_length().expect("a length")).expect("small");
    assert_eq!(answer.chunk().await.expect("a piece").map(|piece| piece.len()), Some(length / 2));
    let mut rest = std::pin::pin!(answer.chunk());
    assert!(std::future::poll_fn(|context| std::task::Poll::Ready(rest.as_mut().poll(context).is_pending())).await);
}

#[tokio::test]
async fn a_wrapped_answer_stands_below_the_key_that_was_given() {
    let harness = with(Action::Wrap { key: "data".to_owned() }).await;
    let (status, answer) = harness.submit(CRAWLER).await;
    assert!(status == 200 && answer["data"]["metadata"]["name"].is_string(), "{answer}");
}

#[tokio::test]
async fn an_answer_contradicts_itself_where_a_fault_says_so() {
    let harness = with(Action::Contradiction).await;
    let body = json!({ "user_id": "8c1e2d8a-1564-4e95-8b14-ea14522fcf61", "connection_qualified_name": PROD });
    let path = "/api/service/workflows/preflight/user-publish-check";
    let (status, answer) = harness.ask("sandbox-service-account", Method::POST, path, &body).await;
    assert_eq!((status.as_u16(), &answer["passed"], &answer["failed_checks"]), (200, &json!(true), &json!(["UserEnabled"])));
}

#[tokio::test]
async fn a_page_is_short_or_null_while_the_request_is_as_ever() {
    let harness = Harness::start().await;
    let all = harness.get(ROLES).await.1;
    harness.sandbox.add_fault(Fault::new(Action::ShortPage));
    let short = harness.get(ROLES).await.1;
    assert_eq!((&short["totalRecord"], short["records"].as_array().map(Vec::len)), (&all["totalRecord"], Some(2)));
    harness.sandbox.add_fault(Fault::new(Action::NullHits).times(3));
    assert_eq!(harness.get(ROLES).await.1, json!({ "totalRecord": 0, "filterRecord": 0, "records": null }));
    let found = harness.post("/api/service/runs/indexsearch", &json!({})).await.1;
    assert_eq!((&found["hits"]["hits"], &found["hits"]["total"]["value"]), (&Value::Null, &json!(0)));
    let found = harness.post("/api/meta/search/indexsearch", &json!({ "dsl": {} })).await.1;
    assert_eq!((&found["entities"], &found["approximateCount"]), (&Value::Null, &json!(0)));
}

#[tokio::test]
async fn a_role_has_no_name_and_a_patch_changes_any_key() {
    let harness = Harness::start().await;
    harness.sandbox.add_fault(Fault::new(Action::NullName).times(2));
    assert_eq!(harness.get(ROLES).await.1["records"][0]["name"], Value::Null);
    assert_eq!(harness.get(WHOAMI).await.1["roles"][0]["name"], Value::Null);
    let patch = json!({ "userId": null, "username": { "a": 1 } });
    harness.sandbox.add_fault(Fault::new(Action::Patch { patch }));
    let patched = harness.get(WHOAMI).await.1;
    assert_eq!((patched.get("userId"), &patched["username"]), (None, &json!({ "a": 1 })));
}

#[tokio::test]
async fn a_401_or_a_302_stands_on_one_route_only() {
    let harness = Harness::start().await;
    let headers = vec![("location".to_owned(), "https://login.example/".to_owned())];
    let redirect = Fault::new(Action::Status { status: 302, headers, body: Value::Null }).on("whoami");
    harness.sandbox.add_fault(redirect);
    let refused = Action::Status { status: 401, headers: Vec::new(), body: Value::Null };
    harness.sandbox.add_fault(Fault::new(refused).on("apikeys").method("get").times(0));
    let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let ask = async |path: &str| {
        let request = client.get(format!("{}{path}", harness.sandbox.base_url())).bearer_auth("sandbox-api-token");
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!([ask(WHOAMI).await, ask(WHOAMI).await], [302, 200]);
    assert_eq!([ask("/api/service/apikeys").await, ask(ROLES).await, ask("/api/service/apikeys").await], [401, 200, 401]);
}

#[tokio::test]
async fn documents_may_be_behind_the_date_header_or_the_header_absent() {
    let harness = Harness::with(SandboxOptions { clock_skew: -12_000, ..SandboxOptions::default() }).await;
    let run = harness.started(CRAWLER).await;
    let created = harness.found(&run).await.expect("found")["metadata"]["creationTimestamp"].clone();
    assert_eq!(created, time::seconds(START - 12_000));
    assert_eq!(header(&answer(&harness, Method::GET, WHOAMI).await, DATE), Some(time::http_date(START)));
    harness.sandbox.add_fault(Fault::new(Action::NoDate));
    assert_eq!(header(&answer(&harness, Method::GET, WHOAMI).await, DATE), None);
}

#[tokio::test]
async fn a_search_answers_only_the_parts_of_a_document_that_it_asks_for() {
    let harness = Harness::start().await;
    let run = harness.started(CRAWLER).await;
    let source = json!(["metadata.name", "metadata.labels.workflows.argoproj.io/creator", "status.phase"]);
    let query = json!({ "size": 1, "_source": source, "query": { "term": { "_id": run } } });
    let (_, found) = harness.post("/api/service/runs/indexsearch", &query).await;
    let labels = json!({ "workflows.argoproj.io/creator": "b0000000-0000-4000-8000-000000000001" });
    let expected = json!({ "metadata": { "name": run, "labels": labels }, "status": { "phase": "Pending" } });
    assert_eq!(found["hits"]["hits"][0]["_source"], expected);
}

#[tokio::test]
async fn an_action_that_cannot_be_played_is_refused() {
    let harness = Harness::start().await;
    for action in [
        json!({ "kind": "huge", "bytes": 0 }),
        json!({ "kind": "deep", "depth": 2_000_000 }),
        json!({ "kind": "raw", "status": 700, "body": "" }),
        json!({ "kind": "raw", "body": "", "headers": [["a b", "c"]] }),
        json!({ "kind": "web_page", "status": 99 }),
    ] {
        let (status, answer) = harness.ask("none", Method::POST, "/sandbox/faults", &json!({ "action": action })).await;
        assert_eq!(status, 400, "{action}: {answer}");
    }
}

//! The sandbox over real HTTP, by a clock that the tests turn.

mod apps;
mod automation;
mod faulty;
mod granting;
mod hostile;
mod logins;
mod managing;
mod manual;
mod reading;
mod replay;
mod running;
mod vendor;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use super::*;

const START: i64 = 1_795_000_000_000;
const GRANT: &str = "csa-api-token-connection-admin-1684500411";
const CRAWLER: &str = "atlan-snowflake-1684500500";
const PROD: &str = "default/snowflake/1234567890";
const CI_USER: &str = "service-account-apikey-33333333-4444-5555-6666-777777777777";
const ALL_PHASES: Duration = Duration::from_millis(1_800);

/// A listening sandbox with its clock and a client.
struct Harness {
    sandbox: Sandbox,
    clock: Arc<AtomicI64>,
    client: Client,
}

impl Harness {
    async fn start() -> Self {
        Self::with(SandboxOptions::default()).await
    }

    async fn with(options: SandboxOptions) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let hand = clock.clone();
        let options = SandboxOptions { clock: Arc::new(move || hand.load(Ordering::SeqCst)), ..options };
        let sandbox = Sandbox::start(options).await.expect("a free port");
        // The client wants a provider even for plain HTTP; another test may have installed it before.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::builder().no_proxy().build().expect("a client");
        Self { sandbox, clock, client }
    }

    fn pass(&self, time: Duration) {
        self.clock.fetch_add(time::millis(time), Ordering::SeqCst);
    }

    fn request(&self, bearer: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.sandbox.base_url())).bearer_auth(bearer)
    }

    async fn ask(&self, bearer: &str, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let mut request = self.request(bearer, method, path);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.json().await.expect("JSON"))
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.ask("sandbox-api-token", Method::POST, path, body).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask("sandbox-api-token", Method::GET, path, &Value::Null).await
    }

    async fn submit(&self, workflow: &str) -> (StatusCode, Value) {
        self.post("/api/service/workflows/submit", &submission(workflow)).await
    }

    /// Submits and answers the run's name.
    async fn started(&self, workflow: &str) -> String {
        let (status, run) = self.submit(workflow).await;
        assert_eq!(status, 200, "{run}");
        run["metadata"]["name"].as_str().expect("a name").to_owned()
    }

    /// The run's document as a search sees it.
    async fn found(&self, run: &str) -> Option<Value> {
        let query = json!({ "size": 1, "query": { "bool": { "filter": [{ "term": { "_id": { "value": run } } }] } } });
        let (status, found) = self.post("/api/service/runs/indexsearch", &query).await;
        assert_eq!(status, 200, "{found}");
        found["hits"]["hits"].get(0).map(|hit| hit["_source"].clone())
    }

    async fn phase(&self, run: &str) -> Option<String> {
        self.found(run).await.map(|run| run["status"]["phase"].as_str().unwrap_or_default().to_owned())
    }

    fn kinds(&self) -> Vec<String> {
        let effects = serde_json::to_value(self.sandbox.effects()).expect("serializes");
        effects.as_array().into_iter().flatten().filter_map(|effect| effect["kind"].as_str().map(str::to_owned)).collect()
    }
}

fn submission(workflow: &str) -> Value {
    json!({ "namespace": "default", "resourceKind": "WorkflowTemplate", "resourceName": workflow })
}

/// An object of strings as a form.
fn form(fields: &Value) -> String {
    let mut url = reqwest::Url::parse("http://form").expect("a URL");
    let fields = fields.as_object().into_iter().flatten();
    url.query_pairs_mut().extend_pairs(fields.map(|(name, value)| (name, value.as_str().expect("a string"))));
    url.query().unwrap_or_default().to_owned()
}

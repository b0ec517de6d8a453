use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::activity::{ActivityInfo, SlotClass};
use crate::clock::{Clock, ManualClock};
use crate::tenant::scripted::{Recorded, Reply, Scripted, clock, drive, hits, tenants};
use crate::testing::TestHost;

const CONNECTION: &str = "default/snowflake/1234567890";
const TOKEN: &str = "92588c67-5ddf-4a45-8b5c-dd92f4b84e99";
const USER: &str = "service-account-apikey-3333";
const START: i64 = 1_767_225_600;

fn name(after: i64) -> String {
    format!("csa-api-token-connection-admin-{}", START + after)
}

/// A tenant with one connection and one token, which remembers what was really applied.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own for one test")]
struct World {
    clock: Arc<ManualClock>,
    admins: Vec<String>,
    /// Templates by name, with what they were made for.
    templates: Vec<(String, Value)>,
    runs: Vec<FakeRun>,
    /// What a search shows only so long after it happened.
    lag: Duration,
    /// What the next exchanges of a kind do; afterwards they are applied and answered.
    creations: VecDeque<Does>,
    submits: VecDeque<Does>,
    writes: VecDeque<Does>,
    /// The package's runs end so, and grant only if that is `Succeeded` and this says so.
    ends: &'static str,
    grants: bool,
    applied: Applied,
    /// Whether a creation stores the workflow and forgets to submit it.
    forgets: bool,
    /// How often the next creation arrives; the answer is the last one's.
    arrivals: usize,
    /// Takes the name of the next creation that is not applied.
    squatter: Option<(String, Value)>,
    on_write: Option<Box<dyn Fn() + Send>>,
    /// Whether somebody else makes the token an admin while the package's run goes on.
    helped: bool,
    /// How long a run takes.
    lasts: SignedDuration,
    /// Somebody who adds himself right after each write of ours.
    rival: bool,
    /// Breaks the exchange of this number, counted from 1.
    fault: Option<(usize, Does)>,
    exchanges: usize,
    /// What everything about workflows is answered with, if there is none.
    no_workflows: Option<u16>,
    /// Whose attempts ask, where it matters what they say of their effects.
    host: Option<Arc<TestHost>>,
    /// Each request that may change something, and how many effects the host knew to be in flight then.
    effects: Vec<(String, usize)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Applied {
    created: usize,
    submitted: usize,
    written: usize,
}

struct FakeRun {
    name: String,
    workflow: String,
    created: Timestamp,
    settled: bool,
}

#[derive(Debug, Clone)]
struct Does {
    applies: bool,
    reply: Option<Reply>,
}

fn does(applies: bool, reply: Reply) -> Does {
    Does { applies, reply: Some(reply) }
}

fn down() -> Reply {
    Reply::json(500, &json!({}))
}

/// What a firewall that inspects answers gives in place of the tenant's.
fn page(status: u16) -> Reply {
    Reply::text(status, "<html>blocked</html>")
}

fn unknown_fates() -> Vec<Reply> {
    let mut replies = vec![Reply::cut(), down(), Reply::json(503, &json!({})), Reply::text(403, "")];
    replies.extend([400, 401, 403, 404, 409, 413, 429].map(page));
    replies
}

impl World {
    fn new(clock: &Arc<ManualClock>) -> Self {
        Self {
            clock: clock.clone(),
            admins: vec!["jane".into()],
            templates: vec![(
                name(-900),
                json!({"metadata": {"name": name(-900),
                "annotations": {"package.argoproj.io/name": TOKEN_ADMIN_PACKAGE}}}),
            )],
            runs: Vec::new(),
            lag: Duration::from_secs(4),
            creations: VecDeque::new(),
            submits: VecDeque::new(),
            writes: VecDeque::new(),
            ends: "Succeeded",
            grants: true,
            forgets: false,
            arrivals: 1,
            squatter: None,
            on_write: None,
            helped: false,
            lasts: SignedDuration::from_secs(20),
            applied: Applied::default(),
            rival: false,
            fault: None,
            exchanges: 0,
            no_workflows: None,
            host: None,
            effects: Vec::new(),
        }
    }

    fn answer(&mut self, request: &Recorded) -> Option<Reply> {
        self.settle();
        self.exchanges += 1;
        if request.method == "POST" && !request.target.ends_with("/indexsearch") {
            let in_flight = self.host.as_ref().map_or(0, |host| host.effects_in_flight());
            self.effects.push((request.target.clone(), in_flight));
        }
        if let Some((number, does)) = self.fault.clone()
            && number == self.exchanges
        {
            if does.applies {
                self.regular(request)?;
            }
            return does.reply;
        }
        let now = DateTimePrinter::new().timestamp_to_rfc9110_string(&self.clock.now()).expect("a date");
        Some(self.regular(request)?.header("date", now))
    }

    fn regular(&mut self, request: &Recorded) -> Option<Reply> {
        let path = request.target.split('?').next().expect("a path");
        Some(match path {
            _ if path.starts_with("/api/service/workflows") && self.no_workflows.is_some() => {
                Reply::json(self.no_workflows.unwrap_or_default(), &json!({}))
            }
            "/api/service/whoami" => {
                Reply::ok(&json!({"userId": "u", "username": "service-account-x", "roles": [{"name": "$admin"}]}))
            }
            "/api/service/apikeys" => Reply::ok(&json!({"totalRecord": 1, "records":
                [{"id": TOKEN, "clientId": "apikey-3333", "attributes": {"clientId": "apikey-3333", "accessToken": "hush"}}]})),
            "/api/meta/entity/uniqueAttribute/type/Connection" => self.connection(&request.target),
            "/api/meta/entity/bulk/" => self.write(request),
            "/api/service/workflows/indexsearch" => self.search_workflows(&request.body["query"]["bool"]["filter"][0]),
            "/api/service/runs/indexsearch" => self.search_runs(&request.body["query"]["bool"]["filter"][0]),
            "/api/service/workflows" => (0..std::mem::replace(&mut self.arrivals, 1)).map(|_| self.create(&request.body)).last()?,
            "/api/service/workflows/submit" => self.submit(request.body["resourceName"].as_str()?),
            _ => return None,
        })
    }

    fn connection(&self, target: &str) -> Reply {
        if !target.contains("default%2Fsnowflake%2F1234567890&") {
            return Reply::json(404, &json!({"errorCode": "ATLAS-404-00-009", "errorMessage": "no such thing"}));
        }
        let attributes = json!({"qualifiedName": CONNECTION, "name": "prod", "adminUsers": self.admins});
        Reply::ok(&json!({"entity": {"guid": "c-1", "status": "ACTIVE", "attributes": attributes}, "referredEntities": {}}))
    }

    fn write(&mut self, request: &Recorded) -> Reply {
        let does = self.writes.pop_front().unwrap_or(Does { applies: true, reply: None });
        if let Some(on_write) = &self.on_write {
            on_write();
        }
        if does.applies {
            self.applied.written += 1;
            let users = request.body["entities"][0]["attributes"]["adminUsers"].as_array().expect("a list");
            self.admins = users.iter().map(|user| user.as_str().expect("a name").to_owned()).collect();
        }
        if self.rival {
            self.admins = vec!["jane".into(), "rival".into()];
        }
        does.reply.unwrap_or_else(|| Reply::ok(&json!({"guidAssignments": {}})))
    }

    fn create(&mut self, body: &Value) -> Reply {
        let named = body["metadata"]["name"].as_str().expect("a name").to_owned();
        let does = self.creations.pop_front().unwrap_or(Does { applies: true, reply: None });
        if self.templates.iter().any(|(name, _)| *name == named) {
            return does.reply.unwrap_or_else(|| Reply::json(409, &json!({"message": "already exists"})));
        }
        if does.applies {
            self.applied.created += 1;
            let mut template = body.clone();
            template["metadata"]["creationTimestamp"] = json!(self.second().to_string());
            template["metadata"]["labels"]["workflows.argoproj.io/creator"] = json!("u");
            self.templates.push((named.clone(), template));
            if !self.forgets {
                self.start(&named);
            }
        } else {
            self.templates.extend(self.squatter.take());
        }
        does.reply.unwrap_or_else(|| Reply::ok(body))
    }

    fn submit(&mut self, workflow: &str) -> Reply {
        let does = self.submits.pop_front().unwrap_or(Does { applies: true, reply: None });
        let shown = if does.applies { self.start(workflow) } else { Value::Null };
        does.reply.unwrap_or_else(|| Reply::ok(&shown))
    }

    fn start(&mut self, workflow: &str) -> Value {
        self.applied.submitted += 1;
        let name = format!("{workflow}-r{}", self.applied.submitted);
        let run = FakeRun { name, workflow: workflow.into(), created: self.second(), settled: false };
        let shown = self.show(&run);
        self.runs.push(run);
        shown
    }

    fn second(&self) -> Timestamp {
        Timestamp::from_second(self.clock.now().as_second()).expect("a time")
    }

    /// Ends the runs that are due, and does what the package does.
    fn settle(&mut self) {
        let now = self.clock.now();
        for run in self.runs.iter_mut().filter(|run| !run.settled && run.created + self.lasts <= now) {
            run.settled = true;
            if self.helped {
                self.admins.push(USER.into());
            }
            let template = self.templates.iter().find(|(name, _)| *name == run.workflow);
            let ours = template.is_some_and(|(_, template)| template.to_string().contains(TOKEN));
            if self.grants && self.ends == "Succeeded" && ours && !self.admins.iter().any(|admin| admin == USER) {
                self.admins.push(USER.into());
            }
        }
    }

    fn show(&self, run: &FakeRun) -> Value {
        let phase = if run.settled { self.ends } else { "Running" };
        json!({
            "metadata": {"name": run.name, "creationTimestamp": run.created.to_string(), "labels": {}},
            "spec": {"workflowTemplateRef": {"name": run.workflow}},
            "status": {"phase": phase, "message": if phase == "Failed" { json!("not permitted") } else { json!(null) }},
        })
    }

    fn is_indexed(&self, created: &Value) -> bool {
        let created: Option<Timestamp> = created.as_str().and_then(|created| created.parse().ok());
        created.is_none_or(|created| created + SignedDuration::try_from(self.lag).expect("short") <= self.clock.now())
    }

    fn search_workflows(&self, filter: &Value) -> Reply {
        let query = &filter["nested"]["query"];
        let by_name = query["bool"]["must"][0]["term"]["metadata.name.keyword"]["value"].as_str();
        let found: Vec<_> = self
            .templates
            .iter()
            .filter(|(name, template)| {
                by_name.is_none_or(|wanted| wanted == name) && self.is_indexed(&template["metadata"]["creationTimestamp"])
            })
            .map(|(_, template)| template.clone())
            .collect();
        Reply::ok(&hits(&found))
    }

    fn search_runs(&self, filter: &Value) -> Reply {
        let by_id = filter["term"]["_id"]["value"].as_str();
        let by_workflow = filter["nested"]["query"]["term"]["spec.workflowTemplateRef.name.keyword"]["value"].as_str();
        let shown = self.runs.iter().rev().filter(|run| {
            by_id.is_none_or(|id| run.name == id)
                && by_workflow.is_none_or(|workflow| run.workflow == workflow)
                && self.is_indexed(&json!(run.created.to_string()))
        });
        Reply::ok(&hits(&shown.map(|run| self.show(run)).collect::<Vec<_>>()))
    }
}

struct Case {
    clock: Arc<ManualClock>,
    host: Arc<TestHost>,
    server: Scripted,
    world: Arc<Mutex<World>>,
    tenants: Arc<Tenants>,
}

impl Case {
    async fn new(set_up: impl FnOnce(&mut World)) -> Self {
        let clock = clock();
        let mut world = World::new(&clock);
        set_up(&mut world);
        let world = Arc::new(Mutex::new(world));
        let answering = world.clone();
        let server = Scripted::answering(move |request| answering.lock().expect("no panic").answer(request)).await;
        let tenants = server.tenants(&clock);
        Self { host: Arc::new(TestHost::new(clock.clone())), server, world, tenants, clock }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    async fn attempt(&self, method: &str) -> Result<Verdict, ActivityError> {
        let input = json!({"connection_qualified_name": CONNECTION, "api_token_guid": TOKEN, "method": method});
        self.attempt_at(input).await
    }

    async fn attempt_at(&self, input: Value) -> Result<Verdict, ActivityError> {
        drive(&self.clock, self.host.attempt(TokenAdminGrant::new(self.tenants.clone()), input)).await
    }

    async fn failure(&self, method: &str) -> Failure {
        match self.attempt(method).await {
            Err(ActivityError::Failed(failure)) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    /// Attempts until there is a verdict, as a host does.
    async fn to_the_verdict(&self, method: &str) -> Verdict {
        for _ in 0..10 {
            match self.attempt(method).await {
                Ok(verdict) => return verdict,
                Err(ActivityError::Failed(failure)) if failure.retryable => {
                    self.clock.advance(failure.retry_after.unwrap_or_default().max(Duration::from_secs(1))).await;
                }
                Err(ActivityError::Interrupted) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        panic!("no verdict after ten attempts");
    }

    fn applied(&self) -> Applied {
        self.world().applied
    }

    /// Requests that may change something.
    fn effects_sent(&self) -> usize {
        let changes = |target: &str| ["/bulk/", "/submit", "/workflows?"].iter().any(|part| target.contains(part));
        self.server.requests().iter().filter(|request| request.method == "POST" && changes(&request.target)).count()
    }
}

const BY_PACKAGE: Applied = Applied { created: 1, submitted: 1, written: 0 };
const DIRECTLY: Applied = Applied { created: 0, submitted: 0, written: 1 };

fn fact<'a>(verdict: &'a Verdict, name: &str) -> &'a Value {
    &verdict.facts()[name]
}

#[tokio::test]
async fn the_package_is_created_followed_and_its_effect_read_back() {
    let case = Case::new(|_| {}).await;
    let verdict = case.attempt("package").await.expect("a verdict");
    assert!(verdict.is_passed());
    assert_eq!(verdict.message(), format!("{USER} is an admin of {CONNECTION}"));
    for (name, value) in [
        ("connection_qualified_name", json!(CONNECTION)),
        ("connection_guid", json!("c-1")),
        ("token_user", json!(USER)),
        ("method", json!("package")),
        ("workflow", json!(name(0))),
        ("run", json!(format!("{}-r1", name(0)))),
        ("phase", json!("Succeeded")),
        ("admin_users_count", json!(2)),
        ("already_admin", json!(false)),
    ] {
        assert_eq!(fact(&verdict, name), &value, "{name}");
    }
    assert_eq!((case.applied(), case.effects_sent()), (BY_PACKAGE, 1));
    let said = format!("{:?} {:?} {verdict:?}", case.host.saves(), case.host.progress());
    assert!(!said.contains("hush") && !said.contains("test-api-key"), "a secret is kept: {said}");
}

#[tokio::test]
async fn a_token_is_found_by_its_name_if_that_is_of_one_token_alone() {
    let token = |id: &str, name: &str| json!({"id": id, "clientId": format!("apikey-{id}"), "displayName": name, "attributes": {"clientId": format!("apikey-{id}")}});
    for (listed, code) in [
        (vec![token("t-1", "ci")], None),
        (vec![token("t-1", "ci"), token("t-2", "ci")], Some("token.ambiguous")),
        (vec![token("t-1", "ci 2")], Some("token.not_found")),
    ] {
        let clock = clock();
        let user = "service-account-apikey-t-1";
        let server = Scripted::answering(move |request| {
            Some(if request.target.contains("/apikeys") {
                Reply::ok(&json!({"totalRecord": listed.len(), "records": listed}))
            } else {
                Reply::ok(&json!({"entity": {"guid": "c", "status": "ACTIVE",
                    "attributes": {"qualifiedName": CONNECTION, "name": "prod", "adminUsers": [user]}}}))
            })
        })
        .await;
        let host = TestHost::new(clock.clone());
        let input = json!({"connection_qualified_name": CONNECTION, "api_token_name": "ci"});
        let ended = drive(&clock, host.attempt(TokenAdminGrant::new(server.tenants(&clock)), input)).await;
        match (ended, code) {
            (Ok(verdict), None) => assert_eq!(fact(&verdict, "token_user"), user),
            (Err(ActivityError::Failed(failure)), Some(code)) => {
                assert_eq!((failure.code.as_ref(), failure.suggested_action.as_deref()), (code, Some("iolaus tokens find ci")));
            }
            (ended, code) => panic!("{ended:?} instead of {code:?}"),
        }
    }
    let info = ActivityInfo::of::<TokenAdminGrant>();
    let both = json!({"connection_qualified_name": CONNECTION, "api_token_guid": TOKEN, "api_token_name": "ci"});
    assert_eq!(info.prepare(both).expect_err("it is refused").field, "api_token_name");
    let neither = json!({"connection_qualified_name": CONNECTION});
    assert_eq!(info.prepare(neither).expect_err("it is refused").field, "api_token_guid");
}

#[tokio::test]
async fn a_direct_grant_writes_the_list_that_it_read_and_the_token() {
    let case = Case::new(|world| world.admins = vec!["jane".into(), "joe".into()]).await;
    let verdict = case.attempt("direct").await.expect("a verdict");
    assert!(verdict.is_passed());
    assert_eq!((fact(&verdict, "method"), fact(&verdict, "admin_users_count")), (&json!("direct"), &json!(3)));
    assert!(!verdict.facts().contains_key("run"));
    assert_eq!((case.applied(), case.world().admins.clone()), (DIRECTLY, vec!["jane".into(), "joe".into(), USER.to_owned()]));
    let requests = case.server.requests();
    let order: Vec<_> = requests.iter().map(|request| (request.method.as_str(), request.target.contains("/bulk/"))).collect();
    let (read, write) = (("GET", false), ("POST", true));
    assert_eq!(order[order.len() - 4..], [read, write, read, read], "read, write, read back, look once more");
}

#[tokio::test]
async fn auto_takes_the_package_only_where_a_workflow_of_it_shows_that_it_is_enabled() {
    let case = Case::new(|_| {}).await;
    assert_eq!(fact(&case.attempt("auto").await.expect("a verdict"), "method"), "package");
    let case = Case::new(|world| world.templates.clear()).await;
    assert_eq!(fact(&case.attempt("auto").await.expect("a verdict"), "method"), "direct");
    assert_eq!(case.applied(), DIRECTLY);
}

#[tokio::test]
async fn auto_grants_directly_at_a_tenant_that_turns_out_to_have_no_workflows() {
    for status in [404, 405, 501] {
        let case = Case::new(|world| world.no_workflows = Some(status)).await;
        let verdict = case.attempt("auto").await.expect("a verdict");
        assert_eq!((verdict.is_passed(), fact(&verdict, "method"), case.applied()), (true, &json!("direct"), DIRECTLY), "{status}");
    }
}

#[tokio::test]
async fn auto_grants_directly_where_only_old_workflows_of_the_package_are_left() {
    let case = Case::new(|world| {
        let gone = json!({"message": "clusterworkflowtemplates.argoproj.io \"csa-api-token-connection-admin\" not found"});
        world.creations.push_back(does(false, Reply::json(404, &gone)));
    })
    .await;
    let verdict = case.attempt("auto").await.expect("a verdict");
    assert_eq!((verdict.is_passed(), fact(&verdict, "method"), case.applied()), (true, &json!("direct"), DIRECTLY));
}

#[tokio::test]
async fn a_native_tenant_has_no_package() {
    let case = Case::new(|_| {}).await;
    let native = tenants(crate::tenant::TenantSettings { generation: Generation::Native, ..case.server.settings() }, &case.clock);
    let case = Case { tenants: native, ..case };
    let failure = case.failure("package").await;
    assert_eq!((failure.code.as_ref(), case.effects_sent()), ("generation.unsupported", 0));
    assert_eq!(fact(&case.attempt("auto").await.expect("a verdict"), "method"), "direct");
}

#[tokio::test]
async fn who_is_an_admin_already_is_left_alone() {
    for method in ["auto", "package", "direct"] {
        let case = Case::new(|world| world.admins.push(USER.into())).await;
        let verdict = case.attempt(method).await.expect("a verdict");
        assert!(verdict.is_passed() && verdict.message().ends_with("already; nothing was sent"), "{}", verdict.message());
        assert_eq!((fact(&verdict, "already_admin"), fact(&verdict, "method")), (&json!(true), &json!(null)));
        assert_eq!((case.effects_sent(), case.host.saves().len()), (0, 0));
    }
}

#[tokio::test]
async fn an_unknown_token_or_connection_is_not_found_and_nothing_is_sent() {
    let case = Case::new(|_| {}).await;
    for (connection, token, code) in
        [(CONNECTION, "another", "token.not_found"), ("default/snowflake/1", TOKEN, "connection.not_found")]
    {
        let ended = case.attempt_at(json!({"connection_qualified_name": connection, "api_token_guid": token})).await;
        let Err(ActivityError::Failed(failure)) = ended else { panic!("no failure: {ended:?}") };
        assert_eq!((failure.code.as_ref(), failure.category, failure.retryable), (code, Category::NotFound, false));
        assert!(failure.suggested_action.is_some());
    }
    assert_eq!(case.effects_sent(), 0);
}

#[tokio::test]
async fn a_denial_names_who_asked_and_what_would_help() {
    let denied = || does(false, Reply::json(403, &json!({"errorCode": "ATLAS-403-00-001", "errorMessage": "not authorized"})));
    for method in ["direct", "package"] {
        let case = Case::new(|world| {
            world.writes.push_back(denied());
            world.creations.push_back(denied());
        })
        .await;
        let failure = case.failure(method).await;
        assert_eq!(
            (failure.code.as_ref(), failure.category, failure.retryable),
            ("grant.not_permitted", Category::Permission, false)
        );
        assert!(failure.message.contains("service-account-x needs"), "{failure}");
        assert!(failure.suggested_action.as_deref().is_some_and(|action| action.contains(CONNECTION)));
        assert_eq!(failure.source.tenant_code.as_deref(), Some("ATLAS-403-00-001"));
        assert_eq!((&failure.facts["token_user"], &failure.facts["method"]), (&json!(USER), &json!(method)));
    }
}

#[tokio::test]
async fn a_run_that_succeeds_without_granting_is_a_no_that_says_so() {
    let case = Case::new(|world| world.grants = false).await;
    let verdict = case.attempt("package").await.expect("a verdict");
    assert!(!verdict.is_passed());
    assert!(verdict.message().contains("succeeded, but") && verdict.message().contains(USER), "{}", verdict.message());
    let checks: Vec<_> = verdict.checks().iter().map(|check| (check.name.as_str(), check.passed)).collect();
    assert_eq!(checks, [(IS_ADMIN, false), ("PackageRunSucceeded", true)]);
    assert_eq!((fact(&verdict, "phase"), fact(&verdict, "admin_users_count")), (&json!("Succeeded"), &json!(1)));
}

#[tokio::test]
async fn a_run_that_fails_is_a_no_with_the_tenants_words_unless_the_token_is_an_admin_all_the_same() {
    let case = Case::new(|world| world.ends = "Failed").await;
    let verdict = case.attempt("package").await.expect("a verdict");
    assert!(!verdict.is_passed() && verdict.message().contains("ended as Failed: not permitted"), "{}", verdict.message());
    let case = Case::new(|world| (world.ends, world.helped) = ("Failed", true)).await;
    let verdict = case.attempt("package").await.expect("a verdict");
    assert!(verdict.is_passed() && verdict.message().contains("although run"), "{}", verdict.message());
}

#[tokio::test]
async fn a_token_that_is_absent_at_read_back_is_written_three_times_and_then_the_tenants_no() {
    let case = Case::new(|world| world.rival = true).await;
    let verdict = case.attempt("direct").await.expect("a verdict");
    assert!(!verdict.is_passed() && verdict.message().contains("3 times"), "{}", verdict.message());
    assert_eq!((case.applied().written, fact(&verdict, "admin_users_count")), (3, &json!(2)));
    let bodies: Vec<_> = case.server.requests().into_iter().filter(|request| request.target.contains("/bulk/")).collect();
    let list = |n: usize| bodies[n].body["entities"][0]["attributes"]["adminUsers"].clone();
    assert_eq!(list(0), json!(["jane", USER]));
    assert_eq!(list(2), json!(["jane", "rival", USER]), "again from the read");
}

#[tokio::test]
async fn a_write_of_unknown_fate_is_settled_by_the_read_back() {
    for reply in unknown_fates().into_iter().chain([Reply::json(408, &json!({})), Reply::cut_body()]) {
        let case = Case::new(|world| world.writes.push_back(does(true, reply.clone()))).await;
        assert!(case.attempt("direct").await.expect("a verdict").is_passed(), "it was applied");
        assert_eq!(case.applied(), DIRECTLY);
        let case = Case::new(|world| world.writes.push_back(does(false, reply.clone()))).await;
        let failure = case.failure("direct").await;
        assert!(failure.retryable && case.applied().written == 0, "{failure}");
        assert!(case.to_the_verdict("direct").await.is_passed());
        assert_eq!(case.applied(), DIRECTLY);
    }
}

#[tokio::test]
async fn a_write_that_is_asked_to_wait_is_proven_not_applied_and_waits() {
    let busy = Reply::json(429, &json!({})).header("retry-after", "70");
    let case = Case::new(|world| world.writes.push_back(does(false, busy))).await;
    let failure = case.failure("direct").await;
    assert_eq!((failure.code.as_ref(), failure.retry_after), ("tenant.rate_limited", Some(Duration::from_secs(70))));
    assert_eq!(case.host.saves().last().expect("saved")["way"]["sent"], json!(null));
}

#[tokio::test]
async fn dying_at_any_save_never_makes_a_second_effect() {
    for (method, saves, expected) in [("package", 3, BY_PACKAGE), ("direct", 1, DIRECTLY)] {
        for save in 1..=saves {
            let case = Case::new(|_| {}).await;
            case.host.die_at_save(save);
            assert_eq!(case.attempt(method).await, Err(ActivityError::Interrupted), "{method} {save}");
            assert!(case.to_the_verdict(method).await.is_passed(), "{method} {save}");
            assert_eq!(case.applied(), expected, "{method} {save}");
        }
        let case = Case::new(|_| {}).await;
        case.attempt(method).await.expect("a verdict");
        assert_eq!(case.host.saves().len(), saves, "{method}: these are all");
    }
}

#[tokio::test]
async fn breaking_any_exchange_and_dying_at_any_save_makes_exactly_one_effect() {
    let faults = [
        does(false, Reply::cut()),
        does(true, Reply::cut()),
        does(false, down()),
        does(true, down()),
        does(true, Reply::cut_body()),
        does(true, page(403)),
    ];
    for (method, expected) in [("package", BY_PACKAGE), ("direct", DIRECTLY)] {
        for (kind, fault) in faults.iter().enumerate() {
            for death in 0..=if kind < 2 { 3 } else { 0 } {
                for number in 1.. {
                    let case = Case::new(|world| {
                        world.fault = Some((number, fault.clone()));
                        (world.lag, world.lasts) = (Duration::from_secs(2), SignedDuration::from_secs(4));
                    })
                    .await;
                    if death > 0 {
                        case.host.die_at_save(death);
                    }
                    let verdict = case.to_the_verdict(method).await;
                    let at = format!("{method}, fault {kind} at exchange {number}, death at save {death}");
                    assert!(verdict.is_passed(), "{at}: {verdict:?}");
                    assert_eq!(case.applied(), expected, "{at}");
                    if case.world().exchanges < number {
                        break;
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_creation_of_unknown_fate_is_searched_by_its_name_and_its_run_adopted() {
    for reply in unknown_fates().into_iter().chain([Reply::ok(&json!({})), Reply::text(200, "<html>")]) {
        let case = Case::new(|world| world.creations.push_back(does(true, reply.clone()))).await;
        assert!(case.attempt("package").await.expect("a verdict").is_passed());
        assert_eq!((case.applied(), case.effects_sent()), (BY_PACKAGE, 1));
    }
}

#[tokio::test]
async fn a_creation_that_left_no_trace_is_sent_again_under_the_same_name_and_no_sooner_than_the_window() {
    for reply in unknown_fates() {
        let case = Case::new(|world| world.creations.push_back(does(false, reply.clone()))).await;
        let verdict = case.attempt("package").await.expect("a verdict");
        assert_eq!((fact(&verdict, "workflow"), case.applied()), (&json!(name(0)), BY_PACKAGE), "{reply:?}");
        let run = &case.world().runs[0];
        assert!(run.created.as_second() >= START + 60, "{reply:?}: {}", run.created);
    }
}

#[tokio::test]
async fn a_creation_that_is_found_late_is_not_made_twice() {
    // Searches show it only after the window: the second creation meets it.
    let case = Case::new(|world| {
        world.creations.push_back(does(true, down()));
        world.lag = Duration::from_secs(75);
    })
    .await;
    let verdict = case.to_the_verdict("package").await;
    assert!(verdict.is_passed());
    assert_eq!(case.applied(), BY_PACKAGE);
}

/// A proxy sends the creation twice, and the answer is the one to the second.
#[tokio::test]
async fn a_creation_that_arrives_twice_is_one_workflow_and_one_run() {
    for lag in [0, 4, 30] {
        for death in 0..=5 {
            let case = Case::new(|world| {
                world.arrivals = 2;
                world.lag = Duration::from_secs(lag);
            })
            .await;
            if death > 0 {
                case.host.die_at_save(death);
            }
            let verdict = case.to_the_verdict("package").await;
            let what = format!("lag {lag}, death at {death}: {verdict:?}");
            assert!(verdict.is_passed(), "{what}");
            assert_eq!((fact(&verdict, "workflow"), case.applied()), (&json!(name(0)), BY_PACKAGE), "{what}");
        }
    }
}

/// A workflow under the name that is refused, made for the same connection and token by this user, so long before the creation.
fn namesake(creator: &str, ago: i64) -> (String, Value) {
    let mut workflow = crate::tenant::token_admin_workflow(&name(0), CONNECTION, TOKEN);
    workflow["metadata"]["creationTimestamp"] = json!(Timestamp::from_second(START - ago).expect("a time").to_string());
    workflow["metadata"]["labels"]["workflows.argoproj.io/creator"] = json!(creator);
    (name(0), workflow)
}

#[tokio::test]
async fn a_namesake_for_the_same_grant_is_ours_only_if_we_created_it_since_the_intent() {
    for (creator, ago, ours) in [("u", 0, true), ("service-account-x", 0, true), ("u-jane", 0, false), ("u", 2, false)] {
        let case = Case::new(|world| {
            world.lag = Duration::from_secs(4);
            world.squatter = Some(namesake(creator, ago));
            world.creations.push_back(does(false, Reply::json(409, &json!({"message": "already exists"}))));
        })
        .await;
        let verdict = case.to_the_verdict("package").await;
        assert!(verdict.is_passed(), "{creator} {ago}: {verdict:?}");
        assert_eq!(fact(&verdict, "workflow") == &json!(name(0)), ours, "{creator} {ago}: {verdict:?}");
        assert_eq!(case.applied().submitted, 1, "{creator} {ago}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_namesake_that_does_not_show_what_it_was_made_for_is_run_only_if_we_created_it() {
    for creator in ["u", ""] {
        let case = Case::new(|world| {
            let (name, mut workflow) = namesake(creator, 0);
            workflow["spec"] = json!({});
            world.squatter = Some((name, workflow));
            world.creations.push_back(does(false, Reply::json(409, &json!({"message": "already exists"}))));
        })
        .await;
        if creator.is_empty() {
            let failure = case.failure("package").await;
            assert_eq!((failure.code.as_ref(), failure.retryable), ("grant.ambiguous", false), "{failure}");
            assert_eq!((case.applied().created, case.applied().submitted), (0, 0));
        } else {
            case.attempt("package").await.expect("a verdict");
            assert_eq!((case.applied().created, case.applied().submitted), (0, 1), "one run of the workflow that is there");
        }
    }
}

#[tokio::test]
async fn three_creations_without_a_trace_are_ambiguous_and_may_simply_be_asked_for_again() {
    let case = Case::new(|world| world.creations = vec![does(false, down()); 3].into()).await;
    let failure = case.failure("package").await;
    assert_eq!((failure.code.as_ref(), failure.retryable, case.effects_sent()), ("grant.ambiguous", false, 3));
    let again =
        format!("iolaus execute token_admin_grant connection_qualified_name={CONNECTION} api_token_guid={TOKEN} method=package");
    assert_eq!(failure.suggested_action, Some(again));
}

#[tokio::test]
async fn a_workflow_that_was_created_but_not_submitted_is_submitted_under_the_same_name() {
    let case = Case::new(|world| world.forgets = true).await;
    assert!(case.attempt("package").await.expect("a verdict").is_passed());
    assert_eq!((case.applied(), case.effects_sent(), case.server.count("POST", "/submit")), (BY_PACKAGE, 2, 1));
}

#[tokio::test]
async fn a_name_that_is_taken_makes_way_for_the_next_free_second() {
    let theirs = |after| {
        let workflow = crate::tenant::token_admin_workflow(&name(after), "default/other/1", "another");
        (name(after), workflow)
    };
    // One that the index shows, and one that the refusal shows first, and the index some seconds later or never.
    for (created, waited) in [(START + 1, 5), (START + 9_999_999, 60)] {
        let case = Case::new(|world| {
            let mut hidden = theirs(1);
            hidden.1["metadata"]["creationTimestamp"] = json!(Timestamp::from_second(created).expect("a time").to_string());
            world.templates.extend([theirs(0), hidden]);
        })
        .await;
        let verdict = case.attempt("package").await.expect("a verdict");
        assert_eq!((fact(&verdict, "workflow"), case.applied()), (&json!(name(waited)), BY_PACKAGE));
        assert_eq!(case.effects_sent(), 2);
    }
}

#[tokio::test]
async fn a_name_that_somebody_took_before_the_lost_creation_is_proven_theirs() {
    let case = Case::new(|world| {
        world.creations.push_back(does(false, Reply::cut()));
        world.squatter = Some((name(0), crate::tenant::token_admin_workflow(&name(0), "default/other/1", "another")));
    })
    .await;
    let verdict = case.attempt("package").await.expect("a verdict");
    assert!(verdict.is_passed() && *fact(&verdict, "workflow") != name(0), "{verdict:?}");
    assert_eq!(case.applied(), BY_PACKAGE);
}

#[tokio::test]
async fn a_tenant_without_the_package_says_how_else_it_can_be_granted() {
    let absent =
        Reply::json(404, &json!({"message": "clusterworkflowtemplates.argoproj.io \"csa-api-token-connection-admin\" not found"}));
    let case = Case::new(|world| world.creations.push_back(does(false, absent))).await;
    let failure = case.failure("package").await;
    assert_eq!((failure.code.as_ref(), failure.retryable), ("grant.package_absent", false));
    assert!(failure.suggested_action.is_some_and(|action| action.ends_with("method=direct")));
}

#[tokio::test]
async fn jobs_of_one_process_do_not_overwrite_each_other() {
    let clock = clock();
    let admins = Arc::new(Mutex::new(vec!["jane".to_owned()]));
    let shown = admins.clone();
    let server = Scripted::answering(move |request| {
        let mut admins = shown.lock().expect("no panic");
        if request.target.contains("/apikeys") {
            let number = request.target.split("token-").nth(1)?.split('%').next()?;
            let id = format!("token-{number}");
            return Some(Reply::ok(&json!({"records": [{"id": id, "clientId": format!("apikey-{number}")}]})));
        }
        if request.target.contains("/bulk/") {
            *admins = serde_json::from_value(request.body["entities"][0]["attributes"]["adminUsers"].clone()).ok()?;
        }
        let attributes = json!({"qualifiedName": CONNECTION, "name": "prod", "adminUsers": *admins});
        Some(Reply::ok(&json!({"entity": {"guid": "c-1", "attributes": attributes}})))
    })
    .await;
    let tenants = server.tenants(&clock);
    let jobs: Vec<_> = (0..20)
        .map(|number| {
            let (clock, tenants) = (clock.clone(), tenants.clone());
            tokio::spawn(async move {
                let input = json!({"connection_qualified_name": CONNECTION, "api_token_guid": format!("token-{number}"), "method": "direct"});
                TestHost::new(clock).attempt(TokenAdminGrant::new(tenants), input).await
            })
        })
        .collect();
    for job in jobs {
        assert!(drive(&clock, job).await.expect("no panic").expect("a verdict").is_passed());
    }
    assert_eq!((admins.lock().expect("no panic").len(), server.count("POST", "overwriteBusinessAttributes=false")), (21, 20));
}

#[tokio::test]
async fn a_cancelled_grant_says_what_it_leaves_behind() {
    let case = Case::new(|_| {}).await;
    case.host.stop(Some(Stop::Cancelled { reason: Some("changed my mind".into()) }));
    let ended = case.attempt("direct").await;
    assert!(matches!(&ended, Err(ActivityError::Cancelled { message: Some(message), .. }) if message == "changed my mind"));
    assert_eq!(case.effects_sent(), 0);

    let case = Case::new(|_| {}).await;
    let host = case.host.clone();
    case.world().on_write = Some(Box::new(move || host.stop(Some(Stop::Cancelled { reason: None }))));
    let ended = case.attempt("direct").await;
    let Err(ActivityError::Cancelled { message: Some(message), facts }) = ended else { panic!("not cancelled: {ended:?}") };
    assert!(message.contains("was not read back") && facts["token_user"] == USER, "{message}");
}

#[test]
fn a_grant_that_is_cancelled_while_no_worker_runs_it_says_what_may_have_happened() {
    let info = ActivityInfo::of::<TokenAdminGrant>();
    let input = || json!({"connection_qualified_name": CONNECTION, "api_token_guid": TOKEN});
    assert_eq!(info.on_cancel("default", input(), None), CancelPlan::default(), "nothing was sent");
    let checkpoint = json!({"begun": "2026-01-01T00:00:00Z", "way": {"method": "direct", "sent": "r-1", "without_effect": 0}});
    let CancelPlan::Close { message: Some(message), facts } = info.on_cancel("default", input(), Some(&checkpoint)) else {
        panic!("it says nothing")
    };
    assert!(message.contains("may have become an admin") && message.contains(CONNECTION), "{message}");
    assert_eq!(facts["connection_qualified_name"], CONNECTION);
}

#[tokio::test]
async fn the_second_look_comes_as_late_as_the_setting_says_and_not_at_all_if_that_is_nothing() {
    for (recheck, reads) in [(0, 3), (60, 4)] {
        let case = Case::new(|_| {}).await;
        let settings = crate::tenant::TenantSettings { grant_recheck: Duration::from_secs(recheck), ..case.server.settings() };
        let case = Case { tenants: tenants(settings, &case.clock), ..case };
        assert!(case.attempt("direct").await.expect("a verdict").is_passed());
        let looked = case.server.requests().iter().filter(|request| request.target.contains("/type/Connection")).count();
        assert_eq!(looked, reads, "{recheck}");
        assert!(case.clock.monotonic() >= Duration::from_secs(recheck) / 2, "{recheck}");
        assert!(case.clock.monotonic() < Duration::from_secs(recheck + 2), "{recheck}");
    }
}

/// A host drops an attempt that should stop unless it knows of an effect in flight, and then nothing says what became of the effect.
#[tokio::test]
async fn the_host_knows_of_the_write_the_creation_and_the_submission_while_their_answers_are_awaited() {
    for (method, sent) in [("direct", 1), ("package", 2)] {
        // The package's workflow is created without a run, so that it is submitted too.
        let case = Case::new(|world| world.forgets = true).await;
        case.world().host = Some(case.host.clone());
        assert!(case.attempt(method).await.expect("a verdict").is_passed());
        let effects = case.world().effects.clone();
        assert_eq!(effects.iter().map(|(_, in_flight)| *in_flight).collect::<Vec<_>>(), vec![1; sent], "{effects:?}");
        assert_eq!(case.host.effects_in_flight(), 0);
    }
}

#[test]
fn input_is_read_strictly_and_the_options_are_those_of_a_grant() {
    let info = ActivityInfo::of::<TokenAdminGrant>();
    let input = |connection: &str, token: &str| json!({"connection_qualified_name": connection, "api_token_guid": token});
    let prepared = info.prepare(input(CONNECTION, TOKEN)).expect("it is accepted");
    assert_eq!(prepared.input["method"], "auto");
    assert_eq!(prepared.options.slot_class, SlotClass::Work);
    let timeouts = &prepared.options.timeouts;
    assert_eq!((timeouts.start_to_close.as_secs(), timeouts.schedule_to_close.map(|all| all.as_secs())), (600, Some(21_600)));
    assert_eq!(prepared.options.retry.maximum_attempts, 0);
    for (connection, token, field) in [
        ("", TOKEN, "connection_qualified_name"),
        ("prod", TOKEN, "connection_qualified_name"),
        ("default//1", TOKEN, "connection_qualified_name"),
        (" default/snowflake/1", TOKEN, "connection_qualified_name"),
        ("default/snow\nflake/1", TOKEN, "connection_qualified_name"),
        (CONNECTION, "", "api_token_guid"),
        (CONNECTION, "a\"b", "api_token_guid"),
    ] {
        assert_eq!(info.prepare(input(connection, token)).expect_err("it is refused").field, field);
    }
    assert!(info.prepare(input("default/snow flake/1", TOKEN)).is_ok(), "a tenant may name a connection so");
    let mut odd = input(CONNECTION, TOKEN);
    odd["method"] = json!("force");
    assert_eq!(info.prepare(odd).expect_err("it is refused").field, "method");
}

/// The verdict of a direct grant at a tenant that shows the token among the administrators where this says so. It is asked at each
/// exchange about the connection, and told whether that is a write.
async fn granted_where(clock: &Arc<ManualClock>, is_admin: impl FnMut(bool) -> bool + Send + 'static) -> Verdict {
    let is_admin = Mutex::new(is_admin);
    let server = Scripted::answering(move |request| {
        if request.target.contains("/apikeys") {
            return Some(Reply::ok(&json!({"records": [{"id": "token-1", "clientId": "apikey-1"}]})));
        }
        let is_admin = (is_admin.lock().expect("no panic"))(request.target.contains("/bulk/"));
        let admins: &[&str] = if is_admin { &["jane", "service-account-apikey-1"] } else { &["jane"] };
        let attributes = json!({"qualifiedName": CONNECTION, "name": "prod", "adminUsers": admins});
        Some(Reply::ok(&json!({"entity": {"guid": "c-1", "attributes": attributes}})))
    })
    .await;
    let input = json!({"connection_qualified_name": CONNECTION, "api_token_guid": "token-1", "method": "direct"});
    let grant = TokenAdminGrant::new(server.tenants(clock));
    drive(clock, TestHost::new(clock.clone()).attempt(grant, input)).await.expect("a verdict")
}

#[tokio::test]
async fn a_connection_that_is_read_from_a_cache_for_a_moment_is_no_refusal() {
    let clock = clock();
    let (mut written, times) = (None, clock.clone());
    let is_admin = move |writes: bool| {
        let now = times.monotonic();
        if writes {
            written.get_or_insert(now);
        }
        written.is_some_and(|at| now.saturating_sub(at) >= Duration::from_secs(5))
    };
    let verdict = granted_where(&clock, is_admin).await;
    assert!(verdict.is_passed(), "{}", verdict.message());
}

#[tokio::test]
async fn a_token_that_another_writers_list_brought_back_is_looked_at_once_more_too() {
    // Writes that were taken, and reads since the first of them.
    let seen = Arc::new(Mutex::new((0, 0)));
    let counts = seen.clone();
    let is_admin = move |writes: bool| {
        let mut counts = counts.lock().expect("no panic");
        if writes {
            counts.0 += 1;
        } else if counts.0 == 1 {
            counts.1 += 1;
        }
        // Lost at once, back by a list of another writer that still had it, and lost again.
        counts.0 > 1 || counts.0 == 1 && counts.1 == 2
    };
    assert!(granted_where(&clock(), is_admin).await.is_passed());
    assert_eq!(*seen.lock().expect("no panic"), (2, 4), "it was seen to be gone, and granted again");
}

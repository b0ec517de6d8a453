mod already_active;
mod automation;
mod evidence;
mod foreign;
mod interleavings;
mod native;
mod other_jobs;
mod tenants_clock;

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, ToSpan};

use super::*;
use crate::activity::{ActivityInfo, SlotClass};
use crate::clock::{Clock, ManualClock};
use crate::context::Stop;
use crate::tenant::scripted::{Recorded, Reply, Scripted, clock, drive, hits, tenants, until};
use crate::tenant::{Generation, TenantSettings};
use crate::testing::TestHost;

const W: &str = "atlan-snowflake-1684500411";
const A: &str = "bq-prod-3f9ab2c1";
const ROOT: &str = "default/apps/automation_engine/workflows";
const BOTH: [Kind; 2] = [Kind::Workflow, Kind::App];

/// A tenant of either generation, with one workflow of each package or one app, which remembers what was really applied.
struct World {
    kind: Kind,
    clock: Arc<ManualClock>,
    skew: SignedDuration,
    lag: Duration,
    /// How long a run takes.
    lasts: Duration,
    runs: Vec<FakeRun>,
    templates: Vec<(&'static str, &'static str)>,
    /// What the next submissions do; afterwards they are applied and answered.
    submits: VecDeque<Does>,
    applied: usize,
    exchanges: usize,
    /// Breaks the exchange of this number, counted from 1.
    fault: Option<(usize, Does)>,
    on_submit: Option<Box<dyn Fn() + Send>>,
    /// From when to when, on our clock, no run is found because the search fails.
    index_down: Option<(Timestamp, Timestamp)>,
    /// Runs whose names begin so are shown by the index only.
    hidden: Option<&'static str>,
    /// What the index says of every run, where that is not the truth.
    stale: Option<&'static str>,
    /// So many runs are shown in one page, of how many soever.
    page_cap: usize,
    /// Whose a run is said to be.
    slug: &'static str,
    /// The run that is said to be another app's.
    foreign: Option<&'static str>,
    /// How often one submission arrives; the answer is the last one's. A run of an app beside an active one is skipped.
    arrivals: usize,
    /// Whether a submission that arrives beside an active run is refused.
    refuses: bool,
    /// The id of the user that we are, where the tenant tells.
    me: Option<&'static str>,
    /// By how much the times of runs are ahead of the tenant's `Date`.
    run_skew: SignedDuration,
    /// Whether answers carry a `Date`.
    dated: bool,
    /// What was applied, by the id of the request, and which runs were active then.
    ledger: Vec<Applied>,
    /// The id of the request that is being answered.
    request_id: String,
    /// The runs that were asked to stop.
    stopped: Vec<String>,
    /// The answer to so many of the next searches for runs.
    refused_looks: usize,
    /// What the Automation Engine answers that is asked for the runs of an app; None: all of them, at once.
    engine_list: Option<Reply>,
    /// How long every answer takes.
    answers_take: Duration,
    /// Whose attempts ask, where it matters what they say of their effects.
    host: Option<Arc<TestHost>>,
    /// Each request that may change something, and how many effects the host knew to be in flight then.
    effects: Vec<(String, usize)>,
    /// How many submissions have arrived.
    arrived: usize,
    /// What every search for runs says from so many submissions on, instead of the truth. Looks at one run are not searches.
    searches_say: Option<(usize, Value)>,
    /// The next answers to "who am I"; afterwards the regular one.
    whoami: VecDeque<Reply>,
}

struct FakeRun {
    name: String,
    created: Timestamp,
    seen_from: Timestamp,
    ends: Option<(Timestamp, &'static str)>,
    creator: Option<&'static str>,
}

/// An effect on the tenant.
#[derive(Debug)]
struct Applied {
    request_id: String,
    run: String,
    active_then: Vec<String>,
}

#[derive(Debug, Clone)]
struct Does {
    applies: bool,
    reply: Option<Reply>,
}

fn does(applies: bool, reply: Reply) -> Does {
    Does { applies, reply: Some(reply) }
}

impl World {
    fn new(kind: Kind, clock: &Arc<ManualClock>) -> Self {
        Self {
            kind,
            clock: clock.clone(),
            skew: SignedDuration::ZERO,
            lag: Duration::from_secs(4),
            lasts: Duration::from_secs(90),
            runs: Vec::new(),
            templates: vec![(W, "@atlan/snowflake"), ("atlan-snowflake-miner-1", "@atlan/snowflake-miner")],
            submits: VecDeque::new(),
            applied: 0,
            exchanges: 0,
            fault: None,
            on_submit: None,
            index_down: None,
            hidden: None,
            stale: None,
            page_cap: usize::MAX,
            slug: A,
            foreign: None,
            arrivals: 1,
            refuses: false,
            me: None,
            run_skew: SignedDuration::ZERO,
            dated: true,
            ledger: Vec::new(),
            request_id: String::new(),
            stopped: Vec::new(),
            refused_looks: 0,
            engine_list: Some(Reply::json(403, &json!({"code": "AE-COMMON-403-01", "message": "lacks role realm-admin"}))),
            answers_take: Duration::ZERO,
            host: None,
            effects: Vec::new(),
            arrived: 0,
            searches_say: None,
            whoami: VecDeque::new(),
        }
    }

    /// The tenant's own time.
    fn now(&self) -> Timestamp {
        self.clock.now() + self.skew
    }

    /// A run that was created so long ago, by somebody else.
    fn with_run(&mut self, name: &str, ago: i64, ends: Option<(i64, &'static str)>) {
        let created = Timestamp::from_second(self.now().as_second() - ago).expect("a time");
        let ends = ends.map(|(after, phase)| (created + after.seconds(), phase));
        self.runs.push(FakeRun { name: name.into(), created, seen_from: created, ends, creator: None });
    }

    fn apply(&mut self) -> Value {
        if self.kind == Kind::App && self.runs.iter().any(|run| self.phase(run) == "Running") {
            let name = format!("{A}-skipped{}", self.runs.len());
            self.with_run(&name, 0, Some((0, "Skipped")));
            return json!({"slug": A, "run_id": name});
        }
        self.applied += 1;
        let active_then = self.active();
        let created = Timestamp::from_second((self.now() + self.run_skew).as_second()).expect("a time");
        let run = FakeRun {
            creator: self.me,
            name: format!("{}-ours{}", world_of(self.kind), self.applied),
            created,
            seen_from: self.now() + SignedDuration::try_from(self.lag).expect("short"),
            ends: Some((created + SignedDuration::try_from(self.lasts).expect("short"), "Succeeded")),
        };
        self.ledger.push(Applied { request_id: self.request_id.clone(), run: run.name.clone(), active_then });
        let shown = match self.kind {
            Kind::Workflow => self.show(&run),
            Kind::App => json!({"slug": A, "run_id": run.name}),
        };
        self.runs.push(run);
        shown
    }

    /// The names of the runs that are active.
    fn active(&self) -> Vec<String> {
        let active = |run: &&FakeRun| run.created <= self.now() && self.phase(run) == "Running";
        self.runs.iter().filter(active).map(|run| run.name.clone()).collect()
    }

    fn phase(&self, run: &FakeRun) -> &'static str {
        run.ends.filter(|(at, _)| *at <= self.now()).map_or("Running", |(_, phase)| phase)
    }

    /// As the index shows it.
    fn show(&self, run: &FakeRun) -> Value {
        let ended = run.ends.map(|(at, _)| at).filter(|at| *at <= self.now());
        if self.kind == Kind::App {
            return json!({"typeName": "AppWorkflowRun", "attributes": {"qualifiedName": format!("{ROOT}/{A}/{}", run.name),
                "appWorkflowRunStatus": self.stale.unwrap_or(self.phase(run)), "appWorkflowRunStartedAt": run.created.as_millisecond(),
                "appWorkflowRunCompletedAt": ended.map(Timestamp::as_millisecond)}});
        }
        json!({
            "metadata": {"name": run.name, "creationTimestamp": run.created.to_string(),
                "labels": {"workflows.argoproj.io/creator": run.creator}},
            "spec": {"workflowTemplateRef": {"name": if self.foreign == Some(run.name.as_str()) { "another-workflow" } else { W }}},
            "status": {"phase": self.phase(run), "finishedAt": ended.map(|at| at.to_string())},
        })
    }

    fn answer(&mut self, request: &Recorded) -> Option<Reply> {
        self.exchanges += 1;
        if request.method == "POST" && !request.target.ends_with("/indexsearch") {
            let in_flight = self.host.as_ref().map_or(0, |host| host.effects_in_flight());
            self.effects.push((request.target.clone(), in_flight));
        }
        self.request_id = request.headers.get("x-atlan-request-id").cloned().unwrap_or_default();
        if let Some((number, does)) = self.fault.clone()
            && number == self.exchanges
        {
            if does.applies {
                self.regular(request)?;
            }
            return does.reply;
        }
        let reply = self.regular(request)?;
        let reply = if self.answers_take.is_zero() { reply } else { reply.late(&self.clock, self.answers_take) };
        if !self.dated {
            return Some(reply);
        }
        Some(reply.header("date", DateTimePrinter::new().timestamp_to_rfc9110_string(&self.now()).expect("a date")))
    }

    fn regular(&mut self, request: &Recorded) -> Option<Reply> {
        if self.kind == Kind::App {
            return self.regular_of_apps(request);
        }
        let filter = &request.body["query"]["bool"]["filter"][0];
        let down = self.index_down.is_some_and(|(from, to)| (from..to).contains(&self.clock.now()));
        let body = match request.target.as_str() {
            "/api/service/runs/indexsearch" if self.refused_looks > 0 => {
                self.refused_looks -= 1;
                return Some(Reply::json(400, &json!({"code": 1001, "message": "no"})));
            }
            "/api/service/runs/indexsearch" if filter["term"]["_id"].is_null() && self.lies() => {
                return self.searches_say.as_ref().map(|(_, said)| Reply::ok(said));
            }
            "/api/service/runs/indexsearch" if down => return Some(Reply::json(500, &json!({}))),
            "/api/service/whoami" if !self.whoami.is_empty() => return self.whoami.pop_front(),
            "/api/service/whoami" => {
                json!({"userId": self.me.unwrap_or("u-whoami"), "username": "service-account-x", "roles": [{"name": "$admin"}]})
            }
            "/api/service/workflows/indexsearch" => self.search_workflows(filter),
            "/api/service/runs/indexsearch" => self.search_runs(filter),
            "/api/service/workflows/submit" => return Some(self.submitted()),
            target if target.ends_with("/stop") => {
                self.stopped.extend(target.rsplit('/').nth(1).map(str::to_owned));
                json!({})
            }
            _ => return None,
        };
        Some(Reply::ok(&body))
    }

    fn regular_of_apps(&mut self, request: &Recorded) -> Option<Reply> {
        let down = self.index_down.is_some_and(|(from, to)| (from..to).contains(&self.clock.now()));
        if request.target.starts_with("/api/service/package-workflows/native-status/") {
            return Some(Reply::ok(&json!({"dag_nodes": {"extract": {"error_message": "their words"}, "publish": {}}})));
        }
        if request.target.starts_with(&format!("/automation/api/v1/runs?workflow_slug={A}&page=0&")) {
            return Some(self.engine_list.clone().unwrap_or_else(|| self.listed_by_the_engine()));
        }
        let path = request.target.strip_prefix("/api/service/v1/app");
        let body = match path {
            None if request.target == "/api/service/whoami" => json!({"username": "service-account-x", "roles": []}),
            None if request.target != "/api/meta/search/indexsearch" => return None,
            None if self.lies() && request.body["dsl"]["query"]["bool"]["filter"][2]["terms"]["qualifiedName"].is_null() => {
                return self.searches_say.as_ref().map(|(_, said)| Reply::ok(said));
            }
            None if down => return Some(Reply::json(500, &json!({}))),
            None => self.search_app_runs(&request.body["dsl"]["query"]["bool"]["filter"]),
            Some(path) if path.ends_with("/submit") => return Some(self.submitted()),
            Some(path) if path.ends_with("/cancel") => json!({"cancelled": true}),
            Some(path) => match path.strip_prefix("/runs/") {
                Some(id) => {
                    match self.runs.iter().find(|run| run.name == id && self.hidden.is_none_or(|hidden| !id.starts_with(hidden))) {
                        Some(run) => {
                            let slug = if self.foreign == Some(id) { "another-app" } else { self.slug };
                            json!({"run_id": id, "slug": slug, "status": self.phase(run), "started_at": run.created.to_string()})
                        }
                        None => return Some(Reply::json(404, &json!({"message": "no such run"}))),
                    }
                }
                None => json!({"slug": A, "name": "bq-prod"}),
            },
        };
        Some(Reply::ok(&body))
    }

    /// Whether a search for runs is answered otherwise than by the truth.
    fn lies(&self) -> bool {
        self.searches_say.as_ref().is_some_and(|(since, _)| self.arrived >= *since)
    }

    fn search_app_runs(&self, filter: &Value) -> Value {
        assert_eq!(filter[1]["term"]["__typeName.keyword"]["value"], "AppWorkflowRun");
        let mut found: Vec<_> = self.runs.iter().filter(|run| run.seen_from <= self.now()).collect();
        let names = filter[2]["terms"]["qualifiedName"].as_array();
        found.retain(|run| names.is_none_or(|names| names.contains(&json!(format!("{ROOT}/{A}/{}", run.name)))));
        found.sort_by_key(|run| std::cmp::Reverse(run.created));
        let total = found.len();
        found.truncate(self.page_cap);
        let entities: Vec<_> = found.into_iter().map(|run| self.show(run)).collect();
        json!({"approximateCount": total, "entities": if entities.is_empty() { Value::Null } else { json!(entities) }})
    }

    fn listed_by_the_engine(&self) -> Reply {
        let row = |run: &FakeRun| json!({"guid": run.name, "workflow_slug": A, "status": self.phase(run), "created_at": run.created.to_string()});
        let rows: Vec<_> = self.runs.iter().rev().map(row).collect();
        Reply::ok(&json!({"data": rows}))
    }

    fn submitted(&mut self) -> Reply {
        if let Some(on_submit) = &self.on_submit {
            on_submit();
        }
        self.arrived += 1;
        let does = self.submits.pop_front().unwrap_or(Does { applies: true, reply: None });
        let mut answer = Reply::ok(&Value::Null);
        for _ in 0..self.arrivals {
            answer = if self.refuses && !self.active().is_empty() {
                Reply::json(500, &json!({"message": "409: AE-WF-409-03 run exists"}))
            } else {
                Reply::ok(&if does.applies { self.apply() } else { Value::Null })
            };
        }
        does.reply.unwrap_or(answer)
    }

    fn search_workflows(&self, filter: &Value) -> Value {
        let query = &filter["nested"]["query"];
        let by_name = query["bool"]["must"][0]["term"]["metadata.name.keyword"]["value"].as_str();
        let by_package = query["term"]["metadata.annotations.package.argoproj.io/name.keyword"]["value"].as_str();
        let found: Vec<_> = self
            .templates
            .iter()
            .filter(|(name, package)| by_name == Some(*name) || by_package == Some(*package))
            .map(|(name, package)| json!({"metadata": {"name": name, "annotations": {"package.argoproj.io/name": package}}}))
            .collect();
        hits(&found)
    }

    fn search_runs(&self, filter: &Value) -> Value {
        let by_id = filter["term"]["_id"]["value"].as_str();
        let mut found: Vec<_> = self.runs.iter().filter(|run| run.seen_from <= self.now()).collect();
        found.retain(|run| by_id.is_none_or(|id| run.name == id));
        found.sort_by_key(|run| std::cmp::Reverse(run.created));
        let total = found.len();
        found.truncate(self.page_cap);
        let mut answer = hits(&found.into_iter().map(|run| self.show(run)).collect::<Vec<_>>());
        answer["hits"]["total"]["value"] = json!(total);
        answer
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
        Self::of(Kind::Workflow, set_up).await
    }

    async fn of(kind: Kind, set_up: impl FnOnce(&mut World)) -> Self {
        let clock = clock();
        // An even second hides what happens within one.
        clock.advance(Duration::from_millis(700)).await;
        let mut world = World::new(kind, &clock);
        set_up(&mut world);
        let world = Arc::new(Mutex::new(world));
        let answering = world.clone();
        let server = Scripted::answering(move |request| answering.lock().expect("no panic").answer(request)).await;
        // One request at a time is the strictest limit, and must not make anything wait for itself.
        let tenants = tenants(TenantSettings { max_requests: 1, ..server.settings() }, &clock);
        Self { host: Arc::new(TestHost::new(clock.clone())), server, world, tenants, clock }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic")
    }

    fn input(&self, more: &Value) -> Value {
        let mut input = json!({});
        if more.get("type").is_none() && more.get("workflow").is_none() {
            let kind = self.world().kind;
            input[kind.noun()] = json!(world_of(kind));
        }
        input.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        input
    }

    async fn attempt(&self, more: Value) -> Result<Verdict, ActivityError> {
        drive(&self.clock, self.host.attempt(WorkflowRerun::new(self.tenants.clone()), self.input(&more))).await
    }

    async fn failure(&self, more: Value) -> Failure {
        match self.attempt(more).await {
            Err(ActivityError::Failed(failure)) => failure,
            other => panic!("no failure: {other:?}"),
        }
    }

    /// Attempts until there is a verdict, as a host does.
    async fn to_the_verdict(&self, more: Value) -> Verdict {
        for _ in 0..10 {
            match self.attempt(more.clone()).await {
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

    fn submits(&self) -> usize {
        self.server.count("POST", "/submit")
    }
}

fn world_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Workflow => W,
        Kind::App => A,
    }
}

fn fact<'a>(verdict: &'a Verdict, name: &str) -> &'a Value {
    &verdict.facts()[name]
}

#[tokio::test]
async fn an_idle_workflow_is_submitted_once_and_followed_to_its_end() {
    let case = Case::new(|_| {}).await;
    let verdict = case.attempt(json!({})).await.expect("a verdict");
    assert!(verdict.is_passed());
    assert_eq!(verdict.message(), format!("run {W}-ours1 succeeded"));
    for (name, value) in [
        ("workflow", json!(W)),
        ("run", json!(format!("{W}-ours1"))),
        ("phase", json!("Succeeded")),
        ("created_at", json!("2026-01-01T00:00:00.000Z")),
        ("creator", json!(null)),
        ("started", json!(true)),
        ("generation", json!("argo")),
    ] {
        assert_eq!(fact(&verdict, name), &value, "{name}");
    }
    let targets: Vec<_> = case.server.requests().into_iter().take(4).map(|request| request.target).collect();
    assert_eq!(
        targets,
        [
            "/api/service/workflows/indexsearch",
            "/api/service/runs/indexsearch",
            "/api/service/whoami",
            "/api/service/workflows/submit"
        ]
    );
}

#[tokio::test]
async fn a_run_that_ends_badly_is_the_tenants_no() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.with_run("theirs", 100, Some((150, "Failed")))).await;
        let verdict = case.attempt(json!({})).await.expect("a verdict");
        assert!(!verdict.is_passed());
        assert_eq!(fact(&verdict, "phase"), "Failed");
        let words = if kind == Kind::App { ": extract: their words (adopted" } else { "Failed (adopted" };
        assert!(verdict.message().contains(words), "{}", verdict.message());
    }
}

#[tokio::test]
async fn dying_at_any_save_never_makes_a_second_run() {
    for kind in BOTH {
        for save in 1..=3 {
            let case = Case::of(kind, |_| {}).await;
            case.host.die_at_save(save);
            assert_eq!(case.attempt(json!({})).await, Err(ActivityError::Interrupted), "save {save}");
            let verdict = case.to_the_verdict(json!({})).await;
            assert!(verdict.is_passed());
            assert_eq!((case.submits(), case.world().applied), (1, 1), "save {save}");
            assert_eq!(fact(&verdict, "started"), save != 3, "only an answer that was kept says so");
        }
    }
}

#[tokio::test]
async fn breaking_any_exchange_and_dying_at_any_save_makes_exactly_one_run() {
    for kind in BOTH {
        let faults = || {
            let down = Reply::json(500, &json!({}));
            [
                does(false, Reply::cut()),
                does(true, Reply::cut()),
                does(false, down.clone()),
                does(true, down),
                does(true, Reply::cut_body()),
                does(true, Reply::text(403, "<html>blocked</html>")),
            ]
        };
        for (which, fault) in faults().into_iter().enumerate() {
            for death in 0..=3 {
                for number in 1.. {
                    let case = Case::of(kind, |world| {
                        world.fault = Some((number, fault.clone()));
                        (world.lag, world.lasts) = (Duration::from_secs(2), Duration::from_secs(4));
                    })
                    .await;
                    if death > 0 {
                        case.host.die_at_save(death);
                    }
                    let verdict = case.to_the_verdict(json!({})).await;
                    assert!(verdict.is_passed(), "{kind:?}: fault {which} at {number}, death at {death}: {verdict:?}");
                    assert_eq!(case.world().applied, 1, "{kind:?}: fault {which} at {number}, death at {death}");
                    if case.world().exchanges < number {
                        break;
                    }
                }
            }
        }
    }
}

fn unknown_fates() -> Vec<Reply> {
    let mut replies: Vec<_> = [302, 408, 500, 502, 503, 504].map(|status| Reply::json(status, &json!({}))).into();
    replies.extend([Reply::cut(), Reply::cut_body(), Reply::text(200, "<html>"), Reply::ok(&json!({})), Reply::text(204, "")]);
    // What a firewall that inspects answers gives in place of the tenant's.
    replies.extend([400, 401, 403, 404, 409, 413, 429].map(|status| Reply::text(status, "<html>blocked</html>")));
    replies.extend(["", "RBAC: access denied", "[]"].map(|body| Reply::text(403, body)));
    replies
}

#[tokio::test]
async fn without_resending_no_answer_of_unknown_fate_leads_to_a_second_run() {
    for kind in BOTH {
        for reply in unknown_fates() {
            for applies in [true, false] {
                let case = Case::of(kind, |world| world.submits.push_back(does(applies, reply.clone()))).await;
                let input = json!({"unknown_fate": "fail", "idempotent": false});
                let told = format!("{kind:?}, applied: {applies}, {reply:?}");
                if applies {
                    assert!(case.attempt(input).await.expect("a verdict").is_passed(), "{told}");
                } else {
                    assert_eq!(case.failure(input).await.code.as_ref(), "rerun.ambiguous", "{told}");
                }
                assert_eq!(case.submits(), 1, "{told}");
            }
        }
    }
}

#[tokio::test]
async fn a_time_that_a_page_names_is_waited_for_before_anything_is_asked() {
    for kind in BOTH {
        let page = Reply::text(429, "<html>slower</html>").header("retry-after", "30");
        let case = Case::of(kind, |world| world.submits.push_back(does(true, page))).await;
        let asked = note_submits(&case, || {});
        let verdict = case.attempt(json!({})).await.expect("a verdict");
        assert_eq!((verdict.is_passed(), case.submits()), (true, 1));
        let submitted = asked.lock().expect("no panic")[0];
        assert!(case.clock.monotonic() >= submitted + Duration::from_secs(30));
    }
}

#[tokio::test]
async fn a_submission_of_unknown_fate_that_was_applied_is_adopted_and_not_repeated() {
    for kind in BOTH {
        for reply in unknown_fates() {
            let case = Case::of(kind, |world| world.submits.push_back(does(true, reply.clone()))).await;
            let verdict = case.attempt(json!({})).await.expect("a verdict");
            let why = "(adopted: it appeared after a submission of this job whose answer was lost)";
            assert!(verdict.is_passed() && verdict.message().ends_with(why), "{reply:?}: {}", verdict.message());
            assert_eq!((case.submits(), fact(&verdict, "started")), (1, &json!(false)), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn a_submission_of_unknown_fate_without_a_trace_is_repeated_only_after_the_window() {
    for kind in BOTH {
        for reply in unknown_fates() {
            let case = Case::of(kind, |world| world.submits.push_back(does(false, reply.clone()))).await;
            let at = note_submits(&case, || {});
            let verdict = case.to_the_verdict(json!({})).await;
            assert_eq!((case.submits(), fact(&verdict, "started")), (2, &json!(true)), "{reply:?}");
            let at = at.lock().expect("no panic");
            assert!(at[1] >= at[0] + Duration::from_secs(60), "{reply:?}: {at:?}");
        }
    }
}

#[tokio::test]
async fn without_resending_a_lost_submission_is_ambiguous_and_since_is_offered() {
    let case = Case::new(|world| world.submits.push_back(does(false, Reply::cut()))).await;
    let failure = case.failure(json!({"unknown_fate": "fail", "until": "submitted"})).await;
    assert_eq!((failure.code.as_ref(), failure.retryable, case.submits()), ("rerun.ambiguous", false, 1));
    let words = format!("workflow_rerun unknown_fate=fail until=submitted workflow={W} since=2026-01-01T00:00:00.700Z");
    assert_eq!(failure.suggested_action, Some(format!("iolaus execute {words}")));
    assert_eq!(failure.facts["workflow"], W);
    assert!(failure.source.request_id.is_some());
}

#[tokio::test]
async fn nothing_is_submitted_more_than_three_times() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.submits.extend(vec![does(false, Reply::cut()); 9])).await;
        let failure = case.failure(json!({})).await;
        assert_eq!((failure.code.as_ref(), case.submits()), ("rerun.ambiguous", 3));
        assert_eq!(failure.facts["submissions_of_unknown_fate"], 3);
    }
}

#[tokio::test]
async fn evidence_of_the_first_submission_counts_for_the_second_too() {
    for kind in BOTH {
        let case = Case::of(kind, |world| {
            world.lag = Duration::from_secs(63);
            world.lasts = Duration::from_secs(10);
            world.submits.extend([does(true, Reply::cut()), does(false, Reply::cut())]);
        })
        .await;
        let verdict = case.attempt(json!({})).await.expect("a verdict");
        assert!(verdict.is_passed(), "the index was later than the window, and the run that it shows at last is the one");
        assert_eq!((case.submits(), case.world().applied), (2, 1));
    }
}

#[tokio::test]
async fn a_run_that_was_seen_before_the_submission_is_not_its_effect() {
    for kind in BOTH {
        let case = Case::of(kind, |world| {
            world.with_run("theirs", 3, Some((1, "Failed")));
            world.submits.push_back(does(false, Reply::cut()));
        })
        .await;
        let verdict = case.attempt(json!({})).await.expect("a verdict");
        assert!(verdict.is_passed(), "{verdict:?}");
        assert_eq!(case.submits(), 2);
    }
}

#[tokio::test]
async fn evidence_counts_even_after_a_later_submission_was_refused() {
    for kind in BOTH {
        let case = Case::of(kind, |world| {
            world.lag = Duration::from_secs(63);
            world.lasts = Duration::from_secs(10);
            world.submits.extend([does(true, Reply::cut()), does(false, Reply::json(429, &json!({"retry_after": 9})))]);
        })
        .await;
        assert_eq!(case.failure(json!({})).await.code, "tenant.rate_limited");
        case.clock.advance(Duration::from_secs(9)).await;
        let verdict = case.attempt(json!({})).await.expect("a verdict");
        assert!(verdict.is_passed());
        assert_eq!((case.submits(), case.world().applied), (2, 1));
    }
}

#[tokio::test]
async fn an_unanswered_search_settles_nothing() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.submits.push_back(does(false, Reply::cut()))).await;
        let up_again = case.clock.now() + 100.seconds();
        case.world().index_down = Some((case.clock.now() + 1.seconds(), up_again));
        let verdict = case.to_the_verdict(json!({"until": "submitted"})).await;
        assert_eq!((case.submits(), fact(&verdict, "started")), (2, &json!(true)));
        assert!(case.clock.now() >= up_again, "only an answered search allows the second submission");
    }
}

/// Notes when something is submitted, on the monotonic clock.
fn note_submits(case: &Case, then: impl Fn() + Send + 'static) -> Arc<Mutex<Vec<Duration>>> {
    let submits = Arc::new(Mutex::new(Vec::new()));
    let (clock, notes) = (case.clock.clone(), submits.clone());
    case.world().on_submit = Some(Box::new(move || {
        notes.lock().expect("no panic").push(clock.monotonic());
        then();
    }));
    submits
}

#[tokio::test]
async fn a_wall_clock_that_jumps_during_an_attempt_does_not_shorten_the_window() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.submits.push_back(does(false, Reply::cut()))).await;
        let clock = case.clock.clone();
        let at = note_submits(&case, move || clock.jump(SignedDuration::from_hours(1)));
        assert!(case.attempt(json!({})).await.expect("a verdict").is_passed());
        let at = at.lock().expect("no panic");
        assert!(at.len() == 2 && at[1] >= at[0] + Duration::from_secs(60), "{at:?}");
    }
}

#[tokio::test]
async fn another_machine_with_another_clock_does_not_shorten_the_window() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.submits.push_back(does(false, Reply::hang()))).await;
        let at = note_submits(&case, || {});
        tokio::select! {
            ended = case.attempt(json!({})) => panic!("it ended: {ended:?}"),
            () = until("a submission", || case.submits() > 0) => {}
        }
        case.clock.jump(SignedDuration::from_hours(1));
        case.world().skew -= SignedDuration::from_hours(1);
        assert!(case.to_the_verdict(json!({})).await.is_passed());
        let at = at.lock().expect("no panic");
        assert!(at.len() == 2 && at[1] >= at[0] + Duration::from_secs(60), "{at:?}");
    }
}

#[tokio::test]
async fn an_attempt_that_dies_in_the_middle_of_its_request_leaves_the_intent() {
    for kind in BOTH {
        for applies in [true, false] {
            let case = Case::of(kind, |world| world.submits.push_back(does(applies, Reply::hang()))).await;
            let arrived = Arc::new(tokio::sync::Notify::new());
            let arriving = arrived.clone();
            case.world().on_submit = Some(Box::new(move || arriving.notify_one()));
            tokio::select! {
                ended = case.attempt(json!({})) => panic!("it ended: {ended:?}"),
                () = arrived.notified() => {}
            }
            let verdict = case.to_the_verdict(json!({})).await;
            assert_eq!((case.world().applied, fact(&verdict, "started")), (1, &json!(!applies)));
        }
    }
}

#[tokio::test]
async fn what_was_not_applied_is_kept_as_such_and_tried_again_without_waiting() {
    for kind in BOTH {
        for (reply, code, retryable, wait) in [
            (Reply::text(429, "").header("retry-after", "7"), "tenant.rate_limited", true, 7),
            (Reply::json(400, &json!({})), "tenant.refused", false, 0),
            (Reply::json(404, &json!({})), "tenant.not_found", false, 0),
            (Reply::json(403, &json!({})), "tenant.forbidden", false, 0),
        ] {
            let case = Case::of(kind, |world| world.submits.push_back(does(false, reply))).await;
            let failure = case.failure(json!({})).await;
            assert_eq!((failure.code.as_ref(), failure.retryable), (code, retryable));
            assert_eq!(case.host.saves().last().expect("saves")["effort"]["intent"], Value::Null);
            let before = case.clock.monotonic();
            let verdict = case.attempt(json!({"until": "submitted"})).await.expect("a verdict");
            let after = before + Duration::from_secs(wait);
            assert_eq!((fact(&verdict, "started"), case.clock.monotonic()), (&json!(true), after), "{code}");
        }
    }
}

#[tokio::test]
async fn already_active_adopts_the_active_run() {
    for kind in BOTH {
        let masked = Reply::json(500, &json!({"message": "409: AE-WF-409-03 run exists"}));
        for (reply, idempotent) in
            [(Reply::json(409, &json!({"code": "AE-WF-409-03"})), true), (masked.clone(), true), (masked, false)]
        {
            let case = Case::of(kind, |world| {
                world.submits.push_back(does(false, reply));
                world.with_run("theirs", 0, Some((100, "Succeeded")));
                // The index shows it late, so the check before the submission misses it.
                world.runs[0].seen_from = world.now() + 3.seconds();
            })
            .await;
            let verdict = case.attempt(json!({"idempotent": idempotent})).await.expect("a verdict");
            assert_eq!((fact(&verdict, "run"), fact(&verdict, "started")), (&json!("theirs"), &json!(false)));
            assert_eq!((case.submits(), case.world().applied), (1, 0));
        }
    }
}

#[tokio::test]
async fn already_active_without_an_active_run_in_sight_is_tried_again_later() {
    for kind in BOTH {
        let case =
            Case::of(kind, |world| world.submits.push_back(does(false, Reply::json(409, &json!({"code": "AE-WF-409-03"}))))).await;
        let failure = case.failure(json!({})).await;
        assert_eq!((failure.code.as_ref(), failure.retryable), ("workflow.already_active", true));
        assert_eq!(case.to_the_verdict(json!({})).await.is_passed().then_some(case.submits()), Some(2));
    }
}

#[tokio::test]
async fn idempotent_adopts_an_active_run_without_sleeping_and_else_submits() {
    for kind in BOTH {
        let set_up = |world: &mut World| world.with_run("theirs", 600, None);
        let case = Case::of(kind, set_up).await;
        let before = case.clock.monotonic();
        let verdict = case.attempt(json!({"until": "submitted"})).await.expect("a verdict");
        assert_eq!((fact(&verdict, "run"), case.submits(), case.clock.monotonic()), (&json!("theirs"), 0, before));
        assert!(verdict.message().starts_with("run theirs is active; its outcome was not awaited"), "{}", verdict.message());

        // An app is never active twice.
        let case = if kind == Kind::Workflow { Case::of(kind, set_up).await } else { Case::of(kind, |_| {}).await };
        let verdict = case.attempt(json!({"until": "submitted", "idempotent": false})).await.expect("a verdict");
        assert_eq!((fact(&verdict, "started"), case.submits()), (&json!(true), 1));
        // The names of the runs before the submission tell its effect from them.
        let searched =
            |request: &Recorded| request.target.ends_with("runs/indexsearch") || request.target.ends_with("search/indexsearch");
        assert_eq!(case.server.requests().iter().filter(|request| searched(request)).count(), 1);
    }
}

#[tokio::test]
async fn since_adopts_what_is_recent_and_did_not_end_badly() {
    for kind in BOTH {
        // The job says since=now-60 s. (run created so long ago, its end) -> adopted?
        for (ago, ends, adopted) in [
            (30, None, true),
            (30, Some((10, "Succeeded")), true),
            (60, Some((10, "Succeeded")), true),
            (61, Some((10, "Succeeded")), false),
            (30, Some((10, "Failed")), false),
            (600, Some((10, "Succeeded")), false),
        ] {
            let case = Case::of(kind, |world| world.with_run("theirs", ago, ends)).await;
            let verdict =
                case.attempt(json!({"since": "2025-12-31T23:59:00.900Z", "until": "submitted"})).await.expect("a verdict");
            assert_eq!(fact(&verdict, "run") == "theirs", adopted, "{ago} {ends:?}");
            assert_eq!(case.submits(), usize::from(!adopted), "{ago} {ends:?}");
            let why = ", and since=2025-12-31T23:59:00.900Z)";
            assert_eq!(verdict.message().ends_with(why), adopted, "{ago} {ends:?}: {}", verdict.message());
            assert_eq!(verdict.message().contains("(adopted"), adopted);
        }
    }
}

#[tokio::test]
async fn since_submits_only_once_the_index_has_had_its_time() {
    for kind in BOTH {
        let input = || json!({"since": "2025-12-31T23:59:00Z", "until": "submitted"});
        let case = Case::of(kind, |_| {}).await;
        let before = case.clock.monotonic();
        case.attempt(input()).await.expect("a verdict");
        assert_eq!((case.submits(), case.clock.monotonic()), (1, before + Duration::from_secs(10)));

        let case = Case::of(kind, |world| {
            world.with_run("theirs", 2, None);
            world.runs[0].seen_from = world.now() + 9.seconds();
        })
        .await;
        let verdict = case.attempt(input()).await.expect("a verdict");
        assert_eq!((case.submits(), fact(&verdict, "run")), (0, &json!("theirs")));
    }
}

#[tokio::test]
async fn a_since_that_lies_ahead_is_waited_for_so_that_a_lost_disk_makes_no_second_run() {
    for kind in BOTH {
        // Whoever said when it began has a clock that is 30 s ahead of ours.
        let input = || json!({"since": "2026-01-01T00:00:30Z"});
        let mut case = Case::of(kind, |_| {}).await;
        assert!(case.attempt(input()).await.expect("a verdict").is_passed());
        case.host = Arc::new(TestHost::new(case.clock.clone()));
        let again = case.to_the_verdict(input()).await;
        assert_eq!((case.submits(), case.world().applied, fact(&again, "started")), (1, 1, &json!(false)), "{again:?}");

        let case = Case::of(kind, |_| {}).await;
        let failure = case.failure(json!({"since": "2027-01-01T00:00:00Z"})).await;
        assert_eq!((failure.code.as_ref(), failure.retryable, case.submits()), ("wait.timed_out", false, 0), "{failure}");
        assert!(failure.message.contains("2027-01-01"), "{failure}");
    }
}

#[tokio::test]
async fn a_token_is_asked_for_before_the_intent_is_saved_and_nothing_stands_between_intent_and_submission() {
    let clock = clock();
    let host = Arc::new(TestHost::new(clock.clone()));
    let intents = Arc::new(Mutex::new(Vec::new()));
    let (ticking, saving, noting) = (clock.clone(), host.clone(), intents.clone());
    let server = Scripted::answering(move |request| {
        let body = match request.target.as_str() {
            "/api/service/oauth-clients/token" => {
                let saved = saving.saves().last().is_some_and(|saved| saved["effort"]["intent"].is_object());
                noting.lock().expect("no panic").push(saved);
                json!({"accessToken": "t", "expiresIn": 10})
            }
            "/api/service/whoami" => {
                ticking.advance_without_waiting(Duration::from_secs(9));
                json!({"userId": "u", "username": "service-account-x", "roles": [{"name": "$admin"}]})
            }
            "/api/service/workflows/indexsearch" => hits(&[json!({"metadata": {"name": W}})]),
            "/api/service/runs/indexsearch" => hits(&[]),
            "/api/service/workflows/submit" => json!({"metadata": {"name": format!("{W}-r1")}, "status": {"phase": "Succeeded"}}),
            _ => return None,
        };
        Some(Reply::ok(&body))
    })
    .await;
    let settings = TenantSettings {
        api_key: None,
        oauth_client_id: "oauth-client-1".into(),
        oauth_client_secret: Some("hush".into()),
        max_requests: 1,
        ..server.settings()
    };
    let rerun = WorkflowRerun::new(tenants(settings, &clock));
    assert!(drive(&clock, host.attempt(rerun, json!({"workflow": W}))).await.expect("a verdict").is_passed());
    assert_eq!(*intents.lock().expect("no panic"), [false, false]);
}

#[tokio::test]
async fn an_older_active_run_is_awaited_and_then_ours_is_submitted() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.with_run("theirs", 600, Some((630, "Failed")))).await;
        let verdict = case.attempt(json!({"since": "2025-12-31T23:59:00Z"})).await.expect("a verdict");
        assert!(verdict.is_passed() && case.clock.monotonic() >= Duration::from_secs(30));
        assert_eq!((case.submits(), fact(&verdict, "started")), (1, &json!(true)));
    }
}

#[tokio::test]
async fn an_older_active_run_that_shows_itself_by_a_conflict_is_awaited_too() {
    for kind in BOTH {
        let case = Case::of(kind, |world| {
            world.refuses = true;
            world.with_run("theirs", 600, Some((630, "Succeeded")));
            world.runs[0].seen_from = world.now() + 12.seconds();
        })
        .await;
        let verdict = case.attempt(json!({"since": "2025-12-31T23:59:00Z"})).await.expect("a verdict");
        assert_eq!((case.submits(), fact(&verdict, "started")), (2, &json!(true)));
    }
}

#[tokio::test]
async fn an_older_active_run_can_be_a_reason_to_give_up() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.with_run("theirs", 600, None)).await;
        let failure = case.failure(json!({"since": "2025-12-31T23:59:00Z", "older": "fail"})).await;
        assert_eq!((failure.code.as_ref(), failure.category, case.submits()), ("rerun.older_active", Category::Precondition, 0));

        let failure = case.failure(json!({"since": "2025-12-31T23:59:00Z", "timeout": "5m"})).await;
        assert_eq!((failure.code.as_ref(), failure.retryable, case.submits()), ("wait.timed_out", false, 0));
        assert!(failure.message.contains("theirs"), "{failure}");
    }
}

#[tokio::test]
async fn another_clock_at_the_tenant_misleads_nobody() {
    for kind in BOTH {
        for skew in [SignedDuration::from_hours(2), SignedDuration::from_hours(-2)] {
            let case = Case::of(kind, |world| {
                world.skew = skew;
                world.with_run("before", 60, Some((10, "Succeeded")));
                world.submits.push_back(does(true, Reply::cut()));
            })
            .await;
            let verdict = case.attempt(json!({})).await.expect("a verdict");
            assert_eq!((fact(&verdict, "run"), case.submits()), (&json!(format!("{}-ours1", world_of(kind))), 1), "{skew}");
        }
    }
}

#[tokio::test]
async fn running_out_of_time_is_final_and_suggests_to_go_on_waiting() {
    let case = Case::new(|world| world.lasts = Duration::from_secs(9_999)).await;
    let failure = case.failure(json!({"timeout": "10m"})).await;
    assert_eq!((failure.code.as_ref(), failure.retryable), ("wait.timed_out", false));
    assert_eq!(failure.suggested_action, Some(format!("iolaus execute await_completion run={W}-ours1 timeout=24h")));
    assert_eq!((&failure.facts["phase"], &failure.facts["started"]), (&json!("Running"), &json!(true)));
}

#[tokio::test]
async fn a_type_means_exactly_its_package() {
    for name in ["snowflake", "atlan-snowflake", "@atlan/snowflake"] {
        let case = Case::new(|_| {}).await;
        let verdict = case.attempt(json!({"type": name, "until": "submitted"})).await.expect("a verdict");
        assert_eq!(fact(&verdict, "workflow"), W);
    }
    let case = Case::new(|_| {}).await;
    let failure = case.failure(json!({"type": "bigquery"})).await;
    assert_eq!((failure.code.as_ref(), failure.category), ("workflow.not_found", Category::NotFound));
    assert_eq!(failure.suggested_action.as_deref(), Some("iolaus workflows find @atlan/bigquery"));
    let failure = case.failure(json!({"workflow": "atlan-snowflake-1"})).await;
    assert_eq!(failure.suggested_action.as_deref(), Some("iolaus workflows find @atlan/snowflake"));
}

#[tokio::test]
async fn several_workflows_of_a_type_are_listed_unless_the_newest_will_do() {
    let set_up = |world: &mut World| world.templates.push(("atlan-snowflake-2", "@atlan/snowflake"));
    let case = Case::new(set_up).await;
    let input = json!({"type": "snowflake", "until": "submitted", "since": "2025-12-31T23:59:00Z"});
    let failure = case.failure(input).await;
    let again = format!("iolaus execute workflow_rerun until=submitted workflow={W} since=2025-12-31T23:59:00.000Z");
    assert_eq!(failure.suggested_action, Some(again));
    assert_eq!((failure.code.as_ref(), failure.category, case.submits()), ("workflow.ambiguous", Category::Precondition, 0));
    assert!(failure.message.contains(W) && failure.message.contains("atlan-snowflake-2"), "{failure}");
    assert_eq!(failure.facts["workflows"].as_array().map(Vec::len), Some(2));
    let verdict = case.attempt(json!({"type": "snowflake", "pick": "newest", "until": "submitted"})).await.expect("a verdict");
    assert_eq!(case.submits(), 1, "{verdict:?}");
}

#[tokio::test]
async fn cancelling_stops_only_a_run_that_this_job_started() {
    for kind in BOTH {
        for adopted in [false, true] {
            let case = Case::of(kind, |world| {
                if adopted {
                    world.with_run("theirs", 5, None);
                }
            })
            .await;
            let host = case.host.clone();
            // The first look after the submission or the adoption is the moment.
            case.world().lag = Duration::ZERO;
            let cancel = async {
                until("a run", || case.host.progress().iter().any(|progress| progress.get("run").is_some())).await;
                host.stop(Some(Stop::Cancelled { reason: None }));
            };
            let (ended, ()) = tokio::join!(case.attempt(json!({"stop_on_cancel": true})), cancel);
            let Err(ActivityError::Cancelled { message, facts }) = ended else { panic!("not cancelled: {ended:?}") };
            assert_eq!(case.server.count("POST", if kind == Kind::Workflow { "/stop" } else { "/cancel" }), usize::from(!adopted));
            assert_eq!((&facts["stop_requested"], &facts["started"]), (&json!(!adopted), &json!(!adopted)));
            assert_eq!(message.is_some_and(|message| message.contains("not started by this job")), adopted);
        }
    }
}

#[tokio::test]
async fn cancelling_before_anything_was_sent_says_so() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.with_run("theirs", 600, None)).await;
        case.host.stop(Some(Stop::Cancelled { reason: Some("enough".into()) }));
        let ended = case.attempt(json!({"since": "2025-12-31T23:59:00Z"})).await;
        assert!(matches!(ended, Err(ActivityError::Cancelled { .. })), "{ended:?}");
        assert_eq!(case.submits(), 0);
    }
}

#[tokio::test]
async fn a_stop_during_the_submission_waits_for_its_answer() {
    for kind in BOTH {
        let case = Case::of(kind, |_| {}).await;
        let host = case.host.clone();
        case.world().on_submit = Some(Box::new(move || host.stop(Some(Stop::Draining))));
        assert_eq!(case.attempt(json!({})).await, Err(ActivityError::Interrupted));
        let kept = case.host.saves().last().expect("saves")["effort"]["obtained"].clone();
        assert_eq!(kept["origin"], "started", "{kept}");
        case.host.stop(None);
        assert!(case.attempt(json!({})).await.expect("a verdict").is_passed());
        assert_eq!(case.submits(), 1);
    }
}

/// A host drops an attempt that should stop unless it knows of an effect in flight, and then nothing says what became of the effect.
#[tokio::test]
async fn the_host_knows_of_the_submission_and_of_the_stop_while_their_answers_are_awaited() {
    for kind in BOTH {
        let case = Case::of(kind, |world| world.lag = Duration::ZERO).await;
        let host = case.host.clone();
        case.world().host = Some(host.clone());
        let cancel = async {
            until("a run", || host.progress().iter().any(|progress| progress.get("run").is_some())).await;
            host.stop(Some(Stop::Cancelled { reason: None }));
        };
        let (ended, ()) = tokio::join!(case.attempt(json!({"stop_on_cancel": true})), cancel);
        assert!(matches!(ended, Err(ActivityError::Cancelled { .. })), "{ended:?}");
        let effects = case.world().effects.clone();
        assert_eq!(effects.iter().map(|(_, in_flight)| *in_flight).collect::<Vec<_>>(), [1, 1], "{effects:?}");
        assert_eq!(host.effects_in_flight(), 0);
    }
}

#[tokio::test]
async fn generations_that_do_not_fit_are_refused_before_anything_is_sent() {
    let clock = clock();
    for (generation, input) in [
        (Generation::Argo, json!({"app": "bq-1"})),
        (Generation::Native, json!({"workflow": W})),
        (Generation::Native, json!({"type": "snowflake"})),
    ] {
        let host = TestHost::new(clock.clone());
        let tenants = tenants(TenantSettings { generation, ..TenantSettings::default() }, &clock);
        let ended = host.attempt(WorkflowRerun::new(tenants), input).await;
        assert!(matches!(ended, Err(ActivityError::Failed(failure)) if failure.code == "generation.unsupported"));
    }
}

#[test]
fn input_is_checked_and_shapes_the_options() {
    let info = ActivityInfo::of::<WorkflowRerun>();
    for (input, field) in [
        (json!({}), "workflow"),
        (json!({"workflow": "a", "type": "b"}), "workflow"),
        (json!({"workflow": "a/b"}), "workflow"),
        (json!({"type": "@atlan"}), "type"),
        (json!({"type": ""}), "type"),
        (json!({"workflow": "a", "since": "yesterday"}), "since"),
        (json!({"workflow": "a", "older": "skip"}), "older"),
        (json!({"workflow": "a", "timeout": "0s"}), "timeout"),
        (json!({"workflow": "a", "wait": true}), "wait"),
    ] {
        assert_eq!(info.prepare(input.clone()).expect_err("it is refused").field, field, "{input}");
    }
    let class = |input| info.prepare(input).expect("it is accepted").options.slot_class;
    assert_eq!(class(json!({"workflow": "a"})), SlotClass::Waits);
    assert_eq!(class(json!({"workflow": "a", "until": "submitted"})), SlotClass::Work);
    assert_eq!(class(json!({"workflow": "a", "until": "submitted", "since": "2026-01-01T00:00:00Z"})), SlotClass::Waits);
}

//! Claims jobs: takes a lease on the heads of the ready lanes. A lane is (activity, version, slot class, tenant); its cost to a claim is
//! one seek, whatever stands behind it, so that a claim does not grow with the backlog, with jobs scheduled for later, or with jobs
//! that this worker cannot run.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use iolaus_activities::{Category, Failure, SlotClass, Stop, codes};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::fair::{Head, fair};
use super::isolation::Owned;
use super::paused::paused;
use super::rows::{self, Text, ms};
use super::throttling::Throttling;
use super::{ServedTenants, Shares, StoreError, Tx};
use crate::executor::{self, Execution};
use crate::job::{JobId, JobState, Throttles};

/// Lanes that one claim looks at, if it finds something in them.
const LANES: usize = 4096;
/// Lanes that one claim looks at which finds nothing.
pub(super) const MAX_LANES: usize = 65_536;
/// Jobs that one claim takes.
pub(super) const CLAIMS: usize = 256;
/// Scheduled jobs that one transaction promotes: half a step, so that what has expired is closed meanwhile.
const PROMOTIONS: i64 = 128;

/// Somebody who takes claimed jobs: a worker of this process.
pub(crate) trait Claimer: Send + Sync {
    /// How many jobs it can take now. Asked often, so this must not cost what a request does.
    fn free(&self) -> usize;
    /// What it can take now; `None` when nothing.
    fn request(&self) -> Option<ClaimRequest>;
    /// Hands over jobs whose lease is durable.
    fn deliver(&self, worker_id: i64, jobs: Vec<Claimed>);
    /// Whether it still takes jobs at all.
    fn alive(&self) -> bool;
}

/// What a worker can take.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRequest {
    pub(crate) worker_id: i64,
    pub(crate) scope: ClaimScope,
    /// The activities that it runs, with the newest version that it knows.
    pub(crate) activities: BTreeMap<&'static str, u32>,
    /// The tenants that it can ask.
    pub(crate) tenants: Arc<ServedTenants>,
    /// The free slots of class `work`, and whose jobs may have them.
    pub(crate) work: Shares,
    /// The same for class `waits`.
    pub(crate) waits: Shares,
    /// Limits over all workers of the file.
    pub(crate) throttles: Arc<Throttles>,
}

/// Which jobs a worker takes.
#[derive(Debug, Clone)]
pub(crate) enum ClaimScope {
    /// Whatever it can run.
    Any,
    /// One job, and if it is a sequence its steps.
    Job(JobId),
}

impl ClaimRequest {
    pub(crate) fn free(&self) -> usize {
        self.work.free() + self.waits.free()
    }

    fn shares(&self, waits: bool) -> &Shares {
        if waits { &self.waits } else { &self.work }
    }

    pub(super) fn shares_mut(&mut self, waits: bool) -> &mut Shares {
        if waits { &mut self.waits } else { &mut self.work }
    }

    pub(super) fn runs(&self, activity: &str, version: u32) -> bool {
        self.activities.get(activity).is_some_and(|known| (1..=*known).contains(&version))
    }

    pub(super) fn serves(&self, tenant: &str) -> bool {
        self.tenants.contains(tenant)
    }
}

/// A job under a lease.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: i64,
    pub(crate) token: i64,
    pub(crate) slot_class: SlotClass,
    pub(crate) execution: Arc<Execution>,
    pub(crate) input: Value,
    pub(crate) checkpoint: Option<Value>,
    /// The attempt only undoes: a cancel was requested before it.
    pub(crate) cancelled: Option<Stop>,
    /// Milliseconds from being due to this claim.
    pub(crate) waited_ms: u64,
}

/// Where the last claim of a process ended.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Rotates which tenant goes first.
    turn: usize,
    /// The lane after which the next claim begins, when there were more than one claim looks at.
    after: Option<Lane>,
}

/// As stored: a claim seeks on behind a lane whose values cannot be read, too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lane {
    activity: Text,
    version: i64,
    slot_class: Text,
    tenant: Text,
}

impl Lane {
    /// Its activity, version, slot class and tenant. `None`: the rows of this lane are damaged.
    fn readable(&self) -> Option<(&str, u32, &str, &str)> {
        let version = u32::try_from(self.version).ok()?;
        Some((self.activity.as_str()?, version, self.slot_class.as_str()?, self.tenant.as_str()?))
    }
}

/// What is found of jobs that may be claimed.
#[derive(Debug, Default)]
struct Found {
    /// Those to claim.
    ids: Vec<i64>,
    /// There may be more for this worker.
    more: bool,
    /// Those whose activity, version, slot class or tenant cannot be read.
    unreadable: Vec<i64>,
}

/// Whether a claim could find anything at all. Two seeks, no lock.
pub(super) fn peek(conn: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM jobs WHERE state = 'available') \
             OR EXISTS(SELECT 1 FROM jobs WHERE state IN ('scheduled', 'retryable') AND run_at <= ?1)",
    )?;
    Ok(statement.query_row([ms(now)], |row| row.get(0))?)
}

/// When the next scheduled or expiring job is due.
pub(super) fn next_timer(conn: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT min(coalesce(due, expires), coalesce(expires, due)) FROM ( \
           SELECT (SELECT run_at FROM jobs WHERE state IN ('scheduled', 'retryable') ORDER BY run_at LIMIT 1) AS due, \
                  (SELECT expires_at FROM jobs WHERE expires_at IS NOT NULL ORDER BY expires_at LIMIT 1) AS expires)",
    )?;
    // What is not a time is due at once, or never: others still have their time.
    let due: Option<i64> = statement.query_row([], |row| row.get(0))?;
    Ok(due.map(rows::nearest))
}

/// Promotes what is due and closes what is past its time, then takes leases for a worker. The second answer is whether there
/// may be more for this worker once it has free slots, or once a limit leaves room.
pub(super) fn claim(tx: &mut Tx<'_>, request: &ClaimRequest, turns: &mut Turns) -> Result<(Vec<Claimed>, bool), StoreError> {
    tx.promote()?;
    // A step only: other writers come in between. What expired and is not closed yet is not started all the same.
    tx.expire()?;
    if !tx.is_registered(request.worker_id)? {
        // It was taken for dead and does not know yet: what it claimed now would be nobody's. It comes back with a new row.
        return Ok((Vec::new(), false));
    }
    let mut throttling = Throttling::new(&request.throttles, tx.now);
    let Found { ids, more, unreadable } = match &request.scope {
        ClaimScope::Any => choose(tx, request, turns, &mut throttling)?,
        ClaimScope::Job(job_id) => one(tx, request, job_id, &mut throttling)?,
    };
    for id in unreadable {
        tx.set_aside_isolated(id, "what a claim reads of it cannot be read")?;
    }
    throttling.store(tx.conn)?;
    if let Some(at) = throttling.next_start() {
        tx.after.next_start = Some(tx.after.next_start.map_or(at, |other| at.min(other)));
    }
    let (chosen, mut jobs) = (ids.len(), Vec::with_capacity(ids.len()));
    for id in ids {
        jobs.extend(tx.isolated(id, |tx| lease(tx, request.worker_id, id))?.flatten());
    }
    let passed_over = jobs.len() < chosen;
    Ok((jobs, more || passed_over))
}

impl Tx<'_> {
    /// Makes due jobs available. True when there may be more.
    pub(crate) fn promote(&mut self) -> Result<bool, StoreError> {
        let limit = self.maintenance.limit().min(PROMOTIONS);
        let (due, looked_at) = self.owned(PROMOTE, params![ms(self.now), limit])?;
        let mut promoted = 0;
        for Owned { id, activity, tenant, state } in &due {
            let done = self.isolated(*id, |tx| {
                tx.conn.prepare_cached("UPDATE jobs SET state = 'available' WHERE id = ?1")?.execute([id])?;
                tx.counts.moved(activity, tenant, Some(*state), Some(JobState::Available));
                Ok(())
            })?;
            promoted += usize::from(done.is_some());
        }
        self.after.timers |= promoted > 0;
        self.after.ready |= promoted > 0;
        // A process that only waits may be the one that promotes.
        self.after.wake_others |= promoted > 0;
        Ok(self.maintenance.took(looked_at, limit) && promoted > 0)
    }
}

/// The ids to claim: by priority, and within a priority by turns of the tenants.
fn choose(tx: &Tx<'_>, request: &ClaimRequest, turns: &mut Turns, throttling: &mut Throttling<'_>) -> Result<Found, StoreError> {
    let (conn, paused) = (tx.conn, paused(tx.conn)?);
    let mut tenants = Names::default();
    let (mut heads, mut unreadable): (Vec<Head>, Vec<i64>) = (Vec::new(), Vec::new());
    let begin = turns.after.take();
    let mut more = begin.is_some();
    let mut lane = match &begin {
        Some(after) => next_lane(conn, after)?,
        None => first_lane(conn)?,
    };
    for looked in 0..MAX_LANES {
        let Some(current) = lane.take_if(|_| looked < LANES || heads.is_empty()) else { break };
        turns.after = Some(current.clone());
        let Some((activity, version, slot_class, tenant)) = current.readable() else {
            let found = lane_heads(tx, &current, CLAIMS.saturating_sub(unreadable.len()))?;
            unreadable.extend(found.into_iter().map(|(id, ..)| id));
            lane = next_lane(conn, &current)?;
            continue;
        };
        let waits = slot_class == SlotClass::Waits.as_str();
        let shares = request.shares(waits);
        let is_paused = paused.contains(&("activity", activity)) || paused.contains(&("tenant", tenant));
        let takes = request.runs(activity, version) && request.serves(tenant);
        if !is_paused && takes && !shares.is_held(tenant) {
            let may_start = throttling.room(conn, &tx.counts, activity, tenant)?;
            let free = shares.room(tenant).min(CLAIMS).min(may_start);
            let tenant = tenants.position(tenant);
            // A lane without room costs no look into it.
            let found = if free > 0 { lane_heads(tx, &current, free)? } else { Vec::new() };
            more |= found.len() == free;
            let activity: Rc<str> = activity.into();
            let head = |(id, priority, run_at)| Head { id, priority, run_at, tenant, waits, activity: activity.clone() };
            heads.extend(found.into_iter().map(head));
        }
        lane = next_lane(conn, &current)?;
    }
    if lane.is_none() {
        turns.after = None;
    }
    more |= lane.is_some();
    turns.turn = turns.turn.wrapping_add(1);
    let found = heads.len();
    let may_start = |activity: &str, tenant: &str| throttling.take(activity, tenant);
    let chosen = fair(heads, &tenants.names, turns.turn, request.work.clone(), request.waits.clone(), may_start);
    more |= chosen.len() < found;
    Ok(Found { ids: chosen, more, unreadable })
}

/// Tenants that have jobs, each with a number.
#[derive(Default)]
struct Names {
    names: Vec<String>,
    positions: HashMap<String, usize>,
}

impl Names {
    fn position(&mut self, tenant: &str) -> usize {
        if let Some(position) = self.positions.get(tenant) {
            return *position;
        }
        self.names.push(tenant.to_owned());
        self.positions.insert(tenant.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }
}

const LANE: &str =
    "SELECT activity, activity_version, slot_class, tenant FROM jobs INDEXED BY jobs_ready WHERE state = 'available'";
/// Four seeks, of which the first that finds something ends it. A comparison of row values would walk through the whole lane: SQLite seeks
/// to its start for it, and then compares entry by entry.
const NEXT_LANE: &str = "SELECT * FROM (SELECT activity, activity_version, slot_class, tenant FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version = ?2 AND slot_class = ?3 AND tenant > ?4 \
       ORDER BY tenant LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity, activity_version, slot_class, tenant FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version = ?2 AND slot_class > ?3 \
       ORDER BY slot_class, tenant LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity, activity_version, slot_class, tenant FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity = ?1 AND activity_version > ?2 \
       ORDER BY activity_version, slot_class, tenant LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT activity, activity_version, slot_class, tenant FROM jobs INDEXED BY jobs_ready \
       WHERE state = 'available' AND activity > ?1 ORDER BY activity, activity_version, slot_class, tenant LIMIT 1) \
     LIMIT 1";
const HEADS: &str = "SELECT id, priority, run_at FROM jobs INDEXED BY jobs_ready WHERE state = 'available' AND activity = ?1 \
     AND activity_version = ?2 AND slot_class = ?3 AND tenant = ?4 ORDER BY priority, run_at, id LIMIT ?5";
const PROMOTE: &str = "SELECT id, activity, tenant, state FROM jobs WHERE state IN ('scheduled', 'retryable') AND run_at <= ?1 \
     ORDER BY run_at LIMIT ?2";
const ONE: &str = "SELECT activity, activity_version, slot_class, tenant, id FROM jobs WHERE id = ( \
       SELECT max(id) FROM ( \
         SELECT id FROM jobs WHERE job_id = ?1 AND state = 'available' \
         UNION ALL SELECT id FROM jobs WHERE state = 'available' \
           AND parent_id = (SELECT id FROM jobs WHERE job_id = ?1 ORDER BY id DESC LIMIT 1)))";
const LANE_ORDER: &str = "ORDER BY activity, activity_version, slot_class, tenant LIMIT 1";

fn first_lane(conn: &Connection) -> Result<Option<Lane>, StoreError> {
    Ok(conn.prepare_cached(&format!("{LANE} {LANE_ORDER}"))?.query_row([], lane).optional()?)
}

fn next_lane(conn: &Connection, after: &Lane) -> Result<Option<Lane>, StoreError> {
    let key = params![after.activity, after.version, after.slot_class, after.tenant];
    Ok(conn.prepare_cached(NEXT_LANE)?.query_row(key, lane).optional()?)
}

fn lane(row: &rusqlite::Row<'_>) -> rusqlite::Result<Lane> {
    let (activity, slot_class, tenant) = (Text::read(row, 0)?, Text::read(row, 2)?, Text::read(row, 3)?);
    Ok(Lane { activity, version: row.get(1)?, slot_class, tenant })
}

fn lane_heads(tx: &Tx<'_>, lane: &Lane, limit: usize) -> Result<Vec<(i64, i64, i64)>, StoreError> {
    let mut statement = tx.conn.prepare_cached(HEADS)?;
    let most = i64::try_from(limit.saturating_add(tx.passed_over.len())).unwrap_or(i64::MAX);
    let heads = statement.query_map(params![lane.activity, lane.version, lane.slot_class, lane.tenant, most], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let mut heads = heads.collect::<rusqlite::Result<Vec<_>>>()?;
    heads.retain(|(id, ..)| !tx.passed_over.contains(*id));
    heads.truncate(limit);
    Ok(heads)
}

/// One job that is due, or the step that is due of one sequence.
fn one(tx: &Tx<'_>, request: &ClaimRequest, job_id: &JobId, throttling: &mut Throttling<'_>) -> Result<Found, StoreError> {
    let conn = tx.conn;
    let mut statement = conn.prepare_cached(ONE)?;
    let found = statement.query_row([job_id.as_str()], |row| Ok((lane(row)?, row.get(4)?))).optional()?;
    let Some((lane, id)) = found.filter(|(_, id)| !tx.passed_over.contains(*id)) else { return Ok(Found::default()) };
    let Some((activity, version, slot_class, tenant)) = lane.readable() else {
        return Ok(Found { unreadable: vec![id], ..Found::default() });
    };
    let paused = paused(conn)?;
    let is_paused = paused.contains(&("activity", activity)) || paused.contains(&("tenant", tenant));
    let mine = !is_paused && request.runs(activity, version);
    let waits = slot_class == SlotClass::Waits.as_str();
    // The slot is still that of the step before until its attempt has left.
    let room = request.shares(waits).room(tenant) > 0 && throttling.room(conn, &tx.counts, activity, tenant)? > 0;
    let ids = if mine && room && throttling.take(activity, tenant) { vec![id] } else { Vec::new() };
    Ok(Found { ids, more: mine && !room, unreadable: Vec::new() })
}

/// Takes the lease; `None` if the job has expired, or if what is stored of it does not decode, which closes it.
fn lease(tx: &mut Tx<'_>, worker_id: i64, id: i64) -> Result<Option<Claimed>, StoreError> {
    let leased = tx
        .conn
        .prepare_cached(
            "UPDATE jobs SET state = 'running', worker_id = ?2, lease_token = lease_token + 1, attempt = attempt + 1, expires_at = NULL, \
             started_at = coalesce(started_at, ?3) WHERE id = ?1 AND (expires_at IS NULL OR expires_at > ?3)",
        )?
        .execute(params![id, worker_id, ms(tx.now)])?;
    if leased == 0 {
        return Ok(None);
    }
    let Some(stored) = tx.load_or_set_aside(id, Some(JobState::Available))? else { return Ok(None) };
    tx.counts.moved(&stored.execution.activity, &stored.execution.tenant, Some(JobState::Available), Some(JobState::Running));
    if let Some(problem) = stored.undecodable {
        let failure = Failure::new(codes::INPUT_UNDECODABLE, Category::InvalidInput, problem);
        let closing = Arc::new(executor::discarded(&stored.execution, &failure, tx.now));
        tx.close(id, stored.token, JobState::Running, &closing)?;
        return Ok(None);
    }
    let checkpoint = tx.checkpoint(id)?;
    let cancelled = stored.cancel_requested.then(|| Stop::Cancelled { reason: stored.cancel_reason.clone() });
    Ok(Some(Claimed {
        id,
        token: stored.token,
        slot_class: stored.slot_class,
        waited_ms: u64::try_from(ms(tx.now) - ms(stored.run_at)).unwrap_or(0),
        execution: Arc::new(stored.execution),
        // Text that is no JSON stays text, and is refused where inputs are decoded.
        input: serde_json::from_str(&stored.input).unwrap_or(Value::String(stored.input)),
        checkpoint,
        cancelled,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::ShareTable;
    use super::*;
    use crate::job::Throttle;

    /// So many jobs of as many tenants, `t-00001` and so on.
    fn lanes(dir: &std::path::Path, lanes: u64) -> (Connection, i64) {
        use super::super::backlog::{Backlog, fill};
        use super::super::model::{new_job_for_tests, registration};
        let path = dir.join("t.db");
        fill(&path, &new_job_for_tests(), &[Backlog::due(lanes)], Timestamp::UNIX_EPOCH).unwrap();
        let conn = super::super::schema::open_writer(&path, crate::embedded::Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        conn.execute("UPDATE jobs SET tenant = printf('t-%05d', id)", []).unwrap();
        let worker = Tx::new(&conn, Timestamp::UNIX_EPOCH, 0.5).register_worker(&registration(0)).unwrap();
        (conn, worker)
    }

    #[test]
    fn a_lane_behind_thousands_that_this_worker_cannot_take_is_found_by_the_first_claim() {
        let dir = tempfile::tempdir().unwrap();
        let (conn, worker) = lanes(dir.path(), 6_000);
        let mut request = super::super::model::request(worker, 4);
        request.tenants = Arc::new(ServedTenants::Only(["t-06000".to_owned()].into()));
        let mut tx = Tx::new(&conn, Timestamp::UNIX_EPOCH, 0.5);
        let (claimed, _) = claim(&mut tx, &request, &mut Turns::default()).unwrap();
        assert_eq!(claimed.iter().map(|job| job.execution.tenant.as_str()).collect::<Vec<_>>(), ["t-06000"]);
    }

    /// Five thousand jobs of as many tenants: what keeps all but one of them from being claimed must not keep that one.
    #[test]
    fn a_lane_behind_thousands_that_may_not_start_is_claimed_at_once() {
        type Change<'a> = Box<dyn Fn(&Connection, &mut ClaimRequest) + 'a>;
        let last = 5_000;
        let blocked = || (1..last).map(|n| format!("t-{n:05}"));
        let one = |max_running| Throttle { max_running, ..Throttle::default() };
        let limited = || blocked().map(|tenant| (tenant, one(1))).collect::<BTreeMap<_, _>>();
        let counted = "INSERT INTO job_counts SELECT 'probe', tenant, 'running', 1 FROM jobs WHERE tenant <> 't-05000'";
        let none_left = "INSERT INTO start_rates SELECT 'tenant', tenant, 0, 0 FROM jobs WHERE tenant <> 't-05000'";
        let kinds: [(&str, Change<'_>); 6] = [
            (
                "paused",
                Box::new(|conn: &Connection, _: &mut ClaimRequest| {
                    conn.execute("INSERT INTO pauses SELECT 'tenant', tenant, NULL, 0 FROM jobs WHERE tenant <> 't-05000'", [])
                        .unwrap();
                }),
            ),
            (
                "limited in what runs",
                Box::new(move |conn: &Connection, request: &mut ClaimRequest| {
                    conn.execute(counted, []).unwrap();
                    request.throttles = Arc::new(Throttles { tenants: limited(), ..Throttles::default() });
                }),
            ),
            (
                "limited in what starts",
                Box::new(move |conn: &Connection, request: &mut ClaimRequest| {
                    conn.execute(none_left, []).unwrap();
                    let rate = Throttle { max_starts_per_second: 0.5, ..Throttle::default() };
                    let tenants = blocked().map(|tenant| (tenant, rate)).collect();
                    request.throttles = Arc::new(Throttles { tenants, ..Throttles::default() });
                }),
            ),
            (
                "of an activity with a limit",
                Box::new(move |conn: &Connection, request: &mut ClaimRequest| {
                    conn.execute("INSERT INTO job_counts VALUES ('probe', 't', 'running', 1)", []).unwrap();
                    conn.execute("UPDATE jobs SET activity = 'twin' WHERE tenant = 't-05000'", []).unwrap();
                    request.activities.insert("twin", 1);
                    request.throttles =
                        Arc::new(Throttles { activities: [("probe".to_owned(), one(1))].into(), ..Throttles::default() });
                }),
            ),
            (
                "of a full slot class",
                Box::new(|conn: &Connection, request: &mut ClaimRequest| {
                    conn.execute("UPDATE jobs SET slot_class = 'waits' WHERE tenant <> 't-05000'", []).unwrap();
                    request.waits = Shares::unlimited(0);
                }),
            ),
            (
                "at their own most",
                Box::new(move |_: &Connection, request: &mut ClaimRequest| {
                    let tenants = blocked().map(|tenant| (tenant, 1)).chain([("t-05000".to_owned(), 0)]);
                    let running = blocked().map(|tenant| (tenant, 1)).collect();
                    request.work = Shares::new(ShareTable::new(20_000, tenants, None), 4, running);
                }),
            ),
        ];
        for (kind, change) in kinds {
            let dir = tempfile::tempdir().unwrap();
            let (conn, worker) = lanes(dir.path(), last);
            let mut request = super::super::model::request(worker, 4);
            change(&conn, &mut request);
            let mut tx = Tx::new(&conn, Timestamp::UNIX_EPOCH, 0.5);
            let (claimed, _) = claim(&mut tx, &request, &mut Turns::default()).unwrap();
            assert_eq!(claimed.iter().map(|job| job.execution.tenant.as_str()).collect::<Vec<_>>(), ["t-05000"], "{kind}");
        }
    }

    #[test]
    fn a_claim_reads_what_runs_once_however_many_tenants_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let (conn, worker) = lanes(dir.path(), 500);
        conn.execute("INSERT INTO job_counts SELECT 'probe', tenant, 'running', 1 FROM jobs", []).unwrap();
        let throttle = Throttle { max_running: 1, ..Throttle::default() };
        let tenants = (1..=500).map(|n| (format!("t-{n:05}"), throttle)).collect();
        let mut request = super::super::model::request(worker, 4);
        request.throttles = Arc::new(Throttles { tenants, ..Throttles::default() });
        let mut tx = Tx::new(&conn, Timestamp::UNIX_EPOCH, 0.5);
        assert!(claim(&mut tx, &request, &mut Turns::default()).unwrap().0.is_empty());
        let read = conn.prepare_cached(super::super::throttling::RUNNING).unwrap();
        assert_eq!(read.get_status(rusqlite::StatementStatus::Run), 1);
    }

    #[test]
    fn lanes_beyond_those_that_one_claim_looks_at_come_first_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (conn, worker) = lanes(dir.path(), 6_000);
        let (request, mut turns) = (super::super::model::request(worker, 1), Turns::default());
        let claimed = |turns: &mut Turns| {
            let mut tx = Tx::new(&conn, Timestamp::UNIX_EPOCH, 0.5);
            let (mut jobs, more) = claim(&mut tx, &request, turns).unwrap();
            assert!(more);
            jobs.pop().unwrap().id
        };
        let ids = [claimed(&mut turns), claimed(&mut turns), claimed(&mut turns)];
        let window = i64::try_from(LANES).unwrap();
        assert!(ids[0] <= window && ids[1] > window && ids[2] <= window + 1, "{ids:?}");
    }

    /// What a claim looks at must not grow with the table: each of its statements seeks in the index that was made for it.
    #[test]
    fn every_statement_of_a_claim_seeks_in_its_index() {
        let dir = tempfile::tempdir().unwrap();
        let conn =
            super::super::schema::open_writer(&dir.path().join("t.db"), crate::embedded::Durability::Full, Timestamp::UNIX_EPOCH)
                .unwrap();
        let ready = "USING INDEX jobs_ready";
        let covering = "USING COVERING INDEX jobs_ready";
        for (sql, index) in [
            (format!("{LANE} {LANE_ORDER}"), covering),
            (NEXT_LANE.to_owned(), "jobs_ready (activity=? AND activity_version=? AND slot_class=? AND tenant>?)"),
            (HEADS.to_owned(), covering),
            (PROMOTE.to_owned(), "jobs_due (run_at<?)"),
            ("SELECT id FROM jobs WHERE expires_at <= 1 ORDER BY expires_at LIMIT 1".to_owned(), "jobs_expiring (expires_at<?)"),
            ("SELECT id FROM jobs WHERE state = 'running' AND worker_id = 1".to_owned(), "jobs_running (worker_id=?)"),
            ("SELECT id FROM jobs WHERE job_id = 'a' ORDER BY id DESC LIMIT 1".to_owned(), "jobs_by_job_id (job_id=?)"),
            (ONE.to_owned(), "jobs_by_parent (parent_id=?)"),
        ] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let values = vec![1; statement.parameter_count()];
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
            let plan = rows.unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap().join("; ");
            assert!(plan.contains(index) || (index == covering && plan.contains(ready)), "{sql}: {plan}");
            assert!(sql != ONE || !plan.contains("SCAN jobs"), "{plan}");
            assert!(!plan.contains("SCAN jobs;") && !plan.contains("TEMP B-TREE"), "{sql}: {plan}");
        }
    }
}

use std::path::Path;

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::subsequence;
use proptest::test_runner::{Config, TestRunner};

use super::super::{read, schema};
use super::*;
use crate::embedded::Durability;
use crate::job::RunId;

const CASES: u32 = 1_000;
const ACTIVITIES: [&str; 3] = ["a", "b", "unknown"];
const TENANTS: [&str; 3] = ["s", "t", "unknown"];

fn open(dir: &Path) -> Connection {
    let conn = schema::open_writer(&dir.join("t.db"), Durability::Normal, Timestamp::UNIX_EPOCH).unwrap();
    conn.pragma_update(None, "synchronous", "OFF").unwrap();
    conn
}

/// A row, or a gap among the ids.
#[derive(Debug, Clone)]
struct Row {
    activity: &'static str,
    tenant: &'static str,
    state: JobState,
    version: i64,
    priority: i64,
    /// So many alike, one after the other.
    times: usize,
    gap: bool,
}

fn row() -> impl Strategy<Value = Row> {
    let state = prop_oneof![
        3 => Just(JobState::Completed),
        3 => Just(JobState::Available),
        4 => proptest::sample::select(JobState::ALL.to_vec()),
    ];
    (0..2_usize, 0..2_usize, state, 1..3_i64, 1..6_i64, 1..7_usize, any::<bool>()).prop_map(
        |(activity, tenant, state, version, priority, times, gap)| {
            let (activity, tenant) = (ACTIVITIES[activity], TENANTS[tenant]);
            Row { activity, tenant, state, version, priority, times, gap }
        },
    )
}

fn filter() -> impl Strategy<Value = ListFilter> {
    let states = prop_oneof![
        1 => Just(Vec::new()),
        2 => proptest::sample::select(JobState::ALL.to_vec()).prop_map(|state| vec![state]),
        2 => subsequence(JobState::ALL.to_vec(), 0..=JobState::ALL.len()),
    ];
    let name = |of: [&'static str; 3]| proptest::option::of(proptest::sample::select(of.to_vec()).prop_map(str::to_owned));
    (states, name(ACTIVITIES), name(TENANTS)).prop_map(|(states, activity, tenant)| ListFilter { states, activity, tenant })
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (1..12_usize, 0..6_i64, 0..12_i64, 1..4_usize).prop_map(|(window, few, sorted, stride)| Bounds { window, few, sorted, stride })
}

fn store(conn: &Connection, rows: &[Row]) {
    conn.execute_batch("BEGIN; DELETE FROM jobs; DELETE FROM job_counts; DELETE FROM job_verdicts").unwrap();
    let mut insert = conn
        .prepare_cached(
            "INSERT INTO jobs(job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at, \
                              finished_at) VALUES ('j', ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9)",
        )
        .unwrap();
    let run_id = RunId::generate(Timestamp::UNIX_EPOCH).to_string();
    for row in rows {
        for time in 0..row.times {
            let closed = (!row.state.is_open()).then_some(1);
            // What is due in no order of ids.
            let run_at = 100 - row.priority * 7 % 5 - i64::try_from(time).unwrap();
            let class = if row.gap { "waits" } else { "work" };
            let values =
                params![run_id, row.activity, row.version, class, row.tenant, row.state.as_str(), row.priority, run_at, closed];
            insert.execute(values).unwrap();
            let id = conn.last_insert_rowid();
            if row.gap && time == 0 && row.times > 1 {
                conn.execute("DELETE FROM jobs WHERE id = ?1", [id]).unwrap();
            } else if closed.is_some() {
                conn.execute("INSERT INTO job_verdicts(id, status, verdict) VALUES (?1, 'passed', '{}')", [id]).unwrap();
            }
        }
    }
    conn.execute_batch("INSERT INTO job_counts SELECT activity, tenant, state, count(*) FROM jobs GROUP BY 1, 2, 3; COMMIT")
        .unwrap();
}

/// What a filter selects, by reading every row.
fn naive(conn: &Connection, filter: &ListFilter) -> Vec<i64> {
    let mut statement = conn.prepare_cached("SELECT id, activity, tenant, state FROM jobs ORDER BY id DESC").unwrap();
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, String>(3)?))).unwrap();
    let selected = all.map(Result::unwrap).filter(|(_, activity, tenant, state): &(i64, String, String, String)| {
        (filter.states.is_empty() || filter.states.iter().any(|wanted| wanted.as_str() == state))
            && filter.activity.as_ref().is_none_or(|wanted| wanted == activity)
            && filter.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
    });
    selected.map(|(id, ..)| id).collect()
}

#[test]
fn the_pages_of_every_filter_are_those_of_a_walk_over_all_rows() {
    let dir = tempfile::tempdir().unwrap();
    let conn = open(dir.path());
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let case = (vec(row(), 0..25), vec((filter(), bounds(), 1..9_usize), 4));
    let outcome = runner.run(&case, |(rows, lists)| {
        store(&conn, &rows);
        for (filter, bounds, size) in lists {
            let expected = naive(&conn, &filter);
            let (mut cursor, mut pages) = (None, expected.chunks(size));
            loop {
                let page = read::list_within(&conn, &filter, size, cursor, &bounds).unwrap();
                let ids = newest(&conn, &filter, cursor.unwrap_or(i64::MAX), size, &bounds).unwrap();
                let wanted = pages.next().unwrap_or_default();
                prop_assert_eq!(&ids, wanted, "{:?} {:?}", filter, bounds);
                prop_assert_eq!(page.jobs.len(), wanted.len());
                let next = wanted.last().filter(|_| pages.len() > 0);
                prop_assert_eq!(page.next_cursor.clone(), next.map(ToString::to_string));
                cursor = next.copied();
                if cursor.is_none() {
                    break;
                }
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn every_statement_of_a_list_seeks_in_its_index_and_sorts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let conn = open(dir.path());
    for (sql, plan) in [
        (EVERY, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)"),
        (NEWEST, "SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)"),
        (OWNED, "SEARCH jobs USING COVERING INDEX jobs_by_owner (activity=? AND tenant=? AND rowid<?)"),
        (OWNED_STATES, "SEARCH jobs USING INDEX jobs_by_owner (activity=? AND tenant=? AND rowid<?)"),
        (CLOSED, "SEARCH job_verdicts USING INTEGER PRIMARY KEY (rowid<?)"),
        (
            DELAYED_OR_DEAD,
            "SEARCH jobs USING COVERING INDEX jobs_delayed_or_dead (activity=? AND tenant=? AND state=? AND rowid<?)",
        ),
        // As many entries as jobs run.
        (RUNNING, "SCAN jobs USING INDEX jobs_running"),
        (READY, "SEARCH jobs USING COVERING INDEX jobs_ready (activity=? AND activity_version=? AND slot_class=? AND tenant=?)"),
        // As many entries as there are pairs of activity and tenant.
        (COUNT_RUNNING, "SCAN job_counts"),
    ] {
        assert_eq!(plan_of(&conn, sql), plan, "{sql}");
    }
    let plan = plan_of(&conn, READY_KIND);
    for part in
        ["jobs_ready (activity=? AND activity_version=? AND slot_class>?)", "jobs_ready (activity=? AND activity_version>?)"]
    {
        assert!(plan.contains(part) && !plan.contains("SCAN jobs") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}

fn plan_of(conn: &Connection, sql: &str) -> String {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let values = vec![1; statement.parameter_count()];
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
    rows.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("; ")
}

/// A lane reads its own rows only, whatever is in the others, and of its own those of other states only where they are few.
#[test]
fn each_state_of_a_large_lane_is_read_by_what_tells_it_apart() {
    let dir = tempfile::tempdir().unwrap();
    let conn = open(dir.path());
    let bounds = Bounds { window: 1, few: 2, sorted: 4, stride: 2 };
    let one = |state, times| Row { activity: "a", tenant: "s", state, version: 1, priority: 3, times, gap: false };
    let mut rows = JobState::ALL.map(|state| one(state, 2)).to_vec();
    store(&conn, &rows);
    let sources = |states: &[JobState]| {
        let filter = ListFilter { states: states.to_vec(), ..ListFilter::default() };
        let lanes = lanes(&conn, &filter).unwrap();
        let mut planner = Planner::new(&conn, &bounds, &lanes).unwrap();
        lanes.iter().flat_map(|lane| planner.sources(lane).unwrap()).collect::<Vec<_>>()
    };
    let ids = |state: &str| {
        let mut statement = conn.prepare("SELECT id FROM jobs WHERE state = ?1 ORDER BY id").unwrap();
        let ids = statement.query_map([state], |row| row.get(0)).unwrap();
        ids.collect::<rusqlite::Result<Vec<i64>>>().unwrap()
    };
    for state in JobState::ALL {
        let expected = match state {
            JobState::Completed => Source::Checked(vec![state]),
            JobState::Available | JobState::Running => Source::Sorted(ids(state.as_str())),
            _ => Source::Exact(state),
        };
        assert_eq!(sources(&[state]), [expected], "{state}");
    }
    assert_eq!(sources(&JobState::ALL), [Source::Owned]);
    let mut all_but_two = JobState::ALL[1..].to_vec();
    all_but_two.sort_unstable_by_key(|state| state.as_str());
    assert_eq!(sources(&JobState::ALL[1..]), [Source::Checked(all_but_two)], "two others are few");

    rows.extend([one(JobState::Running, 3), one(JobState::Available, 3)]);
    store(&conn, &rows);
    for state in [JobState::Running, JobState::Available] {
        assert_eq!(sources(&[state]), [Source::Checked(vec![state])], "too many to sort");
    }
}

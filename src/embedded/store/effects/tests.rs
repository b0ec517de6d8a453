use std::collections::BTreeSet;

use iolaus_activities::EffectRegister;
use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::embedded::Durability;
use crate::embedded::store::maintenance::STEP;
use crate::embedded::store::schema;

/// What executions do with effects. Times are seconds.
#[derive(Debug, Clone)]
enum Step {
    Reserve { tenant: u8, owner: u8, key: u8, intents_since: i64, applied_since: Option<i64> },
    Settle { tenant: u8, owner: u8, key: u8, run: Option<u8> },
    Others { tenant: u8, owner: u8, key: u8, since: i64 },
    Pass { seconds: i64 },
    Prune,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (few, since) = (|| 0..2_u8, || -30..60_i64);
    let step = prop_oneof![
        4 => (few(), 0..4_u8, few(), since(), prop::option::of(since())).prop_map(|(tenant, owner, key, intents_since, applied_since)| {
            Step::Reserve { tenant, owner, key, intents_since, applied_since }
        }),
        3 => (few(), 0..4_u8, few(), prop::option::of(0..3_u8)).prop_map(|(tenant, owner, key, run)| Step::Settle { tenant, owner, key, run }),
        2 => (few(), 0..4_u8, few(), since()).prop_map(|(tenant, owner, key, since)| Step::Others { tenant, owner, key, since }),
        2 => prop_oneof![8 => 0..20_i64, 2 => -90..0_i64, 1 => Just(31 * 24 * 3_600 - 10)].prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Prune),
    ];
    prop::collection::vec(step, 1..40)
}

fn owner(n: u8) -> EffectOwner {
    EffectOwner { job_id: format!("job {}", n / 2), run_id: format!("run {n}") }
}

/// The register in memory and the one in a file, asked the same.
struct Both<'c> {
    memory: EffectRegister,
    conn: &'c Connection,
    begun: Timestamp,
    now: Timestamp,
}

impl Both<'_> {
    /// So many seconds before now, or after.
    fn ago(&self, seconds: i64) -> Timestamp {
        self.now - SignedDuration::from_secs(seconds)
    }

    fn take(&mut self, step: &Step) {
        let (conn, now) = (self.conn, self.now);
        match step {
            Step::Reserve { tenant, owner: of, key, intents_since, applied_since } => {
                let reservation = Reservation {
                    key: format!("key {key}"),
                    intents_since: self.ago(*intents_since),
                    applied_since: applied_since.map(|since| self.ago(since)),
                };
                let (tenant, of) = (format!("tenant {tenant}"), owner(*of));
                let stored = reserve(conn, &tenant, &of, &reservation, now).expect("it answers");
                assert_eq!(stored, self.memory.reserve(&tenant, &of, &reservation, now));
            }
            Step::Settle { tenant, owner: of, key, run } => {
                let outcome = run.map_or(EffectOutcome::NotApplied, |run| EffectOutcome::Applied { run: format!("run {run}") });
                let (tenant, key, of) = (format!("tenant {tenant}"), format!("key {key}"), owner(*of));
                let stored = settle(conn, &tenant, &of, &key, &outcome, now).expect("it answers");
                assert_eq!(stored, self.memory.settle(&tenant, &of, &key, &outcome, now));
            }
            Step::Others { tenant, owner: of, key, since } => {
                let (tenant, key, of) = (format!("tenant {tenant}"), format!("key {key}"), owner(*of));
                let stored = other_effects(conn, &tenant, &of, &key, self.ago(*since), now).expect("it answers");
                assert_eq!(stored, self.memory.others(&tenant, &of, &key, self.ago(*since), now));
            }
            // Back over the retention the two forget at different moments.
            Step::Pass { seconds } if *seconds < 0 && self.now.duration_since(self.begun) > SignedDuration::from_hours(24) => {}
            Step::Pass { seconds } => self.now += SignedDuration::from_secs(*seconds),
            Step::Prune => {
                let mut tx = Tx::new(conn, now, 0.5);
                while tx.prune_effects().expect("it prunes") {}
            }
        }
    }
}

fn open(dir: &tempfile::TempDir) -> Connection {
    let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
    conn.pragma_update(None, "synchronous", "OFF").unwrap();
    conn
}

#[test]
fn the_file_and_the_register_in_memory_answer_alike() {
    let dir = tempfile::tempdir().unwrap();
    let conn = open(&dir);
    proptest!(ProptestConfig::with_cases(1_000), |(steps in steps())| {
        conn.execute_batch("DELETE FROM effects").unwrap();
        let begun: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut both = Both { memory: EffectRegister::default(), conn: &conn, begun, now: begun };
        for step in &steps {
            both.take(step);
        }
    });
}

#[test]
fn old_effects_are_forgotten_a_bounded_number_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let conn = open(&dir);
    let begun: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    for n in 0..STEP + 10 {
        let owner = EffectOwner { job_id: "job".into(), run_id: n.to_string() };
        write(&conn, "default", "key", &owner, None, ms(begun)).unwrap();
    }
    let tx = || Tx::new(&conn, begun + EFFECT_RETENTION + SignedDuration::from_secs(1), 0.5);
    assert!(tx().prune_effects().unwrap());
    let left: i64 = conn.query_row("SELECT count(*) FROM effects", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 10);
    assert!(!tx().prune_effects().unwrap());
}

#[test]
fn a_reservation_looks_at_no_older_effects_than_it_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let conn = open(&dir);
    let plans: BTreeSet<String> = [IN_THE_WAY, OTHERS, OF_ANOTHER, REDATE, OLD]
        .into_iter()
        .map(|sql| {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let values = vec![1; statement.parameter_count()];
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get::<_, String>(3));
            rows.unwrap().collect::<rusqlite::Result<Vec<_>>>().unwrap().join("; ")
        })
        .collect();
    assert!(plans.iter().all(|plan| plan.contains("USING") && !plan.contains("SCAN")), "{plans:#?}");
    let by_time = plans.iter().filter(|plan| plan.contains("effects_by_time (tenant=? AND key=? AND at>?)")).count();
    assert!(by_time >= 1, "{plans:#?}");
}

#[test]
fn an_effect_that_cannot_be_read_is_in_the_way_of_its_own_key_alone() {
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::from_second(1_000_000).unwrap();
    let conn = schema::open_writer(&dir.path().join("t.db"), Durability::Full, now).unwrap();
    let reserved = |key: &str| {
        let reservation = Reservation { key: key.to_owned(), intents_since: now, applied_since: None };
        reserve(&conn, "t", &owner(0), &reservation, now).unwrap()
    };
    conn.execute_batch(
        "INSERT INTO effects VALUES (9, 't', 'a', CAST(x'ff' AS TEXT), CAST(x'ff' AS TEXT), NULL, 9223372036854775807)",
    )
    .unwrap();
    assert!(matches!(reserved("a"), Reserved::Conflict(others) if others.len() == 1));
    assert_eq!(reserved("b"), Reserved::Saved);
}

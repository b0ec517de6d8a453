//! A queue of its own whose write-ahead log is removed again and again. Two cases are promised different things:
//!
//! - A process has the files open and lives until it notices. It ends with the reason, an enqueue meanwhile is kept or refused, and nothing
//!   that was ever acknowledged is lost.
//! - All that had the files open are killed before they notice. What only the log held is lost with it, and the queue is what it was at
//!   some earlier moment; what is acknowledged after that is kept.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use iolaus::sandbox::SandboxOptions;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rustix::process::Signal;

use super::plan::{Kind, Random, Tally};
use super::{say, work_off};
use crate::cli::harness::{CONNECTION, Place, USER};

/// Queues whose log was removed under them.
pub(super) struct Removals {
    place: Place,
    /// What must be there.
    kept: BTreeSet<String>,
    /// Removals that no process lived to notice.
    unnoticed: u64,
}

impl Removals {
    pub(super) fn new() -> Self {
        Self { place: Place::with_tenant(SandboxOptions::default()), kept: BTreeSet::new(), unnoticed: 0 }
    }

    pub(super) fn suffer(&mut self, removals: u64, mut random: Random, tally: &Tally, over: &AtomicBool) {
        for n in 0..removals {
            if over.load(Ordering::SeqCst) {
                return;
            }
            self.remove(n, &mut random);
            tally.add(Kind::RemoveLog);
            self.all_kept_are_there(n);
        }
    }

    fn remove(&mut self, n: u64, random: &mut Random) {
        let mut worker = self.place.start("worker");
        worker.until("the worker is ready");
        self.enqueue(&format!("before-{n}"));
        random.linger(50);
        let is_noticed = random.below(3) != 0;
        if !is_noticed {
            worker.send(Signal::STOP);
        }
        for suffix in ["-wal", "-shm"].iter().take(1 + random.index(2)) {
            let mut path = self.place.database().into_os_string();
            path.push(suffix);
            fs::remove_file(path).unwrap();
        }
        if is_noticed {
            let during = format!("during-{n}");
            let ran = self.place.run(&line(&during));
            if ran.code == 0 {
                self.kept.insert(during);
            } else {
                assert!(ran.code == 6 && ran.stderr.contains("deleted or replaced"), "{ran:?}");
            }
            let ended = worker.end();
            assert!(ended.code == 6 && ended.stderr.contains("was deleted or replaced"), "{ended:?}");
        } else {
            worker.kill();
            self.unnoticed += 1;
            self.kept.clear();
        }
        self.enqueue(&format!("after-{n}"));
    }

    fn enqueue(&mut self, job_id: &str) {
        let ran = self.place.run(&line(job_id));
        assert_eq!(ran.code, 0, "{job_id}: {ran:?}");
        self.kept.insert(job_id.to_owned());
    }

    fn all_kept_are_there(&self, n: u64) {
        let file = Connection::open(self.place.database()).unwrap();
        // What this finds must not depend on what it moves from the log into the file.
        file.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        for job_id in &self.kept {
            let found: i64 = file.query_row("SELECT count(*) FROM jobs WHERE job_id = ?1", [job_id], |row| row.get(0)).unwrap();
            assert_eq!(found, 1, "acknowledged job {job_id}, after removal {n}, of {:?}", self.kept);
        }
    }

    /// One worker ends what is left: each job that is kept has one verdict, and nothing is wrong with the file.
    pub(super) fn check(&self) {
        work_off(&self.place);
        let file = Connection::open(self.place.database()).unwrap();
        for job_id in &self.kept {
            let sql = "SELECT count(*) FROM jobs j JOIN job_verdicts v ON v.id = j.id WHERE j.job_id = ?1 AND v.status = 'passed'";
            let verdicts: i64 = file.query_row(sql, [job_id], |row| row.get(0)).unwrap();
            assert_eq!(verdicts, 1, "acknowledged job {job_id}");
        }
        let checked = self.place.run("fsck");
        assert_eq!((checked.code, checked.json()["findings"].as_array().map(Vec::len)), (0, Some(0)), "{checked:?}");
        say(&format!("storm: {} removals that no process lived to notice; {} jobs are kept", self.unnoticed, self.kept.len()));
    }
}

fn line(job_id: &str) -> String {
    format!("enqueue publish_preflight {USER} {CONNECTION} --job-id {job_id}")
}

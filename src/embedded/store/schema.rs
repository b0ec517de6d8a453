//! Opens a database file and brings it to this build's schema. Files are numbered and append-only.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, ffi, params};

use super::rows::{lossy, ms};
use super::{StoreError, dying};
use crate::embedded::{Durability, permissions};

/// `IOLA`, so that `file(1)` and we know whose database it is.
pub(in crate::embedded) const APPLICATION_ID: u32 = 0x494F_4C41;
const SCHEMA: &[&str] = &[
    include_str!("schema/001_initial.sql"),
    include_str!("schema/002_worker_holds.sql"),
    include_str!("schema/003_counts.sql"),
    include_str!("schema/004_start_rates.sql"),
    include_str!("schema/005_effects_and_worker_tenants.sql"),
    include_str!("schema/006_worker_liveness.sql"),
    include_str!("schema/007_filters.sql"),
];
/// The schema version that this build reads and writes.
#[expect(clippy::cast_possible_wrap, reason = "a handful of files")]
pub(super) const VERSION: i64 = SCHEMA.len() as i64;
/// A worker that has not renewed its row for this long, in milliseconds, does not keep a file from being upgraded.
const SILENT_FOR_MS: i64 = 60_000;
/// What `PRAGMA auto_vacuum` answers for `INCREMENTAL`.
const INCREMENTAL: i64 = 2;
/// With as many executions an upgrade takes a second or more, and says so.
const MANY: i64 = 100_000;
/// A backstop: between our own processes the turnstile keeps order.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the one writing connection of a process, creating or migrating the file. The caller holds the turnstile. `now` tells workers
/// that are alive from those that are not, should the file be of an older schema.
pub(super) fn open_writer(path: &Path, durability: Durability, now: Timestamp) -> Result<Connection, StoreError> {
    permissions::create_private_file(path)?;
    dying::point();
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    keep_plans(&conn)?;
    if pragma(&conn, "application_id")? != i64::from(APPLICATION_ID) {
        if pragma(&conn, "page_count")? > 0 && !is_begun(&conn)? {
            return Err(StoreError::Foreign);
        }
        // In one transaction: what a kill leaves is empty, or says whose it is.
        let begin = format!("BEGIN; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = {APPLICATION_ID}; COMMIT");
        conn.execute_batch(&begin)?;
    }
    conn.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    conn.pragma_update(None, "foreign_keys", "OFF")?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -8192)?;
    // Each checkpoint writes every page that changed, and syncs twice: rarely, but before the log outgrows what reads like.
    conn.pragma_update(None, "wal_autocheckpoint", 4000)?;
    conn.pragma_update(None, "journal_size_limit", 64 << 20)?;
    conn.set_prepared_statement_cache_capacity(64);
    dying::point();
    migrate(&conn, now)?;
    dying::point();
    Ok(conn)
}

/// Whether it is a file that an earlier build created and was killed before it wrote whose it is: it has nothing but our kind of vacuum.
fn is_begun(conn: &Connection) -> Result<bool, StoreError> {
    let marks = [pragma(conn, "application_id")?, pragma(conn, "user_version")?, pragma(conn, "auto_vacuum")?];
    Ok(marks == [0, 0, INCREMENTAL] && conn.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
}

/// Opens a connection that only reads.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    keep_plans(&conn)?;
    conn.pragma_update(None, "query_only", true)?;
    // Otherwise the last one that is closed writes the log into the database, and takes it away.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    conn.pragma_update(None, "cache_size", -1024)?;
    Ok(conn)
}

/// Plans do not depend on what is bound. Otherwise SQLite compares each value with the conditions of the partial indexes, and for that
/// prepares a cached statement again at every use.
fn keep_plans(conn: &Connection) -> rusqlite::Result<()> {
    // What the schema of a file says, which may have been planted, runs no unsafe function, and nothing here writes past SQL.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// A table, index, trigger or view, as the schema of a file defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// `table`, `index`, `trigger` or `view`.
    pub(super) kind: String,
    pub(super) name: String,
    /// The table that it is, or belongs to.
    pub(super) table: String,
    /// The statement that creates it.
    pub(super) sql: String,
}

/// What the schema of a file holds, without what SQLite keeps for itself.
pub(super) fn objects(conn: &Connection) -> Result<Vec<Object>, StoreError> {
    let sql = "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
    let mut statement = conn.prepare(sql)?;
    let objects =
        statement.query_map([], |row| Ok(Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? }))?;
    Ok(objects.collect::<rusqlite::Result<_>>()?)
}

/// What the schema of a file of this build must hold.
pub(super) fn expected_objects() -> Result<Vec<Object>, StoreError> {
    let conn = Connection::open_in_memory()?;
    for file in SCHEMA {
        conn.execute_batch(file)?;
    }
    objects(&conn)
}

/// From now on closing this connection changes no file: those that are at the database's path are not its own.
pub(super) fn leave_files_alone(conn: &Connection) -> Result<(), StoreError> {
    Ok(conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)?)
}

/// Whether it is a database of ours that this build can write as it is.
pub(super) fn is_current(conn: &Connection) -> Result<bool, StoreError> {
    Ok(pragma(conn, "application_id")? == i64::from(APPLICATION_ID) && pragma(conn, "user_version")? == VERSION)
}

/// Refuses a file that a newer build has upgraded meanwhile. Asked in every write transaction.
pub(super) fn check_version(conn: &Connection) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached("PRAGMA user_version")?;
    let version: i64 = statement.query_row([], |row| row.get(0))?;
    if version > VERSION {
        let by = conn.query_row("SELECT value FROM meta WHERE name = 'upgraded_by'", [], |row| row.get(0)).optional()?;
        return Err(StoreError::Upgraded { by: by.unwrap_or_else(|| "a newer version".to_owned()) });
    }
    Ok(())
}

/// Refuses a file that is not ours, or not of this build's schema.
pub(super) fn check_current(conn: &Connection) -> Result<(), StoreError> {
    if pragma(conn, "application_id")? != i64::from(APPLICATION_ID) {
        return Err(StoreError::Foreign);
    }
    check_version(conn)?;
    match pragma(conn, "user_version")? {
        VERSION => Ok(()),
        version => Err(StoreError::OldSchema { version }),
    }
}

fn migrate(conn: &Connection, now: Timestamp) -> Result<(), StoreError> {
    check_version(conn)?;
    if pragma(conn, "user_version")? == VERSION {
        return Ok(());
    }
    // New indexes over many rows are sorted in files: the memory for it would grow with the queue.
    conn.pragma_update(None, "temp_store", "FILE")?;
    let mut migrated = migrate_at_once(conn, now);
    if matches!(&migrated, Err(StoreError::Sql(error)) if lacks_temporary_files(error)) {
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        migrated = migrate_at_once(conn, now);
    }
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    migrated
}

/// Whether no directory for temporary files can be written to, as in a container with a read-only root.
fn lacks_temporary_files(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| [ffi::SQLITE_IOERR_GETTEMPPATH, ffi::SQLITE_CANTOPEN].contains(&error.extended_code))
}

fn migrate_at_once(conn: &Connection, now: Timestamp) -> Result<(), StoreError> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    let migrated = migrate_within(conn, now);
    conn.execute_batch(if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    migrated
}

fn migrate_within(conn: &Connection, now: Timestamp) -> Result<(), StoreError> {
    let from = usize::try_from(pragma(conn, "user_version")?).unwrap_or(usize::MAX);
    if from > 0 {
        // Whoever is registered in a file of an older schema is of an older build, whatever version it says it is. All processes of a
        // file are on one machine, and share its clock. A worker that only seems dead is told by its next write that the file was
        // upgraded, and writes nothing more.
        let other: Option<String> = conn
            .query_row("SELECT version FROM workers WHERE abs(?1 - beat_at) < ?2 LIMIT 1", params![ms(now), SILENT_FOR_MS], |row| {
                lossy(row, 0)
            })
            .optional()?;
        if let Some(version) = other {
            return Err(StoreError::OldWorker { version });
        }
    }
    let executions = if from > 0 { executions(conn)? } else { 0 };
    if executions >= MANY {
        let path = conn.path().unwrap_or_default();
        tracing::warn!(
            path,
            from,
            to = VERSION,
            executions,
            "the file is being upgraded; every process that opens it waits meanwhile"
        );
    }
    for file in SCHEMA.iter().skip(from) {
        conn.execute_batch(file)?;
        dying::point();
    }
    conn.execute(
        "INSERT INTO meta(name, value) VALUES ('upgraded_by', ?1) ON CONFLICT(name) DO UPDATE SET value = excluded.value",
        [concat!("iolaus ", env!("CARGO_PKG_VERSION"))],
    )?;
    conn.pragma_update(None, "user_version", VERSION)?;
    if executions >= MANY {
        tracing::warn!(to = VERSION, executions, "the file is upgraded");
    }
    Ok(())
}

/// About how many executions a file has: at least as many as there are.
fn executions(conn: &Connection) -> Result<i64, StoreError> {
    let ends = "SELECT coalesce((SELECT max(id) FROM jobs) - (SELECT min(id) FROM jobs) + 1, 0)";
    Ok(conn.query_row(ends, [], |row| row.get(0))?)
}

fn pragma(conn: &Connection, name: &str) -> Result<i64, StoreError> {
    Ok(conn.pragma_query_value(None, name, |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_what_it_is_and_how_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        let text = |name: &str| conn.pragma_query_value::<String, _>(None, name, |row| row.get(0)).unwrap();
        assert_eq!(pragma(&conn, "application_id").unwrap(), i64::from(APPLICATION_ID));
        assert_eq!(pragma(&conn, "auto_vacuum").unwrap(), 2, "incremental");
        assert_eq!(pragma(&conn, "synchronous").unwrap(), 2, "full");
        assert_eq!(text("journal_mode"), "wal");
    }

    #[test]
    fn what_a_file_says_in_its_schema_is_not_trusted_and_the_schema_itself_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let writer = open_writer(&path, Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        for conn in [writer, open_reader(&path).unwrap()] {
            let is_set = |config| conn.db_config(config).unwrap();
            assert!(!is_set(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA) && is_set(DbConfig::SQLITE_DBCONFIG_DEFENSIVE));
            assert_eq!(pragma(&conn, "trusted_schema").unwrap(), 0);
            let planted = "PRAGMA query_only = OFF; PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = ''";
            let refused = conn.execute_batch(planted).unwrap_err();
            assert!(refused.to_string().contains("may not be modified"), "{refused}");
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
        assert!(matches!(open_writer(&path, Durability::Full, Timestamp::UNIX_EPOCH), Err(StoreError::Foreign)));
    }

    #[test]
    fn a_file_that_was_begun_and_has_nothing_in_it_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        Connection::open(&path).unwrap().pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() > 0);
        let conn = open_writer(&path, Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        assert!(is_current(&conn).unwrap());
        let theirs = dir.path().join("theirs.db");
        Connection::open(&theirs).unwrap().execute_batch("PRAGMA auto_vacuum = INCREMENTAL; CREATE TABLE theirs(x)").unwrap();
        assert!(matches!(open_writer(&theirs, Durability::Full, Timestamp::UNIX_EPOCH), Err(StoreError::Foreign)));
    }

    #[test]
    fn a_file_from_a_newer_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let conn = open_writer(&dir.path().join("t.db"), Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        conn.execute("UPDATE meta SET value = 'iolaus 9.0.0'", []).unwrap();
        conn.pragma_update(None, "user_version", VERSION + 1).unwrap();
        let refused = check_version(&conn).unwrap_err();
        assert_eq!(refused.to_string(), "the file was upgraded by iolaus 9.0.0; restart with that version");
    }

    fn first_schema(path: &Path, worker_version: &str) {
        let conn = Connection::open(path).unwrap();
        conn.pragma_update(None, "auto_vacuum", "INCREMENTAL").unwrap();
        conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        conn.execute_batch(SCHEMA[0]).unwrap();
        let worker = format!(
            "INSERT INTO workers(name, version, activities, beat_at, started_at) VALUES ('w', '{worker_version}', '[]', 1000, 0); \
             PRAGMA user_version = 1"
        );
        conn.execute_batch(&worker).unwrap();
    }

    #[test]
    fn a_file_of_the_first_schema_is_upgraded_unless_a_worker_of_it_is_alive_whatever_its_version_says() {
        let dir = tempfile::tempdir().unwrap();
        let at = |ms: i64| Timestamp::from_millisecond(1_000 + ms).unwrap();
        for worker in ["0.0.1", env!("CARGO_PKG_VERSION")] {
            let path = dir.path().join(worker);
            first_schema(&path, worker);
            for alive in [at(0), at(59_999), at(-59_999)] {
                assert!(
                    matches!(open_writer(&path, Durability::Full, alive), Err(StoreError::OldWorker { version }) if version == worker)
                );
            }
            let conn = open_writer(&path, Durability::Full, at(60_000)).unwrap();
            assert_eq!(pragma(&conn, "user_version").unwrap(), VERSION);
            assert_eq!(conn.query_row("SELECT count(*) FROM worker_holds", [], |row| row.get(0)), Ok(0));
        }
    }

    #[test]
    fn the_rows_of_a_file_of_the_sixth_schema_are_in_the_indexes_of_the_seventh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let conn = Connection::open(&path).unwrap();
        conn.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        for file in &SCHEMA[..6] {
            conn.execute_batch(file).unwrap();
        }
        conn.execute_batch(
            "WITH states(state) AS (VALUES ('scheduled'), ('available'), ('running'), ('retryable'), ('completed'), ('discarded'), \
                                           ('cancelled')) \
             INSERT INTO jobs(job_id, run_id, activity, activity_version, slot_class, tenant, state, priority, run_at, enqueued_at) \
             SELECT state, state, 'a', 1, 'work', 't', state, 3, 0, 0 FROM states; \
             PRAGMA user_version = 6",
        )
        .unwrap();
        drop(conn);
        let conn = open_writer(&path, Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        let rows = |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(rows("SELECT count(*) FROM jobs INDEXED BY jobs_by_owner WHERE activity = 'a' AND tenant = 't'"), 7);
        let rare = "SELECT count(*) FROM jobs INDEXED BY jobs_delayed_or_dead \
                    WHERE state IN ('scheduled', 'retryable', 'discarded', 'cancelled') AND activity = 'a' AND tenant = 't'";
        assert_eq!(rows(rare), 4);
        assert_eq!(pragma(&conn, "temp_store").unwrap(), 2, "memory");
        assert_eq!(executions(&conn).unwrap(), 7);
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let conn = open_writer(&path, Durability::Full, Timestamp::UNIX_EPOCH).unwrap();
        conn.execute("INSERT INTO meta VALUES ('a', 'b')", []).unwrap();
        for file in ["t.db", "t.db-wal", "t.db-shm"] {
            let mode = std::fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}

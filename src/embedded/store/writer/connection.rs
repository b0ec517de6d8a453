//! The connection of the writer thread: opened when it is first needed, opened again after a failure, given up when its files are gone.

use iolaus_activities::Clock as _;
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::Writer;
use crate::embedded::store::operation::{Kind, Operation};
use crate::embedded::store::{StoreError, opening, schema};

impl Writer {
    /// Waits for the first operation and opens the connection that writes, which needs the turnstile. A process that only reads never
    /// comes here. What cannot be done is answered with the reason.
    pub(super) fn open_when_asked(&mut self, operations: &mut mpsc::Receiver<Operation>) -> Option<Operation> {
        while let Some(first) = operations.blocking_recv() {
            match self.open_connection() {
                Ok(conn) => {
                    self.conn = conn;
                    self.publish_timers();
                    return Some(first);
                }
                Err(error) => {
                    if error.is_final() {
                        self.hub.fail(error.clone());
                    }
                    // The other kinds are asked for again: a worker is registered before anything else.
                    if let Kind::Run(run) = first.into_kind() {
                        run.answer(Err(error.clone()));
                    }
                    self.hub.add_served(1);
                    if error.is_final() {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// The files of this connection are not there any more. What is committed in a log that was removed is written into the database, if
    /// nothing else can have written to that since; after that the connection leaves all files alone.
    pub(super) fn give_up_files(&self) -> Result<(), StoreError> {
        let now = self.place.identity()?;
        if now.is_some_and(|now| now.database == self.identity.database && now.wal.is_none()) {
            let busy = self.conn.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get::<_, bool>(0));
            match busy {
                Ok(false) => tracing::warn!("the log was removed; what was committed in it is in the database"),
                Ok(true) => tracing::error!("the log was removed; a read kept what was committed in it from the database"),
                Err(error) => tracing::error!(%error, "the log was removed; what was committed in it could not be written"),
            }
        }
        schema::leave_files_alone(&self.conn)
    }

    fn open_connection(&self) -> Result<Connection, StoreError> {
        let _turn = self.turnstile.enter_or_give_up()?;
        self.place.verify(&self.identity)?;
        opening::open_writer(&self.place, self.durability, self.clock.now())
    }

    /// After a failed transaction nothing is assumed of the connection.
    pub(super) fn reopen(&mut self) {
        match self.open_connection() {
            Ok(conn) => self.conn = conn,
            Err(error) => {
                if let Some(repeated) = self.hub.log_due(&error, self.clock.monotonic()) {
                    tracing::error!(%error, repeated, "the database could not be opened again; the next operation tries once more");
                }
            }
        }
        self.maybe_ready = true;
    }
}

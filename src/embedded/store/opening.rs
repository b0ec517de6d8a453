//! Opening the database: beside others without any lock, alone under the turnstile. A process that only reads never waits for the lock.

use std::sync::Arc;

use iolaus_activities::Clock as _;
use jiff::Timestamp;
use rusqlite::Connection;

use super::in_use::InUse;
use super::turnstile::Turnstile;
use super::{StoreError, schema};
use crate::embedded::files::{Identity, StateDirectory};
use crate::embedded::queue_clock::QueueClock;
use crate::embedded::{Durability, EmbeddedOptions};

/// An open database.
pub(super) struct Opened {
    pub(super) place: Arc<StateDirectory>,
    /// The files that it is made of for as long as it is open.
    pub(super) identity: Identity,
    pub(super) turnstile: Arc<Turnstile>,
    /// Held for as long as a connection is open.
    pub(super) in_use: Arc<InUse>,
    pub(super) connection: First,
    pub(super) durability: Durability,
}

/// The connection that is open as long as the database is: SQLite takes the log away when the last one of all processes is closed.
pub(super) enum First {
    Writer(Connection),
    /// The writer's is opened when there is something to write.
    Reader(Connection),
}

impl Opened {
    pub(super) fn new(options: &EmbeddedOptions, place: &Arc<StateDirectory>, clock: &QueueClock) -> Result<Self, StoreError> {
        let turnstile = Arc::new(Turnstile::open(place)?);
        let in_use = Arc::new(InUse::new(place)?);
        let (connection, identity) = if let Some((reader, identity)) = join(place, &in_use, clock)? {
            (First::Reader(reader), identity)
        } else {
            let _turn = in_use.enter(place, &turnstile, clock)?;
            let writer = open_writer(place, options.durability, clock.now())?;
            let identity = place.identity()?.ok_or_else(|| StoreError::Replaced { path: place.database().to_owned() })?;
            in_use.record(place, &identity, clock)?;
            (First::Writer(writer), identity)
        };
        Ok(Self { place: place.clone(), identity, turnstile, in_use, connection, durability: options.durability })
    }
}

/// Opens the connection that writes. The caller holds the turnstile.
pub(super) fn open_writer(place: &StateDirectory, durability: Durability, now: Timestamp) -> Result<Connection, StoreError> {
    schema::open_writer(place.database(), durability, now).map_err(|error| place.blame(error))
}

/// Opens it beside others that have it open, if there are any, and it needs no change.
fn join(place: &StateDirectory, in_use: &InUse, clock: &QueueClock) -> Result<Option<(Connection, Identity)>, StoreError> {
    let Some(identity) = place.identity()?.filter(|files| files.wal.is_some() && files.shm.is_some()) else { return Ok(None) };
    if !in_use.join(place, &identity, clock)? {
        return Ok(None);
    }
    let reader = schema::open_reader(place.database()).and_then(|conn| schema::is_current(&conn).map(|current| (conn, current)));
    match reader {
        Ok((conn, true)) if place.verify(&identity).is_ok() => Ok(Some((conn, identity))),
        // Opening it to write says what is wrong.
        _ => in_use.leave().map(|()| None),
    }
}

//! Which activities and tenants are paused: nothing of them is started.

use std::collections::HashSet;

use rusqlite::Connection;

use super::StoreError;

pub(super) fn paused(conn: &Connection) -> Result<Paused, StoreError> {
    let mut statement = conn.prepare_cached("SELECT kind, name FROM pauses")?;
    let mut rows = statement.query([])?;
    let mut paused = HashSet::new();
    while let Some(row) = rows.next()? {
        // What cannot be read names no activity and no tenant, and pauses none.
        if let (Ok(kind), Ok(name)) = (row.get_ref(0)?.as_str(), row.get_ref(1)?.as_str()) {
            paused.insert((kind.to_owned(), name.to_owned()));
        }
    }
    Ok(Paused(paused))
}

pub(super) struct Paused(HashSet<(String, String)>);

impl Paused {
    pub(super) fn contains(&self, (kind, name): &(&str, &str)) -> bool {
        !self.0.is_empty() && self.0.contains(&((*kind).to_owned(), (*name).to_owned()))
    }
}

//! Which tenants' jobs a worker takes: those that it has an address and credentials for. A job of another tenant stays available for a
//! worker that can serve it.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};

use super::{StoreError, Tx, rows};

/// The tenants that a worker serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum ServedTenants {
    /// Whatever a job names: a worker without any tenant, whose activities ask none.
    #[default]
    All,
    /// These.
    Only(BTreeSet<String>),
}

impl ServedTenants {
    pub(crate) fn contains(&self, tenant: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(tenants) => tenants.contains(tenant),
        }
    }
}

impl Tx<'_> {
    /// Stores which tenants a worker serves. In a table of its own: the worker's row is written again at every beat.
    pub(super) fn note_served(&self, worker_id: i64, served: &ServedTenants) -> Result<(), StoreError> {
        if let ServedTenants::Only(tenants) = served {
            let mut statement = self.conn.prepare_cached("INSERT INTO worker_tenants(worker_id, tenants) VALUES (?1, ?2)")?;
            statement.execute(params![worker_id, rows::to_json(tenants)?])?;
        }
        Ok(())
    }

    pub(super) fn forget_served(&self, worker_id: i64) -> Result<(), StoreError> {
        self.conn.execute("DELETE FROM worker_tenants WHERE worker_id = ?1", [worker_id])?;
        Ok(())
    }

    /// What to add for people about a job that waited too long because no registered worker serves its tenant. `None` when one does, or
    /// when there is no worker at all.
    pub(super) fn not_served(&self, tenant: &str) -> Result<Option<String>, StoreError> {
        Ok((any_worker(self.conn)? && !is_served(self.conn, tenant)?)
            .then(|| format!("; no worker has an address and credentials for tenant {tenant}")))
    }
}

fn any_worker(conn: &Connection) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached("SELECT 1 FROM workers WHERE job_id IS NULL LIMIT 1")?.exists([])?)
}

fn is_served(conn: &Connection, tenant: &str) -> Result<bool, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT 1 FROM workers w LEFT JOIN worker_tenants t ON t.worker_id = w.id \
         WHERE w.job_id IS NULL AND (t.tenants IS NULL OR EXISTS (SELECT 1 FROM json_each(iif(json_valid(t.tenants), t.tenants, '[]')) WHERE value = ?1)) LIMIT 1",
    )?;
    Ok(statement.exists([tenant])?)
}

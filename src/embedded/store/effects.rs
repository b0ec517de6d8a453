//! What the executions of this file know of each other's effects, stored together with their checkpoints. The rules are those of
//! `EffectRegister`, which keeps the same in memory; a test compares the two.

use iolaus_activities::{
    EFFECT_RETENTION, EffectOutcome, EffectOwner, EffectState, MAX_OTHER_EFFECTS, OtherEffect, Reservation, Reserved,
};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, named_params, params};
use serde_json::Value;

use super::rows::{self, ms};
use super::{StoreError, Tx, dying};

/// Other executions' records that are in the way of a reservation.
const IN_THE_WAY: &str = "SELECT job_id, run_id, run, at FROM effects \
     WHERE tenant = :tenant AND key = :key AND at >= :since AND NOT (run_id = :run_id AND job_id = :job_id) \
       AND ((run IS NULL AND at >= :intents) OR (run IS NOT NULL AND at >= :applied)) \
     ORDER BY at DESC, job_id, run_id LIMIT :limit";
const OTHERS: &str = "SELECT job_id, run_id, run, at FROM effects \
     WHERE tenant = :tenant AND key = :key AND at >= :since AND NOT (run_id = :run_id AND job_id = :job_id) \
     ORDER BY at DESC, job_id, run_id LIMIT :limit";
const OF_ANOTHER: &str = "SELECT 1 FROM effects \
     WHERE tenant = :tenant AND key = :key AND run = :run AND at >= :oldest AND NOT (run_id = :run_id AND job_id = :job_id)";
/// A step of the clock leaves records in the future, which would be in the way until the clock is there again.
const REDATE: &str = "UPDATE effects SET at = ?3 WHERE tenant = ?1 AND key = ?2 AND at > ?3";
const OLD: &str = "SELECT id FROM effects WHERE at < ?1 ORDER BY at LIMIT ?2";

impl Tx<'_> {
    /// Makes a checkpoint and an intent durable, or neither. None if the attempt does not own its lease any more.
    pub(crate) fn reserve_effect(
        &mut self,
        id: i64,
        token: i64,
        checkpoint: &Value,
        reservation: &Reservation,
    ) -> Result<Option<Reserved>, StoreError> {
        let Some((tenant, owner)) = self.owner(id, token)? else { return Ok(None) };
        let reserved = reserve(self.conn, &tenant, &owner, reservation, self.now)?;
        dying::point();
        if reserved == Reserved::Saved {
            self.save_checkpoint(id, token, checkpoint)?;
        }
        Ok(Some(reserved))
    }

    /// Makes a checkpoint and the end of an intent durable, or neither: that is false. None if the attempt does not own its lease any
    /// more.
    pub(crate) fn settle_effect(
        &mut self,
        id: i64,
        token: i64,
        checkpoint: &Value,
        key: &str,
        outcome: &EffectOutcome,
    ) -> Result<Option<bool>, StoreError> {
        let Some((tenant, owner)) = self.owner(id, token)? else { return Ok(None) };
        let settled = settle(self.conn, &tenant, &owner, key, outcome, self.now)?;
        dying::point();
        if settled {
            self.save_checkpoint(id, token, checkpoint)?;
        }
        Ok(Some(settled))
    }

    /// Forgets effects that are older than their retention, a few at a time. True when there may be more.
    pub(crate) fn prune_effects(&mut self) -> Result<bool, StoreError> {
        let limit = self.maintenance.limit();
        let old = self.ids(OLD, params![oldest(self.now), limit])?;
        for id in &old {
            self.conn.prepare_cached("DELETE FROM effects WHERE id = ?1")?.execute([id])?;
        }
        Ok(self.maintenance.took(old.len(), limit))
    }

    /// The tenant and the name of an execution, if this attempt owns its lease.
    fn owner(&self, id: i64, token: i64) -> Result<Option<(String, EffectOwner)>, StoreError> {
        let mut statement = self
            .conn
            .prepare_cached("SELECT tenant, job_id, run_id FROM jobs WHERE id = ?1 AND lease_token = ?2 AND state = 'running'")?;
        let owner = statement
            .query_row(params![id, token], |row| Ok((row.get(0)?, EffectOwner { job_id: row.get(1)?, run_id: row.get(2)? })));
        Ok(owner.optional()?)
    }
}

/// The effects of other executions under a key whose intents were saved at or after `since`, the newest first.
pub(crate) fn other_effects(
    conn: &Connection,
    tenant: &str,
    owner: &EffectOwner,
    key: &str,
    since: Timestamp,
    now: Timestamp,
) -> Result<Vec<OtherEffect>, StoreError> {
    let since = ms(since).max(oldest(now));
    let (run_id, job_id) = (&owner.run_id, &owner.job_id);
    effects(
        conn,
        OTHERS,
        named_params! { ":tenant": tenant, ":key": key, ":since": since, ":run_id": run_id, ":job_id": job_id, ":limit": limit() },
    )
}

fn reserve(
    conn: &Connection,
    tenant: &str,
    owner: &EffectOwner,
    reservation: &Reservation,
    now: Timestamp,
) -> Result<Reserved, StoreError> {
    let (run_id, job_id, key) = (&owner.run_id, &owner.job_id, &reservation.key);
    conn.prepare_cached(REDATE)?.execute(params![tenant, key, ms(now)])?;
    let intents = ms(reservation.intents_since);
    let applied = reservation.applied_since.map_or(i64::MAX, ms);
    let since = intents.min(applied).max(oldest(now));
    let conflicts = effects(
        conn,
        IN_THE_WAY,
        named_params! {
            ":tenant": tenant, ":key": key, ":since": since, ":run_id": run_id, ":job_id": job_id,
            ":intents": intents, ":applied": applied, ":limit": limit(),
        },
    )?;
    if !conflicts.is_empty() {
        return Ok(Reserved::Conflict(conflicts));
    }
    write(conn, tenant, key, owner, None, ms(now))?;
    Ok(Reserved::Saved)
}

fn settle(
    conn: &Connection,
    tenant: &str,
    owner: &EffectOwner,
    key: &str,
    outcome: &EffectOutcome,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let (run_id, job_id, oldest) = (&owner.run_id, &owner.job_id, oldest(now));
    let EffectOutcome::Applied { run } = outcome else {
        conn.prepare_cached("DELETE FROM effects WHERE tenant = ?1 AND key = ?2 AND run_id = ?3 AND job_id = ?4")?
            .execute(params![tenant, key, run_id, job_id])?;
        return Ok(true);
    };
    let of_another = conn.prepare_cached(OF_ANOTHER)?.exists(
        named_params! { ":tenant": tenant, ":key": key, ":run": run, ":oldest": oldest, ":run_id": run_id, ":job_id": job_id },
    )?;
    if of_another {
        return Ok(false);
    }
    let intended: Option<i64> = conn
        .prepare_cached("SELECT at FROM effects WHERE tenant = ?1 AND key = ?2 AND run_id = ?3 AND job_id = ?4 AND at >= ?5")?
        .query_row(params![tenant, key, run_id, job_id, oldest], |row| row.get(0))
        .optional()?;
    write(conn, tenant, key, owner, Some(run), intended.unwrap_or(ms(now)))?;
    Ok(true)
}

fn write(conn: &Connection, tenant: &str, key: &str, owner: &EffectOwner, run: Option<&str>, at: i64) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO effects(tenant, key, job_id, run_id, run, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT(tenant, key, run_id, job_id) DO UPDATE SET run = excluded.run, at = excluded.at",
    )?
    .execute(params![tenant, key, owner.job_id, owner.run_id, run, at])?;
    Ok(())
}

fn effects(conn: &Connection, sql: &str, params: &[(&str, &dyn ToSql)]) -> Result<Vec<OtherEffect>, StoreError> {
    let mut statement = conn.prepare_cached(sql)?;
    let effects = statement.query_map(params, effect)?.collect::<rusqlite::Result<_>>()?;
    Ok(effects)
}

fn effect(row: &Row<'_>) -> rusqlite::Result<OtherEffect> {
    // One that cannot be read is in the way all the same: what it stands for may have been done.
    Ok(OtherEffect {
        owner: EffectOwner { job_id: rows::lossy(row, 0)?, run_id: rows::lossy(row, 1)? },
        state: rows::optional_lossy(row, 2)?.map_or(EffectState::Intent, |run| EffectState::Applied { run }),
        at: rows::nearest_time(row, 3)?,
    })
}

fn oldest(now: Timestamp) -> i64 {
    now.saturating_sub(EFFECT_RETENTION).map_or(i64::MIN, ms)
}

fn limit() -> i64 {
    i64::try_from(MAX_OTHER_EFFECTS).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

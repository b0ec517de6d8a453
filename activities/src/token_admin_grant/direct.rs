//! The direct grant: read, write that list and the token, read back, while no other job of this process does the same. What other
//! processes write at the same moment shows itself a little later, so a grant that was read back is looked at once more.

use serde::{Deserialize, Serialize};

use super::{Grant, Progress, Way};
use crate::activity::ActivityError;
use crate::follow::alive;
use crate::tenant::{AdminsWritten, Connection, new_request_id};
use crate::verdict::Verdict;

/// How often a write is taken without effect before that is the tenant's answer.
const MAX_WRITES_WITHOUT_EFFECT: u32 = 3;
/// How often a token may disappear again because another writer replaced the list.
const MAX_OVERWRITES: u32 = 10;

/// What was written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Writes {
    /// The id of a write whose effect is not known.
    sent: Option<String>,
    /// How many writes the tenant took without the token being there afterwards.
    without_effect: u32,
    /// How often the token was there and was gone again a little later.
    #[serde(default)]
    overwritten: u32,
}

impl Grant<'_> {
    pub(super) async fn directly(&self, mut writes: Writes) -> Result<Verdict, ActivityError> {
        loop {
            if let Some(verdict) = self.round(&mut writes).await? {
                return Ok(verdict);
            }
        }
    }

    /// One write, saved before it is sent, and what the connection shows of it. None: it was taken without effect, and another one
    /// makes sense.
    async fn round(&self, writes: &mut Writes) -> Result<Option<Verdict>, ActivityError> {
        let request_id = new_request_id();
        writes.sent = Some(request_id.clone());
        self.save(Way::Direct(writes.clone())).await?;
        let name = &self.input.connection_qualified_name;
        let progress = Progress { step: "granting directly", connection: name };
        // Saved before the turn is taken, so that nothing slow stands between the read and the write.
        let turn = alive(self.ctx, &progress, self.tenant.turn_at(name)).await?;
        let before = self.look("granting directly").await??;
        if self.is_seen(&before) {
            // Our write, or a list of another writer that still had the token: neither need last.
            drop(turn);
            return self.look_again(writes, before).await;
        }
        let admins: Vec<_> = before.admin_users.iter().chain([&self.user]).cloned().collect();
        let permit = alive(self.ctx, &progress, self.tenant.ready("connections.write_admins")).await??;
        self.ctx.may_act()?;
        let write = self.tenant.write_admin_users(permit, &before, &admins, &request_id);
        let written = self.ctx.effect(self.tenant.longest_effect(), write).await;
        if let AdminsWritten::NotApplied(failure) = written {
            writes.sent = None;
            self.save(Way::Direct(writes.clone())).await?;
            return Err(self.permitted(failure).into());
        }
        let after = self.read_back().await?;
        if self.is_seen(&after) {
            drop(turn);
            return self.look_again(writes, after).await;
        }
        if let AdminsWritten::UnknownFate(failure) = written {
            // Settled: it was not applied, as far as the connection shows. The next attempt reads again, and no sooner than asked for.
            return Err(failure.into());
        }
        drop(turn);
        // The tenant may read the connection from a cache that does not have the write yet.
        let after = self.read_back_later("waiting for the connection to show the token").await?.unwrap_or(after);
        if self.is_seen(&after) {
            return self.look_again(writes, after).await;
        }
        writes.without_effect += 1;
        tracing::warn!(connection = name, rounds = writes.without_effect, "a list of admins was taken, but the token is not in it");
        if writes.without_effect < MAX_WRITES_WITHOUT_EFFECT {
            return Ok(None);
        }
        let message =
            format!("{name} was given {} as an admin {MAX_WRITES_WITHOUT_EFFECT} times, and shows no such admin", self.user);
        Ok(Some(self.verdict(false, message, &after, Some("direct"))))
    }

    /// Looks once more after a while: another process that read the connection before our write replaces our list by its own. None: the
    /// token is gone again, and another write makes sense.
    async fn look_again(&self, writes: &mut Writes, seen: Connection) -> Result<Option<Verdict>, ActivityError> {
        let Some(after) = self.read_back_later("looking once more").await? else {
            return Ok(Some(self.seen(&seen, &Way::Direct(writes.clone()))));
        };
        if self.is_seen(&after) {
            return Ok(Some(self.seen(&after, &Way::Direct(writes.clone()))));
        }
        writes.overwritten += 1;
        let (name, times) = (&after.qualified_name, writes.overwritten);
        tracing::warn!(connection = name, times, "another writer replaced the list of admins; granting again");
        if times < MAX_OVERWRITES {
            return Ok(None);
        }
        let message = format!("{} was an admin of {name} {times} times, and another writer replaced the list each time", self.user);
        Ok(Some(self.verdict(false, message, &after, Some("direct"))))
    }

    /// The connection as it is `grant_recheck` later; None if that is no time.
    pub(super) async fn read_back_later(&self, step: &'static str) -> Result<Option<Connection>, ActivityError> {
        let recheck = self.tenant.settings().grant_recheck;
        if recheck.is_zero() {
            return Ok(None);
        }
        // Not in step with the others, so that one of them is the last to write.
        let wait = recheck.mul_f64(self.ctx.random().mul_add(0.5, 0.75));
        let progress = Progress { step, connection: &self.input.connection_qualified_name };
        let waited = alive(self.ctx, &progress, self.ctx.clock().sleep(wait)).await;
        waited.map_err(|stop| self.stopped_after_sending(stop))?;
        self.read_back().await.map(Some)
    }
}

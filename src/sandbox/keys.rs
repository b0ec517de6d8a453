//! Which bearers the tenant accepts: those that it was seeded with, and those that it issued, which expire by its clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::identity::Principal;

/// Expired bearers are dropped when more than so many stand.
const MAX_KEPT: usize = 10_000;

/// The bearers, by their value.
#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: BTreeMap<String, Key>,
}

#[derive(Debug)]
struct Key {
    principal: Arc<Principal>,
    /// Of an issued one: the client to which, and when it ends.
    issued: Option<Issued>,
    revoked: bool,
}

/// To whom a bearer was issued, and until when (Unix milliseconds) it is accepted.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) client_id: String,
    pub(super) until: i64,
}

impl Keys {
    /// Who holds this bearer, if it is accepted now.
    pub(super) fn holder(&self, bearer: &str, now: i64) -> Option<Arc<Principal>> {
        let key = self.keys.get(bearer).filter(|key| !key.revoked)?;
        key.issued.as_ref().is_none_or(|issued| now < issued.until).then(|| key.principal.clone())
    }

    /// The client to which this bearer was issued, if it is accepted now.
    pub(super) fn client(&self, bearer: &str, now: i64) -> Option<&str> {
        let key = self.keys.get(bearer).filter(|key| !key.revoked)?;
        key.issued.as_ref().filter(|issued| now < issued.until).map(|issued| issued.client_id.as_str())
    }

    /// A bearer that never expires.
    pub(super) fn seed(&mut self, bearer: &str, principal: &Arc<Principal>) {
        self.keys.insert(bearer.to_owned(), Key { principal: principal.clone(), issued: None, revoked: false });
    }

    /// Accepts a bearer from now on.
    pub(super) fn issue(&mut self, bearer: String, principal: Arc<Principal>, issued: Issued, now: i64) {
        if self.keys.len() >= MAX_KEPT {
            self.keys.retain(|_, key| key.issued.as_ref().is_none_or(|issued| now < issued.until));
        }
        self.keys.insert(bearer, Key { principal, issued: Some(issued), revoked: false });
    }

    /// Drops every bearer of a client; it is gone for good.
    pub(super) fn forget_client(&mut self, client_id: &str) {
        self.keys.retain(|_, key| key.issued.as_ref().is_none_or(|issued| issued.client_id != client_id));
    }

    /// Drops the bearers that a principal was seeded with.
    pub(super) fn forget_seeded(&mut self, username: &str) {
        self.keys.retain(|_, key| key.issued.is_some() || key.principal.username != username);
    }

    /// Revokes or restores a bearer; whether there is one.
    pub(super) fn set_revoked(&mut self, bearer: &str, revoked: bool) -> bool {
        let key = self.keys.get_mut(bearer);
        key.map(|key| key.revoked = revoked).is_some()
    }

    /// Revokes or restores every bearer that there is now.
    pub(super) fn set_all_revoked(&mut self, revoked: bool) {
        self.keys.values_mut().for_each(|key| key.revoked = revoked);
    }

    /// Lets every issued bearer expire at `now`.
    pub(super) fn expire_issued(&mut self, now: i64) {
        let issued = self.keys.values_mut().filter_map(|key| key.issued.as_mut());
        issued.for_each(|issued| issued.until = issued.until.min(now));
    }

    /// Replaces the bearers that a principal was seeded with by another one; whether there was one.
    pub(super) fn rotate(&mut self, username: &str, bearer: &str) -> bool {
        let seeded = self.keys.values().find(|key| key.issued.is_none() && key.principal.username == username);
        let Some(principal) = seeded.map(|key| key.principal.clone()) else {
            return false;
        };
        self.forget_seeded(username);
        self.seed(bearer, &principal);
        true
    }
}

/// A fresh value that nobody guesses: 32 hexadecimal digits.
pub(super) fn secret() -> String {
    Uuid::new_v4().simple().to_string()
}

/// A fresh guid.
pub(super) fn guid() -> String {
    Uuid::new_v4().to_string()
}

//! Which bearers the tenant accepts: those that it was seeded with, and those that it issued, which expire by its clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::identity::Principal;

/// So many bearers are kept. Beyond that the expired ones are dropped, then the access token that ends next: its client gets a new one.
const MAX_KEPT: usize = 10_000;

/// The bearers, by their value.
#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: BTreeMap<String, Key>,
}

#[derive(Debug)]
struct Key {
    principal: Arc<Principal>,
    /// Of an issued one: the client to which, and when it ends. One that was seeded never ends.
    issued: Option<Issued>,
    revoked: bool,
}

/// To whom a bearer was issued, and until when (Unix milliseconds) it is accepted.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) client_id: String,
    pub(super) until: i64,
    pub(super) kind: Kind,
}

/// What an issued bearer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of a login; whoever logs in again gets another one.
    AccessToken,
    /// The value of an API token, which is shown once.
    ApiToken,
}

impl Key {
    /// When it ends, if it is an access token.
    fn access_ends(&self) -> Option<i64> {
        self.issued.as_ref().filter(|issued| issued.kind == Kind::AccessToken).map(|issued| issued.until)
    }

    fn accepted(&self, now: i64) -> bool {
        !self.revoked && self.issued.as_ref().is_none_or(|issued| now < issued.until)
    }
}

impl Keys {
    /// Who holds this bearer, if it is accepted now.
    pub(super) fn holder(&self, bearer: &str, now: i64) -> Option<Arc<Principal>> {
        self.keys.get(bearer).filter(|key| key.accepted(now)).map(|key| key.principal.clone())
    }

    /// The client to which this bearer was issued, if it is accepted now.
    pub(super) fn client(&self, bearer: &str, now: i64) -> Option<&str> {
        let key = self.keys.get(bearer).filter(|key| key.accepted(now))?;
        key.issued.as_ref().map(|issued| issued.client_id.as_str())
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
        if self.keys.len() >= MAX_KEPT {
            let ends = self.keys.iter().filter_map(|(bearer, key)| Some((key.access_ends()?, bearer)));
            if let Some(next) = ends.min().map(|(_, bearer)| bearer.clone()) {
                self.keys.remove(&next);
            }
        }
        self.keys.insert(bearer, Key { principal, issued: Some(issued), revoked: false });
    }

    /// Drops every bearer of a principal, who is gone for good.
    pub(super) fn forget(&mut self, username: &str) {
        self.keys.retain(|_, key| key.principal.username != username);
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

    /// Lets every access token expire at `now`.
    pub(super) fn expire_access(&mut self, now: i64) {
        let issued = self.keys.values_mut().filter_map(|key| key.issued.as_mut());
        let access = issued.filter(|issued| issued.kind == Kind::AccessToken);
        access.for_each(|issued| issued.until = issued.until.min(now));
    }

    /// Puts another bearer in the place of the one that a principal has without logging in, until the same end; or says why not.
    pub(super) fn rotate(&mut self, username: &str, bearer: &str) -> Result<(), &'static str> {
        if self.keys.get(bearer).is_some_and(|key| key.principal.username != username) {
            return Err("somebody else has this bearer");
        }
        let own = |key: &Key| key.principal.username == username && key.access_ends().is_none();
        let old = self.keys.iter().find(|(_, key)| own(key)).map(|(old, _)| old.clone());
        let key = old.and_then(|old| self.keys.remove(&old)).ok_or("no principal of this name has a bearer without logging in")?;
        self.keys.insert(bearer.to_owned(), Key { revoked: false, ..key });
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_bound_the_access_token_that_ends_next_makes_room() {
        let (mut keys, who) = (Keys::default(), Principal::nobody());
        keys.seed("seeded", &who);
        let issued = |until, kind| Issued { client_id: "c".into(), until, kind };
        keys.issue("of an API token".into(), who.clone(), issued(1, Kind::ApiToken), 0);
        for n in 0..MAX_KEPT {
            let until = 2 + i64::try_from(n).expect("small");
            keys.issue(format!("{n}"), who.clone(), issued(until, Kind::AccessToken), 0);
        }
        let accepted = |bearer| keys.holder(bearer, 0).is_some();
        assert_eq!(["seeded", "of an API token", "0", "1", "2", "9999"].map(accepted), [true, true, false, false, true, true]);
        assert_eq!(keys.keys.len(), MAX_KEPT);
    }
}

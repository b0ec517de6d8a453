//! A connection, its admins, and how both are written down.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::identity::Principal;
use super::search::Document;
use super::state::Versions;

/// The three lists of admins that a connection has.
#[derive(Clone, Debug, Default)]
pub(super) struct Admins {
    pub(super) users: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) roles: Vec<String>,
}

impl Admins {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty() && self.roles.is_empty()
    }

    /// The lists are sets: neither order nor repetition is a change.
    pub(super) fn same(&self, other: &Self) -> bool {
        fn set(list: &[String]) -> BTreeSet<&String> {
            list.iter().collect()
        }
        set(&self.users) == set(&other.users) && set(&self.groups) == set(&other.groups) && set(&self.roles) == set(&other.roles)
    }
}

/// A connection under its qualified name.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) guid: String,
    pub(super) qualified_name: String,
    pub(super) name: String,
    pub(super) connector: String,
    /// Nobody may change the admins of this one; it is there to show a refusal.
    pub(super) refuses: bool,
    admins: Versions<Admins>,
}

impl Connection {
    pub(super) fn new(guid: &str, qualified_name: &str, name: &str, created_at: i64, admins: Admins) -> Self {
        let connector = qualified_name.split('/').nth(1).unwrap_or_default().to_owned();
        let (guid, qualified_name, name) = (guid.to_owned(), qualified_name.to_owned(), name.to_owned());
        Self { guid, qualified_name, name, connector, refuses: false, admins: Versions::new(created_at, admins) }
    }

    pub(super) fn admins(&self) -> &Admins {
        self.admins.current()
    }

    pub(super) fn set_admins(&mut self, at: i64, admins: Admins) {
        self.admins.set(at, admins);
    }

    /// Admins of the connection, and roles that may administer every one: with `strict` that of connection admins alone.
    pub(super) fn may_administer(&self, who: &Principal, strict: bool) -> bool {
        !self.refuses && (who.may_administer_by_role(strict) || self.admins().users.contains(&who.username))
    }

    pub(super) fn entity(&self, admins: &Admins) -> Value {
        json!({ "typeName": "Connection", "guid": self.guid, "status": "ACTIVE",
            "attributes": { "qualifiedName": self.qualified_name, "name": self.name, "connectorName": self.connector,
                "adminUsers": admins.users, "adminGroups": admins.groups, "adminRoles": admins.roles } })
    }

    /// What the index holds of the connection at an instant.
    pub(super) fn indexed(&self, at: i64) -> Option<Document> {
        let admins = self.admins.at(at)?;
        let source = json!({ "__typeName": "Connection", "__state": "ACTIVE", "__guid": self.guid,
            "qualifiedName": self.qualified_name, "name": self.name, "connectorName": self.connector,
            "adminUsers": admins.users, "entity": self.entity(admins) });
        Some(Document { id: self.guid.clone(), source })
    }
}

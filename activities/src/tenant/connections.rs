//! Connections: read by entity, which no index delays, and given other admins.
//!
//! The tenant replaces the whole list and has no compare-and-set. So whoever adds to it takes the connection's turn first, which keeps
//! the other jobs of this process away from reading until reading back; what others write meanwhile is lost, and nobody sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedMutexGuard;

use super::answer::{Element, Exact, Lenient, List};
use super::apps::Object;
use super::classify::Effect;
use super::send::Call;
use super::target::encoded;
use super::{Permit, Tenant};
use crate::failure::Failure;

/// Where an entity is written. The flags say: leave everything else about it as it is.
const BULK: &str = "api/meta/entity/bulk/?replaceTags=false&appendTags=false&replaceBusinessAttributes=false\
                    &overwriteBusinessAttributes=false";

/// The most admins that a connection may have for its list to be read, and so written.
const MOST_ADMINS: usize = 5_000;

/// A connection, and who administers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Its guid.
    pub guid: String,
    /// Its qualified name, as in `default/snowflake/1234567890`.
    pub qualified_name: String,
    /// Its name.
    pub name: String,
    /// The users that administer it, by name. A set: the order means nothing.
    pub admin_users: Vec<String>,
}

impl Connection {
    /// Whether a user is among its admins.
    pub fn is_administered_by(&self, user: &str) -> bool {
        self.admin_users.iter().any(|admin| admin == user)
    }
}

/// What became of a list of admins that was written.
#[derive(Debug, Clone, PartialEq)]
pub enum AdminsWritten {
    /// The tenant says that it took it.
    Applied,
    /// It was not taken.
    NotApplied(Failure),
    /// It may have been taken; only the connection can tell.
    UnknownFate(Failure),
}

/// Who may change the admins of a connection, one at a time each. Kept no longer than somebody holds or awaits a turn.
#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<String, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    fn of(&self, connection: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(connection).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(connection.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}

impl Tenant {
    /// The connection of this qualified name, as it is now; None if there is none, or if it was archived.
    pub async fn connection(&self, qualified_name: &str) -> Result<Option<Connection>, Failure> {
        let target = format!(
            "api/meta/entity/uniqueAttribute/type/Connection?attr:qualifiedName={}&minExtInfo=false&ignoreRelationships=true",
            encoded(qualified_name)
        );
        let call = Call::get("connections.show", target).needs("the right to see the connection");
        let shown: Shown = match self.read(&call).await {
            Err(failure) if failure.code == "tenant.not_found" => return Ok(None),
            shown => shown?,
        };
        if shown.entity.status.0.as_deref() == Some("DELETED") {
            return Ok(None);
        }
        shown.entity.0.into_connection(qualified_name).map(Some).map_err(|problem| self.unexpected(&call, problem))
    }

    /// Waits for this process's turn to change the admins of a connection; it ends when the guard is dropped.
    pub async fn turn_at(&self, qualified_name: &str) -> OwnedMutexGuard<()> {
        self.turns.of(qualified_name).lock_owned().await
    }

    /// Replaces the users that administer a connection; its groups and roles stay. Sent once and at once.
    pub async fn write_admin_users(
        &self,
        permit: Permit<'_>,
        connection: &Connection,
        admin_users: &[String],
        request_id: &str,
    ) -> AdminsWritten {
        // Any guid that starts so is one that the metastore gives; it goes by the qualified name.
        let guid = format!("-1{}", &format!("{:.15}", self.clock.random())[2..]);
        let attributes = json!({"qualifiedName": connection.qualified_name, "name": connection.name, "adminUsers": admin_users});
        let entity = json!({"typeName": "Connection", "attributes": attributes, "businessAttributes": null, "guid": guid});
        let call = Call::post("connections.write_admins", BULK, Some(json!({"entities": [entity]})))
            .with_request_id(request_id)
            .needs("to be an admin of the connection");
        let sent = self.send_effect(permit, &call).await;
        self.learn_who_was_denied(&call, &sent).await;
        match self.effect::<Object>(&call, sent) {
            Effect::Applied(_) => AdminsWritten::Applied,
            // Something else was writing at this moment; nothing says that the next moment is no better.
            Effect::Conflict(failure) | Effect::AlreadyActive(failure) => AdminsWritten::NotApplied(failure.with_retryable(true)),
            Effect::NotApplied(failure) => AdminsWritten::NotApplied(failure),
            Effect::UnknownFate(failure) => AdminsWritten::UnknownFate(failure),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    entity: Lenient<Entity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entity {
    guid: Exact,
    status: Exact,
    attributes: Lenient<Attributes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Attributes {
    qualified_name: Exact,
    name: Exact,
    admin_users: List<Exact>,
}

impl Element for Exact {
    const MOST: usize = MOST_ADMINS;
}

impl Entity {
    /// A list of admins that is not there is no empty one: writing upon that would take the rights of everyone. Nor is one of which a
    /// part cannot be written back exactly as it is.
    fn into_connection(self, qualified_name: &str) -> Result<Connection, &'static str> {
        let Entity { guid, attributes: Lenient(attributes), .. } = self;
        if attributes.qualified_name.0.as_deref() != Some(qualified_name) {
            return Err("it shows another connection");
        }
        let (admins, count) = match attributes.admin_users {
            List::Null => (Vec::new(), 0),
            admins => admins.into_items().ok_or("the connection has no list of admins")?,
        };
        if count > admins.len() {
            return Err("the connection has more admins than can be read");
        }
        Ok(Connection {
            guid: guid.0.ok_or("the connection has no guid")?,
            qualified_name: qualified_name.to_owned(),
            name: attributes.name.0.ok_or("the connection has no name")?,
            admin_users: admins.into_iter().map(|admin| admin.0).collect::<Option<_>>().ok_or("an admin is no name")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::tenant::scripted::{Reply, Scripted, clock};

    const NAME: &str = "default/snowflake/1";

    fn entity() -> Value {
        json!({"guid": "c-1", "status": "ACTIVE",
            "attributes": {"qualifiedName": NAME, "name": "prod", "adminUsers": ["jane"]}})
    }

    async fn read(reply: Reply) -> Result<Option<Vec<String>>, String> {
        let server = Scripted::script([reply]).await;
        let connection = server.tenant(&clock()).connection(NAME).await.map_err(|failure| failure.code.to_string())?;
        Ok(connection.map(|connection| connection.admin_users))
    }

    #[tokio::test]
    async fn a_list_of_admins_that_is_not_shown_is_not_taken_for_an_empty_one() {
        let with = |at: &str, value: Value| {
            let mut body = json!({"entity": entity()});
            *body.pointer_mut(at).expect("it is there") = value;
            Reply::ok(&body)
        };
        let jane = Ok(Some(vec!["jane".to_owned()]));
        assert_eq!(read(Reply::ok(&json!({"entity": entity()}))).await, jane);
        assert_eq!(read(with("/entity/attributes/adminUsers", json!(null))).await, Ok(Some(Vec::new())));
        assert_eq!(read(with("/entity/status", json!("DELETED"))).await, Ok(None));
        assert_eq!(read(Reply::json(404, &json!({"errorCode": "ATLAS-404-00-009"}))).await, Ok(None));
        let unreadable = Err("tenant.unreadable".to_owned());
        for (at, value) in [
            ("/entity/attributes", json!({"qualifiedName": NAME, "name": "prod"})),
            ("/entity/attributes/adminUsers", json!([1])),
            ("/entity/attributes/qualifiedName", json!("default/snowflake/10")),
            ("/entity", json!(null)),
        ] {
            assert_eq!(read(with(at, value)).await, unreadable, "{at}");
        }
    }

    #[tokio::test]
    async fn turns_are_taken_one_at_a_time_for_each_connection_and_forgotten() {
        let server = Scripted::script([]).await;
        let tenant = server.tenant(&clock());
        let turn = tenant.turn_at(NAME).await;
        let mut next = std::pin::pin!(tenant.turn_at(NAME));
        assert!(futures_are_pending(&mut next).await, "one at a time");
        drop(tenant.turn_at("default/snowflake/2").await);
        drop(turn);
        drop(next.await);
        drop(tenant.turn_at("default/snowflake/3").await);
        assert_eq!(tenant.turns.0.lock().expect("no panic").len(), 1, "only the last one, which is swept by the next");
    }

    async fn futures_are_pending<F: Future>(future: &mut std::pin::Pin<&mut F>) -> bool {
        tokio::select! {
            biased;
            _ = future => false,
            () = tokio::task::yield_now() => true,
        }
    }
}

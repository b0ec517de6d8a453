//! A user of the tenant, as far as it names one.

use serde::{Deserialize, Serialize};

/// A user of the tenant. Either may be empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
}

impl User {
    /// Whether the tenant means this user.
    pub(crate) fn is(&self, named: &str) -> bool {
        !named.is_empty() && (self.id == named || self.name == named)
    }

    /// Whether the tenant means another user, as far as that can be told.
    pub(crate) fn is_not(&self, named: &str) -> bool {
        !named.is_empty() && !self.id.is_empty() && !self.is(named)
    }
}

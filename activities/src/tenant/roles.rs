//! The roles that an OAuth client can be given: `GET /api/service/roles`.

use serde::Deserialize;

use super::Tenant;
use super::answer::{Element, Exact, NAME, Text};
use super::documents::Records;
use super::listed::{MOST_LISTED, Page, pages};
use super::send::Call;
use super::target::encoded;
use crate::failure::Failure;

/// As the vendor's client writes it, spaces included.
const FILTER: &str = r#"{"$or": [{"level": "workspace"}, {"level": "admin-subrole"}]}"#;
/// Roles in one page.
const PAGE: usize = 100;

/// A role of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name, as in `$admin_connections`.
    pub name: String,
    /// What people call it, as in `Admins (Connections)`; the name where there is nothing better.
    pub label: String,
}

impl Tenant {
    /// The roles of people and the parts of the admin's role.
    pub async fn roles(&self) -> Result<Vec<Role>, Failure> {
        let call = |offset, size| {
            let filter = encoded(FILTER).replace("%20", "+");
            let target = format!("api/service/roles?count=True&offset={offset}&limit={size}&filter={filter}");
            Call::get("roles.list", target).needs("the right to see roles")
        };
        let roles = pages(
            MOST_LISTED,
            PAGE,
            |role: &Role| &role.name,
            async |offset, _| {
                let found = self.page::<Records<RoleRecord>>(PAGE, offset, |size| call(offset, size)).await?;
                Ok(Page::of(found, RoleRecord::into_role))
            },
        )
        .await?;
        // A role that was not read would be taken for one that does not exist.
        if roles.more { Err(self.incomplete(&call(0, PAGE), &roles)) } else { Ok(roles.rows) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RoleRecord {
    name: Exact,
    description: Text<NAME>,
}

impl Element for RoleRecord {}

impl RoleRecord {
    /// A role without a name cannot be given.
    fn into_role(self) -> Option<Role> {
        let name = self.name.0?;
        Some(Role { label: self.description.0.unwrap_or_else(|| name.clone()), name })
    }
}

/// The role that is meant by its label, in any case, or by its name; or else the labels that there are, sorted.
///
/// ```
/// # use iolaus_activities::tenant::{Role, role_named};
/// let roles = [Role { name: "$admin".into(), label: "Admin".into() }];
/// assert_eq!(role_named(&roles, " admin ").map(|role| role.name.as_str()), Ok("$admin"));
/// assert_eq!(role_named(&roles, "king"), Err(vec!["Admin".to_owned()]));
/// ```
pub fn role_named<'a>(roles: &'a [Role], wanted: &str) -> Result<&'a Role, Vec<String>> {
    let wanted = wanted.trim().to_lowercase();
    let meant = |role: &&Role| role.label.trim().to_lowercase() == wanted || role.name.to_lowercase() == wanted;
    roles.iter().find(meant).ok_or_else(|| {
        let mut labels: Vec<_> = roles.iter().map(|role| role.label.clone()).collect();
        labels.sort();
        labels
    })
}

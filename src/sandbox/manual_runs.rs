//! Runs that another user starts by hand, in no relation to any request of the client under test.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::identity::{MEMBER, Principal};
use super::state::{Directives, Tenant};
use super::submit::{self, Start};
use super::{Generation, apps, time};

/// The endpoint under which the ledger records them.
const ENDPOINT: &str = "manual";

/// A run that another user starts by hand. It starts even where a second submit would be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManualRun {
    /// Name of a workflow; on a native tenant the slug of an app's workflow.
    pub workflow: String,
    /// User name of its creator. Default `joe`.
    #[serde(default = "joe")]
    pub by: String,
    /// How long ago it was created, in milliseconds. Default 0.
    #[serde(default)]
    pub age_ms: u64,
}

fn joe() -> String {
    "joe".to_owned()
}

impl ManualRun {
    /// A run of `workflow` that `joe` starts now.
    pub fn of(workflow: impl Into<String>) -> Self {
        Self { workflow: workflow.into(), by: joe(), age_ms: 0 }
    }
}

/// Starts it and answers the run's name or id; the error says what does not exist.
pub(super) fn start(tenant: &mut Tenant, manual: &ManualRun, now: i64) -> Result<String, String> {
    let by = creator(tenant, &manual.by).ok_or_else(|| format!("user {:?} not found", manual.by))?;
    let age = i64::try_from(manual.age_ms).unwrap_or(i64::MAX);
    let (at, directives) = (now.saturating_sub(age), Directives::default());
    let start = Start { by: &by, endpoint: ENDPOINT, request_id: None, at, directives: &directives };
    let started = match tenant.settings.generation {
        Generation::Argo => submit::begin(tenant, &manual.workflow, start).map(|run| run.name),
        Generation::Native => apps::begin(tenant, &manual.workflow, start),
    };
    let name = started.map_err(|_| format!("workflow {:?} not found", manual.workflow))?;
    tracing::debug!(run = name, by = by.username, at = time::precise(at), "sandbox run started by hand");
    Ok(name)
}

/// A user of the tenant, with a bearer or without.
fn creator(tenant: &Tenant, username: &str) -> Option<Arc<Principal>> {
    let principal = tenant.principals.iter().find(|principal| principal.username == username).cloned();
    principal.or_else(|| {
        let user = tenant.users.iter().find(|user| user.username == username)?;
        Some(Arc::new(Principal {
            user_id: user.id.clone(),
            username: username.to_owned(),
            email: format!("{username}@example.com"),
            role: &MEMBER,
        }))
    })
}

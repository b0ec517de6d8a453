//! Who we are to the tenant: `GET /api/service/whoami`.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use serde::Deserialize;

use super::answer::{Claim, Element, Exact, Lenient, List, NAME, Text};
use super::clock_offset::ClockOffset;
use super::credentials::Bearer;
use super::send::{Call, Sent};
use super::{Tenant, classify};
use crate::clock::BoxFuture;
use crate::failure::Failure;

const WHOAMI: &str = "auth.whoami";
/// How long an answer to "who am I" is believed.
const BELIEVED: Duration = Duration::from_secs(600);
/// Holders of one of these submit under `workflows`; others under `package-workflows`.
const LEGACY_ROLES: [&str; 2] = ["$admin", "$api-token-default-access"];

/// Who the tenant takes us for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's id; may be empty.
    pub user_id: String,
    /// The user's name, as in `service-account-apikey-…`; may be empty.
    pub username: String,
    /// The names of the roles held.
    pub roles: Vec<String>,
}

impl Identity {
    /// The part of the API where this identity creates and submits workflows.
    pub(super) fn workflows_path(&self) -> &'static str {
        let legacy = self.roles.iter().any(|role| LEGACY_ROLES.contains(&role.as_str()));
        if legacy { "workflows" } else { "package-workflows" }
    }
}

/// What a tenant that answers looks like from here.
#[derive(Debug, Clone)]
pub struct Ping {
    /// Who it takes us for.
    pub identity: Arc<Identity>,
    /// How long the answer took.
    pub round_trip: Duration,
    /// By how many whole seconds its clock is ahead of ours at least, where it shows one.
    pub clock_ahead: Option<SignedDuration>,
}

/// Whether the tenant knows us at all.
pub(super) enum Doubt {
    /// It does, by this token.
    Known(Bearer),
    /// It does not, and is held.
    Unknown,
    /// It gave no answer that says. The next one who asks finds out.
    Unsettled,
}

/// The answer to "who am I".
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Me {
    user_id: Exact,
    username: Text<NAME>,
    roles: List<Lenient<Role>>,
    error: Claim,
    error_code: Claim,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Role {
    name: Exact,
}

impl Element for Role {}

impl Tenant {
    /// Who we are, believed for ten minutes.
    pub async fn whoami(&self) -> Result<Arc<Identity>, Failure> {
        let now = self.clock.monotonic();
        let known = self.learned(|learned| learned.identity.clone());
        match known {
            Some((identity, until)) if now < until => Ok(identity),
            _ => self.ask_whoami().await,
        }
    }

    /// The same, for an effect whose run is told from other users' by our id. An answer without one is not believed.
    pub(crate) async fn whoami_with_id(&self) -> Result<Arc<Identity>, Failure> {
        let identity = self.whoami().await?;
        if identity.user_id.is_empty() {
            self.learned(|learned| learned.identity = None);
            return Err(self.unexpected(&whoami(), "it has no user id"));
        }
        Ok(identity)
    }

    /// Asks afresh who we are, and measures how long that takes and what the tenant's clock shows.
    pub async fn ping(&self) -> Result<Ping, Failure> {
        let before = self.clock.monotonic();
        let identity = self.ask_whoami().await?;
        let round_trip = self.clock.monotonic().saturating_sub(before);
        let clock_ahead = self.clock_offset().map(ClockOffset::at_least);
        Ok(Ping { identity, round_trip, clock_ahead })
    }

    /// Asks, although the tenant is held, whether it knows us. An answer ends a hold for refused credentials.
    pub async fn probe(&self) -> Result<(), Failure> {
        self.ask(&whoami().probing()).await?;
        self.let_in();
        Ok(())
    }

    /// After a 401 that no other token cured. If the tenant does not know us at all, it is held until it does. If it does know us, the
    /// 401 is about this call alone, or from before it did.
    pub(super) async fn doubt(&self, call: &Call, refused: &Failure) -> Doubt {
        let _turn = self.doubts.lock().await;
        if self.is_locked_out() {
            return Doubt::Unknown;
        }
        if call.operation == WHOAMI {
            self.locked_out(refused.clone());
            return Doubt::Unknown;
        }
        let asked = whoami();
        let Ok(bearer) = self.bearer(&asked).await else { return Doubt::Unsettled };
        let sent = self.exchange(&asked, Some(&bearer)).await;
        if let Some(failure) = self.unauthenticated(&asked, &sent) {
            self.locked_out(failure);
            return Doubt::Unknown;
        }
        if classify::is_settled(&sent) { Doubt::Known(bearer) } else { Doubt::Unsettled }
    }

    /// The user name that the tenant last called us by.
    pub(super) fn known_name(&self) -> Option<String> {
        let name = self.learned(|learned| learned.identity.as_ref().map(|(identity, _)| identity.username.clone()));
        name.filter(|name| !name.is_empty())
    }

    /// Finds out who we are, so that the denial of `call` can name who asked. Not knowing it is no failure of its own.
    pub(super) fn learn_who(&self, call: &Call) -> BoxFuture<'_, ()> {
        let pointless = call.operation == WHOAMI || call.is_anonymous() || self.known_name().is_some();
        Box::pin(async move {
            if !pointless {
                self.whoami().await.ok();
            }
        })
    }

    /// The same for an effect that may just have been denied.
    pub(super) async fn learn_who_was_denied(&self, call: &Call, sent: &Sent) {
        if classify::is_denied(sent) {
            self.learn_who(call).await;
        }
    }

    async fn ask_whoami(&self) -> Result<Arc<Identity>, Failure> {
        self.ask(&whoami()).await
    }

    async fn ask(&self, call: &Call) -> Result<Arc<Identity>, Failure> {
        let me: Me = self.read(call).await?;
        if me.error.0 || me.error_code.0 {
            return Err(self.unexpected(call, "an error under a status of success"));
        }
        let identity = Arc::new(me.into_identity().ok_or_else(|| self.unexpected(call, "it has no list of roles"))?);
        let until = self.clock.monotonic().saturating_add(BELIEVED);
        self.learned(|learned| learned.identity = Some((identity.clone(), until)));
        Ok(identity)
    }
}

fn whoami() -> Call {
    Call::get(WHOAMI, "api/service/whoami").small().needs("valid credentials")
}

impl Me {
    /// A role without a name gives no right that we know of.
    fn into_identity(self) -> Option<Identity> {
        let (roles, _) = self.roles.into_items()?;
        Some(Identity {
            user_id: self.user_id.0.unwrap_or_default(),
            username: self.username.0.unwrap_or_default(),
            roles: roles.into_iter().filter_map(|Lenient(role)| role.name.0).collect(),
        })
    }
}

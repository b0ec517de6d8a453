//! Getting a token: `POST oauth-clients/token` for an OAuth client, Keycloak's token endpoint for a service account. One login at a
//! time; a token is replaced before it expires, and once after a 401.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::Tenant;
use super::answer::{Count, Secret};
use super::credentials::{Bearer, Credentials, Turn, Way};
use super::send::Call;
use super::target::segment;
use crate::failure::{Category, Failure, FailureSource};

/// How long the outcome of a failed login stands for those who waited for it.
const STANDS: Duration = Duration::from_secs(1);
/// The life of a token whose answer does not tell it, as the vendor's client assumes.
const UNTOLD: Duration = Duration::from_secs(600);

impl Tenant {
    /// A token that is valid for a while, asked for if need be.
    pub(super) async fn bearer(&self, call: &Call) -> Result<Bearer, Failure> {
        self.bases(call)?;
        let credentials = self.credentials(call)?;
        if let Some(bearer) = credentials.fresh(self.clock.monotonic()) {
            return Ok(bearer);
        }
        let mut turn = credentials.turn.lock().await;
        match credentials.fresh(self.clock.monotonic()) {
            Some(bearer) => Ok(bearer),
            None => self.log_in(credentials, &mut turn).await,
        }
    }

    /// Another token, after a 401 for this one: somebody else's by now, or one that is asked for with the newest secret. None: there is
    /// no other.
    pub(super) async fn renew(&self, call: &Call, refused: &Bearer) -> Result<Option<Bearer>, Failure> {
        let credentials = self.credentials(call)?;
        let mut turn = credentials.turn.lock().await;
        if let Some(newer) = credentials.newer_than(refused.number) {
            return Ok(Some(newer));
        }
        let changed = credentials.reread(&mut turn);
        if credentials.way == Way::ApiKey {
            if !changed {
                return Ok(None);
            }
            // It may be somebody else's.
            self.learned(|learned| learned.identity = None);
            let key = turn.secret.clone();
            return Ok(credentials.store(&mut turn, &key, None));
        }
        self.log_in(credentials, &mut turn).await.map(Some)
    }

    fn credentials(&self, call: &Call) -> Result<&Credentials, Failure> {
        self.link.credentials.as_ref().ok_or_else(|| {
            let hint = "or ATLAN_OAUTH_CLIENT_ID and ATLAN_OAUTH_CLIENT_SECRET";
            Failure::new("credentials.missing", Category::Auth, format!("no credentials are set for tenant `{}`", self.name))
                .suggest(format!("set ATLAN_API_KEY {hint} for the tenant `default`, or tenants.{}.api_key_file", self.name))
                .with_source(call.source())
        })
    }

    /// Who waited for a login that failed gets its failure, and does not try at once again.
    async fn log_in(&self, credentials: &Credentials, turn: &mut Turn) -> Result<Bearer, Failure> {
        let now = self.clock.monotonic();
        if let Some((_, failure)) = turn.failed.as_ref().filter(|(at, _)| now.saturating_sub(*at) < STANDS) {
            return Err(failure.clone());
        }
        let bearer = match self.ask_for_token(credentials, turn).await {
            // The secret may have been replaced since it was read.
            Err(failure) if !failure.retryable && credentials.reread(turn) => self.ask_for_token(credentials, turn).await,
            other => other,
        };
        turn.failed = match &bearer {
            Ok(_) => None,
            Err(failure) => Some((self.clock.monotonic(), failure.clone())),
        };
        bearer
    }

    async fn ask_for_token(&self, credentials: &Credentials, turn: &mut Turn) -> Result<Bearer, Failure> {
        let call = token_call(&credentials.way, &turn.secret);
        let asked = self.clock.monotonic();
        let granted: Granted = match self.read(&call).await {
            Ok(granted) => granted,
            Err(failure) if failure.retryable => return Err(failure),
            Err(failure) => return Err(self.refused_login(credentials, &failure)),
        };
        let life = granted.lifetime().unwrap_or(UNTOLD);
        let token = granted.access_token.0.or(granted.access_token_in_snake_case.0);
        let token = token.ok_or_else(|| self.unexpected(&call, "it holds no token"))?;
        let stored = credentials.store(turn, &token, Some((asked, life)));
        stored.ok_or_else(|| self.unexpected(&call, "its token cannot be sent"))
    }

    /// The tenant does not accept who we say we are: nothing else needs to be asked until it does.
    fn refused_login(&self, credentials: &Credentials, failure: &Failure) -> Failure {
        let message = format!("tenant `{}` does not accept {}: {}", self.name, credentials.name(), failure.message);
        let source = FailureSource { request_id: None, ..failure.source.clone() };
        let refused = Failure::new("credentials.refused", Category::Auth, message).with_source(source);
        let refused = refused.suggest(credentials.hint(&self.name));
        self.locked_out(refused.clone());
        refused.holding_tenant()
    }
}

fn token_call(way: &Way, secret: &SecretString) -> Call {
    let secret = secret.expose_secret();
    let call = match way {
        // An API key is a token; nobody asks for one.
        Way::ApiKey => Call::get("auth.token", "api/service/whoami"),
        Way::OAuth { client_id } => {
            let body = json!({"clientId": client_id, "clientSecret": secret});
            Call::post("auth.token", "api/service/oauth-clients/token", Some(body))
        }
        Way::Keycloak { client_id, realm } => {
            let target = format!("auth/realms/{}/protocol/openid-connect/token", segment(realm));
            let form =
                [("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", secret), ("scope", "openid")];
            Call::form("auth.token", target, &form)
        }
    };
    call.anonymous().needs("an id and a secret that are valid now")
}

/// The answer to a login.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Granted {
    access_token: Secret,
    #[serde(rename = "access_token")]
    access_token_in_snake_case: Secret,
    expires_in: Count,
    #[serde(rename = "expires_in")]
    expires_in_in_snake_case: Count,
}

impl Granted {
    fn lifetime(&self) -> Option<Duration> {
        let seconds = self.expires_in.0.or(self.expires_in_in_snake_case.0)?;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }
}

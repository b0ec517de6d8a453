//! What happens to credentials from outside: revoked, restored, expired, rotated.

use serde::{Deserialize, Serialize};

use super::state::Tenant;

/// A change of what the tenant accepts, as a switch of the sandbox; in JSON tagged `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum CredentialChange {
    /// Accept this bearer no more.
    Revoke {
        /// Its value.
        bearer: String,
    },
    /// Accept no bearer that there is now. Who has a client secret can still get a new one.
    RevokeAll,
    /// Accept this bearer again.
    Restore {
        /// Its value.
        bearer: String,
    },
    /// Accept every revoked bearer again.
    RestoreAll,
    /// Let every access token that was issued expire now. The values of API tokens stay.
    ExpireIssued,
    /// Replace the bearer that a principal has without logging in. It ends when the old one would have ended.
    Rotate {
        /// Its user name.
        username: String,
        /// The new value.
        bearer: String,
    },
    /// Replace the secret of an OAuth client, a Keycloak client or an API token. Tokens that were issued stay.
    ClientSecret {
        /// Its client id.
        client_id: String,
        /// The new secret.
        secret: String,
    },
    /// How long access tokens live that are issued from now on.
    TokenLifetime {
        /// In seconds, 1 at least.
        seconds: u32,
        /// Of this OAuth client alone; absent: of all clients that have no lifetime of their own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
    },
    /// Whether a 401 is plain text in place of JSON.
    #[serde(rename = "plain_401")]
    Plain401 {
        /// Plain text, if true.
        on: bool,
    },
}

/// Applies a change, or says why it cannot.
pub(super) fn apply(tenant: &mut Tenant, change: CredentialChange, now: i64) -> Result<(), String> {
    use CredentialChange as Change;
    match change {
        Change::Revoke { bearer } => found(tenant.keys.set_revoked(&bearer, true), "no such bearer"),
        Change::Restore { bearer } => found(tenant.keys.set_revoked(&bearer, false), "no such bearer"),
        Change::RevokeAll => {
            tenant.keys.set_all_revoked(true);
            Ok(())
        }
        Change::RestoreAll => {
            tenant.keys.set_all_revoked(false);
            Ok(())
        }
        Change::ExpireIssued => {
            tenant.keys.expire_access(now);
            Ok(())
        }
        Change::Rotate { username, bearer } => {
            found(!bearer.is_empty(), "the bearer is empty")?;
            tenant.keys.rotate(&username, &bearer).map_err(str::to_owned)
        }
        Change::ClientSecret { client_id, secret } => {
            found(!secret.is_empty(), "the secret is empty")?;
            found(replace_secret(tenant, &client_id, &secret), "no such client")
        }
        Change::TokenLifetime { seconds: 0, .. } => Err("a lifetime is 1 second at least".to_owned()),
        Change::TokenLifetime { seconds, client_id: None } => {
            tenant.settings.token_seconds = Some(i64::from(seconds));
            Ok(())
        }
        Change::TokenLifetime { seconds, client_id: Some(client_id) } => {
            let client = tenant.oauth_clients.iter_mut().find(|client| client.client_id == client_id);
            found(client.map(|client| client.token_seconds = Some(i64::from(seconds))).is_some(), "no such OAuth client")
        }
        Change::Plain401 { on } => {
            tenant.settings.plain_401 = on;
            Ok(())
        }
    }
}

fn replace_secret(tenant: &mut Tenant, client_id: &str, secret: &str) -> bool {
    let oauth = tenant.oauth_clients.iter_mut().map(|client| (&client.client_id, &mut client.secret));
    let keycloak = tenant.keycloak.iter_mut().map(|client| (&client.client_id, &mut client.secret));
    let tokens = tenant.tokens.iter_mut().map(|token| (&token.client_id, &mut token.secret));
    let client = oauth.chain(keycloak).chain(tokens).find(|(id, _)| *id == client_id);
    client.map(|(_, old)| secret.clone_into(old)).is_some()
}

fn found(there: bool, otherwise: &str) -> Result<(), String> {
    if there { Ok(()) } else { Err(otherwise.to_owned()) }
}

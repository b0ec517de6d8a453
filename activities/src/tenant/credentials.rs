//! How we log in: an API key, an OAuth client, or the service account of a Keycloak client. Here are the secrets and the token that is
//! valid now; asking the tenant for a token is in `login`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::TenantSettings;
use super::answer::Sanitizer;
use super::settings::{Refusal, secret_form};
use crate::failure::Failure;
use crate::named_file;

/// No token is used in the last part of its life: a fifth, but at most this.
const LONGEST_MARGIN: Duration = Duration::from_secs(60);

/// One way to log in.
pub(super) struct Credentials {
    pub(super) way: Way,
    secret: Secret,
    /// The token in use.
    current: Mutex<Option<Bearer>>,
    known: Mutex<Known>,
    /// Held by the one that logs in; the others wait for what comes of it.
    pub(super) turn: tokio::sync::Mutex<Turn>,
}

/// What only the one that logs in touches.
pub(super) struct Turn {
    /// The secret as it was read last.
    pub(super) secret: SecretString,
    /// The last login that failed, and when (monotonic).
    pub(super) failed: Option<(Duration, Failure)>,
    number: u64,
}

/// The secrets that a tenant may echo, the newest first, and what removes them. Earlier ones count: an answer may still hold them.
#[derive(Default)]
struct Known {
    proxy_password: Option<SecretString>,
    secrets: VecDeque<SecretString>,
    tokens: VecDeque<SecretString>,
    sanitizer: Arc<Sanitizer>,
}

/// How many secrets, and how many tokens, are removed from texts.
const REMEMBERED: usize = 4;

impl Known {
    fn remember(of: &mut VecDeque<SecretString>, secret: &SecretString) {
        if of.iter().all(|known| known.expose_secret() != secret.expose_secret()) {
            of.push_front(secret.clone());
            of.truncate(REMEMBERED);
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        let all = self.proxy_password.iter().chain(&self.secrets).chain(&self.tokens);
        self.sanitizer = Arc::new(Sanitizer::without(all.map(ExposeSecret::expose_secret)));
    }
}

/// The ways to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    ApiKey,
    OAuth { client_id: String },
    Keycloak { client_id: String, realm: String },
}

/// Where the secret comes from.
enum Secret {
    Setting,
    File(PathBuf),
}

/// What stands in the header `authorization`.
#[derive(Clone)]
pub(super) struct Bearer {
    /// Marked as sensitive.
    pub(super) header: HeaderValue,
    /// Every new one has a new number.
    pub(super) number: u64,
    /// When (monotonic) another one should be asked for.
    stale: Option<Duration>,
}

impl Credentials {
    /// What the settings say; None when they say nothing.
    pub(super) fn of(settings: &TenantSettings) -> Result<Option<Self>, Refusal> {
        let ways = [
            key(settings)?.map(|found| ("api_key", Way::ApiKey, found)),
            oauth(settings)?.map(|(client_id, found)| ("oauth_client_id", Way::OAuth { client_id }, found)),
            keycloak(settings)?.map(|(client_id, found)| {
                let realm = settings.keycloak_realm.clone();
                ("keycloak_client_id", Way::Keycloak { client_id, realm }, found)
            }),
        ];
        let mut ways = ways.into_iter().flatten();
        let Some((first, way, (source, secret))) = ways.next() else { return Ok(None) };
        if let Some((second, ..)) = ways.next() {
            return Err((second, format!("is set beside `{first}`"), "choose one way to log in"));
        }
        let known = Mutex::default();
        let turn = Turn { secret: secret.clone(), failed: None, number: 0 };
        let credentials = Self { way, secret: source, current: Mutex::default(), known, turn: tokio::sync::Mutex::new(turn) };
        credentials.known(|known| {
            known.proxy_password = settings.proxy.as_ref().and_then(password);
            Known::remember(&mut known.secrets, &secret);
        });
        credentials.check()?;
        Ok(Some(credentials))
    }

    /// An API key is a token already; one that cannot be sent is refused at once.
    fn check(&self) -> Result<(), Refusal> {
        if self.way == Way::ApiKey {
            let setting = if matches!(self.secret, Secret::File(_)) { "api_key_file" } else { "api_key" };
            let mut turn = self.turn.try_lock().map_err(|_| (setting, "is in use".to_owned(), "try again"))?;
            let key = turn.secret.clone();
            self.store(&mut turn, &key, None)
                .ok_or_else(|| (setting, "holds characters that no key has".into(), "paste the key again, without line breaks"))?;
        }
        Ok(())
    }

    /// The token in use, unless it is too old.
    pub(super) fn fresh(&self, now: Duration) -> Option<Bearer> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|bearer| bearer.stale.is_none_or(|stale| now < stale))
    }

    /// The token in use, if it is another one than the one with this number.
    pub(super) fn newer_than(&self, number: u64) -> Option<Bearer> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|bearer| bearer.number != number)
    }

    /// Puts a token to use. `granted` is when (monotonic) it was asked for, and how long it then lives. None: it cannot be sent.
    pub(super) fn store(&self, turn: &mut Turn, token: &SecretString, granted: Option<(Duration, Duration)>) -> Option<Bearer> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).ok()?;
        header.set_sensitive(true);
        self.known(|known| Known::remember(&mut known.tokens, token));
        turn.number += 1;
        let stale = granted.map(|(asked, life)| asked.saturating_add(life.saturating_sub(LONGEST_MARGIN.min(life / 5))));
        let bearer = Bearer { header, number: turn.number, stale };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(bearer.clone());
        Some(bearer)
    }

    /// What removes our secrets from a text of the tenant.
    pub(super) fn sanitizer(&self) -> Arc<Sanitizer> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).sanitizer.clone()
    }

    fn known(&self, change: impl FnOnce(&mut Known)) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).change(change);
    }

    /// Reads the secret's file again; whether it holds another one now. A file that cannot be read is left for what it was: it may be
    /// in the middle of being replaced.
    pub(super) fn reread(&self, turn: &mut Turn) -> bool {
        let Secret::File(file) = &self.secret else { return false };
        match read(file) {
            Ok(secret) if secret.expose_secret() != turn.secret.expose_secret() && !secret.expose_secret().is_empty() => {
                self.known(|known| Known::remember(&mut known.secrets, &secret));
                turn.secret = secret;
                true
            }
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "the file of a secret cannot be read; the last one read stands");
                false
            }
        }
    }

    /// What is sent, as a person would call it.
    pub(super) fn name(&self) -> String {
        match &self.way {
            Way::ApiKey => "this API key".to_owned(),
            Way::OAuth { client_id } => format!("the OAuth client {client_id}"),
            Way::Keycloak { client_id, .. } => format!("the Keycloak client {client_id}"),
        }
    }

    /// What to do when the tenant does not accept it.
    pub(super) fn hint(&self, tenant: &str) -> String {
        let setting = match (&self.way, &self.secret) {
            (_, Secret::File(file)) => return format!("write a secret that is valid now to {}", file.display()),
            (Way::ApiKey, Secret::Setting) => {
                // The vendor's own variable is that of the tenant `default` alone.
                let variable = if tenant == "default" { "ATLAN_API_KEY, which is " } else { "" };
                return format!("set {variable}tenants.{tenant}.api_key to a key that is valid now");
            }
            (Way::OAuth { .. }, Secret::Setting) => "oauth_client_secret",
            (Way::Keycloak { .. }, Secret::Setting) => "keycloak_client_secret",
        };
        format!("set tenants.{tenant}.{setting} to a secret that is valid now")
    }
}

fn password(proxy: &SecretString) -> Option<SecretString> {
    let url = reqwest::Url::parse(proxy.expose_secret().trim()).ok()?;
    url.password().map(|password| SecretString::from(password.to_owned()))
}

type Found = (Secret, SecretString);

fn key(settings: &TenantSettings) -> Result<Option<Found>, Refusal> {
    secret(("api_key", settings.api_key.as_ref()), ("api_key_file", settings.api_key_file.as_ref()))
}

fn oauth(settings: &TenantSettings) -> Result<Option<(String, Found)>, Refusal> {
    let found = secret(
        ("oauth_client_secret", settings.oauth_client_secret.as_ref()),
        ("oauth_client_secret_file", settings.oauth_client_secret_file.as_ref()),
    )?;
    both("oauth_client_id", &settings.oauth_client_id, "oauth_client_secret", found)
}

fn keycloak(settings: &TenantSettings) -> Result<Option<(String, Found)>, Refusal> {
    let found = secret(
        ("keycloak_client_secret", settings.keycloak_client_secret.as_ref()),
        ("keycloak_client_secret_file", settings.keycloak_client_secret_file.as_ref()),
    )?;
    both("keycloak_client_id", &settings.keycloak_client_id, "keycloak_client_secret", found)
}

/// An id and its secret: both or neither.
fn both(
    id_key: &'static str,
    id: &str,
    secret_key: &'static str,
    secret: Option<Found>,
) -> Result<Option<(String, Found)>, Refusal> {
    match (id.trim(), secret) {
        ("", None) => Ok(None),
        ("", Some(_)) => Err((id_key, format!("is not set, but `{secret_key}` is"), "set both or neither")),
        (_, None) => Err((secret_key, format!("is not set, but `{id_key}` is"), "set both or neither")),
        (id, Some(secret)) => Ok(Some((id.to_owned(), secret))),
    }
}

fn secret(
    (key, given): (&'static str, Option<&SecretString>),
    (file_key, file): (&'static str, Option<&PathBuf>),
) -> Result<Option<Found>, Refusal> {
    let given = given.map(|secret| trimmed(secret.expose_secret())).filter(|secret| !secret.expose_secret().is_empty());
    match (given, file) {
        (Some(_), Some(_)) => Err((file_key, format!("is set beside `{key}`"), "set one of the two")),
        (Some(secret), None) => {
            secret_form(key, secret.expose_secret())?;
            Ok(Some((Secret::Setting, secret)))
        }
        (None, Some(file)) => {
            // The name is not shown: it may be the secret itself, pasted at the wrong place.
            let problem = |error| format!("names a file that cannot be read: {error}");
            let secret = read(file).map_err(|error| (file_key, problem(error), "name a readable file that holds the secret"))?;
            secret_form(file_key, secret.expose_secret())?;
            Ok((!secret.expose_secret().is_empty()).then(|| (Secret::File(file.clone()), secret)))
        }
        (None, None) => Ok(None),
    }
}

fn read(file: &Path) -> std::io::Result<SecretString> {
    let text = SecretString::from(named_file::read_text(file, named_file::SMALL)?);
    Ok(trimmed(text.expose_secret()))
}

fn trimmed(text: &str) -> SecretString {
    SecretString::from(text.trim().to_owned())
}

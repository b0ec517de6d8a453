//! The client of an Atlan tenant: one private `send` that authenticates, traces, limits and measures, one place that reads an HTTP
//! status, one place that sends again, and one file per area of the tenant's API. Nothing here knows an activity.
//!
//! | file | what it does |
//! |---|---|
//! | `answer` | the one way in for what the tenant says: bounded, sanitized, decoded |
//! | `send` | one exchange: what was answered, or whether it can have arrived |
//! | `classify` | what a status and a body mean |
//! | `resend` | reads, sent again a few times within one attempt |
//! | `page_size`, `documents` | pages of searches and listings |
//! | `target` | names in the address of a request |
//! | `link` | where its services are, and the HTTP clients |
//! | `credentials`, `login` | the secrets, and getting a token for them |
//! | `diagnosis` | what a request that got no answer says about the configuration |
//! | `pace`, `holds`, `breaker` | how fast it may be asked, and when not at all |
//! | `clock_offset` | what its `Date` headers say of its clock |
//! | `auth`, `preflight`, `workflows`, `runs`, `apps`, `app_runs`, `connections`, `tokens` | the areas of the API |
//! | `automation` | the list of runs of the Automation Engine, where it may be read |
//! | `oauth_clients`, `roles`, `personas` | the areas that only commands use |
//! | `packages` | what packages are called |
//! | `token_admin` | the one package whose workflows are created from here |
//! | `workflow_list`, `app_list`, `run_list` | listings that only commands use; `listed` reads their pages |
//! | `looks`, `app_looks` | looking at many runs in one request |

mod answer;
mod app_list;
mod app_looks;
mod app_runs;
mod apps;
mod auth;
mod automation;
mod breaker;
mod classify;
mod clock_offset;
mod connections;
mod credentials;
mod descriptors;
mod diagnosis;
mod documents;
mod holds;
mod link;
mod listed;
mod login;
mod looks;
mod measure;
mod oauth_clients;
mod pace;
mod packages;
mod page_size;
mod personas;
mod preflight;
mod resend;
mod roles;
mod run_list;
mod runs;
mod runs_shown;
mod send;
mod settings;
mod target;
mod token_admin;
mod tokens;
mod workflow_list;
mod workflows;

#[cfg(test)]
mod recordings;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Semaphore, watch};

use crate::clock::Clock;
use crate::failure::{Category, Failure};

pub use answer::decode_as_every_answer;
pub use app_list::App;
pub(crate) use apps::is_absence;
pub use auth::{Identity, Ping};
pub use connections::{AdminsWritten, Connection};
pub use diagnosis::never_reached;
pub use holds::Hold;
pub use link::is_proxy;
pub use listed::{Listed, MOST_LISTED};
pub use oauth_clients::{NewOAuthClient, OAuthClient, OAuthClientPage, OAuthCreation, oauth_client_command};
pub(crate) use packages::find_command;
pub use packages::{package_name, where_to_look};
pub use personas::Persona;
pub use preflight::PreflightAnswer;
pub use roles::{Role, role_named};
pub use run_list::RunFilter;
pub use runs::{Kind, Run, Standing, StopError};
pub use runs_shown::{Nameless, RunsShown};
pub use send::{Permit, new_request_id};
pub use settings::{Generation, SettingsError, TenantSettings};
pub use token_admin::{TOKEN_ADMIN_PACKAGE, token_admin_name, token_admin_workflow};
pub use tokens::ApiToken;
pub use workflows::{Creation, Namesake, Submission, Workflow};

/// The tenants that this program knows, by name.
pub struct Tenants {
    tenants: BTreeMap<String, Arc<Tenant>>,
    changes: watch::Sender<u64>,
}

impl Tenants {
    /// No tenant at all: enough to enqueue, since that needs only what activities say of their inputs.
    pub fn none() -> Arc<Self> {
        Arc::new(Self { tenants: BTreeMap::new(), changes: watch::Sender::new(0) })
    }

    /// Checks the settings and makes the tenants. Those that need the same HTTP client share one. A tenant without address or key is no
    /// error: whatever is asked of it fails with `tenant.unconfigured` or `credentials.missing`.
    pub fn new(settings: BTreeMap<String, TenantSettings>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, SettingsError> {
        let changes = watch::Sender::new(0);
        let made = make(settings, clock, changes.clone()).map(|(name, tenant)| Ok((name, tenant?)));
        Ok(Arc::new(Self { tenants: made.collect::<Result<_, _>>()?, changes }))
    }

    /// The same for each by itself, one after another: the mistakes of one are not those of another.
    pub fn each(
        settings: BTreeMap<String, TenantSettings>,
        clock: Arc<dyn Clock>,
    ) -> impl Iterator<Item = (String, Result<Arc<Tenant>, SettingsError>)> {
        make(settings, clock, watch::Sender::new(0))
    }

    /// The tenant of this name, or `tenant.unknown`, which names those that there are.
    pub fn get(&self, name: &str) -> Result<Arc<Tenant>, Failure> {
        self.tenants.get(name).cloned().ok_or_else(|| {
            let known = match few(self.names()) {
                known if known.is_empty() => "none is configured".to_owned(),
                known => format!("known: {known}"),
            };
            Failure::new("tenant.unknown", Category::Precondition, format!("no tenant is named `{name}` ({known})"))
                .suggest(format!("add a section [tenants.{name}] to the configuration, or choose another with --tenant"))
        })
    }

    /// Their names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tenants.keys().map(String::as_str)
    }
}

fn make(
    settings: BTreeMap<String, TenantSettings>,
    clock: Arc<dyn Clock>,
    changes: watch::Sender<u64>,
) -> impl Iterator<Item = (String, Result<Arc<Tenant>, SettingsError>)> {
    let mut clients = link::Clients::default();
    settings.into_iter().map(move |(name, settings)| {
        let tenant = Tenant::new(name.clone(), settings, &mut clients, clock.clone(), changes.clone());
        (name, tenant.map(Arc::new))
    })
}

/// So many names are named; there may be thousands.
const NAMED: usize = 20;

/// The first few of these names, and how many more there are.
pub fn few<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.peekable();
    let first = names.by_ref().take(NAMED).collect::<Vec<_>>().join(", ");
    match names.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// No search asks for more results at once.
const MOST_RESULTS: usize = 512;

/// One named Atlan instance.
pub struct Tenant {
    name: String,
    settings: TenantSettings,
    link: settings::Checked,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    pace: pace::Pace,
    permits: Semaphore,
    held: holds::Held,
    breaker: breaker::Breaker,
    /// Held by the one that finds out whether the tenant knows us at all.
    doubts: tokio::sync::Mutex<()>,
    learned: Mutex<Learned>,
    /// The large answers that are being read.
    large: answer::Large,
    /// How many results a search asks for.
    page_size: page_size::PageSize,
    looks: looks::Looks,
    app_looks: app_looks::AppLooks,
    turns: connections::Turns,
}

/// What earlier answers taught.
#[derive(Default)]
struct Learned {
    /// The tenant's clock less ours, as far as its `Date` headers tell.
    clock: Option<clock_offset::ClockOffset>,
    /// Who we are, and until when (monotonic) that is believed.
    identity: Option<(Arc<Identity>, Duration)>,
    /// Whether it has answered as a tenant that has apps.
    has_apps: bool,
    /// Until when (monotonic) searches do not say which fields they read.
    plain_searches: Option<Duration>,
    /// Until when (monotonic) the list of runs of the Automation Engine is not asked for.
    automation_skipped: Option<Duration>,
    /// Operations that refuse a token which is accepted elsewhere: when (monotonic) first, and when last.
    refused_at: BTreeMap<&'static str, (Duration, Duration)>,
}

impl Tenant {
    fn new(
        name: String,
        settings: TenantSettings,
        clients: &mut link::Clients,
        clock: Arc<dyn Clock>,
        changes: watch::Sender<u64>,
    ) -> Result<Self, SettingsError> {
        let link = settings::check(&name, &settings)?;
        let refuse = |(key, problem, hint)| SettingsError { tenant: name.clone(), key, problem, hint };
        let http = clients.of(&settings, link.bases.as_ref()).map_err(refuse)?;
        let permits = Semaphore::new(settings.max_requests.min(Semaphore::MAX_PERMITS));
        let pace = pace::Pace::new(settings.requests_per_second, settings.request_burst, clock.monotonic());
        let held = holds::Held::new(changes);
        let app_looks = app_looks::AppLooks::new(settings.poll_interval, clock.monotonic());
        let looks = looks::Looks::at(Kind::Workflow);
        let (doubts, learned, large, turns, breaker) = Default::default();
        let page_size = page_size::PageSize::of(MOST_RESULTS);
        Ok(Self {
            name,
            settings,
            link,
            http,
            clock,
            pace,
            permits,
            held,
            breaker,
            doubts,
            learned,
            large,
            page_size,
            looks,
            app_looks,
            turns,
        })
    }

    /// The setting without which nothing can be asked of it, if one is not there: `base_url` or `api_key`.
    pub fn unset(&self) -> Option<&'static str> {
        match (&self.link.bases, &self.link.credentials) {
            (None, _) => Some("base_url"),
            (Some(_), None) => Some("api_key"),
            (Some(_), Some(_)) => None,
        }
    }

    /// What is unusual about its settings and may still be right.
    pub fn warning(&self) -> Option<SettingsError> {
        let (key, problem, hint) = settings::warning(&self.settings)?;
        Some(SettingsError { tenant: self.name.clone(), key, problem, hint })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its settings.
    pub fn settings(&self) -> &TenantSettings {
        &self.settings
    }

    /// By how much the tenant's clock is ahead of ours, as estimated; None before its first answer with a `Date`.
    pub fn clock_ahead(&self) -> Option<SignedDuration> {
        self.clock_offset().map(clock_offset::ClockOffset::middle)
    }

    fn clock_offset(&self) -> Option<clock_offset::ClockOffset> {
        let now = self.clock.monotonic();
        self.learned(|learned| learned.clock).map(|offset| offset.aged(now))
    }

    /// Learns from an answer that was received just now, `took` after its request was sent.
    fn learn_clock(&self, date: Timestamp, received: Timestamp, took: Duration) {
        let newest = clock_offset::ClockOffset::of(date, received, took, self.clock.monotonic());
        self.learned(|learned| learned.clock = Some(learned.clock.map_or(newest, |known| known.and(newest))));
    }

    /// How long an effect and its answer take at most: the request, and what comes before and after it in this process.
    pub(crate) fn longest_effect(&self) -> Duration {
        const OVERHEAD: Duration = Duration::from_secs(15);
        self.settings.request_timeout.saturating_add(OVERHEAD)
    }

    /// Whether the tenant's clock can be told within a second: its answers bound it to an interval whose middle is off by no more.
    pub fn clock_is_certain(&self) -> bool {
        self.clock_offset().is_some_and(clock_offset::ClockOffset::is_certain)
    }

    /// One of our times as the tenant's clock shows it, cut to the second.
    pub fn on_its_clock(&self, ours: Timestamp) -> Timestamp {
        moved(ours, self.clock_ahead().unwrap_or_default())
    }

    /// The first and the last second that the tenant's clock can show at a time of ours. The same one without any `Date`.
    pub(crate) fn between_on_its_clock(&self, ours: Timestamp) -> (Timestamp, Timestamp) {
        let offset = self.clock_offset();
        let ahead = |end: fn(clock_offset::ClockOffset) -> SignedDuration| offset.map(end).unwrap_or_default();
        (moved(ours, ahead(clock_offset::ClockOffset::low)), moved(ours, ahead(clock_offset::ClockOffset::high)))
    }

    /// The earliest second at which the tenant may say that something of ours was created that was started at `ours`: on its clock,
    /// less the tolerance, or less what is not known of that clock where that is more.
    pub fn earliest(&self, ours: Timestamp) -> Timestamp {
        let on_its_clock = self.on_its_clock(ours);
        let unknown = self.clock_offset().map(clock_offset::ClockOffset::half_width).unwrap_or_default();
        let tolerance = self.settings.clock_tolerance.max(unknown.unsigned_abs());
        let earliest = on_its_clock.saturating_sub(tolerance).unwrap_or(on_its_clock);
        Timestamp::from_second(earliest.as_second()).unwrap_or(earliest)
    }

    fn learned<T>(&self, f: impl FnOnce(&mut Learned) -> T) -> T {
        f(&mut self.learned.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A time of ours on a clock that is so far ahead, cut to the second.
fn moved(ours: Timestamp, ahead: SignedDuration) -> Timestamp {
    let moved = ours.saturating_add(ahead).unwrap_or(ours);
    Timestamp::from_second(moved.as_second()).unwrap_or(moved)
}

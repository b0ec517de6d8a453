//! Where the services of a tenant are, and the HTTP clients that lead there.
//!
//! Seen from outside, all of them stand behind one address, each under its prefix. Inside the tenant's cluster each has an address of
//! its own and no prefix.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, ClientBuilder, Proxy, Url};
use secrecy::{ExposeSecret, SecretString};

use super::TenantSettings;
use super::answer::{Sanitizer, describe};
use super::settings::Refusal;
use crate::named_file;

/// How long an idle connection is kept. Below the 75 s after which a usual front end closes it: reusing one at that moment costs an
/// unknown fate.
const IDLE: Duration = Duration::from_secs(30);
/// What the vendor's client calls the tenant whose cluster it runs in.
const INTERNAL: &str = "INTERNAL";
const HERACLES: (&str, &str) = ("api/service/", "http://heracles-service.heracles.svc.cluster.local/");
const METASTORE: (&str, &str) = ("api/meta/", "http://atlas-ratelimited.atlas.svc.cluster.local/api/atlas/v2/");
const KEYCLOAK: (&str, &str) = ("auth/", "http://keycloak-http.keycloak.svc.cluster.local/");
const ADDRESS: &str = "write an address such as https://acme.example.com, without user, query or fragment";

/// The addresses of a tenant's services. Each ends in `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bases {
    heracles: Base,
    metastore: Base,
    keycloak: Base,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Base {
    url: Url,
    /// Whether paths keep the prefix that they have from outside.
    prefixed: bool,
}

impl Bases {
    /// What the settings say; None when they say nothing.
    pub(super) fn of(settings: &TenantSettings) -> Result<Option<Self>, Refusal> {
        let read = |key, text: &str| address(text).map_err(|problem| (key, problem, ADDRESS));
        let internal = settings.base_url.trim() == INTERNAL;
        let outside = if internal { None } else { read("base_url", &settings.base_url)? };
        let base = |key, own: &str, internal_url: &str, outside: Option<Url>| {
            let own = if own.trim().is_empty() && internal { internal_url } else { own };
            let own = read(key, own)?.map(|url| Base { url, prefixed: false });
            Ok::<_, Refusal>(own.or_else(|| outside.map(|url| Base { url, prefixed: true })))
        };
        let heracles = base("heracles_url", &settings.heracles_url, HERACLES.1, outside.clone())?;
        let metastore = base("metastore_url", &settings.metastore_url, METASTORE.1, outside.clone())?;
        // Keycloak's paths are absolute: they drop whatever path the tenant's address has.
        let root = outside.map(|mut url| {
            url.set_path("/");
            url
        });
        let keycloak = base("keycloak_url", &settings.keycloak_url, KEYCLOAK.1, root)?.map(|base| Base { prefixed: true, ..base });
        Ok(match (heracles, metastore, keycloak) {
            (Some(heracles), Some(metastore), Some(keycloak)) => Some(Self { heracles, metastore, keycloak }),
            _ => None,
        })
    }

    /// The address of a target as it is written seen from outside.
    pub(super) fn resolve(&self, target: &str) -> Result<Url, impl std::error::Error + use<>> {
        let (base, prefix) = match target {
            _ if target.starts_with(METASTORE.0) => (&self.metastore, METASTORE.0),
            _ if target.starts_with(KEYCLOAK.0) => (&self.keycloak, KEYCLOAK.0),
            _ => (&self.heracles, HERACLES.0),
        };
        let path = if base.prefixed { target } else { target.strip_prefix(prefix).unwrap_or(target) };
        base.url.join(path)
    }

    fn all(&self) -> [&Url; 3] {
        [&self.heracles.url, &self.metastore.url, &self.keycloak.url]
    }

    /// On this very machine, or inside the cluster: no proxy stands between.
    fn are_near(&self) -> bool {
        self.all().iter().all(|url| is_loopback(url) || is_in_cluster(url))
    }
}

/// Whether an address leads to this very machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an address is one of a Kubernetes cluster, where it is known only inside.
pub(super) fn is_in_cluster(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host.ends_with(".svc.cluster.local"))
}

/// Whether a text can be the address of a proxy, as `HTTPS_PROXY` has it.
pub fn is_proxy(text: &str) -> bool {
    Proxy::all(text.trim()).is_ok()
}

fn address(text: &str) -> Result<Option<Url>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    // Else `localhost:8100` would have the scheme `localhost`.
    if !text.contains("://") {
        return Err("has no scheme".into());
    }
    let mut url = Url::parse(text).map_err(|error| format!("is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("is no http or https address".into());
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("has parts that do not belong there".into());
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(Some(url))
}

/// HTTP clients by what they are made of. Each reads the machine's certificates and keeps them, so that tenants which need the same share
/// one: its connections are by address all the same, and each request carries its own tenant's credentials.
#[derive(Default)]
pub(super) struct Clients(HashMap<Shape, Client>);

/// What a client is made of, as far as settings say. Those of a tenant with a proxy of its own, which may hold a password, are not shared.
#[derive(PartialEq, Eq, Hash)]
struct Shape {
    connect_timeout: Duration,
    ca_file: Option<PathBuf>,
    near: bool,
    plain: bool,
}

impl Clients {
    /// The client of a tenant.
    pub(super) fn of(&mut self, settings: &TenantSettings, bases: Option<&Bases>) -> Result<Client, Refusal> {
        if own_proxy(settings).is_some() {
            return client(settings, bases);
        }
        let shape = Shape {
            connect_timeout: settings.connect_timeout,
            ca_file: settings.ca_file.clone(),
            near: bases.is_some_and(Bases::are_near),
            plain: are_plain(bases),
        };
        if let Some(client) = self.0.get(&shape) {
            return Ok(client.clone());
        }
        let client = client(settings, bases)?;
        self.0.insert(shape, client.clone());
        Ok(client)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

fn own_proxy(settings: &TenantSettings) -> Option<&SecretString> {
    settings.proxy.as_ref().filter(|proxy| !proxy.expose_secret().trim().is_empty())
}

/// Whether no service is reached by TLS.
fn are_plain(bases: Option<&Bases>) -> bool {
    bases.is_none_or(|bases| bases.all().iter().all(|url| url.scheme() == "http"))
}

/// One client. Redirects are answers and not followed; the library's own repeats are off.
fn client(settings: &TenantSettings, bases: Option<&Bases>) -> Result<Client, Refusal> {
    // One provider for the whole process; if the program has chosen one already, that one stands.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let builder = Client::builder()
        .user_agent(concat!("iolaus/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(IDLE);
    let builder = match own_proxy(settings) {
        Some(proxy) => builder.proxy(through(proxy)?),
        None if bases.is_some_and(Bases::are_near) => builder.no_proxy(),
        None => builder,
    };
    trusting(settings.ca_file.as_deref(), bases, builder)?.build().map_err(|error| {
        let problem = format!("cannot be served by an HTTP client: {}", describe(&error, &Sanitizer::default()));
        ("base_url", problem, "check the proxy variables and the system's certificates")
    })
}

fn through(proxy: &SecretString) -> Result<Proxy, Refusal> {
    // The error would quote the address, and with it a password.
    let refused = |_| ("proxy", "is no address of a proxy".to_owned(), "write an address such as http://proxy.example.com:3128");
    Proxy::all(proxy.expose_secret().trim()).map_err(refused)
}

fn trusting(ca_file: Option<&Path>, bases: Option<&Bases>, builder: ClientBuilder) -> Result<ClientBuilder, Refusal> {
    // Reading the machine's certificates takes milliseconds and needs some to be there. Without TLS, and without redirects, none is used.
    let plain = are_plain(bases);
    let Some(file) = ca_file else { return Ok(if plain { builder.tls_certs_only([]) } else { builder }) };
    let refuse = |why: String| ("ca_file", format!("{} {why}", file.display()), "name a readable file of PEM certificates");
    let pem = named_file::read(file, named_file::BUNDLE).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| refuse(format!("holds no certificates: {error}")))?;
    if certificates.is_empty() {
        return Err(refuse("holds no certificates".to_owned()));
    }
    Ok(if plain { builder.tls_certs_only([]) } else { builder.tls_certs_merge(certificates) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(change: impl FnOnce(&mut TenantSettings)) -> Bases {
        let mut settings = TenantSettings::default();
        change(&mut settings);
        Bases::of(&settings).expect("it is accepted").expect("it is set")
    }

    fn resolved(bases: &Bases, target: &str) -> String {
        bases.resolve(target).expect("it is an address").to_string()
    }

    #[test]
    fn a_base_url_is_taken_with_and_without_its_slash_and_path() {
        for (text, expected) in [
            ("http://h", "http://h/api/service/whoami"),
            ("http://h/", "http://h/api/service/whoami"),
            ("http://h/t", "http://h/t/api/service/whoami"),
            ("https://h:8443/t/", "https://h:8443/t/api/service/whoami"),
        ] {
            assert_eq!(resolved(&bases(|it| it.base_url = text.into()), "api/service/whoami"), expected);
        }
        assert_eq!(Bases::of(&TenantSettings::default()).expect("it is accepted"), None);
    }

    #[test]
    fn inside_the_cluster_no_service_has_its_prefix() {
        let internal = bases(|it| it.base_url = "INTERNAL".into());
        for (target, expected) in [
            ("api/service/workflows/submit", "http://heracles-service.heracles.svc.cluster.local/workflows/submit"),
            ("api/meta/entity/bulk/?x=1", "http://atlas-ratelimited.atlas.svc.cluster.local/api/atlas/v2/entity/bulk/?x=1"),
            ("auth/realms/default/t", "http://keycloak-http.keycloak.svc.cluster.local/auth/realms/default/t"),
        ] {
            assert_eq!(resolved(&internal, target), expected);
        }
        assert!(internal.are_near());
        let own = bases(|it| {
            it.base_url = "INTERNAL".into();
            it.heracles_url = "http://localhost:5201".into();
        });
        assert_eq!(resolved(&own, "api/service/whoami"), "http://localhost:5201/whoami");
    }

    #[test]
    fn keycloak_drops_the_path_of_the_tenant() {
        let below = bases(|it| it.base_url = "https://h/t".into());
        assert_eq!(resolved(&below, "auth/realms/default/t"), "https://h/auth/realms/default/t");
        assert!(!below.are_near());
    }

    #[test]
    fn tenants_that_need_the_same_http_client_share_one() {
        let mut clients = Clients::default();
        for n in 0..1_000 {
            let settings = TenantSettings { base_url: format!("https://t-{n}.example.com"), ..TenantSettings::default() };
            clients.of(&settings, Bases::of(&settings).expect("it is accepted").as_ref()).expect("a client");
        }
        assert_eq!(clients.len(), 1);
        for change in [
            |it: &mut TenantSettings| it.connect_timeout = Duration::from_secs(3),
            |it: &mut TenantSettings| it.base_url = "http://localhost:8100".into(),
            |it: &mut TenantSettings| it.base_url = "http://t.example.com".into(),
        ] {
            let (mut settings, before) = (TenantSettings::default(), clients.len());
            settings.base_url = "https://t.example.com".into();
            change(&mut settings);
            clients.of(&settings, Bases::of(&settings).expect("it is accepted").as_ref()).expect("a client");
            assert_eq!(clients.len(), before + 1);
        }
        let proxied = TenantSettings { proxy: Some("http://u:hush@localhost:1".into()), ..TenantSettings::default() };
        clients.of(&proxied, None).expect("a client");
        assert_eq!(clients.len(), 4, "a proxy is its tenant's own");
    }

    #[test]
    fn a_proxy_or_a_certificate_that_cannot_be_used_is_refused_by_key() {
        let refused = |settings: &TenantSettings| client(settings, None).expect_err("it is refused");
        let proxy = refused(&TenantSettings { proxy: Some("::hush::".into()), ..TenantSettings::default() });
        assert!(proxy.0 == "proxy" && !proxy.1.contains("hush"), "{proxy:?}");
        let absent = TenantSettings { ca_file: Some("/nowhere/ca.pem".into()), ..TenantSettings::default() };
        assert!(refused(&absent).0 == "ca_file" && refused(&absent).1.contains("/nowhere/ca.pem"));
    }
}

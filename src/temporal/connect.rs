//! The connection to a cluster: address, namespace, TLS, API key. What is not configured is taken from Temporal's own environment
//! configuration (`TEMPORAL_ADDRESS`, `TEMPORAL_PROFILE`, its file and so on).

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use iolaus_activities::named_file;
use secrecy::{ExposeSecret, SecretString};
use temporalio_client::{Client, ClientOptions, ClientTlsOptions, Connection, ConnectionOptions, TlsOptions};
use temporalio_common::envconfig::{ClientConfigProfile, LoadClientConfigProfileOptions, load_client_config_profile};

use crate::executor;

/// Where a cluster is if nothing says where.
const LOCAL: &str = "localhost:7233";

/// Where a cluster is, and how to log in.
#[derive(Debug, Clone)]
pub struct Connecting {
    /// `host:port`, or a URL.
    pub address: String,
    /// The namespace, which must be there.
    pub namespace: String,
    /// An API key, which wants TLS.
    pub api_key: Option<SecretString>,
    /// TLS, if it is wanted.
    pub tls: Option<Tls>,
    /// How long a connection may take to open.
    pub connect_timeout: Duration,
    /// Whether Temporal's own environment configuration says what is not said here.
    pub environment: bool,
}

/// How to trust the cluster, and how it is to trust us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// A file of PEM certificates to trust instead of the machine's.
    pub ca_file: Option<PathBuf>,
    /// The name that the cluster's certificate must have.
    pub server_name: Option<String>,
    /// Our own certificate and its key, as PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{file} cannot be read: {source}")]
    File { file: String, source: std::io::Error },
    #[error("`{0}` is no address, such as temporal.example.com:7233")]
    Address(String),
    #[error("`{0}` is not encrypted: TLS and API keys want https://, or an address without a scheme")]
    NotEncrypted(String),
    #[error(
        "an API key would be sent to `{0}` unencrypted: TLS is switched off for it, by TEMPORAL_TLS=false or in Temporal's own file"
    )]
    KeyWithoutTls(String),
    #[error("Temporal's environment configuration is refused: {0}")]
    Environment(String),
    #[error("no connection: {0}")]
    Connect(Box<dyn std::error::Error + Send + Sync>),
}

/// Connects.
pub(super) async fn connect(to: &Connecting) -> Result<Client, ConnectError> {
    let (mut connection, namespace) = options(to)?;
    connection.identity = identity();
    connection.connect_timeout = Some(to.connect_timeout);
    let connected = Connection::connect(connection);
    // Opening it includes a first call, which has no limit of its own.
    let connected = match tokio::time::timeout(to.connect_timeout.saturating_mul(2), connected).await {
        Ok(connected) => connected.map_err(|error| ConnectError::Connect(error.into()))?,
        Err(_) => return Err(ConnectError::Connect(format!("no answer within {:?}", to.connect_timeout).into())),
    };
    Client::new(connected, ClientOptions::new(namespace).build()).map_err(|error| ConnectError::Connect(error.into()))
}

/// What the cluster calls this process.
pub(super) fn identity() -> String {
    static IDENTITY: LazyLock<String> = LazyLock::new(executor::of_this_worker);
    IDENTITY.clone()
}

/// Address and namespace, as people are told them.
pub(super) fn place(to: &Connecting) -> (String, String) {
    let said = profile(to).unwrap_or_default();
    let or = |said: Option<String>, default: &str| said.filter(|said| !said.is_empty()).unwrap_or_else(|| default.to_owned());
    (or(said.address, LOCAL), or(said.namespace, "default"))
}

fn profile(to: &Connecting) -> Result<ClientConfigProfile, ConnectError> {
    let mut profile = ClientConfigProfile::default();
    if to.environment {
        let loading = LoadClientConfigProfileOptions::builder().build();
        profile = load_client_config_profile(loading, None).map_err(|error| ConnectError::Environment(error.to_string()))?;
    }
    // What is configured here wins; an empty value says nothing.
    if !to.address.is_empty() {
        profile.address = Some(to.address.clone());
    }
    if !to.namespace.is_empty() {
        profile.namespace = Some(to.namespace.clone());
    }
    if let Some(key) = &to.api_key {
        profile.api_key = Some(key.expose_secret().to_owned());
    }
    Ok(profile)
}

fn options(to: &Connecting) -> Result<(ConnectionOptions, String), ConnectError> {
    options_of(to, profile(to)?)
}

fn options_of(to: &Connecting, mut profile: ClientConfigProfile) -> Result<(ConnectionOptions, String), ConnectError> {
    let namespace = profile.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let address = profile.address.clone().filter(|address| !address.is_empty()).unwrap_or_else(|| LOCAL.to_owned());
    if (to.tls.is_some() || profile.api_key.is_some()) && address.starts_with("http://") {
        return Err(ConnectError::NotEncrypted(address));
    }
    if to.tls.is_some() && !address.contains("://") {
        profile.address = Some(format!("https://{address}"));
    }
    let has_key = profile.api_key.is_some();
    let mut options = ConnectionOptions::try_from(profile).map_err(|_| ConnectError::Address(address.clone()))?;
    if has_key && options.target.scheme() != "https" {
        return Err(ConnectError::KeyWithoutTls(address));
    }
    if let Some(tls) = &to.tls {
        options.tls_options = Some(tls_options(tls)?);
    }
    Ok((options, namespace))
}

fn tls_options(tls: &Tls) -> Result<TlsOptions, ConnectError> {
    let client = match &tls.client {
        Some((certificate, key)) => {
            Some(ClientTlsOptions::builder().client_cert(read(certificate)?).client_private_key(read(key)?).build())
        }
        None => None,
    };
    Ok(TlsOptions::builder()
        .maybe_server_root_ca_cert(tls.ca_file.as_deref().map(read).transpose()?)
        .maybe_domain(tls.server_name.clone())
        .maybe_client_tls_options(client)
        .build())
}

fn read(file: &Path) -> Result<Vec<u8>, ConnectError> {
    named_file::read(file, named_file::BUNDLE).map_err(|source| ConnectError::File { file: file.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use temporalio_common::envconfig::ClientConfigTLS;

    use super::*;

    fn to(address: &str) -> Connecting {
        Connecting {
            address: address.to_owned(),
            namespace: String::new(),
            api_key: None,
            tls: None,
            connect_timeout: Duration::from_secs(1),
            environment: false,
        }
    }

    #[test]
    fn what_wants_encryption_refuses_an_address_without_it() {
        let with_tls = Connecting { tls: Some(Tls::default()), ..to("http://temporal.example.com:7233") };
        let with_key = Connecting { api_key: Some("key".to_owned().into()), ..to("http://temporal.example.com:7233") };
        for connecting in [with_tls, with_key] {
            assert!(matches!(options(&connecting), Err(ConnectError::NotEncrypted(_))));
        }
        assert!(options(&to("http://temporal.example.com:7233")).is_ok());
    }

    #[test]
    fn an_api_key_is_never_sent_where_tls_is_switched_off() {
        let connecting = Connecting { api_key: Some("hush".to_owned().into()), ..to("temporal.example.com:7233") };
        let with = |disabled: Option<bool>| {
            let mut profile = profile(&connecting).expect("it is read");
            profile.tls = disabled.map(|disabled| ClientConfigTLS::builder().disabled(disabled).build());
            options_of(&connecting, profile)
        };
        let refused = with(Some(true)).map(drop).expect_err("it is refused").to_string();
        assert!(refused.contains("TEMPORAL_TLS=false") && !refused.contains("hush"), "{refused}");
        for tls in [None, Some(false)] {
            assert_eq!(with(tls).expect("it is encrypted").0.target.scheme(), "https");
        }
    }

    #[test]
    fn an_address_that_nobody_said_is_the_local_one_with_tls_too() {
        let (found, namespace) = options(&Connecting { tls: Some(Tls::default()), ..to("") }).expect("it is an address");
        assert_eq!((found.target.as_str(), namespace.as_str()), ("https://localhost:7233/", "default"));
    }
}

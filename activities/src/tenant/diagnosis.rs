//! What a request that got no answer says about the configuration: hints for people. Nothing but hints and the patience of `execute`
//! depends on it, so that words of an error may be read where it has no type of its own.

use std::error::Error;
use std::io;

use rustls::CertificateError;

use super::Tenant;
use crate::failure::Failure;

/// The codes of failures that come from before the tenant: it was not reached, or nothing could be sent.
const UNREACHED: [&str; 5] =
    ["tenant.unreachable", "tenant.redirected", "tenant.unconfigured", "tenant.unknown", "credentials.missing"];

/// Whether an attempt that failed with this code never reached the tenant.
pub fn never_reached(code: &str) -> bool {
    UNREACHED.contains(&code)
}

/// What kept a request from being answered, as far as its error tells.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    Refused,
    UnknownHost,
    Certificate(&'static str),
    NoTls,
    NoHttp,
    TimedOut,
}

impl Tenant {
    /// The failure with a hint, where the error says what to look at.
    pub(super) fn diagnosed(&self, failure: Failure, error: &reqwest::Error) -> Failure {
        let cause = if error.is_timeout() && error.is_connect() { Some(Cause::TimedOut) } else { cause(error) };
        match cause {
            Some(cause) => failure.suggest(self.hint(&cause)),
            None => failure,
        }
    }

    fn hint(&self, cause: &Cause) -> String {
        let (name, base_url) = (&self.name, self.settings.base_url.trim());
        let setting = format!("tenants.{name}.base_url ({base_url})");
        match cause {
            Cause::Refused => format!("nothing listens there: check host and port of {setting}, and the proxy if there is one"),
            Cause::UnknownHost => format!("the host name is unknown: check {setting}, and the DNS of this machine"),
            Cause::Certificate(what) => {
                format!(
                    "the certificate {what}: check {setting}; a private authority's certificate belongs into tenants.{name}.ca_file"
                )
            }
            Cause::NoTls => format!("that port does not speak TLS: check {setting}; does it have to begin with http://?"),
            Cause::NoHttp => format!("that port does not speak HTTP: check {setting}; does it have to begin with https://?"),
            Cause::TimedOut => {
                format!("no connection: check {setting}, the firewall, and whether a proxy is needed (tenants.{name}.proxy)")
            }
        }
    }
}

fn cause(error: &(dyn Error + 'static)) -> Option<Cause> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            return Some(Cause::Refused);
        }
        if let Some(found) = error.downcast_ref().and_then(of_tls) {
            return Some(found);
        }
        match error.to_string().as_str() {
            "dns error" => return Some(Cause::UnknownHost),
            said if said.starts_with("invalid HTTP version") => return Some(Cause::NoHttp),
            _ => {}
        }
        // The source of an I/O error is not what it wraps, but that one's source.
        next = match io {
            Some(io) => io.get_ref().map(|inner| -> &(dyn Error + 'static) { inner }),
            None => error.source(),
        };
    }
    None
}

fn of_tls(error: &rustls::Error) -> Option<Cause> {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Some(Cause::Certificate("has expired"))
        }
        E::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            Some(Cause::Certificate("is for another host name"))
        }
        E::InvalidCertificate(_) => Some(Cause::Certificate("is not trusted")),
        E::InvalidMessage(_) | E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => Some(Cause::NoTls),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("dns error")]
    struct Dns;

    #[test]
    fn an_error_is_told_by_its_innermost_known_cause() {
        let io = |kind: io::ErrorKind| io::Error::from(kind);
        assert_eq!(cause(&io(io::ErrorKind::ConnectionRefused)), Some(Cause::Refused));
        assert_eq!(cause(&io(io::ErrorKind::ConnectionReset)), None);
        assert_eq!(cause(&Dns), Some(Cause::UnknownHost));
        let tls = |error: rustls::Error| cause(&io::Error::other(error));
        assert_eq!(tls(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), Some(Cause::NoTls));
        let of = |problem| tls(rustls::Error::InvalidCertificate(problem));
        assert_eq!(of(CertificateError::Expired), Some(Cause::Certificate("has expired")));
        assert_eq!(of(CertificateError::NotValidForName), Some(Cause::Certificate("is for another host name")));
        assert_eq!(of(CertificateError::UnknownIssuer), Some(Cause::Certificate("is not trusted")));
    }
}

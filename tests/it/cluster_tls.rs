//! A cluster behind TLS that asks for a certificate and an API key, as hosted ones do: a real server behind a proxy that ends TLS.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use iolaus::sandbox::SandboxOptions;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::cli::harness::Place;
use crate::support::cluster::Cluster;

/// Test certificates for `localhost`, signed by an authority of their own.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("activities/src/tenant/tests/tls").join(name)
}

/// A certificate of a client, signed by another authority.
fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// What came through in clear text behind the proxy.
type Seen = Arc<Mutex<Vec<u8>>>;

/// Ends TLS before a server, and lets in only whom it knows by certificate.
async fn proxy(to: String) -> (u16, Seen) {
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(client("client-ca.pem")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let certificate = CertificateDer::from_pem_file(file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
    let mut config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let record = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, to, record) = (acceptor.clone(), to.clone(), record.clone());
            tokio::spawn(async move {
                let (Ok(stream), Ok(there)) = (acceptor.accept(stream).await, TcpStream::connect(to).await) else { return };
                let (mut from, mut back) = tokio::io::split(stream);
                let (mut answers, mut there) = there.into_split();
                let forth = async {
                    let mut bytes = vec![0; 16_384];
                    while let Ok(read @ 1..) = from.read(&mut bytes).await {
                        record.lock().unwrap().extend_from_slice(&bytes[..read]);
                        if there.write_all(&bytes[..read]).await.is_err() {
                            break;
                        }
                    }
                };
                tokio::select! {
                    () = forth => {}
                    _ = tokio::io::copy(&mut answers, &mut back) => {}
                }
            });
        }
    });
    (port, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_wants_tls_a_certificate_and_a_key_gets_them_and_nobody_else_is_let_in() {
    let Some(cluster) = Cluster::shared() else { return };
    let (port, seen) = proxy(cluster.address().to_owned()).await;
    let judged = tokio::task::spawn_blocking(move || {
        let mut place = Place::with_tenant(SandboxOptions::default());
        let key = place.file("api-key", "secret-of-the-cluster\n");
        for (name, value) in [
            ("HOST__KIND", "temporal".to_owned()),
            ("TEMPORAL__ADDRESS", format!("localhost:{port}")),
            ("TEMPORAL__TLS", "true".to_owned()),
            ("TEMPORAL__CONNECT_TIMEOUT", "2s".to_owned()),
            ("TEMPORAL__TLS_CA_FILE", file("ca.pem").display().to_string()),
        ] {
            place.set(&format!("IOLAUS_{name}"), value);
        }
        let stranger = place.run("jobs list");
        place.set("IOLAUS_TEMPORAL__TLS_CERT_FILE", client("client.pem"));
        place.set("IOLAUS_TEMPORAL__TLS_KEY_FILE", client("client.key"));
        place.set("IOLAUS_TEMPORAL__API_KEY_FILE", key);
        (stranger, place.run("jobs list"))
    });
    let (stranger, known) = judged.await.unwrap();
    assert_eq!((stranger.code, known.code), (6, 0), "{stranger:?} {known:?}");
    assert!(!(known.stdout + &known.stderr).contains("secret-of-the-cluster"));
    // Header fields are compressed, so that the key itself may not be readable here; that something came through is.
    assert!(seen.lock().unwrap().starts_with(b"PRI * HTTP/2.0"));
}

//! A tenant behind a certificate that the machine does not know.

use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::super::scripted::{clock, drive, tenants};
use super::super::*;

/// Test certificates for `localhost`, signed by an authority of their own.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tenant/tests/tls").join(name)
}

/// Answers every request on every connection as `whoami` would.
pub(super) async fn serve() -> String {
    rustls::crypto::ring::default_provider().install_default().ok();
    let certificate = CertificateDer::from_pem_file(file("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).expect("they fit");
    let (acceptor, listener) =
        (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.expect("a port is free"));
    let address = format!("https://localhost:{}", listener.local_addr().expect("it is bound").port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n\r\n") && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
            let body = json!({"username": "jane", "roles": []}).to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("the client is there");
            stream.shutdown().await.ok();
        }
    });
    address
}

#[tokio::test]
async fn a_tenant_with_a_private_certificate_is_trusted_by_the_file_that_is_named_and_not_without() {
    let base_url = serve().await;
    let settings = |ca_file| {
        let api_key = Some("key".to_owned().into());
        TenantSettings { base_url: base_url.clone(), api_key, ca_file, ..TenantSettings::default() }
    };
    let clock = clock();
    let trusting = tenants(settings(Some(file("ca.pem"))), &clock).get("default").expect("it is configured");
    assert_eq!(trusting.whoami().await.expect("it is trusted").username, "jane");
    let stranger = tenants(settings(None), &clock).get("default").expect("it is configured");
    let failure = drive(&clock, stranger.whoami()).await.expect_err("it is not trusted");
    assert_eq!(failure.code, "tenant.unreachable");
}

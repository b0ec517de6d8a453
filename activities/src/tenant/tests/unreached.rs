//! An address that leads nowhere, or elsewhere, is said to be wrong at the first request.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use super::super::diagnosis::never_reached;
use super::super::scripted::{Reply, Scripted, clock, drive, tenants};
use super::super::*;
use super::trust;

async fn asked(base_url: String) -> (Arc<Tenant>, Failure) {
    let clock = clock();
    let settings = TenantSettings { base_url, api_key: Some("key".into()), ..TenantSettings::default() };
    let tenant = tenants(settings, &clock).get("default").expect("it is configured");
    let failure = drive(&clock, tenant.whoami()).await.expect_err("it is not the tenant");
    (tenant, failure)
}

/// The https address of a port that speaks plain HTTP, and refuses whatever it cannot read.
async fn speaking_http() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("https://{}", listener.local_addr().expect("it is bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.ok();
            // The rest of what the client says is read, so that closing does not cut off the answer.
            tokio::spawn(async move { tokio::io::copy(&mut stream, &mut tokio::io::sink()).await });
        }
    });
    address
}

#[tokio::test]
async fn the_first_failure_says_what_is_wrong_with_the_address() {
    // Bound for the whole test and never listened on, so that no other test is given the port.
    let closed = TcpSocket::new_v4().expect("a socket");
    closed.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
    let refused = format!("http://{}", closed.local_addr().expect("it is bound"));
    let redirecting = Scripted::answering(|_| Some(Reply::text(301, "").header("location", "https://acme.example.com/"))).await;
    let rows = [
        (refused, "tenant.unreachable", "nothing listens there"),
        (speaking_http().await, "tenant.unreachable", "does not speak TLS"),
        (trust::serve().await, "tenant.unreachable", "the certificate is not trusted"),
        (redirecting.settings().base_url, "tenant.redirected", ""),
    ];
    for (base_url, code, hint) in rows {
        let (tenant, failure) = asked(base_url.clone()).await;
        assert_eq!(failure.code, code, "{failure:?}");
        let said = failure.suggested_action.as_deref().unwrap_or_default();
        assert!(said.contains(hint) && said.contains("tenants.default.base_url"), "{base_url}: {said} {failure}");
        assert!(never_reached(&failure.code) && tenant.unreached().is_some(), "{base_url}");
    }
}

#[tokio::test]
async fn a_tls_port_that_is_asked_in_plain_http_is_said_to_be_one() {
    let plain = trust::serve().await.replace("https://", "http://");
    let (_, failure) = asked(plain).await;
    assert!(failure.suggested_action.is_some_and(|said| said.contains("https://")), "{}", failure.message);
}

#[tokio::test]
async fn a_tenant_that_answered_once_was_reached_whatever_comes_later() {
    let clock = clock();
    let server = Scripted::script([Reply::text(503, ""), Reply::cut(), Reply::cut()]).await;
    let tenant = server.tenant(&clock);
    drive(&clock, tenant.whoami()).await.expect_err("it is down");
    assert!(tenant.unreached().is_none());
}

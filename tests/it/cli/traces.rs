//! One trace from the command to the tenant, exported when the standard variables ask for it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use iolaus::sandbox::SandboxOptions;

use super::harness::{CONNECTION, Place, USER};

/// Answers every export with 200 and keeps the bodies until it is hung up on.
pub(super) struct Collector {
    pub(super) address: String,
    received: JoinHandle<Vec<u8>>,
}

impl Collector {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let received = std::thread::spawn(move || {
            let mut all = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().expect("a connection");
                if !exchange(&mut stream, &mut all) {
                    return all;
                }
            }
        });
        Self { address, received }
    }

    pub(super) fn stop(self) -> String {
        drop(TcpStream::connect(&self.address).expect("it listens"));
        String::from_utf8_lossy(&self.received.join().expect("it ends")).into_owned()
    }
}

fn exchange(stream: &mut TcpStream, all: &mut Vec<u8>) -> bool {
    let mut bytes = Vec::new();
    let mut chunk = [0_u8; 4096];
    while !complete(&bytes) {
        match stream.read(&mut chunk) {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => break,
        }
    }
    all.extend_from_slice(&bytes);
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .ok();
    !bytes.is_empty()
}

fn complete(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).and_then(|n| n.trim().parse().ok());
    bytes.len() >= head + 4 + length.unwrap_or(0)
}

#[test]
fn execute_exports_command_send_process_and_the_exchange_with_the_tenant() {
    let collector = Collector::start();
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address));
    place.set("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test");
    let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION}"));
    let exported = collector.stop();
    assert_eq!(ran.code, 0, "{ran:?}");
    for name in [
        "POST /v1/traces",
        "iolaus execute",
        "send publish_preflight",
        "process publish_preflight",
        "user_publish_check",
        "deployment.environment.name",
    ] {
        assert!(exported.contains(name), "`{name}` is missing in {exported}");
    }
    assert!(!exported.contains("sandbox-api-token"), "no credential is exported");
}

#[test]
fn a_collector_that_is_away_changes_no_verdict() {
    let mut place = Place::with_tenant(SandboxOptions::default());
    place.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let ran = place.run(&format!("execute publish_preflight {USER} {CONNECTION}"));
    assert_eq!((ran.code, ran.json()["status"].as_str()), (0, Some("passed")), "{ran:?}");
}

//! What answers of any kind cost in memory, measured by an allocator that counts, and that none of them makes the client panic. One test
//! at a time, so that none counts what another allocates.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Barrier, Mutex, PoisonError};

use iolaus_activities::SystemClock;
use iolaus_activities::tenant::{Tenant, TenantSettings, Tenants, decode_as_every_answer};
use peak_alloc::PeakAlloc;
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MIB: usize = 1024 * 1024;
/// What connections, runtimes and small answers need in any case.
const SLACK: usize = 512 * 1024;

/// Answers every request with the same body. Returns its address.
fn serve(body: Arc<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let body = body.clone();
            std::thread::spawn(move || answer(stream, &body));
        }
    });
    address
}

/// A client that has heard enough closes the connection, which ends this.
fn answer(mut stream: TcpStream, body: &[u8]) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
    }
    std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len()).ok()?;
    stream.write_all(body).ok()
}

fn tenant(base_url: &str) -> Arc<Tenant> {
    let api_key = Some("an-api-key-of-ours".to_owned().into());
    let settings = TenantSettings { base_url: base_url.to_owned(), api_key, ..TenantSettings::default() };
    let tenants = Tenants::new(BTreeMap::from([("default".to_owned(), settings)]), Arc::new(SystemClock::default()));
    tenants.expect("the settings are good").get("default").expect("it is configured")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// What is repeated until a body is so long, and what stands around it.
fn bodies(length: usize) -> Vec<(&'static str, Vec<u8>)> {
    let shapes = [
        ("objects", "[", "{\"\":1},", "0]"),
        ("empty hits", "{\"hits\":{\"hits\":[", "{},", "0]}}"),
        ("hits", "{\"hits\":{\"hits\":[", "{\"_id\":\"a\"},", "0]}}"),
        ("workflows", "{\"hits\":{\"hits\":[", "{\"_source\":{\"metadata\":{\"name\":\"a\"}}},", "0]}}"),
        ("records", "{\"totalRecord\":1,\"records\":[", "{\"name\":\"a\",\"id\":\"a\",\"clientId\":\"a\"},", "0]}"),
        ("entities", "{\"entities\":[", "{\"attributes\":{\"name\":\"a\",\"qualifiedName\":\"a\"}},", "0]}"),
        ("admins", "{\"entity\":{\"guid\":\"g\",\"attributes\":{\"adminUsers\":[", "\"a\",", "\"b\"]}}}"),
        ("roles", "{\"username\":\"u\",\"roles\":[", "{\"name\":\"a\"},", "0]}"),
        ("steps", "{\"status\":\"Failed\",\"dag_nodes\":{", "\"a\":{\"error_message\":\"x\"},", "\"b\":0}}"),
        ("checks", "{\"passed\":false,\"failed_checks\":[", "[],", "0]}"),
        ("check names", "{\"passed\":false,\"failed_checks\":[", "\"a\",", "0]}"),
        ("escapes", "{\"passed\":false,\"message\":\"", "\\n", "\"}"),
        ("an escaped name", "{\"hits\":{\"hits\":[{\"_id\":\"", "\\n", "\"}]}}"),
        ("one long name", "{\"username\":\"", "x", "\",\"roles\":[]}"),
        ("keys", "{", "\"a\":0,", "\"b\":0}"),
        ("nested", "", "[", ""),
        ("nested objects", "", "{\"a\":", ""),
        ("white space", "", " ", ""),
        ("a page", "<html>", "x", ""),
    ];
    let body = |(name, start, part, end): (&'static str, &str, &str, &str)| {
        let count = length.saturating_sub(start.len() + end.len()) / part.len();
        (name, [start, &part.repeat(count), end].concat().into_bytes())
    };
    shapes.map(body).into()
}

async fn every_read(tenant: &Tenant) {
    tenant.whoami().await.ok();
    tenant.publish_preflight("u", "c").await.ok();
    tenant.workflow("a").await.ok();
    tenant.workflows_of_package("a").await.ok();
    tenant.runs_of("w", None).await.ok();
    tenant.look("a").await.ok();
    tenant.has_app("a").await.ok();
    tenant.app_run("r").await.ok();
    tenant.app_run_message("r").await.ok();
    tenant.app_runs_of("w", None).await.ok();
    tenant.connection("q").await.ok();
    tenant.api_token("a").await.ok();
    tenant.personas_named("a").await.ok();
    tenant.oauth_clients(0, 100, None).await.ok();
    tenant.oauth_client("a").await.ok();
}

#[test]
fn the_memory_for_any_answer_stays_within_ten_times_of_its_bytes() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for length in [60 * 1024, 512 * 1024] {
        for (name, body) in bodies(length) {
            let (came, body) = (body.len(), Arc::new(body));
            let tenant = tenant(&serve(body.clone()));
            let runtime = runtime();
            let before = ALLOCATOR.current_usage();
            ALLOCATOR.reset_peak_usage();
            runtime.block_on(every_read(&tenant));
            let took = ALLOCATOR.peak_usage().saturating_sub(before);
            assert!(took <= 10 * came.max(64 * 1024) + SLACK, "{name}: {came} bytes took {took}");
        }
    }
}

#[test]
fn thirty_two_hostile_answers_at_once_stay_below_256_megabytes() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, body) in bodies(8 * MIB - 64) {
        if !["hits", "an escaped name"].contains(&name) {
            continue;
        }
        let address = serve(Arc::new(body));
        let (before, start) = (ALLOCATOR.current_usage(), Arc::new(Barrier::new(16)));
        ALLOCATOR.reset_peak_usage();
        // Sixteen tenants, each asked two things at once.
        let askers: Vec<_> = (0..16)
            .map(|_| {
                let (tenant, start) = (tenant(&address), start.clone());
                std::thread::spawn(move || {
                    start.wait();
                    runtime().block_on(async { tokio::join!(tenant.look("a"), tenant.connection("q")) })
                })
            })
            .collect();
        for asker in askers {
            let _ = asker.join().expect("no panic");
        }
        let took = ALLOCATOR.peak_usage().saturating_sub(before);
        assert!(took < 256 * MIB, "{name}: {} MiB", took / MIB);
    }
}

/// The answers of the recordings.
fn recorded() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/recorded");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).expect("the recordings").map(|file| file.expect("a file").path()).collect();
    files.sort();
    let mut bodies: Vec<Vec<u8>> = files
        .iter()
        .filter_map(|file| serde_json::from_slice::<Value>(&std::fs::read(file).ok()?).ok())
        .flat_map(|recording| recording["exchanges"].as_array().cloned().unwrap_or_default())
        .map(|exchange| exchange["answer_given"]["body"].to_string().into_bytes())
        .collect();
    bodies.sort();
    bodies.dedup();
    bodies
}

fn mutated(random: &mut fastrand::Rng, bodies: &[Vec<u8>]) -> Vec<u8> {
    const TOKENS: [&str; 22] = [
        "null",
        "true",
        "[",
        "]",
        "{",
        "}",
        "\"",
        ",",
        ":",
        "{}",
        "[]",
        "\"\"",
        "1e999",
        "-0",
        "18446744073709551616",
        "\"\\ud800\"",
        "\"\\u0000\\u001b\\u202e\"",
        "\u{feff}",
        "\u{0}",
        "\"a-secret-of-ours\"",
        "[[[[[[[[",
        "{\"a\":{\"a\":{\"a\":",
    ];
    let mut body = bodies[random.usize(..bodies.len())].clone();
    for _ in 0..=random.usize(..6) {
        let (at, other) = (random.usize(..=body.len()), random.usize(..=body.len()));
        let (from, to) = (at.min(other), at.max(other));
        match random.u8(..8) {
            0 if at < body.len() => body[at] ^= 1 << random.u8(..8),
            1 => body.truncate(at),
            2 => drop(body.drain(from..to.min(from + 64))),
            3 => {
                let part = body[from..to.min(from + 512)].to_vec();
                body.splice(at..at, part);
            }
            4 => {
                let donor = &bodies[random.usize(..bodies.len())];
                let start = random.usize(..donor.len());
                let part = donor[start..donor.len().min(start + random.usize(..256))].to_vec();
                body.splice(from..to.min(from + 32), part);
            }
            _ => {
                let token = TOKENS[random.usize(..TOKENS.len())].bytes().collect::<Vec<_>>();
                body.splice(from..to.min(from + random.usize(..8)), token);
            }
        }
    }
    body
}

/// A body is one answer that a tenant may give to any request: each is decoded as each of 19 kinds of answer, which makes 1.9 million
/// decodings. `IOLAUS_FUZZ_BODIES` and `IOLAUS_FUZZ_SEED` make it longer and different.
#[test]
fn a_hundred_thousand_mutated_bodies_decoded_as_every_answer_neither_panic_nor_leave_memory_behind() {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let variable = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (count, seed) = (variable("IOLAUS_FUZZ_BODIES", 100_000), variable("IOLAUS_FUZZ_SEED", 0x1015_2026));
    let (bodies, mut random) = (recorded(), fastrand::Rng::with_seed(seed));
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut taken = 0;
    for n in 0..count {
        let body = mutated(&mut random, &bodies);
        let ended = std::panic::catch_unwind(|| decode_as_every_answer(&body));
        taken += ended.unwrap_or_else(|_| panic!("seed {seed}, body {n}: {}", String::from_utf8_lossy(&body)));
    }
    let (peak, after) = (ALLOCATOR.peak_usage().saturating_sub(before), ALLOCATOR.current_usage().saturating_sub(before));
    assert!(taken > 0, "some are still answers");
    assert!(peak < 4 * MIB && after < 64 * 1024, "seed {seed}: at most {peak} bytes, and {after} left");
}

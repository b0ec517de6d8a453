//! Keeps the house in order: which room may know which, how long a file may be, and what no file may hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of `src`, and the rooms that each may name. `telemetry` and `config` may be used by all.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("bench", &["client", "embedded", "intake", "job"]),
    (
        "cli",
        &[
            "bench",
            "client",
            "config",
            "embedded",
            "executor",
            "http",
            "intake",
            "job",
            "sandbox",
            "sequence",
            "telemetry",
            "temporal",
        ],
    ),
    ("client", &["job"]),
    ("config", &["intake", "job", "telemetry"]),
    ("embedded", &["client", "executor", "job", "sequence", "telemetry"]),
    ("executor", &["job", "telemetry"]),
    ("http", &["telemetry"]),
    ("intake", &["job"]),
    ("job", &[]),
    ("sandbox", &[]),
    ("sequence", &["executor", "intake", "job"]),
    ("telemetry", &["job"]),
    ("temporal", &["client", "executor", "job", "sequence", "telemetry"]),
];

/// A file's lines, its tests not counted.
const LONGEST: usize = 400;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(under: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(under)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no file below {under}");
    files
}

/// A file without its tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..tests].to_owned()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.file_name().is_some_and(|name| name == "tests.rs")
}

/// The rooms that a text names as `crate::room`.
fn named(text: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for part in line.split("crate::").skip(1) {
            rooms.insert(part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect());
        }
    }
    rooms
}

#[test]
fn every_room_knows_only_the_rooms_below_it() {
    let src = root().join("src");
    for path in rust_files("src") {
        let inside = path.strip_prefix(&src).unwrap();
        let room = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if matches!(room, "lib" | "main") || is_test(&path) {
            continue;
        }
        let Some((_, allowed)) = DIRECTIONS.iter().find(|(name, _)| *name == room) else {
            panic!("{room} is a new room: say here which others it may know");
        };
        for other in named(&code(&path)) {
            assert!(
                other.is_empty() || other == room || allowed.contains(&other.as_str()),
                "{} names crate::{other}",
                inside.display()
            );
        }
    }
}

#[test]
fn the_sandbox_shares_no_type_with_the_client_that_it_judges() {
    for path in rust_files("src/sandbox") {
        assert!(!fs::read_to_string(&path).unwrap().contains("iolaus_activities"), "{}", path.display());
    }
}

#[test]
fn the_activities_are_a_leaf() {
    let manifest = fs::read_to_string(root().join("activities/Cargo.toml")).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    for line in dependencies.lines() {
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        assert!(!["iolaus", "rusqlite", "axum", "hyper", "clap", "config"].contains(&name), "activities depends on {name}");
    }
}

#[test]
fn only_one_file_knows_the_crate_that_nobody_maintains() {
    let users: Vec<_> = rust_files("activities/src")
        .into_iter()
        .chain(rust_files("src"))
        .filter(|path| code(path).lines().any(|line| !line.trim_start().starts_with("//") && line.contains("backoff::")))
        .collect();
    assert_eq!(users, [root().join("activities/src/tenant/resend.rs")]);
}

#[test]
fn only_one_file_reads_an_http_status() {
    for path in rust_files("activities/src") {
        let reads = code(&path).contains("StatusCode");
        let may = path.ends_with("tenant/classify.rs") || path.ends_with("tenant/send.rs") || path.ends_with("tenant/scripted.rs");
        assert!(!reads || may, "{} reads an HTTP status", path.display());
    }
}

#[test]
fn no_file_is_too_long_to_read() {
    for path in rust_files("src").into_iter().chain(rust_files("activities/src")).filter(|path| !is_test(path)) {
        let lines = code(&path).lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines; {LONGEST} are the most", path.display());
    }
}

#[test]
fn nothing_is_silenced_and_nothing_is_left_open() {
    let marks = [concat!("#[all", "ow("), concat!("tod", "o!("), concat!("unimplement", "ed!("), concat!("FIX", "ME")];
    for path in ["src", "activities/src", "tests", "benches"].into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&path).unwrap();
        for mark in marks {
            assert!(!text.contains(mark), "{} holds {mark}", path.display());
        }
    }
}

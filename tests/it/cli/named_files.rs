//! Files that settings and options name, where there is something else: a pipe that no one writes to, a device without an end, a directory.

use std::path::{Path, PathBuf};

use iolaus::sandbox::SandboxOptions;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::harness::Place;

fn pipe(place: &Place) -> PathBuf {
    let path = place.file("here", "").with_file_name("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    path
}

/// Things that are no files, and what is said of them.
fn no_files(place: &Place) -> [(PathBuf, &'static str); 3] {
    let directory = place.file("here", "").parent().expect("it is in one").to_owned();
    [(pipe(place), "it is a pipe"), ("/dev/zero".into(), "it is a device"), (directory, "it is a directory")]
}

fn refused(place: &Place, command: &str, parts: &[&str]) {
    let ran = place.run(command);
    assert_eq!(ran.code, 2, "{command}: {ran:?}");
    let told = format!("{}{}", ran.stdout, ran.stderr);
    for part in parts {
        assert!(told.contains(part), "{command}: `{part}` is missing: {ran:?}");
    }
}

#[test]
fn a_secret_or_certificate_that_is_in_no_file_is_refused_by_its_setting_and_nothing_waits_for_it() {
    let settings = [
        ("API_KEY_FILE", "api_key_file"),
        ("OAUTH_CLIENT_SECRET_FILE", "oauth_client_secret_file"),
        ("KEYCLOAK_CLIENT_SECRET_FILE", "keycloak_client_secret_file"),
        ("CA_FILE", "ca_file"),
    ];
    for (variable, key) in settings {
        // A place of its own for each: the pipe is made in it.
        let mut place = Place::with_tenant(SandboxOptions::default());
        for (path, what) in no_files(&place) {
            place.set(&format!("IOLAUS_TENANTS__DEFAULT__{variable}"), path.as_os_str());
            for command in ["worker", "doctor", "whoami", "execute publish_preflight user_id=u connection_qualified_name="] {
                refused(&place, command, &[key, what]);
            }
        }
    }
}

#[test]
fn a_configuration_that_is_no_file_is_refused_by_what_it_is() {
    let place = Place::new();
    for (path, what) in no_files(&place) {
        let at = path.display().to_string();
        for command in ["status", "worker", "doctor"] {
            refused(&place, &format!("--config {at} {command}"), &[at.trim_start_matches('/'), what]);
        }
    }
    refused(&place, "--config /nowhere/iolaus.toml status", &["there is no such file"]);
}

/// A pipe is a fine place for an input, so that it is waited for, but no longer than until a signal comes.
#[test]
fn a_command_that_waits_for_an_input_obeys_the_first_signal() {
    let place = Place::with_tenant(SandboxOptions::default());
    let path = pipe(&place);
    let path = path.display();
    for command in [
        format!("execute publish_preflight --input-file {path}"),
        format!("enqueue publish_preflight --input-file {path}"),
        format!("enqueue --jobs {path}"),
        format!("enqueue --jobs {path} --on-error skip"),
        format!("sequence execute {path}"),
    ] {
        // Whoever opens a pipe to write waits for a reader: then the command reads.
        let running = place.start(&command);
        let writer = std::fs::OpenOptions::new().write(true).open(path.to_string()).expect("a reader");
        assert_eq!(running.terminate_in_order(), None, "{command}: ended by the signal");
        drop(writer);
    }
    assert_eq!(place.stored(), 0);
}

#[test]
fn a_file_of_jobs_that_cannot_be_read_is_bad_usage_however_errors_are_treated() {
    let place = Place::new();
    let directory = place.file("here", "").parent().map(Path::to_owned).expect("it is in one");
    for path in [PathBuf::from("/nowhere/jobs.jsonl"), directory] {
        let path = path.display();
        for options in ["", " --on-error skip"] {
            refused(&place, &format!("enqueue --jobs {path}{options}"), &[&format!("file {path} cannot be read")]);
        }
    }
}

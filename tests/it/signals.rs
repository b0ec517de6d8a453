//! SIGTERM, SIGHUP and SIGINT, from the first moment of a process on.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use iolaus::sandbox::{Action, Fault, SandboxOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::harness::{CONNECTION, Place, USER};
use crate::support::child;
use crate::support::skip::{Need, skip};
use crate::support::watchdog::until;

const ACTIVE: &str = "run=atlan-redshift-1684500800-k2v9d";
/// How often a process is stopped in its first moments.
const STOPS: u32 = 40;
const SIGNALS: [Signal; 2] = [Signal::TERM, Signal::HUP];

fn place() -> Place {
    let mut place = Place::with_tenant(SandboxOptions { running: Duration::from_secs(600), ..SandboxOptions::default() });
    place.set("IOLAUS_HTTP__LISTEN", "");
    place
}

fn running(place: &Place) -> usize {
    place.run("jobs list --state running").json()["jobs"].as_array().unwrap().len()
}

/// The masks of signals in a process's status: whether one holds this signal.
fn has_signal(id: i32, mask: &str, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix(mask)).and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    bits.unwrap_or(0) >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn a_worker_that_is_stopped_in_its_first_moments_ends_and_leaves_no_job_running() {
    let place = place();
    for n in 0..3 {
        assert_eq!(place.run(&format!("enqueue await_completion {ACTIVE} --job-id wait-{n}")).code, 0);
    }
    for n in 0..STOPS {
        let mut worker = place.command(["worker"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // From before its first instruction to after it has claimed.
        std::thread::park_timeout(Duration::from_micros(1_500) * n);
        let signal = SIGNALS[n as usize % 2];
        kill_process(Pid::from_child(&worker), signal).unwrap();
        let ended = child::wait(&mut worker, "a worker that was asked to stop");
        // Before its first instruction the system ends it.
        let by_system = ended.signal() == Some(signal.as_raw());
        assert!(ended.code() == Some(0) || by_system, "{n}: {ended:?}");
    }
    assert_eq!(running(&place), 0, "each has given back what it held");
}

#[test]
fn an_execute_that_is_stopped_in_its_first_moments_gives_the_job_back_and_says_not_yet() {
    let place = place();
    for n in 0..STOPS / 2 {
        let words = ["execute", "await_completion", ACTIVE, "--job-id", &format!("wait-{n}")];
        let mut execute = place.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::park_timeout(Duration::from_micros(2_000) * n);
        let signal = SIGNALS[n as usize % 2];
        kill_process(Pid::from_child(&execute), signal).unwrap();
        let ended = child::wait(&mut execute, "an execute that was asked to stop");
        assert!(ended.code() == Some(5) || ended.signal() == Some(signal.as_raw()), "{n}: {ended:?}");
    }
    assert_eq!(running(&place), 0);
}

#[test]
fn an_execute_that_is_stopped_while_its_effect_is_under_way_prints_the_verdict_and_exits_by_it() {
    for (signal, input) in [(Signal::TERM, "until=submitted"), (Signal::INT, "idempotent=false until=submitted")] {
        let place = place();
        place.sandbox().add_fault(Fault::new(Action::Delay { ms: 2_000 }).on("/submit").times(1));
        let execute = place.start(&format!("execute workflow_rerun type=snowflake {input} --job-id nightly"));
        until("the submission arrived", || place.sandbox().faults_fired() == 1);
        execute.send(signal);
        let ended = execute.end();
        assert_eq!((ended.code, ended.json()["status"].as_str()), (0, Some("passed")), "{ended:?}");
        assert!(!ended.stderr.contains("not yet"), "{ended:?}");
    }
}

#[test]
fn sighup_drains_a_worker_as_sigterm_does() {
    let place = place();
    place.run(&format!("enqueue await_completion {ACTIVE} --job-id waits"));
    let mut worker = place.start("worker");
    worker.until("the worker is ready");
    until("the job runs", || running(&place) == 1);
    worker.send(Signal::HUP);
    let ended = worker.end();
    assert!(ended.code == 0 && ended.stderr.contains("asked to stop"), "{ended:?}");
    let job = place.run("jobs show waits").json();
    assert_eq!((job["state"].as_str(), job["worker"].is_null()), (Some("available"), true), "{job}");
}

#[test]
fn a_worker_that_was_started_by_nohup_goes_on_after_sighup() {
    let place = place();
    let script = format!("trap '' HUP; exec {} worker", env!("CARGO_BIN_EXE_iolaus"));
    let mut worker = place.of_program("/bin/sh", ["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let id = i32::try_from(worker.id()).unwrap();
    until("it is a worker that catches SIGTERM", || has_signal(id, "SigCgt:", Signal::TERM));
    assert!(has_signal(id, "SigIgn:", Signal::HUP));
    kill_process(Pid::from_child(&worker), Signal::HUP).unwrap();
    let ran = place.run(&format!("enqueue publish_preflight {USER} {CONNECTION} --wait"));
    assert_eq!(ran.code, 0, "{ran:?}");
    kill_process(Pid::from_child(&worker), Signal::TERM).unwrap();
    assert_eq!(child::wait(&mut worker, "a worker").code(), Some(0));
}

#[test]
fn a_command_that_has_nothing_to_give_back_is_ended_by_the_signal_itself() {
    let place = place();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        // It reads lines until there are no more, and there always may be.
        let words = ["enqueue", "--jobs", "-", "--on-error", "skip"];
        let mut command = place.command(words);
        let mut reads = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let id = i32::try_from(reads.id()).unwrap();
        until("it catches signals", || has_signal(id, "SigCgt:", signal));
        kill_process(Pid::from_child(&reads), signal).unwrap();
        let ended = child::wait(&mut reads, "a command that was asked to stop");
        assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended:?}");
    }
}

/// The process that `unshare` has made the first one of its namespace.
fn first_process(unshare: &Child) -> Option<i32> {
    let id = unshare.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Whether a process has the thread that receives signals, which starts when all handlers are registered. One that is being registered
/// may lose a signal, which the first process of a container is then not ended by.
fn listens(id: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "signals\n"))
}

#[test]
fn the_first_process_of_a_container_obeys_a_signal_as_soon_as_it_has_handlers() {
    let tried = Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        skip(Need::Namespaces, &format!("no process can be the first one of a namespace here: {tried:?}"));
        return;
    }
    let place = place();
    let program = env!("CARGO_BIN_EXE_iolaus");
    for (command, code) in [(vec!["worker"], 0), (vec!["execute", "await_completion", ACTIVE, "--job-id", "waits"], 5)] {
        for n in 0..STOPS / 2 {
            let words = ["--pid", "--fork", "--kill-child", program].into_iter().chain(command.iter().copied());
            let mut unshare = place.of_program("unshare", words);
            let mut unshare = unshare.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let signal = SIGNALS[n as usize % 2];
            // `unshare` has no such thread: once its child has, it is our program, and every handler is in place.
            until("it listens to signals", || first_process(&unshare).is_some_and(listens));
            let id = first_process(&unshare).and_then(Pid::from_raw).unwrap();
            kill_process(id, signal).unwrap();
            let ended = child::wait(&mut unshare, "the first process of a namespace");
            assert_eq!(ended.code(), Some(code), "{command:?} {n}: {ended:?}");
        }
    }
    assert_eq!(running(&place), 0);
}

//! A place of its own for each test: an empty home, a queue, and, where one is wanted, a sandbox.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use iolaus::sandbox::{Sandbox, SandboxOptions};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::child;
use crate::support::watchdog::{Patience, Watched};

/// A user of the sandbox who may publish everywhere.
pub(crate) const USER: &str = "user_id=8c1e2d8a-1564-4e95-8b14-ea14522fcf61";
/// The connection that is there.
pub(crate) const CONNECTION: &str = "connection_qualified_name=default/snowflake/1234567890";

/// Where a test runs the program.
pub(crate) struct Place {
    directory: TempDir,
    environment: Vec<(OsString, OsString)>,
    tenant: Option<(Sandbox, Runtime)>,
    _watched: Watched,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// Without a tenant.
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            environment: vec![("IOLAUS_HTTP__LISTEN".into(), "".into())],
            tenant: None,
            _watched: Watched::new(),
        }
    }

    /// With a sandbox as its tenant.
    pub(crate) fn with_tenant(options: SandboxOptions) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let sandbox = runtime.block_on(Sandbox::start(options)).expect("a sandbox");
        let mut place = Self::new();
        place.set("ATLAN_BASE_URL", sandbox.base_url());
        place.set("ATLAN_API_KEY", "sandbox-api-token");
        place.tenant = Some((sandbox, runtime));
        place
    }

    /// Sets a variable for every command that follows.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.into(), value.into()));
    }

    /// The tenant.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.tenant.as_ref().expect("a place with a tenant").0
    }

    /// Writes a file and answers with its path.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// Everything below its home, by path: the queue above all.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut open = vec![self.directory.path().to_owned()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).expect("readable").map(|entry| entry.expect("an entry")) {
                match entry.file_type().expect("a type") {
                    kind if kind.is_dir() => open.push(entry.path()),
                    kind if kind.is_file() => found.push((entry.path(), std::fs::read(entry.path()).expect("readable"))),
                    _ => {}
                }
            }
        }
        found
    }

    /// The queue's file.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join(".local/state/iolaus/iolaus.db")
    }

    /// Runs a command to its end.
    pub(crate) fn iolaus<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Ran {
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        Ran::of(&child::output(child, &format!("{command:?}")))
    }

    /// The same, of words in one text.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.iolaus(line.split_whitespace())
    }

    /// Runs a shell's line, in which `$IOLAUS` is the program, and gives it this to read.
    pub(crate) fn shell(&self, line: &str, stdin: &str) -> Ran {
        let mut command = self.of_program("/bin/sh", ["-c", line]);
        command.env("IOLAUS", env!("CARGO_BIN_EXE_iolaus")).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        child.stdin.take().expect("it is piped").write_all(stdin.as_bytes()).expect("it reads");
        Ran::of(&child::output(child, line))
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, line: &str) -> Running {
        let mut command = self.command(line.split_whitespace());
        let child = command.env("IOLAUS_LOG", "info").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running::new(child.expect("it starts"))
    }

    /// The same, with so many file descriptors.
    pub(crate) fn start_with_descriptors(&self, most: u32, line: &str) -> Running {
        let script = format!("ulimit -n {most}; exec {} {line}", env!("CARGO_BIN_EXE_iolaus"));
        let mut command = self.of_program("/bin/sh", ["-c", &script]);
        let child = command.env("IOLAUS_LOG", "info").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Running::new(child.expect("it starts"))
    }

    /// The same, and nobody ever reads its log.
    pub(crate) fn start_unread(&self, line: &str) -> Running {
        let mut command = self.command(line.split_whitespace());
        let child = command.env("IOLAUS_LOG", "info").stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        Running { child: child.expect("it starts"), log: mpsc::channel().1 }
    }

    /// Starts a command with this stdout.
    pub(crate) fn spawn(&self, line: &str, stdout: Stdio) -> Child {
        self.command(line.split_whitespace()).stdout(stdout).stderr(Stdio::null()).spawn().expect("it starts")
    }

    /// How many executions are in the queue.
    pub(crate) fn stored(&self) -> usize {
        if !self.database().exists() {
            return 0;
        }
        self.run("jobs list").json()["jobs"].as_array().expect("a list").len()
    }

    /// A command, to be started.
    pub(crate) fn command<I: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = I>) -> Command {
        self.of_program(env!("CARGO_BIN_EXE_iolaus"), arguments)
    }

    /// The same of another program, in the same environment.
    pub(crate) fn of_program<I: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = I>) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", self.directory.path()).env("TMPDIR", self.directory.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command.current_dir(self.directory.path());
        command
    }
}

impl Ran {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().expect("it ended by itself"),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The last line of stdout, which is one JSON value.
    pub(crate) fn json(&self) -> Value {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

/// A command that runs on. Its log is read all the time: whoever writes into a full pipe stands still.
pub(crate) struct Running {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let stderr = child.stderr.take().expect("it is piped");
        let (lines, log) = mpsc::channel();
        thread::spawn(move || {
            // Nobody may want the rest.
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
        });
        Self { child, log }
    }

    /// Reads its log until a line contains this.
    pub(crate) fn until(&mut self, part: &str) {
        self.line(part);
    }

    /// The same, and answers with that line.
    pub(crate) fn line(&mut self, part: &str) -> String {
        let (patience, mut log) = (Patience::new(), String::new());
        loop {
            match self.log.recv_timeout(patience.left()) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => log = log + &line + "\n",
                Err(why) => panic!("no word of `{part}` ({why}) in\n{log}"),
            }
        }
    }

    /// Its data.
    pub(crate) fn stdout(&mut self) -> &mut std::process::ChildStdout {
        self.child.stdout.as_mut().expect("it is piped")
    }

    /// Asks it to stop as an orchestrator does, and waits for its end.
    pub(crate) fn terminate(self) -> Ran {
        self.ask_to_stop();
        self.end()
    }

    /// Sends SIGTERM and waits for its end, whatever it is.
    pub(crate) fn terminate_in_order(mut self) -> Option<i32> {
        self.ask_to_stop();
        drop(self.child.stdout.take());
        child::wait(&mut self.child, "a program that was asked to stop").code()
    }

    /// Sends a signal that asks it to stop and waits for its end, whatever it is.
    pub(crate) fn stop_with(&mut self, signal: rustix::process::Signal) -> ExitStatus {
        self.send(signal);
        drop(self.child.stdout.take());
        child::wait(&mut self.child, "a program that was asked to stop")
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be asked")
    }

    /// What it logged since it was last listened to, up to now, or to its end if it has ended.
    pub(crate) fn said(&mut self) -> String {
        let (patience, has_ended) = (Patience::new(), self.ended().is_some());
        let wait = || if has_ended { patience.left() } else { Duration::ZERO };
        std::iter::from_fn(|| self.log.recv_timeout(wait()).ok()).fold(String::new(), |log, line| log + &line + "\n")
    }

    /// Sends SIGTERM.
    pub(crate) fn ask_to_stop(&self) {
        self.send(rustix::process::Signal::TERM);
    }

    /// Sends a signal.
    pub(crate) fn send(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("it has not ended");
    }

    /// Kills it as a power cut does, and waits until it is gone. It may have ended by itself before.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone")
    }

    /// Waits for its end, and answers with what it said since it was last listened to.
    pub(crate) fn end(mut self) -> Ran {
        let patience = Patience::long();
        let (mut stdout, mut stderr) = (Vec::new(), String::new());
        std::thread::scope(|scope| {
            let pipe = self.child.stdout.take();
            let read = scope.spawn(|| pipe.map(|mut pipe| pipe.read_to_end(&mut stdout)));
            loop {
                match self.log.recv_timeout(patience.left()) {
                    Ok(line) => stderr = std::mem::take(&mut stderr) + &line + "\n",
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        // The end of its pipes ends the thread above, too.
                        self.child.kill().ok();
                        panic!("it did not end in time:\n{stderr}");
                    }
                }
            }
            read.join().expect("no panic")
        });
        let status = child::wait(&mut self.child, "a program");
        let stdout = String::from_utf8(stdout).expect("text");
        Ran { code: status.code().expect("it ended by itself"), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

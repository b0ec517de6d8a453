//! The vendor's own Python client, unchanged, judges the sandbox: the modules of `tests/pyatlan` under the versions that are
//! pinned here. Where there is no Python, or no package registry for the first time, the test says so on stderr and passes,
//! unless `IOLAUS_REQUIRE_PYATLAN=1`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use iolaus::sandbox::{Generation, Sandbox, SandboxOptions};
use tokio::runtime::Runtime;

use crate::support::python::{self, quiet, run};
use crate::support::skip::{Need, skip};

/// The last two lines with workflows, and the newest one of `/v1/app`.
const NINE: &str = "9.11.0";
const TEN: &str = "10.0.0";
const ELEVEN: &str = "11.6.0";

/// They spend their time in the client's own pauses, so that all are run at once.
#[test]
fn the_vendors_client_works_unchanged_in_every_version_that_is_pinned() {
    let wanted = [
        (NINE, ["argo", "logins"].as_slice(), argo()),
        (TEN, &["argo", "logins"], argo()),
        (TEN, &["legacy"], native()),
        (ELEVEN, &["native", "logins"], native()),
    ];
    std::thread::scope(|scope| {
        let judges = wanted.map(|(version, modules, options)| scope.spawn(move || judge(version, modules, options)));
        let failed: Vec<_> = judges.into_iter().filter_map(|judge| judge.join().unwrap().err()).collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    });
}

/// The client waits 10 s before an idempotent rerun looks for a run, which must still be active then.
fn argo() -> SandboxOptions {
    SandboxOptions { running: Duration::from_secs(20), ..SandboxOptions::default() }
}

/// Runs outlast the index lag of the module and a slow machine.
fn native() -> SandboxOptions {
    SandboxOptions { generation: Generation::Native, running: Duration::from_secs(10), ..SandboxOptions::default() }
}

/// Runs modules of `tests/pyatlan` under a version of the client, against a sandbox of their own.
fn judge(version: &str, modules: &[&str], options: SandboxOptions) -> Result<(), String> {
    let python = match client(version) {
        Ok(python) => python,
        Err(why) => {
            skip(Need::Pyatlan, &format!("no pyatlan {version} for {}: {why}", modules.join(" and ")));
            return Ok(());
        }
    };
    let runtime = Runtime::new().unwrap();
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let mut command = quiet(&python);
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyatlan/judge.py")).args(modules);
    command.env("ATLAN_BASE_URL", sandbox.base_url()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    run(&mut command).map(drop).map_err(|why| format!("pyatlan {version}: {why}"))
}

/// A Python that has this version of the client.
fn client(version: &str) -> Result<PathBuf, String> {
    python::with(&format!("pyatlan-{version}"), &[&format!("pyatlan=={version}")])
}

//! The vendor's own Python clients, unchanged, judge the sandbox: the modules of `tests/pyatlan` under the versions that are
//! pinned here. Where there is no Python, or no package registry for the first time, the test says so on stderr and passes,
//! unless `IOLAUS_REQUIRE_PYATLAN=1`.

use std::path::Path;
use std::time::Duration;

use iolaus::sandbox::{Generation, Sandbox, SandboxOptions};
use tokio::runtime::Runtime;

use crate::support::python::{self, quiet, run};
use crate::support::skip::{Need, skip};

/// The last two lines with workflows, and the newest one of `/v1/app`.
const NINE: &str = "9.11.0";
const TEN: &str = "10.0.0";
const ELEVEN: &str = "11.6.0";
/// The vendor's application-sdk, whose client of the Automation Engine is in its test harness, which needs pytest.
const SDK: &str = "3.52.0";

/// They spend their time in the client's own pauses, so that all are run at once.
#[test]
fn the_vendors_client_works_unchanged_in_every_version_that_is_pinned() {
    let wanted = [
        (NINE, ["argo"].as_slice(), argo()),
        (NINE, &["people", "logins"], argo()),
        (TEN, &["argo"], argo()),
        (TEN, &["people", "logins"], argo()),
        (TEN, &["legacy"], native()),
        (ELEVEN, &["native", "logins"], native()),
        (ELEVEN, &["people"], native()),
    ];
    all(wanted.map(|(version, modules, options)| {
        move || judge(&format!("pyatlan-{version}"), &[&format!("pyatlan=={version}")], modules, options, "")
    }));
}

#[test]
fn the_vendors_client_of_the_automation_engine_works_unchanged() {
    let package = format!("atlan-application-sdk=={SDK}");
    let packages = [package.as_str(), "pytest"];
    let engine = SandboxOptions { native_engine: true, ..native() };
    let engine = SandboxOptions { generation: Generation::Argo, ..engine };
    let wanted = [(native(), "bq-prod-3f9ab2c1"), (engine, "atlan-snowflake-1684500500")];
    all(wanted.map(|(options, workflow)| {
        move || judge(&format!("application-sdk-{SDK}"), &packages, &["automation"], options, workflow)
    }));
}

/// Runs all at once, and fails with every failure.
fn all<const N: usize>(judges: [impl FnOnce() -> Result<(), String> + Send; N]) {
    std::thread::scope(|scope| {
        let judges = judges.map(|judge| scope.spawn(judge));
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

/// Runs modules of `tests/pyatlan` under the packages of a client, against a sandbox of their own.
fn judge(name: &str, packages: &[&str], modules: &[&str], options: SandboxOptions, workflow: &str) -> Result<(), String> {
    let python = match python::with(name, packages) {
        Ok(python) => python,
        Err(why) => {
            skip(Need::Pyatlan, &format!("no {name} for {}: {why}", modules.join(" and ")));
            return Ok(());
        }
    };
    let runtime = Runtime::new().unwrap();
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let mut command = quiet(&python);
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyatlan/judge.py")).args(modules);
    command.env("ATLAN_BASE_URL", sandbox.base_url()).env("WORKFLOW", workflow).current_dir(env!("CARGO_TARGET_TMPDIR"));
    run(&mut command).map(drop).map_err(|why| format!("{name}: {why}"))
}

//! The vendor's own Python client, unchanged, judges the sandbox: the modules of `tests/pyatlan` under the versions that are
//! pinned here. Where there is no Python, or no package registry for the first time, the test says so on stderr and passes,
//! unless `IOLAUS_REQUIRE_PYATLAN=1`.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use iolaus::sandbox::{Generation, Sandbox, SandboxOptions};
use tokio::runtime::Runtime;

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
        Err(why) => return skipped(&format!("no pyatlan {version} for {}: {why}", modules.join(" and "))),
    };
    let runtime = Runtime::new().unwrap();
    let sandbox = runtime.block_on(Sandbox::start(options)).unwrap();
    let mut command = quiet(&python);
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pyatlan/judge.py")).args(modules);
    command.env("ATLAN_BASE_URL", sandbox.base_url()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    run(&mut command).map(drop).map_err(|why| format!("pyatlan {version}: {why}"))
}

/// A Python that has this version of the client, in the build directory; installed there if it is not yet.
fn client(version: &str) -> Result<PathBuf, String> {
    let language = run(quiet("python3").args(["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]))?;
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = home.join(format!("pyatlan-{version}-python-{}", language.trim()));
    let python = place.join("bin/python");
    if place.join(STAMP).exists() {
        return Ok(python);
    }
    // Two tests may want the same version at once, in two processes even: the second waits for the first.
    let lock = std::fs::File::create(place.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if !place.join(STAMP).exists() {
        run(quiet("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=15"];
        run(quiet(&python).args(pip).arg(format!("pyatlan=={version}")))?;
        std::fs::write(place.join(STAMP), version).map_err(|error| error.to_string())?;
    }
    Ok(python)
}

/// Written last: an installation without it was interrupted.
const STAMP: &str = "installed";

/// A command that asks nothing, and that no variable of this environment leads to another tenant, client or library.
fn quiet(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if ["ATLAN_", "PYTHON"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(&name);
        }
    }
    // The registry may be behind a proxy; the sandbox is not.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into_owned()) } else { Err(said(&output)) }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// Past the capture of the test harness, which would swallow what a passing test says.
fn skipped(why: &str) -> Result<(), String> {
    if std::env::var("IOLAUS_REQUIRE_PYATLAN").is_ok_and(|value| value == "1") {
        return Err(format!("IOLAUS_REQUIRE_PYATLAN=1, and there is {why}"));
    }
    writeln!(std::io::stderr(), "\nSKIPPED: there is {why}").expect("stderr is there");
    Ok(())
}

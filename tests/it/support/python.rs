//! Pythons with packages from `PyPI`, in the build directory; installed there once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::child;

/// Written last: an installation without it was interrupted.
const STAMP: &str = "installed";

/// A Python that has these packages, under a name of their own.
pub(crate) fn with(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let language = run(quiet("python3").args(["-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]))?;
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let place = home.join(format!("{name}-python-{}", language.trim()));
    let python = place.join("bin/python");
    if place.join(STAMP).exists() {
        return Ok(python);
    }
    // Two tests may want the same one at once, in two processes even: the second waits for the first.
    let lock = std::fs::File::create(place.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if !place.join(STAMP).exists() {
        run(quiet("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=15"];
        run(quiet(&python).args(pip).args(packages))?;
        std::fs::write(place.join(STAMP), packages.join(" ")).map_err(|error| error.to_string())?;
    }
    Ok(python)
}

/// A command that asks nothing, and that no variable of this environment leads to another tenant, client or library.
pub(crate) fn quiet(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if ["ATLAN_", "PYTHON", "TEMPORAL_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(&name);
        }
    }
    // The registry may be behind a proxy; what is tested is not.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").stdin(Stdio::null());
    command
}

/// Runs a command to its good end, and answers with its stdout.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| format!("{program}: {error}"))?;
    let output = child::output(child, &program);
    if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into_owned()) } else { Err(said(&output)) }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

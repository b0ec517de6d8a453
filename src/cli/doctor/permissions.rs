//! Whether other users can change the configuration, or read or change the files that hold secrets.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use iolaus_activities::shell_word;

use crate::config::{Config, HostKind};
use crate::embedded::place_warnings;

/// Bits of a mode that nobody needs on a file that decides what is done with our credentials.
const WRITABLE: u32 = 0o022;
/// The group may read a secret: an orchestrator mounts it so.
const OPEN_SECRET: u32 = 0o027;

/// What is wrong with these files, each with the command that fixes it.
pub(in crate::cli) fn problems(config: &Config) -> Vec<(String, String)> {
    let file = config.file.iter().map(|file| (file.as_path(), WRITABLE, "go-w"));
    let secrets = config.tenants.values().flat_map(|tenant| {
        let files = [&tenant.api_key_file, &tenant.oauth_client_secret_file, &tenant.keycloak_client_secret_file];
        files.into_iter().flatten().map(|file| (file.as_path(), OPEN_SECRET, "g-w,o="))
    });
    let files = file.chain(secrets).filter_map(|(file, bits, fix)| problem(file, bits, fix));
    let place = if config.host.kind == HostKind::Embedded { place_warnings(&config.database.path) } else { Vec::new() };
    files.chain(place).collect()
}

fn problem(file: &Path, bits: u32, fix: &str) -> Option<(String, String)> {
    // One that is not there is told of where it is read.
    let mode = std::fs::metadata(file).ok()?.mode();
    (mode & bits != 0).then(|| {
        let can = if mode & bits & WRITABLE == 0 { "can be read" } else { "can be changed" };
        let message = format!("{} {can} by other users (mode {:04o})", file.display(), mode & 0o7777);
        (message, format!("chmod {fix} {}", shell_word(&file.to_string_lossy())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_that_others_can_change_and_a_secret_that_others_can_read_are_named_with_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        for (mode, bits, said) in [
            (0o644, WRITABLE, None),
            (0o664, WRITABLE, Some("can be changed")),
            (0o640, OPEN_SECRET, None),
            (0o644, OPEN_SECRET, Some("can be read")),
            (0o666, OPEN_SECRET, Some("can be changed")),
        ] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let found = problem(&file, bits, "go-w");
            assert_eq!(found.is_some(), said.is_some(), "{mode:o}");
            assert!(found.is_none_or(|(message, fix)| message.contains(said.unwrap()) && fix.starts_with("chmod go-w /")));
        }
        assert_eq!(problem(&dir.path().join("none"), WRITABLE, "go-w"), None);
    }
}

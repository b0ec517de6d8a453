use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const OURS: u32 = 0x494F_4C41;

fn refusal(path: &Path) -> String {
    let error = StateDirectory::open(path).map(drop).unwrap_err();
    format!("{error}; {}", error.hint().unwrap_or_default())
}

#[test]
fn all_links_to_a_database_lead_to_the_same_files_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::write(real.join("q.db"), "").unwrap();
    symlink(&real, dir.path().join("directory")).unwrap();
    symlink(real.join("q.db"), dir.path().join("file.db")).unwrap();
    for path in [real.join("q.db"), dir.path().join("directory/q.db"), dir.path().join("file.db")] {
        let place = StateDirectory::open(&path).unwrap();
        assert_eq!(place.database(), real.join("q.db"));
        place.beside("write").unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(&real).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["q.db", "q.db-write"]);
}

#[test]
fn a_place_that_others_can_write_to_is_refused_with_the_command_that_fixes_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for (bits, refused) in [(0o775, true), (0o777, true), (0o1777, false), (0o755, false), (0o700, false)] {
        mode(dir.path(), bits);
        assert_eq!(StateDirectory::open(&path).is_err(), refused, "a directory of mode {bits:o}");
    }
    mode(dir.path(), 0o775);
    let text = refusal(&path);
    assert!(text.contains("writable by other users (mode 0775)") && text.contains("chmod go-w"), "{text}");
    mode(dir.path(), 0o700);
    for name in ["q.db", "q.db-wal"] {
        let file = dir.path().join(name);
        std::fs::write(&file, "").unwrap();
        mode(&file, 0o666);
        let text = refusal(&path);
        assert!(text.contains(&format!("chmod go-w {}", file.canonicalize().unwrap().display())), "{text}");
        mode(&file, 0o600);
    }
}

#[test]
fn a_link_beside_the_database_is_refused_and_its_target_is_neither_created_nor_opened() {
    let dir = tempfile::tempdir().unwrap();
    let place = StateDirectory::open(&dir.path().join("q.db")).unwrap();
    let target = dir.path().join("target");
    for name in ["turn", "write", "wake"] {
        symlink(&target, dir.path().join(format!("q.db-{name}"))).unwrap();
    }
    for error in [place.beside("turn"), place.beside("write"), place.directory_beside("wake")].map(Result::unwrap_err) {
        let text = format!("{error}; {}", error.hint().unwrap_or_default());
        assert!(text.contains("symbolic link") || text.contains("is not a directory"), "{text}");
    }
    assert!(!target.exists());
}

#[test]
fn a_link_to_a_directory_is_no_wake_directory() {
    let dir = tempfile::tempdir().unwrap();
    let place = StateDirectory::open(&dir.path().join("q.db")).unwrap();
    std::fs::create_dir(dir.path().join("keys")).unwrap();
    symlink(dir.path().join("keys"), dir.path().join("q.db-wake")).unwrap();
    assert!(matches!(place.directory_beside("wake"), Err(StoreError::Unsafe { .. })));
}

#[test]
fn a_file_that_is_no_queue_is_told_from_one_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    let check = || StateDirectory::open(&path).unwrap().check_kind(OURS);
    assert!(check().is_ok(), "it will be created");
    std::fs::write(&path, "").unwrap();
    assert!(check().is_ok(), "an empty one is taken");
    std::fs::write(&path, "dear diary").unwrap();
    assert!(matches!(check(), Err(StoreError::NoDatabase)));
    std::fs::remove_file(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs(x)").unwrap();
    assert!(matches!(check(), Err(StoreError::Foreign)));
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "application_id", OURS).unwrap();
    assert!(check().is_ok());
}

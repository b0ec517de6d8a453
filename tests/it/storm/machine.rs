//! What a storm does to the machine under its processes: their wall clock, which a preloaded library moves, and their disk, a small one
//! in a mount namespace of the test's own.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use iolaus_activities::{Clock, SystemClock};

use crate::cli::harness::Place;
use crate::support::child;
use crate::support::skip::{Need, skip};

/// In the namespace: where the small disk is mounted.
const DISK: &str = "IOLAUS_STORM_DISK";
/// The queue takes a few MiB; the rest is filled and freed.
const DISK_SIZE: &str = "64m";
/// Where the preloaded library finds its offset.
const CLOCK: &str = "STORM_CLOCK_FILE";
/// Seconds by which the clock is moved to see that this moves it.
const CHECKED: i64 = 3_600;
/// An offset that is larger than each in the storm.
pub(super) const PAST_ALL: i64 = 2 * CHECKED;

/// A wall clock that every process of a place shares.
pub(super) struct WallClock {
    file: File,
    /// Seconds ahead of the real one.
    offset: Cell<i64>,
}

impl WallClock {
    /// `None`, which is said, where there is no C compiler.
    pub(super) fn under(place: &mut Place) -> Option<Self> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/storm/clock_offset.c");
        let library = place.file("clock_offset.so", "");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
        let built = match cc.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(compiler) => child::output(compiler, "cc"),
            Err(error) => {
                skip(Need::Compiler, &format!("clock steps in the storm: cc does not start: {error}"));
                return None;
            }
        };
        assert!(built.status.success(), "{built:?}");
        let path = place.file("clock-offset", 0_i64.to_ne_bytes());
        let file = File::options().read(true).write(true).open(&path).unwrap();
        place.set(CLOCK, path);
        place.set("LD_PRELOAD", library);
        let clock = Self { file, offset: Cell::new(0) };
        clock.moves_that_of(place);
        Some(clock)
    }

    /// With a program that does not take its time from the C library, a step would be none.
    fn moves_that_of(&self, place: &Place) {
        self.set(CHECKED);
        let mut worker = place.start("worker");
        let line = worker.line("the worker is ready");
        self.set(0);
        assert_eq!(worker.terminate().code, 0);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let logged: jiff::Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
        let ahead = logged.duration_since(SystemClock::new().now()).as_secs();
        assert!(ahead > CHECKED / 2, "the preloaded clock does not move that of the program: {line}");
    }

    pub(super) fn offset(&self) -> i64 {
        self.offset.get()
    }

    pub(super) fn set(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
        self.offset.set(seconds);
    }
}

/// A disk that other writers can fill.
pub(super) struct Disk {
    root: PathBuf,
}

/// Where a test runs.
pub(super) enum Here {
    /// On a machine without a small disk: the same test has run, or is left out, in another process.
    Outside,
    Inside(Option<Disk>),
}

/// Runs the test of this name again in a mount namespace of its own, on a small disk. Where that cannot be, it runs here and without.
pub(super) fn on_a_small_disk(test: &str) -> Here {
    if let Some(root) = std::env::var_os(DISK) {
        return Here::Inside(Some(Disk { root: root.into() }));
    }
    let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !tried.as_ref().is_ok_and(|output| output.status.success()) {
        skip(Need::Mount, &format!("full disks in the storm: no file system can be mounted here: {tried:?}"));
        return Here::Inside(None);
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size={DISK_SIZE},mode=700 none \"$1\" && exec \"$2\" \"$3\" --exact --nocapture");
    let mut inside = Command::new("unshare");
    inside.args(["-rm", "sh", "-c", &script, "sh"]).arg(directory.path()).arg(std::env::current_exe().unwrap()).arg(test);
    inside.env(DISK, directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
    // Its own watchdog bounds it, and this test's. What it says on stderr is said at once.
    let ended = inside.status().unwrap();
    assert!(ended.success(), "the storm in a mount namespace failed ({ended}); what it says is above");
    Here::Outside
}

impl Disk {
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("queue/iolaus.db")
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Writes until no byte can be written any more.
    pub(super) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let zeros = vec![0_u8; 65_536];
        let mut block = zeros.as_slice();
        while !block.is_empty() {
            match ballast.write(block) {
                Ok(_) => {}
                // The last pages one by one.
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => block = &block[..block.len() / 2],
                Err(error) => panic!("the disk could not be filled: {error}"),
            }
        }
    }

    pub(super) fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    pub(super) fn is_full(&self) -> bool {
        Path::exists(&self.ballast())
    }
}

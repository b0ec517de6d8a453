//! Reads a file that a setting names. What is named may be anything: a pipe that no one writes to, a device without an end. None of it is
//! waited for, and no more is read than such a file may hold.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The longest file that a setting names and that holds a secret or certificates, in bytes.
pub const SMALL: u64 = 64 * 1024;
/// The longest bundle of certificates, in bytes. Those of a whole system are a few hundred KiB.
pub const BUNDLE: u64 = 4 * 1024 * 1024;

/// The bytes of a regular file of at most `limit` bytes. Anything else is an error that says what it is.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes")));
    }
    Ok(bytes)
}

/// The same as text.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    // The error of the conversion would hold the bytes.
    String::from_utf8(read(path, limit)?).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

/// Without waiting, as opening a pipe would for its writer. What is open is judged, and not what had its name before.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    // A socket cannot be opened at all, which the system says in other words.
    let file = file.map_err(|error| match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => irregular(found.file_type()),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() { Ok(file) } else { Err(irregular(kind)) }
}

fn irregular(kind: FileType) -> io::Error {
    let what = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something else",
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}, and no file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_bounded_length_is_read_and_nothing_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        std::fs::write(at("long"), [b'x'; 11]).expect("written");
        std::fs::write(at("bytes"), [0xff]).expect("written");
        std::fs::write(at("fine"), "0123456789").expect("written");
        std::os::unix::fs::symlink("fine", at("link")).expect("a link");
        for (path, said) in [
            (directory.path().to_owned(), "it is a directory"),
            (at("pipe"), "it is a pipe"),
            (at("socket"), "it is a socket"),
            ("/dev/zero".into(), "it is a device"),
            (at("long"), "it is longer than 10 bytes"),
            (at("bytes"), "it is not UTF-8"),
            (at("none"), "No such file"),
        ] {
            let error = read_text(&path, 10).expect_err("it is refused").to_string();
            assert!(error.contains(said), "{}: {error}", path.display());
        }
        for name in ["fine", "link"] {
            assert_eq!(read_text(&at(name), 10).expect("it is read"), "0123456789");
        }
    }
}

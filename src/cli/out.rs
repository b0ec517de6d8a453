//! Where the command line writes: data to stdout, everything else to stderr. A reader that went away is no error: the exit code still
//! tells the verdict. Neither is a stdout that takes nothing, as on a full disk, where something was done: what was done is then said on
//! stderr. A command that only reads fails with `OutputLost`.

use std::io::{self, IsTerminal, Write};

use rustix::fs::OFlags;
use serde::Serialize;

use super::clean;
use crate::job::cut;

/// A line on stderr, in bytes.
const NOTE_LIMIT: usize = 16 * 1024;

/// Stdout takes nothing, as on a full disk. It says nothing of the queue, a job or a tenant.
#[derive(Debug, thiserror::Error)]
#[error("stdout cannot be written: {0}")]
pub(crate) struct OutputLost(#[from] io::Error);

impl OutputLost {
    fn closed() -> Self {
        Self(io::Error::other("it is closed, or opened as /dev/null for reading and writing"))
    }
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One JSON value, on one line.
    Json,
}

/// The two streams of this process.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each of them is about one stream, and they are independent")]
pub struct Out {
    format: Option<OutputFormat>,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
    /// The program was started with stdout closed, as far as that can be seen.
    stdout_may_be_closed: bool,
    colour: bool,
}

#[expect(clippy::unused_self, reason = "whoever writes holds the handle, also where the handle has nothing to say")]
impl Out {
    /// The process's own streams. `format` is what `--output` says.
    pub fn of_process(format: Option<OutputFormat>) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let stdout_is_terminal = io::stdout().is_terminal();
        Self {
            format,
            stdout_is_terminal,
            stderr_is_terminal: io::stderr().is_terminal(),
            stdout_may_be_closed: stdout_may_be_closed(),
            colour: stdout_is_terminal && !no_colour,
        }
    }

    /// Whether stderr is watched by a person.
    pub fn is_watched(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Whether data is written as JSON: when `--output` says so, else when stdout is no terminal.
    pub(crate) fn is_json(self) -> bool {
        self.format.map_or(!self.stdout_is_terminal, |format| format == OutputFormat::Json)
    }

    /// Whether `--output json` was given, for what is plain text otherwise.
    pub(crate) fn is_json_asked_for(self) -> bool {
        self.format == Some(OutputFormat::Json)
    }

    /// Whether stdout shows colours.
    pub(crate) fn has_colour(self) -> bool {
        self.colour
    }

    /// One line of data.
    pub(crate) fn line(self, text: &str) -> Result<(), OutputLost> {
        let mut stdout = io::stdout().lock();
        Ok(forgive(writeln!(stdout, "{text}").and_then(|()| stdout.flush()))?)
    }

    /// One value as one line of JSON.
    pub(crate) fn json(self, value: &impl Serialize) -> Result<(), OutputLost> {
        self.line(&as_json(value)?)
    }

    /// A value as JSON, or what people get.
    pub(crate) fn data(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), OutputLost> {
        if self.is_json() { self.json(value) } else { self.line(text().trim_end_matches('\n')) }
    }

    /// The same about something that was done. Where stdout takes nothing it is written to stderr, because the exit code is about what
    /// was done.
    pub(crate) fn outcome(self, value: &impl Serialize, text: impl FnOnce() -> String) {
        self.surely(self.data(value, text), value);
    }

    /// Says on stderr what stdout did not take, or took and lost.
    pub(crate) fn surely(self, written: Result<(), OutputLost>, value: &impl Serialize) {
        let written = if self.stdout_may_be_closed { Err(OutputLost::closed()) } else { written };
        if let Err(lost) = written {
            self.instead(&lost, value);
        }
    }

    /// Refuses to do what has an answer that is shown once, where that answer would be lost.
    pub(crate) fn check_delivery(self) -> Result<(), OutputLost> {
        if self.stdout_may_be_closed { Err(OutputLost::closed()) } else { Ok(()) }
    }

    fn instead(self, lost: &OutputLost, value: &impl Serialize) {
        let told = as_json(value).unwrap_or_default();
        self.note(&format!("warning: {lost}; the exit code is that of what was done: {told}"));
    }

    /// The same as [`data`](Self::data) for what is shown once and lost otherwise: a reader that went away is an error here.
    pub(crate) fn delivered(self, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        let line = if self.is_json() { clean::json(serde_json::to_string(value)?) } else { text() };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", line.trim_end_matches('\n')).and_then(|()| stdout.flush())
    }

    /// One line that is no data. It may quote what was given: it stays one line, without characters that act on a terminal, and is cut to
    /// a bound.
    pub fn note(self, text: &str) {
        let text = cut(text, NOTE_LIMIT);
        // If stderr is gone there is nobody to tell.
        writeln!(io::stderr(), "{}", clean::line(&text)).ok();
    }

    /// An error and its hint.
    pub(crate) fn error(self, message: &str, hint: Option<&str>) {
        self.note(&format!("error: {message}"));
        if let Some(hint) = hint {
            self.note(&format!("hint: {hint}"));
        }
    }

    /// One line about what goes on, for a person who watches.
    pub(crate) fn progress(self, text: &str) {
        if self.stderr_is_terminal {
            self.note(text);
        }
    }

    /// Text to stderr without a line's end, for a picture that is drawn again.
    pub(crate) fn draw(self, text: &str) {
        let mut stderr = io::stderr().lock();
        stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).ok();
    }
}

/// Rust's runtime opens /dev/null for reading and writing where a program starts without stdout, and then every write succeeds. A shell's
/// `> /dev/null` is for writing alone. Some programs open it as the runtime does (Python's `DEVNULL`), so that this alone is no error.
fn stdout_may_be_closed() -> bool {
    let stdout = io::stdout();
    let is_null = rustix::fs::fstat(&stdout).is_ok_and(|found| {
        rustix::fs::stat("/dev/null").is_ok_and(|null| (found.st_dev, found.st_ino) == (null.st_dev, null.st_ino))
    });
    is_null && rustix::fs::fcntl_getfl(&stdout).is_ok_and(|flags| flags & OFlags::RWMODE == OFlags::RDWR)
}

fn as_json(value: &impl Serialize) -> io::Result<String> {
    Ok(clean::json(serde_json::to_string(value)?))
}

fn forgive(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

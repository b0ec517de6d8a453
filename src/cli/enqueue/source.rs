//! Where the jobs of one command come from: the arguments, a file that is checked as a whole, or lines that are read as they come.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, stdin};
use std::path::Path;

use crate::cli::App;
use crate::cli::exit::{Exit, Problem};
use crate::cli::input;
use crate::intake::Intake;
use crate::job::{NewJob, json_len, limits};

/// The most that a file of jobs may have when all of it is checked first, in bytes.
const FILE: u64 = 256 * 1024 * 1024;
/// The longest line: an input may be written wide, and has company.
const LINE: u64 = 16 * limits::INPUT as u64;
/// Jobs of a chunk, and bytes of their inputs: one transaction holds up everybody else's for so long.
const CHUNK_JOBS: usize = 256;
const CHUNK_BYTES: usize = limits::INPUT;

/// Jobs that passed the door, and how bad the rest was.
pub(super) enum Source {
    /// All there are.
    All(std::vec::IntoIter<NewJob>),
    /// As they come; a bad one is named and skipped.
    Lines(Lines),
}

impl Source {
    /// Jobs that were let in already.
    pub(super) fn all(jobs: Vec<NewJob>) -> Self {
        Self::All(jobs.into_iter())
    }

    /// A file of JSON lines, all of which must be good.
    pub(super) fn checked(app: &App, intake: &Intake, file: &Path) -> anyhow::Result<Self> {
        let text = input::read(file, FILE)?;
        let mut jobs = Vec::new();
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            jobs.push(admit(app, intake, line).map_err(|error| {
                let problem = Problem::usage(format!("line {}: {error:#}; nothing was stored", n + 1));
                problem.hint("--on-error skip stores the good lines")
            })?);
        }
        Ok(Self::all(jobs))
    }

    /// The activities of all there are, with their tenants; of lines they are not known yet.
    pub(super) fn activities(&self) -> BTreeSet<(String, String)> {
        match self {
            Self::All(jobs) => jobs.as_slice().iter().map(|job| (job.activity.clone(), job.tenant.clone())).collect(),
            Self::Lines(_) => BTreeSet::new(),
        }
    }

    /// The next jobs, as many as one transaction should hold; none at the end.
    pub(super) fn chunk(&mut self, app: &App, intake: &Intake) -> anyhow::Result<Vec<NewJob>> {
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < CHUNK_JOBS && bytes < CHUNK_BYTES {
            let next = match self {
                Self::All(jobs) => jobs.next(),
                Self::Lines(lines) => lines.next(app, intake)?,
            };
            let Some(job) = next else { break };
            bytes += json_len(&job.input);
            jobs.push(job);
        }
        Ok(jobs)
    }

    /// How bad what was skipped is.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Lines(Lines { skipped: 1.., .. }) => Exit::Usage,
            _ => Exit::Passed,
        }
    }
}

/// Lines of a file or of stdin, one in memory at a time.
pub(super) struct Lines {
    name: String,
    reader: Box<dyn BufRead>,
    number: u64,
    skipped: u64,
}

impl Lines {
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let reader: Box<dyn BufRead> = if file == Path::new("-") {
            Box::new(stdin().lock())
        } else {
            let opened = File::open(file);
            Box::new(BufReader::new(opened.map_err(|error| unread(&input::name_of(file), &error))?))
        };
        Ok(Self { name: input::name_of(file), reader, number: 0, skipped: 0 })
    }

    /// The next job that passes the door.
    fn next(&mut self, app: &App, intake: &Intake) -> anyhow::Result<Option<NewJob>> {
        while let Some(line) = self.line()? {
            let admitted = match line {
                Ok(line) if line.trim().is_empty() => continue,
                Ok(line) => admit(app, intake, &line),
                Err(problem) => Err(problem.into()),
            };
            match admitted {
                Ok(job) => return Ok(Some(job)),
                Err(error) => {
                    self.skipped += 1;
                    app.out.note(&format!("line {}: {error:#}; skipped", self.number));
                }
            }
        }
        Ok(None)
    }

    fn line(&mut self) -> anyhow::Result<Option<Result<String, Problem>>> {
        let mut line = Vec::new();
        self.number += 1;
        let unread = |error| unread(&self.name, &error);
        if self.reader.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(unread)? == 0 {
            return Ok(None);
        }
        if line.len() as u64 == LINE && !line.ends_with(b"\n") {
            self.reader.skip_until(b'\n').map_err(unread)?;
            return Ok(Some(Err(Problem::usage(format!("has more than {LINE} bytes")))));
        }
        Ok(Some(String::from_utf8(line).map_err(|_| Problem::usage("is not UTF-8"))))
    }
}

fn unread(name: &str, error: &io::Error) -> Problem {
    Problem::usage(format!("{name} cannot be read: {error}"))
}

fn admit(app: &App, intake: &Intake, line: &str) -> anyhow::Result<NewJob> {
    app.admit(intake, input::decode(line)?)
}

//! `iolaus bench`: what this machine and this disk give, beside the bare thing that bounds it.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::App;
use super::exit::Exit;
use super::render::table;
use crate::bench::{self, ClaimCost, Latency, Machine, Memory, Scratch, Settings, Spread, Throughput};
use crate::embedded::Durability;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus bench
  iolaus bench --producers 1 --jobs 2000
  iolaus bench --durability normal --output json";

/// Measure the queue on this machine, beside the bare thing that bounds it
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    /// Tasks that enqueue at once, one call for each job
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
    producers: u16,
    /// Jobs of each round
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    /// Attempts at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    slots: u16,
    /// Rounds; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// What a commit outlives: `full`, a power cut; `normal`, the end of the process
    #[arg(long, value_name = "HOW", default_value = "full")]
    durability: How,
    /// Jobs of a large backlog
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    backlog: u64,
    /// Only this part. May be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Where the files are written [default: beside the queue's file, and so on its disk]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directory: Option<PathBuf>,
    /// The second process of a measurement: enqueue into this file
    #[arg(long, value_name = "FILE", hide = true)]
    enqueuer: Option<PathBuf>,
    /// The second process of a measurement: work this file
    #[arg(long, value_name = "FILE", hide = true)]
    worker: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Jobs a second
    Throughput,
    /// Enqueue call to start of the attempt
    Latency,
    /// The cost of a claim before large backlogs
    Claims,
    /// Memory of a worker
    Memory,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum How {
    Full,
    Normal,
}

impl Bench {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        let settings = Settings {
            producers: usize::from(self.producers),
            jobs: usize::try_from(self.jobs)?,
            slots: usize::from(self.slots),
            rounds: usize::from(self.rounds),
            durability: match self.durability {
                How::Full => Durability::Full,
                How::Normal => Durability::Normal,
            },
            backlog: self.backlog,
        };
        if let Some(file) = self.enqueuer {
            app.out.line(&bench::enqueue_from_here(file, &settings).await?)?;
            return Ok(Exit::Passed);
        }
        if let Some(file) = self.worker {
            let out = app.out;
            match bench::work_from_here(file, &settings, || drop(out.line("it works"))).await? {}
        }
        let beside = || app.config.database.path.parent().map(PathBuf::from).unwrap_or_default();
        let scratch = Scratch::below(&self.directory.clone().unwrap_or_else(beside))?;
        let wanted = |part: Part| self.only.is_empty() || self.only.contains(&part);
        let mut report = Report { machine: Machine::here(), settings, throughput: None, latency: None, claims: None, memory: None };
        if wanted(Part::Throughput) {
            app.out.progress("jobs a second");
            report.throughput = Some(bench::throughput(&scratch, &report.settings).await?);
        }
        if wanted(Part::Latency) {
            app.out.progress("latency");
            report.latency = Some(bench::latency(&scratch, &report.settings).await?);
        }
        if wanted(Part::Claims) {
            app.out.progress("claims before a backlog");
            report.claims = Some(bench::claims(&scratch, &report.settings)?);
        }
        if wanted(Part::Memory) {
            app.out.progress("memory");
            report.memory = Some(bench::memory(&scratch, &report.settings).await?);
        }
        app.out.data(&report, || text(&report))?;
        Ok(Exit::Passed)
    }
}

/// What was measured, where, and how.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    settings: Settings,
    throughput: Option<Throughput>,
    latency: Option<Latency>,
    claims: Option<Vec<ClaimCost>>,
    memory: Option<Memory>,
}

fn text(report: &Report) -> String {
    let Report { machine, settings, .. } = report;
    let mut lines = vec![
        format!("{} cores, {}, iolaus {}, SQLite {}", machine.cores, machine.system, machine.version, machine.sqlite),
        format!(
            "{} producers, {} jobs, {} slots, {} rounds, durability {:?}",
            settings.producers, settings.jobs, settings.slots, settings.rounds, settings.durability
        ),
    ];
    if let Some(rates) = &report.throughput {
        let rows = [
            ("stored alone", rates.enqueue, Some(rates.bare_enqueue)),
            ("run alone", rates.run, None),
            ("stored and run", rates.both, Some(rates.bare_both)),
        ];
        let row = |(what, ours, bare): &(&str, f64, Option<f64>)| {
            let ratio = bare.map_or_else(String::new, |bare| format!("{:.2}", ours / bare));
            vec![(*what).to_owned(), format!("{ours:.0}"), bare.map_or_else(String::new, |bare| format!("{bare:.0}")), ratio]
        };
        lines.push(table(&["JOBS A SECOND", "IOLAUS", "BARE LOOP", "RATIO"], &rows.iter().map(row).collect::<Vec<_>>()));
    }
    if let Some(latency) = &report.latency {
        let rows = [
            ("commit of the bare loop", &latency.bare_commit),
            ("enqueue call to start", &latency.pickup),
            ("the same across processes", &latency.pickup_across),
            ("enqueue beside a busy worker, in a second process", &latency.enqueue_beside_busy_worker),
        ];
        let ms = |value: f64| format!("{value:.3}");
        let row =
            |(what, spread): &(&str, &Spread)| vec![(*what).to_owned(), ms(spread.p50_ms), ms(spread.p99_ms), ms(spread.max_ms)];
        lines.push(table(&["MILLISECONDS", "P50", "P99", "MAX"], &rows.iter().map(row).collect::<Vec<_>>()));
    }
    if let Some(claims) = &report.claims {
        let row = |cost: &ClaimCost| vec![cost.backlog.clone(), format!("{:.1}", cost.p50_us), format!("{:.2}", cost.times)];
        lines.push(table(&["CLAIMING ONE JOB OF", "P50 IN MICROSECONDS", "TIMES"], &claims.iter().map(row).collect::<Vec<_>>()));
    }
    if let Some(memory) = &report.memory {
        let of = settings.backlog;
        lines.push(format!(
            "a worker: {:.1} MB idle, with {} ms of processor time in 10 s; {:.1} MB while it works a backlog of {of} jobs",
            memory.idle_mb, memory.idle_cpu_ms, memory.working_mb
        ));
    }
    lines.join("\n")
}

//! `iolaus sandbox`: a tenant on loopback, for trying and teaching.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use iolaus_activities::duration;

use super::App;
use super::exit::{Exit, Problem};
use super::input;
use super::signals::Signals;
use crate::sandbox as tenant;

/// A bearer that the sandbox knows, that of an API token.
pub(super) const API_KEY: &str = "sandbox-api-token";

/// The longest file of faults, in bytes.
const FAULTS: u64 = 16 * 1024 * 1024;

pub(super) const EXAMPLES: &str = "\
Examples:
  iolaus sandbox
  iolaus sandbox --listen 127.0.0.1:8200 --running 20s --index-lag 2s
  iolaus sandbox --generation native      with /v1/app instead of workflows
  iolaus sandbox --fault '{\"path\": \"/submit\", \"nth\": 2, \"action\": {\"kind\": \"cut_after_applying\"}}'
  iolaus sandbox --fault '{\"path\": \"whoami\", \"action\": {\"kind\": \"raw\", \"status\": 502, \"body\": \"down\"}}'
  iolaus sandbox --probe                  asks one that runs, for a container's probe
  curl -s -X POST http://127.0.0.1:8100/sandbox/faults -d '{\"path\": \"publish\", \"action\": {\"kind\": \"status\", \"status\": 503}}'

A fault hits requests whose method (optional) is equal and whose target contains path (optional): the nth (default 1) and
times (default 1; 0: all) in a row. Kinds of action, with their keys:
  in place of the route's answer   status {status, headers, body} · raw {status, headers, body, apply} · garbage ·
                                   web_page {status, apply} · echo_headers {apply} · huge {bytes, gzip} · deep {depth} ·
                                   hang · cut_before_applying
  after the request was applied    status_after_applying {status, body} · garbage_after_applying · cut_after_applying ·
                                   delay {ms}
  changing the route's answer      gzip · bom · latin1 · wrong_length {delta} · stall · wrap {key} · no_date · contradiction · short_page ·
                                   null_hits · null_name · patch {patch}
  of runs and searches             end_as {phase, message} · swallow_grant · stale_index
Other admin routes (JSON): POST /sandbox/runs {\"workflow\", \"by\", \"age_ms\"} starts a run as another user;
POST /sandbox/index-lag {\"ms\"}; POST /sandbox/automation {\"access\"}; GET /sandbox/ledger; GET /sandbox/requests";

/// Play a tenant on loopback, until told to stop
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Sandbox {
    /// Where to listen; port 0 takes a free one. Anyone who can reach it may use it: its keys are public
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8100")]
    listen: SocketAddr,
    /// Start none, but ask the one that listens there whether it is well; exit 6 if not
    #[arg(long)]
    probe: bool,
    /// Which surface of workflows the tenant has
    #[arg(long, value_name = "GENERATION", default_value = "argo")]
    generation: Generation,
    /// How long a run is Pending
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = duration::parse)]
    pending: Duration,
    /// How long a run is then Running
    #[arg(long, value_name = "TIME", default_value = "1500ms", value_parser = duration::parse)]
    running: Duration,
    /// How long searches lag behind
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration::parse)]
    index_lag: Duration,
    /// Answer to a submit while a run of the same workflow or app is active
    #[arg(long, value_name = "HOW", default_value = "masked-500")]
    already_active: Active,
    /// On argo: workflows run in the Automation Engine; a submit answers only the id of the run, and no search of runs finds it
    #[arg(long)]
    native_engine: bool,
    /// Answers of the Automation Engine's own API, /automation/api/v1
    #[arg(long, value_name = "ACCESS", default_value = "allowed")]
    automation: Automation,
    /// Play the services inside a cluster: no /api/service, and the metastore under /api/atlas/v2
    #[arg(long)]
    in_cluster: bool,
    /// Let only who is named as an admin of a connection, or is a connection admin by role, administer it
    #[arg(long)]
    strict_admins: bool,
    /// How long access tokens live [default: 10m of an OAuth client, 5m of Keycloak]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    token_lifetime: Option<Duration>,
    /// So many requests are served in a second, further ones get a 429; 0: no limit
    #[arg(long, value_name = "N", default_value_t = 0)]
    requests_per_second: u32,
    /// Answer 401 in plain text in place of JSON
    #[arg(long)]
    plain_401: bool,
    /// A fault from the start, in JSON; may be given several times
    #[arg(long = "fault", value_name = "JSON", value_parser = fault)]
    faults: Vec<tenant::Fault>,
    /// A file that holds a JSON array of faults
    #[arg(long = "faults", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    faults_file: Option<PathBuf>,
    /// How far the times in its documents are ahead of its Date header; -12s: behind
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = skew, allow_hyphen_values = true)]
    clock_skew: i64,
    /// Answer without a Date header
    #[arg(long)]
    no_date: bool,
}

/// A time that may be negative, in milliseconds.
fn skew(text: &str) -> Result<i64, String> {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let time = duration::parse(text)?;
    Ok(i64::try_from(time.as_millis()).map_or(i64::MAX, |millis| sign * millis))
}

fn fault(text: &str) -> Result<tenant::Fault, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Generation {
    /// Workflows and runs
    Argo,
    /// Apps: /v1/app
    Native,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Active {
    /// Another run starts; several runs of one workflow are active
    Allow,
    /// 409 with code AE-WF-409-03
    #[value(alias = "conflict-409")]
    Refuse,
    /// 500 whose message contains that code
    #[value(name = "masked-500")]
    Masked500,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Automation {
    /// Serves admins and API tokens
    Allowed,
    /// 403
    Forbidden,
    /// Lists no run
    Empty,
    /// 404
    Absent,
}

impl Sandbox {
    pub(super) async fn run(self, app: &App) -> anyhow::Result<Exit> {
        if self.probe {
            return self.ask(app).await;
        }
        let faults = self.faults()?;
        let signals = Signals::listen()?;
        let hint = "another address: --listen 127.0.0.1:0 takes a free port";
        let sandbox = tenant::Sandbox::start(self.options())
            .await
            .with_context(|| Problem::unusable(format!("{} cannot be listened on", self.listen)).hint(hint))?;
        for fault in faults {
            let hint = "the same JSON as that of POST /sandbox/faults";
            sandbox.try_add_fault(fault).map_err(|error| Problem::usage(error.to_string()).hint(hint))?;
        }
        if !sandbox.address().ip().is_loopback() {
            let address = sandbox.address();
            tracing::warn!(%address, "the sandbox listens beyond loopback: anyone who can reach it may use it, as its keys are public");
        }
        let url = sandbox.base_url();
        let said = serde_json::json!({"base_url": url, "ATLAN_BASE_URL": url, "ATLAN_API_KEY": API_KEY});
        app.out
            .outcome(&said, || format!("a sandbox listens on {url}\nexport ATLAN_BASE_URL={url}\nexport ATLAN_API_KEY={API_KEY}"));
        signals.stopped().await;
        sandbox.stop().await;
        Ok(Exit::Passed)
    }

    fn options(&self) -> tenant::SandboxOptions {
        tenant::SandboxOptions {
            listen: self.listen,
            generation: match self.generation {
                Generation::Argo => tenant::Generation::Argo,
                Generation::Native => tenant::Generation::Native,
            },
            pending: self.pending,
            running: self.running,
            index_lag: self.index_lag,
            already_active: match self.already_active {
                Active::Masked500 => tenant::AlreadyActive::Masked500,
                Active::Refuse => tenant::AlreadyActive::Conflict409,
                Active::Allow => tenant::AlreadyActive::Allow,
            },
            in_cluster: self.in_cluster,
            strict_admins: self.strict_admins,
            token_lifetime: self.token_lifetime,
            requests_per_second: self.requests_per_second,
            plain_401: self.plain_401,
            date_header: !self.no_date,
            clock_skew: self.clock_skew,
            native_engine: self.native_engine,
            automation: match self.automation {
                Automation::Allowed => tenant::AutomationAccess::Allowed,
                Automation::Forbidden => tenant::AutomationAccess::Forbidden,
                Automation::Empty => tenant::AutomationAccess::Empty,
                Automation::Absent => tenant::AutomationAccess::Absent,
            },
            ..tenant::SandboxOptions::default()
        }
    }

    /// What shall go wrong from the start: that of the file, then that of the flags.
    fn faults(&self) -> anyhow::Result<Vec<tenant::Fault>> {
        let Some(file) = &self.faults_file else { return Ok(self.faults.clone()) };
        let refuse = |problem: String| Problem::usage(problem).hint("a JSON array of what --fault takes");
        let text = input::read(file, FAULTS)?;
        let mut faults: Vec<tenant::Fault> =
            serde_json::from_str(&text).map_err(|error| refuse(format!("{}: {error}", file.display())))?;
        faults.extend(self.faults.iter().cloned());
        Ok(faults)
    }

    async fn ask(&self, app: &App) -> anyhow::Result<Exit> {
        let address = self.listen;
        let hint = "start one with: iolaus sandbox";
        tenant::probe(address).await.with_context(|| Problem::unusable(format!("no sandbox answers on {address}")).hint(hint))?;
        app.out.data(&serde_json::json!({"ok": true}), || format!("the sandbox on {address} answers"))?;
        Ok(Exit::Passed)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sandbox: Sandbox,
    }

    fn options(words: &str) -> Option<tenant::SandboxOptions> {
        let line = Line::try_parse_from(["sandbox"].into_iter().chain(words.split_whitespace()));
        line.ok().map(|line| line.sandbox.options())
    }

    #[test]
    fn a_second_submit_is_answered_as_the_flag_says_under_old_names_too() {
        use tenant::AlreadyActive as Active;
        let chosen = |words: &str| options(words).map(|options| options.already_active);
        assert_eq!(chosen(""), Some(Active::Masked500));
        for (how, expected) in [
            ("allow", Active::Allow),
            ("refuse", Active::Conflict409),
            ("conflict-409", Active::Conflict409),
            ("masked-500", Active::Masked500),
        ] {
            assert_eq!(chosen(&format!("--already-active {how}")), Some(expected), "{how}");
        }
        assert_eq!(chosen("--already-active maybe"), None);
    }

    #[test]
    fn a_skew_of_the_clock_may_be_negative() {
        for (words, skew) in
            [("", 0), ("--clock-skew 1500ms", 1_500), ("--clock-skew=-12s", -12_000), ("--clock-skew -2m", -120_000)]
        {
            assert_eq!(options(words).map(|options| options.clock_skew), Some(skew), "{words}");
        }
        assert!(options("--clock-skew --12s").is_none() && options("--clock-skew x").is_none());
    }

    #[test]
    fn the_automation_engine_and_its_api_are_switched_by_flags() {
        let chosen = options("--native-engine --automation forbidden").expect("understood");
        assert_eq!((chosen.native_engine, chosen.automation), (true, tenant::AutomationAccess::Forbidden));
        let default = options("").expect("understood");
        assert_eq!((default.native_engine, default.automation), (false, tenant::AutomationAccess::Allowed));
    }
}

//! Exit codes, the one place, and what every error becomes: a code, one line, and a hint.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | passed, or the command did what it says |
//! | 1 | failed: the tenant's own no, or `fsck` found something wrong |
//! | 2 | usage or bad input, in arguments, files or configuration; nothing was stored |
//! | 3 | unresolved: the tenant could not be asked, or `doctor` found trouble with it |
//! | 4 | cancelled |
//! | 5 | not yet: the job is stored and open; ask again |
//! | 6 | the queue or the host is unusable |
//!
//! Where stdout takes nothing, the code is that of what was done, which is then said on stderr; a command that only reads ends with 2.
//! Never 99 or above 124, which orchestrators and shells give meanings of their own.

use std::fmt;
use std::process::ExitCode;

use iolaus_activities::tenant::SettingsError;
use iolaus_activities::{Failure, Status, duration, shell_word};
use rustix::process::{Resource, getrlimit};

use super::out::OutputLost;
use crate::client::ClientError;
use crate::config::ConfigError;
use crate::job::{JobId, Refused};

/// How a command ends. See the module for what each code promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Passed, or done.
    Passed = 0,
    /// The tenant's own no; something wrong in the queue's file.
    Failed = 1,
    /// Usage or bad input.
    Usage = 2,
    /// It could not be asked or done.
    Unresolved = 3,
    /// Somebody cancelled it.
    Cancelled = 4,
    /// It is stored and open.
    NotYet = 5,
    /// The queue or the host is unusable.
    Unusable = 6,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code of a verdict.
    pub fn of_status(status: Status) -> Self {
        match status {
            Status::Passed => Self::Passed,
            Status::Failed => Self::Failed,
            Status::Unresolved => Self::Unresolved,
            Status::Cancelled => Self::Cancelled,
        }
    }

    /// The code of several jobs together: the one that needs somebody's attention most.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        const ORDER: [Exit; 7] =
            [Exit::Passed, Exit::Failed, Exit::Cancelled, Exit::Unresolved, Exit::NotYet, Exit::Usage, Exit::Unusable];
        let rank = |exit: Self| ORDER.iter().position(|known| *known == exit);
        if rank(self) >= rank(other) { self } else { other }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Something that ends a command, with its code and its hint.
#[derive(Debug)]
pub(crate) struct Problem {
    exit: Exit,
    message: String,
    hint: Option<String>,
}

impl Problem {
    /// Bad usage or input.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into(), hint: None }
    }

    /// Something that was not done, or not wholly.
    pub(crate) fn unresolved(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unresolved, ..Self::usage(message) }
    }

    /// A queue or host that is of no use.
    pub(crate) fn unusable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unusable, ..Self::usage(message) }
    }

    /// Adds the hint.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// What an error means for the one who called: the code and a hint.
pub(crate) fn explain(error: &anyhow::Error) -> (Exit, Option<String>) {
    let causes = || error.chain();
    if let Some(problem) = causes().find_map(|cause| cause.downcast_ref::<Problem>()) {
        return (problem.exit, problem.hint.clone());
    }
    if let Some(client) = causes().find_map(|cause| cause.downcast_ref::<ClientError>()) {
        return of_client(client);
    }
    if let Some(config) = causes().find_map(|cause| cause.downcast_ref::<ConfigError>()) {
        return (Exit::Usage, Some(config.hint.clone()));
    }
    if let Some(failure) = causes().find_map(|cause| cause.downcast_ref::<Failure>()) {
        return (Exit::Unresolved, failure.suggested_action.clone());
    }
    if causes().any(<dyn std::error::Error>::is::<OutputLost>) {
        return (Exit::Usage, Some("nothing else went wrong; free some space, or write the output to another place".to_owned()));
    }
    let bad_input = |cause: &(dyn std::error::Error + 'static)| cause.is::<Refused>() || cause.is::<SettingsError>();
    if causes().any(bad_input) { (Exit::Usage, None) } else { (Exit::Unusable, None) }
}

fn of_client(error: &ClientError) -> (Exit, Option<String>) {
    let word = |job_id: &JobId| shell_word(job_id.as_str()).into_owned();
    let (exit, hint) = match error {
        ClientError::Refused(_) | ClientError::Unsupported { .. } => (Exit::Usage, None),
        ClientError::Conflict { job_id, state, .. } if state.is_open() => {
            (Exit::Usage, Some(format!("iolaus jobs wait {}, or enqueue with --id-conflict-policy use_existing", word(job_id))))
        }
        ClientError::Conflict { job_id, .. } => (Exit::Usage, Some(format!("iolaus jobs show {} shows its verdict", word(job_id)))),
        ClientError::OtherJob(other) => {
            (Exit::Usage, Some(format!("choose another --job-id; iolaus jobs show {} shows the open job", word(&other.job_id))))
        }
        ClientError::NotFound(_) => (Exit::Usage, Some("iolaus jobs list shows the jobs of this queue".to_owned())),
        ClientError::StillOpen(job_id) => {
            (Exit::Usage, Some(format!("iolaus jobs wait {0}, or iolaus jobs cancel {0}", word(job_id))))
        }
        ClientError::NeedsAcceptDuplicate { job_id, instead } => {
            let duplicate = format!("iolaus jobs retry {} --accept-duplicate", word(job_id));
            let safe = instead.as_ref().map(|command| format!("{command} (or, if a second run does no harm: {duplicate})"));
            (Exit::Usage, Some(safe.unwrap_or(duplicate)))
        }
        ClientError::Overloaded { retry_after, .. } => {
            (Exit::Unusable, Some(format!("try again in {}", duration::format(*retry_after))))
        }
        ClientError::Unavailable { hint, .. } => {
            let usual = || "iolaus doctor tells what is wrong with the queue".to_owned();
            (Exit::Unusable, Some(hint.as_deref().map(str::to_owned).or_else(of_file_size).unwrap_or_else(usual)))
        }
    };
    (exit, hint)
}

/// Of a write beyond the limit of a file's size SQLite says only that it failed.
fn of_file_size() -> Option<String> {
    let limit = getrlimit(Resource::Fsize).current?;
    Some(format!(
        "no file of this process may be longer than {limit} bytes: raise that limit (`ulimit -f unlimited`), and try again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobState, RunId};
    use iolaus_activities::Category;

    fn code(error: impl Into<anyhow::Error>) -> (u8, String) {
        let (exit, hint) = explain(&error.into());
        (exit.code(), hint.unwrap_or_default())
    }

    #[test]
    fn the_codes_are_those_of_the_table() {
        let all = [Exit::Passed, Exit::Failed, Exit::Usage, Exit::Unresolved, Exit::Cancelled, Exit::NotYet, Exit::Unusable];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5, 6]);
        let statuses = [Status::Passed, Status::Failed, Status::Unresolved, Status::Cancelled];
        assert_eq!(statuses.map(|status| Exit::of_status(status).code()), [0, 1, 3, 4]);
    }

    #[test]
    fn bad_input_is_2_a_silent_tenant_3_and_a_broken_queue_6() {
        let id = || JobId::from_caller("nightly").expect("it is an id");
        assert_eq!(code(Refused::new("input.user_id", "must not be empty")).0, 2);
        assert_eq!(code(Problem::usage("x").hint("y")), (2, "y".to_owned()));
        assert_eq!(code(ClientError::NotFound(id())).0, 2);
        let lost = code(OutputLost::from(std::io::Error::other("no space")));
        assert!(lost.0 == 2 && lost.1.contains("nothing else went wrong"), "{lost:?}");
        assert_eq!(code(Failure::new("a.b", Category::Auth, "no").suggest("log in")), (3, "log in".to_owned()));
        let source = std::io::Error::other("disk full").into();
        assert_eq!(code(ClientError::Unavailable { place: "q".into(), unknown: false, hint: None, source }).0, 6);
        let overloaded = ClientError::Overloaded { place: "q".into(), retry_after: std::time::Duration::from_millis(1500) };
        assert_eq!(code(overloaded), (6, "try again in 1500ms".to_owned()));
        assert_eq!(code(anyhow::anyhow!("what?")).0, 6);
        let run_id = RunId::generate(jiff::Timestamp::UNIX_EPOCH);
        assert!(code(ClientError::Conflict { job_id: id(), run_id, state: JobState::Running }).1.contains("use_existing"));
    }

    #[test]
    fn an_ambiguous_retry_offers_the_safe_command_first() {
        let job_id = JobId::from_caller("nightly").expect("it is an id");
        let instead = Some("iolaus execute workflow_rerun since=T".to_owned());
        let (exit, hint) = code(ClientError::NeedsAcceptDuplicate { job_id, instead });
        assert!(exit == 2 && hint.starts_with("iolaus execute") && hint.contains("--accept-duplicate"), "{hint}");
    }

    #[test]
    fn an_id_with_a_space_is_quoted_in_every_hint() {
        let id = || JobId::from_caller("every night; really").expect("it is an id");
        let run_id = RunId::generate(jiff::Timestamp::UNIX_EPOCH);
        for error in [
            ClientError::Conflict { job_id: id(), run_id, state: JobState::Running },
            ClientError::Conflict { job_id: id(), run_id, state: JobState::Completed },
            ClientError::StillOpen(id()),
            ClientError::NeedsAcceptDuplicate { job_id: id(), instead: None },
        ] {
            let (_, hint) = code(error);
            assert_eq!(hint.matches("every night").count(), hint.matches("'every night; really'").count(), "{hint}");
            assert!(hint.contains("'every night; really'"), "{hint}");
        }
    }

    #[test]
    fn the_worst_of_several_ends_is_the_one_to_look_at() {
        assert_eq!(Exit::Failed.worst(Exit::Passed), Exit::Failed);
        assert_eq!(Exit::Failed.worst(Exit::Unresolved), Exit::Unresolved);
        assert_eq!(Exit::NotYet.worst(Exit::Unresolved), Exit::NotYet);
    }
}

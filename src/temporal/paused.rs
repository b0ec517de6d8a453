//! Activities that were paused with the cluster's own tools: nothing of ours pauses them, and nothing of ours resumes them.

use iolaus_activities::shell_word;
use temporalio_common::protos::temporal::api::activity::v1::ActivityExecutionInfo;
use temporalio_common::protos::temporal::api::enums::v1::PendingActivityState;
use temporalio_common::protos::temporal::api::workflow::v1::PendingActivityInfo;
use temporalio_common::protos::temporal::api::workflow::v1::pending_activity_info::pause_info::PausedBy;

use crate::job::JobPause;

/// Where a job is kept, as the cluster's tools name it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) address: String,
    pub(super) namespace: String,
}

impl Place {
    fn resume(&self, which: &[(&str, &str)]) -> String {
        let place = [("address", self.address.as_str()), ("namespace", self.namespace.as_str())];
        let options = which.iter().chain(&place).map(|(name, value)| format!(" --{name} {}", shell_word(value)));
        format!("temporal activity unpause{}", options.collect::<String>())
    }

    /// The pause of a single activity. Server 1.32 does not tell who made it, nor why.
    pub(super) fn pause_of(&self, info: &ActivityExecutionInfo) -> Option<JobPause> {
        let resume = || self.resume(&[("activity-id", &info.activity_id), ("run-id", &info.run_id)]);
        is_paused(info.run_state).then(|| JobPause { by: None, reason: None, resume: resume() })
    }

    /// The pause of an activity of a workflow.
    pub(super) fn pause_of_step(&self, workflow: &str, pending: &PendingActivityInfo) -> Option<JobPause> {
        if !pending.paused && !is_paused(pending.state) {
            return None;
        }
        let (by, reason) = match pending.pause_info.as_ref().and_then(|info| info.paused_by.clone()) {
            Some(PausedBy::Manual(manual)) => (manual.identity, manual.reason),
            Some(PausedBy::Rule(rule)) => (rule.identity, rule.reason),
            None => (String::new(), String::new()),
        };
        let told = |text: String| Some(text).filter(|text| !text.is_empty());
        let resume = self.resume(&[("workflow-id", workflow), ("activity-id", &pending.activity_id)]);
        Some(JobPause { by: told(by), reason: told(reason), resume })
    }
}

fn is_paused(state: i32) -> bool {
    matches!(PendingActivityState::try_from(state), Ok(PendingActivityState::Paused | PendingActivityState::PauseRequested))
}

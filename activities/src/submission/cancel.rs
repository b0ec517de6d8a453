//! What a cancel does to an effort that no worker is pursuing at the moment.

use serde_json::{Value, json};

use super::failures::what_remains;
use super::{Effort, Origin};
use crate::activity::CancelPlan;
use crate::follow::{continues, facts};
use crate::tenant::Standing;

impl Effort {
    /// Stops the run that this job started, if that is asked for, in one last attempt. Else says what continues at the tenant.
    pub(crate) fn on_cancel(&self, tenant: &str, stop_on_cancel: bool) -> CancelPlan {
        let Some(obtained) = &self.obtained else {
            return CancelPlan::Close { message: Some(what_remains(tenant, self)), facts: self.facts() };
        };
        let (run, started) = (&obtained.run, obtained.origin == Origin::Started);
        let active = run.standing() == Standing::Active;
        if stop_on_cancel && started && active {
            return CancelPlan::Undo;
        }
        let mut facts = facts(run);
        facts.insert("started".to_owned(), Value::Bool(started));
        if !active {
            let phase = run.phase.as_deref().unwrap_or("unknown");
            return CancelPlan::Close { message: Some(format!("run {} ended as {phase}", run.name)), facts };
        }
        facts.insert("stop_requested".to_owned(), json!(false));
        let why = if stop_on_cancel { ", since it was not started by this job" } else { "" };
        CancelPlan::Close { message: Some(continues(tenant, &run.name, why)), facts }
    }
}

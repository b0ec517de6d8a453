//! What every host refuses in the same words.

use super::{OtherJob, RetryFilter};
use crate::job::{JobState, NewJob, Refused, RunId};

/// Rows of one page at most.
const PAGE: usize = 1000;

/// A page of a list has 1 to 1000 rows.
pub(crate) fn page(limit: usize) -> Result<(), Refused> {
    if (1..=PAGE).contains(&limit) {
        return Ok(());
    }
    Err(Refused::new("limit", format!("is {limit}; it goes from 1 to {PAGE}")))
}

/// Only what is dead is retried by filter.
pub(crate) fn dead(filter: &RetryFilter) -> Result<(), Refused> {
    match filter.states.iter().find(|state| !matches!(state, JobState::Discarded | JobState::Cancelled)) {
        None => Ok(()),
        Some(state) => Err(Refused::new("state", format!("is {state}; only discarded and cancelled jobs are retried by filter"))),
    }
}

/// An open execution under a request's id answers it only if it is of the same activity and tenant.
pub(crate) fn same_job(asked: &NewJob, run_id: RunId, state: JobState, activity: &str, tenant: &str) -> Result<(), Box<OtherJob>> {
    if activity == asked.activity && tenant == asked.tenant {
        return Ok(());
    }
    Err(Box::new(OtherJob {
        job_id: asked.job_id.clone(),
        run_id,
        state,
        activity: activity.to_owned(),
        tenant: tenant.to_owned(),
        asked_activity: asked.activity.clone(),
        asked_tenant: asked.tenant.clone(),
    }))
}

/// A text has a size.
pub(crate) fn text(field: &str, text: Option<&str>, limit: usize) -> Result<(), Refused> {
    match text.map_or(0, str::len) {
        size if size > limit => Err(Refused::new(field, format!("has {size} bytes; at most {limit} are allowed"))),
        _ => Ok(()),
    }
}

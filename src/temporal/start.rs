//! From a job that passed the door to the request that starts it.

use std::collections::HashMap;

use temporalio_common::protos::temporal::api::common::v1::{ActivityType, Payload, Priority, RetryPolicy, SearchAttributes};
use temporalio_common::protos::temporal::api::enums::v1::{ActivityIdConflictPolicy, ActivityIdReusePolicy, TaskQueueKind};
use temporalio_common::protos::temporal::api::sdk::v1::UserMetadata;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::StartActivityExecutionRequest;

use super::wire::{self, BEYOND, Meta};
use super::{TemporalOptions, connect};
use crate::job::{IdConflictPolicy, IdReusePolicy, NewJob};

/// The request. Its id is the run id that was chosen here, so that a repeated request is one.
pub(super) fn request(options: &TemporalOptions, namespace: &str, job: &NewJob) -> StartActivityExecutionRequest {
    let timeouts = &job.options.timeouts;
    StartActivityExecutionRequest {
        namespace: namespace.to_owned(),
        identity: connect::identity(),
        request_id: job.run_id.to_string(),
        activity_id: job.job_id.to_string(),
        activity_type: Some(ActivityType { name: job.activity.clone() }),
        task_queue: Some(queue(options.queue(job.options.slot_class))),
        schedule_to_close_timeout: timeouts.schedule_to_close.map(wire::proto),
        schedule_to_start_timeout: timeouts.schedule_to_start.map(wire::proto),
        start_to_close_timeout: Some(wire::proto(timeouts.start_to_close + BEYOND)),
        heartbeat_timeout: Some(wire::proto(options.heartbeat_timeout)),
        retry_policy: Some(retry(job)),
        input: Some(wire::payloads(&job.input)),
        id_reuse_policy: reuse(job.id_reuse_policy).into(),
        id_conflict_policy: conflict(job.id_conflict_policy).into(),
        search_attributes: attributes(options, &job.tenant),
        header: Some(meta(job).header()),
        user_metadata: Some(UserMetadata { summary: Some(wire::payload(&summary(job))), details: None }),
        priority: Some(priority(job)),
        start_delay: job.delay.map(wire::proto),
        ..StartActivityExecutionRequest::default()
    }
}

/// What a job has and Temporal has no field for.
pub(super) fn meta(job: &NewJob) -> Meta {
    Meta {
        version: Some(job.activity_version),
        tenant: Some(job.tenant.clone()),
        options: Some(job.options.clone()),
        labels: job.labels.clone(),
        trace: Some(job.trace.clone()),
        delay: job.delay,
    }
}

pub(super) fn queue(name: String) -> TaskQueue {
    TaskQueue { name, kind: TaskQueueKind::Normal.into(), normal_name: String::new() }
}

fn retry(job: &NewJob) -> RetryPolicy {
    let policy = &job.options.retry;
    RetryPolicy {
        initial_interval: Some(wire::proto(policy.initial_interval)),
        backoff_coefficient: policy.backoff_coefficient,
        maximum_interval: Some(wire::proto(policy.maximum_interval.max(policy.initial_interval))),
        maximum_attempts: i32::try_from(policy.maximum_attempts).unwrap_or(i32::MAX),
        non_retryable_error_types: policy.non_retryable_codes.clone(),
    }
}

fn reuse(policy: IdReusePolicy) -> ActivityIdReusePolicy {
    match policy {
        IdReusePolicy::Allow => ActivityIdReusePolicy::AllowDuplicate,
        IdReusePolicy::AllowFailedOnly => ActivityIdReusePolicy::AllowDuplicateFailedOnly,
        IdReusePolicy::Reject => ActivityIdReusePolicy::RejectDuplicate,
    }
}

fn conflict(policy: IdConflictPolicy) -> ActivityIdConflictPolicy {
    match policy {
        IdConflictPolicy::Fail => ActivityIdConflictPolicy::Fail,
        IdConflictPolicy::UseExisting => ActivityIdConflictPolicy::UseExisting,
    }
}

/// The tenant is the fairness key: one tenant's million jobs do not starve another's ten. A key has 64 bytes.
pub(super) fn priority(job: &NewJob) -> Priority {
    let mut end = job.tenant.len().min(64);
    while !job.tenant.is_char_boundary(end) {
        end -= 1;
    }
    Priority { priority_key: job.priority.into(), fairness_key: job.tenant[..end].to_owned(), fairness_weight: 1.0 }
}

pub(super) fn attributes(options: &TemporalOptions, tenant: &str) -> Option<SearchAttributes> {
    let name = options.tenant_attribute.clone()?;
    let mut value: Payload = wire::payload(&tenant);
    value.metadata.insert("type".to_owned(), b"Keyword".to_vec());
    Some(SearchAttributes { indexed_fields: HashMap::from([(name, value)]) })
}

/// One line for the cluster's own pages.
pub(super) fn summary(job: &NewJob) -> String {
    format!("{} of tenant {}", job.activity, job.tenant)
}

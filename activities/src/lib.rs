//! What each Iolaus activity does, and the contract that it keeps. A leaf: no queue, no SQL, no server, no command line.
//!
//! To write an activity: one file, one struct that says why running it twice is safe, one input, one `impl` of [`Activity`], one line
//! in [`shipped`]. Everything it needs of the world comes through [`ActivityContext`] and [`tenant`].

mod activity;
mod await_completion;
mod clock;
mod context;
pub mod duration;
mod effects;
mod failure;
mod follow;
mod inputs;
pub mod named_file;
mod publish_preflight;
mod retry;
mod submission;
pub mod tenant;
pub mod testing;
mod text;
pub mod timestamp;
mod token_admin_grant;
mod user;
mod verdict;
mod workflow_rerun;

use std::sync::Arc;

pub use activity::{
    Activity, ActivityError, ActivityInfo, ActivityOptions, CancelPlan, ErasedActivity, InputError, Prepared, Registry, SlotClass,
    Timeouts,
};
pub use await_completion::{AwaitCompletion, AwaitCompletionInput};
pub use clock::{BoxFuture, Clock, ManualClock, SystemClock};
pub use context::{ActivityContext, Attempt, EffectInFlight, Host, Interrupted, Stop, TimeoutKind};
pub use effects::{
    EFFECT_RETENTION, EffectOutcome, EffectOwner, EffectRegister, EffectState, MAX_OTHER_EFFECTS, OtherEffect, Reservation,
    Reserved,
};
pub use failure::{Audience, Category, Failure, FailureRecord, FailureSource, codes};
pub use publish_preflight::{PublishPreflight, PublishPreflightInput};
pub use retry::{Next, RetryPolicy};
pub use submission::{Older, UnknownFate};
pub use text::{MESSAGE_LIMIT, clip, is_invisible, shell_word};
pub use token_admin_grant::{Method, TokenAdminGrant, TokenAdminGrantInput};
pub use verdict::{Check, Status, Verdict, VerdictRecord};
pub use workflow_rerun::{Pick, Until, WorkflowRerun, WorkflowRerunInput};

/// Every activity of this build, in alphabetical order: the one list. Enqueueing uses it with [`Tenants::none`](tenant::Tenants::none).
///
/// ```
/// let names: Vec<_> = iolaus_activities::shipped(&iolaus_activities::tenant::Tenants::none()).infos().map(|info| info.name).collect();
/// assert!(names.contains(&"publish_preflight") && names.is_sorted());
/// ```
pub fn shipped(tenants: &Arc<tenant::Tenants>) -> Registry {
    Registry::default()
        .with(AwaitCompletion::new(tenants.clone()))
        .with(PublishPreflight::new(tenants.clone()))
        .with(TokenAdminGrant::new(tenants.clone()))
        .with(WorkflowRerun::new(tenants.clone()))
}

//! What each Iolaus activity does, and the contract that it keeps. A leaf: no queue, no SQL, no server, no command line.
//!
//! To write an activity: one file, one struct that says why running it twice is safe, one input, one `impl` of [`Activity`], one line
//! in [`shipped`]. Everything it needs of the world comes through [`ActivityContext`] and [`tenant`].

mod activity;
mod clock;
mod context;
pub mod duration;
mod failure;
mod retry;
pub mod tenant;
pub mod testing;
pub mod timestamp;
mod verdict;

pub use activity::{
    Activity, ActivityError, ActivityInfo, ActivityOptions, ErasedActivity, InputError, Prepared, Registry, SlotClass, Timeouts,
};
pub use clock::{BoxFuture, Clock, ManualClock, SystemClock};
pub use context::{ActivityContext, Attempt, Host, Interrupted, Stop, TimeoutKind};
pub use failure::{Audience, Category, Failure, FailureRecord, FailureSource, codes};
pub use retry::{Next, RetryPolicy};
pub use verdict::{Check, MESSAGE_LIMIT, Status, Verdict, VerdictRecord, clip};

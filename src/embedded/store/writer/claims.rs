//! The claims at the end of a transaction, for the workers of this process.

use std::sync::Arc;

use super::Undone;
use crate::embedded::store::claim::{self, Claimed, Claimer};
use crate::embedded::store::isolation::lies_in_a_row;
use crate::embedded::store::starting::Starter;
use crate::embedded::store::{StoreError, Tx};

/// Who gets which jobs, under which worker's row.
pub(super) type Claims = (Arc<dyn Claimer>, i64, Vec<Claimed>);

/// Claims for each worker that has free slots, if there may be anything to claim, beside what it was given already. With savepoints, an
/// error that lies in the rows undoes a claim and not what was asked for beside it, and is answered.
pub(super) fn claim_for(
    tx: &mut Tx<'_>,
    claimers: &[Arc<dyn Claimer>],
    workers: Vec<Option<Starter>>,
    maybe_ready: &mut bool,
    turns: &mut claim::Turns,
) -> Result<(Vec<Claims>, Option<StoreError>), Undone> {
    let look = std::mem::take(maybe_ready) || tx.after.ready;
    let (mut claimed, mut failed) = (Vec::new(), None);
    for (claimer, worker) in claimers.iter().zip(workers) {
        let Some(Starter { request, mut jobs }) = worker else {
            // It comes back as soon as it has a free slot.
            *maybe_ready |= look;
            continue;
        };
        if look && request.free() > 0 {
            let found = if tx.isolates {
                tx.within_savepoint(|tx| claim::claim(tx, &request, turns))?
            } else {
                claim::claim(tx, &request, turns)
            };
            match found {
                Ok((more_jobs, more)) => {
                    *maybe_ready |= more;
                    jobs.extend(more_jobs);
                }
                Err(error) if tx.conn.is_autocommit() || !lies_in_a_row(&error) => return Err(Undone::All(error)),
                Err(_) if !tx.isolates => return Err(Undone::One),
                Err(error) => {
                    *maybe_ready = true;
                    failed = Some(error);
                }
            }
        } else {
            *maybe_ready |= look;
        }
        if !jobs.is_empty() {
            claimed.push((claimer.clone(), request.worker_id, jobs));
        }
    }
    Ok((claimed, failed))
}

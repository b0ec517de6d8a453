//! Jobs whose last worker died, in the model. One death more would discard them, so that each runs without another one.

use super::Both;
use crate::embedded::store::suspects::SUSPECT_PAUSE;
use crate::job::JobState;

impl Both {
    /// The worker of an attempt has lived for long.
    pub(super) fn outlive(&mut self, number: usize) {
        let Some((lease, holds)) = self.lease(number) else { return };
        let (life, id, token) = (lease.life, lease.id, lease.token);
        let suspected = holds && self.lives[life].deaths > 0;
        assert_eq!(self.tx(|tx| tx.clear_of_deaths(id, token)).expect("it answers"), suspected);
        if holds {
            self.lives[life].deaths = 0;
        }
    }

    /// Notes what the claim did not start because its last worker died, and answers how many these are.
    pub(super) fn put_off(&mut self) -> usize {
        let at = self.now + SUSPECT_PAUSE;
        let available: Vec<_> = (0..self.lives.len())
            .filter(|life| self.lives[*life].state == JobState::Available && self.lives[*life].deaths > 0)
            .collect();
        let mut put_off = 0;
        for life in available {
            if self.stored(self.ids[life].0).is_some_and(|seen| seen.state == "retryable") {
                (self.lives[life].state, self.lives[life].run_at) = (JobState::Retryable, at);
                put_off += 1;
            }
        }
        put_off
    }

    /// What a claim left: a worker runs one suspect at most, and none was put off for nothing.
    pub(super) fn runs_one_suspect(&self, worker: usize, put_off: usize) {
        let suspects = self.lives.iter().filter(|life| life.worker == Some(worker) && life.deaths > 0).count();
        assert!(suspects <= 1 && (put_off == 0 || suspects == 1), "{suspects} run and {put_off} were put off");
    }
}

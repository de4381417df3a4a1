//! Leases that a worker did not say it works on. It may not have heard of them, or not have come to say so: a lease is
//! given up when two comparisons in a row miss it, and it was not brought in between.

use std::collections::BTreeSet;

use autopack_shared::domain::ids::RunId;

/// What the last comparison missed.
#[derive(Debug, Default)]
pub(super) struct Missed(BTreeSet<(RunId, u64)>);

impl Missed {
    pub(super) fn add(&mut self, run: RunId, epoch: u64) {
        self.0.insert((run, epoch));
    }

    pub(super) fn has(&self, run: &RunId, epoch: u64) -> bool {
        self.0.contains(&(run.clone(), epoch))
    }

    /// It was brought to the worker only now.
    pub(super) fn forget(&mut self, run: &RunId, epoch: u64) {
        self.0.remove(&(run.clone(), epoch));
    }
}

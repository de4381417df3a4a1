//! The leases that this worker works on, and what it has to say of them. They outlive the stream they came by: a
//! supervisor that goes away for a moment costs nothing, and what was not acknowledged is said again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::wire::pb;

use crate::link::LinkError;
use crate::phase::{Job, JobOutput, last_word};
use crate::runners::Runners;

/// Messages of jobs that may wait to be taken.
const WAITING: usize = 256;

/// Messages that may wait to be acknowledged; jobs wait when there are more.
const UNACKED: usize = 4096;

struct Active {
    epoch: u64,
    attempt: u32,
    cancel: CancellationToken,
}

/// All jobs of a worker.
pub(crate) struct Jobs {
    active: HashMap<String, Active>,
    unacked: VecDeque<JobOutput>,
    out: mpsc::Sender<JobOutput>,
    from: mpsc::Receiver<JobOutput>,
    all: CancellationToken,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        let (out, from) = mpsc::channel(WAITING);
        Self { active: HashMap::new(), unacked: VecDeque::new(), out, from, all: CancellationToken::new() }
    }

    /// What this worker works on.
    pub(crate) fn held(&self) -> Vec<pb::HeldLease> {
        let held = |(run, a): (&String, &Active)| pb::HeldLease {
            run_id: run.clone(),
            epoch: a.epoch,
            attempt: a.attempt,
            ..Default::default()
        };
        self.active.iter().map(held).collect()
    }

    /// Whether it works on anything, or has something to say.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_empty() && self.unacked.is_empty()
    }

    /// Starts a job, in place of an earlier one of the same run.
    pub(crate) fn start(&mut self, grant: &pb::Grant, runners: &Arc<Runners>, tasks: &Tasks) -> Result<(), LinkError> {
        let job = Job::read(grant).map_err(|why| LinkError::Unreadable { what: "a grant", why })?;
        let cancel = self.all.child_token();
        let lease = Active { epoch: grant.epoch, attempt: grant.attempt, cancel: cancel.clone() };
        if let Some(earlier) = self.active.insert(grant.run_id.clone(), lease) {
            earlier.cancel.cancel();
        }
        let (runners, out) = (runners.clone(), self.out.clone());
        tasks.spawn("lease", OnError::Log, async move {
            let work = runners.run(job.clone(), out.clone(), cancel.clone());
            last_word(job, out, cancel, work).await;
            Ok::<(), LinkError>(())
        });
        Ok(())
    }

    /// The next message of a job, kept until it is acknowledged.
    pub(crate) async fn next(&mut self) -> JobOutput {
        if self.unacked.len() >= UNACKED {
            // An acknowledgement makes room; until then jobs wait.
            return std::future::pending().await;
        }
        let Some(output) = self.from.recv().await else { return std::future::pending().await };
        self.unacked.push_back(output.clone());
        output
    }

    /// What was said and not acknowledged, oldest first.
    pub(crate) fn unacked(&self) -> impl Iterator<Item = &JobOutput> {
        self.unacked.iter()
    }

    /// The supervisor has what was said of a lease up to a number; a result counts as one above its events.
    pub(crate) fn acked(&mut self, ack: &pb::Ack) {
        let heard = |output: &JobOutput| {
            let (run, epoch, seq) = output.place();
            run == ack.run_id && epoch == ack.epoch && seq <= ack.upto
        };
        let done = self.unacked.iter().any(|output| matches!(output, JobOutput::Done(_)) && heard(output));
        self.unacked.retain(|output| !heard(output));
        if done {
            self.forget(&ack.run_id, ack.epoch);
        }
    }

    /// A lease was taken away: its job stops, and nobody wants to hear of it.
    pub(crate) fn revoked(&mut self, run: &str, epoch: u64) {
        if self.active.get(run).is_some_and(|a| a.epoch <= epoch)
            && let Some(lease) = self.active.remove(run)
        {
            lease.cancel.cancel();
        }
        self.unacked.retain(|output| {
            let (of, at, _) = output.place();
            of != run || at > epoch
        });
    }

    fn forget(&mut self, run: &str, epoch: u64) {
        if self.active.get(run).is_some_and(|a| a.epoch == epoch) {
            self.active.remove(run);
        }
    }

    /// Stops everything: nobody would accept the work any more.
    pub(crate) async fn stop_all(&mut self, grace: std::time::Duration) {
        self.all.cancel();
        self.active.clear();
        self.unacked.clear();
        // Jobs send their last words into a channel nobody reads; they only have to end.
        let (out, from) = mpsc::channel(WAITING);
        self.out = out;
        let mut from = std::mem::replace(&mut self.from, from);
        self.all = CancellationToken::new();
        let drain = async { while from.recv().await.is_some() {} };
        let _in_time = tokio::time::timeout(grace, drain).await;
    }
}

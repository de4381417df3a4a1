//! The leases that this worker works on, and what it has to say of them. They outlive the stream they came by: a
//! supervisor that goes away for a moment costs nothing, and what was not acknowledged is said again.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::wire::{WINDOW, pb};

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
    /// How many of them, from the oldest on, were said on the stream of now.
    said: usize,
    out: mpsc::Sender<JobOutput>,
    from: mpsc::Receiver<JobOutput>,
    all: CancellationToken,
    /// Whether more waits to be acknowledged than may.
    full: watch::Sender<bool>,
}

impl Jobs {
    pub(crate) fn new() -> Self {
        let (out, from) = mpsc::channel(WAITING);
        Self {
            active: HashMap::new(),
            unacked: VecDeque::new(),
            said: 0,
            out,
            from,
            all: CancellationToken::new(),
            full: watch::Sender::new(false),
        }
    }

    /// Whether nothing more can be said for now, as it changes: builders then stand still, so that nothing is lost.
    pub(crate) fn full(&self) -> watch::Receiver<bool> {
        self.full.subscribe()
    }

    /// Says whether there is room: none at the bound, and some again at half of it, so that it does not flutter.
    fn look_at_room(&self) {
        let waiting = self.unacked.len();
        self.full.send_if_modified(|full| {
            let now = waiting >= if *full { UNACKED / 2 } else { UNACKED };
            std::mem::replace(full, now) != now
        });
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
        let (runners, out, span) = (runners.clone(), self.out.clone(), job.span());
        let lease = async move {
            let work = runners.run(job.clone(), out.clone(), cancel.clone());
            Box::pin(last_word(job, out, cancel, work)).await;
            Ok::<(), LinkError>(())
        };
        tasks.spawn("lease", OnError::Log, lease.instrument(span));
        Ok(())
    }

    /// The next message for the stream, kept until it is acknowledged. No more than a window of them is under way, so
    /// that neither side ever waits for the other to read.
    pub(crate) async fn next(&mut self) -> JobOutput {
        loop {
            if self.said < WINDOW
                && let Some(output) = self.unacked.get(self.said)
            {
                self.said += 1;
                return output.clone();
            }
            self.take().await;
        }
    }

    /// Takes what jobs have to say while there is no stream, so that they go on.
    pub(crate) async fn gather(&mut self) -> Infallible {
        loop {
            self.take().await;
        }
    }

    /// One message of a job, as soon as there is one and room for it.
    async fn take(&mut self) {
        if self.unacked.len() >= UNACKED {
            // An acknowledgement makes room; until then jobs wait.
            return std::future::pending().await;
        }
        match self.from.recv().await {
            Some(output) => {
                self.unacked.push_back(output);
                self.look_at_room();
            }
            None => std::future::pending().await,
        }
    }

    /// There is a new stream: what was not acknowledged is said again, oldest first.
    pub(crate) const fn say_again(&mut self) {
        self.said = 0;
    }

    /// The supervisor has what was said of a lease up to a number; a result counts as one above its events.
    pub(crate) fn acked(&mut self, ack: &pb::Ack) {
        let heard = |output: &JobOutput| {
            let (run, epoch, seq) = output.place();
            run == ack.run_id && epoch == ack.epoch && seq <= ack.upto
        };
        let done = self.unacked.iter().any(|output| matches!(output, JobOutput::Done(_)) && heard(output));
        self.keep(|output| !heard(output));
        if done {
            self.forget(&ack.run_id, ack.epoch);
        }
        if ack.resend {
            self.resend(ack);
        }
    }

    /// Goes back to what the supervisor misses; where it is no longer here, the history of the job is broken.
    fn resend(&mut self, ack: &pb::Ack) {
        let of = |output: &JobOutput| {
            let (run, epoch, seq) = output.place();
            (run == ack.run_id && epoch == ack.epoch).then_some(seq)
        };
        let first = self.unacked.iter().enumerate().find_map(|(at, output)| Some((at, of(output)?)));
        match first {
            Some((at, seq)) if seq == ack.upto + 1 => self.said = self.said.min(at),
            Some(_) => {
                tracing::error!(run = ack.run_id, upto = ack.upto, "what the supervisor misses is not here any more");
                self.revoked(&ack.run_id, ack.epoch);
            }
            None => {}
        }
    }

    fn keep(&mut self, kept: impl Fn(&JobOutput) -> bool) {
        self.said = self.unacked.iter().take(self.said).filter(|output| kept(output)).count();
        self.unacked.retain(kept);
        self.look_at_room();
    }

    /// A lease was taken away: its job stops, and nobody wants to hear of it.
    pub(crate) fn revoked(&mut self, run: &str, epoch: u64) {
        if self.active.get(run).is_some_and(|a| a.epoch <= epoch)
            && let Some(lease) = self.active.remove(run)
        {
            lease.cancel.cancel();
        }
        self.keep(|output| {
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
        self.look_at_room();
        self.said = 0;
        // Jobs send their last words into a channel nobody reads; they only have to end.
        let (out, from) = mpsc::channel(WAITING);
        self.out = out;
        let mut from = std::mem::replace(&mut self.from, from);
        self.all = CancellationToken::new();
        let drain = async { while from.recv().await.is_some() {} };
        let _in_time = tokio::time::timeout(grace, drain).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const EPOCH: u64 = 3;

    fn event(run: &str, run_seq: u64) -> JobOutput {
        JobOutput::Event(pb::RunEvent { run_id: run.to_owned(), epoch: EPOCH, run_seq, ..Default::default() })
    }

    fn ack(run: &str, upto: u64, resend: bool) -> pb::Ack {
        pb::Ack { run_id: run.to_owned(), epoch: EPOCH, upto, resend }
    }

    /// What goes out now, as numbers.
    fn said(jobs: &mut Jobs) -> Vec<u64> {
        std::iter::from_fn(|| jobs.next().now_or_never()).map(|output| output.place().2).collect()
    }

    #[test]
    fn no_more_than_a_window_is_under_way() {
        let mut jobs = Jobs::new();
        let many = WINDOW as u64 + 10;
        for seq in 1..=many {
            jobs.out.try_send(event("r", seq)).unwrap();
        }
        assert_eq!(said(&mut jobs).len(), WINDOW);
        jobs.acked(&ack("r", 4, false));
        assert_eq!(said(&mut jobs), (1..=4).map(|more| WINDOW as u64 + more).collect::<Vec<_>>());
        jobs.say_again();
        assert_eq!(said(&mut jobs), (5..5 + WINDOW as u64).collect::<Vec<_>>(), "oldest first");
        jobs.acked(&ack("r", many, false));
        assert!(said(&mut jobs).is_empty() && jobs.is_idle());
    }

    #[test]
    fn what_is_missing_is_said_again_from_there() {
        let mut jobs = Jobs::new();
        for seq in 1..=3 {
            jobs.out.try_send(event("r", seq)).unwrap();
            jobs.out.try_send(event("other", seq)).unwrap();
        }
        assert_eq!(said(&mut jobs), [1, 1, 2, 2, 3, 3]);
        jobs.acked(&ack("r", 1, true));
        assert_eq!(said(&mut jobs), [2, 2, 3, 3], "from the second of r on, whosever they are");
        // What is missing was acknowledged once: nobody has it any more, and the lease is given up.
        jobs.acked(&ack("r", 0, true));
        jobs.say_again();
        assert_eq!(said(&mut jobs), [1, 2, 3], "only the other's");
    }

    #[tokio::test]
    async fn a_supervisor_that_is_slow_makes_builders_stand_still_and_loses_nothing() {
        let mut jobs = Jobs::new();
        let (out, full) = (jobs.out.clone(), jobs.full());
        let most = (UNACKED + WAITING) as u64;
        let speaks = async {
            for seq in 1..=most {
                out.send(event("r", seq)).await.unwrap();
            }
        };
        let bounded = async {
            tokio::select! {
                never = jobs.gather() => match never {},
                () = speaks => {}
            }
        };
        // All of it has room, and not one more has.
        bounded.await;
        while tokio::task::unconstrained(jobs.take()).now_or_never().is_some() {}
        assert!(*full.borrow() && jobs.unacked.len() == UNACKED, "{}", jobs.unacked.len());
        assert!(out.try_send(event("r", most + 1)).is_err(), "whoever has more to say waits");
        // A trickle of answers is no room yet; half of it is.
        jobs.acked(&ack("r", 10, false));
        assert!(*full.borrow());
        let mut heard = 10;
        while *full.borrow() {
            heard += 1;
            jobs.acked(&ack("r", heard, false));
        }
        assert_eq!(jobs.unacked.len(), UNACKED / 2 - 1);
        // Everything that was not acknowledged comes, in order, as room comes.
        jobs.say_again();
        let mut next = heard + 1;
        while next <= most {
            // Or the runtime lets nothing be received any more.
            tokio::task::yield_now().await;
            for seq in said(&mut jobs) {
                assert_eq!(seq, next);
                next += 1;
            }
            jobs.acked(&ack("r", next - 1, false));
        }
    }

    #[tokio::test]
    async fn jobs_go_on_without_a_stream() {
        let mut jobs = Jobs::new();
        let out = jobs.out.clone();
        let speaks = async {
            for seq in 1..=(WAITING as u64 * 2) {
                out.send(event("r", seq)).await.unwrap();
            }
        };
        tokio::select! {
            never = jobs.gather() => match never {},
            () = speaks => {}
        }
        assert!(jobs.unacked.len() >= WAITING);
    }
}

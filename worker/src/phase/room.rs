//! Waits for room where a disk is full: that is nobody's fault, and costs no attempt while nothing was spent. A builder
//! that has worked is not asked again: what it left is taken once there is room.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use autopack_shared::domain::record::LeasePurpose;
use autopack_shared::domain::usage::Usage;

use super::ending::{WIND_DOWN, bounded, wall};
use super::{Built, EventSink, Job, Left, Runner};
use crate::builder::{BuildError, DISK_FULL};
use crate::fetch::Cause;
use crate::workspace::Workspace;

/// Pause between two looks whether a full disk has room again.
const PAUSE: Duration = Duration::from_secs(2);

/// How often code of a run is started again after the disk was full: it may be what fills it.
const MOST_STARTS: u32 = 5;

/// One job's patience.
pub(super) struct Room<'a> {
    sink: &'a EventSink,
    cancel: &'a CancellationToken,
    told: bool,
    starts: u32,
}

impl<'a> Room<'a> {
    pub(super) const fn new(sink: &'a EventSink, cancel: &'a CancellationToken) -> Self {
        Self { sink, cancel, told: false, starts: 0 }
    }

    /// Whether a step that failed is to be made again, after a pause: there was no room, and the lease stands.
    pub(super) async fn again(&mut self, error: &BuildError) -> bool {
        if error.reason != DISK_FULL || self.cancel.is_cancelled() {
            return false;
        }
        if !self.told {
            self.sink.send(DISK_FULL, error.message.clone()).await;
            self.told = true;
        }
        tokio::select! {
            () = self.cancel.cancelled() => false,
            () = tokio::time::sleep(PAUSE) => true,
        }
    }

    /// The same for a step in which code of the run was started, or a model asked: not where that was paid for, and not
    /// for ever.
    pub(super) async fn start_again(&mut self, error: &BuildError) -> bool {
        self.starts += 1;
        let paid = error.usage.is_some_and(|usage| usage != Usage::default());
        !paid && self.starts < MOST_STARTS && self.again(error).await
    }

    /// The same until a time: what waits may itself be what fills the disk.
    pub(super) async fn again_until(&mut self, error: &BuildError, end: Instant) -> bool {
        Instant::now() < end && self.again(error).await
    }
}

/// What one try came to.
enum Tried {
    /// Its builder is done, and its tree is to be taken.
    Left(Left),
    /// Its gate has answered.
    Answered(Built),
}

impl Runner {
    /// Does the work, again while there is no room for it. The phase's time is that of one try.
    pub(super) async fn done(
        &self,
        job: &Job,
        sink: &EventSink,
        cancel: &CancellationToken,
        used: &mut Option<Workspace>,
    ) -> Result<Built, BuildError> {
        let mut room = Room::new(sink, cancel);
        loop {
            let space = &mut *used;
            let work = |stop| async move {
                let cause = Cause::Lease { run: job.run.clone(), epoch: job.epoch };
                self.fetch(cause, job.base).instrument(info_span!("fetch")).await?;
                match job.purpose {
                    LeasePurpose::Build => self.build(job, sink, &stop, space).await.map(Tried::Left),
                    LeasePurpose::Verify => self.verify(job, sink, &stop, space).await.map(Tried::Answered),
                }
            };
            let error = match bounded((wall(job), WIND_DOWN), cancel, work).await {
                Ok(Tried::Answered(built)) => return Ok(built),
                Ok(Tried::Left(left)) => {
                    return self.taken((job, sink), cancel, used.as_ref(), left, &mut room).await;
                }
                Err(error) => error,
            };
            let again = match used {
                Some(_) => room.start_again(&error).await,
                None => room.again(&error).await,
            };
            if !again {
                return Err(error);
            }
            // The next try makes its worktree at the same place.
            if let Some(space) = used.take() {
                self.workspaces.remove(space).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::super::{JobOutput, ending};
    use super::*;

    fn full(usage: Option<Usage>) -> BuildError {
        BuildError { usage, ..BuildError::new(DISK_FULL, "no room") }
    }

    fn sink() -> (EventSink, mpsc::Receiver<JobOutput>) {
        let (out, said) = mpsc::channel(16);
        (EventSink::new(ending::tests::job(), out, Instant::now()), said)
    }

    #[tokio::test(start_paused = true)]
    async fn what_costs_nothing_waits_for_room_and_tells_it_once() {
        let ((sink, mut said), lease) = (sink(), CancellationToken::new());
        let mut room = Room::new(&sink, &lease);
        for _try in 0..100 {
            assert!(room.again(&full(None)).await);
        }
        assert!(matches!(said.try_recv(), Ok(JobOutput::Event(event)) if event.kind == DISK_FULL));
        assert!(said.try_recv().is_err());
        assert!(!room.again(&BuildError::new("too_large", "No space left on device is too large")).await);
        lease.cancel();
        assert!(!room.again(&full(None)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_paid_for_is_not_started_again_and_nothing_is_for_ever() {
        let ((sink, _said), lease) = (sink(), CancellationToken::new());
        let paid = Usage { calls: 1, ..Usage::default() };
        assert!(!Room::new(&sink, &lease).start_again(&full(Some(paid))).await);
        let mut room = Room::new(&sink, &lease);
        let mut starts = 1;
        while room.start_again(&full(Some(Usage::default()))).await {
            starts += 1;
        }
        assert_eq!(starts, MOST_STARTS);
        let end = Instant::now() + Duration::from_secs(60);
        while room.again_until(&full(Some(paid)), end).await {}
        assert!(Instant::now() >= end && Instant::now() < end + 2 * PAUSE);
    }
}

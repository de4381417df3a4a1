//! One pass after the other over everything of a project: what is due for all of it, then work for those that want some,
//! then the steps of each run.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::RunId;

use super::locks::SWEEP;
use super::look::Look;
use super::{Denial, Director, next};
use crate::coordination::CoordinationError;
use crate::error::Error;
use crate::hub::HubError;
use crate::store::StoreError;

/// Steps of one run before others get their turn.
const BURST: usize = 64;

/// The longest the director sleeps with something left undone.
const RETRY: Duration = Duration::from_millis(500);

/// Why the director goes on to another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The run waits for somebody else.
    Waits,
    /// It wants a worker.
    Wants,
    /// There is more to do than fits into one turn, or something failed.
    Undone,
}

impl Director {
    /// Serves until stopped, or until another director has fenced this one off.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] or [`HubError::Fenced`] when another one took over.
    pub async fn serve(&self, stop: &CancellationToken) -> Result<(), Error> {
        let mut stored = self.store.changes();
        let mut connected = self.workers.changes();
        loop {
            stored.mark_unchanged();
            connected.mark_unchanged();
            let undone = match self.pass().await {
                Ok(undone) => undone,
                Err(error @ Error::Coordination(CoordinationError::LockReplaced { .. })) => return Err(error),
                Err(error) if self.is_fenced(&error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a pass failed and is tried again");
                    true
                }
            };
            // A store that cannot be read now is asked again soon.
            let wait = self.until_next(undone).await.unwrap_or(RETRY);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = stored.changed() => if changed.is_err() { return Ok(()) },
                changed = connected.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How long nothing will happen by itself.
    async fn until_next(&self, undone: bool) -> Result<Duration, Error> {
        const IDLE: Duration = Duration::from_secs(3600);
        let mut tx = self.store.read().await?;
        let now = tx.now();
        let expiry = tx
            .next_expiry()
            .await?
            .map_or(IDLE, |at| Duration::from_millis(u64::try_from(at.millis_since(now)).unwrap_or(0)).max(RETRY));
        let expiry = self.next_reminder(now).map_or(expiry, |wait| expiry.min(wait.max(RETRY)));
        let expiry = self.pauses().next_wake(now).map_or(expiry, |wait| expiry.min(wait.max(RETRY)));
        let idle = if self.config.reap { SWEEP } else { IDLE };
        Ok(if undone { expiry.min(RETRY) } else { expiry.min(idle) })
    }

    /// One pass over every run that may have something to do; true when something failed and is to be tried again.
    ///
    /// # Errors
    /// When this director is fenced off, or its locks were replaced.
    pub async fn pass(&self) -> Result<bool, Error> {
        // Locks that were replaced under us are noticed before anything is done on their strength.
        if !self.coordinator.is_director().await? {
            return Err(Error::Coordination(CoordinationError::Unavailable("the directorship was lost".to_owned())));
        }
        self.pauses().wake = None;
        // What is due for the whole project must not keep any run from its next step.
        let leased = match self.reap().await {
            Err(error) => self.tried("leases", Err(error)).await?,
            Ok(leased) => leased && self.config.reap,
        };
        let mut undone = self.tried("locks", self.sweep().await).await?;
        undone |= self.tried("expiries", self.expire_due().await).await?;
        undone |= self.tried("reminders", self.remind().await).await?;
        undone |= match self.retain().await {
            Err(error) => self.tried("transcripts", Err(error)).await?,
            Ok(more) => more,
        };
        let mut look = self.look().await?;
        self.forget_but(&look.seen());
        let (again, mut slow) = self.admit(std::mem::take(&mut look.candidates)).await?;
        undone |= again;
        let mut wants = false;
        for run in &look.busy {
            match self.step(run).await? {
                Stop::Waits => {}
                Stop::Wants => wants = true,
                Stop::Undone => undone = true,
            }
        }
        if wants {
            // What came into the queue just now does not wait for the next pass.
            look = Look { busy: look.busy, waiting: look.waiting, ..self.look().await? };
            let (again, newer) = self.admit(std::mem::take(&mut look.candidates)).await?;
            undone |= again;
            // The other one is looked at again when this one is granted.
            slow = newer.or(slow);
        }
        self.wake_at(look.wake);
        look.waiting.iter().for_each(|run| self.eased(run));
        self.export(&look).await;
        undone |= leased | self.tried("notices", self.deliver().await).await?;
        // What takes its time comes last.
        undone |= self.admit_slow(slow).await?;
        undone |= self.pauses().any(self.clock.monotonic());
        Ok(undone)
    }

    /// Takes the steps of one run; what fails is remembered, and stops no other run.
    async fn step(&self, run: &RunId) -> Result<Stop, Error> {
        let error = match self.work_on(run).await {
            Ok(stop) => {
                self.eased(run);
                return Ok(stop);
            }
            Err(error) if self.is_fenced(&error).await => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(run = %run, %error, "a step failed and will be tried again");
        if self.config.reap && matches!(error, Error::Hub(HubError::Locked { .. })) {
            // Another supervisor may have been killed while it kept an upload alive.
            let hub = self.hub.clone();
            self.tried("locks", self.blocking(move || hub.recover()).await.map(|_| ())).await?;
        }
        self.deny(run, Denial::of(&error));
        Ok(Stop::Undone)
    }

    /// Brings the files of those up to date whose history has grown.
    async fn export(&self, look: &Look) {
        let grown = look.lines.iter().filter(|(run, lines)| self.exporter.is_behind(run, **lines));
        let runs: BTreeSet<&RunId> = look.busy.iter().chain(grown.map(|(run, _)| run)).collect();
        for run in runs {
            if let Err(error) = self.exporter.sync(self.store.as_ref(), run).await {
                tracing::warn!(run = %run, %error, "exports could not be written");
            }
        }
    }

    /// Takes the steps of one run until it waits for something.
    async fn work_on(&self, run: &RunId) -> Result<Stop, Error> {
        for _ in 0..BURST {
            let Some((view, now)) = self.load(run).await? else { return Ok(Stop::Waits) };
            let Some(step) = next::next_step(&view, now) else {
                if view.run.state.is_terminal() {
                    let (hub, token, id) = (self.hub.clone(), self.token, view.run.id.clone());
                    self.blocking(move || hub.release(token, &id)).await?;
                }
                return Ok(Stop::Waits);
            };
            if matches!(step, next::Step::Grant(..)) {
                return Ok(Stop::Wants);
            }
            match self.perform(&view, step).await {
                Ok(true) => {}
                Ok(false) => return Ok(Stop::Waits),
                // Somebody else moved it in between: look again.
                Err(Error::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Stop::Undone)
    }
}

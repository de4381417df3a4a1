//! How leases end other than by a result: taken back from above, or given up because nobody works on them any more.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use autopack_shared::domain::budget::Ending;
use autopack_shared::domain::ids::{Fence, Scope};
use autopack_shared::domain::record::{Command, Lease, LeasePurpose, Phase, Principal, Run};
use autopack_shared::domain::state::{
    AttemptEvent, LeaseEvent, LeaseState, PhaseEvent, PhaseState, RunEvent, RunState,
};
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::budget;
use super::liveness::Sightings;
use super::locks::unlock;
use super::view::RunView;
use super::{Director, moves};
use crate::coordination::{Coordinator, Seated};
use crate::error::Error;
use crate::sandbox;
use crate::store::{Store, Tx};
use crate::workers::WorkerOrder;

impl Director {
    /// Takes back the leases of this project whose sessions are gone, once their work is. Whether any lease is left.
    pub(super) async fn reap(&self) -> Result<bool, Error> {
        let mut tx = self.store.read().await?;
        let leases = tx.active_leases(Some(&self.project)).await?;
        drop(tx);
        if leases.is_empty() {
            return Ok(false);
        }
        let seats = self.coordinator.seats().await?;
        let due = self.sightings().due(&leases, &seats, self.clock.monotonic());
        let mut lives = HashMap::new();
        for (worker, session) in due {
            let life = self.coordinator.session_life(&worker, &session).await?;
            lives.insert((worker, session), life);
        }
        // After the answers: what is left of a key counts from when it was told.
        let now = self.clock.monotonic();
        let over = self.sightings().look(&leases, &seats, &lives, now, self.config.worker_self);
        for lease in over {
            self.revoke(lease, LeaseEvent::Expire, "its worker is gone").await?;
        }
        self.quarantine(&leases, &seats).await?;
        Ok(true)
    }

    /// Takes back the leases of workers whose sandboxes hold less than they did, where the lease needs a sandbox.
    async fn quarantine(&self, leases: &[Lease], seats: &[Seated]) -> Result<(), Error> {
        for seat in seats.iter().filter(|seat| sandbox::is_quarantined(seat)) {
            let theirs = |lease: &&Lease| lease.worker == seat.worker && lease.session == seat.session;
            for lease in leases.iter().filter(theirs) {
                if self.is_confined(lease).await? {
                    let why = format!("sandbox_too_weak: its worker is quarantined: {}", seat.quarantine);
                    self.revoke(lease, LeaseEvent::Revoke, &why).await?;
                }
            }
        }
        Ok(())
    }

    /// Whether a lease needs a sandbox; also where nobody can say.
    async fn is_confined(&self, lease: &Lease) -> Result<bool, Error> {
        let mut tx = self.store.read().await?;
        let (run, phase) = (tx.run(&lease.run).await?, tx.phase(&lease.run, &lease.phase).await?);
        drop(tx);
        let (Some(run), Some(phase)) = (run, phase) else { return Ok(true) };
        let Ok(policy) = self.policy_of(&run).await else { return Ok(true) };
        Ok(sandbox::needed(&policy, &run, &phase, lease.purpose).is_some())
    }

    fn sightings(&self) -> MutexGuard<'_, Sightings> {
        self.sightings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a lease from above: bumps the run's epoch so that nothing of it is accepted any more, and gives the work
    /// back to the queue.
    pub(crate) async fn revoke(&self, lease: &Lease, event: LeaseEvent, reason: &str) -> Result<(), Error> {
        let mut tx = self.fenced(&[]).await?;
        let scope = Scope::Run(lease.run.clone());
        if tx.epoch(&scope).await? == Some(lease.epoch) {
            moves::bump(tx.as_mut(), &scope, "director").await?;
        }
        if !end(tx.as_mut(), lease, event, reason, &Principal::system()).await? {
            return Ok(());
        }
        tx.commit().await?;
        metrics().lease_lost(event.as_str());
        unlock(self.coordinator.as_ref(), lease).await;
        self.tell_revoked(lease, reason);
        Ok(())
    }

    /// Ends a run's lease because an operator says so, and breaks its locks, whoever holds them. Without an open lease
    /// only the locks are broken: what nobody knows of may stand in the way of the next grant. A lease that was granted
    /// since the operator looked is another one, and stays.
    pub(super) async fn break_lease(
        &self,
        view: &RunView,
        command: &Command,
        (reason, seen): (&str, Option<u64>),
    ) -> Result<(), Error> {
        let run = &view.run.id;
        let why = format!("broken by {}: {reason}", command.principal.id);
        let mut tx = self.fenced(&[]).await?;
        let open = tx.leases(run).await?.into_iter().find(|lease| !lease.state.is_terminal());
        let scope = Scope::Run(run.clone());
        if let (Some(lease), Some(seen)) = (&open, seen)
            && lease.epoch != seen
        {
            let refused = format!("refused: {}", granted_since(lease, seen));
            moves::finish(tx.as_mut(), command, &refused).await?;
            return Ok(tx.commit().await?);
        }
        let result = match &open {
            Some(lease) => {
                if tx.epoch(&scope).await? == Some(lease.epoch) {
                    moves::bump(tx.as_mut(), &scope, "director").await?;
                }
                end(tx.as_mut(), lease, LeaseEvent::Revoke, &why, &command.principal).await?;
                format!("done: {} lost it at epoch {}", lease.worker, lease.epoch)
            }
            None => "done: no lease was open, its locks are broken".to_owned(),
        };
        let newest = tx.epoch(&scope).await?.unwrap_or(0);
        moves::finish(tx.as_mut(), command, &result).await?;
        tx.commit().await?;
        self.break_locks(run, newest, &why).await;
        if let Some(lease) = &open {
            self.tell_revoked(lease, &why);
        }
        Ok(())
    }

    fn tell_revoked(&self, lease: &Lease, reason: &str) {
        let order = WorkerOrder::Revoke { run: lease.run.to_string(), epoch: lease.epoch, reason: reason.to_owned() };
        // A worker that is gone, or that another replica talks to, hears of it from its session.
        let _told = self.workers.send(&lease.worker, order);
    }
}

/// Why a lease is not the one that somebody saw.
pub(crate) fn granted_since(lease: &Lease, seen: u64) -> String {
    let was = if seen == 0 { "none was open".to_owned() } else { format!("it was at epoch {seen}") };
    format!("{} has the lease since, at epoch {}; when you looked, {was}", lease.worker, lease.epoch)
}

/// Gives up a lease on behalf of its worker, which no longer works on it.
pub(crate) async fn give_up(
    store: &dyn Store,
    coordinator: &dyn Coordinator,
    lease: &Lease,
    reason: &str,
) -> Result<(), Error> {
    let mut tx = store.tx(&[Fence { scope: Scope::Run(lease.run.clone()), epoch: lease.epoch }]).await?;
    tx.defer();
    if Box::pin(end(tx.as_mut(), lease, LeaseEvent::Expire, reason, &Principal::system())).await? {
        tx.commit().await?;
        metrics().lease_lost("given_up");
        unlock(coordinator, lease).await;
    }
    Ok(())
}

/// Ends a lease and gives its work back to the queue; false when it had ended already.
async fn end(
    tx: &mut dyn Tx,
    lease: &Lease,
    event: LeaseEvent,
    reason: &str,
    actor: &Principal,
) -> Result<bool, Error> {
    let system = Principal::system();
    let Some(mut lease) = tx.leases(&lease.run).await?.into_iter().find(|l| l.id == lease.id) else {
        return Ok(false);
    };
    if lease.state.is_terminal() {
        return Ok(false);
    }
    let granting = lease.state == LeaseState::Granting;
    let event = if granting { LeaseEvent::Revoke } else { event };
    // Before the lease ends: with it, the store settles what is still reserved.
    let ending = if granting { Ending::NotStarted } else { Ending::Lost };
    budget::settle(tx, &lease, ending).await?;
    moves::lease(tx, &mut lease, event, Some(reason.to_owned()), actor).await?;
    if let Some(mut phase) = tx.phase(&lease.run, &lease.phase).await? {
        if lease.purpose == LeasePurpose::Verify && phase.state == PhaseState::Verifying {
            lose_verify(tx, &mut phase, reason).await?;
        }
        if lease.purpose == LeasePurpose::Build
            && phase.state == PhaseState::Executing
            && phase.attempt == lease.attempt
        {
            moves::end_attempt(tx, &phase, AttemptEvent::Lose, Some(reason.to_owned())).await?;
            phase.lost_attempts += 1;
            moves::phase(tx, &mut phase, PhaseEvent::Retry, Some(reason.to_owned()), &system).await?;
        }
    }
    if let Some(mut run) = tx.run(&lease.run).await? {
        release_run(tx, &mut run, Some(reason.to_owned())).await?;
    }
    Ok(true)
}

/// A verification that came to no answer: not the change's fault, so it is tried again, but not for ever.
pub(crate) async fn lose_verify(tx: &mut dyn Tx, phase: &mut Phase, reason: &str) -> Result<(), Error> {
    phase.lost_attempts += 1;
    if phase.lost_attempts >= super::next::MAX_LOST {
        let reason = Some(format!("the gate came to no answer {} times: {reason}", super::next::MAX_LOST));
        return moves::phase(tx, phase, PhaseEvent::RollBack, reason, &Principal::system()).await;
    }
    moves::update_phase(tx, phase, reason).await
}

/// A run whose lease has ended: back to the queue, or to rest where a person asked for a pause or a budget is used up.
pub(crate) async fn release_run(tx: &mut dyn Tx, run: &mut Run, reason: Option<String>) -> Result<(), Error> {
    let system = Principal::system();
    let rests = run.pause_requested || run.budget.hit.is_some();
    if rests && matches!(run.state, RunState::Leased | RunState::Running) {
        if run.state == RunState::Leased {
            moves::run(tx, run, RunEvent::Start, None, &system).await?;
        }
        let hit = run.budget.hit.as_ref().map(ToString::to_string);
        let why = hit.unwrap_or_else(|| "paused when its attempt ended".to_owned());
        return moves::run(tx, run, RunEvent::Pause, Some(why), &system).await;
    }
    let event = if reason.is_none() && run.state.next(RunEvent::Requeue).is_ok() {
        RunEvent::Requeue
    } else {
        RunEvent::LeaseLost
    };
    if run.state.next(event).is_err() {
        return Ok(());
    }
    moves::run(tx, run, event, reason, &system).await
}

//! The locks of leases: evidence of who works, while the store says who may. A lease can end while the service that
//! keeps the locks is away; what it still holds then is given back later, for its session may live on.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::record::Lease;

use super::Director;
use crate::coordination::{CoordinationError, Coordinator, LockName, LockOwner, LockWish};
use crate::error::Error;

/// How often locks are looked at for leases that have ended.
pub(super) const SWEEP: Duration = Duration::from_secs(10);

/// Both locks of a run.
pub(crate) fn names(run: &RunId) -> [LockName; 2] {
    [LockName::Run(run.clone()), LockName::Workspace(run.clone())]
}

/// Whose locks a lease has.
fn owner(lease: &Lease) -> LockOwner {
    LockOwner { worker: lease.worker.clone(), session: lease.session.clone(), epoch: lease.epoch }
}

/// Gives back the locks of a lease that has ended in the store. A service that is away must not undo that end: the
/// director sweeps later.
pub(crate) async fn unlock(coordinator: &dyn Coordinator, lease: &Lease) {
    if let Err(error) = coordinator.unlock(&names(&lease.run), &owner(lease)).await {
        tracing::warn!(run = %lease.run, epoch = lease.epoch, %error, "locks of an ended lease are given back later");
    }
}

impl Director {
    /// Takes the locks of many leases, each by itself all or none; an answer for each. What ended leases of its run still
    /// hold is no obstacle.
    pub(super) async fn lock_many(&self, leases: &[&Lease]) -> Vec<Result<(), Error>> {
        let wish = |lease: &&Lease| LockWish { names: names(&lease.run).to_vec(), owner: owner(lease) };
        let wishes: Vec<LockWish> = leases.iter().map(wish).collect();
        let mut done = Vec::with_capacity(leases.len());
        for (wish, (lease, locked)) in wishes.iter().zip(leases.iter().zip(self.coordinator.lock_all(&wishes).await)) {
            done.push(match locked {
                Err(held @ CoordinationError::Held { .. }) => self.lock_after(lease, wish, held).await,
                locked => locked.map_err(Error::from),
            });
        }
        done
    }

    async fn lock_after(&self, lease: &Lease, wish: &LockWish, held: CoordinationError) -> Result<(), Error> {
        if !self.give_back(&lease.run).await? {
            return Err(held.into());
        }
        Ok(self.coordinator.lock(&wish.names, &wish.owner).await?)
    }

    /// Breaks the locks of a run that are not of a newer epoch, whoever holds them. The lease has ended in the store, so
    /// a service that is away only leaves them to the next grant, or to the sweep.
    pub(super) async fn break_locks(&self, run: &RunId, newest: u64, why: &str) {
        for name in names(run) {
            let broken = match self.coordinator.holder(&name).await {
                Ok(Some(holder)) if holder.epoch <= newest => self.coordinator.break_lock(&name, why).await.map(|_| ()),
                Ok(Some(_) | None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = broken {
                tracing::warn!(lock = %name, %error, "a lock of a broken lease is given back later");
            }
        }
    }

    /// Gives back what ended leases of this project still hold, every now and then.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        let last = *self.swept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !self.config.reap || last.is_some_and(|last| last.elapsed() < SWEEP) {
            return Ok(());
        }
        let found = self.coordinator.lock_names().await?;
        let runs: BTreeSet<RunId> =
            found.into_iter().map(|(LockName::Run(run) | LockName::Workspace(run))| run).collect();
        // Of all that is locked, what no lease of ours holds: mostly nothing, in one question for all.
        let mut tx = self.store.read().await?;
        let held: BTreeSet<RunId> = tx.active_leases(None).await?.into_iter().map(|lease| lease.run).collect();
        let idle: Vec<RunId> = runs.into_iter().filter(|run| !held.contains(run)).collect();
        let idle = tx.runs_of(&idle).await?;
        drop(tx);
        for run in idle.into_iter().filter(|run| run.project == self.project) {
            self.give_back(&run.id).await?;
        }
        *self.swept.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// Gives back the locks of a run that ended leases still hold; whether there were any.
    async fn give_back(&self, run: &RunId) -> Result<bool, Error> {
        let mut given = false;
        for name in names(run) {
            let Some(holder) = self.coordinator.holder(&name).await? else { continue };
            let leases = self.store.read().await?.leases(run).await?;
            // Of this store and at its end: whoever else holds it has it for a reason.
            if leases.iter().any(|lease| lease.state.is_terminal() && owner(lease) == holder) {
                self.coordinator.unlock(std::slice::from_ref(&name), &holder).await?;
                tracing::info!(lock = %name, epoch = holder.epoch, "gave back a lock of a lease that had ended");
                given = true;
            }
        }
        Ok(given)
    }
}

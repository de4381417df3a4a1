//! The keeper: ends the logins of leases that have ended, however they ended and whoever ended them, and removes the
//! data of runs that are over. It compares what the server has with what the store says, so that a director that dies
//! in between leaves nothing to remember.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::RunId;

use super::{PATIENCE, RunDataError, RunDataResult, RunDatabases};
use crate::store::{Store, StoreError};

/// The pause between two looks, and how long one may be put off.
const PAUSE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_secs(10);
/// How often data is looked through for what may go.
const COLLECT: Duration = Duration::from_secs(60);

/// Why a look was cut short; the next one begins anew.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Data(#[from] RunDataError),
    #[error("the run-database server did not answer in time")]
    Late,
}

/// Keeps the server for runs in step with the store.
pub struct Keeper {
    store: Arc<dyn Store>,
    databases: Arc<dyn RunDatabases>,
    retention: Duration,
}

impl Keeper {
    /// A keeper that removes what ended at least `retention` ago.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, databases: Arc<dyn RunDatabases>, retention: Duration) -> Self {
        Self { store, databases, retention }
    }

    /// Keeps at it until stopped. Removing much takes minutes, and no login waits for that.
    pub async fn serve(&self, stop: &CancellationToken) {
        tokio::join!(self.serve_logins(stop), self.serve_data(stop));
    }

    async fn serve_data(&self, stop: &CancellationToken) {
        loop {
            let collected = tokio::select! {
                () = stop.cancelled() => return,
                collected = self.collect() => collected,
            };
            match collected {
                Ok(0) => {}
                Ok(gone) => tracing::info!(gone, "removed the data of runs that are over"),
                Err(error) => tracing::warn!(%error, "data of ended runs could not be removed"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(COLLECT) => {}
            }
        }
    }

    async fn serve_logins(&self, stop: &CancellationToken) {
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            for done in [self.retire().await, self.sweep().await] {
                if let Err(error) = done {
                    tracing::warn!(%error, "logins of ended leases could not be ended and are tried again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Ends the stints whose lease has ended.
    async fn retire(&self) -> Result<(), KeeperError> {
        // The server first: a lease is in the store before its login is made, and once ended it stays ended. So what
        // has a login and no lease afterwards is over, however long this process sleeps in between.
        let open = timely(self.databases.open()).await?;
        if open.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.read().await?;
        let incarnation = tx.incarnation().await?;
        let leases = tx.active_leases(None).await?;
        drop(tx);
        for (run, token) in open {
            let works = |l: &autopack_shared::domain::record::Lease| l.run == run && l.epoch == token.epoch;
            if token.incarnation >= incarnation && (token.incarnation > incarnation || leases.iter().any(works)) {
                continue;
            }
            // One that cannot be ended now holds up no other.
            match timely(self.databases.retire(&run, token)).await {
                Ok(()) => tracing::debug!(run = %run, epoch = token.epoch, "its login is off"),
                Err(error) => tracing::warn!(run = %run, epoch = token.epoch, %error, "its login could not be ended"),
            }
        }
        Ok(())
    }

    /// Closes sessions that outlived their login: their end was cut off, or they were on their way in.
    async fn sweep(&self) -> Result<(), KeeperError> {
        let strays = timely(self.databases.sweep()).await?;
        if strays > 0 {
            tracing::info!(strays, "closed sessions of logins that are off");
        }
        Ok(())
    }

    /// Removes the data of runs that ended long enough ago.
    async fn collect(&self) -> Result<usize, KeeperError> {
        let idle = timely(self.databases.idle(self.retention)).await?;
        let mut over: Vec<RunId> = Vec::new();
        for run in idle {
            // A run that the store does not know is left alone: the store may be an older copy.
            if self.store.read().await?.run(&run).await?.is_some_and(|run| run.state.is_terminal()) {
                over.push(run);
            }
        }
        Ok(self.databases.collect(&over).await?)
    }
}

async fn timely<T>(answer: impl Future<Output = RunDataResult<T>>) -> Result<T, KeeperError> {
    Ok(tokio::time::timeout(PATIENCE, answer).await.map_err(|_| KeeperError::Late)??)
}

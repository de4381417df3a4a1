//! Taking over from a director that is gone: fences first, in the store and then in the hub, then what it left.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use autopack_shared::domain::ids::{FencingToken, Scope};
use autopack_shared::domain::state::{LeaseEvent, LeaseState};

use crate::error::Error;
use crate::hub::HubError;
use crate::store::RunFilter;

use super::{Director, DirectorParts, moves, run_blocking};

impl Director {
    /// Takes over: bumps the store's fence, then the hub's, then takes back what an earlier director left. The order
    /// is fixed (`coordination.md` 3.6).
    ///
    /// # Errors
    /// When store, hub or coordination refuse.
    pub async fn take_over(parts: DirectorParts, replica: &str) -> Result<Self, Error> {
        parts.coordinator.campaign(replica).await?;
        let hub = parts.hub.clone();
        let found = run_blocking(move || hub.fence()).await?;
        let mut tx = parts.store.tx(&[]).await?;
        let mut incarnation = tx.incarnation().await?;
        if let Some(found) = found
            && tx.epoch(&Scope::Director).await?.is_none()
        {
            // A new store over a hub that had another: everything of the old one is older than this.
            incarnation = found.incarnation.saturating_add(1);
            tx.set_incarnation(incarnation).await?;
        }
        let epoch = moves::bump(tx.as_mut(), &Scope::Director, replica).await?;
        tx.commit().await?;
        let token = FencingToken { incarnation, epoch };
        let hub = parts.hub.clone();
        // The repository's flock is held, so locks in our places are of a life that ended; they are cleared first, or
        // a stale one would keep the fence from rising.
        let cleared = run_blocking(move || {
            let cleared = hub.recover()?;
            hub.bump_fence(token)?;
            Ok::<_, HubError>(cleared)
        })
        .await?;
        for lock in cleared {
            tracing::info!(lock = %lock.display(), "removed a ref lock that an earlier life left");
        }
        let director = Self {
            project: parts.project,
            store: parts.store,
            hub: parts.hub,
            coordinator: parts.coordinator,
            workers: parts.workers,
            clock: parts.clock,
            ids: parts.ids,
            book: parts.book,
            exporter: parts.exporter,
            notifier: parts.notifier,
            reminders: Mutex::new(BTreeSet::new()),
            config: parts.config,
            epoch,
            token,
            denials: Mutex::new(HashMap::new()),
        };
        director.adopt().await?;
        Ok(director)
    }

    /// Takes back the leases of sessions that did not survive, before anything is granted.
    async fn adopt(&self) -> Result<(), Error> {
        let mut tx = self.store.read().await?;
        let leases = tx.active_leases(None).await?;
        drop(tx);
        for lease in leases {
            if !self.workers.is_connected(&lease.worker, &lease.session) || lease.state == LeaseState::Granting {
                self.revoke(&lease, LeaseEvent::Expire, "the supervisor was started anew").await?;
            }
        }
        self.remember_pending().await?;
        // What a crash cut off is brought up to date.
        let mut tx = self.store.read().await?;
        let newest =
            tx.runs(&RunFilter { project: Some(self.project.clone()), states: Vec::new(), limit: 100 }).await?;
        drop(tx);
        for run in newest {
            if run.state.is_terminal() {
                // An end that was cut off before it let go of what it kept alive.
                let (hub, token, id) = (self.hub.clone(), self.token, run.id.clone());
                self.blocking(move || hub.release(token, &id)).await?;
            }
            if let Err(error) = self.exporter.sync(self.store.as_ref(), &run.id).await {
                tracing::warn!(run = %run.id, %error, "exports could not be written");
            }
        }
        Ok(())
    }
}

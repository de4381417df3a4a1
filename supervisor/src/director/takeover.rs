//! Taking over from a director that is gone: fences first, in the store and then in the hub, then what it left.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use autopack_shared::domain::ids::{FencingToken, Scope};
use autopack_shared::domain::state::{LeaseEvent, LeaseState};

use crate::error::Error;
use crate::hub::HubError;
use crate::store::{RunFilter, Store, StoreError, Tx};

use super::{Director, DirectorParts, moves, run_blocking};

/// The directorship of a store: every director before this one is fenced off.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    token: FencingToken,
}

/// Where a replica is at home: what it read of the store when it came.
#[derive(Debug, Clone)]
pub struct Home {
    /// The name under which its supervisors meet.
    pub name: String,
    /// The store's incarnation.
    pub incarnation: u32,
}

impl Home {
    /// Refuses a store whose supervisors meet elsewhere by now, or that was restored under this one's feet.
    async fn check(&self, tx: &mut dyn Tx, incarnation: u32) -> Result<(), Error> {
        if let Some(known) = tx.coordination().await?.filter(|known| *known != self.name) {
            return Err(StoreError::Elsewhere { known, asked: self.name.clone() }.into());
        }
        if incarnation < self.incarnation {
            return Err(StoreError::Rewound { found: incarnation, ours: self.incarnation }.into());
        }
        Ok(())
    }
}

impl Claim {
    /// Raises the store's fence for a replica that won the election. `found` is the highest token of its hubs: a new
    /// store over a hub that had another takes the next incarnation, so that everything of the old one is older.
    ///
    /// # Errors
    /// Those of the store; [`StoreError::Elsewhere`] where `home` is not the store's any more.
    pub async fn raise(
        store: &dyn Store,
        replica: &str,
        found: Option<FencingToken>,
        home: Option<&Home>,
    ) -> Result<Self, Error> {
        // Nobody directs who would write what others no longer understand.
        store.fits().await?;
        let mut tx = store.tx(&[]).await?;
        let mut incarnation = tx.incarnation().await?;
        if let Some(home) = home {
            home.check(tx.as_mut(), incarnation).await?;
        }
        if let Some(found) = found
            && tx.epoch(&Scope::Director).await?.is_none()
            && found.incarnation >= incarnation
        {
            incarnation = found.incarnation.saturating_add(1);
            tx.set_incarnation(incarnation).await?;
        }
        let epoch = moves::bump(tx.as_mut(), &Scope::Director, replica).await?;
        tx.commit().await?;
        Ok(Self { token: FencingToken { incarnation, epoch } })
    }
}

impl Director {
    /// Takes over a project: after the store's fence the hub's, then what an earlier director left. The order is
    /// fixed (`coordination.md` 3.6).
    ///
    /// # Errors
    /// When store, hub or coordination refuse.
    pub async fn take_over(parts: DirectorParts, claim: Claim) -> Result<Self, Error> {
        let token = claim.token;
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
            run_data: parts.run_data,
            exporter: parts.exporter,
            notifier: parts.notifier,
            reminders: Mutex::new(BTreeSet::new()),
            config: parts.config,
            epoch: token.epoch,
            token,
            denials: Mutex::new(HashMap::new()),
            swept: Mutex::new(None),
            sightings: Mutex::default(),
            pauses: Mutex::default(),
            data_rests: Mutex::new(None),
        };
        director.adopt().await?;
        Ok(director)
    }

    /// Takes back the leases of sessions that did not survive, before anything is granted. Where a worker outlives its
    /// session, that takes its time: see `liveness.rs`.
    async fn adopt(&self) -> Result<(), Error> {
        let mut tx = self.store.read().await?;
        let leases = tx.active_leases(Some(&self.project)).await?;
        drop(tx);
        for lease in leases {
            let alive = self.config.reap || self.coordinator.session_alive(&lease.worker, &lease.session).await?;
            if !alive || lease.state == LeaseState::Granting {
                self.revoke(&lease, LeaseEvent::Expire, "the supervisor was started anew").await?;
            }
        }
        self.settle_orphans().await?;
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

//! Coordination by etcd: sessions, locks and the directorship as keys on leases (`coordination.md` 3.2). Claims are
//! transactions that compare what they rest on; decisions rest on linearizable reads. etcd's own lock RPC is not used:
//! it has answered "held" without looking at the lease.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::watch;

use autopack_shared::domain::ids::WorkerId;
use autopack_shared::runtime::clock::Clock;

use self::config::{EtcdConfig, Replica, StoreIdentity};
use self::election::Election;
use self::keys::Keys;
use self::link::Link;
use self::meta::Incarnation;
pub use self::meta::Standing;
use super::timers::Timers;
use super::{
    CoordinationError, Coordinator, Directorship, Life, LockEntry, LockName, LockOwner, LockWish, Renewal, SeatEntry,
    Seated, SessionEntry, SessionFacts,
};

mod batch;
pub mod config;
mod election;
pub mod floor;
mod keys;
mod link;
mod locks;
mod meta;
mod sessions;
mod watcher;

/// One supervisor's view of a cluster.
pub struct EtcdCoordinator {
    link: Arc<Link>,
    keys: Keys,
    incarnation: Incarnation,
    clock: Arc<dyn Clock>,
    replica: Replica,
    timers: Timers,
    election: Arc<Election>,
}

impl std::fmt::Debug for EtcdCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdCoordinator").field("endpoints", &self.link.endpoints()).finish_non_exhaustive()
    }
}

impl EtcdCoordinator {
    /// Connects, and looks whether this etcd is new enough and ours. Claims nothing yet.
    ///
    /// # Errors
    /// [`CoordinationError::Setting`] for a configuration that cannot work, [`CoordinationError::Unavailable`] when
    /// nobody answers, [`CoordinationError::TooOld`], and [`CoordinationError::Foreign`] when the prefix belongs to
    /// another cluster or another life of this one.
    pub async fn connect(config: &EtcdConfig, clock: Arc<dyn Clock>) -> Result<Self, CoordinationError> {
        config.checked()?;
        let link = Arc::new(Link::connect(config).await?);
        let keys = Keys::of(&config.cluster_id);
        let incarnation = Incarnation::claim(&link, &keys, &config.store).await?;
        let (replica, timers) = (config.replica.clone(), config.timers.clone());
        let election = Arc::new(Election {
            link: link.clone(),
            keys: keys.clone(),
            incarnation: incarnation.clone(),
            clock: clock.clone(),
            replica: replica.clone(),
            timers: timers.clone(),
            known: watch::Sender::new(Directorship::Unknown),
            turn: tokio::sync::Mutex::default(),
            seat: Mutex::default(),
            tasks: Mutex::default(),
        });
        Ok(Self { link, keys, incarnation, clock, replica, timers, election })
    }
}

/// An etcd as whoever raises the incarnation sees it.
pub struct Recovery {
    link: Link,
    keys: Keys,
    store: StoreIdentity,
}

impl Recovery {
    /// Connects; claims nothing.
    ///
    /// # Errors
    /// As [`EtcdCoordinator::connect`].
    pub async fn connect(config: &EtcdConfig) -> Result<Self, CoordinationError> {
        config.checked()?;
        let link = Link::connect(config).await?;
        Ok(Self { link, keys: Keys::of(&config.cluster_id), store: config.store.clone() })
    }

    /// What stands there.
    ///
    /// # Errors
    /// When nobody answers, or the prefix belongs to another cluster.
    pub async fn standing(&self) -> Result<Standing, CoordinationError> {
        Standing::read(&self.link, &self.keys, &self.store).await
    }

    /// Writes the store's new incarnation; false where something moved since, or a director is there.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn raise(&self, from: &Standing, incarnation: u32) -> Result<bool, CoordinationError> {
        let store = StoreIdentity { incarnation, ..self.store.clone() };
        from.raise(&self.link, &self.keys, &store).await
    }
}

impl Drop for EtcdCoordinator {
    fn drop(&mut self) {
        // The tasks hold the election, so they would go on without us.
        self.election.abandon();
    }
}

#[async_trait]
impl Coordinator for EtcdCoordinator {
    async fn campaign(&self, replica: &str) -> Result<(), CoordinationError> {
        self.election.campaign(replica).await
    }

    async fn is_director(&self) -> Result<bool, CoordinationError> {
        self.election.is_director().await
    }

    fn directorship(&self) -> watch::Receiver<Directorship> {
        self.election.known.subscribe()
    }

    async fn director(&self) -> Result<Option<SeatEntry>, CoordinationError> {
        self.seat().await
    }

    async fn resign(&self) -> Result<(), CoordinationError> {
        self.election.resign().await
    }

    async fn open_session(
        &self,
        worker: &WorkerId,
        session: &str,
        facts: &SessionFacts,
    ) -> Result<(), CoordinationError> {
        self.open(worker, session, facts).await
    }

    async fn renew_session(&self, worker: &WorkerId, session: &str) -> Result<Renewal, CoordinationError> {
        self.renew(worker, session).await
    }

    async fn close_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError> {
        self.close(worker, session).await
    }

    async fn session_alive(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError> {
        self.alive(worker, session).await
    }

    async fn drain(&self, worker: &WorkerId, session: &str, drain: bool) -> Result<bool, CoordinationError> {
        self.mark(worker, session, drain).await
    }

    async fn sessions(&self) -> Result<Vec<SessionEntry>, CoordinationError> {
        self.list_sessions().await
    }

    async fn seats(&self) -> Result<Vec<Seated>, CoordinationError> {
        self.list_seats().await
    }

    async fn session_life(&self, worker: &WorkerId, session: &str) -> Result<Option<Life>, CoordinationError> {
        self.life_of(worker, session).await
    }

    async fn lock_all(&self, wishes: &[LockWish]) -> Vec<Result<(), CoordinationError>> {
        self.take_all(wishes).await
    }

    async fn lock_names(&self) -> Result<Vec<LockName>, CoordinationError> {
        self.list_lock_names().await
    }

    async fn lock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        self.take(names, owner).await
    }

    async fn unlock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        self.give_back(names, owner).await
    }

    async fn holder(&self, name: &LockName) -> Result<Option<LockOwner>, CoordinationError> {
        Ok(self.lock_of(name).await?.map(|(_, value)| value.owner()))
    }

    async fn locks(&self) -> Result<Vec<LockEntry>, CoordinationError> {
        self.list_locks().await
    }

    async fn break_lock(&self, name: &LockName, reason: &str) -> Result<Option<LockOwner>, CoordinationError> {
        self.take_away(name, reason).await
    }
}

#[cfg(test)]
mod tests;

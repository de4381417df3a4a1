//! The workers that are connected, as the director sees them: who has room, and where a grant goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use autopack_shared::domain::ids::{Oid, WorkerId};
use autopack_shared::domain::project::BuilderConfig;
use autopack_shared::domain::record::{Lease, Phase};
use autopack_shared::domain::run_file::GateCommand;

/// Messages that may wait for one worker.
const INBOX: usize = 64;

/// What a worker is told.
#[derive(Debug, Clone)]
pub enum WorkerOrder {
    /// Work.
    Grant(Box<GrantOrder>),
    /// Stop working on a run.
    Revoke {
        /// The run.
        run: String,
        /// Its epoch.
        epoch: u64,
        /// Why.
        reason: String,
    },
    /// How its patch was judged.
    Verdict {
        /// The run.
        run: String,
        /// The phase.
        phase: String,
        /// The attempt.
        attempt: u32,
        /// The verdict word.
        verdict: String,
        /// The request it opened.
        request: Option<String>,
    },
}

/// A grant with all that a worker needs.
#[derive(Debug, Clone)]
pub struct GrantOrder {
    /// The lease.
    pub lease: Lease,
    /// The phase.
    pub phase: Phase,
    /// The commit to start from.
    pub base: Oid,
    /// The builder entry of the fork commit that the phase names.
    pub builder: Option<BuilderConfig>,
    /// Gate commands, for verify.
    pub gate: Vec<GateCommand>,
    /// Builders may run without a sandbox.
    pub insecure_no_sandbox: bool,
}

/// One connection of a worker. A worker that comes back has the session of before and another one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

#[derive(Debug)]
struct Connected {
    session: String,
    generation: Generation,
    slots: u32,
    orders: mpsc::Sender<WorkerOrder>,
}

/// The registry of connected workers.
#[derive(Debug)]
pub struct Workers {
    // Never held across an await.
    connected: Mutex<BTreeMap<WorkerId, Connected>>,
    generations: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Default for Workers {
    fn default() -> Self {
        Self { connected: Mutex::new(BTreeMap::new()), generations: AtomicU64::new(0), changed: watch::Sender::new(0) }
    }
}

impl Workers {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a worker's connection, in place of an earlier one, and returns where its orders arrive.
    pub fn connect(&self, worker: WorkerId, session: String, slots: u32) -> (Generation, mpsc::Receiver<WorkerOrder>) {
        let (orders, inbox) = mpsc::channel(INBOX);
        let generation = Generation(self.generations.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(worker, Connected { session, generation, slots, orders });
        self.changed.send_modify(|n| *n += 1);
        (generation, inbox)
    }

    /// Removes a worker's connection. False where it came back meanwhile: then all that is left is the new one's.
    #[must_use]
    pub fn disconnect(&self, worker: &WorkerId, generation: Generation) -> bool {
        let mut connected = self.lock();
        let current = connected.get(worker).is_some_and(|c| c.generation == generation);
        if current {
            connected.remove(worker);
        }
        drop(connected);
        self.changed.send_modify(|n| *n += 1);
        current
    }

    /// A worker with room, given the leases that are active: the one with the most free slots.
    #[must_use]
    pub fn with_room(&self, active: &[Lease]) -> Option<(WorkerId, String)> {
        let used = |worker: &WorkerId| active.iter().filter(|l| l.worker == *worker).count();
        self.lock()
            .iter()
            .map(|(id, c)| (i64::from(c.slots) - i64::try_from(used(id)).unwrap_or(i64::MAX), id, c))
            .filter(|(free, _, _)| *free > 0)
            .max_by_key(|(free, _, _)| *free)
            .map(|(_, id, c)| (id.clone(), c.session.clone()))
    }

    /// Whether a session is connected.
    #[must_use]
    pub fn is_connected(&self, worker: &WorkerId, session: &str) -> bool {
        self.lock().get(worker).is_some_and(|c| c.session == session)
    }

    /// How many are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Sends an order; false when the worker is gone or does not keep up.
    #[must_use]
    pub fn send(&self, worker: &WorkerId, order: WorkerOrder) -> bool {
        self.lock().get(worker).is_some_and(|c| c.orders.try_send(order).is_ok())
    }

    /// Rises whenever a worker comes or goes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_connection_does_not_take_the_new_one_with_it() {
        let (workers, worker) = (Workers::default(), WorkerId::new("w").unwrap());
        let (old, mut old_orders) = workers.connect(worker.clone(), "s".to_owned(), 1);
        let (new, mut orders) = workers.connect(worker.clone(), "s".to_owned(), 1);
        assert!(old_orders.try_recv().is_err() && old_orders.is_closed(), "the old one is told by its end");
        assert!(!workers.disconnect(&worker, old));
        assert!(workers.is_connected(&worker, "s"));
        let order = WorkerOrder::Revoke { run: "r".to_owned(), epoch: 1, reason: String::new() };
        assert!(workers.send(&worker, order) && orders.try_recv().is_ok());
        assert!(workers.disconnect(&worker, new));
        assert_eq!(workers.count(), 0);
    }
}

//! The workers that are connected to this process, and where what they are told at once goes. Grants are not told:
//! every session reads its own from the store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use autopack_shared::domain::ids::WorkerId;

/// Messages that may wait for one worker.
const INBOX: usize = 64;

/// What a worker is told.
#[derive(Debug, Clone)]
pub enum WorkerOrder {
    /// Stop working on a run.
    Revoke {
        /// The run.
        run: String,
        /// Its epoch.
        epoch: u64,
        /// Why.
        reason: String,
    },
    /// Take no more work, and leave when there is none left; or go on as before.
    Drain {
        /// Go on.
        undo: bool,
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

/// One connection of a worker. A worker that comes back has the session of before and another one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

#[derive(Debug)]
struct Connected {
    generation: Generation,
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
    pub fn connect(&self, worker: WorkerId) -> (Generation, mpsc::Receiver<WorkerOrder>) {
        let (orders, inbox) = mpsc::channel(INBOX);
        let generation = Generation(self.generations.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(worker, Connected { generation, orders });
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

    /// Sends an order; false when the worker is gone or does not keep up.
    #[must_use]
    pub fn send(&self, worker: &WorkerId, order: WorkerOrder) -> bool {
        self.lock().get(worker).is_some_and(|c| c.orders.try_send(order).is_ok())
    }

    /// Something about workers changed: whoever directs here looks again.
    pub fn nudge(&self) {
        self.changed.send_modify(|n| *n += 1);
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
        let (old, mut old_orders) = workers.connect(worker.clone());
        let (new, mut orders) = workers.connect(worker.clone());
        assert!(old_orders.try_recv().is_err() && old_orders.is_closed(), "the old one is told by its end");
        assert!(!workers.disconnect(&worker, old));
        let order = WorkerOrder::Revoke { run: "r".to_owned(), epoch: 1, reason: String::new() };
        assert!(workers.send(&worker, order.clone()) && orders.try_recv().is_ok());
        assert!(workers.disconnect(&worker, new));
        assert!(!workers.send(&worker, order));
    }
}

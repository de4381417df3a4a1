//! The workers that are connected to this process, and where what they are told at once goes. Grants are not told:
//! every session reads its own from the store.

use std::collections::BTreeMap;
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

#[derive(Debug)]
struct Connected {
    session: String,
    orders: mpsc::Sender<WorkerOrder>,
}

/// The registry of connected workers.
#[derive(Debug)]
pub struct Workers {
    // Never held across an await.
    connected: Mutex<BTreeMap<WorkerId, Connected>>,
    changed: watch::Sender<u64>,
}

impl Default for Workers {
    fn default() -> Self {
        Self { connected: Mutex::new(BTreeMap::new()), changed: watch::Sender::new(0) }
    }
}

impl Workers {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerId, Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a worker and returns where its orders arrive.
    pub fn connect(&self, worker: WorkerId, session: String) -> mpsc::Receiver<WorkerOrder> {
        let (orders, inbox) = mpsc::channel(INBOX);
        self.lock().insert(worker, Connected { session, orders });
        self.changed.send_modify(|n| *n += 1);
        inbox
    }

    /// Removes a worker's session.
    pub fn disconnect(&self, worker: &WorkerId, session: &str) {
        let mut connected = self.lock();
        if connected.get(worker).is_some_and(|c| c.session == session) {
            connected.remove(worker);
        }
        drop(connected);
        self.changed.send_modify(|n| *n += 1);
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

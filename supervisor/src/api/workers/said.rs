//! What a worker says: what has to be stored, and its heartbeat.

use autopack_shared::wire::pb;

/// What a worker said that has to be stored.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// Something happened.
    Event(pb::RunEvent),
    /// An attempt ended.
    Result(Box<pb::AttemptResult>),
    /// What came of a scan. Nobody acknowledges it: who misses it asks again.
    Scan(pb::ScanResult),
    /// It has stopped everything.
    Goodbye,
}

/// The last heartbeat.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    count: u64,
    held: Vec<pb::HeldLease>,
}

impl Pulse {
    /// How many there were.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// What the worker works on.
    pub(super) fn held(&self) -> &[pb::HeldLease] {
        &self.held
    }

    /// Another one.
    pub(super) fn beat(&mut self, held: Vec<pb::HeldLease>) {
        self.count += 1;
        self.held = held;
    }
}

impl Said {
    /// Its run and epoch.
    pub(super) fn place(&self) -> Option<(&str, u64)> {
        match self {
            Self::Event(event) => Some((&event.run_id, event.epoch)),
            Self::Result(result) => Some((&result.run_id, result.epoch)),
            Self::Scan(_) | Self::Goodbye => None,
        }
    }
}

//! Time, ids and chance are passed in, never taken: tests and the simulation put others in their place.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::domain::ids::Timestamp;

/// Wall and monotonic time.
pub trait Clock: Send + Sync {
    /// Wall time; may jump. Only for display and for the store's own clock.
    fn wall(&self) -> Timestamp;
    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> Timestamp {
        jiff::Timestamp::now().into()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Fresh ids.
pub trait IdSource: Send + Sync {
    /// A fresh id: lower-case letters and digits, unique, later ones sort after earlier ones.
    fn fresh(&self, prefix: &str) -> String;
    /// Eight hex digits for names that people type.
    fn short(&self) -> String;
}

/// Time-ordered random ids (UUID v7).
#[derive(Debug, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn fresh(&self, prefix: &str) -> String {
        format!("{prefix}-{}", uuid::Uuid::now_v7().simple())
    }

    fn short(&self) -> String {
        format!("{:08x}", rand::random::<u32>())
    }
}

/// A hand-moved clock that also makes counted ids; for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    millis: AtomicU64,
    count: AtomicU64,
}

impl ManualClock {
    /// Starts at a wall time in milliseconds since 1970.
    #[must_use]
    pub const fn at(millis: u64) -> Self {
        Self { millis: AtomicU64::new(millis), count: AtomicU64::new(0) }
    }

    /// Moves time on.
    pub fn advance(&self, by: Duration) {
        self.millis.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(i64::try_from(self.millis.load(Ordering::SeqCst)).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
}

impl IdSource for ManualClock {
    fn fresh(&self, prefix: &str) -> String {
        format!("{prefix}-{:06}", self.count.fetch_add(1, Ordering::SeqCst))
    }

    fn short(&self) -> String {
        format!("{:08x}", self.count.fetch_add(1, Ordering::SeqCst))
    }
}

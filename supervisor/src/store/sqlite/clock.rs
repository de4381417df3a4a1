//! The store's clock: the wall, but never back, neither within a process nor over a restart (`coordination.md` 3.12).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use autopack_shared::domain::ids::Timestamp;
use autopack_shared::runtime::clock::Clock;

/// How far the wall may run ahead of monotonic time before it counts as a jump.
const JUMP_MILLIS: i64 = 60_000;

/// A clock that never goes back.
pub(super) struct StoreClock {
    wall: Arc<dyn Clock>,
    // Never held across an await.
    seen: Mutex<Seen>,
}

struct Seen {
    last: Timestamp,
    wall: Timestamp,
    monotonic: Duration,
}

impl StoreClock {
    /// Starts at the instant the store has last persisted, or at the wall if that is later.
    pub(super) fn new(wall: Arc<dyn Clock>, persisted: Timestamp) -> Self {
        let seen = Seen { last: persisted, wall: wall.wall(), monotonic: wall.monotonic() };
        Self { wall, seen: Mutex::new(seen) }
    }

    /// Now, and by how many milliseconds the wall has jumped ahead since the last look, if it has.
    fn look(&self) -> (Timestamp, Option<i64>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (wall, monotonic) = (self.wall.wall(), self.wall.monotonic());
        let passed = i64::try_from(monotonic.saturating_sub(seen.monotonic).as_millis()).unwrap_or(i64::MAX);
        let ahead = wall.millis_since(seen.wall).saturating_sub(passed);
        *seen = Seen { last: seen.last.max(wall), wall, monotonic };
        (seen.last, (ahead > JUMP_MILLIS).then_some(ahead))
    }

    /// Now.
    pub(super) fn now(&self) -> Timestamp {
        let (now, jump) = self.look();
        if let Some(millis) = jump {
            tracing::warn!(millis, "CLOCK_JUMP: the wall clock jumped ahead; requests may run out early");
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Hands {
        wall: AtomicI64,
        monotonic: AtomicI64,
    }

    impl Hands {
        fn set(&self, wall: i64, monotonic: i64) {
            self.wall.store(wall, Ordering::SeqCst);
            self.monotonic.store(monotonic, Ordering::SeqCst);
        }
    }

    impl Clock for Hands {
        fn wall(&self) -> Timestamp {
            Timestamp::from_millis(self.wall.load(Ordering::SeqCst))
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.monotonic.load(Ordering::SeqCst).cast_unsigned())
        }
    }

    #[test]
    fn it_stands_still_while_the_wall_is_behind() {
        let hands = Arc::new(Hands::default());
        hands.set(5_000, 0);
        let clock = StoreClock::new(hands.clone(), Timestamp::from_millis(9_000));
        assert_eq!(clock.now(), Timestamp::from_millis(9_000));
        hands.set(10_000, 5_000);
        assert_eq!(clock.now(), Timestamp::from_millis(10_000));
        hands.set(1_000, 6_000);
        assert_eq!(clock.now(), Timestamp::from_millis(10_000));
    }

    #[test]
    fn a_jump_is_told_from_a_long_wait() {
        let hands = Arc::new(Hands::default());
        let clock = StoreClock::new(hands.clone(), Timestamp::from_millis(0));
        hands.set(3_600_000, 3_600_000);
        assert_eq!(clock.look().1, None, "an hour without a look is no jump");
        hands.set(3_600_000 + 60_001, 3_600_000);
        assert_eq!(clock.look().1, Some(60_001));
        hands.set(3_600_000 + 60_001, 3_600_000);
        assert_eq!(clock.look().1, None);
    }
}

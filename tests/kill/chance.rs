//! Chance that can be drawn again: splitmix64.

use std::time::Duration;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    /// The stream of a seed.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed that was asked for, or one that nobody knows.
    pub(super) fn seed() -> u64 {
        use std::hash::{BuildHasher as _, RandomState};
        std::env::var_os("AUTOPACK_KILL_SEED")
            .map_or_else(|| RandomState::new().hash_one(0), |seed| seed.to_str().unwrap().parse().unwrap())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A whole number below `limit`.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A moment within a command that usually takes `whole`, or just after it. Two of three are in its first half:
    /// there is the work, later it waits for more to happen.
    pub(super) fn moment(&mut self, whole: Duration) -> Duration {
        let unit = f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX);
        whole.mul_f64(unit * if self.below(3) == 0 { 1.1 } else { 0.5 })
    }
}

//! How long a run waits after a grant that failed: what is in the way will not be gone at once, and each try costs two
//! transactions and an epoch. And when the director looks again for runs that wait for an instant.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use autopack_shared::domain::ids::{RunId, Timestamp};

use super::Director;

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST)
}

/// Runs whose grants failed, on a monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    runs: HashMap<RunId, (u32, Duration)>,
    /// When somebody waits for an instant of the store's clock: the earliest.
    pub(super) wake: Option<Timestamp>,
    /// When it was last looked for transcripts that are due, and none was, on a monotonic clock.
    pub(super) looked_at_transcripts: Option<Duration>,
}

impl Pauses {
    /// A grant failed.
    pub(super) fn failed(&mut self, run: &RunId, now: Duration) {
        let (failures, until) = self.runs.entry(run.clone()).or_default();
        *failures = failures.saturating_add(1);
        *until = now + pause(*failures);
    }

    /// Whether a run has to wait.
    pub(super) fn holds(&self, run: &RunId, now: Duration) -> bool {
        self.runs.get(run).is_some_and(|(_, until)| now < *until)
    }

    /// Whether any run waits.
    pub(super) fn any(&self, now: Duration) -> bool {
        self.runs.values().any(|(_, until)| now < *until)
    }

    /// How long until somebody's instant.
    pub(super) fn next_wake(&self, now: Timestamp) -> Option<Duration> {
        let at = self.wake?;
        Some(Duration::from_millis(u64::try_from(at.millis_since(now)).unwrap_or(0)))
    }

    /// It went well, or there is nothing to grant any more.
    pub(super) fn forget(&mut self, run: &RunId) {
        self.runs.remove(run);
    }

    /// Forgets all that are not among these.
    pub(super) fn forget_but(&mut self, seen: &HashSet<RunId>) {
        self.runs.retain(|run, _| seen.contains(run));
    }
}

impl Director {
    /// Sees to it that the director looks again at an instant, at the latest. Forgotten at each pass: who still waits
    /// then says so again.
    pub(super) fn wake_at(&self, at: Option<Timestamp>) {
        let Some(at) = at else { return };
        let mut pauses = self.pauses();
        pauses.wake = Some(pauses.wake.map_or(at, |earlier| earlier.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let millis: Vec<u128> = (1..=8).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 10_000, 10_000, 10_000]);
        assert_eq!((pause(0), pause(u32::MAX)), (FIRST, LONGEST));
        let (mut pauses, run) = (Pauses::default(), RunId::new("r").unwrap());
        assert!(!pauses.holds(&run, Duration::ZERO));
        pauses.failed(&run, Duration::from_secs(1));
        pauses.failed(&run, Duration::from_secs(2));
        assert!(pauses.holds(&run, Duration::from_millis(2999)) && pauses.any(Duration::from_secs(2)));
        assert!(!pauses.holds(&run, Duration::from_secs(3)) && !pauses.any(Duration::from_secs(3)));
        pauses.forget_but(&HashSet::from([run.clone()]));
        assert!(pauses.holds(&run, Duration::from_secs(2)));
        pauses.forget_but(&HashSet::new());
        assert!(!pauses.holds(&run, Duration::from_secs(2)) && pauses.runs.is_empty());
        pauses.failed(&run, Duration::from_secs(1));
        pauses.forget(&run);
        assert!(!pauses.holds(&run, Duration::from_secs(1)));
    }
}

//! When the lease of a worker that is gone may be given to another one (`coordination.md` 3.3 and 3.14): its key has to
//! be gone, and its builders too, which end by themselves some time after its last heartbeat. Every time is one of the
//! director's own monotonic clock, so that nobody's wall clock counts.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use autopack_shared::domain::ids::WorkerId;
use autopack_shared::domain::record::Lease;

use crate::coordination::{Life, Seated};

/// What a director waits beyond a worker's own limit.
const MARGIN: Duration = Duration::from_secs(3);

/// etcd tells what is left of a lease in whole seconds.
const GRAIN: Duration = Duration::from_secs(1);

/// What is left of a key when it is asked again: while it lives longer than this for sure, nobody needs to know how long.
const SLACK: Duration = Duration::from_secs(5);

/// What a look finds of a session.
#[derive(Debug, Clone, Copy)]
pub(super) enum Found<'a> {
    /// No key.
    Nothing,
    /// A key.
    Key,
    /// A key, and how long it lives.
    Life(&'a Life),
}

/// What is known of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// Its key is there.
    Alive {
        /// Its last heartbeat came no later; none where its key has no time to live.
        heard: Option<Duration>,
        /// When it is to be asked how long it lives.
        ask: Duration,
    },
    /// Its key is gone.
    Gone {
        /// As above, where this director saw the key.
        heard: Option<Duration>,
        /// When that was first seen.
        since: Duration,
    },
}

impl Sighting {
    /// What a look at its key makes of what was known.
    pub(super) fn after(known: Option<Self>, found: Found<'_>, now: Duration) -> Self {
        match (found, known) {
            (Found::Life(life), _) => {
                // A renewal starts the time to live anew. etcd may do so, too, when its leader changes: then we wait
                // longer.
                let left = life.ttl.zip(life.remaining);
                let spent = left.map(|(ttl, left)| ttl.saturating_sub(left).saturating_sub(GRAIN));
                let heard = spent.map(|spent| now.saturating_sub(spent));
                let ask = life.remaining.map_or(Duration::MAX, |left| now + left.saturating_sub(SLACK));
                Self::Alive { heard, ask }
            }
            // It may have been heard just now.
            (Found::Key, Some(Self::Alive { heard, ask })) => Self::Alive { heard: heard.map(|_| now), ask },
            (Found::Key, Some(Self::Gone { .. }) | None) => Self::Alive { heard: Some(now), ask: now },
            (Found::Nothing, Some(Self::Alive { heard, .. })) => Self::Gone { heard, since: now },
            (Found::Nothing, Some(gone @ Self::Gone { .. })) => gone,
            (Found::Nothing, None) => Self::Gone { heard: None, since: now },
        }
    }

    /// Whether it is to be asked how long its key lives.
    fn is_due(self, now: Duration) -> bool {
        match self {
            Self::Alive { ask, .. } => now >= ask,
            Self::Gone { .. } => true,
        }
    }

    /// Whether nobody works on its leases any more: what its worker had under way has ended by itself.
    pub(super) fn is_over(self, now: Duration, worker_self: Duration) -> bool {
        match self {
            Self::Alive { .. } => false,
            // Such a worker ends with its session.
            Self::Gone { .. } if worker_self.is_zero() => true,
            Self::Gone { heard: Some(heard), .. } => now >= heard + worker_self + MARGIN,
            Self::Gone { heard: None, since } => now >= since + worker_self,
        }
    }
}

/// A session.
pub(super) type Key = (WorkerId, String);

fn key(lease: &Lease) -> Key {
    (lease.worker.clone(), lease.session.clone())
}

/// The sessions that have leases, as this director knows them.
#[derive(Debug, Default)]
pub(super) struct Sightings(HashMap<Key, Sighting>);

impl Sightings {
    /// The live sessions with leases of which it has to be known how long they live.
    pub(super) fn due(&self, leases: &[Lease], seats: &[Seated], now: Duration) -> Vec<Key> {
        let alive: HashSet<(&WorkerId, &str)> =
            seats.iter().map(|seat| (&seat.worker, seat.session.as_str())).collect();
        let keys: HashSet<Key> = leases.iter().map(key).collect();
        let due = |key: &Key| self.0.get(key).is_none_or(|known| known.is_due(now));
        keys.into_iter().filter(|key| alive.contains(&(&key.0, key.1.as_str())) && due(key)).collect()
    }

    /// Takes a look in: those of `leases` whose work is over.
    pub(super) fn look<'a>(
        &mut self,
        leases: &'a [Lease],
        seats: &[Seated],
        lives: &HashMap<Key, Option<Life>>,
        now: Duration,
        worker_self: Duration,
    ) -> Vec<&'a Lease> {
        let alive: HashSet<(&WorkerId, &str)> =
            seats.iter().map(|seat| (&seat.worker, seat.session.as_str())).collect();
        let mut known = std::mem::take(&mut self.0);
        for lease in leases {
            let key = key(lease);
            let found = match lives.get(&key) {
                Some(Some(life)) => Found::Life(life),
                Some(None) => Found::Nothing,
                None if alive.contains(&(&key.0, key.1.as_str())) => Found::Key,
                None => Found::Nothing,
            };
            let before = known.remove(&key);
            self.0.entry(key).or_insert_with(|| Sighting::after(before, found, now));
        }
        let over = |lease: &&Lease| self.0.get(&key(lease)).is_some_and(|seen| seen.is_over(now, worker_self));
        leases.iter().filter(over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SELF: Duration = Duration::from_secs(12);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn life(left: u64) -> Life {
        Life { age: s(100), ttl: Some(s(15)), remaining: Some(s(left)) }
    }

    /// What looks at some seconds see, each as what is left of the key, and when the lease is over at the earliest.
    fn over_at(looks: &[(u64, Option<u64>)], worker_self: Duration) -> Option<u64> {
        let mut known = None;
        let last = looks.last().map_or(0, |(at, _)| *at);
        for (at, left) in looks {
            let life = left.map(life);
            known = Some(Sighting::after(known, life.as_ref().map_or(Found::Nothing, Found::Life), s(*at)));
        }
        (last..last + 100).find(|at| known.is_some_and(|known| known.is_over(s(*at), worker_self)))
    }

    #[test]
    fn the_table_of_when_a_lease_may_be_granted_again() {
        for (what, looks, expected) in [
            ("while its key is there, never", &[(100, Some(14)), (101, Some(1))][..], None),
            ("a worker that died: when its key is gone", &[(100, Some(14)), (115, None)], Some(115)),
            ("a key that etcd let go too early: as if it had not", &[(100, Some(14)), (101, None)], Some(115)),
            ("the heartbeat counts, not the look", &[(100, Some(8)), (101, None)], Some(109)),
            ("a key that lived on: once it is gone", &[(100, Some(5)), (120, None)], Some(120)),
            ("a key that is back starts anew", &[(100, None), (105, Some(14)), (106, None)], Some(120)),
            ("never seen: from the absence", &[(100, None)], Some(112)),
            ("never seen, looked at again", &[(100, None), (110, None)], Some(112)),
        ] {
            assert_eq!(over_at(looks, SELF), expected, "{what}");
        }
        assert_eq!(over_at(&[(100, None)], Duration::ZERO), Some(100), "it ends with its session");
        assert_eq!(over_at(&[(100, Some(1))], Duration::ZERO), None);
    }

    #[test]
    fn who_was_there_at_the_last_look_may_have_been_heard_then() {
        let asked = Sighting::after(None, Found::Life(&life(15)), s(100));
        assert!(!asked.is_due(s(109)) && asked.is_due(s(110)), "{asked:?}");
        let seen = Sighting::after(Some(asked), Found::Key, s(108));
        assert_eq!(seen, Sighting::Alive { heard: Some(s(108)), ask: s(110) });
        let gone = Sighting::after(Some(seen), Found::Nothing, s(109));
        assert!(!gone.is_over(s(122), SELF) && gone.is_over(s(123), SELF), "{gone:?}");
        let back = Sighting::after(Some(gone), Found::Key, s(110));
        assert!(back.is_due(s(110)) && !back.is_over(s(200), SELF));
    }

    #[test]
    fn a_dead_worker_is_over_in_time() {
        // Heartbeats each 2 s, one look each 500 ms, one second of rounding: within the 25 s of P11.
        for phase in 0..4 {
            let died = Duration::from_millis(10_000 + phase * 500);
            let renewed = s(10);
            let mut known = None;
            let mut now = renewed;
            let over = loop {
                let left = (renewed + s(15)).checked_sub(now).filter(|left| !left.is_zero());
                let life = left.map(|left| life(left.as_secs()));
                // Asked only when it is due, as the director does.
                let due = known.is_none_or(|known: Sighting| known.is_due(now));
                let found =
                    life.as_ref().map_or(Found::Nothing, |life| if due { Found::Life(life) } else { Found::Key });
                known = Some(Sighting::after(known, found, now));
                if known.is_some_and(|known| known.is_over(now, SELF)) {
                    break now;
                }
                now += Duration::from_millis(500);
            };
            assert!(over >= died.max(renewed) + SELF && over <= died + s(17), "{over:?}");
        }
    }
}

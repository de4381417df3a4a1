//! When the lease of a worker that is gone may be given to another one (`coordination.md` 3.3 and 3.14): its key has to
//! be gone, and its builders too, which end by themselves some time after its last heartbeat. Every time is one of the
//! director's own monotonic clock, so that nobody's wall clock counts.

use std::collections::HashMap;
use std::time::Duration;

use autopack_shared::domain::ids::WorkerId;
use autopack_shared::domain::record::Lease;

use crate::coordination::{Life, SessionEntry};

/// What a director waits beyond a worker's own limit.
const MARGIN: Duration = Duration::from_secs(3);

/// etcd tells what is left of a lease in whole seconds.
const GRAIN: Duration = Duration::from_secs(1);

/// What is known of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// Its key is there.
    Alive {
        /// Its last heartbeat came no later; none where its key has no time to live.
        heard: Option<Duration>,
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
    pub(super) fn after(known: Option<Self>, life: Option<&Life>, now: Duration) -> Self {
        if let Some(life) = life {
            // A renewal starts the time to live anew. etcd may do so, too, when its leader changes: then we wait longer.
            let spent = life.ttl.zip(life.remaining).map(|(ttl, left)| ttl.saturating_sub(left).saturating_sub(GRAIN));
            return Self::Alive { heard: spent.map(|spent| now.saturating_sub(spent)) };
        }
        match known {
            Some(Self::Alive { heard }) => Self::Gone { heard, since: now },
            Some(gone @ Self::Gone { .. }) => gone,
            None => Self::Gone { heard: None, since: now },
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

/// The sessions that have leases, as this director knows them.
#[derive(Debug, Default)]
pub(super) struct Sightings(HashMap<(WorkerId, String), Sighting>);

impl Sightings {
    /// Takes a look in: those of `leases` whose work is over.
    pub(super) fn look<'a>(
        &mut self,
        leases: &'a [Lease],
        sessions: &[SessionEntry],
        now: Duration,
        worker_self: Duration,
    ) -> Vec<&'a Lease> {
        let mut known = std::mem::take(&mut self.0);
        for lease in leases {
            let key = (lease.worker.clone(), lease.session.clone());
            let live = sessions.iter().find(|s| s.worker == lease.worker && s.session == lease.session);
            let before = known.remove(&key);
            self.0.entry(key).or_insert_with(|| Sighting::after(before, live.map(|s| &s.life), now));
        }
        let over = |lease: &&Lease| {
            let key = (lease.worker.clone(), lease.session.clone());
            self.0.get(&key).is_some_and(|seen| seen.is_over(now, worker_self))
        };
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
            known = Some(Sighting::after(known, left.map(life).as_ref(), s(*at)));
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
                known = Some(Sighting::after(known, life.as_ref(), now));
                if known.is_some_and(|known| known.is_over(now, SELF)) {
                    break now;
                }
                now += Duration::from_millis(500);
            };
            assert!(over >= died.max(renewed) + SELF && over <= died + s(17), "{over:?}");
        }
    }
}

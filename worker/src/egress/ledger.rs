//! What is known of one job's way out: which hosts were asked for and what became of it, and how many bytes went either
//! way. Bounded, whatever is tried inside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Limits;
use crate::process::output::Output;

/// Places that are kept apart; what comes after them is counted together.
const MOST: usize = 200;

/// Characters of a place.
const MOST_CHARS: usize = 120;

/// The place of everything beyond [`MOST`].
const OTHERS: &str = "(others)";

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was let through.
    Allowed,
    /// It was refused or came to nothing, with this reason.
    Refused(&'static str),
}

/// One place and what became of the tries to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// `host:port`, or what else was asked for.
    pub place: String,
    /// What became of it.
    pub outcome: Outcome,
    /// How often.
    pub times: u64,
    /// Bytes sent.
    pub up: u64,
    /// Bytes received.
    pub down: u64,
}

impl std::fmt::Display for Contact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { place, outcome, times, up, down } = self;
        match outcome {
            Outcome::Allowed => write!(f, "egress allowed {place}: {times} times, {up} bytes up, {down} down"),
            Outcome::Refused(why) => write!(f, "egress refused {place}: {why}, {times} times"),
        }
    }
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

type Seen = BTreeMap<(String, Outcome), Contact>;

/// Keeps the account of one way out.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) limits: Limits,
    up: AtomicU64,
    down: AtomicU64,
    seen: Mutex<Seen>,
    output: Output,
}

impl Ledger {
    pub(super) fn new(limits: Limits, output: Output) -> Self {
        Self { limits, up: AtomicU64::new(0), down: AtomicU64::new(0), seen: Mutex::default(), output }
    }

    /// Counts bytes; false where there are more than there may be.
    #[must_use]
    pub(super) fn spend(&self, way: Way, place: &str, bytes: u64) -> bool {
        let (counter, most) = match way {
            Way::Up => (&self.up, self.limits.up),
            Way::Down => (&self.down, self.limits.down),
        };
        let before = counter.fetch_add(bytes, Ordering::Relaxed);
        self.entry(place, Outcome::Allowed, |contact| match way {
            Way::Up => contact.up += bytes,
            Way::Down => contact.down += bytes,
        });
        before.saturating_add(bytes) <= most
    }

    /// Notes a try; the first of its kind stands in the transcript too.
    pub(super) fn note(&self, place: &str, outcome: Outcome) {
        let mut first = None;
        self.entry(place, outcome, |contact| {
            contact.times += 1;
            first = (contact.times == 1).then(|| contact.place.clone());
        });
        if let Some(place) = first {
            self.output.remark(&match outcome {
                Outcome::Allowed => format!("autopack: egress allowed {place}"),
                Outcome::Refused(why) => format!("autopack: egress refused {place}: {why}"),
            });
        }
    }

    /// Everything that was tried.
    pub(super) fn contacts(&self) -> Vec<Contact> {
        self.seen().values().filter(|one| one.times > 0).cloned().collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, place: &str, outcome: Outcome, change: impl FnOnce(&mut Contact)) {
        let place: String =
            place.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).take(MOST_CHARS).collect();
        let mut seen = self.seen();
        let known = seen.contains_key(&(place.clone(), outcome));
        let place = if known || seen.len() < MOST { place } else { OTHERS.to_owned() };
        let contact =
            seen.entry((place.clone(), outcome)).or_insert(Contact { place, outcome, times: 0, up: 0, down: 0 });
        change(contact);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_bounded_and_clean() {
        let ledger = Ledger::new(Limits { up: 10, ..Limits::default() }, Output::default());
        for number in 0..10_000 {
            ledger.note(&format!("h{number}\r\nx{}", "y".repeat(1000)), Outcome::Refused("not_listed"));
        }
        let all = ledger.contacts();
        assert_eq!(all.iter().map(|one| one.times).sum::<u64>(), 10_000);
        assert!(all.len() <= MOST + 1 && all.iter().all(|one| one.place.len() <= MOST_CHARS));
        assert!(all.iter().all(|one| !one.to_string().contains(['\r', '\n'])));
    }

    #[test]
    fn bytes_are_counted_to_the_limit() {
        let ledger = Ledger::new(Limits { up: 10, down: 5, ..Limits::default() }, Output::default());
        assert!(ledger.spend(Way::Up, "a", 6) && ledger.spend(Way::Up, "a", 4) && !ledger.spend(Way::Up, "a", 1));
        assert!(ledger.spend(Way::Down, "a", 5) && !ledger.spend(Way::Down, "b", 1));
    }
}

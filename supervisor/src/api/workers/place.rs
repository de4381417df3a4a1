//! How far the history of a run has what a worker said: numbers of one epoch, from 1, each stored right after the one
//! before it. A number again is an answer again; a hole is never stored.

use serde_json::{Value, json};

use autopack_shared::domain::ids::{PhaseId, RunId, Timestamp};
use autopack_shared::domain::record::Event;
use autopack_shared::domain::secret::redact;
use autopack_shared::wire::pb;

use crate::error::Error;
use crate::store::Tx;

/// Events read at a time.
const PAGE: u32 = 500;

/// The same, from the end.
const BACK: u32 = 50;

/// How much older than a lease a line is that nobody can have written for it: longer than any transaction lives.
const MUCH_OLDER_MS: i64 = 60_000;

/// Which epoch a worker's event is of, in its data.
const EPOCH: &str = "epoch";
/// Its number within that epoch.
const SEQ: &str = "seq";

/// What is stored of one epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The last number.
    last: u64,
    /// Up to where the run's history was read.
    read: u64,
}

/// What a number is to a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The one that comes next.
    New,
    /// It is stored.
    Again,
    /// Others come before it.
    Missing,
}

impl Heard {
    pub(super) const fn last(self) -> u64 {
        self.last
    }

    pub(super) fn next(self, said: u64) -> Next {
        match said.cmp(&(self.last + 1)) {
            std::cmp::Ordering::Less => Next::Again,
            std::cmp::Ordering::Equal => Next::New,
            std::cmp::Ordering::Greater => Next::Missing,
        }
    }

    /// Nothing yet, in a history that was read up to a line.
    pub(super) const fn from(line: u64) -> Self {
        Self { last: 0, read: line }
    }

    /// With one more, at a line of the history.
    pub(super) const fn and(self, said: u64, line: u64) -> Self {
        Self { last: said, read: line }
    }

    /// Goes on behind a number that is given up.
    pub(super) fn skip_to(&mut self, said: u64) {
        self.last = self.last.max(said);
    }

    /// The data of an event, with the place it has.
    pub(super) fn marked(epoch: u64, seq: u64, data: Value) -> Value {
        json!({ EPOCH: epoch, SEQ: seq, "data": data })
    }
}

/// Reads what came to a history before a line.
pub(super) async fn catch_up(
    tx: &mut dyn Tx,
    run: &RunId,
    epoch: u64,
    mut heard: Heard,
    before: u64,
) -> Result<Heard, Error> {
    let of = |event: &Event| if event.data[EPOCH].as_u64() == Some(epoch) { event.data[SEQ].as_u64() } else { None };
    while heard.read + 1 < before {
        let page = tx.events(run, heard.read, PAGE).await?;
        let page: Vec<Event> = page.into_iter().filter(|event| event.seq < before).collect();
        let Some(end) = page.last() else { break };
        heard.read = end.seq;
        heard.last = page.iter().filter_map(of).fold(heard.last, u64::max);
    }
    Ok(heard)
}

/// The line after which everything that was said of a lease stands: the newest one that is much older. Whoever spoke for
/// the lease began after it was granted; what began before, and was slow, was ended by its time limit long ago.
pub(super) async fn since(tx: &mut dyn Tx, run: &RunId, granted_at: Timestamp) -> Result<u64, Error> {
    let mut before = u64::MAX;
    loop {
        let page = tx.events_back(run, before, BACK).await?;
        let Some(last) = page.last() else { return Ok(0) };
        before = last.seq;
        if let Some(older) = page.iter().find(|event| granted_at.millis_since(event.at) > MUCH_OLDER_MS) {
            return Ok(older.seq);
        }
    }
}

/// An event as a line of the run's history.
pub(super) fn line(event: &pb::RunEvent, run: RunId, phase: PhaseId, tx: &dyn Tx) -> Event {
    let data = serde_json::from_str(&event.data_json).unwrap_or(serde_json::Value::Null);
    Event {
        seq: 0,
        run,
        phase: Some(phase),
        kind: format!("worker.{}", event.kind),
        text: redact(&event.text).chars().take(500).collect(),
        data: Heard::marked(event.epoch, event.run_seq, data),
        at: tx.now(),
        prev: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_again_or_too_early() {
        let mut heard = Heard::default();
        assert_eq!([0, 1, 2].map(|said| heard.next(said)), [Next::Again, Next::New, Next::Missing]);
        heard = heard.and(1, 7);
        assert_eq!(
            [1, 2, 3, u64::MAX].map(|said| heard.next(said)),
            [Next::Again, Next::New, Next::Missing, Next::Missing]
        );
        heard.skip_to(4);
        assert_eq!((heard.last(), heard.next(4), heard.next(5)), (4, Next::Again, Next::New));
        heard.skip_to(2);
        assert_eq!(heard.last(), 4, "never back");
    }
}

//! What one chain of the log says of the rows it is about, played up to its end.

use std::collections::{BTreeMap, BTreeSet};

use autopack_shared::domain::audit::{AuditBreak, AuditEntry, AuditObject, EVENT, ORIGIN, PHASE, ROW};
use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::state::{LeaseState, PhaseState};

use super::{digest, semantic};
use crate::store::StoreResult;
use crate::store::facts::{CREATED, FenceRow};

/// Rows that have no states are in this one.
pub(super) const RECORDED: &str = "recorded";

/// What rows are read in the order of, and so were written in. Others come from callers that need not wait for each
/// other.
const ORDERED: &[&str] = &["lease", "decision", "request", "apply"];

/// What the log knows of the rows of one chain.
#[derive(Debug, Default)]
pub(super) struct Replay {
    rows: BTreeMap<AuditObject, Known>,
    /// Digests of the lines of the run's history.
    events: BTreeSet<String>,
    /// The digest of what the run keeps for life.
    origin: Option<String>,
    /// The epoch of every scope.
    epochs: BTreeMap<String, u64>,
    /// Starts and ends of leases: position in the whole log, lease, whether it starts.
    pub(super) leases: Vec<(u64, String, bool)>,
    /// What does not follow from the entries before it.
    jumps: Vec<AuditBreak>,
    /// When the newest row of a kind was first written, of those that were compared.
    newest: BTreeMap<String, u64>,
}

/// What the log knows of one row.
#[derive(Debug)]
struct Known {
    state: String,
    digest: Option<String>,
    /// Position of its first entry.
    born: u64,
}

impl Replay {
    /// Plays the next entry, which stands at `leaf` of the whole log.
    pub(super) fn learn(&mut self, mut entry: AuditEntry, leaf: u64) -> StoreResult<()> {
        self.events.extend(entry.digests.remove(EVENT));
        if entry.op == "run.created" {
            self.created(&entry, leaf)?;
        }
        if entry.op == "fence.bump" {
            self.bumped(&entry);
        }
        let Some(pin) = entry.digests.remove(ROW) else { return Ok(()) };
        let (object, state) = subject(entry, &mut self.jumps, &self.rows);
        if object.kind == LeaseState::MACHINE {
            let ends = state.parse::<LeaseState>().is_ok_and(LeaseState::is_terminal);
            if ends || !self.rows.contains_key(&object) {
                self.leases.push((leaf, object.id.clone(), !ends));
            }
        }
        self.pin(object, state, pin, leaf);
        Ok(())
    }

    fn pin(&mut self, object: AuditObject, state: String, digest: String, leaf: u64) {
        let born = self.rows.get(&object).map_or(leaf, |known| known.born);
        self.rows.insert(object, Known { state, digest: Some(digest), born });
    }

    /// A run comes with its phases and its fence.
    fn created(&mut self, entry: &AuditEntry, leaf: u64) -> StoreResult<()> {
        let run = &entry.object.id;
        self.origin = entry.digests.get(ORIGIN).cloned();
        for (role, pin) in &entry.digests {
            if let Some(phase) = role.strip_prefix(PHASE) {
                let phase = object(PhaseState::MACHINE, format!("{run}/{phase}"));
                self.pin(phase, PhaseState::Queued.to_string(), pin.clone(), leaf);
            }
        }
        let (scope, granted_at): (_, Timestamp) = (format!("run/{run}"), entry.ts_db);
        self.epochs.insert(scope.clone(), 1);
        let fence = FenceRow { scope: scope.clone(), epoch: 1, holder: CREATED.to_owned(), granted_at };
        self.pin(object("fence", scope), RECORDED.to_owned(), digest(&fence)?, leaf);
        Ok(())
    }

    /// No epoch is left out.
    fn bumped(&mut self, entry: &AuditEntry) {
        let epoch = entry.digests.get("epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0);
        let before = self.epochs.insert(entry.object.id.clone(), epoch).unwrap_or(0);
        if epoch != before + 1 {
            let why = format!("epoch {epoch} follows epoch {before}");
            self.jumps.push(semantic(format!("fence {}", entry.object.id), &why));
        }
    }

    /// Compares what a run keeps for its whole life with the entry of its creation.
    pub(super) fn origin(&self, run: &str, origin: &str) -> Option<AuditBreak> {
        let kept = self.origin.as_deref() == Some(origin);
        (!kept).then(|| semantic(format!("run {run}"), "what it was created with is not what was logged"))
    }

    /// Compares a row with the log: its state and all of its fields.
    pub(super) fn row(&mut self, kind: &str, id: String, state: &str, digest: &str) -> Option<AuditBreak> {
        let object = object(kind, id);
        let known = self.rows.remove(&object);
        let name = format!("{} {}", object.kind, object.id);
        let Some(known) = known else {
            return Some(semantic(name, &format!("the row says {state}, the log says nothing")));
        };
        if known.state != state {
            return Some(semantic(name, &format!("the row says {state}, the log says {}", known.state)));
        }
        if known.digest.as_deref() != Some(digest) {
            return Some(semantic(name, "the row is not the one that was logged"));
        }
        if ORDERED.contains(&kind) && self.newest.insert(object.kind, known.born) > Some(known.born) {
            return Some(semantic(name, "it stands behind a row that was written later"));
        }
        None
    }

    /// The same for a row that has no states.
    pub(super) fn recorded(&mut self, kind: &str, id: String, digest: &str) -> Option<AuditBreak> {
        self.row(kind, id, RECORDED, digest)
    }

    /// Ticks off a line of the history, if the log knows it.
    pub(super) fn event(&mut self, digest: &str) {
        self.events.remove(digest);
    }

    /// What does not fit within the log, and what it knows and no row was found for.
    pub(super) fn rest(self, chain: &str) -> Vec<AuditBreak> {
        let gone = |(object, known): (AuditObject, Known)| {
            let why = format!("the log says {}, but there is no such row", known.state);
            semantic(format!("{} {}", object.kind, object.id), &why)
        };
        let mut found = self.jumps;
        found.extend(self.rows.into_iter().map(gone));
        if !self.events.is_empty() {
            let why = format!("{} lines that the log knows are gone or changed", self.events.len());
            found.push(semantic(format!("history of {chain}"), &why));
        }
        found
    }
}

fn object(kind: &str, id: String) -> AuditObject {
    AuditObject { kind: kind.to_owned(), id }
}

/// The row that an entry writes, and the state it puts it in: the one it names, else the one its operation is called
/// by. A row that was edited and then moved on by the program is found by the state it was moved from.
fn subject(
    entry: AuditEntry,
    jumps: &mut Vec<AuditBreak>,
    rows: &BTreeMap<AuditObject, Known>,
) -> (AuditObject, String) {
    if entry.op == "vote.recorded" {
        // Filed under its request; a principal votes once.
        return (object("vote", vote_id(&entry.object.id, &entry.actor.id)), RECORDED.to_owned());
    }
    let known = rows.get(&entry.object).map(|known| known.state.as_str());
    if let (Some(known), Some(before)) = (known, entry.before_state.as_deref())
        && known != before
    {
        let why = format!("it was moved on from {before}, the log had it at {known}");
        jumps.push(semantic(format!("{} {}", entry.object.kind, entry.object.id), &why));
    }
    let state = entry.after_state.unwrap_or_else(|| match entry.op.split_once('.') {
        Some(("request", "created")) => "pending".to_owned(),
        Some((_, verb @ ("prepared" | "granting"))) => verb.to_owned(),
        _ => RECORDED.to_owned(),
    });
    (entry.object, state)
}

/// What a vote is called here.
pub(super) fn vote_id(request: &str, principal: &str) -> String {
    format!("{principal} on {request}")
}

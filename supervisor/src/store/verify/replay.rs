//! What one chain of the log says of its run's rows, played up to its end.

use std::collections::{BTreeMap, BTreeSet};

use autopack_shared::domain::audit::{AuditBreak, AuditEntry, AuditObject, EVENT, ROW};
use autopack_shared::domain::record::Run;
use autopack_shared::domain::state::{ApplyState, LeaseState, PhaseState, RequestState, RunState};

use super::semantic;

/// The rows that never change and so have no state of their own.
const RECORDED: &str = "recorded";

/// What the log knows of the rows of one run.
#[derive(Debug, Default)]
pub(super) struct Replay {
    rows: BTreeMap<AuditObject, Known>,
    /// Digests of the lines of the run's history.
    events: BTreeSet<String>,
    /// Who created the run, and the digests it was created with.
    origin: Option<(String, BTreeMap<String, String>)>,
    /// Moves that do not begin where the one before ended.
    jumps: Vec<AuditBreak>,
}

/// What the log knows of one row.
#[derive(Debug)]
struct Known {
    state: String,
    digest: Option<String>,
}

impl Replay {
    /// Plays the next entry.
    pub(super) fn learn(&mut self, mut entry: AuditEntry) {
        self.events.extend(entry.digests.remove(EVENT));
        if entry.op == "run.created" {
            self.origin = Some((entry.actor.id.clone(), entry.digests.clone()));
        }
        if let Some((object, state)) = subject(&entry) {
            self.follows(&object, entry.before_state.as_deref());
            self.rows.insert(object, Known { state, digest: entry.digests.remove(ROW) });
        }
    }

    /// A row that was edited and then moved on by the program is found by the state it was moved from.
    fn follows(&mut self, object: &AuditObject, before: Option<&str>) {
        let known = self.rows.get(object).map(|known| known.state.as_str());
        if let (Some(known), Some(before)) = (known, before)
            && known != before
        {
            let why = format!("it was moved on from {before}, the log had it at {known}");
            self.jumps.push(semantic(format!("{} {}", object.kind, object.id), &why));
        }
    }

    /// A row that must be there in this state although no entry of its own says so, unless one does.
    pub(super) fn implied(&mut self, kind: &str, id: String, state: &str) {
        self.rows.entry(object(kind, id)).or_insert_with(|| Known { state: state.to_owned(), digest: None });
    }

    /// Compares what a run keeps for its whole life with the entry of its creation.
    pub(super) fn origin(&self, run: &Run) -> Option<AuditBreak> {
        let (author, digests) = self.origin.as_ref()?;
        let same = |role: &str, row: Option<String>| digests.get(role) == row.as_ref();
        let kept = run.author.id == *author
            && same("fork", Some(run.fork_commit.to_string()))
            && same("policy", Some(run.policy_digest.to_string()))
            && same("anchor", run.anchor_digest.map(|anchor| anchor.to_string()));
        let name = || format!("run {}", run.id);
        (!kept).then(|| semantic(name(), "its author, fork, policy or anchor is not the one that was logged"))
    }

    /// Compares a row's state with the log.
    pub(super) fn row(&mut self, kind: &str, id: String, state: &str) -> Option<AuditBreak> {
        self.settle(object(kind, id), state, None)
    }

    /// Compares a row's state and all of its fields with the log.
    pub(super) fn pinned_row(&mut self, kind: &str, id: String, state: &str, digest: String) -> Option<AuditBreak> {
        self.settle(object(kind, id), state, Some(digest))
    }

    /// The same for a row that never changes.
    pub(super) fn recorded(&mut self, kind: &str, id: String, digest: String) -> Option<AuditBreak> {
        self.settle(object(kind, id), RECORDED, Some(digest))
    }

    fn settle(&mut self, object: AuditObject, state: &str, digest: Option<String>) -> Option<AuditBreak> {
        let known = self.rows.remove(&object);
        let name = format!("{} {}", object.kind, object.id);
        match known {
            None => Some(semantic(name, &format!("the row says {state}, the log says nothing"))),
            Some(known) if known.state != state => {
                Some(semantic(name, &format!("the row says {state}, the log says {}", known.state)))
            }
            Some(known) if digest.is_some() && known.digest != digest => {
                Some(semantic(name, "the row is not the one that was logged"))
            }
            Some(_) => None,
        }
    }

    /// Ticks off a line of the history, if the log knows it.
    pub(super) fn event(&mut self, digest: &str) {
        self.events.remove(digest);
    }

    /// What does not fit within the log, and what it knows and no row was found for.
    pub(super) fn rest(self, run: &str) -> Vec<AuditBreak> {
        let gone = |(object, known): (AuditObject, Known)| {
            let why = format!("the log says {}, but there is no such row", known.state);
            semantic(format!("{} {}", object.kind, object.id), &why)
        };
        let mut found = self.jumps;
        found.extend(self.rows.into_iter().map(gone));
        if !self.events.is_empty() {
            let why = format!("{} lines that the log knows are gone or changed", self.events.len());
            found.push(semantic(format!("history of {run}"), &why));
        }
        found
    }
}

fn object(kind: &str, id: String) -> AuditObject {
    AuditObject { kind: kind.to_owned(), id }
}

/// The row that an entry writes, and the state it puts it in: the one it names, else the one its operation is called
/// by.
fn subject(entry: &AuditEntry) -> Option<(AuditObject, String)> {
    let (noun, verb) = entry.op.split_once('.')?;
    if (noun, verb) == ("vote", RECORDED) {
        // Filed under its request; a principal votes once.
        let vote = object("vote", vote_id(&entry.object.id, &entry.actor.id));
        return Some((vote, RECORDED.to_owned()));
    }
    if noun != entry.object.kind {
        return None;
    }
    let state = entry.after_state.as_deref().unwrap_or(if verb == "created" { "pending" } else { verb });
    let known = match noun {
        "run" => state.parse::<RunState>().is_ok(),
        "phase" => state.parse::<PhaseState>().is_ok(),
        "lease" => state.parse::<LeaseState>().is_ok(),
        "request" => state.parse::<RequestState>().is_ok(),
        "apply" => state.parse::<ApplyState>().is_ok(),
        "decision" => state == RECORDED,
        _ => false,
    };
    known.then(|| (entry.object.clone(), state.to_owned()))
}

/// What a vote is called here.
pub(super) fn vote_id(request: &str, principal: &str) -> String {
    format!("{principal} on {request}")
}

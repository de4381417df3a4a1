//! What the control store remembers, as plain data: runs, phases, attempts, leases, patches, decisions, requests,
//! applies. A store keeps them; the director moves them by the tables of [`state`](super::state).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::anchor::IntentionAnchorV2;
use super::budget::{Caps, PhaseBudget, RunBudget};
use super::feedback::Feedback;
use super::gate;
use super::ids::{Digest, Oid, PhaseId, ProjectId, RequestId, RowId, RunId, Timestamp, WorkerId};
use super::run_data::RunDataModel;
use super::run_file::{PhaseSpec, RunFile};
use super::state::{AttemptState, LeaseState, PhaseState, RunState};
use super::trace::TraceContext;

mod checkout;
mod governance;
mod tally;

pub use checkout::Checkout;
pub use governance::{Apply, ApplyKind, Decision, Request, Vote};
pub use tally::{Counts, Tally};

/// Who acts: an authenticated principal and the door they came through.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Principal {
    /// Stable name, such as `local:alice` or `token:ci`.
    pub id: String,
    /// How it was authenticated: `socket`, `token`, `mtls`, `telegram`, `system`, `session` for a worker.
    pub method: String,
}

impl Principal {
    /// The director and its policy.
    #[must_use]
    pub fn system() -> Self {
        Self { id: "system:director".to_owned(), method: "system".to_owned() }
    }
}

/// One repository under this supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    /// Its name.
    pub id: ProjectId,
    /// Where its hub is.
    pub repo: String,
    /// Registered copies of files that a fork commit may lack, by path (`autopack.toml`, the anchor).
    pub registered: BTreeMap<String, String>,
    /// When it was added.
    pub created_at: Timestamp,
}

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// Phases make changes on the run's own branch.
    Patch,
    /// Lands another run's branch on its target.
    Landing,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// The project it belongs to.
    pub project: ProjectId,
    /// Patch or landing.
    pub kind: RunKind,
    /// Where it stands.
    pub state: RunState,
    /// Rises with every write; a write names the version it read.
    pub version: u64,
    /// The commit that policy, anchor and gate are read from, and that the branch starts at.
    pub fork_commit: Oid,
    /// The branch it lands on, when the repository had one checked out or one was named.
    pub target_ref: Option<String>,
    /// `refs/heads/autopack/<run>`.
    pub branch: String,
    /// The policy in force at the fork commit.
    pub policy_digest: Digest,
    /// The anchor in force, when there is one.
    pub anchor_digest: Option<Digest>,
    /// The anchor itself: the gate and every verdict of this run go by it.
    pub anchor: Option<IntentionAnchorV2>,
    /// Registered copies of policy files as they were when the run was created; a later copy cannot loosen it.
    pub registered: BTreeMap<String, String>,
    /// The plan it was made from.
    pub plan_digest: Option<Digest>,
    /// The run a landing lands.
    pub lands: Option<RunId>,
    /// Where that run's branch was when the landing was made; the merge's second parent.
    pub lands_tip: Option<Oid>,
    /// What was asked.
    pub file: RunFile,
    /// Who started it.
    pub author: Principal,
    /// Built without the required sandbox: every patch is tier 3 at least.
    pub tainted: bool,
    /// Where its processes keep their data, for its whole life.
    #[serde(default, skip_serializing_if = "RunDataModel::is_sqlite")]
    pub run_data: RunDataModel,
    /// A person asked for a pause: it begins when the lease ends, and lasts until somebody resumes the run.
    pub pause_requested: bool,
    /// Bounds that were raised, and the one that holds it up.
    #[serde(default, skip_serializing_if = "RunBudget::is_empty")]
    pub budget: RunBudget,
    /// The trace of the call that created it: what is done for it later belongs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// Why it ended or stands still, for people.
    pub reason: Option<String>,
    /// The checkout that keeps a landing from moving its target; until its next move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkout: Option<Checkout>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
}

impl Run {
    /// What it was created with, which no later write may change.
    #[must_use]
    pub fn origin(&self) -> Self {
        let moved = (RunState::Created, 0, false, None, self.created_at);
        let (state, version, pause_requested, reason, updated_at) = moved;
        // A supervisor of before, which knows no traces, may write it in between.
        let (budget, checkout) = (RunBudget::default(), None);
        Self { state, version, pause_requested, reason, updated_at, budget, trace: None, checkout, ..self.clone() }
    }
}

/// A phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its run.
    pub run: RunId,
    /// Its name.
    pub id: PhaseId,
    /// Its place in the run, from 0.
    pub ordinal: u32,
    /// Where it stands.
    pub state: PhaseState,
    /// Rises with every write.
    pub version: u64,
    /// What was asked.
    pub spec: PhaseSpec,
    /// The number of the newest attempt; 0 before the first.
    pub attempt: u32,
    /// Attempts that count against `max_attempts`.
    pub failed_attempts: u32,
    /// Attempts lost with their worker; they do not count, but are bounded too.
    pub lost_attempts: u32,
    /// The base its newest change stands on.
    pub base: Option<Oid>,
    /// The tree its newest change results in.
    pub tree: Option<Oid>,
    /// The newest decision about it.
    pub decision: Option<RowId>,
    /// The newest request about it.
    pub request: Option<RequestId>,
    /// The newest move of the branch for it.
    pub apply: Option<RowId>,
    /// The request whose approval may be carried on: its change was rebased and is still the same.
    pub carry: Option<RequestId>,
    /// What earlier attempts were told, oldest first; goes to the builder.
    pub feedback: Vec<Feedback>,
    /// A rollback was ordered by a person, not by the gate.
    pub rollback_ordered: bool,
    /// An operator had it tried again: the next answer is asked about even if it is one that was rejected.
    #[serde(default)]
    pub retried: bool,
    /// Bounds that were raised, and what was not enough of one.
    #[serde(default, skip_serializing_if = "PhaseBudget::is_empty")]
    pub budget: PhaseBudget,
    /// Why it ended or stands still.
    pub reason: Option<String>,
    /// When it last moved.
    pub updated_at: Timestamp,
}

/// One attempt at a phase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its run.
    pub run: RunId,
    /// Its phase.
    pub phase: PhaseId,
    /// From 1.
    pub number: u32,
    /// The run epoch it was granted under.
    pub epoch: u64,
    /// Where it stands.
    pub state: AttemptState,
    /// Rises with every write.
    pub version: u64,
    /// The commit it started from.
    pub base: Oid,
    /// What it left.
    pub result_tree: Option<Oid>,
    /// Notices of the collection, and the builder's own words cut short.
    pub notes: Vec<String>,
    /// What its builder printed, where it printed anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<Digest>,
    /// What the gate came to, once it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<gate::Report>,
    /// Why it failed.
    pub reason: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// What a lease was granted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeasePurpose {
    /// Run a builder.
    Build,
    /// Run the quality gate on what was applied.
    Verify,
}

/// The right of one worker to work on one run for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its id.
    pub id: RowId,
    /// The run.
    pub run: RunId,
    /// The run's project; the gate counts by it.
    pub project: ProjectId,
    /// The phase it was granted for.
    pub phase: PhaseId,
    /// Build or verify.
    pub purpose: LeasePurpose,
    /// The attempt.
    pub attempt: u32,
    /// Who holds it.
    pub worker: WorkerId,
    /// The worker's session.
    pub session: String,
    /// The run's epoch under this lease.
    pub epoch: u64,
    /// The workspace's epoch under this lease.
    pub ws_epoch: u64,
    /// Where it stands.
    pub state: LeaseState,
    /// Rises with every write.
    pub version: u64,
    /// The grant in its trace: what the worker does belongs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
    /// When the grant was committed.
    pub granted_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended.
    pub reason: Option<String>,
}

/// What an operator asked of a run; the director performs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum CommandOp {
    /// End the run.
    Cancel,
    /// Hold the run.
    Pause,
    /// Let a paused run go on.
    Resume,
    /// One more attempt at a blocked or failed phase, with words for the builder.
    Retry {
        /// The phase; every blocked one when absent.
        phase: Option<PhaseId>,
        /// For the builder.
        feedback: String,
        /// A new scope for it.
        scope: Option<Vec<String>>,
    },
    /// Revert what a phase, or the whole run, applied.
    Rollback {
        /// The phase; all applied ones, newest first, when absent.
        phase: Option<PhaseId>,
        /// Why.
        reason: String,
    },
    /// Set bounds of the run anew, or of one of its phases; what is absent stays.
    Budget {
        /// The phase.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phase: Option<PhaseId>,
        /// The new bounds.
        caps: Caps,
    },
    /// Take the run's lease from whoever has it, locks and all.
    BreakLease {
        /// Why.
        reason: String,
        /// The epoch of the lease that is meant, 0 where there was none; whichever is open where it was not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
    },
}

/// One such wish, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its id.
    pub id: RowId,
    /// The run.
    pub run: RunId,
    /// What is asked.
    pub op: CommandOp,
    /// Who asked.
    pub principal: Principal,
    /// When.
    pub created_at: Timestamp,
    /// When the director dealt with it.
    pub done_at: Option<Timestamp>,
    /// `done`, or why it was refused.
    pub result: Option<String>,
}

/// Something people are told, at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its id.
    pub id: RowId,
    /// The run it is about.
    pub run: RunId,
    /// `approval_needed`, `applied`, `reminder`, ...
    pub kind: String,
    /// One line.
    pub text: String,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When a channel took it.
    pub sent_at: Option<Timestamp>,
}

/// One line of a run's history, in order; what `runs watch` and `run.log` show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one within a run.
    pub seq: u64,
    /// The run.
    pub run: RunId,
    /// The phase, where it is about one.
    pub phase: Option<PhaseId>,
    /// `phase.state`, `verdict`, `gate.output`, ...
    pub kind: String,
    /// One line for people.
    pub text: String,
    /// Facts for programs.
    pub data: serde_json::Value,
    /// When.
    pub at: Timestamp,
    /// Digest of the line before it: who pins one line pins all that came before.
    #[serde(default)]
    pub prev: Option<Digest>,
}

impl Event {
    /// Takes the place after the last line of its run's history.
    ///
    /// # Errors
    /// When that line cannot be written as JSON.
    pub fn follow(&mut self, last: Option<&Self>) -> Result<(), serde_json::Error> {
        self.seq = last.map_or(0, |last| last.seq) + 1;
        self.prev = last.map(Digest::of_json).transpose()?;
        Ok(())
    }
}

/// Lines already applied by one run and by its project in the last 24 hours, by path class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSums {
    /// By this run.
    pub run: BTreeMap<String, u64>,
    /// By the project in 24 hours.
    pub project_24h: BTreeMap<String, u64>,
}

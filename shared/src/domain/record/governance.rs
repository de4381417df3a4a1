//! Verdicts, requests, votes, and the moves of branches that they allow.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Principal;
use crate::domain::ids::{Digest, Oid, PhaseId, RequestId, RowId, RunId, Timestamp};
use crate::domain::state::{ApplyState, RequestState};

/// One verdict, kept for good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id.
    pub id: RowId,
    /// The run.
    pub run: RunId,
    /// The phase.
    pub phase: PhaseId,
    /// The attempt.
    pub attempt: u32,
    /// What was judged: the base commit.
    pub base: Oid,
    /// What was judged: the resulting tree.
    pub tree: Oid,
    /// The digest of everything the verdict is bound to.
    pub subject_digest: Digest,
    /// The policy it was judged by.
    pub policy_digest: Digest,
    /// The anchor it was judged by.
    pub anchor_digest: Option<Digest>,
    /// `AUTO_APPROVED`, `NOTIFY_AND_PROCEED`, ...
    pub verdict: String,
    /// 1..=4; none for REJECTED, NO_CHANGE and CONFLICT.
    pub tier: Option<u8>,
    /// The whole `verdict/1` document.
    pub document: serde_json::Value,
    /// Lines it changes, by path class; the size windows sum them once it is applied.
    pub class_sizes: BTreeMap<String, u64>,
    /// What the builder printed whose change was judged, where it printed anything and that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<Digest>,
    /// When it was decided.
    pub decided_at: Timestamp,
}

/// An approval request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// The run.
    pub run: RunId,
    /// The phase.
    pub phase: PhaseId,
    /// The attempt.
    pub attempt: u32,
    /// The verdict that asks.
    pub decision: RowId,
    /// 3 or 4.
    pub tier: u8,
    /// Where it stands.
    pub state: RequestState,
    /// Rises with every write.
    pub version: u64,
    /// What exactly is asked about.
    pub subject_digest: Digest,
    /// The base commit of it.
    pub base: Oid,
    /// The resulting tree of it.
    pub tree: Oid,
    /// The branch it would move.
    pub target_ref: String,
    /// Paths that made it necessary.
    pub violated_paths: Vec<String>,
    /// The builder's or author's words; untrusted text, cut to 500 characters.
    pub justification: String,
    /// `LOW` .. `CRITICAL`.
    pub risk_level: String,
    /// 0..=100.
    pub risk_score: u8,
    /// Reason codes, for people and exports.
    pub risk_factors: Vec<String>,
    /// Who started the run; cannot decide in cluster mode.
    pub author: Principal,
    /// How many distinct approvers it takes.
    pub approvers_needed: u32,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it ends by itself, as a rejection.
    pub expires_at: Timestamp,
    /// Who ended it.
    pub decided_by: Option<Principal>,
    /// When it was ended.
    pub decided_at: Option<Timestamp>,
    /// The decider's words.
    pub notes: Option<String>,
    /// A stable code of a rejection.
    pub reason_code: Option<String>,
    /// The request whose approval it carries on after a rebase that changed nothing.
    pub carried_from: Option<RequestId>,
}

impl Request {
    /// How long it waited for its end.
    #[must_use]
    pub fn waited(&self) -> Duration {
        let ended = self.decided_at.unwrap_or(self.created_at);
        Duration::from_millis(u64::try_from(ended.millis_since(self.created_at)).unwrap_or(0))
    }
}

/// One person's vote on a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The request.
    pub request: RequestId,
    /// Who.
    pub principal: Principal,
    /// Yes or no.
    pub approve: bool,
    /// The digest they looked at.
    pub subject_digest: Digest,
    /// Their words.
    pub notes: String,
    /// When.
    pub at: Timestamp,
}

/// What a move of a branch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplyKind {
    /// A phase's change.
    Patch,
    /// A rollback.
    Revert,
    /// A landing.
    Land,
}

/// One move of one branch, prepared before the hub is touched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// SHA-256 over subject digest and target ref, as 32 hex digits.
    pub id: RowId,
    /// The run.
    pub run: RunId,
    /// The phase.
    pub phase: PhaseId,
    /// The attempt.
    pub attempt: u32,
    /// Patch, revert or land.
    pub kind: ApplyKind,
    /// The branch.
    pub target_ref: String,
    /// Where the branch must be.
    pub old: Oid,
    /// Where it goes; a deterministic commit.
    pub new: Oid,
    /// The tree of that commit.
    pub tree: Oid,
    /// The decision behind it.
    pub decision: Option<RowId>,
    /// The approval it consumed, for tiers 3 and 4.
    pub request: Option<RequestId>,
    /// Where it stands.
    pub state: ApplyState,
    /// Rises with every write.
    pub version: u64,
    /// The time written into the commit.
    pub decided_at: Timestamp,
    /// When it was prepared.
    pub prepared_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Why it ended other than committed.
    pub reason: Option<String>,
}

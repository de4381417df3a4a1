//! The audit log: append-only chains of canonical records, each bound to the one before it (`audit.md` 6.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{Digest, Timestamp};
use super::record::Principal;

/// What happened, before it has a place in a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditDraft {
    /// The chain: `run/<id>`, `project/<id>` or `cluster`.
    pub chain: String,
    /// Who did it.
    pub actor: Principal,
    /// What was done: `run.created`, `lease.granting`, `request.approved`, `apply.committed`, ...
    pub op: String,
    /// The kind of thing it was done to.
    pub object_type: String,
    /// The thing.
    pub object_id: String,
    /// State before, where it has one.
    pub before: Option<String>,
    /// State after.
    pub after: Option<String>,
    /// The fence it was done under, as `scope#epoch`.
    pub fence: Option<String>,
    /// Digests and object ids that pin the subject, by role (`subject`, `policy`, `commit`, ...).
    pub digests: BTreeMap<String, String>,
    /// Why, in few words; escaped and cut to 500 characters.
    pub reason: String,
    /// Trace and idempotency key of the call behind it.
    pub request: BTreeMap<String, String>,
}

/// A record in its chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// The chain.
    pub chain: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// Position in the whole log, from 0, in commit order.
    pub leaf_index: u64,
    /// The canonical JSON that is hashed.
    pub body: String,
    /// Hash of the record before it; zeros for the first.
    pub prev_hash: Digest,
    /// `SHA-256("autopack-audit-v1\0" || prev || be64(seq) || SHA-256(body))`.
    pub hash: Digest,
    /// When, by the store's clock.
    pub at: Timestamp,
}

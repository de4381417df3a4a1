//! The audit log: append-only chains of canonical records, each bound to the one before it (`audit.md` 6.1), and the
//! check that a chain is whole. A store appends with [`AuditDraft::seal`]; anybody can verify with [`ChainCheck`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ids::{Digest, Timestamp};
use super::record::Principal;

/// What every record's hash starts with.
const DOMAIN: &[u8] = b"autopack-audit-v1\0";
/// The most characters of free text in a record; the digest of the whole text stands beside a cut one.
const MAX_REASON: usize = 500;
/// Integers above this are written as text, since many JSON readers would round them.
const MAX_SAFE_INTEGER: u64 = 1 << 53;

/// The role of the digest that pins the row an entry writes; see [`row_digest`].
pub const ROW: &str = "row";
/// The role of the digest that pins the line of the run's history written along with an entry, and all before it.
pub const EVENT: &str = "event";
/// The role of the digest that pins what a run keeps for life.
pub const ORIGIN: &str = "origin";
/// How roles begin that pin the phases which a run was created with; the phase's name follows.
pub const PHASE: &str = "phase/";

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

/// Where a draft goes: whose log it is, and what stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditPlace<'a> {
    /// The store's stable id.
    pub cluster: &'a str,
    /// The store's incarnation.
    pub incarnation: u32,
    /// The record's number in its chain, from 1.
    pub seq: u64,
    /// Its position in the whole log, from 0.
    pub leaf_index: u64,
    /// The hash of the record before it in its chain; [`NO_RECORD`] for the first.
    pub prev_hash: Digest,
    /// The store's clock.
    pub at: Timestamp,
}

/// The position of a record that has not got one yet.
pub const UNNUMBERED: u64 = i64::MAX as u64;

impl AuditRecord {
    /// Its position in the whole log; none until it has been given one, some moments after its commit.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        (self.leaf_index != UNNUMBERED).then_some(self.leaf_index)
    }
}

/// What the first record of a chain names as the one before it.
pub const NO_RECORD: Digest = Digest::from_bytes([0; 32]);

impl AuditDraft {
    /// Writes the canonical body and binds it to its place.
    #[must_use]
    pub fn seal(self, place: &AuditPlace<'_>) -> AuditRecord {
        let body = self.body(place);
        AuditRecord {
            hash: record_hash(&place.prev_hash, place.seq, &body),
            chain: self.chain,
            seq: place.seq,
            leaf_index: place.leaf_index,
            body,
            prev_hash: place.prev_hash,
            at: place.at,
        }
    }

    fn body(&self, place: &AuditPlace<'_>) -> String {
        let (reason, whole) = shown(&self.reason);
        let mut digests = self.digests.clone();
        if let Some(whole) = whole {
            digests.insert("reason".to_owned(), whole.to_string());
        }
        let kind = self.actor.id.split_once(':').map_or("unknown", |(kind, _)| kind);
        let mut body = json!({
            "v": 1,
            "cluster": place.cluster,
            "incarnation": place.incarnation,
            "chain": self.chain,
            "seq": integer(place.seq),
            "ts_db": place.at.to_string(),
            "actor": { "kind": kind, "id": self.actor.id, "roles": [], "auth_method": self.actor.method, "session": null },
            "on_behalf_of": null,
            "op": self.op,
            "object": { "type": self.object_type, "id": self.object_id },
            "before_state": self.before,
            "after_state": self.after,
            "fence": self.fence.as_deref().map(fence),
            "digests": digests,
            "reason": reason,
            "request": self.request,
            "redactions": [],
        });
        // Keys come out sorted and without white space (see `Digest::of_json`).
        body.sort_all_objects();
        body.to_string()
    }
}

/// The digest that pins a row: of its whole document as stored, version and state included.
///
/// # Errors
/// When the row cannot be written as JSON.
pub fn row_digest<T: Serialize>(row: &T) -> Result<String, serde_json::Error> {
    Digest::of_json(row).map(|digest| digest.to_string())
}

/// The hash of a record.
fn record_hash(prev: &Digest, seq: u64, body: &str) -> Digest {
    let mut bytes = Vec::with_capacity(DOMAIN.len() + 32 + 8 + 32);
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(prev.as_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(Digest::of(body.as_bytes()).as_bytes());
    Digest::of(&bytes)
}

fn integer(value: u64) -> Value {
    if value > MAX_SAFE_INTEGER { Value::from(value.to_string()) } else { Value::from(value) }
}

fn fence(text: &str) -> Value {
    match text.rsplit_once('#').and_then(|(scope, epoch)| Some((scope, epoch.parse().ok()?))) {
        Some((scope, epoch)) => json!({ "scope": scope, "epoch": integer(epoch) }),
        None => json!({ "scope": text, "epoch": null }),
    }
}

/// Free text as it is kept: control characters escaped, cut; with the digest of the whole when it was cut.
fn shown(text: &str) -> (String, Option<Digest>) {
    let mut out = String::new();
    let mut length = 0;
    for c in text.chars() {
        let piece = if c.is_control() { c.escape_unicode().to_string() } else { c.to_string() };
        length += piece.chars().count();
        if length > MAX_REASON {
            return (out, Some(Digest::of(text.as_bytes())));
        }
        out.push_str(&piece);
    }
    (out, None)
}

/// What a record says, as far as checks and views need it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AuditEntry {
    /// The store it was written by.
    pub cluster: String,
    /// That store's incarnation.
    pub incarnation: u32,
    /// The chain it says it is in.
    pub chain: String,
    /// The number it says it has; text when large.
    seq: Value,
    /// The instant it says it was written at.
    pub ts_db: Timestamp,
    /// Who did it.
    pub actor: AuditActor,
    /// What was done.
    pub op: String,
    /// To what.
    pub object: AuditObject,
    /// The state before it.
    pub before_state: Option<String>,
    /// The state after it.
    pub after_state: Option<String>,
    /// What pins the subject, by role.
    pub digests: BTreeMap<String, String>,
}

/// Who is behind an entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AuditActor {
    /// The principal's id.
    pub id: String,
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct AuditObject {
    /// `run`, `phase`, `request`, `apply`, ...
    #[serde(rename = "type")]
    pub kind: String,
    /// Its id.
    pub id: String,
}

impl AuditRecord {
    /// Reads the body.
    ///
    /// # Errors
    /// When the body is not one that [`AuditDraft::seal`] writes.
    pub fn entry(&self) -> Result<AuditEntry, serde_json::Error> {
        serde_json::from_str(&self.body)
    }
}

/// The first thing that is wrong with a log; each kind has its exit code in `audit.md` 6.3.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditBreak {
    /// A record is changed, missing, moved or forged.
    #[error("chain {chain} breaks at record {seq}: {why}")]
    Chain {
        /// Which chain.
        chain: String,
        /// The first bad record.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The end of a chain is gone.
    #[error("chain {chain} ends at record {found}, but its head says {expected}")]
    MissingTail {
        /// Which chain.
        chain: String,
        /// The last record there is.
        found: u64,
        /// The last record there must be.
        expected: u64,
    },
    /// The log is whole, but the store's rows say something else.
    #[error("{object}: {why}")]
    Semantic {
        /// Which row, as `type id`.
        object: String,
        /// How the two differ.
        why: String,
    },
}

impl AuditBreak {
    /// The exit code of `autopack audit verify` for it.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Chain { .. } => 2,
            Self::MissingTail { .. } => 3,
            Self::Semantic { .. } => 6,
        }
    }
}

/// Checks one chain record by record, so that a long one never has to be in memory.
#[derive(Debug, Clone)]
pub struct ChainCheck {
    chain: String,
    seq: u64,
    prev: Digest,
}

impl ChainCheck {
    /// Starts before the first record.
    #[must_use]
    pub fn new(chain: &str) -> Self {
        Self { chain: chain.to_owned(), seq: 0, prev: NO_RECORD }
    }

    /// The number of the last good record.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Checks the next record.
    ///
    /// # Errors
    /// [`AuditBreak::Chain`] at the first record that is not the one that must follow.
    pub fn push(&mut self, record: &AuditRecord) -> Result<AuditEntry, AuditBreak> {
        let seq = self.seq + 1;
        if record.seq != seq {
            return Err(self.broken(format!("record {} stands in its place", record.seq)));
        }
        if record.prev_hash != self.prev {
            return Err(self.broken("it does not follow the record before it".to_owned()));
        }
        if record.hash != record_hash(&self.prev, seq, &record.body) {
            return Err(self.broken("its body is not the one that was hashed".to_owned()));
        }
        let entry = record.entry().map_err(|e| self.broken(format!("its body cannot be read: {e}")))?;
        let placed = record.chain == self.chain && entry.chain == self.chain;
        if !placed || entry.seq != integer(seq) || entry.ts_db != record.at {
            return Err(self.broken("its columns and its body disagree".to_owned()));
        }
        self.seq = seq;
        self.prev = record.hash;
        Ok(entry)
    }

    /// Compares the end of the chain with its head: last number and last hash.
    ///
    /// # Errors
    /// [`AuditBreak::MissingTail`] when the head knows more records, [`AuditBreak::Chain`] when it knows others.
    pub fn finish(self, head: (u64, Digest)) -> Result<(), AuditBreak> {
        match head {
            (seq, _) if seq > self.seq => {
                Err(AuditBreak::MissingTail { chain: self.chain, found: self.seq, expected: seq })
            }
            (seq, _) if seq < self.seq => Err(AuditBreak::Chain {
                seq: seq + 1,
                chain: self.chain,
                why: format!("the head knows {seq} records only"),
            }),
            (seq, hash) if hash != self.prev => {
                Err(AuditBreak::Chain { seq, chain: self.chain, why: "the head has another hash".to_owned() })
            }
            (..) => Ok(()),
        }
    }

    fn broken(&self, why: String) -> AuditBreak {
        AuditBreak::Chain { chain: self.chain.clone(), seq: self.seq + 1, why }
    }
}

/// Checks a whole chain against its head.
///
/// # Errors
/// The first [`AuditBreak`].
pub fn verify_chain(chain: &str, records: &[AuditRecord], head: (u64, Digest)) -> Result<(), AuditBreak> {
    let mut check = ChainCheck::new(chain);
    for record in records {
        check.push(record)?;
    }
    check.finish(head)
}

#[cfg(test)]
mod tests;

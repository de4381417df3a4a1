//! The facts of a change: everything a verdict needs, taken from two trees once and then plain data. The same facts
//! give the same verdict anywhere, today and when a stored decision is replayed.

mod entry;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{Digest, Oid};
use super::path::RepoPath;

pub use entry::{Entry, EntryPath, FileMode, LinkEnd, LinkTarget, MovedFrom, Op};

/// A binary file above this size cannot be approved by anybody.
pub const MAX_BINARY_BYTES: u64 = 1024 * 1024;
/// Added lines above this length need approval.
pub const MAX_LINE_CHARS: u64 = 2_000;

/// What a change of a base commit to a result tree consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChangeFacts {
    /// Added plus removed lines, gross.
    pub size: u64,
    /// Added lines.
    pub added: u64,
    /// Removed lines.
    pub removed: u64,
    /// Distinct paths; may exceed the entries where the change is too large to list.
    pub files: u64,
    /// Distinct parent directories; the root counts as one.
    pub dirs: u64,
    /// The changed paths in path order.
    pub entries: Vec<Entry>,
    /// Limits that the change exceeds. Where there is one, lines may not have been counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excess: Vec<Excess>,
    /// Groups of paths of the result that some file system takes for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collisions: Vec<Vec<String>>,
    /// Paths of the base that hold the same content as a changed file, by the id of that content.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Vec<RepoPath>>")]
    pub origins: BTreeMap<Oid, Vec<RepoPath>>,
}

/// A limit that a change exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Excess {
    /// What there is too much of.
    pub of: ExcessKind,
    /// How much there is; at least, where counting stopped.
    pub value: u64,
    /// How much is judged.
    pub limit: u64,
}

/// What there can be too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExcessKind {
    /// Changed paths.
    Files,
    /// Changed lines.
    Lines,
    /// Bytes of new content.
    Bytes,
    /// Tree entries that had to be looked at.
    TreeEntries,
}

impl ChangeFacts {
    /// Whether nothing changed.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.excess.is_empty()
    }

    /// Puts facts together: sorts the entries and sums them up.
    #[must_use]
    pub fn from_entries(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let mut facts = Self { files: entries.len() as u64, ..Self::default() };
        let mut dirs: Vec<&str> = entries.iter().map(|entry| entry.path.parent()).collect();
        dirs.sort_unstable();
        dirs.dedup();
        facts.dirs = dirs.len() as u64;
        facts.added = entries.iter().map(|entry| entry.added).sum();
        facts.removed = entries.iter().map(|entry| entry.removed).sum();
        facts.size = facts.added.saturating_add(facts.removed);
        facts.entries = entries;
        facts
    }

    /// The SHA-256 of the facts.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(self).expect("every map of the facts has text keys")
    }
}

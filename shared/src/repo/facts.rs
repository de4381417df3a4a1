//! From two trees to the facts of a change. The walk looks only into what differs, within a budget; limits are checked
//! before any content is read, so that a bomb is refused and not unpacked.

mod content;
mod links;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use git2::Repository;

use crate::domain::change::{ChangeFacts, Entry, EntryPath, Excess, ExcessKind, FileMode, MovedFrom, Op};
use crate::domain::ids::Oid;

use super::raw::{self, RawError};
use walk::{Change, Side, Walk};

/// What a change may consist of before it is refused unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Changed paths.
    pub files: u64,
    /// Changed lines.
    pub lines: u64,
    /// Bytes of new content.
    pub bytes: u64,
    /// Tree entries looked at.
    pub tree_entries: u64,
    /// Files listed below the targets of symlinks, over the whole change.
    pub link_contents: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { files: 2_000, lines: 100_000, bytes: 50 * 1024 * 1024, tree_entries: 1_000_000, link_contents: 1_000 }
    }
}

/// Why there are no facts.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// An object is missing, damaged or of the wrong kind.
    #[error(transparent)]
    Object(#[from] RawError),
    /// The lines of a file could not be compared.
    #[error("the lines of {path} could not be compared")]
    Lines {
        /// The file.
        path: String,
        /// What libgit2 says.
        source: git2::Error,
    },
}

impl FactsError {
    /// Whether the change itself is at fault. Anything else is the machine's, and says nothing about the change.
    #[must_use]
    pub fn is_of_the_change(&self) -> bool {
        match self {
            Self::Object(RawError::Kind { .. } | RawError::Tree { .. }) | Self::Lines { .. } => true,
            Self::Object(RawError::Object { source, .. }) => source.code() == git2::ErrorCode::NotFound,
        }
    }
}

/// The facts of changing a commit's tree to another tree.
///
/// # Errors
/// [`FactsError`] when an object of the difference is missing or damaged.
pub fn change_facts(
    repo: &Repository,
    base: Oid,
    result_tree: Oid,
    limits: &Limits,
) -> Result<ChangeFacts, FactsError> {
    let base_tree = raw::tree_of_commit(repo, base)?;
    tree_facts(repo, base_tree, result_tree, limits)
}

/// The facts of changing a tree to another tree.
///
/// # Errors
/// [`FactsError`] when an object of the difference is missing or damaged.
pub fn tree_facts(
    repo: &Repository,
    base_tree: Oid,
    result_tree: Oid,
    limits: &Limits,
) -> Result<ChangeFacts, FactsError> {
    let odb = repo.odb().map_err(|source| RawError::Object { id: base_tree, source })?;
    let mut walk = Walk::new(&odb, limits);
    walk.compare(base_tree, result_tree)?;
    walk.changes.sort_by(|a, b| a.path.cmp(&b.path));
    let mut excess = walk.excess();
    let moves = pair_moves(&walk.changes);
    let bytes = new_bytes(&odb, &walk.changes, &moves)?;
    if bytes > limits.bytes {
        excess.push(Excess { of: ExcessKind::Bytes, value: bytes, limit: limits.bytes });
    }
    let readable = excess.is_empty();
    let mut entries = Vec::with_capacity(walk.changes.len());
    for (index, change) in walk.changes.iter().enumerate() {
        let mut entry = entry_of(change);
        let partner = moves.get(&index).map(|other| &walk.changes[*other]);
        if let (Some(partner), Op::Add) = (partner, entry.op) {
            entry.moved_from = partner
                .old
                .map(|side| MovedFrom { path: EntryPath::of(&partner.path).shown().to_owned(), mode: side.entry.mode });
        }
        if readable {
            content::measure(&odb, change, partner.is_some(), &mut entry)?;
        }
        entries.push(entry);
    }
    let origins = if readable { walk.origins(base_tree, &origin_ids(&walk.changes, &odb)?)? } else { BTreeMap::new() };
    if readable {
        links::resolve(&odb, result_tree, &mut entries, limits)?;
        excess = walk.excess();
    }
    let mut facts = ChangeFacts::from_entries(entries);
    facts.files = walk.changed;
    if facts.size > limits.lines {
        excess.push(Excess { of: ExcessKind::Lines, value: facts.size, limit: limits.lines });
    }
    facts.collisions = walk.collisions;
    facts.excess = excess;
    facts.origins = origins;
    Ok(facts)
}

fn entry_of(change: &Change) -> Entry {
    let mode = |side: Option<Side>| side.map_or(FileMode::ABSENT, |side| side.entry.mode);
    let mut entry = Entry::new(change.entry_path(), mode(change.old), mode(change.new));
    if let (Op::Modify, Some(old), Some(new)) = (entry.op, change.old, change.new)
        && old.entry.id == new.entry.id
    {
        entry.op = Op::Mode;
    }
    entry.new_id = change.new.map(|side| side.entry.id);
    entry.odd_mode = change.new.is_some_and(|side| side.entry.padded);
    entry.below_symlink = change.below_symlink;
    entry.below_gitlink = change.below_gitlink;
    entry
}

/// Pairs each deleted file with one added file of the same content, in path order, both ways.
fn pair_moves(changes: &[Change]) -> BTreeMap<usize, usize> {
    let mut deleted: BTreeMap<Oid, Vec<usize>> = BTreeMap::new();
    for (index, change) in changes.iter().enumerate().rev() {
        if let (Some(old), None) = (change.old, change.new)
            && old.entry.mode.is_regular()
        {
            deleted.entry(old.entry.id).or_default().push(index);
        }
    }
    let mut moves = BTreeMap::new();
    for (index, change) in changes.iter().enumerate() {
        if let (None, Some(new)) = (change.old, change.new)
            && new.entry.mode.is_regular()
            && let Some(partner) = deleted.get_mut(&new.entry.id).and_then(Vec::pop)
        {
            moves.insert(index, partner);
            moves.insert(partner, index);
        }
    }
    moves
}

/// The bytes of content that is new, from the headers alone.
fn new_bytes(odb: &git2::Odb<'_>, changes: &[Change], moves: &BTreeMap<usize, usize>) -> Result<u64, RawError> {
    let mut total = 0_u64;
    for (index, change) in changes.iter().enumerate() {
        let same = change.old.map(|side| side.entry.id) == change.new.map(|side| side.entry.id);
        if let Some(new) = change.new.filter(Side::has_blob)
            && !same
            && !moves.contains_key(&index)
        {
            total = total.saturating_add(raw::blob_size(odb, new.entry.id)?);
        }
    }
    Ok(total)
}

/// The ids of new content that could have been copied from somewhere; the empty file never counts.
fn origin_ids(changes: &[Change], odb: &git2::Odb<'_>) -> Result<BTreeSet<Oid>, RawError> {
    let mut ids = BTreeSet::new();
    for change in changes {
        if let Some(new) = change.new.filter(Side::has_blob)
            && change.old.is_none_or(|old| old.entry.id != new.entry.id)
            && raw::blob_size(odb, new.entry.id)? > 0
        {
            ids.insert(new.entry.id);
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;

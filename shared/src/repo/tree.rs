//! Tree objects as git stores them: names are bytes, modes are numbers, nothing is normalised. libgit2's own readers
//! and writers round modes and refuse names; judging hostile trees needs to see both as they are.

use std::collections::{BTreeMap, HashSet};

use git2::{ErrorCode, ObjectType, Odb, Repository};

use super::open::{from_git, to_git};
use crate::domain::ids::Oid;

mod fresh;

pub use fresh::fresh;

/// The deepest nesting that is followed; deeper trees are refused before the stack is.
pub const MAX_DEPTH: usize = 256;

/// Why a tree could not be read, compared or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// An object that is referred to is not in the repository (a partial clone, or a pack that is not whole).
    #[error("object {oid} is missing")]
    Missing {
        /// The object.
        oid: Oid,
    },
    /// The object is of another kind than its place demands.
    #[error("object {oid} is not a {wanted}")]
    WrongKind {
        /// The object.
        oid: Oid,
        /// The kind that was expected.
        wanted: &'static str,
    },
    /// The bytes of a tree break the format, are out of order or name an entry twice.
    #[error("tree {oid} is malformed: {why}")]
    Malformed {
        /// The tree.
        oid: Oid,
        /// The rule it breaks.
        why: &'static str,
    },
    /// An entry is called like git's own folder, in some spelling: git itself refuses such a tree.
    #[error("{path} is git's own folder")]
    GitInternal {
        /// The path, lossily as text.
        path: String,
    },
    /// More entries or more depth than the budget allows.
    #[error("the tree has more than {limit} {unit}")]
    TooComplex {
        /// The budget.
        limit: usize,
        /// What was counted.
        unit: &'static str,
    },
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

impl TreeError {
    /// What a failed read of `oid` means: libgit2's "not found" is [`TreeError::Missing`].
    #[must_use]
    pub fn reading(error: git2::Error, oid: Oid) -> Self {
        if error.code() == ErrorCode::NotFound { Self::Missing { oid } } else { Self::Git(error) }
    }
}

/// One entry of one tree object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The mode as stored.
    pub mode: u32,
    /// One path component, as bytes.
    pub name: Vec<u8>,
    /// The object.
    pub oid: Oid,
}

impl Entry {
    /// Whether this is a folder.
    #[must_use]
    pub const fn is_tree(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Whether this is a symbolic link.
    #[must_use]
    pub const fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }

    /// Whether this is a submodule's commit.
    #[must_use]
    pub const fn is_gitlink(&self) -> bool {
        self.mode & 0o170_000 == 0o160_000
    }

    /// Whether this is a regular file.
    #[must_use]
    pub const fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }

    /// The mode and object, without the name.
    #[must_use]
    pub const fn leaf(&self) -> Leaf {
        Leaf { mode: self.mode, oid: self.oid }
    }

    fn order(&self) -> Vec<u8> {
        let mut key = self.name.clone();
        if self.is_tree() {
            key.push(b'/');
        }
        key
    }
}

/// One side of a changed path: its mode and its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// The mode as stored.
    pub mode: u32,
    /// The blob, or the commit of a submodule.
    pub oid: Oid,
}

/// One path that differs between two trees. A file that became a folder is one deletion and the additions below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryChange {
    /// The whole path from the root, as bytes.
    pub path: Vec<u8>,
    /// What was there before.
    pub old: Option<Leaf>,
    /// What is there now.
    pub new: Option<Leaf>,
}

/// Reads one tree object.
///
/// # Errors
/// [`TreeError::Missing`], [`TreeError::WrongKind`] or [`TreeError::Malformed`].
pub fn read(odb: &Odb<'_>, oid: Oid) -> Result<Vec<Entry>, TreeError> {
    let object = odb.read(to_git(oid)).map_err(|error| TreeError::reading(error, oid))?;
    if object.kind() != ObjectType::Tree {
        return Err(TreeError::WrongKind { oid, wanted: "tree" });
    }
    parse(object.data()).map_err(|why| TreeError::Malformed { oid, why })
}

/// Writes one tree object; the entries may come in any order.
///
/// # Errors
/// When the object store cannot be written.
pub fn write(odb: &Odb<'_>, mut entries: Vec<Entry>) -> Result<Oid, TreeError> {
    entries.sort_by_key(Entry::order);
    let mut bytes = Vec::with_capacity(entries.len() * 48);
    for entry in &entries {
        bytes.extend_from_slice(format!("{:o} ", entry.mode).as_bytes());
        bytes.extend_from_slice(&entry.name);
        bytes.push(0);
        bytes.extend_from_slice(entry.oid.as_bytes());
    }
    Ok(from_git(odb.write(ObjectType::Tree, &bytes)?))
}

/// The tree of a commit, of a tag on one, or of a tree itself.
///
/// # Errors
/// [`TreeError::Missing`] or [`TreeError::WrongKind`].
pub fn tree_of(repo: &Repository, oid: Oid) -> Result<Oid, TreeError> {
    let object = repo.find_object(to_git(oid), None).map_err(|error| TreeError::reading(error, oid))?;
    let tree = object.peel(ObjectType::Tree).map_err(|_| TreeError::WrongKind { oid, wanted: "commit or tree" })?;
    Ok(from_git(tree.id()))
}

/// Lists the paths that differ between two trees (`None` is the empty tree), in path order, walking only what differs.
///
/// # Errors
/// [`TreeError::TooComplex`] past `limit` paths or [`MAX_DEPTH`] levels, and whatever reading meets.
pub fn diff(
    repo: &Repository,
    old: Option<Oid>,
    new: Option<Oid>,
    limit: usize,
) -> Result<Vec<EntryChange>, TreeError> {
    let mut walk = Walk { odb: &repo.odb()?, limit, path: Vec::new(), changes: Vec::new() };
    walk.descend(old, new, 0)?;
    let mut changes = walk.changes;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(changes)
}

/// Every tree and blob that a tree reaches, without `known` and what is below it. Each object is visited once, so a
/// small object store cannot make this long.
///
/// # Errors
/// [`TreeError::Missing`] when the tree is not whole, [`TreeError::TooComplex`] when it is too deep.
pub fn closure(odb: &Odb<'_>, root: Oid, known: &HashSet<Oid>) -> Result<Vec<Oid>, TreeError> {
    let mut seen = known.clone();
    let mut found = Vec::new();
    let mut open = vec![(root, 0)];
    while let Some((tree, depth)) = open.pop() {
        if !seen.insert(tree) {
            continue;
        }
        deep(depth)?;
        found.push(tree);
        for entry in read(odb, tree)? {
            if entry.is_tree() {
                open.push((entry.oid, depth + 1));
            } else if !entry.is_gitlink() && seen.insert(entry.oid) {
                if !odb.exists(to_git(entry.oid)) {
                    return Err(TreeError::Missing { oid: entry.oid });
                }
                found.push(entry.oid);
            }
        }
    }
    Ok(found)
}

pub(super) fn deep(depth: usize) -> Result<(), TreeError> {
    if depth > MAX_DEPTH { Err(TreeError::TooComplex { limit: MAX_DEPTH, unit: "levels" }) } else { Ok(()) }
}

/// Entries by name, for walking several trees side by side.
pub(super) fn by_name(odb: &Odb<'_>, tree: Option<Oid>) -> Result<BTreeMap<Vec<u8>, Entry>, TreeError> {
    let Some(tree) = tree else {
        return Ok(BTreeMap::new());
    };
    Ok(read(odb, tree)?.into_iter().map(|entry| (entry.name.clone(), entry)).collect())
}

fn parse(mut rest: &[u8]) -> Result<Vec<Entry>, &'static str> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut names = HashSet::new();
    while !rest.is_empty() {
        let space = rest.iter().position(|byte| *byte == b' ').ok_or("an entry has no mode")?;
        let (mode, tail) = (&rest[..space], &rest[space + 1..]);
        let mode = std::str::from_utf8(mode)
            .ok()
            .and_then(|text| u32::from_str_radix(text, 8).ok())
            .ok_or("a mode is no number")?;
        let end = tail.iter().position(|byte| *byte == 0).ok_or("a name does not end")?;
        let (name, tail) = (&tail[..end], &tail[end + 1..]);
        let oid: [u8; 20] = tail.get(..20).and_then(|id| id.try_into().ok()).ok_or("an object id is cut off")?;
        if name.is_empty() || name.contains(&b'/') {
            return Err("a name is empty or has a slash");
        }
        if !names.insert(name) {
            return Err("a name stands twice");
        }
        let entry = Entry { mode, name: name.to_vec(), oid: Oid::from_bytes(oid) };
        if entries.last().is_some_and(|last| last.order() >= entry.order()) {
            return Err("the entries are out of order");
        }
        entries.push(entry);
        rest = &tail[20..];
    }
    Ok(entries)
}

struct Walk<'a, 'repo> {
    odb: &'a Odb<'repo>,
    limit: usize,
    path: Vec<u8>,
    changes: Vec<EntryChange>,
}

impl Walk<'_, '_> {
    fn descend(&mut self, old: Option<Oid>, new: Option<Oid>, depth: usize) -> Result<(), TreeError> {
        if old == new {
            return Ok(());
        }
        deep(depth)?;
        let (mut old, mut new) = (by_name(self.odb, old)?, by_name(self.odb, new)?);
        let names: Vec<Vec<u8>> =
            old.keys().chain(new.keys()).cloned().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        for name in names {
            let (before, after) = (old.remove(&name), new.remove(&name));
            if before == after {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            self.pair(before, after, depth)?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn pair(&mut self, before: Option<Entry>, after: Option<Entry>, depth: usize) -> Result<(), TreeError> {
        let split = |entry: Option<Entry>| match entry {
            Some(entry) if entry.is_tree() => (Some(entry.oid), None),
            Some(entry) => (None, Some(entry.leaf())),
            None => (None, None),
        };
        let ((old_tree, old), (new_tree, new)) = (split(before), split(after));
        if old != new {
            if self.changes.len() >= self.limit {
                return Err(TreeError::TooComplex { limit: self.limit, unit: "changed paths" });
            }
            self.changes.push(EntryChange { path: self.path.clone(), old, new });
        }
        self.descend(old_tree, new_tree, depth + 1)
    }
}

#[cfg(test)]
mod tests;

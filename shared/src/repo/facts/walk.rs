//! The walk over two trees: which leaves differ, which names collide, and where the base holds the same content.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use git2::Odb;

use crate::domain::change::{EntryPath, Excess, ExcessKind, FileMode};
use crate::domain::ids::Oid;
use crate::domain::path::{MAX_DEPTH, MatchKey, RepoPath};
use crate::repo::raw::{self, RawEntry, RawError, RawTree};

use super::Limits;

/// A leaf on one side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    pub(super) entry: RawEntry,
}

impl Side {
    /// Whether there is content behind it.
    pub(super) fn has_blob(&self) -> bool {
        self.entry.mode.is_regular() || self.entry.mode == FileMode::SYMLINK
    }
}

/// A leaf that differs.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The bytes of the path, a `/` inside a single name escaped.
    pub(super) path: Vec<u8>,
    pub(super) old: Option<Side>,
    pub(super) new: Option<Side>,
    pub(super) below_symlink: bool,
    pub(super) below_gitlink: bool,
}

impl Change {
    pub(super) fn entry_path(&self) -> EntryPath {
        EntryPath::of(&self.path)
    }
}

/// Where the walk is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    depth: usize,
    below_symlink: bool,
    below_gitlink: bool,
}

pub(super) struct Walk<'a> {
    odb: &'a Odb<'a>,
    limits: &'a Limits,
    seen: u64,
    /// The changed leaves, at most one more than the limit.
    pub(super) changes: Vec<Change>,
    /// How many there are.
    pub(super) changed: u64,
    pub(super) collisions: Vec<Vec<String>>,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(odb: &'a Odb<'a>, limits: &'a Limits) -> Self {
        Self { odb, limits, seen: 0, changes: Vec::new(), changed: 0, collisions: Vec::new() }
    }

    /// What is too much.
    pub(super) fn excess(&self) -> Vec<Excess> {
        let counts = [
            (ExcessKind::Files, self.changed, self.limits.files),
            (ExcessKind::TreeEntries, self.seen, self.limits.tree_entries),
        ];
        counts
            .into_iter()
            .filter(|(_, value, limit)| value > limit)
            .map(|(of, value, limit)| Excess { of, value, limit })
            .collect()
    }

    pub(super) fn compare(&mut self, base: Oid, result: Oid) -> Result<(), RawError> {
        if base == result {
            return Ok(());
        }
        self.compare_trees(&[], Some(base), Some(result), Place::default()).map(|_| ())
    }

    /// Reads a tree within the budget; nothing once it is spent.
    fn read(&mut self, id: Option<Oid>) -> Result<RawTree, RawError> {
        let Some(id) = id.filter(|_| self.seen <= self.limits.tree_entries) else {
            return Ok(Vec::new());
        };
        let tree = raw::read_tree(self.odb, id)?;
        self.seen = self.seen.saturating_add(tree.len() as u64);
        Ok(tree)
    }

    /// Compares two directories and says whether the result has anything new in it.
    fn compare_trees(
        &mut self,
        prefix: &[u8],
        base: Option<Oid>,
        result: Option<Oid>,
        place: Place,
    ) -> Result<bool, RawError> {
        let base = self.read(base)?;
        let result = self.read(result)?;
        let old: HashMap<&[u8], RawEntry> = base.iter().map(|(name, entry)| (name.as_slice(), *entry)).collect();
        let mut touched: BTreeSet<&[u8]> = BTreeSet::new();
        let mut in_result: BTreeSet<&[u8]> = BTreeSet::new();
        for (name, new) in &result {
            if !in_result.insert(name) {
                let twice = vec![EntryPath::of(&join(prefix, name)).shown().to_owned(); 2];
                self.collisions.push(twice);
            }
            if self.compare_entry(prefix, name, old.get(name.as_slice()).copied(), Some(*new), place)? {
                touched.insert(name);
            }
        }
        for (name, entry) in &base {
            if !in_result.contains(name.as_slice()) {
                self.compare_entry(prefix, name, Some(*entry), None, place)?;
            }
        }
        if !touched.is_empty() {
            self.find_collisions(prefix, &in_result, &touched);
        }
        Ok(!touched.is_empty())
    }

    fn compare_entry(
        &mut self,
        prefix: &[u8],
        name: &[u8],
        old: Option<RawEntry>,
        new: Option<RawEntry>,
        place: Place,
    ) -> Result<bool, RawError> {
        let same = |(old, new): (RawEntry, RawEntry)| old.mode == new.mode && old.id == new.id;
        if old.zip(new).is_some_and(same) {
            return Ok(false);
        }
        let path = join(prefix, name);
        let tree_of = |entry: Option<RawEntry>| entry.filter(RawEntry::is_tree);
        let leaf_of = |entry: Option<RawEntry>| entry.filter(|entry| !entry.is_tree());
        let (old_tree, new_tree) = (tree_of(old), tree_of(new));
        let (old_leaf, new_leaf) = (leaf_of(old), leaf_of(new));
        let mut has_new = false;
        if old_leaf.is_some() || new_leaf.is_some() {
            self.record(path.clone(), old_leaf, new_leaf, place);
            has_new = new_leaf.is_some();
        }
        if old_tree.is_some() || new_tree.is_some() {
            if place.depth + 1 >= MAX_DEPTH {
                // Too deep to look into: one entry stands for all of it, and its path is refused.
                self.record(join(&path, "too deep to list".as_bytes()), old_tree, new_tree, place);
                return Ok(has_new || new_tree.is_some());
            }
            let leads = |mode| old_leaf.is_some_and(|leaf| leaf.mode == mode);
            let below = Place {
                depth: place.depth + 1,
                below_symlink: place.below_symlink || leads(FileMode::SYMLINK),
                below_gitlink: place.below_gitlink || leads(FileMode::GITLINK),
            };
            let (old_id, new_id) = (old_tree.map(|entry| entry.id), new_tree.map(|entry| entry.id));
            has_new |= self.compare_trees(&path, old_id, new_id, below)?;
        }
        Ok(has_new)
    }

    fn record(&mut self, path: Vec<u8>, old: Option<RawEntry>, new: Option<RawEntry>, place: Place) {
        self.changed += 1;
        if self.changes.len() as u64 > self.limits.files {
            return;
        }
        let side = |entry: Option<RawEntry>| entry.map(|entry| Side { entry });
        let Place { below_symlink, below_gitlink, .. } = place;
        self.changes.push(Change { path, old: side(old), new: side(new), below_symlink, below_gitlink });
    }

    /// Names of one directory that fold to the same key, where the change touches one of them.
    fn find_collisions(&mut self, prefix: &[u8], names: &BTreeSet<&[u8]>, touched: &BTreeSet<&[u8]>) {
        let mut by_key: HashMap<MatchKey, Vec<&[u8]>> = HashMap::new();
        for name in names {
            if let Ok(text) = std::str::from_utf8(name) {
                by_key.entry(MatchKey::of(text)).or_default().push(name);
            }
        }
        let mut groups: Vec<Vec<&[u8]>> = by_key
            .into_values()
            .filter(|group| group.len() > 1 && group.iter().any(|name| touched.contains(name)))
            .collect();
        groups.sort();
        let shown = |name: &&[u8]| EntryPath::of(&join(prefix, name)).shown().to_owned();
        self.collisions.extend(groups.iter().map(|group| group.iter().map(shown).collect::<Vec<String>>()));
    }

    /// The paths of the base that hold one of the contents.
    pub(super) fn origins(&mut self, base: Oid, ids: &BTreeSet<Oid>) -> Result<BTreeMap<Oid, Vec<RepoPath>>, RawError> {
        let mut found = BTreeMap::new();
        if !ids.is_empty() {
            self.find_origins(&[], base, 0, ids, &mut found)?;
        }
        Ok(found)
    }

    fn find_origins(
        &mut self,
        prefix: &[u8],
        tree: Oid,
        depth: usize,
        ids: &BTreeSet<Oid>,
        found: &mut BTreeMap<Oid, Vec<RepoPath>>,
    ) -> Result<(), RawError> {
        for (name, entry) in self.read(Some(tree))? {
            let path = join(prefix, &name);
            if entry.is_tree() && depth + 1 < MAX_DEPTH {
                self.find_origins(&path, entry.id, depth + 1, ids, found)?;
            } else if ids.contains(&entry.id)
                && let Ok(path) = RepoPath::inspect(&path)
            {
                found.entry(entry.id).or_default().push(path);
            }
        }
        Ok(())
    }
}

/// A path below a directory. A `/` inside a name would make another path of it, so it is escaped: a backslash is
/// refused wherever it stands.
pub(super) fn join(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = prefix.to_vec();
    if !prefix.is_empty() {
        path.push(b'/');
    }
    for byte in name {
        match byte {
            b'/' => path.extend_from_slice(b"\\x2f"),
            other => path.push(*other),
        }
    }
    path
}

//! Three-way merges of trees as objects: no work tree, no index, no attributes, no rename detection, no merge driver.
//! What is not clean is a list of paths for a person; nothing half-merged is ever written.

use std::collections::BTreeSet;

use git2::{MergeFileInput, MergeFileOptions, ObjectType, Odb, Repository};

use super::open::{from_git, to_git};
use super::tree::{self, Entry, TreeError};
use crate::domain::ids::Oid;

/// What a merge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// One tree holds both sides.
    Clean(Oid),
    /// Both sides changed these paths in ways that do not fit together, in path order.
    Conflict(Vec<Vec<u8>>),
}

/// Moves a change onto another commit: what `base_commit -> result_tree` did, done to `onto_commit`.
///
/// # Errors
/// [`TreeError`] when an object cannot be read or written.
pub fn rebase_tree(
    repo: &Repository,
    base_commit: Oid,
    result_tree: Oid,
    onto_commit: Oid,
) -> Result<Merged, TreeError> {
    let (base, onto) = (tree::tree_of(repo, base_commit)?, tree::tree_of(repo, onto_commit)?);
    merge(repo, base, onto, result_tree)
}

/// Takes a change back after later work landed: undoes `save_tree -> applied_tree` in `tip_tree`.
///
/// # Errors
/// [`TreeError`] when an object cannot be read or written.
pub fn revert_tree(repo: &Repository, save_tree: Oid, applied_tree: Oid, tip_tree: Oid) -> Result<Merged, TreeError> {
    merge(repo, applied_tree, tip_tree, save_tree)
}

/// Merges two commits over their merge base (the empty tree, if they share no history).
///
/// # Errors
/// [`TreeError`] when an object cannot be read or written.
pub fn merge_commits_tree(repo: &Repository, ours: Oid, theirs: Oid) -> Result<Merged, TreeError> {
    let base = match repo.merge_base(to_git(ours), to_git(theirs)) {
        Ok(base) => tree::tree_of(repo, from_git(base))?,
        Err(error) if error.code() == git2::ErrorCode::NotFound => tree::write(&repo.odb()?, Vec::new())?,
        Err(error) => return Err(error.into()),
    };
    merge(repo, base, tree::tree_of(repo, ours)?, tree::tree_of(repo, theirs)?)
}

/// Whether two changes are the same list of (path, old mode and object, new mode and object).
///
/// # Errors
/// [`TreeError::TooComplex`] past a million changed paths, and whatever reading meets.
pub fn same_entries(repo: &Repository, first: (Oid, Oid), second: (Oid, Oid)) -> Result<bool, TreeError> {
    const LIMIT: usize = 1_000_000;
    let list =
        |(base, result)| tree::diff(repo, Some(tree::tree_of(repo, base)?), Some(tree::tree_of(repo, result)?), LIMIT);
    Ok(list(first)? == list(second)?)
}

/// Merges `ours` and `theirs` over `base`; all three are trees.
///
/// # Errors
/// [`TreeError`] when an object cannot be read or written.
pub fn merge(repo: &Repository, base: Oid, ours: Oid, theirs: Oid) -> Result<Merged, TreeError> {
    let mut merger = Merger { odb: &repo.odb()?, path: Vec::new(), conflicts: Vec::new() };
    let tree = merger.trees(Some(base), Some(ours), Some(theirs), 0)?;
    if !merger.conflicts.is_empty() {
        merger.conflicts.sort();
        return Ok(Merged::Conflict(merger.conflicts));
    }
    match tree {
        Some(tree) => Ok(Merged::Clean(tree)),
        None => Ok(Merged::Clean(tree::write(&repo.odb()?, Vec::new())?)),
    }
}

struct Merger<'a, 'repo> {
    odb: &'a Odb<'repo>,
    path: Vec<u8>,
    conflicts: Vec<Vec<u8>>,
}

/// One path in the three trees.
type Sides = [Option<Entry>; 3];

impl Merger<'_, '_> {
    /// Merges one folder; `None` is a folder that is not there or came out empty.
    fn trees(
        &mut self,
        base: Option<Oid>,
        ours: Option<Oid>,
        theirs: Option<Oid>,
        depth: usize,
    ) -> Result<Option<Oid>, TreeError> {
        if ours == theirs || base == theirs {
            return Ok(ours);
        }
        if base == ours {
            return Ok(theirs);
        }
        tree::deep(depth)?;
        let mut sides =
            [tree::by_name(self.odb, base)?, tree::by_name(self.odb, ours)?, tree::by_name(self.odb, theirs)?];
        let names: BTreeSet<Vec<u8>> = sides.iter().flat_map(|side| side.keys().cloned()).collect();
        let mut merged = Vec::new();
        for name in names {
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            merged.extend(self.entry(sides.each_mut().map(|side| side.remove(&name)), depth)?);
            self.path.truncate(length);
        }
        // After a conflict the result is thrown away, so nothing more is written.
        if merged.is_empty() || !self.conflicts.is_empty() {
            return Ok(None);
        }
        Ok(Some(tree::write(self.odb, merged)?))
    }

    fn entry(&mut self, sides: Sides, depth: usize) -> Result<Option<Entry>, TreeError> {
        let [base, ours, theirs] = &sides;
        if ours == theirs || base == theirs {
            return Ok(ours.clone());
        }
        if base == ours {
            return Ok(theirs.clone());
        }
        let folder_or_nothing = |side: &Option<Entry>| side.as_ref().is_none_or(Entry::is_tree);
        if sides.iter().all(folder_or_nothing) {
            let name = sides.iter().flatten().next().map(|entry| entry.name.clone()).unwrap_or_default();
            let [base, ours, theirs] = sides.map(|side| side.map(|entry| entry.oid));
            let tree = self.trees(base, ours, theirs, depth + 1)?;
            return Ok(tree.map(|oid| Entry { mode: 0o040_000, name, oid }));
        }
        if let [base, Some(ours), Some(theirs)] = &sides
            && ours.is_file()
            && theirs.is_file()
            && base.as_ref().is_none_or(Entry::is_file)
        {
            return self.files(base.as_ref(), ours, theirs);
        }
        self.conflict();
        Ok(None)
    }

    fn files(&mut self, base: Option<&Entry>, ours: &Entry, theirs: &Entry) -> Result<Option<Entry>, TreeError> {
        let Some(mode) = pick(ours.mode, theirs.mode, base.map(|entry| entry.mode)) else {
            self.conflict();
            return Ok(None);
        };
        let oid = match pick(ours.oid, theirs.oid, base.map(|entry| entry.oid)) {
            Some(oid) => oid,
            None => match self.contents(base, ours, theirs)? {
                Some(bytes) => from_git(self.odb.write(ObjectType::Blob, &bytes)?),
                None => {
                    self.conflict();
                    return Ok(None);
                }
            },
        };
        Ok(Some(Entry { mode, name: ours.name.clone(), oid }))
    }

    /// Merges texts line by line; `None` when they overlap, or when any is binary.
    fn contents(&self, base: Option<&Entry>, ours: &Entry, theirs: &Entry) -> Result<Option<Vec<u8>>, TreeError> {
        let blob =
            |entry: &Entry| self.odb.read(to_git(entry.oid)).map_err(|error| TreeError::reading(error, entry.oid));
        let Some(base) = base else { return Ok(None) };
        let (base, ours, theirs) = (blob(base)?, blob(ours)?, blob(theirs)?);
        if [&base, &ours, &theirs].iter().any(|object| object.data().contains(&0)) {
            return Ok(None);
        }
        let input = |bytes| {
            let mut input = MergeFileInput::new();
            input.content(bytes);
            input
        };
        let (base, ours, theirs) = (input(base.data()), input(ours.data()), input(theirs.data()));
        let result = git2::merge_file(&base, &ours, &theirs, Some(&mut MergeFileOptions::new()))?;
        Ok(result.is_automergeable().then(|| result.content().to_vec()))
    }

    fn conflict(&mut self) {
        self.conflicts.push(self.path.clone());
    }
}

/// The side that changed a value, if only one did or both did alike.
fn pick<T: PartialEq>(ours: T, theirs: T, base: Option<T>) -> Option<T> {
    if ours == theirs || base.as_ref() == Some(&theirs) {
        return Some(ours);
    }
    (base == Some(ours)).then_some(theirs)
}

#[cfg(test)]
mod tests;

//! The files of a checkout: what the index lists, and what differs from it or from HEAD.

use std::collections::BTreeSet;

use git2::{Status, StatusOptions, StatusShow};

use super::digest::as_path;
use super::suspects::suspects;
use super::{StatusError, WorkTree, oid};
use crate::domain::ids::Oid;

/// What an index entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackedKind {
    /// A regular file, perhaps executable.
    File,
    /// A symbolic link.
    Symlink,
    /// The commit of a submodule.
    Submodule,
}

/// One entry of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Its path; not always UTF-8.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: TrackedKind,
    /// The mode as it is stored.
    pub mode: u32,
    /// The object it names.
    pub id: Oid,
    /// 0, or 1 to 3 for the sides of a conflict.
    pub stage: u8,
}

/// How a path differs, as `git status` would tell it. Of several the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Both sides of a merge changed it.
    Conflicted,
    /// It is gone from the work tree, or from the index.
    Deleted,
    /// Its bytes, mode or kind differ from HEAD.
    Modified,
    /// git does not know it.
    Untracked,
}

/// A path that differs between HEAD, index and work tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Its path. Ends in `/` for an untracked folder that is a repository of its own.
    pub path: Vec<u8>,
    /// How it differs.
    pub kind: ChangeKind,
    /// Whether a regular file stands there now.
    pub regular: bool,
}

impl WorkTree {
    /// The entries of the index, in its order.
    ///
    /// # Errors
    /// [`StatusError::Unreadable`] where the index is damaged or uses an extension that is not supported.
    pub fn tracked(&self) -> Result<Vec<Tracked>, StatusError> {
        let index = self.repo.index().map_err(StatusError::unreadable("the index"))?;
        Ok(index
            .iter()
            .map(|entry| Tracked {
                kind: match entry.mode & 0o170_000 {
                    0o120_000 => TrackedKind::Symlink,
                    0o160_000 => TrackedKind::Submodule,
                    _ => TrackedKind::File,
                },
                mode: entry.mode,
                id: oid(entry.id),
                stage: ((entry.flags >> 12) & 3) as u8,
                path: entry.path,
            })
            .collect())
    }

    /// Everything `git status --untracked-files=all` would list, ignored files left out, in path order.
    ///
    /// # Errors
    /// [`StatusError::Unreadable`] where HEAD, index or a folder cannot be read.
    pub fn changes(&self) -> Result<Vec<Change>, StatusError> {
        let suspects = suspects(&self.repo, &self.root, self.index_written);
        if suspects.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Vec::new());
        }
        self.changes_of(suspects)
    }

    /// What `git status` would list of these paths and below them, or of everything.
    pub(super) fn changes_of(&self, paths: Option<Vec<Vec<u8>>>) -> Result<Vec<Change>, StatusError> {
        let mut options = StatusOptions::new();
        for path in paths.into_iter().flatten() {
            options.pathspec(path).disable_pathspec_match(true);
        }
        options
            .show(StatusShow::IndexAndWorkdir)
            .include_untracked(true)
            .recurse_untracked_dirs(true)
            .include_unreadable(true)
            .exclude_submodules(true)
            .update_index(false);
        let all = self.repo.statuses(Some(&mut options));
        let all = all.map_err(StatusError::unreadable("the state of the work tree"))?;
        let mut changes: Vec<Change> = all
            .iter()
            .filter_map(|entry| {
                let kind = kind_of(entry.status())?;
                let path = entry.path_bytes().to_owned();
                let found = std::fs::symlink_metadata(self.root.join(as_path(&path)));
                Some(Change { path, kind, regular: found.is_ok_and(|f| f.is_file()) })
            })
            .collect();
        changes.sort();
        Ok(changes)
    }

    /// The paths that differ between a commit and HEAD, on either side.
    ///
    /// # Errors
    /// [`StatusError::UnknownRevision`], or unreadable trees.
    pub fn changed_since(&self, since: Oid) -> Result<BTreeSet<Vec<u8>>, StatusError> {
        let old = git2::Oid::from_bytes(since.as_bytes())
            .and_then(|id| self.repo.find_object(id, None))
            .and_then(|object| object.peel_to_tree())
            .map_err(|_| StatusError::UnknownRevision(since))?;
        let new = self.head_tree()?;
        let diff = self
            .repo
            .diff_tree_to_tree(Some(&old), Some(&new), None)
            .map_err(StatusError::unreadable("the changes since that commit"))?;
        let mut paths = BTreeSet::new();
        for delta in diff.deltas() {
            for file in [delta.old_file(), delta.new_file()] {
                paths.extend(file.path_bytes().map(<[u8]>::to_owned));
            }
        }
        Ok(paths)
    }
}

fn kind_of(status: Status) -> Option<ChangeKind> {
    if status.is_ignored() || status == Status::CURRENT {
        return None;
    }
    Some(if status.is_conflicted() {
        ChangeKind::Conflicted
    } else if status.intersects(Status::WT_DELETED | Status::INDEX_DELETED) && !status.is_wt_new() {
        ChangeKind::Deleted
    } else if status == Status::WT_NEW {
        ChangeKind::Untracked
    } else {
        ChangeKind::Modified
    })
}

//! Worktrees that are written before anybody asks for one. One is given away only if it still holds, to the last file,
//! what this code wrote, and what a builder had never comes back here: nothing but the objects of the mirror says what is
//! in it.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use git2::Repository;

use super::super::collect::{self, CollectLimits};
use super::super::marks::{Marks, Moment, same_folder};
use super::super::tree;
use super::advance::Advance;
use super::checkout::{self, How, Plan};
use super::{Mirror, MirrorError, Workspace, WorkspaceKey, folders, io_error};
use crate::domain::ids::Oid;

/// The folder of prepared worktrees; those of an earlier life are nobody's.
pub(super) const POOL: &str = ".pool";

/// Entries in which a commit may differ from the one that a worktree was prepared for. Beyond, a fresh one is quicker.
const MOST_CHANGED: usize = 4_000;

/// A worktree that nobody has used.
#[derive(Debug)]
pub struct Prepared {
    base: Oid,
    tree: Oid,
    /// A folder of its own in which the tree is.
    place: PathBuf,
    dir: OwnedFd,
    marks: Marks,
    bytes: u64,
}

impl Prepared {
    /// The commit it was prepared for.
    #[must_use]
    pub const fn base(&self) -> Oid {
        self.base
    }

    /// The bytes of its files.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A tree that was just written.
pub(super) struct Fresh {
    pub(super) marks: Marks,
    pub(super) bytes: u64,
}

/// What is asked of every writing of a whole tree.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    /// Whether threads that are to spare help.
    pub(super) helped: bool,
    pub(super) most_bytes: u64,
    pub(super) wanted: &'a (dyn Fn() -> bool + Sync),
}

impl Mirror {
    /// Writes a commit's tree into a folder of its own, with one thread, as long as it is `wanted`.
    ///
    /// # Errors
    /// [`MirrorError::TooMuch`] when it has more bytes than `most_bytes`, [`MirrorError::Unwanted`], and as
    /// [`Mirror::create`]. Nothing of it stays.
    pub fn prepare(
        &self,
        base: Oid,
        most_bytes: u64,
        wanted: &(dyn Fn() -> bool + Sync),
    ) -> Result<Prepared, MirrorError> {
        let repo = self.repository()?;
        let tree = tree::tree_of(&repo, base)?;
        let plan = Plan::of(&repo.odb()?, tree)?;
        let pool = self.root.join(POOL);
        fs::create_dir_all(&pool).map_err(io_error(&pool))?;
        let place = tempfile::Builder::new().prefix("tree-").tempdir_in(&pool).map_err(io_error(&pool))?;
        let path = place.path().join("tree");
        fs::create_dir(&path).map_err(io_error(&path))?;
        let dir = checkout::open_dir(&path).map_err(io_error(&path))?;
        let Fresh { marks, bytes } =
            self.fill(&plan, dir.as_fd(), &path, Bounds { helped: false, most_bytes, wanted })?;
        Ok(Prepared { base, tree, place: place.keep(), dir, marks, bytes })
    }

    /// As [`Mirror::create`], from a worktree that was prepared: only what differs is written. Where it is not what was
    /// written any more, or too far away, a fresh one is made.
    ///
    /// # Errors
    /// As [`Mirror::create`].
    pub fn create_from(&self, key: &WorkspaceKey, base: Oid, prepared: Prepared) -> Result<Workspace, MirrorError> {
        match self.give(key, base, prepared) {
            Ok(workspace) => Ok(workspace),
            Err((place, why)) => {
                tracing::info!(%why, "a prepared worktree is of no use; a fresh one is made");
                self.throw_away(&place);
                self.create(key, base)
            }
        }
    }

    /// Throws a prepared worktree away.
    pub fn discard(&self, prepared: Prepared) {
        self.throw_away(&prepared.place);
    }

    fn throw_away(&self, place: &Path) {
        if let Err(error) = folders::delete(place) {
            tracing::warn!(path = %place.display(), %error, "a prepared worktree stays until the next start");
        }
    }

    fn give(
        &self,
        key: &WorkspaceKey,
        base: Oid,
        mut prepared: Prepared,
    ) -> Result<Workspace, (PathBuf, Box<dyn std::error::Error>)> {
        let place = prepared.place.clone();
        let ready = || -> Result<Workspace, Box<dyn std::error::Error>> {
            let repo = self.repository()?;
            self.bring(&repo, base, &mut prepared)?;
            let path = self.path_of(key);
            if path.symlink_metadata().is_ok() {
                self.remove(key)?;
            }
            let git_link = self.register(&repo, key, base)?;
            let from = prepared.place.join("tree");
            // An empty folder, which was just made, is replaced.
            fs::rename(&from, &path).map_err(io_error(&path))?;
            let (dir, marks) = (prepared.dir, prepared.marks);
            Ok(Workspace { key: key.clone(), base, path, dir, git_link, marks })
        };
        let workspace = ready().map_err(|why| (place.clone(), why))?;
        if let Err(error) = fs::remove_dir(&place) {
            tracing::warn!(path = %place.display(), %error, "an empty folder stays until the next start");
        }
        Ok(workspace)
    }

    /// Sees that a prepared worktree is what it was, and moves it to a commit.
    fn bring(&self, repo: &Repository, base: Oid, prepared: &mut Prepared) -> Result<(), Box<dyn std::error::Error>> {
        let path = prepared.place.join("tree");
        let named = checkout::open_dir(&path)?;
        // Before the look: what is changed after it is not before this moment either.
        let moment = Moment::now(prepared.dir.as_fd())?;
        if !same_folder(&named, &prepared.dir) || !pristine(repo, prepared)? {
            return Err("somebody has changed it".into());
        }
        prepared.marks.close(moment);
        let tree = tree::tree_of(repo, base)?;
        let odb = repo.odb()?;
        // What is written now is after the moment, so it will be read: it is little.
        let advance = Advance::new(&odb, &path, &mut prepared.marks, MOST_CHANGED);
        Ok(advance.run(prepared.tree, tree, prepared.dir.as_fd())?)
    }

    /// Writes a tree into an empty folder and remembers what was written.
    pub(super) fn fill(
        &self,
        plan: &Plan,
        dir: BorrowedFd<'_>,
        path: &Path,
        bounds: Bounds<'_>,
    ) -> Result<Fresh, MirrorError> {
        let mut marks = Marks::begin(dir);
        let helpers = self.helpers.take(bounds.helped);
        let how = How {
            git: &self.git_dir(),
            shown: path,
            threads: 1 + helpers.count(),
            most_bytes: bounds.most_bytes,
            wanted: bounds.wanted,
        };
        let (written, bytes) = checkout::write(plan, dir, how)?;
        drop(helpers);
        marks.add(written);
        marks.close(Moment::now(dir).map_err(io_error(path))?);
        Ok(Fresh { marks, bytes })
    }
}

/// Whether a prepared worktree is, to the last entry, the tree that was written into it.
fn pristine(repo: &Repository, prepared: &Prepared) -> Result<bool, collect::CollectError> {
    let all = CollectLimits { entries: usize::MAX / 4, depth: tree::MAX_DEPTH, file_bytes: 0, total_bytes: 0 };
    let found = collect::collect_marked(prepared.dir.as_fd(), repo, prepared.tree, &all, Some(&prepared.marks))?;
    let nothing_else = found.ignored == 0 && found.skipped.is_empty() && found.nested_git.is_empty() && !found.root_git;
    Ok(found.result_tree == prepared.tree && nothing_else)
}

#[cfg(test)]
mod tests;

//! Objects on their way between a worker and the hub: packs of just what is new, and the quarantine in which the
//! receiver recomputes everything before a single object enters the hub. A sender is never trusted.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use git2::{Indexer, Repository};
use tempfile::TempDir;

use super::disk;
use super::open::{self, OpenError, to_git};
use super::tree::{self, TreeError};
use crate::domain::ids::Oid;

mod scan;

/// How the folder of a quarantine begins.
const QUARANTINE: &str = "quarantine-";

/// How much a pack may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackBudget {
    /// Bytes after inflating every object and resolving every delta.
    pub inflated: u64,
    /// Objects.
    pub objects: u32,
}

impl Default for PackBudget {
    /// Four times the largest change that is judged at all, so that its trees fit too.
    fn default() -> Self {
        Self { inflated: 200 << 20, objects: 200_000 }
    }
}

/// Why a pack was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// More bytes or objects than the budget allows.
    #[error("the pack holds more than {limit} {unit}")]
    TooLarge {
        /// The budget.
        limit: u64,
        /// What was counted.
        unit: &'static str,
    },
    /// There is no room for it now.
    #[error("there is no room for a pack of {bytes} bytes now")]
    NoRoom {
        /// What it had come to when it was given up.
        bytes: u64,
    },
    /// The bytes are no pack.
    #[error("the pack is malformed: {why}")]
    Malformed {
        /// The rule it breaks.
        why: &'static str,
    },
    /// The scratch folder cannot be used.
    #[error("cannot write {}", path.display())]
    Scratch {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// An object is missing or unfit.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// Packs the trees and blobs of `result_tree` that `base_commit` does not have; empty when there are none.
///
/// # Errors
/// [`PackError::Tree`] when an object is missing.
pub fn pack_new_objects(repo: &Repository, base_commit: Oid, result_tree: Oid) -> Result<Vec<u8>, PackError> {
    let fresh = new_objects(repo, base_commit, result_tree)?;
    if fresh.is_empty() {
        return Ok(Vec::new());
    }
    let mut builder = repo.packbuilder()?;
    for oid in &fresh {
        builder.insert_object(to_git(*oid), None)?;
    }
    finish(builder, |_| Ok(()))
}

/// Packs a commit with its whole history, without what the commits in `have` already bring. `room` is asked before the
/// pack grows to a number of bytes: how large one gets is known at its end only.
///
/// # Errors
/// [`PackError::Git`] when a commit is missing, and what `room` says.
pub fn pack_history(
    repo: &Repository,
    want: Oid,
    have: &[Oid],
    room: impl FnMut(u64) -> Result<(), PackError>,
) -> Result<Vec<u8>, PackError> {
    let mut walk = repo.revwalk()?;
    walk.push(to_git(want))?;
    for oid in have {
        walk.hide(to_git(*oid))?;
    }
    let mut builder = repo.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    if builder.object_count() == 0 {
        return Ok(Vec::new());
    }
    finish(builder, room)
}

/// Those of the commits that a repository has.
///
/// # Errors
/// When its object store cannot be opened.
pub fn present(repo: &Repository, commits: &[Oid]) -> Result<Vec<Oid>, PackError> {
    let odb = repo.odb()?;
    Ok(commits.iter().copied().filter(|oid| odb.exists(to_git(*oid))).collect())
}

/// Why libgit2 did not index a pack: there is no room for it, or it is no pack.
fn unindexed(source: std::io::Error, path: &Path) -> PackError {
    // Not every writer of libgit2 passes on what it knows.
    let known = git2::Error::last_error(-1);
    if disk::is_full(&source) {
        return PackError::Scratch { path: path.to_path_buf(), source };
    }
    if disk::is_full(&known) {
        return PackError::Git(known);
    }
    PackError::Malformed { why: "libgit2 cannot index it" }
}

/// Puts a pack into a repository's object store, as one pack file. Its bytes must be trusted or quarantined before.
///
/// # Errors
/// When the pack is corrupt or the store cannot be written.
pub fn store_pack(repo: &Repository, pack: &[u8]) -> Result<(), PackError> {
    if pack.is_empty() {
        return Ok(());
    }
    let odb = repo.odb()?;
    let mut writer = odb.packwriter()?;
    writer.write_all(pack).map_err(|error| unindexed(error, repo.path()))?;
    writer.commit()?;
    odb.refresh()?;
    Ok(())
}

/// A private object store over the hub's: it sees the hub's objects, the hub does not see its.
pub struct Quarantine {
    repo: Repository,
    // Removed with everything in it when the quarantine is dropped.
    dir: TempDir,
}

impl Quarantine {
    /// Makes an empty one below `scratch`, borrowing the objects in `hub_objects`.
    ///
    /// # Errors
    /// When the scratch folder cannot be written.
    pub fn new(hub_objects: &Path, scratch: &Path) -> Result<Self, PackError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| PackError::Scratch { path, source }
        };
        std::fs::create_dir_all(scratch).map_err(failed(scratch))?;
        let dir = tempfile::Builder::new().prefix(QUARANTINE).tempdir_in(scratch).map_err(failed(scratch))?;
        drop(open::init_bare(dir.path())?);
        open::borrow_objects(dir.path(), hub_objects).map_err(failed(dir.path()))?;
        Ok(Self { repo: open::open_bare(dir.path())?, dir })
    }

    /// Takes a pack in, after counting what it inflates to without keeping any of it.
    ///
    /// # Errors
    /// [`PackError::TooLarge`] or [`PackError::Malformed`]; nothing of such a pack is kept.
    pub fn ingest(&self, pack: &[u8], budget: &PackBudget) -> Result<(), PackError> {
        if pack.is_empty() {
            return Ok(());
        }
        scan::measure(pack, budget)?;
        let odb = self.repo.odb()?;
        let mut indexer = Indexer::new(Some(&odb), &self.dir.path().join("objects/pack"), 0, false)?;
        indexer.write_all(pack).map_err(|error| unindexed(error, self.dir.path()))?;
        indexer.commit()?;
        odb.refresh()?;
        Ok(())
    }

    /// The repository in which facts are computed: the hub's objects and the quarantined ones.
    #[must_use]
    pub const fn repo(&self) -> &Repository {
        &self.repo
    }

    /// Whether every object that `result_tree` needs over `base_commit` is there, and no tree among them is one that
    /// git would refuse.
    ///
    /// # Errors
    /// [`TreeError::Missing`] names the first object that is not, [`TreeError::GitInternal`] the first such path.
    pub fn verify(&self, base_commit: Oid, result_tree: Oid) -> Result<(), PackError> {
        new_objects(&self.repo, base_commit, result_tree)?;
        Ok(())
    }

    /// Copies into `hub` what `result_tree` needs and `base_commit` does not have, as one pack. Whatever else the
    /// sender put into his pack stays behind.
    ///
    /// # Errors
    /// [`TreeError::Missing`] when the tree is not whole.
    pub fn promote(&self, hub: &Repository, base_commit: Oid, result_tree: Oid) -> Result<(), PackError> {
        store_pack(hub, &pack_new_objects(&self.repo, base_commit, result_tree)?)
    }
}

/// Removes the quarantines that a life which was killed left below `scratch`. One that stays costs room only, and is
/// tried again at the next start.
pub fn sweep_quarantines(scratch: &Path) {
    for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(QUARANTINE.as_bytes())
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a quarantine that an earlier life left stays");
        }
    }
}

/// The trees and blobs that `result_tree` reaches and `base_commit` does not.
fn new_objects(repo: &Repository, base_commit: Oid, result_tree: Oid) -> Result<Vec<Oid>, TreeError> {
    let base = tree::tree_of(repo, base_commit)?;
    if base == result_tree {
        return Ok(Vec::new());
    }
    tree::fresh(&repo.odb()?, base, result_tree)
}

/// Makes the pack piece by piece, so that one that gets too large is given up before it is.
fn finish(
    mut builder: git2::PackBuilder<'_>,
    mut room: impl FnMut(u64) -> Result<(), PackError>,
) -> Result<Vec<u8>, PackError> {
    builder.set_threads(1);
    let (mut bytes, mut refused) = (Vec::new(), None);
    let made = builder.foreach(|piece| {
        match room((bytes.len() + piece.len()) as u64) {
            Ok(()) => bytes.extend_from_slice(piece),
            Err(error) => refused = Some(error),
        }
        refused.is_none()
    });
    match refused {
        Some(error) => Err(error),
        None => made.map(|()| bytes).map_err(PackError::Git),
    }
}

#[cfg(test)]
mod tests;

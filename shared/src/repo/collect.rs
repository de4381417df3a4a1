//! What a builder left in its workspace, as a git tree: every byte hashed as it is, no filter, no attribute, no index,
//! nothing of the workspace believed. Judging the result is the supervisor's; here it only has to be seen whole.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use git2::Repository;

use super::marks::Marks;
use super::open::OpenError;
use super::tree::{self, EntryChange, TreeError};
use crate::domain::ids::Oid;

mod file;
mod ignored;
mod walk;

pub(super) use ignored::Ignores;

/// How much a builder may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CollectLimits {
    /// Files, links and folders looked at, ignored folders not counted.
    pub entries: usize,
    /// Levels of folders.
    pub depth: usize,
    /// Bytes of one new or changed file.
    pub file_bytes: u64,
    /// Bytes of all new and changed files.
    pub total_bytes: u64,
}

impl Default for CollectLimits {
    fn default() -> Self {
        Self { entries: 1_000_000, depth: 64, file_bytes: 5 << 20, total_bytes: 50 << 20 }
    }
}

/// Something that git cannot hold and that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkippedKind {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block or character device.
    Device,
    /// Of a kind that is not known.
    Unknown,
}

/// A notice: this entry is not in the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The path from the root, as bytes.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: SkippedKind,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collected {
    /// The tree of the workspace. Its objects are in the repository that collected it.
    pub result_tree: Oid,
    /// The paths in which it differs from the base.
    pub changed: Vec<EntryChange>,
    /// Whether a `.git` stood in the root; it was left out.
    pub root_git: bool,
    /// Every other `.git`, and each in another spelling. They are left out too; who collects must not go on with the
    /// rest as if nothing were missing.
    pub nested_git: Vec<Vec<u8>>,
    /// What git cannot hold.
    pub skipped: Vec<Skipped>,
    /// How many files and folders the base's `.gitignore` files kept out.
    pub ignored: usize,
}

/// Why a workspace was not collected.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The workspace's folder was replaced.
    #[error("{} is not the folder that the builder was given", path.display())]
    Swapped {
        /// The folder.
        path: PathBuf,
    },
    /// Something changed while it was read.
    #[error("{path} changed while it was collected")]
    Unstable {
        /// The path, lossily as text.
        path: String,
    },
    /// Something could not be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// The path, lossily as text.
        path: String,
    },
    /// Something is mounted inside the workspace.
    #[error("{path} is on another file system")]
    Mount {
        /// The path, lossily as text.
        path: String,
    },
    /// More bytes than allowed.
    #[error("{path} goes past the limit of {limit} bytes")]
    TooLarge {
        /// The file that went past it.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// More entries or levels than allowed.
    #[error("the workspace has more than {limit} {unit}")]
    TooComplex {
        /// The limit.
        limit: usize,
        /// What was counted.
        unit: &'static str,
    },
    /// The system refused otherwise.
    #[error("cannot collect {path}")]
    Io {
        /// The path, lossily as text.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The base cannot be read, or the result not written.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The mirror cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// Collects the folder behind `dir`, which must have been opened before the builder ran, over `base`, a commit or a
/// tree. Files that the base's `.gitignore` files ignore are left out unless the base has them.
///
/// # Errors
/// [`CollectError`] says why nothing was collected; objects written until then are unreachable.
pub fn collect(
    dir: BorrowedFd<'_>,
    repo: &Repository,
    base: Oid,
    limits: &CollectLimits,
) -> Result<Collected, CollectError> {
    collect_marked(dir, repo, base, limits, None)
}

/// The same where it is known what the folder held before: a file that nobody can have touched since is not read.
pub(super) fn collect_marked(
    dir: BorrowedFd<'_>,
    repo: &Repository,
    base: Oid,
    limits: &CollectLimits,
    marks: Option<&Marks>,
) -> Result<Collected, CollectError> {
    let odb = repo.odb()?;
    let base = tree::tree_of(repo, base)?;
    let mut walk = walk::Walk::new(&odb, *limits, marks.and_then(Marks::believed));
    let root = walk.folder(dir, Some(base), false, 0)?;
    let result_tree = match root {
        Some(tree) => tree,
        None => tree::write(&odb, Vec::new())?,
    };
    // Deleting is not limited by what is on disk, so deletions get the same budget once more.
    let changed = tree::diff(repo, Some(base), Some(result_tree), limits.entries.saturating_mul(2))?;
    let walk::Found { root_git, nested_git, skipped, ignored } = walk.found;
    Ok(Collected { result_tree, changed, root_git, nested_git, skipped, ignored })
}

#[cfg(test)]
mod tests;

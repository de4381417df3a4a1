//! What a checkout is and holds: HEAD, index, changes, the digest of it all, and whether its objects are whole.
//! Reads only: nothing here refreshes an index, writes an object or runs a program.

use std::path::{Path, PathBuf};

use git2::{ErrorCode, Repository, RepositoryState};

use crate::domain::ids::Oid;

mod digest;
mod integrity;
mod listing;
mod suspects;

pub use digest::SubmoduleHead;
pub use listing::{Change, ChangeKind, Tracked, TrackedKind};

/// Why a folder cannot be scanned.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// There is no repository whose work tree starts at that folder.
    #[error("{0} is not the top folder of a git repository")]
    NotARepository(PathBuf),
    /// The repository has no work tree.
    #[error("{0} is a bare repository")]
    Bare(PathBuf),
    /// HEAD names a branch without a commit.
    #[error("{0} has no commit yet")]
    Empty(PathBuf),
    /// The repository belongs to another user.
    #[error("{0} belongs to another user")]
    NotOwned(PathBuf),
    /// No such commit.
    #[error("there is no commit {0}")]
    UnknownRevision(Oid),
    /// git cannot read what it needs.
    #[error("cannot read {what}")]
    Unreadable {
        /// What was to be read.
        what: &'static str,
        /// What libgit2 says.
        #[source]
        source: git2::Error,
    },
    /// The file system refuses.
    #[error("cannot read {}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl StatusError {
    /// The stable reason code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NotARepository(_) => "not_a_repository",
            Self::Bare(_) => "bare_repository",
            Self::Empty(_) => "empty_repository",
            Self::NotOwned(_) => "repository_not_owned",
            Self::UnknownRevision(_) => "not_found",
            Self::Unreadable { .. } | Self::Io { .. } => "unreadable",
        }
    }

    fn unreadable(what: &'static str) -> impl FnOnce(git2::Error) -> Self {
        move |source| Self::Unreadable { what, source }
    }
}

/// What is worth knowing about a checkout before one looks at its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The commit of HEAD; none where HEAD does not resolve.
    pub head: Option<Oid>,
    /// The branch HEAD names; none where it is detached.
    pub branch: Option<String>,
    /// Whether history was cut off.
    pub shallow: bool,
    /// Whether objects may be missing on purpose (a partial clone).
    pub partial: bool,
    /// The operation that is half done: `merge`, `rebase`, ...
    pub operation: Option<&'static str>,
}

/// A repository with a work tree. Not shared between threads: every thread opens its own.
pub struct WorkTree {
    repo: Repository,
    root: PathBuf,
    index_written: Option<suspects::Written>,
}

impl std::fmt::Debug for WorkTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkTree").field("root", &self.root).finish_non_exhaustive()
    }
}

impl WorkTree {
    /// Opens the repository whose work tree starts at `root`; no folder above is searched.
    ///
    /// # Errors
    /// [`StatusError`] for a folder that is no repository, is bare, has no commit or belongs to someone else.
    pub fn open(root: &Path) -> Result<Self, StatusError> {
        let repo = Repository::open(root).map_err(|source| match (source.code(), source.class()) {
            (ErrorCode::Owner, _) => StatusError::NotOwned(root.to_owned()),
            (ErrorCode::NotFound, _) => StatusError::NotARepository(root.to_owned()),
            _ => StatusError::Unreadable { what: "the repository", source },
        })?;
        let Some(workdir) = repo.workdir() else {
            return Err(StatusError::Bare(root.to_owned()));
        };
        let real =
            |path: &Path| path.canonicalize().map_err(|source| StatusError::Io { path: path.to_owned(), source });
        let workdir = real(workdir)?;
        if workdir != real(root)? {
            return Err(StatusError::NotARepository(root.to_owned()));
        }
        let unborn = matches!(repo.head(), Err(e) if e.code() == ErrorCode::UnbornBranch);
        if unborn {
            return Err(StatusError::Empty(root.to_owned()));
        }
        let index_written = suspects::written(&repo);
        Ok(Self { repo, root: workdir, index_written })
    }

    /// The top folder, without symlinks.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// HEAD, and anything unusual about the checkout.
    #[must_use]
    pub fn checkout(&self) -> Checkout {
        let head = self.repo.head().ok();
        let commit = head.as_ref().and_then(|h| h.peel_to_commit().ok());
        let branch = head.as_ref().filter(|h| h.is_branch()).map(|h| lossy(h.shorthand_bytes()));
        let partial = self.repo.config().is_ok_and(|c| c.get_entry("extensions.partialclone").is_ok());
        Checkout {
            head: commit.map(|c| oid(c.id())),
            branch,
            shallow: self.repo.is_shallow(),
            partial,
            operation: operation(self.repo.state()),
        }
    }

    fn head_tree(&self) -> Result<git2::Tree<'_>, StatusError> {
        self.repo.head().and_then(|head| head.peel_to_tree()).map_err(StatusError::unreadable("the tree of HEAD"))
    }
}

const fn operation(state: RepositoryState) -> Option<&'static str> {
    match state {
        RepositoryState::Clean => None,
        RepositoryState::Merge => Some("merge"),
        RepositoryState::Revert | RepositoryState::RevertSequence => Some("revert"),
        RepositoryState::CherryPick | RepositoryState::CherryPickSequence => Some("cherry-pick"),
        RepositoryState::Bisect => Some("bisect"),
        RepositoryState::Rebase | RepositoryState::RebaseInteractive | RepositoryState::RebaseMerge => Some("rebase"),
        RepositoryState::ApplyMailbox | RepositoryState::ApplyMailboxOrRebase => Some("am"),
    }
}

fn oid(id: git2::Oid) -> Oid {
    let mut bytes = [0; 20];
    bytes.copy_from_slice(&id.as_bytes()[..20]);
    Oid::from_bytes(bytes)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;

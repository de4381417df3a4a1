//! A worker's bare mirror and the workspaces made from it. In embedded mode it borrows the user's objects, so nothing
//! is copied; nothing a builder does reaches the user's repository, the mirror's configuration or its refs.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use git2::Repository;

use super::collect::{self, CollectError, CollectLimits, Collected};
use super::include::{self, IncludeError, IncludeLimits, Included};
use super::marks::{self, Marks};
use super::open::{self, OpenError, to_git};
use super::pack::{self, PackError};
use super::tree::{self, TreeError};
use crate::domain::ids::{Oid, RunId};

mod advance;
mod bases;
mod checkout;
mod cleanup;
mod copy;
mod folders;
mod register;
mod spare;
mod turn;
mod warm;

pub(in crate::repo) use checkout::open_below;
pub use copy::ScanCopy;
pub use warm::Prepared;

const MIRROR: &str = "mirror.git";

/// Why a mirror or a workspace could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// A path of the commit would be written outside of the workspace, or into its git folder.
    #[error("the commit holds the unsafe path {path:?}; it is not checked out")]
    UnsafePath {
        /// The path, lossily as text.
        path: String,
    },
    /// A file or folder could not be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process has the turn to change the mirror, and keeps it.
    #[error("another process holds {} and does not let go", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// A tree that was to be prepared is too large for it.
    #[error("the tree has more than {limit} bytes")]
    TooMuch {
        /// The limit.
        limit: u64,
    },
    /// Nobody wants it any more.
    #[error("it is not wanted any more")]
    Unwanted,
    /// An object is missing or unfit.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The mirror cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A pack was refused.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// What a workspace is for; names its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// The builder works here: `tree`.
    Build,
    /// The gate checks the result here: `gate`.
    Gate,
    /// The gate's baseline, the tree before the change: `baseline`.
    Baseline,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Build, Self::Gate, Self::Baseline];

    /// The name of its folder.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Build => "tree",
            Self::Gate => "gate",
            Self::Baseline => "baseline",
        }
    }
}

/// Names a workspace: `<root>/<run>/<epoch>-<attempt>/<purpose>`. The epoch is in the path, so whoever lost his lease
/// writes where nobody reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceKey {
    /// The run.
    pub run: RunId,
    /// The epoch of the run's lease.
    pub epoch: u64,
    /// The attempt at the phase.
    pub attempt: u32,
    /// What it is for.
    pub purpose: Purpose,
}

impl WorkspaceKey {
    fn name(&self) -> String {
        format!("{}.{}.{}.{}", self.run, self.epoch, self.attempt, self.purpose.folder())
    }

    fn branch(&self) -> String {
        format!("refs/heads/wt/{}/{}-{}/{}", self.run, self.epoch, self.attempt, self.purpose.folder())
    }
}

/// A checked-out tree without any git metadata in it, and the handle that collection will trust.
#[derive(Debug)]
pub struct Workspace {
    key: WorkspaceKey,
    base: Oid,
    path: PathBuf,
    // Opened before any builder ran: a folder that is swapped later is not this one.
    dir: OwnedFd,
    git_link: Vec<u8>,
    // What was written into it, as it then was.
    marks: Marks,
}

impl Workspace {
    /// Which workspace this is.
    #[must_use]
    pub const fn key(&self) -> &WorkspaceKey {
        &self.key
    }

    /// The commit or tree that was checked out.
    #[must_use]
    pub const fn base(&self) -> Oid {
        self.base
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder as it was opened before any builder ran.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// What was written into it, as it then was.
    #[cfg(test)]
    pub(in crate::repo) const fn marks(&self) -> &Marks {
        &self.marks
    }

    /// What the `.git` entry said before it was taken away.
    #[must_use]
    pub fn git_link(&self) -> &[u8] {
        &self.git_link
    }
}

/// The bare mirror of one repository below a worker's root. Can be shared by threads and opened by several processes.
#[derive(Debug)]
pub struct Mirror {
    root: PathBuf,
    /// The lock file of the one git writer; never unlinked.
    writer: Mutex<File>,
    /// How long its turn is waited for.
    turn_wait: Duration,
    /// Threads that help to write trees.
    helpers: spare::Helpers,
}

impl Mirror {
    /// Opens the mirror at `<root>/mirror.git`, or makes it. With `source_objects` it borrows that object store.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn open_or_create(root: &Path, source_objects: Option<&Path>) -> Result<Self, MirrorError> {
        fs::create_dir_all(root).map_err(io_error(root))?;
        let root = root.canonicalize().map_err(io_error(root))?;
        let lock_path = root.join("mirror.lock");
        let lock = File::options().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let helpers = spare::Helpers::of_machine();
        let mirror =
            Self { writer: Mutex::new(lock.map_err(io_error(&lock_path))?), turn_wait: turn::WAIT, helpers, root };
        let writing = mirror.write()?;
        let git_dir = mirror.git_dir();
        if git_dir.exists() {
            // Whoever has the turn is alone, so a lock in the mirror is of a life that ended, and would stay for ever.
            folders::sweep_locks(&git_dir).map_err(io_error(&git_dir))?;
        }
        let mut config = open::init_bare(&git_dir)?.config()?.open_level(git2::ConfigLevel::Local)?;
        config.set_i32("gc.auto", 0)?;
        config.set_str("core.hooksPath", "/dev/null")?;
        if let Some(objects) = source_objects {
            open::borrow_objects(&git_dir, objects).map_err(io_error(objects))?;
        }
        drop(writing);
        Ok(mirror)
    }

    /// The mirror for reading objects.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn repository(&self) -> Result<Repository, MirrorError> {
        Ok(open::open_bare(&self.git_dir())?)
    }

    /// Whether an object is here.
    ///
    /// # Errors
    /// When the mirror cannot be opened.
    pub fn has(&self, oid: Oid) -> Result<bool, MirrorError> {
        Ok(self.repository()?.odb()?.exists(to_git(oid)))
    }

    /// Takes in a pack that the supervisor sent.
    ///
    /// # Errors
    /// When it is corrupt.
    pub fn import(&self, pack: &[u8]) -> Result<(), MirrorError> {
        let _writing = self.write()?;
        Ok(pack::store_pack(&self.repository()?, pack)?)
    }

    /// Packs what `result_tree` needs and `base_commit` does not have, for the supervisor.
    ///
    /// # Errors
    /// When an object is missing.
    pub fn pack(&self, base_commit: Oid, result_tree: Oid) -> Result<Vec<u8>, MirrorError> {
        Ok(pack::pack_new_objects(&self.repository()?, base_commit, result_tree)?)
    }

    /// Checks a commit (or a bare tree) out into a fresh workspace: raw blobs, no filters, no hooks, and no `.git` left
    /// in it. One of the same name that an earlier phase left is removed first.
    ///
    /// # Errors
    /// [`MirrorError::UnsafePath`] before anything is written, if a path of the tree could lead outside.
    pub fn create(&self, key: &WorkspaceKey, base: Oid) -> Result<Workspace, MirrorError> {
        let repo = self.repository()?;
        let plan = checkout::Plan::of(&repo.odb()?, tree::tree_of(&repo, base)?)?;
        let path = self.path_of(key);
        if path.symlink_metadata().is_ok() {
            self.remove(key)?;
        }
        let git_link = self.register(&repo, key, base)?;
        let dir = checkout::open_dir(&path).map_err(io_error(&path))?;
        let bounds = warm::Bounds { helped: true, most_bytes: u64::MAX, wanted: &|| true };
        let marks = self.fill(&plan, dir.as_fd(), &path, bounds)?.marks;
        Ok(Workspace { key: key.clone(), base, path, dir, git_link, marks })
    }

    /// Collects what a builder left in a workspace, as a tree over its base. The builder must be dead.
    ///
    /// # Errors
    /// [`CollectError::Swapped`] when the folder is no longer the one that was made, and what [`collect::collect`] says.
    pub fn collect(&self, workspace: &Workspace, limits: &CollectLimits) -> Result<Collected, CollectError> {
        let named = checkout::open_dir(&workspace.path).ok();
        if named.is_none_or(|named| !marks::same_folder(&named, &workspace.dir)) {
            return Err(CollectError::Swapped { path: workspace.path.clone() });
        }
        let repo = open::open_bare(&self.git_dir())?;
        collect::collect_marked(workspace.dir(), &repo, workspace.base, limits, Some(&workspace.marks))
    }

    /// Brings the ignored files that a trusted commit lists, from a folder, into a workspace that no builder has had.
    ///
    /// # Errors
    /// [`IncludeError`]; the workspace is then not to be used.
    pub fn include(
        &self,
        workspace: &Workspace,
        trusted: Oid,
        folder: &Path,
        limits: &IncludeLimits,
    ) -> Result<Included, IncludeError> {
        let repo = open::open_bare(&self.git_dir())?;
        let shown = |source| IncludeError::Io { path: folder.display().to_string(), source };
        let source = fs::File::open(folder).map_err(shown)?;
        include::include(&repo, (trusted, workspace.base), source.as_fd(), workspace.dir(), limits)
    }

    /// The workspaces that exist on disk, in order.
    ///
    /// # Errors
    /// When the worker's folder cannot be read.
    pub fn list(&self) -> Result<Vec<WorkspaceKey>, MirrorError> {
        folders::list(&self.root).map_err(io_error(&self.root))
    }

    fn git_dir(&self) -> PathBuf {
        self.root.join(MIRROR)
    }

    fn path_of(&self, key: &WorkspaceKey) -> PathBuf {
        place(&self.root, key)
    }
}

/// Deletes a folder that a builder has written to, whatever permissions it set; one that is gone is no error.
///
/// # Errors
/// When something is mounted in it, or the system refuses.
pub fn delete_folder(path: &Path) -> io::Result<()> {
    folders::delete(path)
}

/// The workspaces that stand below a mirror's root, with their folders; nothing is opened or made.
///
/// # Errors
/// When the folder cannot be read.
pub fn standing(root: &Path) -> Result<Vec<(WorkspaceKey, PathBuf)>, MirrorError> {
    let keys = folders::list(root).map_err(io_error(root))?;
    Ok(keys.into_iter().map(|key| (key.clone(), place(root, &key))).collect())
}

/// Whether a folder is the root of a mirror.
#[must_use]
pub fn is_root(root: &Path) -> bool {
    root.join(MIRROR).is_dir()
}

fn place(root: &Path, key: &WorkspaceKey) -> PathBuf {
    let attempt = format!("{}-{}", key.epoch, key.attempt);
    root.join(key.run.as_str()).join(attempt).join(key.purpose.folder())
}

/// Says which file or folder an I/O error is about.
fn io_error(path: &Path) -> impl FnOnce(io::Error) -> MirrorError + use<> {
    let path = path.to_path_buf();
    move |source| MirrorError::Io { path, source }
}

#[cfg(test)]
pub(in crate::repo) mod tests;

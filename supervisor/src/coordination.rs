//! Liveness: who is there, and quick "already taken" answers. A lock tells who is alive, never who may write: the
//! store's fences do that (`coordination.md` D1).

use std::io;
use std::path::Path;

use async_trait::async_trait;

use autopack_shared::domain::ids::{RunId, WorkerId};

pub mod file_lock;

/// Why coordination failed.
#[derive(Debug, thiserror::Error)]
pub enum CoordinationError {
    /// Somebody else owns this data directory.
    #[error("{path} is in use by another autopack process ({holder})")]
    DataDirLocked {
        /// The data directory.
        path: String,
        /// What is known of the holder.
        holder: String,
    },
    /// The repository's runs are kept in another data directory.
    #[error("this repository's runs are kept in {other}, not in {path}")]
    OtherDataDir {
        /// The data directory that was given.
        path: String,
        /// The one that has the runs.
        other: String,
    },
    /// The run or workspace is locked by another worker.
    #[error("{lock} is held by {holder}")]
    Held {
        /// Which lock.
        lock: String,
        /// Who holds it.
        holder: String,
    },
    /// The lock file was replaced under us.
    #[error("the lock file {path} was replaced or removed while it was held: stop and look who did that")]
    LockReplaced {
        /// The file.
        path: String,
    },
    /// The folder cannot be used for locks.
    #[error("{path}: {why}")]
    Unusable {
        /// The folder or file.
        path: String,
        /// Why not.
        why: String,
    },
    /// The disk that holds the locks is full.
    #[error("no space is left for {path}")]
    Full {
        /// The folder or file.
        path: String,
    },
    /// This user may not write there.
    #[error("{path}: {why}")]
    ReadOnly {
        /// The folder or file.
        path: String,
        /// What the system says.
        why: String,
    },
    /// The service is away.
    #[error("coordination is unavailable: {0}")]
    Unavailable(String),
}

impl CoordinationError {
    /// What a failure of the system means for a folder or file.
    #[must_use]
    pub fn of(path: &Path, error: &io::Error) -> Self {
        let path = path.display().to_string();
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full { path }
        } else if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) {
            Self::ReadOnly { path, why: error.to_string() }
        } else {
            Self::Unusable { path, why: error.to_string() }
        }
    }
}

/// What can be locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockName {
    /// A run: one worker at a time.
    Run(RunId),
    /// A workspace, by its run.
    Workspace(RunId),
}

/// Who locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockOwner {
    /// The worker.
    pub worker: WorkerId,
    /// Its session.
    pub session: String,
    /// The epoch the lock is evidence for.
    pub epoch: u64,
}

/// Liveness of one cluster, or of one machine.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Becomes director, or says who is. Held until [`Coordinator::resign`] or the end of the process.
    async fn campaign(&self, replica: &str) -> Result<(), CoordinationError>;
    /// Whether this process still is the director, checked now.
    async fn is_director(&self) -> Result<bool, CoordinationError>;
    /// Stops being director.
    async fn resign(&self) -> Result<(), CoordinationError>;
    /// Opens a worker session; a second live one of the same worker is refused.
    async fn open_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError>;
    /// Keeps a session alive; false when it is gone.
    async fn renew_session(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError>;
    /// Ends a session and every lock it holds.
    async fn close_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError>;
    /// Whether a session is alive.
    async fn session_alive(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError>;
    /// Takes locks for a session, all or none.
    async fn lock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError>;
    /// Gives locks back; unknown ones are no error.
    async fn unlock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError>;
    /// Who holds a lock.
    async fn holder(&self, name: &LockName) -> Result<Option<LockOwner>, CoordinationError>;
}

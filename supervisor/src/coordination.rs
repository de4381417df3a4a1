//! Liveness: who is there, and quick "already taken" answers. A lock tells who is alive, never who may write: the
//! store's fences do that (`coordination.md` D1).

use std::io;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use autopack_shared::domain::ids::{RunId, Timestamp, WorkerId};

pub mod etcd;
pub mod file_lock;
pub mod timers;

/// Who was not heard of for so long is shown as suspect (`coordination.md` 4.4).
pub const SUSPECT: Duration = Duration::from_secs(6);

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
    /// The service keeps the liveness of another cluster, or of another life of this one.
    #[error("{key} at {endpoints} {found}: {hint}")]
    Foreign {
        /// Where.
        endpoints: String,
        /// The key that says so.
        key: String,
        /// What it says, and what it should say.
        found: String,
        /// The stable reason: `cluster_mismatch`, `store_restored`, or `unsafe_config` where nobody knows.
        reason: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// The service is of a version that lacks what is needed.
    #[error("etcd {found} at {endpoints} is too old: 3.4 or later is needed")]
    TooOld {
        /// Where.
        endpoints: String,
        /// What it says of itself.
        found: String,
    },
    /// The service refuses us, or a setting cannot work.
    #[error("{what}: {why}")]
    Setting {
        /// The setting or the endpoints.
        what: String,
        /// What is wrong.
        why: String,
    },
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

/// Where a claim stands in the service's own history: evidence of a moment, never the reason of a write
/// (`coordination.md` D2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Evidence {
    /// Which cluster of the service.
    pub cluster: u64,
    /// The revision that made the claim.
    pub revision: u64,
}

/// What this process knows of who directs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directorship {
    /// Nobody was asked yet, or no answer can be relied on now: who was director stops acting.
    Unknown,
    /// Not this process. Without a holder, it is worth campaigning.
    Following {
        /// Who it is, as far as is known.
        holder: Option<String>,
    },
    /// This process.
    Leading {
        /// Since when.
        since: Timestamp,
        /// The claim in the service; none where there is no service.
        evidence: Option<Evidence>,
    },
}

/// What a worker says of itself when its session opens, and later where that has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFacts {
    /// Its machine.
    pub host: String,
    /// Differs after every start of the worker process.
    pub boot_id: String,
    /// Phases it does at once.
    pub slots: u32,
    /// S0..S3, as measured.
    pub sandbox_level: String,
    /// The report of that, and when it was made, in milliseconds since 1970; only ever shown.
    pub sandbox_report: (String, i64),
    /// Why nothing is granted to it that needs a sandbox; none when empty.
    pub quarantine: String,
}

/// How long something lives already and still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Since it began.
    pub age: Duration,
    /// What a renewal gives it; none where it lives as long as its process.
    pub ttl: Option<Duration>,
    /// What is left without a renewal.
    pub remaining: Option<Duration>,
}

impl Life {
    /// Whether no renewal came for longer than `patience`. Computed for people, never stored and never a reason.
    #[must_use]
    pub fn is_suspect(&self, patience: Duration) -> bool {
        self.ttl.zip(self.remaining).is_some_and(|(ttl, remaining)| ttl.saturating_sub(remaining) > patience)
    }
}

/// What a renewal of a session found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The session is gone.
    Gone,
    /// It lives on.
    Kept {
        /// Whether it was told to get no more work.
        draining: bool,
    },
}

impl Renewal {
    /// Whether it lives on.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::Kept { .. })
    }
}

/// A live worker session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEntry {
    /// The worker.
    pub worker: WorkerId,
    /// Its session.
    pub session: String,
    /// What it says of itself.
    pub facts: SessionFacts,
    /// The replica that keeps it alive.
    pub holder: String,
    /// Whether it gets no more work: it ends when what it has is done.
    pub draining: bool,
    /// How long.
    pub life: Life,
}

/// A live worker session, as who gives out work needs it: without what only people look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seated {
    /// The worker.
    pub worker: WorkerId,
    /// Its session.
    pub session: String,
    /// Phases it does at once.
    pub slots: u32,
    /// Whether it gets no more work.
    pub draining: bool,
    /// The sandbox level it measured.
    pub sandbox_level: String,
    /// Why that counts for nothing; none when empty.
    pub quarantine: String,
}

/// Who directs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeatEntry {
    /// The replica.
    pub replica: String,
    /// Where it is reached, where that is known.
    pub addr: String,
    /// How long.
    pub life: Life,
}

/// A lock that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockEntry {
    /// Which.
    pub name: LockName,
    /// By whom.
    pub owner: LockOwner,
    /// How long.
    pub life: Life,
}

/// What can be locked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockName {
    /// A run: one worker at a time.
    Run(RunId),
    /// A workspace, by its run.
    Workspace(RunId),
}

impl std::fmt::Display for LockName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(run) => write!(f, "run {run}"),
            Self::Workspace(run) => write!(f, "the workspace of run {run}"),
        }
    }
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

impl LockOwner {
    /// The owner in the words of a refusal.
    fn shown(&self) -> String {
        format!("worker {} (epoch {})", self.worker, self.epoch)
    }
}

/// Locks that somebody wants, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWish {
    /// Which.
    pub names: Vec<LockName>,
    /// For whom.
    pub owner: LockOwner,
}

/// Liveness of one cluster, or of one machine.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Becomes director, or says who is. Held until [`Coordinator::resign`], the end of the process, or until the
    /// service does not answer in time. Asking again as director changes nothing.
    async fn campaign(&self, replica: &str) -> Result<(), CoordinationError>;
    /// Whether this process still is the director, checked now.
    async fn is_director(&self) -> Result<bool, CoordinationError>;
    /// What is known of who directs, as it changes; followed from the first campaign until [`Coordinator::resign`].
    fn directorship(&self) -> watch::Receiver<Directorship>;
    /// Who directs, asked now; for people.
    async fn director(&self) -> Result<Option<SeatEntry>, CoordinationError>;
    /// Stops being director and following who is. Sessions stay: another replica may go on with them.
    async fn resign(&self) -> Result<(), CoordinationError>;
    /// Opens a worker session, or goes on with the same one of another replica, with what its worker says of itself now;
    /// a second live one of the same worker is refused.
    async fn open_session(
        &self,
        worker: &WorkerId,
        session: &str,
        facts: &SessionFacts,
    ) -> Result<(), CoordinationError>;
    /// Keeps a session alive, and says what it was told meanwhile: every heartbeat asks, so it is one question.
    async fn renew_session(&self, worker: &WorkerId, session: &str) -> Result<Renewal, CoordinationError>;
    /// Ends a session and every lock it holds, unless another replica goes on with it.
    async fn close_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError>;
    /// Whether a session is alive.
    async fn session_alive(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError>;
    /// Says whether a session gets no more work. It goes with the session: another supervisor finds it so. False when
    /// the session is gone.
    async fn drain(&self, worker: &WorkerId, session: &str, drain: bool) -> Result<bool, CoordinationError>;
    /// The live sessions, by worker.
    async fn sessions(&self) -> Result<Vec<SessionEntry>, CoordinationError>;
    /// The live sessions, by worker; one question however many there are.
    async fn seats(&self) -> Result<Vec<Seated>, CoordinationError>;
    /// How long a session lives already and still; none when it is gone.
    async fn session_life(&self, worker: &WorkerId, session: &str) -> Result<Option<Life>, CoordinationError>;
    /// Takes the locks of many sessions, in few questions; an answer for each wish, as [`Coordinator::lock`] gives it.
    /// One that is refused is no obstacle to the others.
    async fn lock_all(&self, wishes: &[LockWish]) -> Vec<Result<(), CoordinationError>> {
        let mut answers = Vec::with_capacity(wishes.len());
        for wish in wishes {
            answers.push(self.lock(&wish.names, &wish.owner).await);
        }
        answers
    }
    /// The names of the locks that are held; one question however many there are.
    async fn lock_names(&self) -> Result<Vec<LockName>, CoordinationError>;
    /// Takes locks for a session, all or none. Those it has for the same epoch already are no obstacle.
    async fn lock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError>;
    /// Gives locks back; unknown ones are no error.
    async fn unlock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError>;
    /// Who holds a lock.
    async fn holder(&self, name: &LockName) -> Result<Option<LockOwner>, CoordinationError>;
    /// The locks that are held, by name.
    async fn locks(&self) -> Result<Vec<LockEntry>, CoordinationError>;
    /// Takes a lock from whoever holds it, for a reason that is logged; says who that was.
    async fn break_lock(&self, name: &LockName, reason: &str) -> Result<Option<LockOwner>, CoordinationError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_renewed_for_long_is_suspect() {
        let life = |remaining: u64| Life {
            age: Duration::ZERO,
            ttl: Some(Duration::from_secs(15)),
            remaining: Some(Duration::from_secs(remaining)),
        };
        let patience = Duration::from_secs(6);
        assert!(!life(15).is_suspect(patience) && !life(9).is_suspect(patience));
        assert!(life(8).is_suspect(patience) && life(0).is_suspect(patience));
        let endless = Life { age: Duration::ZERO, ttl: None, remaining: None };
        assert!(!endless.is_suspect(Duration::ZERO));
    }
}

//! Every failure of the supervisor, and the one place that makes a gRPC `Status` (`house.md` 4).

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use autopack_shared::domain::ids::InvalidName;
use autopack_shared::domain::run_data::Unoffered;
use autopack_shared::domain::run_file::RunFileError;
use autopack_shared::domain::state::IllegalMove;
use autopack_shared::repo::disk;

use crate::coordination::CoordinationError;
use crate::hub::HubError;
use crate::run_data::RunDataError;
use crate::store::StoreError;

mod reasons;

use reasons::{hub_reason, run_data_reason, scan_reason};

/// A disk that is full: no fault of anybody's, and not worth trying again at once.
const DISK_FULL: (&str, Code) = ("disk_full", Code::ResourceExhausted);

/// What this user may not write.
const READ_ONLY: (&str, Code) = ("read_only", Code::FailedPrecondition);

/// A run's data cannot be kept as it should be.
pub(crate) const RUN_DATA_UNAVAILABLE: &str = "run_data_unavailable";

/// Something that another cluster uses.
const CLUSTER_MISMATCH: (&str, Code) = ("cluster_mismatch", Code::FailedPrecondition);

/// The domain of `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "autopack.dev";

/// Why a call was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field of the call is not valid.
    #[error("{field}: {why}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong.
        why: String,
    },
    /// No such thing.
    #[error("no {what} {id}")]
    NotFound {
        /// The noun.
        what: &'static str,
        /// Its name.
        id: String,
    },
    /// The name is taken by something else.
    #[error("{what} {id} exists already and is not the same: {hint}")]
    Exists {
        /// The noun.
        what: &'static str,
        /// Its name.
        id: String,
        /// What to do.
        hint: &'static str,
    },
    /// It is not in a state that allows this.
    #[error("{what} {id} is {state}: {why}")]
    State {
        /// The noun.
        what: &'static str,
        /// Its name.
        id: String,
        /// Its state.
        state: String,
        /// What is wrong with that.
        why: String,
        /// The stable reason (`illegal_move`, `not_pending`).
        reason: &'static str,
    },
    /// The digest that was looked at is not the one that waits.
    #[error("{id} is about {current}, you looked at {expected}")]
    SubjectMismatch {
        /// The request.
        id: String,
        /// What it is about.
        current: String,
        /// What the caller named.
        expected: String,
    },
    /// The caller may not do this.
    #[error("{why}")]
    Forbidden {
        /// The stable reason.
        reason: &'static str,
        /// For people.
        why: String,
    },
    /// A worker speaks another protocol.
    #[error("the worker speaks protocol {theirs}, this supervisor {ours}")]
    Version {
        /// The worker's.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// A change that merges with a conflict.
    #[error("merging {what} conflicts in {paths}")]
    MergeConflict {
        /// What was merged.
        what: String,
        /// Where.
        paths: String,
    },
    /// Something built here and judged refused before it got far.
    #[error("the upload was refused ({reason}): {why}")]
    Upload {
        /// The stable reason.
        reason: &'static str,
        /// For people.
        why: String,
    },
    /// There is no room for it now.
    #[error("there is no room for more {what} now")]
    Busy {
        /// Of what there is too much.
        what: &'static str,
    },
    /// A policy file of the repository cannot be used.
    #[error("{file} at {commit}: {why}")]
    Policy {
        /// The file.
        file: String,
        /// The commit it was read from.
        commit: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody is there to do it.
    #[error("no worker is connected")]
    NoWorker,
    /// A scan came to nothing.
    #[error("the commit was not scanned ({reason}): {why}")]
    Scan {
        /// The stable reason, as the worker gave it.
        reason: String,
        /// For people.
        why: String,
    },
    /// The data directory has the runs of another repository.
    #[error("{data_dir} has the runs of {known}, not of {asked}")]
    OtherRepository {
        /// The data directory.
        data_dir: String,
        /// Whose runs it has.
        known: String,
        /// Which repository was meant.
        asked: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Coordination.
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// The data of a run.
    #[error(transparent)]
    RunData(#[from] RunDataError),
    /// The anchor asks for data of another kind than there is.
    #[error(transparent)]
    Unoffered(#[from] Unoffered),
    /// A move that no table lists.
    #[error(transparent)]
    Move(#[from] IllegalMove),
    /// A bug: a rule of the code itself was broken.
    #[error("{0}")]
    Bug(String),
}

impl From<InvalidName> for Error {
    fn from(error: InvalidName) -> Self {
        Self::Invalid { field: error.what.to_owned(), why: error.to_string() }
    }
}

impl From<RunFileError> for Error {
    fn from(error: RunFileError) -> Self {
        Self::Invalid { field: "run_file".to_owned(), why: error.to_string() }
    }
}

impl Error {
    /// The stable reason and its gRPC code: the table of `house.md` 4.
    #[must_use]
    pub fn reason(&self) -> (&'static str, Code) {
        match self {
            Self::Invalid { .. } => ("invalid", Code::InvalidArgument),
            Self::Policy { .. } => ("policy_invalid", Code::InvalidArgument),
            Self::NotFound { .. } | Self::Store(StoreError::NotFound { .. }) => ("not_found", Code::NotFound),
            Self::Exists { .. } | Self::Store(StoreError::Exists { .. }) => ("exists", Code::AlreadyExists),
            Self::State { reason, .. } => (reason, Code::FailedPrecondition),
            Self::SubjectMismatch { .. } => ("approval_subject_mismatch", Code::Aborted),
            Self::Forbidden { reason, .. } => (reason, Code::PermissionDenied),
            Self::Version { .. } => ("version", Code::FailedPrecondition),
            Self::MergeConflict { .. } | Self::Store(StoreError::Conflict { .. }) => ("conflict", Code::Aborted),
            Self::Upload { reason, .. } => (reason, Code::InvalidArgument),
            Self::NoWorker => ("no_worker", Code::Unavailable),
            Self::Scan { reason, .. } => scan_reason(reason),
            Self::Busy { .. } => ("full", Code::Unavailable),
            Self::Store(StoreError::Fenced { .. }) => ("fenced", Code::FailedPrecondition),
            Self::Store(StoreError::IllegalMove(_)) | Self::Move(_) => ("illegal_move", Code::FailedPrecondition),
            Self::Store(StoreError::Unavailable { .. }) | Self::Coordination(CoordinationError::Unavailable(_)) => {
                ("unavailable", Code::Unavailable)
            }
            Self::Store(StoreError::Schema { .. }) | Self::Coordination(CoordinationError::TooOld { .. }) => {
                ("version", Code::FailedPrecondition)
            }
            Self::Store(StoreError::Full(_)) | Self::Coordination(CoordinationError::Full { .. }) => DISK_FULL,
            Self::Coordination(CoordinationError::DataDirLocked { .. }) => {
                ("data_dir_locked", Code::FailedPrecondition)
            }
            Self::Coordination(CoordinationError::OtherDataDir { .. }) => ("other_data_dir", Code::FailedPrecondition),
            Self::OtherRepository { .. } => ("other_repository", Code::FailedPrecondition),
            Self::Coordination(CoordinationError::Held { .. }) => ("run_locked", Code::Aborted),
            Self::Coordination(CoordinationError::LockReplaced { .. }) => ("lock_replaced", Code::FailedPrecondition),
            Self::RunData(error) => run_data_reason(error),
            Self::Unoffered(_) => (RUN_DATA_UNAVAILABLE, Code::FailedPrecondition),
            Self::Store(StoreError::Unsafe(_))
            | Self::Coordination(CoordinationError::Unusable { .. } | CoordinationError::Setting { .. }) => {
                ("unsafe_config", Code::FailedPrecondition)
            }
            Self::Coordination(CoordinationError::Foreign { reason, .. }) => (reason, Code::FailedPrecondition),
            Self::Store(StoreError::Elsewhere { .. }) => CLUSTER_MISMATCH,
            Self::Store(StoreError::Moved { .. }) => ("store_moved", Code::FailedPrecondition),
            Self::Store(StoreError::Restored { .. } | StoreError::Rewound { .. }) => {
                ("store_restored", Code::FailedPrecondition)
            }
            Self::Coordination(CoordinationError::ReadOnly { .. }) => READ_ONLY,
            Self::Hub(error) if disk::is_full(error) => DISK_FULL,
            Self::Hub(error) => hub_reason(error),
            Self::Store(StoreError::Corrupt(_)) => ("store_corrupt", Code::DataLoss),
            Self::Bug(_) => ("internal", Code::Internal),
        }
    }

    /// What happened, with its causes, in one line.
    pub(crate) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }

    /// Whether a disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.reason().0 == DISK_FULL.0
    }

    /// What to do about it, where there is something to say.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::SubjectMismatch { .. } => "look again: autopack approvals show ID",
            Self::Store(StoreError::Unavailable { hint, .. }) => hint,
            Self::Store(StoreError::Corrupt(_)) => "restore the data directory from a copy; nothing was written",
            Self::Store(StoreError::Unsafe(_)) => "change these settings of the database server and start again",
            Self::Store(StoreError::Moved { .. }) => "point it at the database it was made on",
            Self::Store(StoreError::Restored { .. } | StoreError::Rewound { .. }) => {
                "restore the newest state of the database that there is; where that is this one, autopack admin new-incarnation"
            }
            Self::Store(StoreError::Elsewhere { .. }) => {
                "give them that name by --cluster-id, or another database; to change the name, autopack admin new-incarnation"
            }
            Self::Hub(HubError::Foreign { .. }) => {
                "give each cluster hubs of its own; where the other is gone for good, remove refs/autopack/cluster there"
            }
            Self::Unoffered(_) => {
                "submit it to a cluster that has one (docs/CLUSTER.md), or ask for \"sqlite\" in the anchor"
            }
            Self::RunData(RunDataError::Unavailable { hint, .. }) => hint,
            Self::Version { .. } => "run the same autopack on both sides",
            Self::Policy { .. } => "autopack policy check",
            Self::NoWorker => "start one (autopack worker, or autopack up); autopack workers list shows them",
            Self::Scan { .. } => "the log of the worker says more; repeat the command to have it tried again",
            Self::Hub(HubError::Away { .. }) => "bring it back to its place, readable: its runs go on by themselves",
            Self::Hub(error) if hub_reason(error) == READ_ONLY => "make the repository writable for this user",
            Self::Hub(HubError::Unfit { .. }) => {
                "turn atomic pushes on there (git: receive.advertiseAtomic), or name a repository by its path"
            }
            Self::Hub(HubError::Refused { .. }) => {
                "let the supervisors' account write refs/heads/**, refs/autopack/** and refs/tags/save-before-*"
            }
            Self::Hub(HubError::ServerAway { .. }) => {
                "check the address, the account and the network from the supervisors' hosts"
            }
            Self::Coordination(CoordinationError::ReadOnly { .. }) => {
                "make it writable for this user, or name another folder: --data-dir, or [worker] root"
            }
            Self::Invalid { .. }
            | Self::NotFound { .. }
            | Self::Exists { .. }
            | Self::OtherRepository { .. }
            | Self::State { .. }
            | Self::Forbidden { .. }
            | Self::MergeConflict { .. }
            | Self::Upload { .. }
            | Self::Busy { .. }
            | Self::Store(_)
            | Self::Hub(_)
            | Self::Coordination(_)
            | Self::RunData(_)
            | Self::Move(_)
            | Self::Bug(_) => "",
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (reason, code) = error.reason();
        let text = if code == Code::Internal {
            tracing::error!(%error, "internal error");
            "internal error; the log has the details".to_owned()
        } else {
            error.told()
        };
        let mut metadata = std::collections::HashMap::new();
        if !error.hint().is_empty() {
            metadata.insert("hint".to_owned(), error.hint().to_owned());
        }
        let details = ErrorDetails::with_error_info(reason.to_uppercase(), ERROR_DOMAIN, metadata);
        Self::with_error_details(code, text, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_store_is_no_bug_and_says_what_to_do() {
        let status = Status::from(Error::from(StoreError::Corrupt("page 7 is torn".to_owned())));
        assert_eq!(status.code(), Code::DataLoss);
        assert!(status.message().contains("page 7 is torn"), "{status}");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "STORE_CORRUPT");
        assert!(info.metadata["hint"].contains("from a copy"), "{info:?}");
    }
}

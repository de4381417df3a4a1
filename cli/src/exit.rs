//! How commands end: the exit codes, the table from stable reasons to them, and a failure in three lines: what, why,
//! what to do.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use autopack_shared::domain::ids::InvalidName;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// What was asked is done.
    Done,
    /// The run's own work failed.
    WorkFailed,
    /// The command line or its input is not valid.
    Usage,
    /// There is no such thing.
    NotFound,
    /// A person has to decide.
    Waiting,
    /// Blocked, rejected, expired, or denied by gate or policy.
    Refused,
    /// Changed meanwhile, fenced, or already held.
    Conflict,
    /// A service that is needed is away or full.
    Unavailable,
    /// A bug.
    Bug,
    /// Another process owns the data directory.
    DataDirLocked,
    /// A setting that is not safe to run with.
    UnsafeConfig,
    /// Stopped by a signal.
    Interrupted,
    /// What `audit verify` found, in its own codes.
    Audit(u8),
}

/// How `audit verify` says that nothing was verified.
pub(crate) const AUDIT_USAGE: u8 = 64;

impl Exit {
    /// The process's exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::WorkFailed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Waiting => 4,
            Self::Refused => 5,
            Self::Conflict => 6,
            Self::Unavailable => 7,
            Self::Bug => 70,
            Self::DataDirLocked => 75,
            Self::UnsafeConfig => 78,
            Self::Interrupted => 130,
            Self::Audit(code) => code,
        }
    }

    /// The exit of a stable reason; none where the reason is not in the table and the gRPC code decides.
    pub(crate) fn of_reason(reason: &str) -> Option<Self> {
        TABLE.iter().find(|(_, reasons)| reasons.contains(&reason)).map(|(exit, _)| *exit)
    }

    /// The exit of a gRPC code whose reason is not in the table.
    const fn of_code(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => Self::Usage,
            Code::NotFound => Self::NotFound,
            Code::PermissionDenied | Code::Unauthenticated => Self::Refused,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Self::Conflict,
            Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded => Self::Unavailable,
            Code::Cancelled => Self::Interrupted,
            Code::Internal | Code::Unknown | Code::DataLoss => Self::Bug,
        }
    }
}

/// Stable reasons by exit: the failure table. What is not here goes by its gRPC code.
const TABLE: &[(Exit, &[&str])] = &[
    (
        Exit::Usage,
        &[
            "invalid",
            "invalid_input",
            "policy_invalid",
            "version",
            "malformed_patch",
            "too_large",
            "not_a_repository",
            "bare_repository",
            "empty_repository",
            "unsupported_repository",
            "unsupported_server",
            "hub_unfit",
        ],
    ),
    (Exit::NotFound, &["not_found"]),
    (
        Exit::Refused,
        &[
            "anchor_invalid",
            "anchor_required",
            "policy_undefined",
            "not_allowed",
            "over_limit",
            "isolation_insufficient",
            "gate_denied",
            "forbidden",
            "repository_not_owned",
            "unsafe_path",
            "approval_expired",
            "sandbox_required",
            "sandbox_too_weak",
            "run_data_unavailable",
            "hub_refused",
        ],
    ),
    (
        Exit::Conflict,
        &[
            "exists",
            "run_locked",
            "conflict",
            "fenced",
            "illegal_move",
            "no_lease",
            "lease_moved",
            "not_pending",
            "already_voted",
            "checked_out",
            "locked",
            "approval_subject_mismatch",
            "lock_replaced",
            "other_data_dir",
            "other_repository",
        ],
    ),
    (
        Exit::Unavailable,
        &[
            "no_slot",
            "no_worker",
            "scan_failed",
            "full",
            "unavailable",
            "hub_unavailable",
            "unreadable",
            "read_only",
            "disk_full",
            "store_corrupt",
            "sandbox_failed",
            "resource_limit",
        ],
    ),
    (Exit::Bug, &["internal"]),
    (Exit::DataDirLocked, &["data_dir_locked"]),
    (Exit::UnsafeConfig, &["cluster_mismatch", "store_moved", "store_restored", "unsafe_config"]),
    (Exit::Interrupted, &["cancelled"]),
];

/// Reasons of failures of the system; every other one counts as a service that is away.
const IO_REASONS: &[(io::ErrorKind, &str)] = &[
    (io::ErrorKind::NotFound, "not_found"),
    (io::ErrorKind::StorageFull, "disk_full"),
    (io::ErrorKind::QuotaExceeded, "disk_full"),
    (io::ErrorKind::ReadOnlyFilesystem, "read_only"),
    (io::ErrorKind::PermissionDenied, "read_only"),
    (io::ErrorKind::IsADirectory, "invalid"),
];

/// What helps against failures of the system where the remedy of their reason does not fit.
const IO_REMEDIES: &[(io::ErrorKind, &str)] =
    &[(io::ErrorKind::NotFound, "check the path"), (io::ErrorKind::IsADirectory, "name a file")];

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// This program refused, and knows what to say.
    #[error("{what}: {why}")]
    Refused {
        /// The stable reason.
        reason: Cow<'static, str>,
        /// What did not work, in one line.
        what: String,
        /// Why, in one line.
        why: String,
        /// What to do, in one line.
        fix: String,
    },
    /// The engine answered a call with an error.
    #[error("{what}: {}", .status.message())]
    Engine {
        /// What was asked of it.
        what: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// A file or a stream.
    #[error("{what}")]
    Io {
        /// What was read or written.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

impl CliError {
    /// A refusal with a stable reason.
    pub(crate) fn refused(
        reason: impl Into<Cow<'static, str>>,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::Refused { reason: reason.into(), what: what.into(), why: why.into(), fix: fix.into() }
    }

    /// Input that is not valid.
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::refused("invalid", what, why, fix)
    }

    /// The stable reason.
    pub(crate) fn reason(&self) -> Cow<'_, str> {
        match self {
            Self::Refused { reason, .. } => Cow::Borrowed(reason),
            Self::Engine { status, .. } => match status.get_error_details().error_info() {
                Some(info) => Cow::Owned(info.reason.to_lowercase()),
                None if is_severed(status) => Cow::Borrowed("unavailable"),
                None => Cow::Borrowed(reason_of_code(status.code())),
            },
            Self::Io { source, .. } => {
                let known = IO_REASONS.iter().find(|(kind, _)| *kind == source.kind());
                Cow::Borrowed(known.map_or("unavailable", |(_, reason)| reason))
            }
        }
    }

    /// How the process ends.
    pub(crate) fn exit(&self) -> Exit {
        let known = Exit::of_reason(&self.reason());
        match self {
            Self::Engine { status, .. } => known.unwrap_or(Exit::of_code(status.code())),
            Self::Refused { .. } | Self::Io { .. } => known.unwrap_or(Exit::Bug),
        }
    }

    /// What, why, and what to do.
    pub(crate) fn lines(&self) -> [Cow<'_, str>; 3] {
        match self {
            Self::Refused { what, why, fix, .. } => [what, why, fix].map(|text| Cow::Borrowed(text.as_str())),
            Self::Engine { what, status } => {
                let details = status.get_error_details();
                let hint = details.error_info().and_then(|info| info.metadata.get("hint").cloned());
                let fix = hint.map_or_else(|| Cow::Borrowed(remedy(&self.reason())), Cow::Owned);
                [Cow::Borrowed(what), Cow::Borrowed(status.message()), fix]
            }
            Self::Io { what, source } => {
                let kind = source.kind();
                // What was to be read is no data directory.
                let unread = kind == io::ErrorKind::PermissionDenied && what.starts_with("cannot read");
                let known = IO_REMEDIES.iter().find(|(of, _)| *of == kind).map(|(_, fix)| *fix);
                let own = if unread { Some("make it readable for this user") } else { known };
                let fix = own.unwrap_or_else(|| remedy(&self.reason()));
                [Cow::Borrowed(what), Cow::Owned(source.to_string()), Cow::Borrowed(fix)]
            }
        }
    }
}

/// Whether the connection broke under a call: what the engine itself answers has no cause on this side.
fn is_severed(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Internal | Code::Cancelled) && status.source().is_some()
}

const fn reason_of_code(code: Code) -> &'static str {
    match code {
        Code::Ok | Code::Internal | Code::Unknown | Code::DataLoss => "internal",
        Code::InvalidArgument | Code::OutOfRange => "invalid",
        Code::Unimplemented => "version",
        Code::NotFound => "not_found",
        Code::PermissionDenied | Code::Unauthenticated => "forbidden",
        Code::AlreadyExists => "exists",
        Code::FailedPrecondition => "illegal_move",
        Code::Aborted => "conflict",
        Code::ResourceExhausted => "no_slot",
        Code::Unavailable | Code::DeadlineExceeded => "unavailable",
        Code::Cancelled => "cancelled",
    }
}

/// What usually helps, where the failure itself does not say.
fn remedy(reason: &str) -> &'static str {
    match reason {
        "invalid" => "correct it and try again; --help shows the form",
        "policy_invalid" => "autopack policy check",
        "not_found" => "check the name; the matching `list` command shows what there is",
        "exists" => "choose another name, or leave it out to get a fresh one",
        "illegal_move" => "autopack runs explain RUN says where it stands and what would move it",
        "lease_moved" => {
            "autopack leases list shows who has it now; name that epoch with --epoch if it is to lose it, too"
        }
        "no_lease" => "autopack leases list shows what is held; autopack runs explain RUN what it waits for",
        "anchor_required" => {
            "autopack init in a checkout writes an anchor: commit it, on the branch that runs start from"
        }
        "sod_self_approval" => "somebody else decides it, with a token of their own",
        "cluster_mismatch" => "give each cluster a name in etcd, a database and hubs of its own",
        "not_pending" => "autopack approvals list shows what still waits",
        "approval_expired" => "autopack runs retry RUN asks again with a fresh request",
        "already_voted" => "another person has to vote; autopack approvals show ID lists who did",
        "checked_out" => "check out another branch there, or do it in that checkout yourself",
        "locked" => "end the git command that holds the lock and repeat the command",
        "sandbox_required" => "--insecure-no-sandbox when the run is made: every change of it is then asked about",
        "sandbox_too_weak" => {
            "autopack workers list shows the levels; autopack sandbox selftest, on a worker, what is missing there"
        }
        "sandbox_failed" => "autopack sandbox selftest, on that worker, says what cannot be built",
        "resource_limit" => "give the worker's sandboxes more (docs/SANDBOX.md), or the builder less to do",
        "run_data_unavailable" => "autopack runs explain RUN says what is missing; docs/CLUSTER.md what it needs",
        "store_corrupt" => "cp -a the data directory before anything else, then: autopack audit verify",
        "read_only" => "make the data directory writable, or name another one with --data-dir",
        "data_dir_locked" => "use the engine that runs (every other command attaches to it), or stop it first",
        "store_restored" => {
            "restore the newest state of the database that there is, or give this cluster hubs of its own"
        }
        "store_moved" => "point it at the database it was made on",
        "other_data_dir" => "name that one with --data-dir; if its runs are no longer wanted, move it away first",
        "other_repository" => {
            "name the data directory of this repository with --data-dir, or the repository with --repo"
        }
        "unsafe_config" => "change the setting it names",
        "conflict" | "fenced" => "look again and repeat the command",
        "approval_subject_mismatch" => "look again: autopack approvals show ID",
        "no_slot" | "full" | "unavailable" => {
            "wait a moment and repeat the command; autopack doctor shows what is wrong"
        }
        "disk_full" => "free some space and repeat the command; nothing half-written counts",
        "version" => "run the same autopack on both sides",
        "internal" => "this is a bug; autopack doctor collects what a report needs",
        _ => "autopack doctor",
    }
}

/// Says what was tried, for errors that do not know.
pub(crate) trait During<T> {
    /// Names what was tried: `read autopack.toml`.
    fn during(self, what: impl Into<String>) -> Result<T, CliError>;
}

impl<T> During<T> for Result<T, Status> {
    fn during(self, what: impl Into<String>) -> Result<T, CliError> {
        self.map_err(|status| CliError::Engine { what: format!("cannot {}", what.into()), status: Box::new(status) })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl Into<String>) -> Result<T, CliError> {
        self.map_err(|source| CliError::Io { what: format!("cannot {}", what.into()), source })
    }
}

impl<T> During<T> for Result<T, InvalidName> {
    fn during(self, what: impl Into<String>) -> Result<T, CliError> {
        self.map_err(|error| {
            CliError::invalid(format!("cannot {}", what.into()), error.to_string(), "choose another name")
        })
    }
}

#[cfg(test)]
mod tests;

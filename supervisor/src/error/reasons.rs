//! The stable reasons of what has an error type of its own.

use std::io::ErrorKind;

use tonic::Code;

use autopack_shared::repo::pack::PackError;

use super::{CLUSTER_MISMATCH, DISK_FULL, READ_ONLY, RUN_DATA_UNAVAILABLE};
use crate::hub::HubError;
use crate::run_data::RunDataError;

/// A git server that cannot be a hub.
const HUB_UNFIT: (&str, Code) = ("hub_unfit", Code::InvalidArgument);

/// A change of refs that a git server does not take.
const HUB_REFUSED: (&str, Code) = ("hub_refused", Code::PermissionDenied);

/// What a worker says of a scan, as far as it is known here.
pub(super) fn scan_reason(reason: &str) -> (&'static str, Code) {
    match reason {
        "not_found" => ("not_found", Code::NotFound),
        "unsafe_path" => ("unsafe_path", Code::FailedPrecondition),
        "too_large" => ("too_large", Code::InvalidArgument),
        "disk_full" => DISK_FULL,
        _ => ("scan_failed", Code::Unavailable),
    }
}

/// What became of a run's data.
pub(super) const fn run_data_reason(error: &RunDataError) -> (&'static str, Code) {
    match error {
        RunDataError::Unavailable { .. } => (RUN_DATA_UNAVAILABLE, Code::Unavailable),
        RunDataError::Full { .. } => (RUN_DATA_UNAVAILABLE, Code::ResourceExhausted),
        RunDataError::Taken(_) => (RUN_DATA_UNAVAILABLE, Code::FailedPrecondition),
        RunDataError::Fenced { .. } => ("fenced", Code::FailedPrecondition),
        RunDataError::Unsafe(_) => ("unsafe_config", Code::FailedPrecondition),
    }
}

/// What a hub refuses or fails at.
pub(super) fn hub_reason(error: &HubError) -> (&'static str, Code) {
    match error {
        HubError::ReadOnly { .. } => READ_ONLY,
        HubError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => READ_ONLY,
        // libgit2 passes on the system's text and not its number.
        HubError::Git(error) if error.message().contains("Permission denied") => READ_ONLY,
        HubError::Away { .. } | HubError::ServerAway { .. } | HubError::Silent { .. } => {
            ("hub_unavailable", Code::Unavailable)
        }
        HubError::Foreign { .. } => CLUSTER_MISMATCH,
        HubError::Fenced { .. } => ("fenced", Code::FailedPrecondition),
        HubError::Locked { .. } => ("locked", Code::Aborted),
        HubError::CheckedOut { .. } => ("checked_out", Code::FailedPrecondition),
        HubError::Collides { .. } => ("exists", Code::AlreadyExists),
        HubError::NotForward { .. } => ("conflict", Code::Aborted),
        HubError::Symbolic { .. } | HubError::ForeignRef { .. } | HubError::TooLarge { .. } | HubError::Open(_) => {
            ("invalid", Code::InvalidArgument)
        }
        HubError::Pack(PackError::TooLarge { .. }) => ("too_large", Code::InvalidArgument),
        HubError::Pack(PackError::NoRoom { .. }) => ("full", Code::Unavailable),
        HubError::Pack(_) => ("malformed_pack", Code::InvalidArgument),
        HubError::BadFence | HubError::Tree(_) | HubError::Facts(_) => ("hub_corrupt", Code::DataLoss),
        HubError::Address { .. } => ("invalid", Code::InvalidArgument),
        HubError::Unfit { .. } => HUB_UNFIT,
        HubError::Refused { .. } => HUB_REFUSED,
        HubError::Credentials { .. } => ("unsafe_config", Code::FailedPrecondition),
        HubError::Io { .. } | HubError::Git(_) => ("unavailable", Code::Unavailable),
    }
}

//! The table of a request.

use serde::{Deserialize, Serialize};

use super::machine::machine;
use super::{IllegalMove, UnknownState};

machine! {
    /// The life of an approval request.
    RequestState / RequestEvent, "request";
    states {
        /// Waits for a decision.
        Pending = "pending",
        /// Approved, not yet used.
        Approved = "approved",
        /// Used by the one apply it was given for.
        Consumed = "consumed" terminal,
        /// A person said no.
        Rejected = "rejected" terminal,
        /// Nobody decided in time, or the approval was not used in time.
        TimedOut = "timed_out" terminal,
        /// Another request took its place.
        Superseded = "superseded" terminal,
        /// Its run was cancelled.
        Cancelled = "cancelled" terminal,
        /// Taken back before it was used.
        Revoked = "revoked" terminal,
    }
    events {
        /// Enough people approved.
        Approve = "approve",
        /// Somebody rejected.
        Reject = "reject",
        /// The apply used it.
        Consume = "consume",
        /// Its time is up.
        TimeOut = "time_out",
        /// The subject changed.
        Supersede = "supersede",
        /// The run was cancelled.
        Cancel = "cancel",
        /// The approver, or the loss of a role, took it back.
        Revoke = "revoke",
    }
    moves {
        Pending + Approve => Approved;
        Pending + Reject => Rejected;
        Pending + TimeOut => TimedOut;
        Pending + Supersede => Superseded;
        Pending + Cancel => Cancelled;
        Approved + Consume => Consumed;
        Approved + TimeOut => TimedOut;
        Approved + Supersede => Superseded;
        Approved + Cancel => Cancelled;
        Approved + Revoke => Revoked;
    }
}

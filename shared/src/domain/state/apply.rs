//! The table of an apply.

use serde::{Deserialize, Serialize};

use super::machine::machine;
use super::{IllegalMove, UnknownState};

machine! {
    /// The life of one move of a branch.
    ApplyState / ApplyEvent, "apply";
    states {
        /// Recorded before the hub is touched.
        Prepared = "prepared",
        /// The hub has it.
        Committed = "committed" terminal,
        /// The branch was elsewhere.
        Conflict = "conflict" terminal,
        /// Given up; proven not to be in the hub.
        Aborted = "aborted" terminal,
    }
    events {
        /// The hub has it.
        Commit = "commit",
        /// The branch was elsewhere.
        Conflict = "conflict",
        /// Proven not to be in the hub, and given up.
        Abort = "abort",
    }
    moves {
        Prepared + Commit => Committed;
        Prepared + Conflict => Conflict;
        Prepared + Abort => Aborted;
    }
}

//! The table of an attempt.

use serde::{Deserialize, Serialize};

use super::machine::machine;
use super::{IllegalMove, UnknownState};

machine! {
    /// The life of one attempt at a phase.
    AttemptState / AttemptEvent, "attempt";
    states {
        /// Recorded with its lease.
        Created = "created",
        /// The builder was started.
        Running = "running",
        /// The result was accepted.
        Collected = "collected",
        /// Its change was applied and verified, or there was nothing to change.
        Succeeded = "succeeded" terminal,
        /// The builder failed, or the change was refused, superseded or rolled back.
        Failed = "failed" terminal,
        /// Its worker was lost.
        Lost = "lost" terminal,
    }
    events {
        /// The builder was started.
        Start = "start",
        /// The result was accepted.
        Collect = "collect",
        /// Applied and verified.
        Succeed = "succeed",
        /// It came to nothing.
        Fail = "fail",
        /// Its worker was lost.
        Lose = "lose",
    }
    moves {
        Created + Start => Running;
        Created + Fail => Failed;
        Created + Lose => Lost;
        Running + Collect => Collected;
        Running + Fail => Failed;
        Running + Lose => Lost;
        Collected + Succeed => Succeeded;
        Collected + Fail => Failed;
    }
}

//! The table of a run.

use serde::{Deserialize, Serialize};

use super::machine::machine;
use super::{IllegalMove, UnknownState};

machine! {
    /// The life of a run.
    RunState / RunEvent, "run";
    states {
        /// Recorded, not yet checked.
        Created = "created",
        /// Has work that a worker or the director may take.
        Queued = "queued",
        /// A worker holds its lease and has not reported yet.
        Leased = "leased",
        /// A worker is at it.
        Running = "running",
        /// Only decisions are left to wait for; holds nothing.
        Waiting = "waiting",
        /// Held by an operator.
        Paused = "paused",
        /// A phase is blocked and nothing else can move.
        Blocked = "blocked",
        /// Being cancelled; waits for its lease to end.
        Cancelling = "cancelling",
        /// Every phase is applied.
        Succeeded = "succeeded" terminal,
        /// Ended with a failed or rolled-back phase.
        Failed = "failed" terminal,
        /// Ended by an operator.
        Cancelled = "cancelled" terminal,
    }
    events {
        /// The plan was checked.
        Validate = "validate",
        /// A lease was granted.
        Grant = "grant",
        /// The first report of the lease's epoch arrived.
        Start = "start",
        /// The lease expired or was revoked.
        LeaseLost = "lease_lost",
        /// The lease was released and more work is due.
        Requeue = "requeue",
        /// Only decisions are left.
        Park = "park",
        /// Nothing can move until a blocked phase is decided.
        Block = "block",
        /// A decision or gate work made work due.
        Wake = "wake",
        /// An operator held it.
        Pause = "pause",
        /// An operator let it go on.
        Resume = "resume",
        /// An operator asked for its end.
        Cancel = "cancel",
        /// The cancelled run's lease has ended.
        CancelDone = "cancel_done",
        /// Every phase is applied.
        Succeed = "succeed",
        /// It cannot succeed any more.
        Fail = "fail",
    }
    moves {
        Created + Validate => Queued;
        Created + Cancel => Cancelled;
        Created + Fail => Failed;
        Queued + Grant => Leased;
        Queued + Cancel => Cancelled;
        Queued + Pause => Paused;
        Queued + Park => Waiting;
        Queued + Block => Blocked;
        Queued + Succeed => Succeeded;
        Queued + Fail => Failed;
        Leased + Start => Running;
        Leased + LeaseLost => Queued;
        Leased + Cancel => Cancelling;
        Leased + Fail => Failed;
        Running + LeaseLost => Queued;
        Running + Requeue => Queued;
        Running + Park => Waiting;
        Running + Block => Blocked;
        Running + Pause => Paused;
        Running + Succeed => Succeeded;
        Running + Fail => Failed;
        Running + Cancel => Cancelling;
        Waiting + Wake => Queued;
        Waiting + Pause => Paused;
        Waiting + Block => Blocked;
        Waiting + Succeed => Succeeded;
        Waiting + Fail => Failed;
        Waiting + Cancel => Cancelling;
        Paused + Resume => Queued;
        Paused + Cancel => Cancelling;
        Paused + Fail => Failed;
        Blocked + Wake => Queued;
        Blocked + Cancel => Cancelling;
        Blocked + Fail => Failed;
        Cancelling + CancelDone => Cancelled;
    }
}

//! Every life in the system as a table: from, event, to. Only listed moves exist (`coordination.md` 4). The same
//! tables feed the store's triggers, so a forgotten check in code is still refused by the database.

use serde::{Deserialize, Serialize};

/// A move that no table lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {machine} that is {from} cannot take '{event}'")]
pub struct IllegalMove {
    /// Which table refused.
    pub machine: &'static str,
    /// The state it was in.
    pub from: &'static str,
    /// What was asked.
    pub event: &'static str,
}

/// A stored state word that no machine knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no state of a {machine}")]
pub struct UnknownState {
    /// Which machine was asked.
    pub machine: &'static str,
    /// The word.
    pub value: String,
}

macro_rules! machine {
    (
        $(#[$doc:meta])* $state:ident / $event:ident, $machine:literal;
        states { $($(#[$sdoc:meta])* $s:ident = $sname:literal $($terminal:ident)?,)+ }
        events { $($(#[$edoc:meta])* $e:ident = $ename:literal,)+ }
        moves { $($from:ident + $on:ident => $to:ident;)+ }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $state { $($(#[$sdoc])* $s,)+ }

        #[doc = concat!("What can happen to a ", $machine, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $event { $($(#[$edoc])* $e,)+ }

        impl $event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$e,)+];
            /// The event's stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$e => $ename,)+ }
            }
        }

        impl $state {
            /// The machine's name in messages and in the store.
            pub const MACHINE: &'static str = $machine;
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$s,)+];
            /// Every legal move.
            pub const MOVES: &'static [(Self, $event, Self)] = &[$((Self::$from, $event::$on, Self::$to),)+];

            /// The state after `event`.
            ///
            /// # Errors
            /// [`IllegalMove`] when the table has no such row.
            pub fn next(self, event: $event) -> Result<Self, IllegalMove> {
                Self::MOVES
                    .iter()
                    .find(|(from, on, _)| *from == self && *on == event)
                    .map(|(_, _, to)| *to)
                    .ok_or(IllegalMove { machine: $machine, from: self.as_str(), event: event.as_str() })
            }

            /// The state's lower-case word, as stored.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$s => $sname,)+ }
            }

            /// Whether the state never changes again.
            #[must_use]
            pub fn is_terminal(self) -> bool {
                match self { $(Self::$s => false $(|| stringify!($terminal) == "terminal")?,)+ }
            }
        }

        impl std::fmt::Display for $state {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $state {
            type Err = UnknownState;
            fn from_str(value: &str) -> Result<Self, UnknownState> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|s| s.as_str() == value)
                    .ok_or_else(|| UnknownState { machine: $machine, value: value.to_owned() })
            }
        }
    };
}

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

machine! {
    /// The life of a phase.
    PhaseState / PhaseEvent, "phase";
    states {
        /// Waits for a worker or a dependency.
        Queued = "queued",
        /// A builder is at it.
        Executing = "executing",
        /// Its result tree lies in the supervisor's quarantine.
        Collected = "collected",
        /// Is being judged.
        Governance = "governance",
        /// Tier 1: policy approved it.
        AutoApproved = "auto_approved",
        /// Tier 2: approved, and somebody is told.
        Notified = "notified",
        /// Tier 3: waits for a person.
        ApprovalPending = "approval_pending",
        /// A person approved it.
        Approved = "approved",
        /// Tier 4, timed out or out of attempts: waits for an elevated decision.
        Blocked = "blocked",
        /// Its base or policy moved; it is judged anew.
        ReapprovalRequired = "reapproval_required",
        /// Its commit is prepared or moving into the branch.
        Applying = "applying",
        /// Applied; the quality gate runs.
        Verifying = "verifying",
        /// Its commit is being reverted.
        RollingBack = "rolling_back",
        /// Done. Only an ordered rollback leaves this state.
        Applied = "applied",
        /// Reverted by a forward commit.
        RolledBack = "rolled_back" terminal,
        /// Gave up.
        Failed = "failed" terminal,
        /// Its run was cancelled.
        Cancelled = "cancelled" terminal,
    }
    events {
        /// A lease is held and the attempt recorded.
        Start = "start",
        /// Its declared scope can never be written.
        ScopeForbidden = "scope_forbidden",
        /// A dependency ended other than applied.
        DependencyFailed = "dependency_failed",
        /// The result was accepted at the current epoch.
        Collect = "collect",
        /// The attempt failed or was lost, or its patch was refused, and another may follow.
        Retry = "retry",
        /// No attempt is left.
        Exhaust = "exhaust",
        /// The patch passed re-validation.
        Judge = "judge",
        /// Verdict tier 1.
        AutoApprove = "auto_approve",
        /// Verdict tier 2.
        Notify = "notify",
        /// Verdict tier 3.
        AskApproval = "ask_approval",
        /// Verdict tier 4, a timeout, or a rejection with no attempt left.
        Block = "block",
        /// Empty diff, and nothing is missing.
        NoChange = "no_change",
        /// Its request was approved.
        Approve = "approve",
        /// Its base or policy moved.
        Stale = "stale",
        /// The new base and tree are computed.
        Rebased = "rebased",
        /// The apply is prepared.
        Prepare = "prepare",
        /// The apply is committed.
        Commit = "commit",
        /// The gate is green, or none is configured.
        Pass = "pass",
        /// The gate is red, or a rollback was ordered.
        RollBack = "roll_back",
        /// The revert is committed.
        RolledBack = "rolled_back",
        /// The run is cancelled.
        Cancel = "cancel",
    }
    moves {
        Queued + Start => Executing;
        Queued + ScopeForbidden => Blocked;
        Queued + DependencyFailed => Failed;
        Queued + Exhaust => Failed;
        Queued + Judge => Governance;
        Queued + Cancel => Cancelled;
        Executing + Collect => Collected;
        Executing + Retry => Queued;
        Executing + Exhaust => Failed;
        Executing + Cancel => Cancelled;
        Collected + Judge => Governance;
        Collected + Retry => Queued;
        Collected + Exhaust => Failed;
        Collected + Cancel => Cancelled;
        Governance + Retry => Queued;
        Governance + Exhaust => Failed;
        Governance + AutoApprove => AutoApproved;
        Governance + Notify => Notified;
        Governance + AskApproval => ApprovalPending;
        Governance + Approve => Approved;
        Governance + Block => Blocked;
        Governance + NoChange => Applied;
        Governance + Cancel => Cancelled;
        ApprovalPending + Approve => Approved;
        ApprovalPending + Retry => Queued;
        ApprovalPending + Block => Blocked;
        ApprovalPending + Stale => ReapprovalRequired;
        ApprovalPending + Cancel => Cancelled;
        Approved + Prepare => Applying;
        Approved + Stale => ReapprovalRequired;
        Approved + Block => Blocked;
        Approved + Cancel => Cancelled;
        AutoApproved + Prepare => Applying;
        AutoApproved + Stale => ReapprovalRequired;
        AutoApproved + Cancel => Cancelled;
        Notified + Prepare => Applying;
        Notified + Stale => ReapprovalRequired;
        Notified + Cancel => Cancelled;
        Blocked + Approve => Approved;
        Blocked + Retry => Queued;
        Blocked + Stale => ReapprovalRequired;
        Blocked + Cancel => Cancelled;
        ReapprovalRequired + Rebased => Governance;
        ReapprovalRequired + Retry => Queued;
        ReapprovalRequired + Exhaust => Failed;
        ReapprovalRequired + Cancel => Cancelled;
        Applying + Commit => Verifying;
        Applying + Stale => ReapprovalRequired;
        Verifying + Pass => Applied;
        Verifying + RollBack => RollingBack;
        RollingBack + RolledBack => RolledBack;
        Applied + RollBack => RollingBack;
    }
}

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

machine! {
    /// The life of a lease.
    LeaseState / LeaseEvent, "lease";
    states {
        /// Counted by the gate; its locks are being taken.
        Granting = "granting",
        /// A worker holds it.
        Held = "held",
        /// Given back.
        Released = "released" terminal,
        /// Its worker is gone.
        Expired = "expired" terminal,
        /// Taken away.
        Revoked = "revoked" terminal,
    }
    events {
        /// Its locks are taken.
        Hold = "hold",
        /// Its worker gave it back.
        Release = "release",
        /// Its worker is gone.
        Expire = "expire",
        /// It was taken away.
        Revoke = "revoke",
    }
    moves {
        Granting + Hold => Held;
        Granting + Revoke => Revoked;
        Held + Release => Released;
        Held + Expire => Expired;
        Held + Revoke => Revoked;
    }
}

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

#[cfg(test)]
mod tests;

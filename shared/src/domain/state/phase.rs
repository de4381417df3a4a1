//! The table of a phase.

use serde::{Deserialize, Serialize};

use super::machine::machine;
use super::{IllegalMove, UnknownState};

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
        RollingBack + Retry => Queued;
        Applied + RollBack => RollingBack;
    }
}

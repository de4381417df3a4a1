//! What comes next for a run: a pure function of what is stored and the store's clock. The director performs the
//! step in one fenced transaction and asks again, so a crash anywhere only means asking again.

use autopack_shared::domain::ids::{PhaseId, RequestId, RowId, Timestamp};
use autopack_shared::domain::record::{LeasePurpose, Phase, RunKind};
use autopack_shared::domain::state::{
    ApplyState, LeaseState, PhaseEvent, PhaseState, RequestState, RunEvent, RunState,
};

use super::view::RunView;

/// Lost attempts (their worker died, or their provider did not answer) after which a phase gives up all the same.
pub const MAX_LOST: u32 = 50;

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Deal with an operator's wish.
    Obey(RowId),
    /// Create the branch and queue the run.
    Validate,
    /// Take the lease away: the run is cancelled or its worker is gone.
    Revoke(&'static str),
    /// Move a phase, with a reason for people.
    Move(PhaseId, PhaseEvent, Option<String>),
    /// Move the run, with a reason for people.
    MoveRun(RunEvent, Option<String>),
    /// Compute facts and verdict of a collected tree.
    Judge(PhaseId),
    /// Put a change on the branch's new tip.
    Rebase(PhaseId),
    /// End a request whose time is up.
    Expire(RequestId),
    /// Take a decided request's outcome to its phase.
    Settle(PhaseId),
    /// Prepare the apply of an approved change.
    Prepare(PhaseId),
    /// Prepare the revert of an applied change.
    PrepareRevert(PhaseId),
    /// Move the branch for a prepared apply, or find that it has moved.
    Drive(RowId),
    /// Move the target of a landing whose merge is judged and verified.
    Land,
    /// Find a worker for a phase.
    Grant(PhaseId, LeasePurpose),
}

/// The next step, or none while the run waits for somebody else.
#[must_use]
pub fn next_step(view: &RunView, now: Timestamp) -> Option<Step> {
    if let Some(command) = view.commands.first() {
        return Some(Step::Obey(command.id.clone()));
    }
    // A prepared move is finished whatever else happened: the hub may have it already.
    if let Some(apply) = view.phases.iter().filter_map(|p| view.apply_of(p)).find(|a| a.state == ApplyState::Prepared) {
        return Some(Step::Drive(apply.id.clone()));
    }
    // Only the director grants, and it is here: what is still being granted was left by an error or a crash.
    if view.lease.as_ref().is_some_and(|l| l.state == LeaseState::Granting) {
        return Some(Step::Revoke("its grant was not completed"));
    }
    match view.run.state {
        RunState::Created => return Some(Step::Validate),
        RunState::Cancelling => return cancelling(view, now),
        RunState::Succeeded | RunState::Failed => return newest_rolling(view),
        RunState::Cancelled => return unfinished(view, now),
        RunState::Paused => return paused(view, now),
        RunState::Queued | RunState::Leased | RunState::Running | RunState::Waiting | RunState::Blocked => {}
    }
    if let Some(step) = view.phases.iter().find_map(|phase| phase_step(view, phase, now)) {
        return Some(step);
    }
    if view.leased() {
        return None;
    }
    match view.run.state {
        // The lease ended while the run was at it: what follows is for the queue.
        RunState::Leased | RunState::Running => return Some(Step::MoveRun(RunEvent::LeaseLost, None)),
        RunState::Created
        | RunState::Cancelling
        | RunState::Succeeded
        | RunState::Failed
        | RunState::Cancelled
        | RunState::Paused
        | RunState::Queued
        | RunState::Waiting
        | RunState::Blocked => {}
    }
    if let Some((phase, purpose)) = grantable(view) {
        return Some(match view.run.state {
            RunState::Waiting | RunState::Blocked => Step::MoveRun(RunEvent::Wake, None),
            RunState::Queued
            | RunState::Created
            | RunState::Leased
            | RunState::Running
            | RunState::Paused
            | RunState::Cancelling
            | RunState::Succeeded
            | RunState::Failed
            | RunState::Cancelled => Step::Grant(phase, purpose),
        });
    }
    outcome(view)
}

/// The phase a worker is wanted for: what is applied is verified before anything new is built on it.
#[must_use]
pub fn grantable(view: &RunView) -> Option<(PhaseId, LeasePurpose)> {
    let verify = view.phases.iter().find(|p| p.state == PhaseState::Verifying && view.has_gate(p));
    if let Some(phase) = verify {
        return Some((phase.id.clone(), LeasePurpose::Verify));
    }
    let build = view.phases.iter().find(|p| p.state == PhaseState::Queued && view.deps_applied(p));
    build.map(|p| (p.id.clone(), LeasePurpose::Build))
}

fn phase_step(view: &RunView, phase: &Phase, now: Timestamp) -> Option<Step> {
    let id = || phase.id.clone();
    match phase.state {
        PhaseState::Queued => {
            if let Some(broken) = view.broken_dep(phase) {
                return Some(Step::Move(
                    id(),
                    PhaseEvent::DependencyFailed,
                    Some(format!("dependency: {broken} was not applied")),
                ));
            }
            if view.run.kind == RunKind::Landing && phase.tree.is_some() {
                return Some(Step::Judge(id()));
            }
            if phase.failed_attempts >= phase.spec.max_attempts {
                let last = phase.reason.clone().unwrap_or_else(|| "attempts exhausted".to_owned());
                return Some(Step::Move(id(), PhaseEvent::Exhaust, Some(last)));
            }
            (phase.lost_attempts >= MAX_LOST).then(|| {
                let last = phase.reason.as_deref().unwrap_or("nobody said why");
                let why = format!("{MAX_LOST} attempts were lost, the last one so: {last}");
                Step::Move(id(), PhaseEvent::Exhaust, Some(why))
            })
        }
        PhaseState::Executing => None,
        PhaseState::Collected | PhaseState::Governance => Some(Step::Judge(id())),
        PhaseState::ReapprovalRequired => Some(Step::Rebase(id())),
        PhaseState::ApprovalPending | PhaseState::Blocked | PhaseState::Approved => request_step(view, phase, now),
        PhaseState::AutoApproved | PhaseState::Notified => prepare(view, phase),
        PhaseState::Applying => match view.apply_of(phase).map(|a| a.state) {
            Some(ApplyState::Conflict | ApplyState::Aborted) => Some(Step::Move(id(), PhaseEvent::Stale, None)),
            Some(ApplyState::Committed) => Some(Step::Move(id(), PhaseEvent::Commit, None)),
            Some(ApplyState::Prepared) | None => None,
        },
        PhaseState::Verifying => (!view.has_gate(phase))
            .then(|| Step::Move(id(), PhaseEvent::Pass, Some("no gate is configured".to_owned()))),
        PhaseState::RollingBack => newest_rolling(view),
        PhaseState::Applied | PhaseState::RolledBack | PhaseState::Failed | PhaseState::Cancelled => None,
    }
}

/// What was applied last is reverted first, so that each revert finds the tree its own change left.
fn newest_rolling(view: &RunView) -> Option<Step> {
    let rolling = view.phases.iter().filter(|p| p.state == PhaseState::RollingBack);
    rolling.max_by_key(|p| view.apply_of(p).map(|a| a.prepared_at)).map(|p| Step::PrepareRevert(p.id.clone()))
}

/// One change at a time is verified: what the gate still judges is not built upon.
fn prepare(view: &RunView, phase: &Phase) -> Option<Step> {
    let judged = view.phases.iter().any(|p| matches!(p.state, PhaseState::Verifying | PhaseState::RollingBack));
    (!judged).then(|| Step::Prepare(phase.id.clone()))
}

fn request_step(view: &RunView, phase: &Phase, now: Timestamp) -> Option<Step> {
    let request = view.request_of(phase)?;
    match request.state {
        RequestState::Pending | RequestState::Approved if now >= request.expires_at => {
            Some(Step::Expire(request.id.clone()))
        }
        RequestState::Pending => None,
        RequestState::Approved if phase.state == PhaseState::Approved => prepare(view, phase),
        RequestState::Approved => Some(Step::Settle(phase.id.clone())),
        // A blocked phase whose request ended stays where it is until a person retries it.
        RequestState::Rejected
        | RequestState::TimedOut
        | RequestState::Revoked
        | RequestState::Superseded
        | RequestState::Cancelled
        | RequestState::Consumed => (phase.state != PhaseState::Blocked).then(|| Step::Settle(phase.id.clone())),
    }
}

fn cancelling(view: &RunView, now: Timestamp) -> Option<Step> {
    if view.leased() {
        return Some(Step::Revoke("cancelled"));
    }
    if let Some(step) = unfinished(view, now) {
        return Some(step);
    }
    for phase in &view.phases {
        match phase.state {
            PhaseState::Applying | PhaseState::Verifying | PhaseState::RollingBack => {}
            PhaseState::Applied | PhaseState::RolledBack | PhaseState::Failed | PhaseState::Cancelled => {}
            PhaseState::Queued
            | PhaseState::Executing
            | PhaseState::Collected
            | PhaseState::Governance
            | PhaseState::AutoApproved
            | PhaseState::Notified
            | PhaseState::ApprovalPending
            | PhaseState::Approved
            | PhaseState::Blocked
            | PhaseState::ReapprovalRequired => {
                return Some(Step::Move(phase.id.clone(), PhaseEvent::Cancel, Some("the run is cancelled".to_owned())));
            }
        }
    }
    Some(Step::MoveRun(RunEvent::CancelDone, Some("cancelled".to_owned())))
}

/// What a cancelled run still has in the hub: finished, then taken back without a gate.
fn unfinished(view: &RunView, now: Timestamp) -> Option<Step> {
    view.phases.iter().find_map(|phase| match phase.state {
        PhaseState::Applying => phase_step(view, phase, now),
        PhaseState::Verifying => {
            Some(Step::Move(phase.id.clone(), PhaseEvent::RollBack, Some("the run is cancelled".to_owned())))
        }
        PhaseState::RollingBack => newest_rolling(view),
        PhaseState::Queued
        | PhaseState::Executing
        | PhaseState::Collected
        | PhaseState::Governance
        | PhaseState::AutoApproved
        | PhaseState::Notified
        | PhaseState::ApprovalPending
        | PhaseState::Approved
        | PhaseState::Blocked
        | PhaseState::ReapprovalRequired
        | PhaseState::Applied
        | PhaseState::RolledBack
        | PhaseState::Failed
        | PhaseState::Cancelled => None,
    })
}

/// When a paused run goes on by itself: with a new day's budget, unless a person wants it to rest.
#[must_use]
pub fn resumes_at(view: &RunView) -> Option<Timestamp> {
    let hit = view.run.budget.hit.as_ref().filter(|_| !view.run.pause_requested)?;
    hit.until.filter(|_| view.run.state == RunState::Paused)
}

/// A paused run starts nothing: time still runs out for requests, and what is half reverted is reverted.
fn paused(view: &RunView, now: Timestamp) -> Option<Step> {
    if resumes_at(view).is_some_and(|until| now >= until) {
        return Some(Step::MoveRun(RunEvent::Resume, Some("a new day has a new budget".to_owned())));
    }
    newest_rolling(view).or_else(|| {
        view.phases.iter().find_map(|phase| match request_step(view, phase, now) {
            Some(step @ Step::Expire(_)) => Some(step),
            Some(_) | None => None,
        })
    })
}

/// Where a run stands once nothing can move by itself and no worker has it.
fn outcome(view: &RunView) -> Option<Step> {
    let count = |state| view.phases.iter().filter(|p| p.state == state).count();
    let applied = count(PhaseState::Applied);
    let ended = applied + count(PhaseState::RolledBack) + count(PhaseState::Failed) + count(PhaseState::Cancelled);
    let step = |event, reason: String| match (view.run.state, event) {
        (RunState::Waiting, RunEvent::Park) | (RunState::Blocked, RunEvent::Block) => None,
        (state, event) if state.next(event).is_ok() => Some(Step::MoveRun(event, Some(reason))),
        (state, _) => state.next(RunEvent::Wake).is_ok().then_some(Step::MoveRun(RunEvent::Wake, None)),
    };
    if applied == view.phases.len() && view.run.kind == RunKind::Landing {
        return Some(if view.run.state == RunState::Blocked {
            Step::MoveRun(RunEvent::Wake, None)
        } else {
            Step::Land
        });
    }
    if applied == view.phases.len() {
        return step(RunEvent::Succeed, format!("{applied} phases applied"));
    }
    if ended == view.phases.len() {
        let reason = view.phases.iter().find_map(|p| match p.state {
            PhaseState::RolledBack => Some(format!("{} was rolled back", p.id)),
            PhaseState::Failed => Some(format!("{} failed", p.id)),
            PhaseState::Queued
            | PhaseState::Executing
            | PhaseState::Collected
            | PhaseState::Governance
            | PhaseState::AutoApproved
            | PhaseState::Notified
            | PhaseState::ApprovalPending
            | PhaseState::Approved
            | PhaseState::Blocked
            | PhaseState::ReapprovalRequired
            | PhaseState::Applying
            | PhaseState::Verifying
            | PhaseState::RollingBack
            | PhaseState::Applied
            | PhaseState::Cancelled => None,
        });
        return step(RunEvent::Fail, reason.unwrap_or_else(|| "not every phase was applied".to_owned()));
    }
    let pending = count(PhaseState::ApprovalPending);
    if pending > 0 {
        return step(RunEvent::Park, format!("{pending} waiting for a decision"));
    }
    if let Some(blocked) = view.phases.iter().find(|p| p.state == PhaseState::Blocked) {
        let why = blocked.reason.clone().unwrap_or_default();
        return step(RunEvent::Block, format!("{} is blocked: {why}", blocked.id));
    }
    None
}

/// The lease states that count as held; for callers that only have the row.
#[must_use]
pub const fn is_active(state: LeaseState) -> bool {
    matches!(state, LeaseState::Granting | LeaseState::Held)
}

#[cfg(test)]
mod tests;

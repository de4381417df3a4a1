//! Operators' wishes: cancel, pause, resume, retry, rollback. Each is done or refused, and says so.

use std::collections::BTreeSet;

use autopack_shared::domain::budget::{BudgetScope, Caps, Unit};
use autopack_shared::domain::feedback::{self, FeedbackKind, Told};
use autopack_shared::domain::ids::{PhaseId, RowId};
use autopack_shared::domain::record::{ApplyKind, Command, CommandOp, Phase, Run};
use autopack_shared::domain::state::{
    ApplyState, AttemptEvent, PhaseEvent, PhaseState, RequestEvent, RunEvent, RunState,
};

use super::grant::reread_run;
use super::view::RunView;
use super::{Director, moves};
use crate::error::Error;
use crate::store::Tx;

impl Director {
    /// Deals with one wish.
    pub(super) async fn obey(&self, view: &RunView, id: &RowId) -> Result<(), Error> {
        let Some(command) = view.commands.iter().find(|c| c.id == *id) else { return Ok(()) };
        if let CommandOp::BreakLease { reason, epoch } = &command.op {
            return self.break_lease(view, command, (reason, *epoch)).await;
        }
        let mut tx = self.fenced(&[]).await?;
        let mut run = reread_run(tx.as_mut(), &view.run).await?;
        let result = match &command.op {
            CommandOp::Cancel => steer(tx.as_mut(), &mut run, RunEvent::Cancel, command).await?,
            CommandOp::Resume => steer(tx.as_mut(), &mut run, RunEvent::Resume, command).await?,
            CommandOp::Budget { phase, caps } => raise(tx.as_mut(), &mut run, command, phase.as_ref(), *caps).await?,
            CommandOp::Pause => self.pause(tx.as_mut(), &mut run, view, command).await?,
            CommandOp::Retry { phase, feedback, scope } => {
                retry(tx.as_mut(), &mut run, command, phase.as_ref(), feedback, scope.as_ref()).await?
            }
            // Done above: it needs more than this transaction.
            CommandOp::BreakLease { .. } => return Ok(()),
            CommandOp::Rollback { phase, reason } => {
                rollback(tx.as_mut(), &run, command, phase.as_ref(), reason).await?
            }
        };
        moves::finish(tx.as_mut(), command, &result).await?;
        Ok(tx.commit().await?)
    }

    /// A running attempt is not frozen half-way: the run pauses when its lease ends.
    async fn pause(&self, tx: &mut dyn Tx, run: &mut Run, view: &RunView, command: &Command) -> Result<String, Error> {
        if view.leased() && matches!(run.state, RunState::Running | RunState::Leased) {
            run.pause_requested = true;
            moves::update_run(tx, run, &command.principal, "a pause is asked for").await?;
            return Ok("done: it pauses when the running attempt ends".to_owned());
        }
        if run.state == RunState::Paused && !run.pause_requested {
            // What paused it may let it go on; from now on only a person does.
            run.pause_requested = true;
            moves::update_run(tx, run, &command.principal, "it stays paused until somebody resumes it").await?;
            return Ok("done: it stays paused until somebody resumes it".to_owned());
        }
        steer(tx, run, RunEvent::Pause, command).await
    }
}

async fn steer(tx: &mut dyn Tx, run: &mut Run, event: RunEvent, command: &Command) -> Result<String, Error> {
    if run.state.next(event).is_err() {
        return Ok(format!("refused: the run is {}", run.state));
    }
    // A person's pause lasts until a person ends it.
    if matches!(event, RunEvent::Pause | RunEvent::Resume) {
        run.pause_requested = event == RunEvent::Pause;
    }
    moves::run(tx, run, event, Some(format!("{} by {}", event.as_str(), command.principal.id)), &command.principal)
        .await?;
    if run.state == RunState::Cancelled {
        for mut phase in tx.phases(&run.id).await? {
            if phase.state.next(PhaseEvent::Cancel).is_ok() {
                cancel_request(tx, &phase, command).await?;
                moves::phase(tx, &mut phase, PhaseEvent::Cancel, None, &command.principal).await?;
            }
        }
    }
    Ok("done".to_owned())
}

async fn cancel_request(tx: &mut dyn Tx, phase: &Phase, command: &Command) -> Result<(), Error> {
    let Some(id) = &phase.request else { return Ok(()) };
    if let Some(mut request) = tx.request(id).await?
        && request.state.next(RequestEvent::Cancel).is_ok()
    {
        request.decided_at = Some(tx.now());
        moves::request(
            tx,
            &mut request,
            RequestEvent::Cancel,
            Some("the run is cancelled".to_owned()),
            &command.principal,
        )
        .await?;
    }
    Ok(())
}

/// Sets bounds of a run anew, or of one of its phases; a run that was held up by a bound of that scope goes on, unless a
/// person wants it to rest.
async fn raise(
    tx: &mut dyn Tx,
    run: &mut Run,
    command: &Command,
    wanted: Option<&PhaseId>,
    caps: Caps,
) -> Result<String, Error> {
    if run.state.is_terminal() || run.state == RunState::Cancelling {
        return Ok(format!("refused: the run is {}", run.state));
    }
    let mut why = format!("budget set by {}: {}", command.principal.id, told(caps));
    let scope = if let Some(id) = wanted {
        let Some(mut phase) = tx.phase(&run.id, id).await? else { return Ok(format!("refused: there is no {id}")) };
        phase.budget.raised = caps.or(phase.budget.raised);
        moves::update_phase(tx, &mut phase, &why).await?;
        why = format!("{why} for {id}");
        BudgetScope::Phase
    } else {
        run.budget.raised = caps.or(run.budget.raised);
        BudgetScope::Run
    };
    let frees = run.budget.hit.as_ref().is_some_and(|hit| hit.scope == scope) && run.state == RunState::Paused;
    if frees && !run.pause_requested {
        moves::run(tx, run, RunEvent::Resume, Some(why), &command.principal).await?;
        return Ok("done".to_owned());
    }
    if frees {
        run.budget.hit = None;
    }
    moves::update_run(tx, run, &command.principal, &why).await?;
    Ok("done".to_owned())
}

fn told(caps: Caps) -> String {
    let set = Unit::ALL.into_iter().filter_map(|unit| caps.get(unit).map(|cap| format!("{} {cap}", unit.as_str())));
    set.collect::<Vec<_>>().join(", ")
}

async fn retry(
    tx: &mut dyn Tx,
    run: &mut Run,
    command: &Command,
    wanted: Option<&PhaseId>,
    words: &str,
    scope: Option<&Vec<String>>,
) -> Result<String, Error> {
    if run.state.is_terminal() || run.state == RunState::Cancelling {
        return Ok(format!("refused: the run is {}", run.state));
    }
    let mut done = 0;
    for mut phase in tx.phases(&run.id).await? {
        if wanted.is_some_and(|w| *w != phase.id) || phase.state != PhaseState::Blocked {
            continue;
        }
        cancel_open_request(tx, &phase, command).await?;
        moves::end_attempt(tx, &phase, AttemptEvent::Fail, Some("retried".to_owned())).await?;
        if !words.is_empty() {
            let told = Told::new(FeedbackKind::Operator, phase.attempt, "", words, Vec::new());
            feedback::add(&mut phase.feedback, told);
        }
        if let Some(scope) = scope {
            phase.spec.scope.paths.clone_from(scope);
        }
        // One attempt more than it has had.
        phase.failed_attempts = phase.failed_attempts.min(phase.spec.max_attempts.saturating_sub(1));
        phase.request = None;
        phase.retried = true;
        let reason = Some(format!("retried by {}", command.principal.id));
        moves::phase(tx, &mut phase, PhaseEvent::Retry, reason, &command.principal).await?;
        done += 1;
    }
    Ok(if done == 0 { "refused: no such phase is blocked".to_owned() } else { format!("done: {done} phases") })
}

async fn cancel_open_request(tx: &mut dyn Tx, phase: &Phase, command: &Command) -> Result<(), Error> {
    let Some(id) = &phase.request else { return Ok(()) };
    if let Some(mut request) = tx.request(id).await?
        && request.state.next(RequestEvent::Supersede).is_ok()
    {
        request.decided_at = Some(tx.now());
        moves::request(tx, &mut request, RequestEvent::Supersede, Some("retried".to_owned()), &command.principal)
            .await?;
    }
    Ok(())
}

async fn rollback(
    tx: &mut dyn Tx,
    run: &Run,
    command: &Command,
    wanted: Option<&PhaseId>,
    reason: &str,
) -> Result<String, Error> {
    let applied: BTreeSet<PhaseId> = tx
        .applies(&run.id)
        .await?
        .into_iter()
        .filter(|a| a.kind == ApplyKind::Patch && a.state == ApplyState::Committed)
        .map(|a| a.phase)
        .collect();
    let mut phases = tx.phases(&run.id).await?;
    // Newest first, so that each revert finds the tree its own change left.
    phases.reverse();
    let mut done = Vec::new();
    for mut phase in phases {
        if wanted.is_some_and(|w| *w != phase.id)
            || !matches!(phase.state, PhaseState::Applied | PhaseState::Verifying)
            || !applied.contains(&phase.id)
        {
            continue;
        }
        phase.rollback_ordered = true;
        let why = format!("rollback by {}: {reason}", command.principal.id);
        moves::phase(tx, &mut phase, PhaseEvent::RollBack, Some(why), &command.principal).await?;
        done.push(phase.id.to_string());
    }
    Ok(if done.is_empty() {
        "refused: nothing of it is applied".to_owned()
    } else {
        format!("done: {}", done.join(", "))
    })
}

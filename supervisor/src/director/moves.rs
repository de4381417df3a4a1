//! Moves of stored things. Each goes by its table, by the version that was read, and leaves its audit record and its
//! line in the run's history in the same transaction. Nobody else updates rows: a row that is written without being
//! logged is what `audit verify` takes for a forgery.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use autopack_shared::domain::audit::{AuditDraft, EVENT, ROW, row_digest};
use autopack_shared::domain::ids::{PhaseId, RunId};
use autopack_shared::domain::record::{Apply, Attempt, Event, Lease, Phase, Principal, Request, Run};
use autopack_shared::domain::state::{
    ApplyEvent, AttemptEvent, AttemptState, LeaseEvent, PhaseEvent, RequestEvent, RunEvent,
};

use crate::error::Error;
use crate::store::Tx;

mod writes;

pub(crate) use writes::{
    breaker, bump, bump_all, credential, finish, forget_transcript, notice, project, sent, update_attempt,
    update_phase, update_run,
};

/// One thing that happened, for the audit log and for the run's history.
#[derive(Debug, Clone)]
pub(crate) struct Note<'a> {
    /// Who did it.
    pub(crate) actor: &'a Principal,
    /// The run it belongs to.
    pub(crate) run: &'a RunId,
    /// The phase it belongs to.
    pub(crate) phase: Option<&'a PhaseId>,
    /// What was done.
    pub(crate) op: String,
    /// The kind of thing.
    pub(crate) object: &'static str,
    /// The thing.
    pub(crate) id: String,
    /// State before and after.
    pub(crate) moved: Option<(String, String)>,
    /// Digests that pin it.
    pub(crate) digests: BTreeMap<String, String>,
    /// Why.
    pub(crate) reason: String,
    /// The line for people; none leaves the history alone.
    pub(crate) text: Option<String>,
}

/// Writes a note.
///
/// # Errors
/// Those of the store.
pub(crate) async fn note(tx: &mut dyn Tx, note: Note<'_>) -> Result<(), Error> {
    let (before, after) = note.moved.unzip();
    let mut digests = note.digests.clone();
    if let Some(text) = note.text {
        let at = tx.now();
        let mut event = Event {
            seq: 0,
            run: note.run.clone(),
            phase: note.phase.cloned(),
            kind: note.op.clone(),
            text,
            data: json!({ "object": note.object, "id": note.id, "before": before, "after": after, "digests": note.digests }),
            at,
            prev: None,
        };
        tx.append_event(&mut event).await?;
        digests.insert(EVENT.to_owned(), pin(&event)?);
    }
    tx.append_audit(AuditDraft {
        chain: format!("run/{}", note.run),
        actor: note.actor.clone(),
        op: note.op,
        object_type: note.object.to_owned(),
        object_id: note.id,
        before,
        after,
        fence: None,
        digests,
        reason: note.reason.chars().take(500).collect(),
        request: BTreeMap::new(),
    })
    .await?;
    Ok(())
}

/// The digest that pins a row to the audit record of its change, taken after the change was written.
///
/// # Errors
/// When the row cannot be written as JSON.
pub(crate) fn pin<T: Serialize>(row: &T) -> Result<String, Error> {
    row_digest(row).map_err(|e| Error::Bug(format!("a row that is no JSON: {e}")))
}

/// Moves a run.
///
/// # Errors
/// An illegal move, or those of the store.
pub(crate) async fn run(
    tx: &mut dyn Tx,
    run: &mut Run,
    event: RunEvent,
    reason: Option<String>,
    actor: &Principal,
) -> Result<(), Error> {
    let before = run.state;
    run.state = before.next(event)?;
    run.updated_at = tx.now();
    run.reason.clone_from(&reason);
    if event == RunEvent::Resume {
        run.budget.hit = None;
    }
    if event != RunEvent::Park {
        run.checkout = None;
    }
    tx.update_run(run).await?;
    let reason = reason.unwrap_or_default();
    let line = if reason.is_empty() { format!("run {}", run.state) } else { format!("run {}: {reason}", run.state) };
    note(
        tx,
        Note {
            actor,
            run: &run.id,
            phase: None,
            op: format!("run.{}", run.state),
            object: "run",
            id: run.id.to_string(),
            moved: Some((before.to_string(), run.state.to_string())),
            digests: BTreeMap::from([(ROW.to_owned(), pin(run)?)]),
            reason,
            text: Some(line),
        },
    )
    .await
}

/// Moves a phase. A reason stays with it until its next move.
///
/// # Errors
/// An illegal move, or those of the store.
pub(crate) async fn phase(
    tx: &mut dyn Tx,
    phase: &mut Phase,
    event: PhaseEvent,
    reason: Option<String>,
    actor: &Principal,
) -> Result<(), Error> {
    let before = phase.state;
    phase.state = before.next(event)?;
    phase.updated_at = tx.now();
    if reason.is_some() {
        phase.reason.clone_from(&reason);
    }
    tx.update_phase(phase).await?;
    let reason = reason.unwrap_or_default();
    let line = match reason.as_str() {
        "" => format!("{} {}", phase.id, phase.state),
        reason => format!("{} {}: {reason}", phase.id, phase.state),
    };
    note(
        tx,
        Note {
            actor,
            run: &phase.run,
            phase: Some(&phase.id),
            op: format!("phase.{}", phase.state),
            object: "phase",
            id: format!("{}/{}", phase.run, phase.id),
            moved: Some((before.to_string(), phase.state.to_string())),
            digests: BTreeMap::from([(ROW.to_owned(), pin(phase)?)]),
            reason,
            text: Some(line),
        },
    )
    .await
}

/// Moves an attempt.
///
/// # Errors
/// An illegal move, or those of the store.
pub(crate) async fn attempt(
    tx: &mut dyn Tx,
    attempt: &mut Attempt,
    event: AttemptEvent,
    reason: Option<String>,
) -> Result<(), Error> {
    let before = attempt.state;
    attempt.state = before.next(event)?;
    if attempt.state.is_terminal() || attempt.state == AttemptState::Collected {
        // The builder's end counts, not how long somebody then took to decide.
        attempt.ended_at.get_or_insert(tx.now());
    }
    if reason.is_some() {
        attempt.reason.clone_from(&reason);
    }
    tx.update_attempt(attempt).await?;
    note(
        tx,
        Note {
            actor: &Principal::system(),
            run: &attempt.run,
            phase: Some(&attempt.phase),
            op: format!("attempt.{}", attempt.state),
            object: "attempt",
            id: format!("{}/{}/{}", attempt.run, attempt.phase, attempt.number),
            moved: Some((before.to_string(), attempt.state.to_string())),
            digests: BTreeMap::from([(ROW.to_owned(), pin(attempt)?)]),
            reason: reason.unwrap_or_default(),
            text: None,
        },
    )
    .await
}

/// Ends the newest attempt of a phase, where it is still open.
///
/// # Errors
/// Those of the store.
pub(crate) async fn end_attempt(
    tx: &mut dyn Tx,
    phase: &Phase,
    event: AttemptEvent,
    reason: Option<String>,
) -> Result<(), Error> {
    match tx.attempt(&phase.run, &phase.id, phase.attempt).await? {
        Some(mut open) if open.state.next(event).is_ok() => attempt(tx, &mut open, event, reason).await,
        Some(_) | None => Ok(()),
    }
}

/// Moves a lease.
///
/// # Errors
/// An illegal move, or those of the store.
pub(crate) async fn lease(
    tx: &mut dyn Tx,
    lease: &mut Lease,
    event: LeaseEvent,
    reason: Option<String>,
    actor: &Principal,
) -> Result<(), Error> {
    let before = lease.state;
    lease.state = before.next(event)?;
    if lease.state.is_terminal() {
        lease.ended_at = Some(tx.now());
        lease.reason.clone_from(&reason);
    }
    tx.update_lease(lease).await?;
    note(
        tx,
        Note {
            actor,
            run: &lease.run,
            phase: Some(&lease.phase),
            op: format!("lease.{}", lease.state),
            object: "lease",
            id: lease.id.to_string(),
            moved: Some((before.to_string(), lease.state.to_string())),
            digests: BTreeMap::from([("epoch".to_owned(), lease.epoch.to_string()), (ROW.to_owned(), pin(lease)?)]),
            reason: reason.unwrap_or_default(),
            text: None,
        },
    )
    .await
}

/// Moves a request.
///
/// # Errors
/// An illegal move, or those of the store.
pub(crate) async fn request(
    tx: &mut dyn Tx,
    request: &mut Request,
    event: RequestEvent,
    reason: Option<String>,
    actor: &Principal,
) -> Result<(), Error> {
    let before = request.state;
    request.state = before.next(event)?;
    tx.update_request(request).await?;
    let reason = reason.unwrap_or_default();
    let who = if actor.method == "system" { String::new() } else { format!(" by {}", actor.id) };
    let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    note(
        tx,
        Note {
            actor,
            run: &request.run,
            phase: Some(&request.phase),
            op: format!("request.{}", request.state),
            object: "request",
            id: request.id.to_string(),
            moved: Some((before.to_string(), request.state.to_string())),
            digests: BTreeMap::from([
                ("subject".to_owned(), request.subject_digest.to_string()),
                (ROW.to_owned(), pin(request)?),
            ]),
            reason,
            text: Some(format!("{} {}{who}{tail}", request.id, request.state)),
        },
    )
    .await
}

/// Moves an apply.
///
/// # Errors
/// An illegal move, or those of the store.
pub(crate) async fn apply(
    tx: &mut dyn Tx,
    apply: &mut Apply,
    event: ApplyEvent,
    reason: Option<String>,
) -> Result<(), Error> {
    let before = apply.state;
    apply.state = before.next(event)?;
    apply.finished_at = Some(tx.now());
    apply.reason.clone_from(&reason);
    tx.update_apply(apply).await?;
    let text = match apply.state.as_str() {
        "committed" => format!("{} is now {}", apply.target_ref, apply.new.short()),
        other => format!("apply {other}: {}", reason.as_deref().unwrap_or("")),
    };
    note(
        tx,
        Note {
            actor: &Principal::system(),
            run: &apply.run,
            phase: Some(&apply.phase),
            op: format!("apply.{}", apply.state),
            object: "apply",
            id: apply.id.to_string(),
            moved: Some((before.to_string(), apply.state.to_string())),
            digests: BTreeMap::from([
                ("commit".to_owned(), apply.new.to_string()),
                ("tree".to_owned(), apply.tree.to_string()),
                ("base".to_owned(), apply.old.to_string()),
                (ROW.to_owned(), pin(apply)?),
            ]),
            reason: reason.unwrap_or_default(),
            text: Some(text),
        },
    )
    .await
}

//! Writes that move nothing along a table, but have to be logged all the same.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::{AuditDraft, ROW};
use autopack_shared::domain::breaker::{Breaker, BreakerState, Credential};
use autopack_shared::domain::ids::{RunId, Scope};
use autopack_shared::domain::record::{Attempt, Command, Notice, Phase, Principal, Project, Run};

use super::{Note, note, pin};
use crate::error::Error;
use crate::store::Tx;
use crate::store::facts::FenceRow;
use crate::store::transcripts::DueTranscript;

/// Writes a run that stays where it is.
///
/// # Errors
/// Those of the store.
pub(crate) async fn update_run(tx: &mut dyn Tx, run: &mut Run, actor: &Principal, why: &str) -> Result<(), Error> {
    tx.update_run(run).await?;
    let entry = Note {
        actor,
        run: &run.id,
        phase: None,
        op: "run.updated".to_owned(),
        object: "run",
        id: run.id.to_string(),
        moved: Some((run.state.to_string(), run.state.to_string())),
        digests: BTreeMap::from([(ROW.to_owned(), pin(run)?)]),
        reason: why.to_owned(),
        text: None,
    };
    note(tx, entry).await
}

/// Writes a phase that stays where it is.
///
/// # Errors
/// Those of the store.
pub(crate) async fn update_phase(tx: &mut dyn Tx, phase: &mut Phase, why: &str) -> Result<(), Error> {
    tx.update_phase(phase).await?;
    let entry = Note {
        actor: &Principal::system(),
        run: &phase.run,
        phase: Some(&phase.id),
        op: "phase.updated".to_owned(),
        object: "phase",
        id: format!("{}/{}", phase.run, phase.id),
        moved: Some((phase.state.to_string(), phase.state.to_string())),
        digests: BTreeMap::from([(ROW.to_owned(), pin(phase)?)]),
        reason: why.to_owned(),
        text: None,
    };
    note(tx, entry).await
}

/// Writes an attempt that stays where it is.
///
/// # Errors
/// Those of the store.
pub(crate) async fn update_attempt(tx: &mut dyn Tx, attempt: &mut Attempt, why: &str) -> Result<(), Error> {
    tx.update_attempt(attempt).await?;
    let entry = Note {
        actor: &Principal::system(),
        run: &attempt.run,
        phase: Some(&attempt.phase),
        op: "attempt.updated".to_owned(),
        object: "attempt",
        id: format!("{}/{}/{}", attempt.run, attempt.phase, attempt.number),
        moved: Some((attempt.state.to_string(), attempt.state.to_string())),
        digests: BTreeMap::from([(ROW.to_owned(), pin(attempt)?)]),
        reason: why.to_owned(),
        text: None,
    };
    note(tx, entry).await
}

/// Ends a command.
///
/// # Errors
/// Those of the store.
pub(crate) async fn finish(tx: &mut dyn Tx, command: &Command, result: &str) -> Result<(), Error> {
    let now = tx.now();
    tx.finish_command(&command.id, now, result).await?;
    let done = Command { done_at: Some(now), result: Some(result.to_owned()), ..command.clone() };
    let entry = Note {
        actor: &Principal::system(),
        run: &command.run,
        phase: None,
        op: "command.done".to_owned(),
        object: "command",
        id: command.id.to_string(),
        moved: Some(("open".to_owned(), "done".to_owned())),
        digests: BTreeMap::from([(ROW.to_owned(), pin(&done)?)]),
        reason: result.to_owned(),
        text: None,
    };
    note(tx, entry).await
}

/// Queues a notice.
///
/// # Errors
/// Those of the store.
pub(crate) async fn notice(tx: &mut dyn Tx, notice: &Notice) -> Result<(), Error> {
    tx.insert_notice(notice).await?;
    note_of(tx, notice, ("", "queued")).await
}

/// Marks a notice sent, if nobody has.
///
/// # Errors
/// Those of the store.
pub(crate) async fn sent(tx: &mut dyn Tx, mut notice: Notice) -> Result<(), Error> {
    let now = tx.now();
    if !tx.mark_sent(&notice.id, now).await? {
        // Another director was at it too, and has logged it.
        return Ok(());
    }
    notice.sent_at = Some(now);
    note_of(tx, &notice, ("queued", "sent")).await
}

async fn note_of(tx: &mut dyn Tx, notice: &Notice, (before, after): (&str, &str)) -> Result<(), Error> {
    let entry = Note {
        actor: &Principal::system(),
        run: &notice.run,
        phase: None,
        op: format!("notice.{after}"),
        object: "notice",
        id: notice.id.to_string(),
        moved: Some((before.to_owned(), after.to_owned())),
        digests: BTreeMap::from([(ROW.to_owned(), pin(notice)?)]),
        reason: notice.kind.clone(),
        text: None,
    };
    note(tx, entry).await
}

/// Raises a scope's epoch.
///
/// # Errors
/// Those of the store.
pub(crate) async fn bump(tx: &mut dyn Tx, scope: &Scope, holder: &str) -> Result<u64, Error> {
    let epoch = tx.bump(scope, holder).await?;
    log_bump(tx, scope, holder, epoch).await?;
    Ok(epoch)
}

/// Raises the epochs of several scopes, in the order given.
///
/// # Errors
/// Those of the store.
pub(crate) async fn bump_all(tx: &mut dyn Tx, scopes: &[(Scope, String)]) -> Result<Vec<u64>, Error> {
    let epochs = tx.bump_all(scopes).await?;
    for ((scope, holder), epoch) in scopes.iter().zip(&epochs) {
        log_bump(tx, scope, holder, *epoch).await?;
    }
    Ok(epochs)
}

async fn log_bump(tx: &mut dyn Tx, scope: &Scope, holder: &str, epoch: u64) -> Result<(), Error> {
    let (scope, holder) = (scope.to_string(), holder.to_owned());
    let draft = AuditDraft {
        chain: FenceRow::chain(&scope),
        actor: Principal::system(),
        op: "fence.bump".to_owned(),
        object_type: "fence".to_owned(),
        object_id: scope.clone(),
        before: None,
        after: None,
        fence: Some(format!("{scope}#{epoch}")),
        reason: holder.clone(),
        digests: BTreeMap::from([
            ("epoch".to_owned(), epoch.to_string()),
            (ROW.to_owned(), pin(&FenceRow { scope, epoch, holder, granted_at: tx.now() })?),
        ]),
        request: BTreeMap::new(),
    };
    tx.append_audit(draft).await?;
    Ok(())
}

/// Adds or replaces a project.
///
/// # Errors
/// Those of the store.
pub(crate) async fn project(
    tx: &mut dyn Tx,
    project: &Project,
    actor: &Principal,
    (op, why): (&str, &str),
    mut digests: BTreeMap<String, String>,
) -> Result<(), Error> {
    tx.put_project(project).await?;
    digests.insert(ROW.to_owned(), pin(project)?);
    let draft = AuditDraft {
        chain: format!("project/{}", project.id),
        actor: actor.clone(),
        op: op.to_owned(),
        object_type: "project".to_owned(),
        object_id: project.id.to_string(),
        before: None,
        after: None,
        fence: None,
        digests,
        reason: why.to_owned(),
        request: BTreeMap::new(),
    };
    tx.append_audit(draft).await?;
    Ok(())
}

/// Lets a transcript go; whether it was there.
///
/// # Errors
/// Those of the store.
pub(crate) async fn forget_transcript(tx: &mut dyn Tx, due: &DueTranscript, why: &str) -> Result<bool, Error> {
    let Some(gone) = tx.forget_transcript(&due.run, &due.digest).await? else { return Ok(false) };
    let entry = Note {
        actor: &Principal::system(),
        run: &gone.run,
        phase: None,
        op: "transcript.deleted".to_owned(),
        object: "transcript",
        id: format!("{}/{}", gone.run, gone.digest),
        moved: Some(("kept".to_owned(), "deleted".to_owned())),
        digests: BTreeMap::from([(ROW.to_owned(), pin(&gone)?), ("transcript".to_owned(), gone.digest.to_string())]),
        reason: why.to_owned(),
        text: None,
    };
    note(tx, entry).await?;
    Ok(true)
}

/// Logs that a breaker opened, closed, or lets one attempt try; nothing where it stays as it was. Its row counts besides
/// what is of no weight by itself, so the row is not pinned.
///
/// # Errors
/// Those of the store.
pub(crate) async fn breaker(
    tx: &mut dyn Tx,
    breaker: &Breaker,
    before: BreakerState,
    actor: &Principal,
) -> Result<(), Error> {
    if breaker.state == before {
        return Ok(());
    }
    let draft = AuditDraft {
        chain: format!("project/{}", breaker.project),
        actor: actor.clone(),
        op: format!("breaker.{}", breaker.state.as_str()),
        object_type: "breaker".to_owned(),
        object_id: format!("{}/{}", breaker.project, breaker.builder),
        before: Some(before.as_str().to_owned()),
        after: Some(breaker.state.as_str().to_owned()),
        fence: None,
        digests: BTreeMap::from([("breaker".to_owned(), pin(breaker)?)]),
        reason: format!("{} failures: {}", breaker.failures, breaker.reason.as_deref().unwrap_or("none")),
        request: BTreeMap::new(),
    };
    Ok(tx.append_audit(draft).await?)
}

/// Logs that a provider told a credential to wait, with the run that was told.
///
/// # Errors
/// Those of the store.
pub(crate) async fn credential(tx: &mut dyn Tx, run: &RunId, credential: &Credential) -> Result<(), Error> {
    let until = credential.not_before.map(|until| until.to_string()).unwrap_or_default();
    let draft = AuditDraft {
        chain: format!("run/{run}"),
        actor: Principal::system(),
        op: "credential.resting".to_owned(),
        object_type: "credential".to_owned(),
        object_id: credential.name.clone(),
        before: None,
        after: None,
        fence: None,
        digests: BTreeMap::from([("credential".to_owned(), pin(credential)?)]),
        reason: format!("its provider told it to wait until {until}"),
        request: BTreeMap::new(),
    };
    Ok(tx.append_audit(draft).await?)
}

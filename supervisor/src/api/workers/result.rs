//! The result of an attempt: accepted once, at the run's current epoch, from the lease's holder.

use std::time::Duration;

use autopack_shared::domain::breaker::is_of_provider;
use autopack_shared::domain::feedback::{self, FeedbackKind, Told};
use autopack_shared::domain::ids::{Digest, Fence, Oid, PhaseId, RunId, Scope};
use autopack_shared::domain::record::{LeasePurpose, Phase, Principal};
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::secret::redact;
use autopack_shared::domain::state::{AttemptEvent, LeaseEvent, LeaseState, PhaseEvent, PhaseState};
use autopack_shared::wire::pb;

use super::account::{self, Account};
use super::gate;
use super::place::Next;
use super::record::{Book, Stored};
use super::session::SessionTask;
use crate::director::lease::release_run;
use crate::director::locks::unlock;
use crate::director::uploaded::mismatch;
use crate::director::{moves, run_blocking};
use crate::error::Error;
use crate::hub::{AttemptKey, HubError, RefName};
use crate::store::Tx;

/// How long a hub may take to say what was uploaded.
const ANSWER: Duration = Duration::from_secs(5);

impl SessionTask {
    /// Accepts an attempt's result: once, at the current epoch, from the lease's holder. Said again, it is answered
    /// again.
    pub(super) async fn result(&self, result: &pb::AttemptResult, book: &mut Book) -> Result<Stored, Error> {
        let refused = match self.accept(result, book).await {
            Err(error) if self.has(result).await? => error,
            done => return done,
        };
        tracing::debug!(run = result.run_id, %refused, "a result was said again");
        Ok(Stored::Upto(result.run_seq.saturating_add(1)))
    }

    /// Whether this result ended its lease already.
    async fn has(&self, result: &pb::AttemptResult) -> Result<bool, Error> {
        let mut tx = self.cores.store().read().await?;
        let leases = tx.leases(&RunId::new(result.run_id.clone())?).await?;
        Ok(leases.iter().any(|lease| {
            let same = lease.epoch == result.epoch && lease.attempt == result.attempt;
            let ours = lease.worker == self.worker && lease.session == self.session;
            same && ours && lease.state == LeaseState::Released && lease.phase.as_str() == result.phase_id
        }))
    }

    async fn accept(&self, result: &pb::AttemptResult, book: &mut Book) -> Result<Stored, Error> {
        let (run, phase) = (RunId::new(result.run_id.clone())?, PhaseId::new(result.phase_id.clone())?);
        let ok = match result.outcome() {
            pb::Outcome::Ok => true,
            pb::Outcome::Failed => false,
            pb::Outcome::Unspecified => {
                return Err(Error::Invalid { field: "outcome".to_owned(), why: "it is not set".to_owned() });
            }
        };
        if ok {
            Box::pin(self.uploaded(&run, &phase, result)).await?;
        }
        let system = Principal::system();
        let mut tx = self.cores.store().tx(&[Fence { scope: Scope::Run(run.clone()), epoch: result.epoch }]).await?;
        tx.defer();
        let mut lease = self.own(tx.as_mut(), &run, result.epoch).await?;
        let what = || Error::NotFound { what: "phase", id: format!("{run}/{phase}") };
        let held = tx.gather(&[(run.clone(), Some(phase.clone()))]).await?.pop();
        let mut found = held.and_then(|held| held.phase).ok_or_else(what)?;
        if lease.phase != phase || lease.attempt != result.attempt {
            return Err(Error::Forbidden {
                reason: "lease_not_yours",
                why: format!("the lease is for {} attempt {}", lease.phase, lease.attempt),
            });
        }
        // One above its events: the result itself. What it does not count was never said.
        let upto = result.run_seq.saturating_add(1);
        if result.run_seq > 0 {
            let heard = self.heard(tx.as_mut(), &lease, upto, book).await?;
            if heard.next(upto) == Next::Missing {
                return Ok(Stored::Missing(heard.last()));
            }
        }
        let reason = (!ok).then(|| redact(&format!("{}: {}", result.reason, result.message)));
        match lease.purpose {
            LeasePurpose::Build => {
                let account = account::settle(tx.as_mut(), &found, &lease, result, &self.governing).await?;
                accept_build(tx.as_mut(), &mut found, result, reason, account).await?;
            }
            LeasePurpose::Verify if found.state == PhaseState::Verifying => {
                gate::accept(tx.as_mut(), &lease, &mut found, result, reason).await?;
            }
            LeasePurpose::Verify => {}
        }
        moves::lease(tx.as_mut(), &mut lease, LeaseEvent::Release, None, &system).await?;
        if let Some(mut run) = tx.run(&run).await? {
            release_run(tx.as_mut(), &mut run, None).await?;
        }
        tx.commit().await?;
        unlock(self.coordinator.as_ref(), &lease).await;
        book.sent.remove(&lease.run);
        Ok(Stored::Upto(upto))
    }

    /// Refuses a tree that is not the one this attempt has uploaded: what is judged was checked when it came.
    async fn uploaded(&self, run: &RunId, phase: &PhaseId, result: &pb::AttemptResult) -> Result<(), Error> {
        let mut tx = self.cores.store().read().await?;
        let lease = self.own(tx.as_mut(), run, result.epoch).await?;
        drop(tx);
        if lease.purpose == LeasePurpose::Verify {
            return Ok(());
        }
        let tree: Oid = result.result_tree.parse()?;
        let (epoch, attempt) = (result.epoch, result.attempt);
        let name = RefName::pending(&AttemptKey { run: run.clone(), epoch, phase: phase.clone(), attempt });
        let silent = || HubError::Silent { project: lease.project.to_string(), seconds: ANSWER.as_secs() };
        let asked = async {
            let hub = self.cores.named(&lease.project).await?.hub.clone();
            run_blocking(move || hub.tip(&name)).await
        };
        match tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(silent().into())) {
            // A hub that cannot be asked says nothing of the result: whoever judges the tree asks again.
            Err(Error::Hub(error)) if !error.is_of_the_ref() => {
                tracing::warn!(run = %run, %error, "what was uploaded is not known yet: it is asked when it is judged");
                Ok(())
            }
            kept => match mismatch(kept?, tree) {
                None => Ok(()),
                Some(why) => Err(Error::Upload { reason: "tree_mismatch", why }),
            },
        }
    }
}

async fn accept_build(
    tx: &mut dyn Tx,
    phase: &mut Phase,
    result: &pb::AttemptResult,
    reason: Option<String>,
    account: Account,
) -> Result<(), Error> {
    let system = Principal::system();
    let fenced = || Error::Forbidden {
        reason: "fenced",
        why: format!("attempt {} of {} is not running", result.attempt, phase.id),
    };
    if phase.state != PhaseState::Executing || phase.attempt != result.attempt {
        return Err(fenced());
    }
    let mut attempt = tx.attempt(&phase.run, &phase.id, result.attempt).await?.ok_or_else(fenced)?;
    attempt.notes = result.notes.iter().take(50).map(|n| redact(n).chars().take(500).collect()).collect();
    attempt.transcript = printed(tx, &phase.run, &result.transcript).await?;
    if let (Some(reason), Account::Short(short)) = (&reason, account) {
        // Others have used what there was, or hold it: neither the builder nor its worker failed. The next attempt waits
        // until there is more.
        moves::attempt(tx, &mut attempt, AttemptEvent::Lose, Some(reason.clone())).await?;
        phase.budget.short = short;
        return moves::phase(tx, phase, PhaseEvent::Retry, Some(reason.clone()), &system).await;
    }
    if let Some(reason) = &reason
        && (result.reason.starts_with("fetch_")
            || matches!(result.reason.as_str(), "upload_cut" | "sandbox_too_weak")
            || is_of_provider(&result.reason))
    {
        // The way to its objects or for its tree was cut, or its provider is at fault: nothing is held against the
        // builder.
        moves::attempt(tx, &mut attempt, AttemptEvent::Lose, Some(reason.clone())).await?;
        phase.lost_attempts += 1;
        return moves::phase(tx, phase, PhaseEvent::Retry, Some(reason.clone()), &system).await;
    }
    if let Some(reason) = reason {
        moves::attempt(tx, &mut attempt, AttemptEvent::Fail, Some(reason.clone())).await?;
        phase.failed_attempts += 1;
        let told = Told::new(FeedbackKind::Builder, phase.attempt, &result.reason, &result.message, Vec::new());
        feedback::add(&mut phase.feedback, told);
        // These will not get better by trying again.
        let fixed = matches!(phase.spec.builder, BuilderSpec::Patch { .. } | BuilderSpec::Remediation { .. });
        let same_again = fixed && !matches!(result.reason.as_str(), "workspace" | "io" | "upload_refused");
        if same_again || matches!(result.reason.as_str(), "unsupported" | "sandbox_required") {
            phase.failed_attempts = phase.failed_attempts.max(phase.spec.max_attempts);
        }
        let event =
            if phase.failed_attempts < phase.spec.max_attempts { PhaseEvent::Retry } else { PhaseEvent::Exhaust };
        return moves::phase(tx, phase, event, Some(reason), &system).await;
    }
    let tree: Oid = result.result_tree.parse()?;
    attempt.result_tree = Some(tree);
    moves::attempt(tx, &mut attempt, AttemptEvent::Collect, None).await?;
    phase.base = Some(attempt.base);
    phase.tree = Some(tree);
    moves::phase(tx, phase, PhaseEvent::Collect, Some(format!("tree {}", tree.short())), &system).await
}

/// The transcript that a result names, where it was kept for this run: what was not cannot be shown to anybody.
async fn printed(tx: &mut dyn Tx, run: &RunId, named: &str) -> Result<Option<Digest>, Error> {
    if named.is_empty() {
        return Ok(None);
    }
    let digest: Digest = named.parse()?;
    Ok(tx.has_transcript(run, &digest).await?.then_some(digest))
}

//! One worker's session: orders out, events and results in, each under its run's epoch and from the lease's holder.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use autopack_shared::domain::ids::{Fence, Oid, PhaseId, RunId, Scope, WorkerId};
use autopack_shared::domain::record::{Event, LeasePurpose, Principal};
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::secret::redact;
use autopack_shared::domain::state::{AttemptEvent, LeaseEvent, PhaseEvent, PhaseState, RunEvent};
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};

use super::Core;
use crate::coordination::{Coordinator, LockName, LockOwner};
use crate::director::grant::{lose_verify, release_run};
use crate::director::{Denial, moves};
use crate::error::Error;
use crate::store::StoreError;
use crate::workers::{Generation, GrantOrder, WorkerOrder, Workers};

/// A worker that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// Heartbeats between two comparisons of leases.
const RECONCILE_BEATS: u32 = 5;

/// Pauses between tries to store a result.
const STORE_RETRIES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1600), Duration::from_millis(5000)];

/// Whether an error says nothing about the message: the store is full or busy.
fn is_of_the_store(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Full(_) | StoreError::Unavailable { .. }))
}

/// Offers a message again where the store was full or busy: that is no fault of the worker.
async fn patiently<F: Future<Output = Result<(), Error>>>(take: impl Fn() -> F) -> Result<(), Error> {
    let mut taken = take().await;
    for pause in STORE_RETRIES {
        match &taken {
            Err(error) if is_of_the_store(error) => tokio::time::sleep(pause).await,
            _ => break,
        }
        taken = take().await;
    }
    taken
}

pub(super) struct SessionTask {
    pub(super) core: Arc<Core>,
    pub(super) workers: Arc<Workers>,
    pub(super) coordinator: Arc<dyn Coordinator>,
    pub(super) worker: WorkerId,
    pub(super) session: String,
    pub(super) generation: Generation,
    pub(super) stop: tokio_util::sync::CancellationToken,
}

impl SessionTask {
    pub(super) async fn serve(
        self,
        inbound: Streaming<pb::WorkerMessage>,
        orders: mpsc::Receiver<WorkerOrder>,
        out: mpsc::Sender<Result<pb::SupervisorMessage, Status>>,
    ) -> Result<(), Error> {
        let served = self.talk(inbound, orders, out).await;
        if !self.workers.disconnect(&self.worker, self.generation) {
            // The worker is back under the same session: closing it now would end what it has begun. Leases that it
            // does not know of any more are taken back by the comparison.
            return served;
        }
        let closed = self.coordinator.close_session(&self.worker, &self.session).await;
        // On shutdown the leases are left as they are: the next start takes them back.
        if let Some(director) = &self.core.director
            && !self.stop.is_cancelled()
        {
            director.lost_session(&self.worker, &self.session).await?;
        }
        served?;
        Ok(closed?)
    }

    async fn talk(
        &self,
        mut inbound: Streaming<pb::WorkerMessage>,
        mut orders: mpsc::Receiver<WorkerOrder>,
        out: mpsc::Sender<Result<pb::SupervisorMessage, Status>>,
    ) -> Result<(), Error> {
        let welcome = pb::Welcome { heartbeat_ms: 2000, soft_ms: 8000, self_ms: 12_000 };
        let say = |body| pb::SupervisorMessage { body: Some(body) };
        let mut open = out.send(Ok(say(supervisor_message::Body::Welcome(welcome)))).await.is_ok();
        let mut beats = 0_u32;
        while open {
            tokio::select! {
                () = self.stop.cancelled() => break,
                order = orders.recv() => match order {
                    Some(order) => open = out.send(Ok(say(order_message(order, &self.core)?))).await.is_ok(),
                    None => break,
                },
                message = tokio::time::timeout(SILENCE, inbound.message()) => match message.unwrap_or(Ok(None)) {
                    Ok(Some(pb::WorkerMessage { body: Some(worker_message::Body::Heartbeat(beat)), .. })) => {
                        beats += 1;
                        self.beat(&beat, beats).await;
                    }
                    Ok(Some(pb::WorkerMessage { body: Some(body), .. })) => {
                        if let Some(answer) = self.handle(body).await {
                            open = out.send(Ok(say(answer))).await.is_ok();
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                },
            }
        }
        Ok(())
    }

    /// Keeps the session alive. Now and then, leases that the worker does not know of are taken back: its job ended
    /// without a word, or its last word was refused.
    async fn beat(&self, beat: &pb::Heartbeat, count: u32) {
        if let Err(error) = self.coordinator.renew_session(&self.worker, &self.session).await {
            tracing::warn!(worker = %self.worker, %error, "the session could not be renewed");
        }
        if count.is_multiple_of(RECONCILE_BEATS)
            && let Err(error) = self.reconcile(beat).await
        {
            tracing::warn!(worker = %self.worker, %error, "leases could not be compared");
        }
    }

    async fn reconcile(&self, beat: &pb::Heartbeat) -> Result<(), Error> {
        let Some(director) = &self.core.director else { return Ok(()) };
        let mut tx = self.core.store.read().await?;
        let now = tx.now();
        let leases = tx.active_leases(None).await?;
        drop(tx);
        for lease in leases.iter().filter(|l| l.worker == self.worker && l.session == self.session) {
            let held = beat.held.iter().any(|h| h.run_id == lease.run.as_str() && h.epoch == lease.epoch);
            if !held && now.millis_since(lease.granted_at) > 10_000 {
                director.revoke(lease, LeaseEvent::Expire, "its worker no longer works on it").await?;
            }
        }
        Ok(())
    }

    async fn handle(&self, body: worker_message::Body) -> Option<supervisor_message::Body> {
        match body {
            worker_message::Body::Hello(_) | worker_message::Body::Heartbeat(_) => None,
            worker_message::Body::Event(event) => {
                let (run_id, epoch, upto) = (event.run_id.clone(), event.epoch, event.run_seq);
                match patiently(|| self.event(event.clone())).await {
                    Ok(()) => Some(supervisor_message::Body::Ack(pb::Ack { run_id, epoch, upto })),
                    Err(error) if is_of_the_store(&error) => {
                        // A line of the history is worth less than the work it tells of.
                        self.deny(&run_id, &error);
                        tracing::warn!(run = run_id, %error, "a worker's event could not be stored and is dropped");
                        None
                    }
                    Err(error) => Some(self.refused(run_id, epoch, &error)),
                }
            }
            worker_message::Body::Result(result) => {
                let (run_id, epoch) = (result.run_id.clone(), result.epoch);
                match patiently(|| self.result(result.clone())).await {
                    Ok(()) => None,
                    Err(error) => Some(self.refused(run_id, epoch, &error)),
                }
            }
        }
    }

    fn refused(&self, run_id: String, epoch: u64, error: &Error) -> supervisor_message::Body {
        tracing::warn!(run = run_id, worker = %self.worker, %error, "a worker's message was refused");
        self.deny(&run_id, error);
        supervisor_message::Body::Revoke(pb::Revoke { run_id, epoch, reason: error.reason().0.to_owned() })
    }

    /// What cannot be written down has to be told to whoever asks why nothing moves.
    fn deny(&self, run: &str, error: &Error) {
        if let (Some(director), Ok(run)) = (&self.core.director, RunId::new(run.to_owned()))
            && error.is_full()
        {
            director.deny(&run, Denial::of(error));
        }
    }

    /// Stores an event under the run's epoch; the first one of an epoch starts the run.
    async fn event(&self, event: pb::RunEvent) -> Result<(), Error> {
        let (run, phase) = (RunId::new(event.run_id.clone())?, PhaseId::new(event.phase_id.clone())?);
        let mut tx = self.core.store.tx(&[Fence { scope: Scope::Run(run.clone()), epoch: event.epoch }]).await?;
        self.own(tx.as_mut(), &run, event.epoch).await?;
        if let Some(mut found) = tx.run(&run).await?
            && found.state.next(RunEvent::Start).is_ok()
        {
            moves::run(tx.as_mut(), &mut found, RunEvent::Start, None, &Principal::system()).await?;
        }
        let data = serde_json::from_str(&event.data_json).unwrap_or(serde_json::Value::Null);
        let text: String = redact(&event.text).chars().take(500).collect();
        let at = tx.now();
        let mut stored = Event {
            seq: 0,
            run,
            phase: Some(phase),
            kind: format!("worker.{}", event.kind),
            text,
            data,
            at,
            prev: None,
        };
        tx.append_event(&mut stored).await?;
        Ok(tx.commit().await?)
    }

    /// Only the holder of the lease speaks for it.
    async fn own(
        &self,
        tx: &mut dyn crate::store::Tx,
        run: &RunId,
        epoch: u64,
    ) -> Result<autopack_shared::domain::record::Lease, Error> {
        let lease = tx.leases(run).await?.into_iter().find(|l| l.epoch == epoch && !l.state.is_terminal());
        match lease {
            Some(lease) if lease.worker == self.worker && lease.session == self.session => Ok(lease),
            Some(lease) => Err(Error::Forbidden {
                reason: "lease_not_yours",
                why: format!("the lease of {run} belongs to {}", lease.worker),
            }),
            None => {
                Err(Error::Forbidden { reason: "fenced", why: format!("no lease of {run} is open at epoch {epoch}") })
            }
        }
    }

    /// Accepts an attempt's result: once, at the current epoch, from the lease's holder.
    async fn result(&self, result: pb::AttemptResult) -> Result<(), Error> {
        let (run, phase) = (RunId::new(result.run_id.clone())?, PhaseId::new(result.phase_id.clone())?);
        let ok = match result.outcome() {
            pb::Outcome::Ok => true,
            pb::Outcome::Failed => false,
            pb::Outcome::Unspecified => {
                return Err(Error::Invalid { field: "outcome".to_owned(), why: "it is not set".to_owned() });
            }
        };
        let system = Principal::system();
        let mut tx = self.core.store.tx(&[Fence { scope: Scope::Run(run.clone()), epoch: result.epoch }]).await?;
        let mut lease = self.own(tx.as_mut(), &run, result.epoch).await?;
        let what = || Error::NotFound { what: "phase", id: format!("{run}/{phase}") };
        let mut found = tx.phase(&run, &phase).await?.ok_or_else(what)?;
        if lease.phase != phase || lease.attempt != result.attempt {
            return Err(Error::Forbidden {
                reason: "lease_not_yours",
                why: format!("the lease is for {} attempt {}", lease.phase, lease.attempt),
            });
        }
        let reason = (!ok).then(|| redact(&format!("{}: {}", result.reason, result.message)));
        match lease.purpose {
            LeasePurpose::Build => accept_build(tx.as_mut(), &mut found, &result, reason).await?,
            LeasePurpose::Verify if found.state == PhaseState::Verifying && !ok && result.reason != "gate_failed" => {
                lose_verify(tx.as_mut(), &mut found, &result.reason).await?;
            }
            LeasePurpose::Verify if found.state == PhaseState::Verifying => {
                let event = if ok { PhaseEvent::Pass } else { PhaseEvent::RollBack };
                if ok {
                    moves::end_attempt(tx.as_mut(), &found, AttemptEvent::Succeed, None).await?;
                }
                let reason = reason.or_else(|| Some("the gate is green".to_owned()));
                moves::phase(tx.as_mut(), &mut found, event, reason, &system).await?;
            }
            LeasePurpose::Verify => {}
        }
        moves::lease(tx.as_mut(), &mut lease, LeaseEvent::Release, None, &system).await?;
        if let Some(mut run) = tx.run(&run).await? {
            release_run(tx.as_mut(), &mut run, None).await?;
        }
        tx.commit().await?;
        let owner = LockOwner { worker: lease.worker.clone(), session: lease.session.clone(), epoch: lease.epoch };
        Ok(self.coordinator.unlock(&[LockName::Run(run.clone()), LockName::Workspace(run)], &owner).await?)
    }
}

async fn accept_build(
    tx: &mut dyn crate::store::Tx,
    phase: &mut autopack_shared::domain::record::Phase,
    result: &pb::AttemptResult,
    reason: Option<String>,
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
    if let Some(reason) = reason {
        moves::attempt(tx, &mut attempt, AttemptEvent::Fail, Some(reason.clone())).await?;
        phase.failed_attempts += 1;
        phase.feedback.push(reason.clone());
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

fn order_message(order: WorkerOrder, core: &Core) -> Result<supervisor_message::Body, Error> {
    Ok(match order {
        WorkerOrder::Grant(order) => supervisor_message::Body::Grant(grant_message(*order, core)?),
        WorkerOrder::Revoke { run, epoch, reason } => {
            supervisor_message::Body::Revoke(pb::Revoke { run_id: run, epoch, reason })
        }
        WorkerOrder::Verdict { run, phase, attempt, verdict, request } => {
            supervisor_message::Body::Verdict(pb::VerdictNotice {
                run_id: run,
                phase_id: phase,
                attempt,
                verdict,
                request_id: request.unwrap_or_default(),
            })
        }
    })
}

fn grant_message(order: GrantOrder, core: &Core) -> Result<pb::Grant, Error> {
    let json = |value: Result<String, serde_json::Error>| value.map_err(|e| Error::Bug(e.to_string()));
    Ok(pb::Grant {
        lease_id: order.lease.id.to_string(),
        run_id: order.lease.run.to_string(),
        project: core.project.to_string(),
        epoch: order.lease.epoch,
        ws_epoch: order.lease.ws_epoch,
        phase_id: order.lease.phase.to_string(),
        attempt: order.lease.attempt,
        purpose: format!("{:?}", order.lease.purpose).to_lowercase(),
        base: order.base.to_string(),
        phase_json: json(serde_json::to_string(&order.phase.spec))?,
        builder_json: order.builder.as_ref().map(|b| json(serde_json::to_string(b))).transpose()?.unwrap_or_default(),
        gate_json: json(serde_json::to_string(&order.gate))?,
        feedback: order.phase.feedback,
        objects_dir: String::new(),
        insecure_no_sandbox: order.insecure_no_sandbox,
    })
}

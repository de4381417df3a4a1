//! One worker's session: orders out, events and results in, each under its run's epoch and from the lease's holder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use autopack_shared::domain::ids::{Fence, PhaseId, RowId, RunId, Scope, WorkerId};
use autopack_shared::domain::record::{Event, Lease, Principal};
use autopack_shared::domain::secret::redact;
use autopack_shared::domain::state::{LeaseState, RunEvent};
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};

use super::orders::order_message;
use crate::api::cores::Cores;
use crate::coordination::Coordinator;
use crate::coordination::timers::Timers;
use crate::director::{Denial, lease, moves};
use crate::error::Error;
use crate::store::{StoreError, Tx};
use crate::workers::{Generation, WorkerOrder, Workers};

/// A worker that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// How long one look at the leases may take.
const LOOK: Duration = Duration::from_secs(2);

/// How long one renewal of a session may take.
const RENEWAL: Duration = Duration::from_secs(1);

/// Events read at a time.
const PAGE: u32 = 500;

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
    pub(super) cores: Arc<Cores>,
    pub(super) workers: Arc<Workers>,
    pub(super) coordinator: Arc<dyn Coordinator>,
    pub(super) worker: WorkerId,
    pub(super) session: String,
    /// What the worker said it works on when it came.
    pub(super) held: Vec<pb::HeldLease>,
    /// Whether the session outlives its stream.
    pub(super) lingers: bool,
    pub(super) timers: Timers,
    /// The last event of each run and epoch that this stream brought. Never held across an await.
    pub(super) heard: Mutex<BTreeMap<(RunId, u64), u64>>,
    /// The survey that this stream has told its worker of. Never held across an await.
    pub(super) scan: Mutex<Option<RowId>>,
    pub(super) generation: Generation,
    pub(super) stop: tokio_util::sync::CancellationToken,
}

/// Which epoch a worker's event is of, in its data.
const EPOCH: &str = "epoch";
/// Its number within that epoch.
const SEQ: &str = "seq";

/// The number of the last event that the history has of an epoch.
async fn last_heard(tx: &mut dyn Tx, run: &RunId, epoch: u64) -> Result<u64, Error> {
    let (mut last, mut after) = (0, 0);
    loop {
        let page = tx.events(run, after, PAGE).await?;
        let Some(end) = page.last() else { return Ok(last) };
        after = end.seq;
        let of = |event: &Event| {
            if event.data[EPOCH].as_u64() == Some(epoch) { event.data[SEQ].as_u64() } else { None }
        };
        last = page.iter().filter_map(of).fold(last, u64::max);
    }
}

/// The leases that this stream has brought to the worker: run and epoch.
pub(super) type Sent = BTreeMap<RunId, u64>;

/// What a message of the worker's came to.
enum Handled {
    /// It is told so.
    Answer(Box<supervisor_message::Body>),
    /// Nothing is to be said.
    Nothing,
    /// It cannot be taken now, through no fault of the worker's.
    NotNow,
}

/// How a session's stream ended.
enum Ended {
    /// The worker stopped everything and left.
    SaidGoodbye,
    /// It broke, or one side went away.
    Lost,
}

fn gone() -> Error {
    Error::Bug("the worker's stream is gone".to_owned())
}

impl SessionTask {
    pub(super) async fn serve(
        self,
        inbound: Streaming<pb::WorkerMessage>,
        orders: mpsc::Receiver<WorkerOrder>,
        out: mpsc::Sender<Result<pb::SupervisorMessage, Status>>,
    ) -> Result<(), Error> {
        let mut sent = Sent::default();
        let served = match self.compare(&self.held, true, &mut sent).await {
            Ok(()) => self.talk(inbound, orders, out, &mut sent).await,
            Err(error) => out.send(Err(error.into())).await.map(|()| Ended::Lost).map_err(|_| gone()),
        };
        if !self.workers.disconnect(&self.worker, self.generation) {
            // The worker is back under the same session: closing it now would end what it has begun.
            return served.map(|_| ());
        }
        if !self.stop.is_cancelled()
            && let Err(error) = self.leave_scan().await
        {
            tracing::warn!(worker = %self.worker, %error, "a scan could not be given back; its time runs out");
        }
        // Where a stream can break, the worker may still be at work and come back: its session runs out by itself.
        let lingers = self.lingers && !matches!(served, Ok(Ended::SaidGoodbye));
        if !lingers && !self.stop.is_cancelled() {
            self.coordinator.close_session(&self.worker, &self.session).await?;
            // Whoever directs here looks again.
            self.workers.nudge();
        }
        served.map(|_| ())
    }

    async fn talk(
        &self,
        mut inbound: Streaming<pb::WorkerMessage>,
        mut orders: mpsc::Receiver<WorkerOrder>,
        out: mpsc::Sender<Result<pb::SupervisorMessage, Status>>,
        sent: &mut Sent,
    ) -> Result<Ended, Error> {
        let say = |body| Ok(pb::SupervisorMessage { body: Some(body) });
        let mut changes = self.cores.store().changes();
        changes.mark_changed();
        out.send(say(supervisor_message::Body::Welcome(self.welcome()))).await.map_err(|_| gone())?;
        let mut beats = 0_u32;
        let mut heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(Ended::Lost),
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Ok(Ended::Lost);
                    }
                    // A store that is away must not keep heartbeats from their answers for long.
                    match tokio::time::timeout(LOOK, self.news(sent)).await {
                        Ok(Ok((news, after))) => {
                            for body in news {
                                out.send(say(body)).await.map_err(|_| gone())?;
                            }
                            *sent = after;
                        }
                        // Looked at again at the next change or heartbeat.
                        Ok(Err(error)) => tracing::warn!(worker = %self.worker, %error, "leases could not be looked at"),
                        Err(_) => tracing::warn!(worker = %self.worker, "leases could not be looked at in time"),
                    }
                }
                order = orders.recv() => match order {
                    Some(order) => out.send(say(order_message(order))).await.map_err(|_| gone())?,
                    None => return Ok(Ended::Lost),
                },
                message = tokio::time::timeout_at(heard + SILENCE, inbound.message()) => {
                    heard = tokio::time::Instant::now();
                    match message.unwrap_or(Ok(None)) {
                    Ok(Some(pb::WorkerMessage { body: Some(worker_message::Body::Goodbye(_)), .. })) => {
                        return Ok(Ended::SaidGoodbye);
                    }
                    Ok(Some(pb::WorkerMessage { body: Some(worker_message::Body::Heartbeat(beat)), .. })) => {
                        beats += 1;
                        if !self.beat(&beat, beats, sent).await {
                            return Ok(Ended::Lost);
                        }
                        changes.mark_changed();
                        // Of no run: the heartbeat itself.
                        let heard = supervisor_message::Body::Ack(pb::Ack::default());
                        out.send(say(heard)).await.map_err(|_| gone())?;
                    }
                    Ok(Some(pb::WorkerMessage { body: Some(body), .. })) => {
                        match self.handle(body, sent).await {
                            Handled::Answer(answer) => out.send(say(*answer)).await.map_err(|_| gone())?,
                            Handled::Nothing => {}
                            // It is said again on the next stream.
                            Handled::NotNow => return Ok(Ended::Lost),
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => return Ok(Ended::Lost),
                    }
                },
            }
        }
    }

    fn welcome(&self) -> pb::Welcome {
        let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let timers = &self.timers;
        pb::Welcome {
            heartbeat_ms: ms(timers.heartbeat),
            soft_ms: ms(timers.worker_soft),
            // A worker in this process needs no limit: it ends with it.
            self_ms: if self.lingers { ms(timers.worker_self) } else { 0 },
        }
    }

    /// Keeps the session alive; false when it is gone. Now and then, leases that the worker does not know of are given
    /// up: its job ended without a word, or its last word was refused.
    async fn beat(&self, beat: &pb::Heartbeat, count: u32, sent: &mut Sent) -> bool {
        let renewed = self.coordinator.renew_session(&self.worker, &self.session);
        match tokio::time::timeout(RENEWAL, renewed).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return false,
            Err(_) => tracing::warn!(worker = %self.worker, "the session could not be renewed in time"),
            Ok(Err(error)) => tracing::warn!(worker = %self.worker, %error, "the session could not be renewed"),
        }
        if count.is_multiple_of(RECONCILE_BEATS)
            && let Err(error) = self.compare(&beat.held, false, sent).await
        {
            tracing::warn!(worker = %self.worker, %error, "leases could not be compared");
        }
        if count.is_multiple_of(RECONCILE_BEATS)
            && let Err(error) = self.renew_scan().await
        {
            tracing::warn!(worker = %self.worker, %error, "a scan could not be renewed");
        }
        true
    }

    /// Gives up the leases that the worker does not say it works on; when it just came, at once.
    async fn compare(&self, held: &[pb::HeldLease], came: bool, sent: &mut Sent) -> Result<(), Error> {
        let mut tx = self.cores.store().read().await?;
        let now = tx.now();
        let leases = tx.active_leases(None).await?;
        drop(tx);
        for lease in leases.iter().filter(|l| l.worker == self.worker && l.session == self.session) {
            let works = held.iter().any(|h| h.run_id == lease.run.as_str() && h.epoch == lease.epoch);
            if works {
                sent.insert(lease.run.clone(), lease.epoch);
            } else if lease.state == LeaseState::Held && (came || now.millis_since(lease.granted_at) > 10_000) {
                let why = "its worker no longer works on it";
                lease::give_up(self.cores.store().as_ref(), self.coordinator.as_ref(), lease, why).await?;
            }
        }
        if came {
            // What it works on and has no lease for is taken from it at the first look.
            for held in held {
                sent.entry(RunId::new(held.run_id.clone())?).or_insert(held.epoch);
            }
        }
        Ok(())
    }

    async fn handle(&self, body: worker_message::Body, sent: &mut Sent) -> Handled {
        match body {
            worker_message::Body::Hello(_) | worker_message::Body::Heartbeat(_) | worker_message::Body::Goodbye(_) => {
                Handled::Nothing
            }
            worker_message::Body::Scan(result) => match patiently(|| self.scanned(result.clone())).await {
                Err(error) if is_of_the_store(&error) && self.lingers => Handled::NotNow,
                Err(error) => {
                    tracing::warn!(worker = %self.worker, %error, "a scan could not be taken");
                    Handled::Nothing
                }
                Ok(()) => Handled::Nothing,
            },
            worker_message::Body::Event(event) => {
                let (run_id, epoch, upto) = (event.run_id.clone(), event.epoch, event.run_seq);
                match patiently(|| self.event(event.clone())).await {
                    Ok(()) => Handled::Answer(Box::new(supervisor_message::Body::Ack(pb::Ack { run_id, epoch, upto }))),
                    Err(error) if is_of_the_store(&error) && self.lingers => Handled::NotNow,
                    Err(error) if is_of_the_store(&error) => {
                        // A line of the history is worth less than the work it tells of.
                        self.deny(&run_id, &error);
                        tracing::warn!(run = run_id, %error, "a worker's event could not be stored and is dropped");
                        Handled::Nothing
                    }
                    Err(error) => Handled::Answer(Box::new(self.refused(run_id, epoch, &error))),
                }
            }
            worker_message::Body::Result(result) => {
                let (run_id, epoch) = (result.run_id.clone(), result.epoch);
                let upto = result.run_seq + 1;
                match patiently(|| self.result(result.clone())).await {
                    Ok(()) => {
                        if let Ok(run) = RunId::new(run_id.clone()) {
                            sent.remove(&run);
                        }
                        // One above its events: the result itself.
                        Handled::Answer(Box::new(supervisor_message::Body::Ack(pb::Ack { run_id, epoch, upto })))
                    }
                    Err(error) if is_of_the_store(&error) && self.lingers => Handled::NotNow,
                    Err(error) => Handled::Answer(Box::new(self.refused(run_id, epoch, &error))),
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
        let Ok(run) = RunId::new(run.to_owned()) else { return };
        if error.is_full() {
            for director in self.cores.opened().iter().filter_map(|core| core.director()) {
                director.deny(&run, Denial::of(error));
            }
        }
    }

    /// Stores an event under the run's epoch; the first one of an epoch starts the run.
    async fn event(&self, event: pb::RunEvent) -> Result<(), Error> {
        let (run, phase) = (RunId::new(event.run_id.clone())?, PhaseId::new(event.phase_id.clone())?);
        let mut tx = self.cores.store().tx(&[Fence { scope: Scope::Run(run.clone()), epoch: event.epoch }]).await?;
        self.own(tx.as_mut(), &run, event.epoch).await?;
        if let Some(mut found) = tx.run(&run).await?
            && found.state.next(RunEvent::Start).is_ok()
        {
            moves::run(tx.as_mut(), &mut found, RunEvent::Start, None, &Principal::system()).await?;
        }
        let key = (run.clone(), event.epoch);
        let known = self.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let last = match known {
            Some(last) => last,
            None => last_heard(tx.as_mut(), &run, event.epoch).await?,
        };
        if event.run_seq <= last {
            // Said again after a stream that broke: it is in the history already.
            return Ok(());
        }
        let data = serde_json::from_str(&event.data_json).unwrap_or(serde_json::Value::Null);
        let data = serde_json::json!({ EPOCH: event.epoch, SEQ: event.run_seq, "data": data });
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
        tx.commit().await?;
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(key, event.run_seq);
        Ok(())
    }

    /// Only the holder of the lease speaks for it.
    pub(super) async fn own(&self, tx: &mut dyn Tx, run: &RunId, epoch: u64) -> Result<Lease, Error> {
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
}

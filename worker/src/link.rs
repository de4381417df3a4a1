//! The stream to the supervisor: hello, heartbeats, grants in, events and results out. One task a lease. Nothing here
//! waits for the other side to read, so that both sides always do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tonic_types::StatusExt as _;

use autopack_shared::runtime::process::Tasks;
use autopack_shared::runtime::telemetry::instruments::metrics;
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};
use autopack_shared::wire::{PROTOCOL, WINDOW};

use crate::contact::{Contact, at};
use crate::jobs::Jobs;
use crate::line::Client;
use crate::runners::Runners;
use crate::sandbox::Standing;
use crate::surveys::Scans;

/// Messages that may wait for the stream: more than are ever under way.
const OUTBOX: usize = 2 * WINDOW;

/// How long a supervisor may take to let a worker in: more than all that it may wait for itself.
const OPENING: Duration = Duration::from_secs(30);

/// How long a stopped job has to wind down.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The supervisor went away.
    #[error("the supervisor ended the session: {0}")]
    Ended(String),
    /// The supervisor refused this worker.
    #[error("the supervisor refuses this worker ({reason}): {why}")]
    Refused {
        /// The stable reason.
        reason: String,
        /// In words.
        why: String,
    },
    /// A message that this worker cannot read.
    #[error("the supervisor sent {what} that this worker cannot read: {why}")]
    Unreadable {
        /// Which message.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl LinkError {
    /// Whether no other try can end otherwise.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == VERSION)
    }
}

impl From<Status> for LinkError {
    fn from(status: Status) -> Self {
        let why = status.message().to_owned();
        match status.get_details_error_info() {
            Some(info) => Self::Refused { reason: info.reason.to_lowercase(), why },
            None => Self::Ended(why),
        }
    }
}

/// The reason of a supervisor that speaks another version of the protocol.
pub(crate) const VERSION: &str = "version";

/// Who this worker is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name.
    pub worker: String,
    /// Its session; new at every start.
    pub session: String,
    /// The machine's boot, or this process's start.
    pub boot_id: String,
    /// Leases it takes at once.
    pub slots: u32,
    /// The sandbox level it measured.
    pub sandbox_level: String,
}

/// Whether this worker is about to leave: it takes no more work, and goes when it has none.
#[derive(Debug)]
pub(crate) struct Leaving {
    /// Cancelled when this process is asked to.
    wish: CancellationToken,
    /// It was asked to.
    wished: bool,
    /// The supervisor knows: nothing more is granted.
    known: bool,
}

impl Leaving {
    pub(crate) const fn new(wish: CancellationToken) -> Self {
        Self { wish, wished: false, known: false }
    }

    /// What the supervisor says of it.
    fn told(&mut self, body: &supervisor_message::Body) {
        if let supervisor_message::Body::Drain(drain) = body {
            self.known = !drain.undo || self.wished;
            tracing::info!(undo = drain.undo, "told to drain");
        }
    }

    /// Whether it may go though nobody was told: it is asked to, and no supervisor is there to tell.
    pub(crate) fn wished(&self) -> bool {
        self.wish.is_cancelled()
    }
}

/// What a worker has to do; it outlives the streams that brought it.
pub(crate) struct Held<'a> {
    /// Its leases.
    pub(crate) jobs: &'a mut Jobs,
    /// Its scan.
    pub(crate) scans: &'a mut Scans,
    /// How long it may be without an answer.
    pub(crate) contact: &'a mut Contact,
    /// Whether it is about to leave.
    pub(crate) leaving: &'a mut Leaving,
}

/// Opens the stream. Jobs go on meanwhile.
async fn open(
    client: &mut Client,
    outbox: mpsc::Receiver<pb::WorkerMessage>,
    jobs: &mut Jobs,
    contact: &Contact,
    tasks: &Tasks,
) -> Result<Streaming<pb::SupervisorMessage>, LinkError> {
    let response = tokio::select! {
        response = client.session(ReceiverStream::new(outbox)) => response,
        () = tasks.stop().cancelled() => return Err(LinkError::Ended("this worker is told to stop".to_owned())),
        () = tokio::time::sleep(OPENING) => {
            return Err(LinkError::Ended(format!("it did not answer a hello within {} s", OPENING.as_secs())));
        }
        () = at(contact.deadline().filter(|_| !jobs.is_idle())) => {
            jobs.stop_all(STOP_GRACE).await;
            return Err(LinkError::Ended("nothing was heard of a supervisor in time".to_owned()));
        }
        never = jobs.gather() => match never {},
    };
    Ok(response?.into_inner())
}

/// Serves one session to its end.
///
/// # Errors
/// [`LinkError`] when the stream breaks; a drain or `stop` ends it without one.
pub(crate) async fn serve(
    mut client: Client,
    who: &Identity,
    Held { jobs, scans, contact, leaving }: Held<'_>,
    runners: &Arc<Runners>,
    tasks: &Tasks,
) -> Result<(), LinkError> {
    let (out, outbox) = mpsc::channel::<pb::WorkerMessage>(OUTBOX);
    let mut sender = Sender { out, seq: 0 };
    let asked = Instant::now();
    let mut standing = runners.sandbox.as_ref().map(|sandbox| sandbox.standing());
    let sandbox = told(standing.as_mut());
    sender.send(worker_message::Body::Hello(hello(who, jobs, sandbox)))?;
    let mut inbox = open(&mut client, outbox, jobs, contact, tasks).await?;
    contact.opened(asked);
    // Another supervisor may not know; it says so if it does.
    leaving.known = false;
    jobs.say_again();
    let mut beat = tokio::time::interval(Duration::from_secs(2));
    let stop = tasks.stop().clone();
    loop {
        let deadline = contact.deadline();
        // Where the supervisor is in this process, the worker ends with it and stays, idle.
        if leaving.known && contact.lingers() && jobs.is_idle() {
            return leave(&mut sender, jobs).await;
        }
        tokio::select! {
            () = leaving.wish.cancelled(), if !leaving.wished => {
                leaving.wished = true;
                // It is said with the next heartbeat, which is now.
                beat.reset_immediately();
            }
            () = changed(standing.as_mut()) => beat.reset_immediately(),
            () = stop.cancelled() => return leave(&mut sender, jobs).await,
            () = at(deadline) => {
                jobs.stop_all(STOP_GRACE).await;
                return Err(LinkError::Ended("nothing was heard of the supervisor in time".to_owned()));
            }
            message = inbox.message() => match message {
                Ok(Some(pb::SupervisorMessage { body: Some(body) })) => {
                    leaving.told(&body);
                    if let supervisor_message::Body::Scan(order) = body {
                        scans.start(order, runners, tasks);
                    } else {
                        handle(body, jobs, contact, runners, tasks, &mut beat)?;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => return Err(LinkError::Ended("the stream was closed".to_owned())),
                Err(status) => return Err(status.into()),
            },
            // A stream that does not move has no room to spare for it; the next heartbeat looks again.
            scanned = scans.next(), if sender.moves() => sender.send(worker_message::Body::Scan(scanned))?,
            output = jobs.next() => sender.send(output.into_body())?,
            // A stream that does not move needs no more questions.
            _ = beat.tick() => if sender.moves() {
                metrics().slots(who.slots, jobs.held().len());
                contact.asks();
                let sandbox = told(standing.as_mut());
                let beat = pb::Heartbeat { held: jobs.held(), draining: leaving.wished, sandbox };
                sender.send(worker_message::Body::Heartbeat(beat))?;
            },
        }
    }
}

/// Stops everything, and says so: the leases can be granted again at once.
async fn leave(sender: &mut Sender, jobs: &mut Jobs) -> Result<(), LinkError> {
    jobs.stop_all(STOP_GRACE).await;
    // A supervisor that is gone notices by itself.
    let _gone = sender.send(worker_message::Body::Goodbye(pb::Goodbye {}));
    Ok(())
}

/// What was measured of sandboxes, where there are any.
type Measured = watch::Receiver<Option<Arc<Standing>>>;

fn told(measured: Option<&mut Measured>) -> Option<pb::SandboxState> {
    let standing = measured?.borrow_and_update().clone()?;
    Some(pb::SandboxState {
        level: standing.report.level.to_string(),
        measured_ms: standing.measured_ms,
        digest: standing.digest().to_string(),
        quarantine: standing.quarantine().unwrap_or_default(),
    })
}

/// Completes when sandboxes were measured again.
async fn changed(measured: Option<&mut Measured>) {
    let Some(measured) = measured else { return std::future::pending().await };
    if measured.changed().await.is_err() {
        // Its other side lives as long as the runners.
        std::future::pending().await
    }
}

fn hello(who: &Identity, jobs: &Jobs, sandbox: Option<pb::SandboxState>) -> pb::Hello {
    pb::Hello {
        worker_id: who.worker.clone(),
        session: who.session.clone(),
        boot_id: who.boot_id.clone(),
        protocol: PROTOCOL,
        slots: who.slots,
        sandbox_level: sandbox.as_ref().map_or_else(|| who.sandbox_level.clone(), |state| state.level.clone()),
        held: jobs.held(),
        sandbox,
    }
}

fn handle(
    body: supervisor_message::Body,
    jobs: &mut Jobs,
    contact: &mut Contact,
    runners: &Arc<Runners>,
    tasks: &Tasks,
    beat: &mut tokio::time::Interval,
) -> Result<(), LinkError> {
    match body {
        supervisor_message::Body::Welcome(welcome) => {
            *beat = tokio::time::interval(Duration::from_millis(u64::from(welcome.heartbeat_ms.max(100))));
            let [soft, end] = [welcome.soft_ms, welcome.self_ms].map(|ms| Duration::from_millis(u64::from(ms)));
            contact.limit(soft, end);
        }
        supervisor_message::Body::Grant(grant) => jobs.start(&grant, runners, tasks)?,
        supervisor_message::Body::Revoke(revoke) => {
            tracing::info!(run = revoke.run_id, reason = revoke.reason, "lease revoked");
            jobs.revoked(&revoke.run_id, revoke.epoch);
        }
        supervisor_message::Body::Verdict(verdict) => {
            tracing::info!(run = verdict.run_id, phase = verdict.phase_id, verdict = verdict.verdict, "verdict");
        }
        supervisor_message::Body::Ack(ack) if ack.run_id.is_empty() => contact.heard(),
        supervisor_message::Body::Ack(ack) => jobs.acked(&ack),
        // Of the session and not of a job.
        supervisor_message::Body::Scan(_) | supervisor_message::Body::Drain(_) => {}
    }
    Ok(())
}

struct Sender {
    out: mpsc::Sender<pb::WorkerMessage>,
    seq: u64,
}

impl Sender {
    /// Never waits: what is under way is bounded, and has room.
    fn send(&mut self, body: worker_message::Body) -> Result<(), LinkError> {
        self.seq += 1;
        let message = pb::WorkerMessage { seq: self.seq, body: Some(body) };
        self.out.try_send(message).map_err(|_| LinkError::Ended("the stream is gone".to_owned()))
    }

    /// Whether less waits than heartbeats may take up.
    fn moves(&self) -> bool {
        self.out.capacity() > WINDOW
    }
}

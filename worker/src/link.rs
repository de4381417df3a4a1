//! The stream to the supervisor: hello, heartbeats, grants in, events and results out. One task a lease; when the
//! stream ends, every builder is stopped, for nobody would accept its work.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};
use autopack_shared::wire::{MAX_MESSAGE, PROTOCOL};

use crate::phase::{Job, JobOutput, Runner, last_word};

/// Messages that may wait for the stream.
const OUTBOX: usize = 256;

/// How long a stopped job has to wind down.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The supervisor refused or went away.
    #[error("the supervisor ended the session: {0}")]
    Ended(String),
    /// A message that this worker cannot read.
    #[error("the supervisor sent {what} that this worker cannot read: {why}")]
    Unreadable {
        /// Which message.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

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

struct Active {
    epoch: u64,
    cancel: CancellationToken,
}

/// Serves one session to its end.
///
/// # Errors
/// [`LinkError`] when the stream breaks; a drain or `stop` ends it without one.
pub async fn serve(channel: Channel, who: &Identity, runner: Arc<Runner>, tasks: &Tasks) -> Result<(), LinkError> {
    let mut client =
        WorkerServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let (out, outbox) = mpsc::channel::<pb::WorkerMessage>(OUTBOX);
    let mut sender = Sender { out, seq: 0 };
    sender.send(worker_message::Body::Hello(hello(who))).await?;
    let response =
        client.session(ReceiverStream::new(outbox)).await.map_err(|s| LinkError::Ended(s.message().to_owned()))?;
    let mut inbox = response.into_inner();
    let (jobs_out, mut from_jobs) = mpsc::channel::<JobOutput>(OUTBOX);
    let mut active: HashMap<String, Active> = HashMap::new();
    let mut beat = tokio::time::interval(Duration::from_secs(2));
    let session = CancellationToken::new();
    let stop = tasks.stop().clone();
    let ended = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            message = inbox.message() => match message {
                Ok(Some(message)) => {
                    if let Some(body) = message.body
                        && let Err(error) = handle(body, &mut active, &runner, &jobs_out, &session, tasks, &mut beat) {
                        break Err(error);
                    }
                }
                Ok(None) => break Err(LinkError::Ended("the stream was closed".to_owned())),
                Err(status) => break Err(LinkError::Ended(status.message().to_owned())),
            },
            Some(output) = from_jobs.recv() => {
                if let JobOutput::Done(result) = &output
                    && active.get(&result.run_id).is_some_and(|a| a.epoch == result.epoch)
                {
                    active.remove(&result.run_id);
                }
                if let Err(error) = sender.send(output.into_body()).await {
                    break Err(error);
                }
            }
            _ = beat.tick() => if let Err(error) = sender.send(worker_message::Body::Heartbeat(heartbeat(&active))).await {
                break Err(error);
            },
        }
    };
    session.cancel();
    // Jobs send their last words into a channel nobody reads; they only have to end.
    drop(jobs_out);
    let drain = async { while from_jobs.recv().await.is_some() {} };
    let _in_time = tokio::time::timeout(STOP_GRACE, drain).await;
    ended
}

fn hello(who: &Identity) -> pb::Hello {
    pb::Hello {
        worker_id: who.worker.clone(),
        session: who.session.clone(),
        boot_id: who.boot_id.clone(),
        protocol: PROTOCOL,
        slots: who.slots,
        sandbox_level: who.sandbox_level.clone(),
        held: Vec::new(),
    }
}

fn heartbeat(active: &HashMap<String, Active>) -> pb::Heartbeat {
    let held = active
        .iter()
        .map(|(run, a)| pb::HeldLease { run_id: run.clone(), epoch: a.epoch, ..Default::default() })
        .collect();
    pb::Heartbeat { held }
}

fn handle(
    body: supervisor_message::Body,
    active: &mut HashMap<String, Active>,
    runner: &Arc<Runner>,
    jobs_out: &mpsc::Sender<JobOutput>,
    session: &CancellationToken,
    tasks: &Tasks,
    beat: &mut tokio::time::Interval,
) -> Result<(), LinkError> {
    match body {
        supervisor_message::Body::Welcome(welcome) => {
            *beat = tokio::time::interval(Duration::from_millis(u64::from(welcome.heartbeat_ms.max(100))));
        }
        supervisor_message::Body::Grant(grant) => {
            let job = Job::read(&grant).map_err(|why| LinkError::Unreadable { what: "a grant", why })?;
            let cancel = session.child_token();
            let lease = Active { epoch: grant.epoch, cancel: cancel.clone() };
            if let Some(earlier) = active.insert(grant.run_id.clone(), lease) {
                earlier.cancel.cancel();
            }
            let (runner, out) = (Arc::clone(runner), jobs_out.clone());
            tasks.spawn("lease", OnError::Log, async move {
                let work = runner.run(job.clone(), out.clone(), cancel.clone());
                last_word(job, out, cancel, work).await;
                Ok::<(), LinkError>(())
            });
        }
        supervisor_message::Body::Revoke(revoke) => {
            if active.get(&revoke.run_id).is_some_and(|a| a.epoch <= revoke.epoch)
                && let Some(lease) = active.remove(&revoke.run_id)
            {
                tracing::info!(run = revoke.run_id, reason = revoke.reason, "lease revoked");
                lease.cancel.cancel();
            }
        }
        supervisor_message::Body::Verdict(verdict) => {
            tracing::info!(run = verdict.run_id, phase = verdict.phase_id, verdict = verdict.verdict, "verdict");
        }
        supervisor_message::Body::Ack(_) | supervisor_message::Body::Drain(_) => {}
    }
    Ok(())
}

struct Sender {
    out: mpsc::Sender<pb::WorkerMessage>,
    seq: u64,
}

impl Sender {
    async fn send(&mut self, body: worker_message::Body) -> Result<(), LinkError> {
        self.seq += 1;
        let message = pb::WorkerMessage { seq: self.seq, body: Some(body) };
        self.out.send(message).await.map_err(|_| LinkError::Ended("the stream is gone".to_owned()))
    }
}

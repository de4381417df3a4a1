//! One worker's session: what its stream says and is told. Heartbeats are renewed in etcd and answered here, and nothing
//! here waits for the store: what has to be stored goes to the session's record (`record.rs`), in order, and is
//! acknowledged from there. So a store that is away stops no builder and loses nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use autopack_shared::domain::ids::{RowId, WorkerId};
use autopack_shared::wire::WINDOW;
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};

use super::orders::order_message;
use super::said::{Pulse, Said};
use super::seen::Lookout;
use crate::api::cores::Cores;
use crate::coordination::timers::Timers;
use crate::coordination::{Coordinator, Renewal, SessionFacts};
use crate::director::Governing;
use crate::error::Error;
use crate::workers::{Generation, WorkerOrder, Workers};

/// A worker that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);

/// How long one renewal of a session may take.
pub(super) const RENEWAL: Duration = Duration::from_secs(1);

/// A session that cannot be renewed for so long is left to another supervisor: this one may be the only one that is cut
/// off from etcd. Early enough for the worker to be there before its key is gone.
const HANDOVER: Duration = Duration::from_secs(5);

/// Messages that may wait for the store. A worker has no more than [`WINDOW`] of them under way; leases that end make
/// it forget some that still wait here.
const QUEUE: usize = 4 * WINDOW;

/// How long the last words of a worker that leaves may take to be stored.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a worker may take to read what it is told: one that never does holds nothing here for ever.
const READING: Duration = Duration::from_secs(8);

/// What goes out on the stream.
pub(super) type Out = mpsc::Sender<Result<pb::SupervisorMessage, Status>>;

/// A message to the worker.
pub(super) fn message(body: supervisor_message::Body) -> Result<pb::SupervisorMessage, Status> {
    Ok(pb::SupervisorMessage { body: Some(body) })
}

/// Tells the worker something; an error where it is gone, or does not read.
pub(super) async fn tell(out: &Out, body: supervisor_message::Body) -> Result<(), Ended> {
    told_in(READING, out, message(body)).await
}

async fn told_in(time: Duration, out: &Out, what: Result<pb::SupervisorMessage, Status>) -> Result<(), Ended> {
    out.send_timeout(what, time).await.map_err(|_| Ended::Lost)
}

pub(super) struct SessionTask {
    pub(super) cores: Arc<Cores>,
    pub(super) workers: Arc<Workers>,
    pub(super) coordinator: Arc<dyn Coordinator>,
    pub(super) worker: WorkerId,
    pub(super) session: String,
    /// What it said of itself when it came.
    pub(super) facts: SessionFacts,
    /// What the worker said it works on when it came.
    pub(super) held: Vec<pb::HeldLease>,
    /// Whether the session outlives its stream.
    pub(super) lingers: bool,
    /// Whether etcd has it; else it was let in on the strength of its leases while etcd was away.
    pub(super) seen: bool,
    pub(super) timers: Timers,
    /// What attempts may use.
    pub(super) governing: Governing,
    /// Looks for leases for all sessions.
    pub(super) lookout: Arc<Lookout>,
    /// The survey that this stream has told its worker of. Never held across an await.
    pub(super) scan: Mutex<Option<RowId>>,
    /// Whether the last heartbeat found that the worker gets more work.
    pub(super) stays: AtomicBool,
    pub(super) generation: Generation,
    pub(super) stop: tokio_util::sync::CancellationToken,
}

/// How a session's stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The worker stopped everything and left.
    SaidGoodbye,
    /// It broke, or one side went away.
    Lost,
}

/// What is known of a session's key in etcd.
struct Key {
    renewed: Instant,
    seen: bool,
}

impl SessionTask {
    pub(super) async fn serve(
        self,
        inbound: Streaming<pb::WorkerMessage>,
        orders: mpsc::Receiver<WorkerOrder>,
        out: Out,
    ) -> Result<(), Error> {
        let (queue, todo) = mpsc::channel(QUEUE);
        let (pulse, beats) = watch::channel(Pulse::default());
        let ended = {
            let record = self.record(todo, beats, out.clone());
            tokio::pin!(record);
            let (ended, recording) = tokio::select! {
                ended = self.talk(inbound, orders, out, queue, pulse) => (ended, true),
                // The stream is gone, or the store cannot be used at all.
                () = &mut record => (Ended::Lost, false),
                // Also while something waits for the worker to read.
                () = self.stop.cancelled() => (Ended::Lost, true),
            };
            // What was not stored is said again on the next stream, where there will be one.
            let last = ended == Ended::SaidGoodbye || !self.lingers;
            if recording && last && tokio::time::timeout(LAST_WORDS, record).await.is_err() {
                tracing::warn!(worker = %self.worker, "the last words of a worker could not be stored");
            }
            ended
        };
        if !self.workers.disconnect(&self.worker, self.generation) {
            // The worker is back under the same session: closing it now would end what it has begun.
            return Ok(());
        }
        if !self.stop.is_cancelled() {
            match tokio::time::timeout(LAST_WORDS, self.leave_scan()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(worker = %self.worker, %error, "a scan could not be given back; its time runs out");
                }
                Err(_) => tracing::warn!(worker = %self.worker, "a scan could not be given back in time"),
            }
        }
        // Where a stream can break, the worker may still be at work and come back: its session runs out by itself.
        let lingers = self.lingers && ended == Ended::Lost;
        if !lingers && !self.stop.is_cancelled() {
            self.coordinator.close_session(&self.worker, &self.session).await?;
            // Whoever directs here looks again.
            self.workers.nudge();
        }
        Ok(())
    }

    /// Hears and answers until the stream ends. The queue ends with it.
    async fn talk(
        &self,
        mut inbound: Streaming<pb::WorkerMessage>,
        mut orders: mpsc::Receiver<WorkerOrder>,
        out: Out,
        queue: mpsc::Sender<Said>,
        pulse: watch::Sender<Pulse>,
    ) -> Ended {
        if let Err(ended) = tell(&out, supervisor_message::Body::Welcome(self.welcome())).await {
            return ended;
        }
        let mut heard = Instant::now();
        let mut key = Key { renewed: heard, seen: self.seen };
        let mut drained = false;
        let mut facts = self.facts.clone();
        loop {
            let answer = tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => Some(order_message(order)),
                    None => return Ended::Lost,
                },
                said = tokio::time::timeout_at(heard + SILENCE, inbound.message()) => {
                    let Ok(Ok(Some(pb::WorkerMessage { body, .. }))) = said else { return Ended::Lost };
                    heard = Instant::now();
                    match body {
                        Some(worker_message::Body::Goodbye(_)) => {
                            let _full = queue.try_send(Said::Goodbye);
                            return Ended::SaidGoodbye;
                        }
                        Some(worker_message::Body::Heartbeat(beat)) => {
                            let marked = match self.renew(&mut key).await {
                                Ok(marked) => marked,
                                Err(ended) => return ended,
                            };
                            self.stays.store(marked == Some(false) && !beat.draining, Ordering::Relaxed);
                            self.sandbox_news(&mut facts, beat.sandbox.as_ref()).await;
                            pulse.send_modify(|pulse| pulse.beat(beat.held));
                            // Of no run: the heartbeat itself.
                            if let Err(ended) = tell(&out, supervisor_message::Body::Ack(pb::Ack::default())).await {
                                return ended;
                            }
                            self.drain_news(beat.draining, marked, &mut drained).await
                        }
                        Some(worker_message::Body::Event(event)) => match self.pass_on(&queue, Said::Event(event)) {
                            Ok(()) => None,
                            Err(ended) => return ended,
                        },
                        Some(worker_message::Body::Result(result)) => match self.pass_on(&queue, Said::Result(Box::new(result))) {
                            Ok(()) => None,
                            Err(ended) => return ended,
                        },
                        Some(worker_message::Body::Scan(result)) => match self.pass_on(&queue, Said::Scan(result)) {
                            Ok(()) => None,
                            Err(ended) => return ended,
                        },
                        Some(worker_message::Body::Hello(_)) | None => None,
                    }
                }
            };
            if let Some(answer) = answer
                && let Err(ended) = tell(&out, answer).await
            {
                return ended;
            }
        }
    }

    /// Passes something on to the record, unless the worker sends more than it may.
    fn pass_on(&self, queue: &mpsc::Sender<Said>, said: Said) -> Result<(), Ended> {
        queue.try_send(said).map_err(|_| {
            tracing::warn!(worker = %self.worker, "it sends more than was acknowledged allows: its stream is ended");
            Ended::Lost
        })
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

    /// Keeps the session's key alive, and says whether it was told to drain, where etcd answers. An error where the
    /// worker has to come anew: its key is gone, or another supervisor may reach etcd while this one does not. Where
    /// none does, the worker is let in without, and stays.
    async fn renew(&self, key: &mut Key) -> Result<Option<bool>, Ended> {
        let renewed = self.coordinator.renew_session(&self.worker, &self.session);
        match tokio::time::timeout(RENEWAL, renewed).await {
            Ok(Ok(Renewal::Kept { draining })) => {
                *key = Key { renewed: Instant::now(), seen: true };
                return Ok(Some(draining));
            }
            Ok(Ok(Renewal::Gone)) => return Err(Ended::Lost),
            Err(_) => tracing::warn!(worker = %self.worker, "the session could not be renewed in time"),
            Ok(Err(error)) => tracing::warn!(worker = %self.worker, %error, "the session could not be renewed"),
        }
        if self.lingers && key.seen && key.renewed.elapsed() >= HANDOVER {
            return Err(Ended::Lost);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_that_does_not_read_ends_its_stream() {
        let (out, mut inbox) = mpsc::channel(1);
        let time = Duration::from_millis(20);
        let heard = || message(supervisor_message::Body::Ack(pb::Ack::default()));
        assert_eq!(told_in(time, &out, heard()).await, Ok(()));
        assert_eq!(told_in(time, &out, heard()).await, Err(Ended::Lost), "there is room for one");
        inbox.recv().await.unwrap().unwrap();
        assert_eq!(told_in(time, &out, heard()).await, Ok(()));
        drop(inbox);
        assert_eq!(told_in(time, &out, heard()).await, Err(Ended::Lost));
    }
}

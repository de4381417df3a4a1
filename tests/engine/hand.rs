//! A worker by hand: what it says is what a test says, and what it hears is kept.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use autopack_shared::wire::PROTOCOL;
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};

use super::harness::Rig;

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(30);

/// The worker's name and session.
pub(super) const NAME: &str = "hand";
pub(super) const SESSION: &str = "s-hand";

/// One session of it.
pub(super) struct Hand {
    out: mpsc::Sender<pb::WorkerMessage>,
    inbox: Streaming<pb::SupervisorMessage>,
    seq: u64,
}

impl Hand {
    /// Opens a session with one slot.
    pub(super) async fn open(rig: &mut Rig) -> Self {
        Self::open_with(rig, 1).await
    }

    /// Opens a session with so many slots.
    pub(super) async fn open_with(rig: &mut Rig, slots: u32) -> Self {
        let hello = pb::Hello {
            worker_id: NAME.to_owned(),
            session: SESSION.to_owned(),
            boot_id: "b".to_owned(),
            protocol: PROTOCOL,
            slots,
            sandbox_level: "S3".to_owned(),
            held: Vec::new(),
            sandbox: None,
        };
        let (out, outbox) = mpsc::channel(64);
        let first = pb::WorkerMessage { seq: 1, body: Some(worker_message::Body::Hello(hello)) };
        out.send(first).await.unwrap();
        let inbox = rig.workers.session(ReceiverStream::new(outbox)).await.unwrap().into_inner();
        let mut hand = Self { out, inbox, seq: 1 };
        hand.hears("a welcome", |body| matches!(body, supervisor_message::Body::Welcome(_)).then_some(())).await;
        hand
    }

    pub(super) async fn say(&mut self, body: worker_message::Body) {
        self.seq += 1;
        self.out.send(pb::WorkerMessage { seq: self.seq, body: Some(body) }).await.unwrap();
    }

    /// A heartbeat that names what it works on.
    pub(super) async fn beat(&mut self, grant: Option<&pb::Grant>) {
        let held = grant.map(|grant| pb::HeldLease {
            run_id: grant.run_id.clone(),
            epoch: grant.epoch,
            attempt: grant.attempt,
            ..Default::default()
        });
        let beat = pb::Heartbeat { held: held.into_iter().collect(), draining: false, sandbox: None };
        self.say(worker_message::Body::Heartbeat(beat)).await;
    }

    /// The next message that fits; others are passed over.
    pub(super) async fn hears<T>(&mut self, what: &str, fits: impl Fn(supervisor_message::Body) -> Option<T>) -> T {
        let heard = async {
            loop {
                let message = self.inbox.message().await.unwrap().unwrap_or_else(|| panic!("closed before {what}"));
                if let Some(found) = message.body.and_then(&fits) {
                    return found;
                }
            }
        };
        tokio::time::timeout(SOON, heard).await.unwrap_or_else(|_| panic!("never heard {what}"))
    }

    pub(super) async fn granted(&mut self) -> pb::Grant {
        let grant = |body| if let supervisor_message::Body::Grant(grant) = body { Some(grant) } else { None };
        self.hears("a grant", grant).await
    }

    /// Why what it said for an epoch is refused.
    pub(super) async fn revoked(&mut self, epoch: u64) -> String {
        let revoke = move |body| {
            if let supervisor_message::Body::Revoke(revoke) = body
                && revoke.epoch == epoch
            {
                return Some(revoke.reason);
            }
            None
        };
        self.hears("a revocation", revoke).await
    }

    pub(super) async fn drained(&mut self) -> bool {
        let drain = |body| if let supervisor_message::Body::Drain(drain) = body { Some(!drain.undo) } else { None };
        self.hears("a drain", drain).await
    }
}

/// What the worker of a grant says when it is done.
pub(super) fn result(grant: &pb::Grant, epoch: u64) -> worker_message::Body {
    worker_message::Body::Result(pb::AttemptResult {
        run_id: grant.run_id.clone(),
        epoch,
        phase_id: grant.phase_id.clone(),
        attempt: grant.attempt,
        run_seq: 0,
        outcome: pb::Outcome::Failed.into(),
        reason: "command_failed".to_owned(),
        message: "it ended with 1".to_owned(),
        ..Default::default()
    })
}

//! What a session takes from its worker and what it refuses: by a worker that says what a real one never would.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use autopack_shared::runtime::clock::SystemClock;
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};
use autopack_shared::wire::{PROTOCOL, WINDOW};

use super::harness::{Rig, Site, reason};

/// How long an answer may take.
const SOON: Duration = Duration::from_secs(30);

/// A stream by hand.
struct Stream {
    out: mpsc::Sender<pb::WorkerMessage>,
    inbox: Streaming<pb::SupervisorMessage>,
}

impl Stream {
    async fn open(rig: &Rig, worker: &str, session: &str, protocol: u32) -> Result<Self, tonic::Status> {
        let (out, outbox) = mpsc::channel(2 * WINDOW);
        let hello = pb::Hello {
            worker_id: worker.to_owned(),
            session: session.to_owned(),
            protocol,
            slots: 1,
            sandbox_level: "S3".to_owned(),
            ..Default::default()
        };
        let body = Some(worker_message::Body::Hello(hello));
        out.send(pb::WorkerMessage { seq: 1, body }).await.unwrap();
        let mut client = WorkerServiceClient::new(rig.channel.clone());
        let inbox = client.session(ReceiverStream::new(outbox)).await?.into_inner();
        Ok(Self { out, inbox })
    }

    async fn say(&self, body: worker_message::Body) {
        self.out.send(pb::WorkerMessage { seq: 2, body: Some(body) }).await.unwrap();
    }

    /// The next message that is no welcome.
    async fn hear(&mut self) -> supervisor_message::Body {
        loop {
            let next = tokio::time::timeout(SOON, self.inbox.message()).await.expect("an answer in time").unwrap();
            let body = next.expect("the stream goes on").body.unwrap();
            if !matches!(body, supervisor_message::Body::Welcome(_)) {
                return body;
            }
        }
    }

    async fn granted(&mut self) -> pb::Grant {
        let heard = self.hear().await;
        let supervisor_message::Body::Grant(grant) = heard else { panic!("no grant but {heard:?}") };
        grant
    }

    /// The epoch of a lease that is taken away, and why.
    async fn revoked(&mut self) -> (u64, String) {
        let heard = self.hear().await;
        let supervisor_message::Body::Revoke(revoke) = heard else { panic!("nothing is revoked but {heard:?}") };
        (revoke.epoch, revoke.reason)
    }

    /// What an event or a result is answered with: up to where it is stored, and whether something is missing.
    async fn answer(&mut self) -> (u64, bool) {
        let heard = self.hear().await;
        let supervisor_message::Body::Ack(ack) = heard else { panic!("no acknowledgement but {heard:?}") };
        (ack.upto, ack.resend)
    }
}

fn event(grant: &pb::Grant, run_seq: u64) -> worker_message::Body {
    worker_message::Body::Event(pb::RunEvent {
        run_id: grant.run_id.clone(),
        epoch: grant.epoch,
        phase_id: grant.phase_id.clone(),
        attempt: grant.attempt,
        run_seq,
        kind: "log".to_owned(),
        text: format!("number {run_seq}"),
        ..Default::default()
    })
}

fn failure(grant: &pb::Grant, run_seq: u64) -> worker_message::Body {
    let mut result = pb::AttemptResult {
        run_id: grant.run_id.clone(),
        epoch: grant.epoch,
        phase_id: grant.phase_id.clone(),
        attempt: grant.attempt,
        run_seq,
        reason: "made_up".to_owned(),
        ..Default::default()
    };
    result.set_outcome(pb::Outcome::Failed);
    worker_message::Body::Result(result)
}

#[tokio::test]
async fn what_is_said_again_is_stored_once_and_a_hole_never() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    rig.submit("r", &[("p", "true", json!({ "max_attempts": 1 }))]).await;
    let mut stream = Stream::open(&rig, "w", "s", PROTOCOL).await.unwrap();
    let grant = stream.granted().await;

    // Again, out of order, with a hole; a hole is asked for once.
    for seq in [1, 1, 4, 3, 5, 2, 3, 3, 1, 4] {
        stream.say(event(&grant, seq)).await;
    }
    let answers = [(1, false), (1, false), (1, true), (2, false), (3, false), (3, false), (3, false), (4, false)];
    for expected in answers {
        assert_eq!(stream.answer().await, expected);
    }
    // A result counts its events: one is missing.
    stream.say(failure(&grant, 5)).await;
    assert_eq!(stream.answer().await, (4, true));
    stream.say(event(&grant, 5)).await;
    assert_eq!(stream.answer().await, (5, false));
    for _ in 0..2 {
        stream.say(failure(&grant, 5)).await;
        assert_eq!(stream.answer().await, (6, false), "a result that is said again is answered again");
    }
    rig.until_state("r", "FAILED").await;
    let said = rig.history("r").await;
    let numbers: Vec<&str> = said.iter().filter_map(|line| line.strip_prefix("worker.log number ")).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5"]);
    // Its lease has ended: nothing more of it is taken.
    stream.say(event(&grant, 6)).await;
    assert_eq!(stream.revoked().await, (grant.epoch, "fenced".to_owned()));
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn an_epoch_that_was_not_granted_is_refused() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    rig.submit("r", &[("p", "true", json!({}))]).await;
    let mut stream = Stream::open(&rig, "w", "s", PROTOCOL).await.unwrap();
    let grant = stream.granted().await;
    for epoch in [grant.epoch - 1, grant.epoch + 1000, grant.epoch + 1000] {
        stream.say(event(&pb::Grant { epoch, ..grant.clone() }, 1)).await;
        assert_eq!(stream.revoked().await, (epoch, "fenced".to_owned()));
    }
    assert!(!rig.history("r").await.iter().any(|line| line.starts_with("worker.")));
    // One that is over is merely late; one that never was is kept in the log, once.
    let forged = rig.logged("run/r", "epoch.forged").await;
    assert_eq!(forged.len(), 1, "{forged:?}");
    let digests = json!({ "epoch": grant.epoch.to_string(), "said": (grant.epoch + 1000).to_string() });
    assert_eq!((&forged[0]["object"]["id"], &forged[0]["digests"]), (&json!("w"), &digests));
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_worker_that_sends_without_end_loses_its_stream_and_nothing_else() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    rig.submit("r", &[("p", "true", json!({}))]).await;
    let mut stream = Stream::open(&rig, "w", "s", PROTOCOL).await.unwrap();
    let grant = stream.granted().await;
    // It never reads: what is under way stays bounded, and the stream is ended.
    let floods = async {
        for seq in 1.. {
            let body = Some(event(&grant, seq));
            if stream.out.send(pb::WorkerMessage { seq, body }).await.is_err() {
                return seq;
            }
        }
        unreachable!()
    };
    let sent = tokio::time::timeout(SOON * 2, floods).await.expect("it is ended");
    let mut acknowledged = 0;
    while let Ok(Some(message)) = stream.inbox.message().await {
        if let Some(supervisor_message::Body::Ack(ack)) = message.body {
            acknowledged = ack.upto;
        }
    }
    assert!(sent > acknowledged);
    let said = rig.history("r").await.iter().filter(|line| line.starts_with("worker.log")).count() as u64;
    assert!(said >= acknowledged, "{acknowledged} were acknowledged, {said} are stored");
    rig.close().await;
}

#[tokio::test]
async fn one_name_has_one_session_and_one_protocol() {
    let site = Site::new("");
    let rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let refused = Stream::open(&rig, "w", "s", PROTOCOL + 1).await.err().unwrap();
    assert_eq!(reason(&refused), "VERSION", "{refused}");
    let mut first = Stream::open(&rig, "w", "s-1", PROTOCOL).await.unwrap();
    let refused = Stream::open(&rig, "w", "s-2", PROTOCOL).await.err().unwrap();
    assert_eq!(reason(&refused), "RUN_LOCKED", "{refused}");
    // The first one goes on.
    first.say(worker_message::Body::Heartbeat(pb::Heartbeat::default())).await;
    assert_eq!(first.answer().await, (0, false));
    first.say(worker_message::Body::Goodbye(pb::Goodbye {})).await;
    while let Ok(Some(_)) = first.inbox.message().await {}
    let came = async {
        while Stream::open(&rig, "w", "s-2", PROTOCOL).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, came).await.expect("the second gets in once the first has left");
    rig.close().await;
}

//! Leases as operators see and break them, and workers that are drained: each with a worker by hand.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::record::{Command, CommandOp, Principal};
use autopack_shared::runtime::clock::{ManualClock, SystemClock};
use autopack_shared::wire::pb::{self, supervisor_message, upload_chunk, worker_message};

use super::hand::{Hand, NAME, SESSION, result};
use super::harness::{Rig, Site, reason};

async fn rig(site: &Site) -> Rig {
    Rig::alone(site, Arc::new(SystemClock::default())).await
}

async fn submit(rig: &mut Rig, run: &str) {
    rig.submit(run, &[("p", "true", json!({ "max_attempts": 2 }))]).await;
}

async fn leases(rig: &mut Rig, run: &str) -> pb::LeasesResponse {
    let call = pb::LeasesRequest { all: true, run_id: run.to_owned() };
    rig.admin.leases(call).await.unwrap().into_inner()
}

fn breaking(run: &str, key: &str, reason: &str) -> pb::BreakLeaseRequest {
    let (idempotency_key, run_id, reason) = (key.to_owned(), run.to_owned(), reason.to_owned());
    pb::BreakLeaseRequest { idempotency_key, run_id, reason, epoch: None }
}

fn upload(grant: &pb::Grant, epoch: u64) -> pb::UploadChunk {
    let header = pb::UploadHeader {
        worker_id: NAME.to_owned(),
        session: SESSION.to_owned(),
        run_id: grant.run_id.clone(),
        epoch,
        phase_id: grant.phase_id.clone(),
        attempt: grant.attempt,
        base: grant.base.clone(),
        result_tree: grant.base.clone(),
        size: 0,
    };
    pb::UploadChunk { body: Some(upload_chunk::Body::Header(header)) }
}

#[tokio::test]
async fn a_broken_lease_is_gone_and_what_its_worker_still_says_is_refused() {
    let site = Site::new("");
    let mut rig = rig(&site).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "stuck").await;
    let first = hand.granted().await;
    let seen = leases(&mut rig, "stuck").await;
    assert_eq!((seen.leases[0].state.as_str(), seen.leases[0].suspect), ("HELD", false));
    assert_eq!(seen.leases[0].locked_by, format!("{NAME} (epoch {})", first.epoch));
    let kinds: Vec<&str> = seen.held.iter().map(|held| held.kind.as_str()).collect();
    assert_eq!(kinds, ["run", "workspace"]);

    let answer = rig.admin.break_lease(breaking("stuck", "k", "it hangs")).await.unwrap().into_inner();
    assert_eq!(answer.lease.unwrap().epoch, first.epoch);
    hand.revoked(first.epoch).await;
    let second = hand.granted().await;
    assert!(second.epoch > first.epoch && second.attempt == 2, "{second:?}");
    let seen = leases(&mut rig, "stuck").await;
    assert_eq!((seen.leases[0].state.as_str(), seen.leases[1].state.as_str()), ("REVOKED", "HELD"));
    assert_eq!(seen.leases[0].reason, "broken by local:owner: it hangs");

    // The same call again breaks nothing more, and says what became of it; another one needs another key.
    let again = rig.admin.break_lease(breaking("stuck", "k", "it hangs")).await.unwrap().into_inner();
    assert_eq!(again.command_id, answer.command_id);
    assert_eq!(again.result, format!("done: {NAME} lost it at epoch {}", first.epoch));
    let other = rig.admin.break_lease(breaking("stuck", "k", "another reason")).await.unwrap_err();
    assert_eq!(reason(&other), "EXISTS");

    // Too old, and made up: an epoch has to be the one.
    for epoch in [first.epoch, second.epoch + 1000] {
        hand.say(result(&first, epoch)).await;
        assert_eq!(hand.revoked(epoch).await, "fenced");
        let event = pb::RunEvent { run_id: "stuck".to_owned(), epoch, phase_id: "p".to_owned(), ..Default::default() };
        hand.say(worker_message::Body::Event(event)).await;
        assert_eq!(hand.revoked(epoch).await, "fenced");
        let refused = rig.workers.upload_objects(tokio_stream::iter([upload(&first, epoch)])).await.unwrap_err();
        assert_eq!(reason(&refused), "FENCED");
    }
    let run = rig.run("stuck").await;
    assert_eq!(run.phases[0].state, "EXECUTING", "nothing of it moved the run: {run:?}");
    hand.say(result(&second, second.epoch)).await;
    rig.until("stuck", "its last attempt", |run| run.phases[0].attempt == 3 || run.state == "FAILED").await;
    let broken = rig.history("stuck").await.iter().filter(|line| line.contains("broken by local:owner")).count();
    assert!(broken > 0);
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_lease_that_was_granted_since_somebody_looked_is_not_broken() {
    let site = Site::new("");
    let mut rig = rig(&site).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "busy").await;
    let seen = hand.granted().await.epoch;
    let first = pb::BreakLeaseRequest { epoch: Some(seen), ..breaking("busy", "1", "it hangs") };
    rig.admin.break_lease(first).await.unwrap();
    let now = hand.granted().await;
    for epoch in [seen, 0, now.epoch + 1] {
        let late = pb::BreakLeaseRequest { epoch: Some(epoch), ..breaking("busy", "", "it hangs") };
        let refused = rig.admin.break_lease(late).await.unwrap_err();
        assert_eq!(reason(&refused), "LEASE_MOVED", "{epoch}");
        assert!(refused.message().contains(&format!("at epoch {}", now.epoch)), "{refused}");
    }
    // Recorded before the lease changed hands, and performed after: the director looks again.
    let (op, result) = (CommandOp::BreakLease { reason: "it hangs".to_owned(), epoch: Some(seen) }, None);
    let (id, run, principal) = ("late".parse().unwrap(), "busy".parse().unwrap(), Principal::system());
    let late = Command { id, run, op, principal, created_at: Timestamp::from_millis(1), done_at: None, result };
    let told = rig.performed(late).await;
    assert!(told.starts_with(&format!("refused: {NAME} has the lease since, at epoch {}", now.epoch)), "{told}");
    let stands = leases(&mut rig, "busy").await;
    assert_eq!((stands.leases[1].epoch, stands.leases[1].state.as_str()), (now.epoch, "HELD"));
    assert_eq!(stands.held.len(), 2, "its locks are its own: {stands:?}");
    rig.close().await;
}

#[tokio::test]
async fn only_what_is_held_can_be_broken_and_only_with_a_reason() {
    let site = Site::new("");
    let mut rig = rig(&site).await;
    submit(&mut rig, "idle").await;
    for (run, why, wanted) in [
        ("idle", "x", "NO_LEASE"),
        ("idle", " ", "INVALID"),
        ("nobody", "x", "NOT_FOUND"),
        ("../../x", "x", "INVALID"),
        ("A", "x", "INVALID"),
    ] {
        let refused = rig.admin.break_lease(breaking(run, "", why)).await.unwrap_err();
        assert_eq!(reason(&refused), wanted, "{run} {why}");
    }
    rig.close().await;
}

#[tokio::test]
async fn a_drained_worker_gets_nothing_until_that_is_taken_back() {
    let site = Site::new("");
    let mut rig = rig(&site).await;
    let mut hand = Hand::open(&mut rig).await;
    let drain = |undo| pb::DrainWorkerRequest { worker_id: NAME.to_owned(), undo, reason: "a new kernel".to_owned() };
    assert!(rig.admin.drain_worker(drain(false)).await.unwrap().into_inner().draining);
    assert!(hand.drained().await);
    submit(&mut rig, "later").await;
    let blocked = async |rig: &mut Rig| {
        let call = pb::GetRunRequest { run_id: "later".to_owned() };
        rig.runs.explain(call).await.unwrap().into_inner().blockers
    };
    let mut looks = 0;
    while !blocked(&mut rig).await.iter().any(|one| one.what.contains("draining")) {
        looks += 1;
        assert!(looks < 500, "{:?}", blocked(&mut rig).await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let workers = rig.admin.workers(pb::WorkersRequest {}).await.unwrap().into_inner().workers;
    assert!(workers[0].draining && workers[0].taken == 0);
    assert!(!rig.admin.drain_worker(drain(true)).await.unwrap().into_inner().draining);
    let grant = hand.granted().await;
    assert_eq!(grant.run_id, "later");

    // What it says itself counts the same, and stays for its session.
    hand.say(worker_message::Body::Heartbeat(pb::Heartbeat { held: Vec::new(), draining: true, sandbox: None })).await;
    assert!(hand.drained().await);
    hand.beat(Some(&grant)).await;
    let workers = rig.admin.workers(pb::WorkersRequest {}).await.unwrap().into_inner().workers;
    assert!(workers[0].draining);
    let nobody = pb::DrainWorkerRequest { worker_id: "nobody".to_owned(), ..Default::default() };
    assert_eq!(reason(&rig.admin.drain_worker(nobody).await.unwrap_err()), "NOT_FOUND");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_lease_is_given_up_when_two_looks_in_a_row_miss_it() {
    let site = Site::new("");
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let mut rig = Rig::alone(&site, clock.clone()).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "missed").await;
    let grant = hand.granted().await;
    // Old enough to have reached its worker, for all that the store knows.
    clock.advance(Duration::from_secs(60));
    let mut beats = 0;
    loop {
        hand.beat(None).await;
        beats += 1;
        let heard = |body| match body {
            supervisor_message::Body::Revoke(revoke) => Some(Some(revoke.epoch)),
            supervisor_message::Body::Ack(_) => Some(None),
            supervisor_message::Body::Welcome(_)
            | supervisor_message::Body::Grant(_)
            | supervisor_message::Body::Verdict(_)
            | supervisor_message::Body::Drain(_)
            | supervisor_message::Body::Scan(_) => None,
        };
        if let Some(epoch) = hand.hears("an answer", heard).await {
            assert_eq!(epoch, grant.epoch);
            break;
        }
        // Each heartbeat is looked at before the next one comes.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(beats >= 10, "one look each five heartbeats, and it took {beats}");
    rig.close().await;
}

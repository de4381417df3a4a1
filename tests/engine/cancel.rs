//! Cancelling from every state that a run can be in (`coordination.md` 4.1): it ends cancelled, holds nothing, and its
//! worker is told.

use std::sync::Arc;

use serde_json::json;

use autopack_shared::domain::ids::{PhaseId, ProjectId, RowId, RunId, Scope, WorkerId};
use autopack_shared::domain::record::{Lease, LeasePurpose};
use autopack_shared::domain::state::LeaseState;
use autopack_shared::runtime::clock::SystemClock;
use autopack_shared::wire::pb::{self, SteerOp, worker_message};

use super::hand::{Hand, NAME, SESSION};
use super::harness::{Rig, Site, reason};

async fn alone(site: &Site) -> Rig {
    Rig::alone(site, Arc::new(SystemClock::default())).await
}

/// Cancels, and checks what is left.
async fn cancel(rig: &mut Rig, run: &str, from: &str) {
    assert_eq!(rig.run(run).await.state, from);
    rig.steer(run, SteerOp::Cancel).await;
    ended(rig, run).await;
}

async fn ended(rig: &mut Rig, run: &str) {
    let found = rig.until_state(run, "CANCELLED").await;
    assert!(found.phases.iter().all(|phase| phase.state == "CANCELLED"), "{found:?}");
    let call = pb::LeasesRequest { all: true, run_id: run.to_owned() };
    let leases = rig.admin.leases(call).await.unwrap().into_inner();
    assert!(leases.leases.iter().all(|lease| lease.ended_at_ms > 0) && leases.held.is_empty(), "{leases:?}");
    let open = pb::ListRequestsRequest { run_id: run.to_owned(), ..Default::default() };
    assert!(rig.governance.list(open).await.unwrap().into_inner().requests.is_empty());
    let again = pb::SteerRequest { run_id: run.to_owned(), op: SteerOp::Cancel.into(), ..Default::default() };
    assert_eq!(reason(&rig.runs.steer(again).await.unwrap_err()), "ILLEGAL_MOVE");
}

#[tokio::test]
async fn before_anybody_works() {
    let site = Site::new("");
    let mut idle = Rig::undriven(&site).await;
    idle.submit("created", &[("p", "true", json!({}))]).await;
    assert_eq!(idle.run("created").await.state, "CREATED");
    idle.steer("created", SteerOp::Cancel).await;
    idle.close().await;
    let mut rig = alone(&site).await;
    ended(&mut rig, "created").await;

    rig.submit("queued", &[("p", "true", json!({}))]).await;
    rig.until_state("queued", "QUEUED").await;
    cancel(&mut rig, "queued", "QUEUED").await;
    rig.submit("paused", &[("p", "true", json!({}))]).await;
    rig.until_state("paused", "QUEUED").await;
    rig.steer("paused", SteerOp::Pause).await;
    rig.until_state("paused", "PAUSED").await;
    cancel(&mut rig, "paused", "PAUSED").await;
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn while_a_worker_has_it() {
    let site = Site::new("");
    let mut rig = alone(&site).await;
    let mut hand = Hand::open(&mut rig).await;
    rig.submit("leased", &[("p", "true", json!({}))]).await;
    let grant = hand.granted().await;
    cancel(&mut rig, "leased", "LEASED").await;
    hand.revoked(grant.epoch).await;

    rig.submit("running", &[("p", "true", json!({}))]).await;
    let grant = hand.granted().await;
    let began = pb::RunEvent {
        run_id: "running".to_owned(),
        epoch: grant.epoch,
        phase_id: "p".to_owned(),
        attempt: grant.attempt,
        run_seq: 1,
        kind: "started".to_owned(),
        ..Default::default()
    };
    hand.say(worker_message::Body::Event(began)).await;
    rig.until_state("running", "RUNNING").await;
    cancel(&mut rig, "running", "RUNNING").await;
    hand.revoked(grant.epoch).await;
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn when_only_people_can_move_it() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("waiting", &[("p", "echo 1 > docs/one.md", json!({}))]).await;
    rig.until_state("waiting", "WAITING").await;
    cancel(&mut rig, "waiting", "WAITING").await;
    rig.submit("blocked", &[("p", "echo A=1 > .env", json!({}))]).await;
    rig.until_state("blocked", "BLOCKED").await;
    cancel(&mut rig, "blocked", "BLOCKED").await;
    rig.audit_is_whole().await;
    rig.close().await;
}

/// Puts a lease into the store that is being granted, to a worker that is alive.
async fn half_granted(rig: &Rig, run: &str, phase: &str) {
    let run = RunId::new(run).unwrap();
    let mut tx = rig.store().tx(&[]).await.unwrap();
    let epoch = tx.bump(&Scope::Run(run.clone()), "nobody").await.unwrap();
    let lease = Lease {
        id: RowId::new("lease-half").unwrap(),
        project: ProjectId::new("site").unwrap(),
        phase: PhaseId::new(phase).unwrap(),
        purpose: LeasePurpose::Build,
        attempt: 1,
        worker: WorkerId::new(NAME).unwrap(),
        session: SESSION.to_owned(),
        epoch,
        ws_epoch: epoch,
        state: LeaseState::Granting,
        version: 0,
        trace: None,
        granted_at: tx.now(),
        ended_at: None,
        reason: None,
        run,
    };
    tx.insert_lease(&lease).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_grant_that_was_not_completed_is_taken_back_although_its_run_has_ended() {
    let site = Site::new("");
    let mut rig = alone(&site).await;
    rig.submit("gone", &[("p", "true", json!({}))]).await;
    rig.until_state("gone", "QUEUED").await;
    cancel(&mut rig, "gone", "QUEUED").await;
    let _alive = Hand::open(&mut rig).await;
    // As where the second half of a grant failed, and the run was cancelled before the next look.
    half_granted(&rig, "gone", "p").await;
    let call = || pb::LeasesRequest { all: true, run_id: "gone".to_owned() };
    for _ in 0..1500 {
        let leases = rig.admin.leases(call()).await.unwrap().into_inner().leases;
        assert_eq!(leases.len(), 1);
        if leases[0].ended_at_ms > 0 {
            rig.close().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it is held for ever");
}

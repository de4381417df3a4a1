//! Workers whose sandboxes are measured again while they work: what has become too weak loses its leases and gets no
//! more, until it is measured to hold again.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use autopack_shared::runtime::clock::SystemClock;
use autopack_shared::wire::pb::{self, worker_message};

use super::hand::Hand;
use super::harness::{Rig, Site};

fn says(grant: Option<&pb::Grant>, level: &str, quarantine: &str) -> worker_message::Body {
    let held = grant.map(|grant| pb::HeldLease {
        run_id: grant.run_id.clone(),
        epoch: grant.epoch,
        attempt: grant.attempt,
        ..Default::default()
    });
    let sandbox = Some(pb::SandboxState {
        level: level.to_owned(),
        measured_ms: 1_800_000_000_000,
        digest: "sha256:report".to_owned(),
        quarantine: quarantine.to_owned(),
    });
    worker_message::Body::Heartbeat(pb::Heartbeat { held: held.into_iter().collect(), draining: false, sandbox })
}

async fn submit(rig: &mut Rig, run: &str, insecure_no_sandbox: bool) {
    // Their scopes do not overlap: both may hold a lease.
    let phase = json!({ "id": "p", "goal": "change the example", "max_attempts": 3,
                        "scope": { "paths": [format!("examples/{run}.md")] },
                        "builder": { "kind": "command", "argv": ["true"] } });
    let run_file_json = json!({ "run_id": run, "phases": [phase] }).to_string();
    let call = pb::SubmitRequest { run_file_json, insecure_no_sandbox, ..Default::default() };
    rig.runs.submit(call).await.unwrap();
}

async fn worker(rig: &mut Rig) -> pb::Worker {
    rig.admin.workers(pb::WorkersRequest {}).await.unwrap().into_inner().workers.remove(0)
}

/// Waits until a run says that it waits for a stronger sandbox.
async fn is_blocked(rig: &mut Rig, run: &str, what: &str) {
    for _ in 0..500 {
        let call = pb::GetRunRequest { run_id: run.to_owned() };
        let blockers = rig.runs.explain(call).await.unwrap().into_inner().blockers;
        if blockers.iter().any(|one| one.what.contains(what)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{run} does not wait for {what:?}");
}

#[tokio::test]
async fn a_sandbox_that_falls_loses_its_leases_and_gets_no_more_until_it_holds_again() {
    let site = Site::new("");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let mut hand = Hand::open_with(&mut rig, 2).await;
    submit(&mut rig, "confined", false).await;
    let confined = hand.granted().await;
    submit(&mut rig, "tainted", true).await;
    let tainted = hand.granted().await;
    assert_eq!((confined.run_id.as_str(), tainted.run_id.as_str()), ("confined", "tainted"));

    // The same level again changes nothing.
    hand.say(says(Some(&confined), "S3", "")).await;
    hand.say(says(Some(&confined), "S2", "its sandbox fell from S3 to S2: not denied: memory")).await;
    let why = hand.revoked(confined.epoch).await;
    assert!(why.contains("sandbox_too_weak") && why.contains("not denied: memory"), "{why}");
    let seen = worker(&mut rig).await;
    assert_eq!((seen.sandbox_level.as_str(), seen.sandbox_digest.as_str()), ("S2", "sha256:report"));
    assert!(seen.quarantine.contains("from S3 to S2") && seen.sandbox_measured_ms == 1_800_000_000_000, "{seen:?}");
    assert_eq!(seen.taken, 1, "what needs no sandbox goes on");
    is_blocked(&mut rig, "confined", "1 quarantined").await;

    hand.say(says(Some(&tainted), "S3", "")).await;
    let again = hand.granted().await;
    assert!(again.run_id == "confined" && again.epoch > confined.epoch, "{again:?}");
    assert_eq!(worker(&mut rig).await.quarantine, "");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn one_that_comes_back_quarantined_gets_nothing() {
    let site = Site::new("[policy]\nextends = \"autopack\"\nmin_sandbox = \"S2\"\n");
    let mut rig = Rig::alone(&site, Arc::new(SystemClock::default())).await;
    let mut hand = Hand::open(&mut rig).await;
    hand.say(says(None, "S2", "its sandbox fell from S3 to S2: not denied: memory")).await;
    submit(&mut rig, "r", false).await;
    // The level would do; that it fell would not.
    is_blocked(&mut rig, "r", "1 quarantined").await;
    // Measured again and as good as it can be now.
    hand.say(says(None, "S2", "")).await;
    assert_eq!(hand.granted().await.run_id, "r");
    rig.close().await;
}

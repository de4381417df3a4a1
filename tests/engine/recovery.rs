//! An engine that is closed in the middle of anything, and opened again on the same folders.

use std::process::Command;

use serde_json::json;

use autopack_shared::wire::pb::Choice;

use super::harness::{Rig, Site};

#[tokio::test]
async fn a_waiting_request_survives_and_is_decided_later() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("later", &[("p", "echo 1 > docs/one.md", json!({}))]).await;
    rig.until_state("later", "WAITING").await;
    rig.close().await;
    let mut rig = Rig::open(&site).await;
    let request = rig.pending("later").await;
    rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    rig.until_state("later", "SUCCEEDED").await;
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_running_attempt_is_lost_and_made_again_under_a_new_epoch() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    // Stops in its first attempt only.
    let (flag, started) = (site.dir.path().join("flag"), site.dir.path().join("started"));
    assert!(Command::new("mkfifo").arg(&started).status().unwrap().success());
    let (once, say) = (flag.display(), started.display());
    let script =
        format!("if [ -e {once} ]; then echo 1 > docs/one.md; else touch {once}; echo x > {say}; sleep 300; fi");
    rig.submit("lost", &[("p", &script, json!({}))]).await;
    rig.until("lost", "a running builder", |r| r.state == "RUNNING").await;
    // Opening the pipe waits for the builder to open its end.
    tokio::task::spawn_blocking(move || std::fs::read(started)).await.unwrap().unwrap();
    rig.close().await;
    let mut rig = Rig::open(&site).await;
    let run = rig.until_state("lost", "WAITING").await;
    assert_eq!(run.phases[0].attempt, 2);
    let history = rig.history("lost").await;
    assert!(history.iter().any(|l| l.contains("started anew")), "{history:#?}");
    let request = rig.pending("lost").await;
    rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    rig.until_state("lost", "SUCCEEDED").await;
    assert_eq!(site.log("lost").len(), 2);
    rig.audit_is_whole().await;
    rig.close().await;
}

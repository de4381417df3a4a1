//! Requests: who is asked, about which bytes, and what every answer does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use autopack_shared::runtime::clock::ManualClock;
use autopack_shared::wire::pb::{self, Choice, SteerOp};

use super::harness::{Rig, Site, reason};

const EDIT_DOCS: &str = "echo more >> docs/guide.md";

#[tokio::test]
async fn an_approved_change_is_applied_and_its_request_used_once() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("ask", &[("docs", EDIT_DOCS, json!({}))]).await;
    let run = rig.until_state("ask", "WAITING").await;
    assert_eq!((run.phases[0].state.as_str(), run.phases[0].tier), ("APPROVAL_PENDING", 3));
    let request = rig.pending("ask").await;
    assert!(
        request.risk_factors.contains(&"path_protected".to_owned())
            && request.risk_factors.contains(&"unsandboxed".to_owned())
    );
    let leases = rig.admin.leases(pb::LeasesRequest::default()).await.unwrap().into_inner().leases;
    assert!(leases.is_empty(), "a waiting approval holds nothing: {leases:?}");
    rig.decide(&request, Choice::Approve, "read it").await.unwrap();
    rig.until_state("ask", "SUCCEEDED").await;
    assert_eq!(site.text_at("refs/heads/autopack/ask", "docs/guide.md").as_deref(), Some("# Guide\nmore\n"));
    let again = rig.decide(&request, Choice::Approve, "again").await.unwrap_err();
    assert_eq!(reason(&again), "NOT_PENDING");
    let call = pb::ListRequestsRequest { states: vec!["CONSUMED".into()], ..Default::default() };
    assert_eq!(rig.governance.list(call).await.unwrap().into_inner().requests.len(), 1);
    rig.audit_is_whole().await;
    rig.close().await;
    let folder = site.data().join("ask/governance");
    let decision = std::fs::read_to_string(folder.join(format!("decision_{}.json", request.id))).unwrap();
    let decision: serde_json::Value = serde_json::from_str(&decision).unwrap();
    assert_eq!(decision["decision"]["approved"], json!(true));
}

#[tokio::test]
async fn a_decision_that_is_said_again_is_answered_as_before_and_done_once() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("ask", &[("docs", EDIT_DOCS, json!({}))]).await;
    rig.until_state("ask", "WAITING").await;
    let request = rig.pending("ask").await;
    let call = |reason: &str| pb::DecideRequest {
        request_id: request.id.clone(),
        choice: Choice::Approve.into(),
        expected_digest: request.subject_digest.clone(),
        reason: reason.to_owned(),
        idempotency_key: "6f1c".to_owned(),
        ..Default::default()
    };
    let first = rig.governance.decide(call("fine")).await.unwrap().into_inner();
    rig.until_state("ask", "SUCCEEDED").await;
    let again = rig.governance.decide(call("fine")).await.unwrap().into_inner();
    assert_eq!(again, first, "though it has been used since");
    rig.close().await;
    let mut rig = Rig::open(&site).await;
    assert_eq!(rig.governance.decide(call("fine")).await.unwrap().into_inner(), first);
    assert_eq!(reason(&rig.governance.decide(call("other")).await.unwrap_err()), "EXISTS");
    assert_eq!(site.log("ask").len(), 2, "one commit on the first one");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn another_digest_than_the_one_that_waits_is_refused() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("ask", &[("docs", EDIT_DOCS, json!({}))]).await;
    rig.until_state("ask", "WAITING").await;
    let mut request = rig.pending("ask").await;
    let right = std::mem::replace(&mut request.subject_digest, format!("sha256:{}", "0".repeat(64)));
    assert_eq!(reason(&rig.decide(&request, Choice::Approve, "x").await.unwrap_err()), "APPROVAL_SUBJECT_MISMATCH");
    request.subject_digest = right;
    rig.decide(&request, Choice::Approve, "x").await.unwrap();
    rig.until_state("ask", "SUCCEEDED").await;
    rig.close().await;
}

#[tokio::test]
async fn a_rejection_reaches_the_next_attempt() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let script = "if grep -q 'say it nicely' \"$AUTOPACK_TASK\"; then echo please >> docs/guide.md; else echo rude >> docs/guide.md; fi";
    rig.submit("again", &[("docs", script, json!({ "max_attempts": 2 }))]).await;
    rig.until_state("again", "WAITING").await;
    let first = rig.pending("again").await;
    assert_eq!(
        reason(&rig.decide(&first, Choice::Reject, "").await.unwrap_err()),
        "INVALID",
        "a rejection needs words"
    );
    rig.decide(&first, Choice::Reject, "say it nicely").await.unwrap();
    rig.until("again", "a second attempt", |r| r.state == "WAITING" && r.phases[0].attempt == 2).await;
    let second = rig.pending("again").await;
    assert_ne!(first.subject_digest, second.subject_digest);
    rig.decide(&second, Choice::Approve, "better").await.unwrap();
    rig.until_state("again", "SUCCEEDED").await;
    assert_eq!(site.text_at("refs/heads/autopack/again", "docs/guide.md").as_deref(), Some("# Guide\nplease\n"));
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn nobody_is_asked_the_same_thing_twice() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("deaf", &[("docs", EDIT_DOCS, json!({}))]).await;
    rig.until_state("deaf", "WAITING").await;
    let first = rig.pending("deaf").await;
    rig.decide(&first, Choice::Reject, "not like this").await.unwrap();
    let run = rig.until_state("deaf", "BLOCKED").await;
    assert_eq!(run.phases[0].attempt, 2, "the builder had its chance");
    assert!(run.phases[0].reason.contains(&format!("same_as_rejected: the builder came back with what {}", first.id)));
    // A person who thinks better of it is asked again.
    let call = pb::SteerRequest { run_id: "deaf".into(), op: SteerOp::Retry.into(), ..Default::default() };
    rig.runs.steer(call).await.unwrap();
    rig.until_state("deaf", "WAITING").await;
    let request = rig.pending("deaf").await;
    rig.decide(&request, Choice::Approve, "after all").await.unwrap();
    rig.until_state("deaf", "SUCCEEDED").await;
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn tier_four_blocks_until_a_justified_approval() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("env", &[("secret", "echo A=1 > .env", json!({}))]).await;
    let run = rig.until_state("env", "BLOCKED").await;
    assert_eq!((run.phases[0].state.as_str(), run.phases[0].tier), ("BLOCKED", 4));
    let request = rig.pending("env").await;
    assert_eq!(reason(&rig.decide(&request, Choice::Approve, "").await.unwrap_err()), "INVALID");
    rig.decide(&request, Choice::Approve, "the demo needs it").await.unwrap();
    rig.until_state("env", "SUCCEEDED").await;
    assert_eq!(site.text_at("refs/heads/autopack/env", ".env").as_deref(), Some("A=1\n"));
    rig.close().await;
}

#[tokio::test]
async fn a_blocked_phase_can_be_tried_again_in_another_way() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let script = "if grep -q elsewhere \"$AUTOPACK_TASK\"; then echo A > docs/env.md; else echo A=1 > .env; fi";
    rig.submit("retry", &[("p", script, json!({ "max_attempts": 1 }))]).await;
    rig.until_state("retry", "BLOCKED").await;
    let call = pb::SteerRequest {
        run_id: "retry".into(),
        op: SteerOp::Retry.into(),
        text: "put it elsewhere".into(),
        ..Default::default()
    };
    rig.runs.steer(call).await.unwrap();
    let run = rig.until_state("retry", "WAITING").await;
    assert_eq!(run.phases[0].attempt, 2);
    let request = rig.pending("retry").await;
    rig.decide(&request, Choice::Approve, "fine").await.unwrap();
    rig.until_state("retry", "SUCCEEDED").await;
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn approvals_of_disjoint_changes_are_carried_over_each_other() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let phases = [("one", "echo 1 > docs/one.md", json!({})), ("two", "echo 2 > docs/two.md", json!({}))];
    rig.submit("both", &phases).await;
    rig.until("both", "two requests", |r| {
        r.state == "WAITING" && r.phases.iter().all(|p| p.state == "APPROVAL_PENDING")
    })
    .await;
    let call = pb::ListRequestsRequest { run_id: "both".into(), ..Default::default() };
    for request in rig.governance.list(call).await.unwrap().into_inner().requests {
        rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    }
    rig.until_state("both", "SUCCEEDED").await;
    assert!(site.text_at("refs/heads/autopack/both", "docs/one.md").is_some());
    assert!(site.text_at("refs/heads/autopack/both", "docs/two.md").is_some());
    let call = pb::ListRequestsRequest { run_id: "both".into(), states: vec!["ALL".into()], ..Default::default() };
    let all = rig.governance.list(call).await.unwrap().into_inner().requests;
    assert_eq!(all.iter().filter(|r| !r.carried_from.is_empty() && r.state == "CONSUMED").count(), 1, "{all:#?}");
    assert_eq!(all.iter().filter(|r| r.state == "SUPERSEDED").count(), 1, "{all:#?}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn approvals_of_overlapping_changes_are_not_carried() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let phases = [
        ("one", "echo 1 >> docs/guide.md", json!({})),
        ("two", "echo 2 >> docs/guide.md", json!({ "max_attempts": 1 })),
    ];
    rig.submit("clash", &phases).await;
    rig.until("clash", "two requests", |r| {
        r.state == "WAITING" && r.phases.iter().all(|p| p.state == "APPROVAL_PENDING")
    })
    .await;
    let call = pb::ListRequestsRequest { run_id: "clash".into(), ..Default::default() };
    for request in rig.governance.list(call).await.unwrap().into_inner().requests {
        rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    }
    // The second one conflicts with the first, is built anew on it and asked about again.
    let run =
        rig.until("clash", "a new request", |r| r.state == "WAITING" && r.phases.iter().any(|p| p.attempt == 2)).await;
    assert!(run.phases.iter().any(|p| p.feedback.iter().any(|f| f.contains("CONFLICT"))), "{run:#?}");
    let request = rig.pending("clash").await;
    rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    rig.until_state("clash", "SUCCEEDED").await;
    let text = site.text_at("refs/heads/autopack/clash", "docs/guide.md").unwrap();
    assert!(text.contains('1') && text.contains('2'), "{text}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn an_unanswered_request_is_reminded_of_and_ends_as_a_rejection() {
    let site = Site::new("");
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let mut rig = Rig::open_at(&site, clock.clone()).await;
    rig.submit("ask", &[("docs", EDIT_DOCS, json!({}))]).await;
    rig.until_state("ask", "WAITING").await;
    let request = rig.pending("ask").await;
    clock.advance(Duration::from_secs(2000));
    // Any commit wakes the director; it then finds what time has brought.
    rig.submit("tick", &[("p", "true", json!({}))]).await;
    rig.until_state("tick", "SUCCEEDED").await;
    clock.advance(Duration::from_secs(1700));
    let late = rig.decide(&request, Choice::Approve, "too late").await.unwrap_err();
    assert_eq!(reason(&late), "APPROVAL_EXPIRED");
    rig.submit("tock", &[("p", "true", json!({}))]).await;
    let run = rig.until_state("ask", "BLOCKED").await;
    assert!(run.phases[0].reason.contains("timed"), "{run:#?}");
    // The sweep has been there by now: the same answer as before it.
    let late = rig.decide(&request, Choice::Approve, "too late").await.unwrap_err();
    assert_eq!(reason(&late), "APPROVAL_EXPIRED");
    assert!(site.text_at("refs/heads/autopack/ask", "docs/guide.md").is_some_and(|t| !t.contains("more")));
    rig.audit_is_whole().await;
    rig.close().await;
    let notices = std::fs::read_to_string(site.data().join("notices.jsonl")).unwrap();
    let kinds: Vec<&str> = notices.lines().filter_map(|l| l.split("\"kind\":\"").nth(1)?.split('"').next()).collect();
    assert!(kinds.contains(&"approval_needed") && kinds.contains(&"reminder"), "{notices}");
    assert_eq!(kinds.iter().filter(|k| **k == "reminder").count(), 1, "{notices}");
}

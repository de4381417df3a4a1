//! The quality gate and the way back.

use serde_json::json;

use autopack_shared::wire::pb::{self, Choice, SteerOp};

use super::harness::{Rig, Site};

const POLICY: &str = r#"
[project]
id = "site"

[policy]
allowed = ["examples/**"]

[[gate.commands]]
name = "no-bad-words"
run = "! grep -rq BAD examples"
timeout_seconds = 20
"#;

async fn approve(rig: &mut Rig, run: &str) {
    let request = rig.pending(run).await;
    rig.decide(&request, Choice::Approve, "ok").await.unwrap();
}

#[tokio::test]
async fn a_red_gate_rolls_back_and_a_green_one_stays() {
    let site = Site::new(POLICY);
    let mut rig = Rig::open(&site).await;
    rig.submit("green", &[("p", "echo good >> examples/a.txt", json!({}))]).await;
    rig.until_state("green", "WAITING").await;
    approve(&mut rig, "green").await;
    rig.until_state("green", "SUCCEEDED").await;
    rig.submit("red", &[("p", "echo BAD >> examples/a.txt", json!({ "max_attempts": 1 }))]).await;
    rig.until_state("red", "WAITING").await;
    approve(&mut rig, "red").await;
    let run = rig.until_state("red", "FAILED").await;
    assert_eq!(run.phases[0].state, "ROLLED_BACK");
    assert!(run.phases[0].reason.contains("no-bad-words"), "{run:#?}");
    assert_eq!(site.text_at("refs/heads/autopack/red", "examples/a.txt").as_deref(), Some("one\ntwo\nthree\n"));
    // Forward only: the change and its revert are both there.
    assert_eq!(site.log("red"), ["autopack: roll back red/p attempt 1", "autopack: red/p attempt 1", "first"]);
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_person_can_roll_back_what_is_applied() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let phases =
        [("one", "echo 1 > docs/one.md", json!({})), ("two", "echo 2 > docs/two.md", json!({ "depends_on": ["one"] }))];
    rig.submit("undo", &phases).await;
    for at in 0..2 {
        rig.until("undo", "its request", |r| r.state == "WAITING" && r.phases[at].state == "APPROVAL_PENDING").await;
        approve(&mut rig, "undo").await;
    }
    rig.until_state("undo", "SUCCEEDED").await;
    let points =
        rig.runs.save_points(pb::SavePointsRequest { run_id: "undo".into() }).await.unwrap().into_inner().save_points;
    assert_eq!(points.len(), 2, "{points:?}");
    let call = pb::SteerRequest {
        run_id: "undo".into(),
        op: SteerOp::Rollback.into(),
        phase_id: "one".into(),
        text: "not wanted".into(),
        ..Default::default()
    };
    rig.runs.steer(call).await.unwrap();
    rig.until("undo", "the rollback", |r| r.phases[0].state == "ROLLED_BACK").await;
    assert!(site.text_at("refs/heads/autopack/undo", "docs/one.md").is_none());
    assert!(site.text_at("refs/heads/autopack/undo", "docs/two.md").is_some(), "later work stays");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_run_lands_on_a_target_that_is_not_checked_out() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("land", &[("p", "echo 1 > docs/one.md", json!({}))]).await;
    rig.until_state("land", "WAITING").await;
    approve(&mut rig, "land").await;
    rig.until_state("land", "SUCCEEDED").await;
    let call = pb::LandRequest { run_id: "land".into(), ..Default::default() };
    let answer = rig.runs.land(call.clone()).await.unwrap().into_inner();
    assert!(!answer.landed && answer.instead.contains("merge --ff-only autopack/land"), "{answer:?}");
    git2::Repository::open(site.repo()).unwrap().set_head_detached(site.commit("other")).unwrap();
    // The target moved on by that commit, so landing is a merge with a verdict of its own.
    let answer = rig.runs.land(call).await.unwrap().into_inner();
    let landing = answer.run.unwrap();
    assert_eq!(landing.kind, "landing");
    rig.until_state(&landing.id, "WAITING").await;
    approve(&mut rig, &landing.id).await;
    rig.until_state(&landing.id, "SUCCEEDED").await;
    assert!(site.text_at("refs/heads/main", "docs/one.md").is_some());
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_landing_whose_target_is_checked_out_says_where_and_what_to_run() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("land", &[("p", "echo 1 > docs/one.md", json!({}))]).await;
    rig.until_state("land", "WAITING").await;
    approve(&mut rig, "land").await;
    rig.until_state("land", "SUCCEEDED").await;
    let repo = git2::Repository::open(site.repo()).unwrap();
    repo.set_head_detached(site.commit("other")).unwrap();
    let call = pb::LandRequest { run_id: "land".into(), ..Default::default() };
    let landing = rig.runs.land(call).await.unwrap().into_inner().run.unwrap().id;
    rig.until_state(&landing, "WAITING").await;
    let kinds = async |rig: &mut Rig| {
        let call = pb::GetRunRequest { run_id: landing.clone() };
        rig.runs.explain(call).await.unwrap().into_inner().blockers
    };
    assert!(kinds(&mut rig).await.iter().all(|one| one.kind != "checked_out"), "it waits for a decision");
    repo.set_head("refs/heads/main").unwrap();
    approve(&mut rig, &landing).await;
    let mut looks = 0;
    let told = loop {
        // No event tells of it: the run waited before, and waits.
        if let Some(told) = kinds(&mut rig).await.into_iter().find(|one| one.kind == "checked_out") {
            break told;
        }
        looks += 1;
        assert!(looks < 1500, "{:?}", kinds(&mut rig).await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(told.what.starts_with("refs/heads/main is checked out at "), "{told:?}");
    assert!(told.remedy.contains(" merge --ff-only ") && told.phase_id.is_empty(), "{told:?}");
    rig.close().await;
}

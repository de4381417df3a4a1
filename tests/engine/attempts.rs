//! What one attempt is told of those before it, and what changed between them.

use serde_json::{Value, json};

use autopack_shared::domain::breaker::BreakerConfig;
use autopack_shared::wire::pb::{self, Choice};
use autopack_supervisor::director::Governing;

use super::harness::{Rig, Site, reason};

async fn diff(rig: &mut Rig, run: &str, attempts: (u32, u32)) -> Result<String, tonic::Status> {
    let call =
        pb::DiffRequest { run_id: run.into(), from_attempt: attempts.0, to_attempt: attempts.1, ..Default::default() };
    let answer = rig.runs.diff(call).await?.into_inner();
    Ok(String::from_utf8_lossy(&answer.diff).into_owned())
}

fn records(phase: &pb::Phase) -> Vec<Value> {
    serde_json::from_str(&phase.feedback_json).unwrap()
}

#[tokio::test]
async fn a_builder_is_told_which_path_was_meant() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let script = "if grep -q 'you wrote docs/Foo.md, the deliverable is docs/foo.md' \"$AUTOPACK_TASK\"; \
                  then echo right > docs/foo.md; else echo wrong > docs/Foo.md; fi";
    rig.submit("hint", &[("p", script, json!({ "deliverables": ["docs/foo.md"] }))]).await;
    let run = rig.until_state("hint", "WAITING").await;
    let phase = &run.phases[0];
    let told = records(phase);
    assert_eq!(
        (phase.attempt, told.len(), &told[0]["kind"], &told[0]["attempt"]),
        (2, 1, &json!("path_hint"), &json!(1))
    );
    let states: Vec<&str> = phase.attempts.iter().map(|a| a.state.as_str()).collect();
    assert_eq!(states, ["FAILED", "COLLECTED"]);
    let text = diff(&mut rig, "hint", (1, 2)).await.unwrap();
    assert!(text.contains("-wrong") && text.contains("+right") && text.contains("b/docs/foo.md"), "{text}");
    assert!(!text.contains("README"), "only what differs between the two: {text}");
    assert_eq!(diff(&mut rig, "hint", (2, 2)).await.unwrap(), "");
    assert_eq!(reason(&diff(&mut rig, "hint", (2, 3)).await.unwrap_err()), "NOT_FOUND");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn the_report_of_the_gate_reaches_the_next_attempt() {
    let policy = "[policy]\nallowed = [\"examples/**\"]\n\n[[gate.commands]]\nname = \"no-bad-words\"\n\
                  run = \"if grep -rq BAD examples; then echo BAD is a bad word; exit 3; fi\"\n";
    let site = Site::new(policy);
    let mut rig = Rig::open(&site).await;
    let script = "if grep -q 'the quality gate failed' \"$AUTOPACK_TASK\" && grep -q 'BAD is a bad word' \"$AUTOPACK_TASK\"; \
                  then echo good >> examples/a.txt; else echo BAD >> examples/a.txt; fi";
    rig.submit("mend", &[("p", script, json!({}))]).await;
    for attempt in 1..=2 {
        rig.until("mend", "its request", |r| r.state == "WAITING" && r.phases[0].attempt == attempt).await;
        let request = rig.pending("mend").await;
        rig.decide(&request, Choice::Approve, "ok").await.unwrap();
    }
    let run = rig.until_state("mend", "SUCCEEDED").await;
    assert_eq!(run.phases[0].state, "APPLIED");
    assert_eq!(records(&run.phases[0])[0]["kind"], json!("gate_report"));
    assert_eq!(site.text_at("refs/heads/autopack/mend", "examples/a.txt").as_deref(), Some("one\ntwo\nthree\ngood\n"));
    assert_eq!(
        site.log("mend"),
        ["autopack: mend/p attempt 2", "autopack: roll back mend/p attempt 1", "autopack: mend/p attempt 1", "first"]
    );
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_reviewers_comments_come_in_order_with_what_was_said_before() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let script = "echo $AUTOPACK_ATTEMPT > docs/guide.md; [ $AUTOPACK_ATTEMPT -gt 1 ] || exit 7";
    rig.submit("said", &[("docs", script, json!({}))]).await;
    rig.until("said", "its request", |r| r.state == "WAITING" && r.phases[0].attempt == 2).await;
    let request = rig.pending("said").await;
    rig.decide(&request, Choice::Reject, "say it nicely\nline 1: too short\nline 2: missing").await.unwrap();
    let run = rig.until("said", "its third", |r| r.state == "WAITING" && r.phases[0].attempt == 3).await;
    let told = records(&run.phases[0]);
    let kinds: Vec<&str> = told.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["builder", "review"]);
    assert_eq!(told[1]["items"], json!(["line 1: too short", "line 2: missing"]));
    assert!(run.phases[0].feedback[0].starts_with("attempt 1: the builder failed (builder_failed)"), "{run:#?}");
    rig.close().await;
}

#[tokio::test]
async fn a_builder_that_cannot_start_is_left_alone_and_tried_again() {
    let site = Site::new("");
    let breakers = BreakerConfig { failures: 2, cooldown_seconds: 1, credential_uses: 1 };
    let mut rig = Rig::governed_with_worker(&site, Governing { breakers, ..Governing::default() }).await;
    let program = site.dir.path().join("builder");
    let phase = json!({
        "id": "p", "goal": "x", "builder": { "kind": "command", "argv": [program.to_str().unwrap()] }, "max_attempts": 100
    });
    rig.submit_file(&json!({ "run_id": "probe", "phases": [phase] })).await;
    rig.until("probe", "two failures", |r| r.phases[0].attempts.len() >= 2).await;
    // The attempt that tries it finds it mended.
    std::fs::write(&program, "#!/bin/sh\necho mended > docs/guide.md\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    rig.until_state("probe", "WAITING").await;
    let builders = rig.admin.builders(pb::BuildersRequest {}).await.unwrap().into_inner().builders;
    assert_eq!((builders.len(), builders[0].state.as_str(), builders[0].failures), (1, "closed", 0), "{builders:?}");
    rig.close().await;
}

//! Budgets, breakers and credentials, by a worker that reports what a test wants it to.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use autopack_shared::domain::breaker::BreakerConfig;
use autopack_shared::domain::budget::{BudgetConfig, Caps};
use autopack_shared::runtime::clock::{ManualClock, SystemClock};
use autopack_shared::wire::pb::{self, SteerOp, worker_message};
use autopack_supervisor::director::Governing;

use super::hand::{Hand, result};
use super::harness::{Rig, Site};

pub(super) fn tokens(n: u64) -> Caps {
    Caps { tokens: Some(n), ..Caps::default() }
}

pub(super) fn phase(run: &str, extra: &Value) -> Value {
    let mut phase = json!({
        "id": "p", "goal": "x", "scope": { "paths": [format!("docs/{run}.md")] },
        "builder": { "kind": "llm", "model": "m" }, "max_attempts": 100
    });
    for (key, value) in extra.as_object().into_iter().flatten() {
        phase[key] = value.clone();
    }
    phase
}

pub(super) async fn submit(rig: &mut Rig, run: &str, limits: Value) {
    rig.submit_file(&json!({ "run_id": run, "limits": limits, "phases": [phase(run, &json!({}))] })).await;
}

/// What a grant allows its models.
pub(super) fn allowed(grant: &pb::Grant) -> Value {
    serde_json::from_str::<Value>(&grant.allowance_json).unwrap()["tokens"].clone()
}

/// The attempt failed with a reason, after so many tokens.
pub(super) fn failed(grant: &pb::Grant, reason: &str, used: u64) -> worker_message::Body {
    let worker_message::Body::Result(mut said) = result(grant, grant.epoch) else { unreachable!() };
    said.reason = reason.to_owned();
    said.usage = Some(pb::Usage { input_tokens: used, calls: 1, ..Default::default() });
    worker_message::Body::Result(said)
}

async fn blockers(rig: &mut Rig, run: &str) -> Vec<pb::Blocker> {
    rig.runs.explain(pb::GetRunRequest { run_id: run.into() }).await.unwrap().into_inner().blockers
}

/// Waits until the director says of a run that this holds it up.
pub(super) async fn held_by(rig: &mut Rig, run: &str, kind: &str) -> pb::Blocker {
    let wait = async {
        loop {
            if let Some(found) = blockers(rig, run).await.into_iter().find(|b| b.kind == kind) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("{run} is not held by {kind}"))
}

async fn raise(rig: &mut Rig, run: &str, caps: Caps) {
    let call = pb::SteerRequest {
        run_id: run.into(),
        op: SteerOp::Budget.into(),
        caps_json: serde_json::to_string(&caps).unwrap(),
        ..Default::default()
    };
    rig.runs.steer(call).await.unwrap();
}

#[tokio::test]
async fn a_run_pauses_at_its_budget_and_goes_on_when_it_is_raised() {
    let site = Site::new("");
    let budgets = BudgetConfig { attempt: tokens(80), ..BudgetConfig::default() };
    let mut rig =
        Rig::governed(&site, Arc::new(SystemClock::default()), Governing { budgets, ..Governing::default() }).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "r", json!({ "tokens": 100 })).await;
    let grant = hand.granted().await;
    assert_eq!(allowed(&grant), json!(80));
    hand.say(failed(&grant, "malformed_patch", 60)).await;
    let grant = hand.granted().await;
    assert_eq!(allowed(&grant), json!(40), "what is left");
    let run = rig.run("r").await;
    assert_eq!((run.budgets[0].used, run.budgets[0].reserved, run.budgets[0].limit), (60, 40, 100));
    // It claims far more than it could use, and is counted with what it had.
    hand.say(failed(&grant, "malformed_patch", 1_000_000_000)).await;
    let run = rig.until_state("r", "PAUSED").await;
    assert_eq!((run.budgets[0].used, run.budgets[0].reserved), (100, 0));
    assert!(run.reason.starts_with("budget_exhausted: 100 of 100 tokens of the run are used"), "{}", run.reason);
    let why = held_by(&mut rig, "r", "budget_exhausted").await;
    assert_eq!(why.remedy, "autopack runs budget r --tokens N");
    raise(&mut rig, "r", tokens(150)).await;
    let grant = hand.granted().await;
    assert_eq!(allowed(&grant), json!(50));
    let line = "run queued: budget set by ";
    let said = rig.history("r").await;
    assert!(said.iter().any(|l| l.contains(line) && l.ends_with("tokens 150")), "{said:#?}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_builder_that_meets_the_budget_loses_no_attempt() {
    let site = Site::new("");
    let mut rig = Rig::governed(&site, Arc::new(SystemClock::default()), Governing::default()).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "r", json!({ "tokens": 100 })).await;
    let grant = hand.granted().await;
    // It stopped with something left: not enough for one more call.
    hand.say(failed(&grant, "budget_exhausted", 97)).await;
    let run = rig.until_state("r", "PAUSED").await;
    assert_eq!((run.phases[0].state.as_str(), run.phases[0].attempts[0].state.as_str()), ("QUEUED", "LOST"));
    assert!(run.budget_hit.contains("97 of 100 tokens of the run"), "{run:#?}");
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn parallel_runs_share_a_day_and_go_on_the_next() {
    let site = Site::new("");
    let noon = 1_767_225_600_000 + 12 * 3_600_000;
    let clock = Arc::new(ManualClock::at(noon));
    let budgets = BudgetConfig { attempt: tokens(60), day: tokens(100), ..BudgetConfig::default() };
    let mut rig = Rig::governed(&site, clock.clone(), Governing { budgets, ..Governing::default() }).await;
    let mut hand = Hand::open_with(&mut rig, 2).await;
    submit(&mut rig, "a", json!({})).await;
    let first = hand.granted().await;
    submit(&mut rig, "b", json!({})).await;
    let second = hand.granted().await;
    assert_eq!((allowed(&first), allowed(&second)), (json!(60), json!(40)));
    hand.say(failed(&first, "malformed_patch", 60)).await;
    // The rest is reserved by the other: it may give something back.
    held_by(&mut rig, "a", "budget_reserved").await;
    hand.say(failed(&second, "malformed_patch", 10)).await;
    let third = hand.granted().await;
    assert_eq!(allowed(&third), json!(30));
    hand.say(failed(&third, "malformed_patch", 30)).await;
    for run in ["a", "b"] {
        rig.until_state(run, "PAUSED").await;
        let why = held_by(&mut rig, run, "budget_exhausted").await;
        assert!(why.remedy.contains("it goes on by itself at 2026-01-02T00:00:00"), "{why:?}");
    }
    clock.advance(Duration::from_secs(12 * 3600));
    // Somebody has to look at the clock that a test moves by hand.
    submit(&mut rig, "c", json!({})).await;
    let grant = hand.granted().await;
    assert_eq!(allowed(&grant), json!(60));
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn who_meets_what_others_hold_waits_for_them() {
    let site = Site::new("");
    let budgets = BudgetConfig { attempt: tokens(60), day: tokens(100), ..BudgetConfig::default() };
    let governing = Governing { budgets, ..Governing::default() };
    let mut rig = Rig::governed(&site, Arc::new(SystemClock::default()), governing).await;
    let mut hand = Hand::open_with(&mut rig, 2).await;
    submit(&mut rig, "a", json!({})).await;
    let first = hand.granted().await;
    submit(&mut rig, "b", json!({})).await;
    let second = hand.granted().await;
    hand.say(failed(&second, "budget_exhausted", 39)).await;
    // One is left, which is of no use to anybody.
    held_by(&mut rig, "b", "budget_reserved").await;
    let run = rig.run("b").await;
    assert_eq!((run.state.as_str(), run.phases[0].attempts[0].state.as_str()), ("QUEUED", "LOST"));
    hand.say(failed(&first, "malformed_patch", 1)).await;
    let next = hand.granted().await;
    assert_eq!(allowed(&next), json!(60), "what was not used is there again");
    rig.close().await;
}

#[tokio::test]
async fn a_builder_whose_provider_is_away_is_left_alone_until_one_attempt_gets_an_answer() {
    let site = Site::new("");
    let breakers = BreakerConfig { failures: 2, cooldown_seconds: 2, credential_uses: 9 };
    let mut rig =
        Rig::governed(&site, Arc::new(SystemClock::default()), Governing { breakers, ..Governing::default() }).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "r", json!({})).await;
    for _ in 0..2 {
        let grant = hand.granted().await;
        hand.say(failed(&grant, "provider_unavailable", 0)).await;
    }
    let why = held_by(&mut rig, "r", "builder_breaker_open").await;
    assert!(why.what.contains("llm:m failed 2 times in a row (provider_unavailable)"), "{why:?}");
    assert!(why.what.contains("it is tried again at 20"), "{why:?}");
    let probe = hand.granted().await;
    let builders = rig.admin.builders(pb::BuildersRequest {}).await.unwrap().into_inner().builders;
    assert_eq!((builders[0].state.as_str(), builders[0].probe.as_str()), ("half_open", "r"));
    hand.say(failed(&probe, "provider_malformed", 0)).await;
    held_by(&mut rig, "r", "builder_breaker_open").await;
    let call = pb::ResetBuilderRequest { builder: "llm:m".into(), reason: "it is back".into() };
    let without = pb::ResetBuilderRequest { reason: " ".into(), ..call.clone() };
    assert_eq!(super::harness::reason(&rig.admin.reset_builder(without).await.unwrap_err()), "INVALID");
    assert_eq!(rig.admin.reset_builder(call).await.unwrap().into_inner().state, "closed");
    let grant = hand.granted().await;
    let run = rig.run("r").await;
    assert!(run.phases[0].attempts[..3].iter().all(|a| a.state == "LOST"), "held against nobody: {run:#?}");
    hand.say(failed(&grant, "malformed_patch", 5)).await;
    let grant = hand.granted().await;
    assert_eq!(grant.attempt, 5);
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_credential_that_was_told_to_wait_rests_for_every_run() {
    let site = Site::new("");
    let breakers = BreakerConfig { credential_uses: 1, ..BreakerConfig::default() };
    let mut rig =
        Rig::governed(&site, Arc::new(SystemClock::default()), Governing { breakers, ..Governing::default() }).await;
    let mut hand = Hand::open_with(&mut rig, 2).await;
    submit(&mut rig, "r", json!({})).await;
    let grant = hand.granted().await;
    let worker_message::Body::Result(mut said) = failed(&grant, "provider_rate_limited", 0) else { unreachable!() };
    (said.credential, said.retry_after_ms) = ("main".to_owned(), 2500);
    hand.say(worker_message::Body::Result(said)).await;
    let why = held_by(&mut rig, "r", "credential_cooling").await;
    assert!(why.what.contains("the credential main to wait until 20"), "{why:?}");
    submit(&mut rig, "s", json!({})).await;
    held_by(&mut rig, "s", "credential_cooling").await;
    let grant = hand.granted().await;
    assert_eq!(rig.run("r").await.phases[0].attempts[0].state, "LOST");
    // One at a time.
    let other = if grant.run_id == "r" { "s" } else { "r" };
    held_by(&mut rig, other, "credential_busy").await;
    hand.say(failed(&grant, "malformed_patch", 1)).await;
    hand.granted().await;
    rig.close().await;
}

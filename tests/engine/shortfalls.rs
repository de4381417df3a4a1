//! Attempts that end at a budget: whose it was, what becomes of the run, and what they are counted with.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use autopack_shared::domain::breaker::BreakerConfig;
use autopack_shared::domain::budget::{BudgetConfig, Caps};
use autopack_shared::runtime::clock::{ManualClock, SystemClock};
use autopack_shared::wire::pb::{self, SteerOp, worker_message};
use autopack_supervisor::director::Governing;

use super::budgets::{allowed, failed, held_by, phase, submit, tokens};
use super::hand::{Hand, result};
use super::harness::{Rig, Site};

/// Noon of the first day of 2026, and half a day.
const NOON: u64 = 1_767_225_600_000 + 12 * 3_600_000;
const HALF_A_DAY: Duration = Duration::from_secs(12 * 3600);

async fn rig(site: &Site, budgets: BudgetConfig) -> Rig {
    Rig::governed(site, Arc::new(SystemClock::default()), Governing { budgets, ..Governing::default() }).await
}

/// A failure with more said of it.
fn said(grant: &pb::Grant, reason: &str, more: impl FnOnce(&mut pb::AttemptResult)) -> worker_message::Body {
    let worker_message::Body::Result(mut said) = result(grant, grant.epoch) else { unreachable!() };
    said.reason = reason.to_owned();
    more(&mut said);
    worker_message::Body::Result(said)
}

fn used(run: &pb::Run, unit: &str) -> (u64, u64) {
    let budget = run.budgets.iter().find(|budget| budget.unit == unit).unwrap();
    (budget.used, budget.reserved)
}

#[tokio::test]
async fn who_got_too_little_waits_until_there_is_more() {
    let site = Site::new("");
    let budgets = BudgetConfig { attempt: tokens(60), day: tokens(100), ..BudgetConfig::default() };
    let mut rig = rig(&site, budgets).await;
    let mut hand = Hand::open_with(&mut rig, 3).await;
    let once = phase("a", &json!({ "max_attempts": 1 }));
    rig.submit_file(&json!({ "run_id": "a", "phases": [once] })).await;
    let first = hand.granted().await;
    submit(&mut rig, "b", json!({})).await;
    let second = hand.granted().await;
    assert_eq!((allowed(&first), allowed(&second)), (json!(60), json!(40)));
    // Its question alone takes more than it got: it asked nothing.
    let too_little = |said: &mut pb::AttemptResult| {
        said.usage = Some(pb::Usage::default());
        "tokens".clone_into(&mut said.budget_unit);
    };
    hand.say(said(&second, "budget_exhausted", too_little)).await;
    let why = held_by(&mut rig, "b", "budget_reserved").await;
    assert!(why.what.starts_with("60 of 100 tokens of the day"), "{why:?}");
    tokio::time::sleep(Duration::from_millis(600)).await;
    let run = rig.run("b").await;
    assert_eq!((run.state.as_str(), run.phases[0].attempts.len()), ("QUEUED", 1), "it is not tried again at once");
    hand.say(failed(&first, "malformed_patch", 30)).await;
    let again = hand.granted().await;
    assert_eq!((again.run_id.as_str(), again.attempt, allowed(&again)), ("b", 2, json!(60)));
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn an_attempt_that_used_up_its_own_share_fails_and_the_run_goes_on() {
    let site = Site::new("");
    let attempt = Caps { calls: Some(3), ..Caps::default() };
    let mut rig = rig(&site, BudgetConfig { attempt, ..BudgetConfig::default() }).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "r", json!({ "tokens": 1_000_000 })).await;
    for unit in ["calls", ""] {
        let grant = hand.granted().await;
        let calls = |said: &mut pb::AttemptResult| {
            said.usage = Some(pb::Usage { calls: 3, ..Default::default() });
            unit.clone_into(&mut said.budget_unit);
        };
        hand.say(said(&grant, "budget_exhausted", calls)).await;
    }
    let third = hand.granted().await;
    let run = rig.run("r").await;
    let states: Vec<&str> = run.phases[0].attempts.iter().map(|a| a.state.as_str()).collect();
    assert_eq!((third.attempt, &states[..2]), (3, &["FAILED", "FAILED"][..]), "{run:#?}");
    rig.close().await;
}

#[tokio::test]
async fn time_that_the_run_had_left_and_was_not_enough_pauses_it() {
    let site = Site::new("");
    let clock = Arc::new(ManualClock::at(NOON));
    let mut rig = Rig::governed(&site, clock.clone(), Governing::default()).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "r", json!({ "seconds": 600 })).await;
    let first = hand.granted().await;
    clock.advance(Duration::from_secs(597));
    hand.say(failed(&first, "malformed_patch", 1)).await;
    let second = hand.granted().await;
    let spec: Value = serde_json::from_str(&second.phase_json).unwrap();
    assert_eq!(spec["timeout"], json!(3), "{spec}");
    clock.advance(Duration::from_secs(3));
    hand.say(said(&second, "timeout", |_| {})).await;
    let run = rig.until_state("r", "PAUSED").await;
    assert!(run.budget_hit.contains("600 of 600 seconds of the run are used"), "{run:#?}");
    assert_eq!((run.phases[0].state.as_str(), run.phases[0].attempts[1].state.as_str()), ("QUEUED", "LOST"));
    let builders = rig.admin.builders(pb::BuildersRequest {}).await.unwrap().into_inner().builders;
    assert!(builders.iter().all(|one| one.failures == 0), "no fault of its builder: {builders:?}");
    rig.close().await;
}

#[tokio::test]
async fn what_nobody_says_counts_in_full_and_what_was_never_asked_not_at_all() {
    let site = Site::new("");
    let mut rig = rig(&site, BudgetConfig { attempt: tokens(100), ..BudgetConfig::default() }).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "r", json!({ "tokens": 1000, "calls": 50 })).await;
    for reason in ["fetch_cut", "sandbox_failed", "secret_refused", "key_missing"] {
        let grant = hand.granted().await;
        hand.say(said(&grant, reason, |_| {})).await;
    }
    let grant = hand.granted().await;
    assert_eq!(used(&rig.run("r").await, "tokens"), (0, 100));
    // Killed: its calls were seen, and no more.
    let usage = pb::Usage { calls: 2, tokens_unsaid: true, cost_unsaid: true, ..Default::default() };
    hand.say(said(&grant, "builder_failed", |said| said.usage = Some(usage))).await;
    hand.granted().await;
    let run = rig.run("r").await;
    assert_eq!((used(&run, "tokens"), used(&run, "calls").0), ((100, 100), 2));
    rig.close().await;
}

#[tokio::test]
async fn a_persons_pause_outlasts_the_day() {
    let site = Site::new("");
    let clock = Arc::new(ManualClock::at(NOON));
    let budgets = BudgetConfig { day: tokens(100), ..BudgetConfig::default() };
    let mut rig = Rig::governed(&site, clock.clone(), Governing { budgets, ..Governing::default() }).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "a", json!({})).await;
    let grant = hand.granted().await;
    rig.steer("a", SteerOp::Pause).await;
    hand.say(failed(&grant, "budget_exhausted", 100)).await;
    rig.until_state("a", "PAUSED").await;
    let why = held_by(&mut rig, "a", "paused").await;
    assert!(why.what.contains("besides, budget_exhausted: 100 of 100 tokens of the day"), "{why:?}");
    // The budget's own pause can be made a person's; a third one is nobody's.
    for run in ["b", "c"] {
        submit(&mut rig, run, json!({})).await;
        held_by(&mut rig, run, "budget_exhausted").await;
    }
    rig.steer("b", SteerOp::Pause).await;
    held_by(&mut rig, "b", "paused").await;
    clock.advance(HALF_A_DAY);
    // Somebody has to look at the clock that a test moves by hand.
    rig.steer("b", SteerOp::Pause).await;
    let grant = hand.granted().await;
    assert_eq!(grant.run_id, "c");
    hand.say(failed(&grant, "malformed_patch", 1)).await;
    assert_eq!((rig.run("a").await.state.as_str(), rig.run("b").await.state.as_str()), ("PAUSED", "PAUSED"));
    assert_eq!(hand.granted().await.run_id, "c");
    rig.steer("a", SteerOp::Resume).await;
    rig.until("a", "its turn", |run| run.state != "PAUSED").await;
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_phases_budget_is_raised_by_its_name() {
    let site = Site::new("");
    let mut rig = rig(&site, BudgetConfig::default()).await;
    let mut hand = Hand::open(&mut rig).await;
    let phase = json!({ "id": "p", "goal": "x", "scope": { "paths": ["docs/a.md"] }, "limits": { "tokens": 40 },
                        "builder": { "kind": "llm", "model": "m" }, "max_attempts": 100 });
    rig.submit_file(&json!({ "run_id": "r", "phases": [phase] })).await;
    let grant = hand.granted().await;
    hand.say(failed(&grant, "malformed_patch", 40)).await;
    rig.until_state("r", "PAUSED").await;
    let why = held_by(&mut rig, "r", "budget_exhausted").await;
    assert_eq!(why.remedy, "autopack runs budget r --phase p --tokens N");
    let call = |phase: &str| pb::SteerRequest {
        run_id: "r".into(),
        phase_id: phase.into(),
        op: SteerOp::Budget.into(),
        caps_json: json!({ "tokens": 60 }).to_string(),
        ..Default::default()
    };
    assert_eq!(super::harness::reason(&rig.runs.steer(call("q")).await.unwrap_err()), "NOT_FOUND");
    rig.runs.steer(call("p")).await.unwrap();
    let grant = hand.granted().await;
    assert_eq!(allowed(&grant), json!(20));
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn only_an_answer_closes_a_breaker_and_any_answer_may_ask_to_wait() {
    let site = Site::new("");
    let breakers = BreakerConfig { failures: 2, cooldown_seconds: 1, credential_uses: 9 };
    let governing = Governing { breakers, ..Governing::default() };
    let mut rig = Rig::governed(&site, Arc::new(SystemClock::default()), governing).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "r", json!({})).await;
    for _ in 0..2 {
        let grant = hand.granted().await;
        hand.say(failed(&grant, "provider_unavailable", 0)).await;
    }
    held_by(&mut rig, "r", "builder_breaker_open").await;
    let probe = hand.granted().await;
    hand.say(said(&probe, "fetch_cut", |_| {})).await;
    let probe = hand.granted().await;
    let builders = rig.admin.builders(pb::BuildersRequest {}).await.unwrap().into_inner().builders;
    assert_eq!((builders[0].state.as_str(), builders[0].failures), ("half_open", 2), "it was not asked");
    let wait = |said: &mut pb::AttemptResult| {
        (said.credential, said.retry_after_ms) = ("main".to_owned(), 60_000);
    };
    hand.say(said(&probe, "provider_unavailable", wait)).await;
    held_by(&mut rig, "r", "builder_breaker_open").await;
    let builders = rig.admin.builders(pb::BuildersRequest {}).await.unwrap().into_inner().builders;
    assert!(builders[0].credential_rests_until_ms > 0, "{builders:?}");
    rig.close().await;
}

#[tokio::test]
async fn who_finds_no_slot_is_not_looked_at_further() {
    let site = Site::new("");
    let mut rig = rig(&site, BudgetConfig { day: tokens(100), ..BudgetConfig::default() }).await;
    let mut hand = Hand::open(&mut rig).await;
    submit(&mut rig, "a", json!({})).await;
    let grant = hand.granted().await;
    submit(&mut rig, "b", json!({})).await;
    held_by(&mut rig, "b", "no_slot").await;
    hand.say(failed(&grant, "malformed_patch", 100)).await;
    held_by(&mut rig, "b", "budget_exhausted").await;
    rig.close().await;
}

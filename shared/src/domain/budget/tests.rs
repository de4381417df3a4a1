//! Tests of budgets: what is granted, when one waits, when one stops, and what counts afterwards.

use super::*;
use crate::domain::ids::{PhaseId, ProjectId, RunId};
use crate::domain::usage::{Unsaid, Usage};

const NOW: i64 = 1_700_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_millis(NOW)
}

fn tokens(n: u64) -> Caps {
    Caps { tokens: Some(n), ..Caps::default() }
}

fn ledger(scope: BudgetScope, limit: u64, settled: u64, reserved: u64) -> Ledger {
    let amounts = |tokens| Amounts { tokens, ..Amounts::default() };
    Ledger { scope, caps: tokens(limit), spent: Spent { settled: amounts(settled), reserved: amounts(reserved) } }
}

fn spend(granted: Caps, models: bool) -> Spend {
    Spend {
        run: RunId::new("r").unwrap(),
        phase: PhaseId::new("p").unwrap(),
        attempt: 1,
        epoch: 1,
        project: ProjectId::new("shop").unwrap(),
        builder: "llm:m".to_owned(),
        credential: None,
        day: 0,
        at: now(),
        state: SpendState::Reserved,
        version: 0,
        counted: Amounts::default(),
        granted,
        bounds: Vec::new(),
        models,
        reported: None,
    }
    .reserve()
}

#[test]
fn an_attempt_gets_the_least_that_is_left() {
    // (attempt, scopes as limit/settled/reserved) -> granted, or who stops it
    type Case<'a> = (Option<u64>, &'a [(BudgetScope, u64, u64, u64)], &'a str);
    let cases: &[Case<'_>] = &[
        (None, &[], "none"),
        (Some(500), &[], "500 attempt"),
        (None, &[(BudgetScope::Run, 100, 0, 0)], "100 run"),
        (Some(50), &[(BudgetScope::Run, 100, 0, 0)], "50 attempt"),
        (Some(50), &[(BudgetScope::Run, 100, 40, 30)], "30 run"),
        (Some(50), &[(BudgetScope::Run, 100, 0, 0), (BudgetScope::Day, 40, 30, 0)], "10 day"),
        (Some(50), &[(BudgetScope::Run, 100, 0, 100)], "wait run"),
        (Some(50), &[(BudgetScope::Run, 100, 60, 50)], "wait run"),
        (Some(50), &[(BudgetScope::Day, 100, 0, 89)], "wait day"),
        (Some(50), &[(BudgetScope::Day, 100, 89, 0)], "11 day"),
        (None, &[(BudgetScope::Day, 100, 0, 89)], "11 day"),
        (Some(50), &[(BudgetScope::Run, 100, 0, 100), (BudgetScope::Day, 10, 10, 0)], "exhausted day"),
        (Some(50), &[(BudgetScope::Project, 100, 101, 0)], "exhausted project"),
        (Some(50), &[(BudgetScope::Run, 0, 0, 0)], "exhausted run"),
        (Some(50), &[(BudgetScope::Run, u64::MAX, u64::MAX - 3, 0)], "3 run"),
    ];
    for (attempt, scopes, expected) in cases {
        let ledgers: Vec<Ledger> =
            scopes.iter().map(|(s, limit, used, held)| ledger(*s, *limit, *used, *held)).collect();
        let attempt = attempt.map_or_else(Caps::default, tokens);
        let got = match admit(&ledgers, attempt, true, now()) {
            Admission::Granted(caps, bounds) => match (caps.tokens, bounds.first()) {
                (Some(tokens), Some(bound)) => format!("{tokens} {}", bound.scope.as_str()),
                (None, None) => "none".to_owned(),
                other => format!("{other:?}"),
            },
            Admission::Wait(hit) => format!("wait {}", hit.scope.as_str()),
            Admission::Exhausted(hit) => format!("exhausted {}", hit.scope.as_str()),
        };
        assert_eq!(got, *expected, "{attempt:?} {scopes:?}");
    }
}

#[test]
fn who_asks_no_model_reserves_none_of_it() {
    let used_up = [ledger(BudgetScope::Run, 10, 10, 0)];
    assert!(matches!(admit(&used_up, tokens(5), true, now()), Admission::Exhausted(_)));
    assert_eq!(admit(&used_up, tokens(5), false, now()), Admission::Granted(Caps::default(), Vec::new()));
}

#[test]
fn a_day_says_when_it_ends_and_others_wait_for_somebody() {
    let Admission::Exhausted(day) = admit(&[ledger(BudgetScope::Day, 5, 5, 0)], Caps::default(), true, now()) else {
        panic!("not exhausted")
    };
    assert_eq!(day.until.unwrap().as_millis() % DAY, 0);
    assert_eq!(
        day.to_string(),
        "budget_exhausted: 5 of 5 tokens of the day are used; it goes on by itself at 2023-11-15T00:00:00.000Z"
    );
    let Admission::Exhausted(run) = admit(&[ledger(BudgetScope::Run, 5, 6, 0)], Caps::default(), true, now()) else {
        panic!("not exhausted")
    };
    assert_eq!(run.to_string(), "budget_exhausted: 6 of 5 tokens of the run are used; it goes on when that is raised");
    assert_eq!(day_of(next_day(now())), day_of(now()) + 1);
    assert_eq!(day_of(Timestamp::from_millis(-1)), -1);
}

#[test]
fn what_counts_is_never_more_than_was_reserved() {
    let usage = |tokens, calls| Usage { input_tokens: tokens, calls, ..Usage::default() };
    let granted = Caps { tokens: Some(100), seconds: Some(60), ..Caps::default() };
    let settled = |ending, models| {
        let mut spend = spend(granted, models);
        assert_eq!((spend.counted.tokens, spend.counted.seconds), (100, 60));
        spend.settle(ending);
        assert_eq!(spend.state, SpendState::Settled);
        (spend.counted.tokens, spend.counted.calls, spend.counted.seconds)
    };
    assert_eq!(settled(Ending::Reported(Some(usage(30, 2)), 12), true), (30, 2, 12));
    assert_eq!(settled(Ending::Reported(Some(usage(u64::MAX, u64::MAX)), 999), true), (100, MOST, 60));
    assert_eq!(settled(Ending::Reported(None, 12), true), (100, 0, 12), "who says nothing is counted with all of it");
    assert_eq!(settled(Ending::Lost, true), (100, 0, 60));
    assert_eq!(settled(Ending::NotStarted, true), (0, 0, 0));
}

#[test]
fn what_nobody_said_counts_with_all_that_was_reserved() {
    let granted = Caps { tokens: Some(100), cost_micros: Some(50), calls: Some(9), ..Caps::default() };
    let settled = |usage| {
        let mut spend = spend(granted, true);
        spend.settle(Ending::Reported(Some(usage), 1));
        (spend.counted.tokens, spend.counted.cost_micros, spend.counted.calls)
    };
    let nothing = Usage::default();
    assert_eq!(settled(nothing), (0, 0, 0));
    assert_eq!(settled(Usage::UNSAID), (100, 50, 9));
    let unsaid = |tokens, cost, calls| Unsaid { tokens, cost, calls };
    let killed = Usage { calls: 3, unsaid: unsaid(true, true, false), ..nothing };
    assert_eq!(settled(killed), (100, 50, 3), "a killed agent whose calls were seen");
    let unpriced = Usage { input_tokens: 20, calls: 1, unsaid: unsaid(false, true, false), ..nothing };
    assert_eq!(settled(unpriced), (20, 50, 1));
}

/// One unit of an attempt: whose budget bounds it, how much was granted, how much is said to be used.
type Part = (Unit, BudgetScope, u64, u64);

fn ended(parts: &[Part], stop: Option<Stop>, of_call: bool) -> String {
    let mut spend = spend(Caps::default(), true);
    let mut usage = Usage::default();
    for (unit, scope, granted, used) in parts {
        spend.granted.set(*unit, Some(*granted));
        spend.bounds.push(Bound { unit: *unit, scope: *scope, limit: 1000 });
        match unit {
            Unit::Tokens => usage.input_tokens = *used,
            Unit::CostMicros => usage.cost_micros = *used,
            Unit::Calls => usage.calls = *used,
            Unit::Seconds | Unit::Files => {}
        }
    }
    spend.reported = Some(usage);
    let found = spend.ended_by(stop, of_call);
    found.map_or_else(|| "own".to_owned(), |bound| format!("{} {}", bound.unit.as_str(), bound.scope.as_str()))
}

#[test]
fn what_ended_an_attempt_is_named_and_never_a_wider_budget_for_its_own() {
    use BudgetScope::{Attempt, Day, Run};
    use Unit::{Calls, Seconds, Tokens};
    let cases: &[(&[Part], Option<Stop>, bool, &str)] = &[
        // The worker says which.
        (&[(Tokens, Run, 1000, 0), (Calls, Attempt, 3, 3)], Some(Stop::Unit(Calls)), false, "own"),
        (&[(Tokens, Run, 100, 97), (Calls, Attempt, 3, 1)], Some(Stop::Unit(Tokens)), false, "tokens run"),
        (&[(Tokens, Run, 100, 97)], Some(Stop::Call), true, "own"),
        // One of before says nothing.
        (&[(Tokens, Run, 1000, 0), (Calls, Attempt, 3, 3)], None, false, "own"),
        (&[(Tokens, Attempt, 10, 4), (Seconds, Run, 5, 0)], None, false, "own"),
        (&[(Tokens, Run, 10, 0), (Calls, Day, 3, 3)], None, false, "calls day"),
        (&[(Tokens, Run, 10, 0), (Calls, Day, 3, 0)], None, false, "tokens run"),
        (&[(Tokens, Run, 100, 97), (Calls, Attempt, 3, 1)], None, false, "tokens run"),
        (&[(Tokens, Run, 100, 20), (Calls, Attempt, 9, 8)], None, false, "own"),
        (&[(Tokens, Run, 100, 20)], None, true, "own"),
        (&[(Tokens, Run, 100, 100)], None, true, "tokens run"),
        (&[], None, false, "own"),
    ];
    for (parts, stop, of_call, expected) in cases {
        assert_eq!(ended(parts, *stop, *of_call), *expected, "{parts:?} {stop:?} {of_call}");
    }
    for word in ["tokens", "cost_micros", "calls", "call"] {
        assert_eq!(Stop::read(word).map(Stop::as_str), Some(word));
    }
    assert_eq!((Stop::read(""), Stop::read("seconds")), (None, None));
}

#[test]
fn time_that_a_wider_budget_cut_short_is_not_the_attempts() {
    let cut = |scope, granted, seconds| {
        let mut spend = spend(Caps { seconds: Some(granted), ..Caps::default() }, false);
        spend.bounds = vec![Bound { unit: Unit::Seconds, scope, limit: 600 }];
        spend.out_of_time(seconds).map(|bound| bound.scope)
    };
    assert_eq!(cut(BudgetScope::Run, 3, 3), Some(BudgetScope::Run));
    assert_eq!(cut(BudgetScope::Run, 40, 37), Some(BudgetScope::Run), "some of it is kept for the end");
    assert_eq!(cut(BudgetScope::Run, 40, 30), None, "it had time left: its builder's own limit ended it");
    assert_eq!(cut(BudgetScope::Attempt, 3, 3), None);
    assert_eq!(spend(Caps::default(), false).out_of_time(9), None);
}

#[test]
fn who_did_not_get_enough_waits_for_more_or_for_the_end_of_the_others() {
    // (limit, settled, reserved by others, what was not enough) -> what becomes of it
    for (limit, used, held, short, expected) in [
        (100, 50, 40, Some(10), "wait 90 of 100"),
        (100, 50, 30, Some(10), "20"),
        (100, 90, 0, Some(10), "10"),
        (100, 50, 40, None, "10"),
        (100, 100, 0, Some(10), "exhausted"),
        (1000, 0, 40, Some(10), "40"),
    ] {
        let short = short.map(|got| Short { unit: Unit::Tokens, got });
        let got = match admit_again(&[ledger(BudgetScope::Day, limit, used, held)], tokens(40), true, short, now()) {
            Admission::Granted(caps, _) => caps.tokens.unwrap().to_string(),
            Admission::Wait(hit) => format!("wait {} of {}", hit.used, hit.limit),
            Admission::Exhausted(_) => "exhausted".to_owned(),
        };
        assert_eq!(got, expected, "{limit} {used} {held} {short:?}");
    }
}

#[test]
fn later_bounds_take_the_place_of_the_files() {
    let file = Caps::from(&RunLimits { tokens: Some(5), cost: Some(1.5), ..RunLimits::default() });
    assert_eq!(file.cost_micros, Some(1_500_000));
    let now = tokens(9).or(file);
    assert_eq!((now.tokens, now.cost_micros), (Some(9), Some(1_500_000)));
    assert_eq!([micros(-1.0), micros(f64::NAN), micros(f64::INFINITY)], [0, 0, 0]);
}

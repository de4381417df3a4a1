//! The judgement as a table, and what holds for every pair of runs.

use proptest::prelude::*;

use super::*;
use crate::domain::ids::Oid;

/// `a=F b=P c=S`: a report; `-`: none; `!`: one that cannot be used.
fn seen(code: i32, tests: &str) -> Observation {
    let reading = match tests {
        "-" => Reading::None,
        "!" => Reading::Unusable("is missing".to_owned()),
        tests => Reading::Tests(tests.split_whitespace().map(result).collect()),
    };
    Observation { end: End::Exit(code), reading, tail: vec![format!("tail {code}")] }
}

fn of<'a>(first: &'a Observation, second: Option<&'a Observation>) -> Vec<&'a Observation> {
    std::iter::once(first).chain(second).collect()
}

fn result(word: &str) -> (String, TestResult) {
    let (name, state) = word.split_once('=').unwrap();
    let state = match state {
        "P" => TestState::Passed,
        "F" => TestState::Failed,
        _ => TestState::Skipped,
    };
    (name.to_owned(), TestResult { state, message: format!("{name} broke") })
}

fn words(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let name = |name: &str| if name.is_empty() { "COMMAND".to_owned() } else { name.to_owned() };
    names.into_iter().map(|n| name(n.as_ref())).collect::<Vec<_>>().join(" ")
}

/// Baseline, first run, second run; then what is new, known, flaky and vanished.
type Row = (Option<(i32, &'static str)>, (i32, &'static str), Option<(i32, &'static str)>, [&'static str; 4]);

const GREEN: Option<(i32, &str)> = Some((0, "a=P b=P"));
const A_FAILS: Option<(i32, &str)> = Some((1, "a=F b=P"));

#[test]
fn the_table() {
    let rows: &[Row] = &[
        // By the exit code alone.
        (None, (0, "-"), None, ["", "", "", ""]),
        (None, (1, "-"), Some((1, "-")), ["COMMAND", "", "", ""]),
        (None, (1, "-"), Some((0, "-")), ["", "", "COMMAND", ""]),
        (Some((0, "-")), (1, "-"), Some((1, "-")), ["COMMAND", "", "", ""]),
        (Some((1, "-")), (1, "-"), Some((1, "-")), ["", "COMMAND", "", ""]),
        // It fails in another way than the base does, or as a shell does that cannot run it.
        (Some((1, "-")), (2, "-"), Some((2, "-")), ["COMMAND", "", "", ""]),
        (Some((127, "-")), (127, "-"), Some((127, "-")), ["COMMAND", "", "", ""]),
        // By test.
        (GREEN, (0, "a=P b=P"), None, ["", "", "", ""]),
        (GREEN, (1, "a=F b=P"), Some((1, "a=F b=P")), ["a", "", "", ""]),
        (GREEN, (1, "a=F b=P"), Some((0, "a=P b=P")), ["", "", "a", ""]),
        (GREEN, (1, "a=F b=P"), None, ["a", "", "", ""]),
        (None, (1, "a=F b=P"), Some((1, "a=F b=P")), ["a", "", "", ""]),
        (A_FAILS, (1, "a=F b=P"), Some((1, "a=F b=P")), ["", "a", "", ""]),
        (A_FAILS, (1, "a=F b=F"), Some((1, "a=F b=F")), ["b", "a", "", ""]),
        (A_FAILS, (1, "a=F b=F"), Some((1, "a=F b=P")), ["", "a", "b", ""]),
        (A_FAILS, (0, "a=P b=P"), None, ["", "", "", ""]),
        // Failed first, and the second run says nothing of it, or that it did not run.
        (GREEN, (1, "a=F b=P"), Some((0, "b=P")), ["a", "", "", ""]),
        (GREEN, (1, "a=F b=P"), Some((0, "a=S b=P")), ["a", "", "", ""]),
        // The second run fails where the first did not.
        (GREEN, (1, "a=F b=P"), Some((1, "a=P b=F")), ["", "", "a b", ""]),
        // A code that no failing test explains.
        (GREEN, (1, "a=P b=P"), Some((1, "a=P b=P")), ["COMMAND", "", "", ""]),
        (GREEN, (1, "a=P b=P"), Some((0, "a=P b=P")), ["", "", "COMMAND", ""]),
        (A_FAILS, (139, "a=F b=P"), Some((139, "a=F b=P")), ["COMMAND", "a", "", ""]),
        (A_FAILS, (1, "a=P b=P"), Some((1, "a=P b=P")), ["COMMAND", "", "", ""]),
        // One run that nothing explains, and one that a failing test does: nobody saw the command pass.
        (GREEN, (1, "a=P b=P"), Some((1, "a=P b=F")), ["COMMAND", "", "b", ""]),
        // A report that shows failures under a code that says that all is well.
        (GREEN, (0, "a=F b=P"), Some((0, "a=F b=P")), ["a", "", "", ""]),
        // No report.
        (GREEN, (0, "!"), Some((0, "!")), ["COMMAND", "", "", ""]),
        (A_FAILS, (1, "!"), Some((1, "!")), ["COMMAND", "", "", ""]),
        (Some((1, "!")), (1, "!"), Some((1, "!")), ["COMMAND", "", "", ""]),
        (GREEN, (0, "!"), Some((0, "a=P b=P")), ["", "", "COMMAND", ""]),
        // Tests that are no longer there, or no longer run.
        (GREEN, (0, "b=P c=P"), None, ["", "", "", "a"]),
        (GREEN, (0, "a=S b=P"), None, ["", "", "", "a"]),
        (A_FAILS, (0, "b=P"), None, ["", "", "", "a"]),
        (Some((0, "a=S b=P")), (0, "b=P"), None, ["", "", "", ""]),
        // A run without a report says nothing of what is gone, and hides nothing of what another one says.
        (GREEN, (1, "!"), Some((0, "b=P")), ["", "", "COMMAND", "a"]),
        (GREEN, (1, "!"), Some((1, "!")), ["COMMAND", "", "", ""]),
        // A crash that does not come again, on a base whose exit code is never 0.
        (A_FAILS, (1, "!"), Some((1, "a=F b=P")), ["", "a", "COMMAND", ""]),
        (A_FAILS, (1, "a=F b=P"), Some((139, "a=F b=P")), ["", "a", "COMMAND", ""]),
        // What explains the code has to be known itself, and persistent.
        (A_FAILS, (1, "!"), Some((1, "a=F b=F")), ["COMMAND b", "a", "", ""]),
        (A_FAILS, (1, "a=P b=P"), Some((1, "a=F b=P")), ["COMMAND", "", "a", ""]),
        (GREEN, (1, "!"), Some((1, "a=F b=P")), ["COMMAND a", "", "", ""]),
    ];
    for (base, first, second, expected) in rows {
        let base = base.and_then(|(code, tests)| Baseline::of(&[&seen(code, tests), &seen(code, tests)]).ok());
        let second = second.map(|(code, tests)| seen(code, tests));
        let verdict = judge(base.as_ref(), &of(&seen(first.0, first.1), second.as_ref()), Vanished::Report);
        let got = [words(verdict.new.keys()), words(&verdict.known), words(&verdict.flaky), words(&verdict.vanished)];
        assert_eq!(got, *expected, "{base:?} {first:?} {second:?}");
        assert_eq!(verdict.green, expected[0].is_empty(), "{first:?}");
    }
}

#[test]
fn what_vanished_blocks_where_that_is_wanted() {
    let base = Baseline::of(&[&seen(0, "a=P b=P")]).unwrap();
    assert!(judge(Some(&base), &[&seen(0, "b=P")], Vanished::Report).green);
    assert!(!judge(Some(&base), &[&seen(0, "b=P")], Vanished::Block).green);
    let half_a_crash = [&seen(1, "!"), &seen(0, "b=P")];
    assert!(!judge(Some(&base), &half_a_crash, Vanished::Block).green, "the second run shows it");
}

#[test]
fn what_vanished_and_cannot_be_told_blocks_where_that_is_wanted() {
    let trimmed = Baseline::of(&[&seen(0, "a=P b=P")]).unwrap().trimmed();
    assert!(!trimmed.whole, "what is not listed cannot be said to be gone");
    for base in [None, Some(&trimmed)] {
        assert!(!judge(base, &[&seen(0, "b=P")], Vanished::Block).green, "{base:?}");
        assert!(judge(base, &[&seen(0, "b=P")], Vanished::Report).green, "{base:?}");
        // Where there are no tests, none can vanish.
        assert!(judge(base, &[&seen(0, "-")], Vanished::Block).green, "{base:?}");
    }
}

#[test]
fn a_base_has_shown_what_all_its_runs_show() {
    let of = |first, second| Baseline::of(&[&first, &second]);
    let failing = |first, second| words(of(first, second).unwrap().failing);
    assert_eq!(failing(seen(1, "a=P"), seen(1, "a=P")), "COMMAND");
    assert_eq!(failing(seen(1, "a=P"), seen(2, "a=P")), "", "two codes");
    assert_eq!(failing(seen(1, "a=P b=P"), seen(1, "a=P b=F")), "", "explained once");
    assert_eq!(failing(seen(1, "b=F"), seen(1, "a=F b=F")), "b", "a failed once");
    // A run without a report is none of the two that it takes.
    assert!(of(seen(1, "!"), seen(1, "b=F")).is_err() && of(seen(1, "b=F"), seen(1, "!")).is_err());
    let crashed = Observation { end: End::Signal(9), ..seen(0, "b=F") };
    assert!(of(crashed, seen(1, "b=F")).is_err());
    let base = of(seen(1, "a=P b=P"), seen(1, "a=P b=F")).unwrap();
    assert!(!judge(Some(&base), &[&seen(1, "a=P b=P"), &seen(1, "a=P b=P")], Vanished::Report).green);
}

#[test]
fn a_base_that_did_not_run_to_its_end_is_none() {
    for end in [End::Timeout(9), End::Signal(9), End::NotRun("no sh".to_owned())] {
        let run = Observation { end, ..seen(0, "-") };
        assert!(Baseline::of(&[&run]).is_err());
        assert_eq!(words(run.failures()), "COMMAND");
        let base = Baseline::of(&[&seen(1, "-"), &seen(1, "-")]).unwrap();
        assert!(!judge(Some(&base), &[&run, &run], Vanished::Report).green, "{run:?}");
    }
    assert!(Baseline::of(&[&seen(0, "!")]).is_err());
    // What is flaky on the base is no excuse.
    let base = Baseline::of(&[&seen(1, "a=F b=P"), &seen(0, "a=P b=P")]).unwrap();
    assert_eq!((words(&base.failing), words(&base.flaky)), (String::new(), "a".to_owned()));
}

#[test]
fn one_run_more_may_show_that_what_is_known_to_be_flaky_is() {
    let known = BTreeSet::from(["a".to_owned()]);
    let (red, both, green) = (seen(1, "a=F b=P"), seen(1, "a=F b=F"), seen(0, "a=P b=P"));
    assert!(judge(None, &[&red, &red], Vanished::Report).may_be_flaky(&known));
    assert!(!judge(None, &[&both, &both], Vanished::Report).may_be_flaky(&known), "b is not known to be");
    assert!(!judge(None, &[&green], Vanished::Report).may_be_flaky(&known));
    let verdict = judge(None, &[&red, &red, &green], Vanished::Report);
    assert!(verdict.green && words(&verdict.flaky) == "a", "{verdict:?}");
    assert!(!judge(None, &[&red, &red, &red], Vanished::Report).green, "to be known excuses nothing");
}

#[test]
fn the_builder_is_told_enough_and_never_too_much() {
    let verdict = judge(None, &[&seen(1, "a=F b=P")], Vanished::Report);
    let command = CommandReport::new("tests", vec![End::Exit(1)], 2, verdict, Source::Missing("no base".to_owned()));
    let report = Report { green: false, base: Oid::ZERO, commands: vec![command] };
    assert_eq!(
        report.feedback(),
        "gate_failed: tests exited with 1, 1 new failures; no baseline: no base\n- a: a broke"
    );
    let key = ["AKIA", "Q3EGWMZ6XJ4N2PLT"].concat();
    let long = format!("{key} {}", "x\u{1b}\n".repeat(4000));
    let finding = |n: usize| Finding { test: format!("t{n}\u{7}"), message: long.clone() };
    let mut many = report.clone();
    many.commands[0].new = (0..5000).map(finding).collect();
    many.commands[0].known = (0..5000).map(|n| n.to_string()).collect();
    let read = Report::read(&serde_json::to_string(&many).unwrap()).unwrap();
    let text = read.feedback();
    assert!(text.len() <= MAX_FEEDBACK && text.contains("more)"), "{}", text.len());
    let json = serde_json::to_string(&read).unwrap();
    assert!(!json.contains(&key) && !json.contains("\\u001b") && json.len() < 64 * 1024, "{}", json.len());
    assert_eq!(Report::read(&serde_json::to_string(&report).unwrap()).unwrap(), report);
    assert!(Report::read(r#"{"green":true}"#).is_err());
}

#[test]
fn what_is_counted_is_more_than_what_is_listed() {
    let tests: Vec<_> = (100..600).map(|n| format!("t{n}=F")).collect();
    let verdict = judge(None, &[&seen(1, &tests.join(" "))], Vanished::Report);
    let command = CommandReport::new("tests", vec![End::Exit(1)], 500, verdict, Source::NotNeeded);
    let report = Report { green: false, base: Oid::ZERO, commands: vec![command] };
    let read = Report::read(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(read.line(), "tests exited with 1, 500 new failures");
    assert_eq!((read.commands[0].new.len(), read.commands[0].left_out), (50, 450));
    let text = read.feedback();
    assert!(text.starts_with("gate_failed: tests exited with 1, 500 new failures\n- t100: t100 broke\n"), "{text}");
    assert!(text.ends_with("\n- (451 more)"), "{text}");
}

#[test]
fn what_is_covered_hides_no_failure() {
    let mut run = seen(1, "a-one=F a-two=P b=P");
    run.cover(|text| text.replace("one", "*").replace("two", "*").replace("tail", "*"));
    assert_eq!((words(run.failures()), run.count(), run.tail), ("a-*".to_owned(), 2, vec!["* 1".to_owned()]));
}

#[test]
fn a_symbol_is_a_word_of_its_own() {
    for (text, there) in [
        ("pub fn parse_config() {}", true),
        ("fn parse_configs() {}", false),
        ("fn reparse_config() {}", false),
        ("parse_configs parse_config", true),
        ("x.parse_config", true),
        ("éparse_config", false),
        ("", false),
    ] {
        assert_eq!(has_symbol(text, "parse_config"), there, "{text}");
    }
    let symbol = SymbolRef::parse("src/lib.rs::Type::parse").unwrap();
    assert_eq!((symbol.path.to_string().as_str(), symbol.name.as_str()), ("src/lib.rs", "parse"));
}

fn state() -> impl Strategy<Value = TestState> {
    prop_oneof![Just(TestState::Passed), Just(TestState::Failed), Just(TestState::Skipped)]
}

fn observation() -> impl Strategy<Value = Observation> {
    let tests = prop::collection::btree_map("[abcd]", state(), 1..4).prop_map(|tests| {
        let result = |state| TestResult { state, message: String::new() };
        Reading::Tests(tests.into_iter().map(|(name, state)| (name, result(state))).collect())
    });
    let reading = prop_oneof![4 => tests, 1 => Just(Reading::None), 1 => Just(Reading::Unusable("x".to_owned()))];
    let end = prop_oneof![
        4 => Just(End::Exit(0)), 4 => Just(End::Exit(1)), 1 => Just(End::Exit(139)),
        1 => Just(End::Signal(9)), 1 => Just(End::Timeout(1))
    ];
    (end, reading).prop_map(|(end, reading)| Observation { end, reading, tail: Vec::new() })
}

/// The same with one more failing test.
fn worse(run: &Observation, name: &str) -> Observation {
    let mut run = run.clone();
    if let Reading::Tests(tests) = &mut run.reading {
        tests.insert(name.to_owned(), TestResult { state: TestState::Failed, message: String::new() });
    }
    run
}

proptest! {
    #[test]
    fn a_baseline_only_excuses(base in observation(), first in observation(), second in observation()) {
        let strict = judge(None, &[&first, &second], Vanished::Report);
        if let Ok(base) = Baseline::of(&[&base]) {
            let loose = judge(Some(&base), &[&first, &second], Vanished::Report);
            prop_assert!(loose.new.keys().all(|name| strict.new.contains_key(name)));
            let excused: BTreeSet<_> = strict.new.keys().filter(|name| !loose.new.contains_key(*name)).cloned().collect();
            // A command that a run with known failures shows to work is flaky; nothing else is for the base to say.
            let works = excused.contains(COMMAND) && loose.flaky.contains(COMMAND);
            let known: BTreeSet<_> = loose.known.iter().cloned().chain(works.then(|| COMMAND.to_owned())).collect();
            prop_assert_eq!(&excused, &known);
            prop_assert!(loose.known.is_subset(&base.failing));
        }
    }

    #[test]
    fn green_means_that_every_failure_is_accounted_for(base in observation(), first in observation(), second in observation()) {
        let base = Baseline::of(&[&base]).ok();
        let verdict = judge(base.as_ref(), &[&first, &second], Vanished::Block);
        let failed: BTreeSet<_> = first.failures().union(&second.failures()).cloned().collect();
        let told: BTreeSet<_> = verdict.new.keys().chain(&verdict.known).chain(&verdict.flaky).cloned().collect();
        prop_assert_eq!(failed, told);
        prop_assert_eq!(verdict.green, verdict.new.is_empty() && verdict.vanished.is_empty() && !verdict.untold);
    }

    #[test]
    fn without_a_second_run_nothing_is_flaky(base in observation(), first in observation(), second in observation()) {
        let base = Baseline::of(&[&base]).ok();
        let once = judge(base.as_ref(), &[&first], Vanished::Block);
        prop_assert!(once.flaky.is_empty());
        // Another run shows a failure to be flaky, or adds failures; it takes no persistent one away otherwise.
        let twice = judge(base.as_ref(), &[&first, &second], Vanished::Block);
        for name in once.new.keys() {
            prop_assert!(twice.new.contains_key(name) || twice.flaky.contains(name), "{}", name);
        }
    }

    #[test]
    fn more_failures_never_turn_red_into_green(
        base in observation(), first in observation(), second in observation(), name in "[abcd]",
    ) {
        let base = Baseline::of(&[&base]).ok();
        // A failure that the base has too may explain an exit code; nothing else may.
        prop_assume!(base.as_ref().is_none_or(|base| !base.failing.contains(&name)));
        let before = judge(base.as_ref(), &[&first, &second], Vanished::Report);
        let after = judge(base.as_ref(), &[&worse(&first, &name), &worse(&second, &name)], Vanished::Report);
        prop_assert!(before.green || !after.green, "{:?} {:?}", before, after);
    }
}

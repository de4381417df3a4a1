//! Every line of `tests/cases` on the pure core: the repositories are built as raw objects, because their names and
//! modes are hostile on purpose.

#![allow(clippy::unwrap_used, reason = "a case that cannot be built must fail its test")]

#[path = "cases/model.rs"]
mod model;
#[path = "cases/repository.rs"]
mod repository;

use std::collections::{BTreeMap, BTreeSet};

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::evaluate::{PhaseScope, Spent, Verdict, Window, evaluate};
use autopack_shared::domain::parallelism::{
    AnchorState, GateInput, PhaseScopePaths, RunsRequest, decide, scopes_overlap,
};
use autopack_shared::domain::path::PathRoots;
use autopack_shared::domain::policy::{PathClass, Policy};
use autopack_shared::repo::facts::{Limits, change_facts};
use autopack_shared::repo::import::import_patch;

use model::{Case, Context, Expect, ExpectFacts, GateCase, GateLine, Runs};

#[test]
fn patch_cases() {
    run("patch.jsonl", 143);
}

#[test]
fn path_cases() {
    run("paths.jsonl", 125);
}

#[test]
fn score_cases() {
    run("score.jsonl", 21);
}

#[test]
fn gate_cases() {
    let mut failures = Vec::new();
    let lines: Vec<GateLine> = model::read("gate.jsonl");
    assert_eq!(lines.len(), 43);
    for line in lines {
        match line {
            GateLine::Overlap { id, title, a, b, expect_overlap } => {
                let overlaps = |a: &PhaseScopePaths, b: &PhaseScopePaths| scopes_overlap(a, b).is_some();
                if overlaps(&a, &b) != expect_overlap || overlaps(&b, &a) != expect_overlap {
                    failures.push(format!("{id} {title}"));
                }
            }
            GateLine::Gate(case) => failures.extend(check_gate(&case)),
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

fn check_gate(case: &GateCase) -> Option<String> {
    let text = case.anchor.as_ref().map(ToString::to_string);
    let parsed = text.as_deref().map(IntentionAnchorV2::parse);
    let anchor = match &parsed {
        None => AnchorState::Absent,
        Some(Ok(anchor)) => AnchorState::Present(anchor),
        Some(Err(_)) => AnchorState::Invalid,
    };
    let runs = match &case.runs {
        Runs::Count(count) => RunsRequest::Count(*count),
        Runs::Names(names) => RunsRequest::Names(names.clone()),
    };
    let decision = decide(&GateInput { anchor, runs, workers: case.workers, active: case.active });
    let fits = decision.allow == case.expect.allow
        && case.expect.reason.as_deref().is_none_or(|reason| reason == decision.reason.as_str())
        && case.expect.effective.is_none_or(|effective| effective == decision.effective);
    (!fits).then(|| format!("{} {}: {decision:?}", case.id, case.title))
}

fn run(file: &str, count: usize) {
    let cases: Vec<Case> = model::read(file);
    assert_eq!(cases.len(), count, "a case is never dropped");
    let failures: Vec<String> = cases.iter().filter_map(|case| check(case).err()).collect();
    assert!(failures.is_empty(), "{} of {count}: {failures:#?}", failures.len());
}

fn check(case: &Case) -> Result<(), String> {
    let verdict = judge(case);
    let mut wrong = Vec::new();
    compare(&case.expect, &verdict, &mut wrong);
    if wrong.is_empty() {
        return Ok(());
    }
    let reasons: Vec<String> =
        verdict.reasons.iter().map(|r| format!("{} {:?} {:?}", r.code, r.paths.first(), r.rule)).collect();
    Err(format!("{} {}: {} (got {}, {reasons:?})", case.id, case.title, wrong.join("; "), verdict.verdict))
}

fn judge(case: &Case) -> Verdict {
    let bench = repository::Bench::new();
    let base = bench.base(&case.base);
    let policy = Policy::builtin();
    let anchor = anchor(&case.context);
    let digests = (policy.digest(), anchor.as_ref().map(IntentionAnchorV2::digest));
    let result = match (&case.patch_text, &case.change) {
        (Some(text), None) => match import_patch(&bench.repo, base, text.as_bytes()) {
            Ok(tree) => tree,
            Err(error) => return error.into_verdict(digests).unwrap(),
        },
        (None, Some(change)) => bench.changed(&case.base, change),
        (_, _) => panic!("{}: a case has a change or a patch text", case.id),
    };
    let facts = change_facts(&bench.repo, base, result, &Limits::default()).unwrap();
    let verdict = evaluate(&facts, &policy, anchor.as_ref(), &scope(&case.context), &window(&case.context));
    let json = serde_json::to_value(&verdict).unwrap();
    let stored: Verdict = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&stored).unwrap(), json, "{}: a stored verdict is read back", case.id);
    let replayed = evaluate(&stored.facts, &policy, anchor.as_ref(), &scope(&case.context), &window(&case.context));
    assert_eq!((replayed.verdict, replayed.score), (verdict.verdict, verdict.score), "{}: replay", case.id);
    verdict
}

fn anchor(context: &Context) -> Option<IntentionAnchorV2> {
    if context.anchor == Some(false) {
        return None;
    }
    let tolerance = match (&context.risk_tolerance, context.profile.as_deref()) {
        (Some(given), _) => given.clone(),
        (None, Some("strict")) => Some("low".to_owned()),
        (None, _) => Some("moderate".to_owned()),
    };
    let mut pivots = serde_json::json!({
        "scope_boundaries": {
            "allowed_write_roots": context.allowed_write_roots,
            "protected_paths": context.protected_paths,
        }
    });
    if let Some(tolerance) = tolerance {
        pivots["safety_risk"] = serde_json::json!({ "risk_tolerance": tolerance, "never_allow": context.never_allow });
    }
    let document = serde_json::json!({
        "format_version": "v2", "project_id": "cases", "created_at": "2026-01-01T00:00:00Z",
        "raw_input_digest": "0123456789abcdef", "pivot_intentions": pivots,
    });
    Some(IntentionAnchorV2::parse(&document.to_string()).unwrap())
}

fn scope(context: &Context) -> PhaseScope {
    PhaseScope {
        paths: PathRoots::new(context.scope.clone()).unwrap(),
        category: context.category.clone().unwrap_or_else(|| "feature".to_owned()),
        description: context.description.clone(),
        claimed_risk: context.claimed_risk.as_ref().map(|claim| claim.parse().unwrap()),
        sandboxed: true,
    }
}

/// The cases speak of one path class: that of the change.
fn window(context: &Context) -> Window {
    let Some(window) = &context.window else {
        return Window::default();
    };
    let spent = Spent { run_size: window.run_size, project_24h_size: window.project_24h_size };
    Window(BTreeMap::from([(PathClass::Allowed, spent)]))
}

fn compare(expect: &Expect, verdict: &Verdict, wrong: &mut Vec<String>) {
    let decision = verdict.verdict.as_str();
    if expect.verdict.as_deref().is_some_and(|expected| expected != decision) {
        wrong.push(format!("expected {:?}", expect.verdict));
    }
    let one_of = &expect.verdict_one_of;
    if !one_of.is_empty() && !one_of.iter().any(|one| one == decision) {
        wrong.push(format!("expected one of {one_of:?}"));
    }
    if verdict.tier != verdict.verdict.tier() {
        wrong.push(format!("tier {:?}", verdict.tier));
    }
    compare_reasons(expect, verdict, wrong);
    compare_numbers(expect, verdict, wrong);
}

fn compare_reasons(expect: &Expect, verdict: &Verdict, wrong: &mut Vec<String>) {
    let codes: BTreeSet<&str> = verdict.reasons.iter().map(|r| r.code.as_str()).collect();
    for code in &expect.reasons_include {
        if !codes.contains(code.as_str()) {
            wrong.push(format!("no {code}"));
        }
    }
    for code in &expect.reasons_exclude {
        if codes.contains(code.as_str()) {
            wrong.push(format!("has {code}"));
        }
    }
    for (code, paths) in &expect.reason_paths {
        let of_code = verdict.reasons.iter().filter(|reason| reason.code.as_str() == code);
        let named: BTreeSet<&String> = of_code.flat_map(|reason| &reason.paths).collect();
        if named != paths.iter().collect() {
            wrong.push(format!("{code} names {named:?}"));
        }
    }
}

fn compare_numbers(expect: &Expect, verdict: &Verdict, wrong: &mut Vec<String>) {
    if expect.score.is_some_and(|score| score != verdict.score) {
        wrong.push(format!("score {} instead of {:?}", verdict.score, expect.score));
    }
    let severity = verdict.severity.as_str();
    if expect.severity.as_deref().is_some_and(|expected| expected != severity) {
        wrong.push(format!("severity {severity} instead of {:?}", expect.severity));
    }
    let facts = &verdict.facts;
    let counted = [facts.size, facts.added, facts.removed, facts.files, facts.dirs];
    if let Some(expected) = &expect.facts {
        let ExpectFacts { size, added, removed, files, dirs } = expected;
        if counted != [*size, *added, *removed, *files, *dirs] {
            wrong.push(format!("facts {counted:?} instead of {expected:?}"));
        }
    }
}

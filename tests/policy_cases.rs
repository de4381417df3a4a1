//! Every decision case through `policy eval` and `gate check`.

use std::collections::BTreeSet;
use std::path::Path;

use git2::{Repository, Signature, Time};
use serde_json::{Value, json};

use autopack_shared::repo::open::to_git;

use crate::harness::{Bench, Ran};
use crate::model::{self, Case, Context, Expect, GateCase, GateLine, Runs};
use crate::repository;

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

fn run(file: &str, count: usize) {
    let cases: Vec<Case> = model::read(file);
    assert_eq!(cases.len(), count, "a case is never dropped");
    let bench = Bench::empty();
    // What was spent before is known to an engine only; those lines are for the pure core.
    let asked = cases.iter().filter(|case| case.context.window.is_none());
    let failures: Vec<String> = asked.filter_map(|case| check(&bench, case)).collect();
    assert!(failures.is_empty(), "{} of {count}: {failures:#?}", failures.len());
}

fn check(bench: &Bench, case: &Case) -> Option<String> {
    let repository = repository::Bench::new();
    let base = repository.base(&case.base);
    let repo = &repository.repo;
    repo.reference("refs/heads/main", to_git(base), true, "case").unwrap();
    let mut args = vec!["policy", "eval", "-o", "json", "--repo", repo.path().to_str().unwrap()];
    let patch = bench.path().join("case.diff");
    let range = match (&case.patch_text, &case.change) {
        (Some(text), _) => {
            std::fs::write(&patch, text).unwrap();
            args.extend(["--patch", patch.to_str().unwrap(), "--base", "refs/heads/main"]);
            String::new()
        }
        (None, Some(change)) => format!("main..{}", commit(repo, repository.changed(&case.base, change), base)),
        (None, None) => panic!("{}: a case has a change or a patch text", case.id),
    };
    if !range.is_empty() {
        args.extend(["--range", &range]);
    }
    let anchor = bench.path().join("anchor.json");
    if let Some(document) = anchor_of(&case.context) {
        std::fs::write(&anchor, document.to_string()).unwrap();
        args.extend(["--anchor", anchor.to_str().unwrap()]);
    }
    for path in &case.context.scope {
        args.extend(["--scope", path]);
    }
    args.extend(["--category", case.context.category.as_deref().unwrap_or("feature")]);
    args.extend(["--description", &case.context.description]);
    if let Some(claim) = &case.context.claimed_risk {
        args.extend(["--claimed-risk", claim]);
    }
    let before = state_of(repo);
    let ran = bench.run(&args);
    let mut wrong = Vec::new();
    if state_of(repo) != before {
        wrong.push("the repository changed".to_owned());
    }
    compare(&case.expect, &ran, &mut wrong);
    (!wrong.is_empty())
        .then(|| format!("{} {}: {} (exit {}: {})", case.id, case.title, wrong.join("; "), ran.code, ran.stderr))
}

/// Commits a tree as it is; libgit2 would look at the tree, and these trees are hostile.
fn commit(
    repo: &Repository,
    tree: autopack_shared::domain::ids::Oid,
    parent: autopack_shared::domain::ids::Oid,
) -> String {
    let who = Signature::new("cases", "cases@example.invalid", &Time::new(0, 0)).unwrap();
    let who = format!("{} <{}> 0 +0000", who.name().unwrap(), who.email().unwrap());
    let text = format!("tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\nhead\n");
    repo.odb().unwrap().write(git2::ObjectType::Commit, text.as_bytes()).unwrap().to_string()
}

/// References and stored objects.
fn state_of(repo: &Repository) -> (BTreeSet<String>, usize) {
    let refs = repo.references().unwrap().map(|one| {
        let one = one.unwrap();
        format!("{} {:?}", one.name().unwrap(), one.target())
    });
    let mut objects = 0;
    repo.odb()
        .unwrap()
        .foreach(|_| {
            objects += 1;
            true
        })
        .unwrap();
    (refs.collect(), objects)
}

fn anchor_of(context: &Context) -> Option<Value> {
    if context.anchor == Some(false) {
        return None;
    }
    let tolerance = match (&context.risk_tolerance, context.profile.as_deref()) {
        (Some(given), _) => given.clone(),
        (None, Some("strict")) => Some("low".to_owned()),
        (None, _) => Some("moderate".to_owned()),
    };
    let boundaries =
        json!({ "allowed_write_roots": context.allowed_write_roots, "protected_paths": context.protected_paths });
    let mut pivots = json!({ "scope_boundaries": boundaries });
    if let Some(tolerance) = tolerance {
        pivots["safety_risk"] = json!({ "risk_tolerance": tolerance, "never_allow": context.never_allow });
    }
    Some(json!({
        "format_version": "v2", "project_id": "cases", "created_at": "2026-01-01T00:00:00Z",
        "raw_input_digest": "0123456789abcdef", "pivot_intentions": pivots,
    }))
}

fn compare(expect: &Expect, ran: &Ran, wrong: &mut Vec<String>) {
    let Ok(got) = serde_json::from_str::<Value>(&ran.stdout) else {
        wrong.push("no JSON".to_owned());
        return;
    };
    let verdict = got["verdict"].as_str().unwrap_or_default();
    if expect.verdict.as_deref().is_some_and(|wanted| wanted != verdict)
        || !(expect.verdict_one_of.is_empty() || expect.verdict_one_of.iter().any(|one| one == verdict))
    {
        wrong.push(format!("verdict {verdict}"));
    }
    let (tier, code) = match verdict {
        "AUTO_APPROVED" => (json!(1), 0),
        "NOTIFY_AND_PROCEED" => (json!(2), 0),
        "APPROVAL_REQUIRED" => (json!(3), 4),
        "BLOCKED" => (json!(4), 5),
        "NO_CHANGE" => (Value::Null, 0),
        _ => (Value::Null, 5),
    };
    if (&got["tier"], ran.code) != (&tier, code) || got["format"] != "verdict/1" {
        wrong.push(format!("tier {} exit {}", got["tier"], ran.code));
    }
    let reasons = got["reasons"].as_array().unwrap();
    let has = |code: &str| reasons.iter().any(|reason| reason["code"] == code);
    wrong.extend(expect.reasons_include.iter().filter(|code| !has(code)).map(|code| format!("no {code}")));
    wrong.extend(expect.reasons_exclude.iter().filter(|code| has(code)).map(|code| format!("has {code}")));
    for (code, paths) in &expect.reason_paths {
        let of_code = reasons.iter().filter(|reason| reason["code"] == code.as_str());
        let named: BTreeSet<&str> =
            of_code.flat_map(|r| r["paths"].as_array().unwrap()).filter_map(Value::as_str).collect();
        if named != paths.iter().map(String::as_str).collect() {
            wrong.push(format!("{code} names {named:?}"));
        }
    }
    if expect.score.is_some_and(|score| got["score"] != score)
        || expect.severity.as_ref().is_some_and(|s| got["severity"] != **s)
    {
        wrong.push(format!("score {} severity {}", got["score"], got["severity"]));
    }
    if let Some(facts) = &expect.facts {
        let counted = ["size", "added", "removed", "files", "dirs"].map(|name| got["facts"][name].as_u64());
        let wanted = [facts.size, facts.added, facts.removed, facts.files, facts.dirs].map(Some);
        if counted != wanted {
            wrong.push(format!("facts {counted:?}"));
        }
    }
}

#[test]
fn gate_cases() {
    let lines: Vec<GateLine> = model::read("gate.jsonl");
    let bench = Bench::empty();
    let mut asked = 0;
    for line in lines {
        // Overlap of scopes has no command; it is for the pure core.
        let GateLine::Gate(case) = line else { continue };
        asked += 1;
        gate(&bench, &case, &bench.path().join("anchor.json"));
    }
    assert!(asked > 20, "{asked}");
}

fn gate(bench: &Bench, case: &GateCase, anchor: &Path) {
    let runs = match &case.runs {
        Runs::Count(count) => count.to_string(),
        Runs::Names(names) => names.join(","),
    };
    let mut args = vec![
        "gate".to_owned(),
        "check".to_owned(),
        format!("--runs={runs}"),
        format!("--workers={}", case.workers),
        format!("--active={}", case.active),
        "-ojson".to_owned(),
    ];
    if let Some(document) = &case.anchor {
        std::fs::write(anchor, document.to_string()).unwrap();
        args.extend(["--anchor".to_owned(), anchor.display().to_string()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = bench.run(&args);
    let got = ran.json();
    assert_eq!(got["allow"], case.expect.allow, "{} {}: {ran:?}", case.id, case.title);
    if let Some(reason) = &case.expect.reason {
        assert_eq!(got["reason"], **reason, "{} {}", case.id, case.title);
    }
    if let Some(effective) = case.expect.effective {
        assert_eq!(got["effective"], effective, "{} {}", case.id, case.title);
    }
    let code = match (case.expect.allow, got["reason"].as_str()) {
        (true, _) => 0,
        (false, Some("invalid_input")) => 2,
        (false, _) => 5,
    };
    assert_eq!(ran.code, code, "{} {}", case.id, case.title);
}

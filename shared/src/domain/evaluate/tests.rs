//! Properties of the decision. The cases of `tests/cases` check the table line by line.

use proptest::prelude::*;

use super::*;
use crate::domain::change::{Entry, EntryPath, FileMode, LinkEnd, LinkTarget};
use crate::domain::ids::Oid;
use crate::domain::path::RepoPath;
use crate::domain::secret::SecretHit;

fn file(path: &str, added: u64, removed: u64) -> Entry {
    Entry { added, removed, ..Entry::new(EntryPath::of(path.as_bytes()), FileMode::FILE, FileMode::FILE) }
}

fn judge(entries: Vec<Entry>) -> Verdict {
    judge_with(&ChangeFacts::from_entries(entries), &PhaseScope::default(), &Window::default())
}

fn anchor() -> IntentionAnchorV2 {
    let text = r#"{"format_version":"v2","project_id":"p","created_at":"2026-01-01T00:00:00Z","raw_input_digest":"0123456789abcdef",
        "pivot_intentions":{"safety_risk":{"risk_tolerance":"moderate","never_allow":["path:examples/frozen/**"]}}}"#;
    IntentionAnchorV2::parse(text).unwrap()
}

fn judge_with(facts: &ChangeFacts, scope: &PhaseScope, window: &Window) -> Verdict {
    evaluate(facts, &Policy::builtin(), Some(&anchor()), scope, window)
}

#[test]
fn a_reason_names_the_line_of_its_rule() {
    let verdict = judge(vec![file("src/autopack/main.py", 1, 0), file("tests/a.py", 1, 0), file("tests/b.py", 1, 0)]);
    assert_eq!(verdict.tier, Some(4));
    let never = verdict.reasons.iter().find(|r| r.code == ReasonCode::PathNever).unwrap();
    let rule = Policy::builtin().rule_at(never.rule.as_deref().unwrap()).unwrap().clone();
    assert_eq!(rule.pattern, "src/autopack/main.py");
    let protected = verdict.reasons.iter().find(|r| r.code == ReasonCode::PathProtected).unwrap();
    assert_eq!(protected.paths, ["tests/a.py", "tests/b.py"]);
}

#[test]
fn json_is_the_contract_and_comes_back() {
    let mut entry = file("examples/a.py", 3, 0);
    entry.secrets.push(SecretHit { rule: "npm-token".into(), line: 2, redacted: "npm_...".into() });
    let verdict = judge(vec![entry, file("a\u{202e}b", 1, 0)]);
    let json = serde_json::to_value(&verdict).unwrap();
    for key in [
        "format",
        "verdict",
        "tier",
        "reasons",
        "score",
        "severity",
        "facts",
        "subject_digest",
        "policy_digest",
        "anchor_digest",
    ] {
        assert!(json.get(key).is_some(), "{key}");
    }
    assert_eq!(json["verdict"], "REJECTED");
    assert_eq!(json["facts"]["entries"][0]["old_mode"], "100644");
    let again: Verdict = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&again).unwrap(), json);
    let replayed = judge_with(&again.facts, &PhaseScope::default(), &Window::default());
    assert_eq!(replayed.verdict, Decision::Rejected);
}

#[test]
fn the_window_raises_by_one_step() {
    let spent = Window(BTreeMap::from([(PathClass::Allowed, Spent { run_size: 0, project_24h_size: 941 })]));
    let scope = PhaseScope::default();
    let small = judge_with(&ChangeFacts::from_entries(vec![file("examples/a", 60, 0)]), &scope, &spent);
    assert_eq!(small.verdict, Decision::NotifyAndProceed);
    let medium = judge_with(&ChangeFacts::from_entries(vec![file("examples/a", 110, 0)]), &scope, &spent);
    assert_eq!(medium.verdict, Decision::ApprovalRequired);
    let other = Window(BTreeMap::from([(PathClass::Protected, Spent { run_size: 9999, project_24h_size: 9999 })]));
    let elsewhere = judge_with(&ChangeFacts::from_entries(vec![file("examples/a", 60, 0)]), &scope, &other);
    assert_eq!(elsewhere.verdict, Decision::AutoApproved);
    assert_eq!(elsewhere.class_sizes, BTreeMap::from([(PathClass::Allowed, 60)]));
}

#[test]
fn links_are_judged_by_where_they_lead() {
    let link = |end| {
        let mut entry = Entry::new(EntryPath::of(b"examples/l"), FileMode::ABSENT, FileMode::SYMLINK);
        entry.link = Some(LinkTarget { text: "x".into(), end });
        judge(vec![entry])
    };
    let inside = |target: &str, contents: &[&str], more| LinkEnd::Inside {
        hops: vec![EntryPath::of(target.as_bytes())],
        contents: contents.iter().map(|path| RepoPath::parse(path).unwrap()).collect(),
        more,
    };
    assert_eq!(link(inside("examples/a", &[], false)).verdict, Decision::ApprovalRequired);
    assert_eq!(link(inside("examples/d", &["examples/d/x"], false)).verdict, Decision::ApprovalRequired);
    assert_eq!(link(inside("examples/d", &["examples/d/conftest.py"], false)).verdict, Decision::Blocked);
    assert_eq!(link(inside("examples/d", &[], true)).verdict, Decision::Blocked);
    assert_eq!(link(inside("scripts", &[], false)).verdict, Decision::Blocked, "scripts/ci would lie in it");
    assert_eq!(link(inside("README.md", &[], false)).verdict, Decision::Blocked);
    assert_eq!(link(LinkEnd::Root).verdict, Decision::Blocked);
    assert_eq!(link(LinkEnd::Outside { why: "it is absolute".into() }).verdict, Decision::Rejected);
    assert_eq!(link(inside(".git/config", &[], false)).verdict, Decision::Rejected);
}

#[test]
fn a_broken_anchor_protects_everything() {
    let facts = ChangeFacts::from_entries(vec![file("examples/a", 1, 0)]);
    let judge = |anchor: &IntentionAnchorV2| {
        let (policy, window) = (Policy::builtin(), Window::default());
        evaluate(&facts, &policy, Some(anchor), &PhaseScope::default(), &window).verdict
    };
    let mut broken = anchor();
    broken.pivot_intentions.safety_risk.as_mut().unwrap().never_allow = vec!["path:{a".into()];
    assert_eq!(judge(&broken), Decision::Rejected);
    let mut broken = anchor();
    let boundaries =
        crate::domain::anchor::ScopeBoundaries { protected_paths: vec!["../x".into()], ..Default::default() };
    broken.pivot_intentions.scope_boundaries = Some(boundaries);
    assert_eq!(judge(&broken), Decision::ApprovalRequired);
}

#[test]
fn a_missing_sandbox_and_a_claim_only_raise() {
    let facts = ChangeFacts::from_entries(vec![file("examples/a", 1, 0)]);
    let judge = |scope: &PhaseScope| judge_with(&facts, scope, &Window::default()).verdict;
    assert_eq!(judge(&PhaseScope::default()), Decision::AutoApproved);
    assert_eq!(judge(&PhaseScope { sandboxed: false, ..PhaseScope::default() }), Decision::ApprovalRequired);
    assert_eq!(
        judge(&PhaseScope { claimed_risk: Some(Severity::Low), ..PhaseScope::default() }),
        Decision::AutoApproved
    );
    assert_eq!(
        judge(&PhaseScope { claimed_risk: Some(Severity::High), ..PhaseScope::default() }),
        Decision::ApprovalRequired
    );
}

#[test]
fn every_part_of_a_subject_counts() {
    let digest = Policy::builtin().digest();
    let subject = Subject {
        repository: "demo".into(),
        target_ref: "refs/heads/autopack/r".into(),
        base: Oid::from_bytes([1; 20]),
        result_tree: Oid::from_bytes([2; 20]),
        policy: digest,
        anchor: None,
        run: Some("r".parse().unwrap()),
        phase: Some("p".parse().unwrap()),
        attempt: Some(1),
    };
    let others = [
        Subject { repository: "other".into(), ..subject.clone() },
        Subject { target_ref: "refs/heads/x".into(), ..subject.clone() },
        Subject { base: Oid::ZERO, ..subject.clone() },
        Subject { result_tree: Oid::ZERO, ..subject.clone() },
        Subject { anchor: Some(digest), ..subject.clone() },
        Subject { run: None, ..subject.clone() },
        Subject { phase: None, ..subject.clone() },
        Subject { attempt: Some(2), ..subject.clone() },
    ];
    for other in others {
        assert_ne!(other.digest(), subject.digest());
    }
}

const PATHS: &[&str] = &[
    "examples/a",
    "examples/b/c",
    "scripts/x.py",
    "scripts/d/e/f",
    "docs/a.md",
    "src/autopack/main.py",
    ".env",
    "README.md",
    "examples/frozen/a",
    "x:y",
    ".git/config",
];

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry =
        (0..PATHS.len(), 0_u64..260, 0_u64..260, any::<bool>()).prop_map(|(path, added, removed, executable)| {
            let mut entry = file(PATHS[path], added, removed);
            if executable && added % 7 == 0 {
                entry.new_mode = FileMode::EXECUTABLE;
            }
            entry
        });
    prop::collection::vec(entry, 1..8)
}

proptest! {
    #[test]
    fn adding_to_a_change_never_lowers_the_tier(entries in entries(), more in entries(), lines in 0_u64..300, spent in 0_u64..1200) {
        let window = Window(BTreeMap::from([(PathClass::Allowed, Spent { run_size: spent, project_24h_size: spent })]));
        let scope = PhaseScope::default();
        let strictness = |entries: Vec<Entry>| judge_with(&ChangeFacts::from_entries(entries), &scope, &window).verdict.strictness();
        let before = strictness(entries.clone());
        let mut longer = entries.clone();
        longer[0].added += lines;
        prop_assert!(strictness(longer) >= before);
        let mut wider = entries;
        wider.extend(more);
        prop_assert!(strictness(wider) >= before);
    }

    #[test]
    fn no_class_is_escaped_by_respelling(index in 0..8_usize, mask in any::<u32>()) {
        let respelt: String = PATHS[index]
            .chars()
            .enumerate()
            .flat_map(|(i, c)| match (mask >> (2 * (i % 16))) & 3 {
                1 => c.to_uppercase().collect::<Vec<_>>(),
                2 if c.is_ascii_lowercase() => char::from_u32(u32::from(c) - 0x61 + 0xff41).into_iter().collect(),
                3 if c == 's' => vec!['ſ'],
                _ => vec![c],
            })
            .collect();
        let before = judge(vec![file(PATHS[index], 1, 0)]).verdict.strictness();
        let after = judge(vec![file(&respelt, 1, 0)]).verdict.strictness();
        prop_assert_eq!(after, before, "{}", respelt);
    }
}

//! Tests of the plan: the table, the holes of the predecessor, budgets, builders.

use std::collections::BTreeMap;

use super::*;
use crate::domain::anchor::IntentionAnchorV2;
use crate::domain::gap::{Gap, GapReportV1, GapType, ReportHead, RiskClass};
use crate::domain::policy::Policy;
use crate::domain::project::ProjectConfig;

fn anchor(pivots: &str) -> IntentionAnchorV2 {
    let text = format!(
        r#"{{"format_version":"v2","project_id":"p","created_at":"2026-01-01T00:00:00Z",
        "raw_input_digest":"0123456789abcdef","pivot_intentions":{{{pivots}}}}}"#
    );
    IntentionAnchorV2::parse(&text).unwrap()
}

const NORMAL: &str = r#""safety_risk":{"risk_tolerance":"moderate"}"#;
const STRICT: &str = r#""safety_risk":{"risk_tolerance":"low"}"#;

fn gap(kind: GapType, targets: &[&str]) -> Gap {
    let paths: Vec<String> = targets.iter().map(|p| (*p).to_owned()).collect();
    let mut gap = Gap::new(kind, RiskClass::Medium, &paths);
    gap.evidence.file_paths.clone_from(&paths);
    gap.safe_remediation.target_paths = Some(paths);
    gap
}

fn report(gaps: Vec<Gap>) -> GapReportV1 {
    let head = ReportHead {
        project_id: "p".into(),
        run_id: "r".into(),
        generated_at: Timestamp::from_millis(0),
        digest: Some(Digest::of(b"tree").into()),
        workspace_state: vec![],
        notices: vec![],
    };
    GapReportV1::assemble(head, gaps)
}

fn plan_with(gaps: Vec<Gap>, anchor: &IntentionAnchorV2, toml: &str) -> PlanProposalV1 {
    let project = ProjectConfig::parse(toml, "autopack.toml").unwrap();
    let now = Timestamp::from_millis(1);
    let options = ProposeOptions { now, builders: &project.builders, first_build: false };
    propose(&report(gaps), anchor, &project.policy, &options)
}

/// Status and rule of the only action.
fn one(gap: Gap, anchor: &IntentionAnchorV2) -> (ApprovalStatus, String) {
    let mut plan = plan_with(vec![gap], anchor, "");
    assert_eq!(plan.actions.len(), 1);
    let action = plan.actions.remove(0);
    (action.approval_status, action.rule.unwrap())
}

const FREE: &str = r#""safety_risk":{"risk_tolerance":"moderate"},"scope_boundaries":{"allowed_write_roots":["notes","NOTES.md","OLD.md"],"protected_paths":["notes/kept"]}"#;

#[test]
fn the_table_of_kinds_and_profiles() {
    let row = |kind: GapType, profile: &str| {
        let roots = FREE.split_once(r#","scope"#).unwrap().1;
        let anchor = anchor(&format!(r#"{profile},"scope{roots}"#));
        let (status, rule) = one(gap(kind, &["notes/a.md"]), &anchor);
        format!("{status:?} {rule}")
    };
    let table: String = GapType::ALL
        .into_iter()
        .map(|kind| format!("{kind}: strict {}, normal {}\n", row(kind, STRICT), row(kind, NORMAL)))
        .collect();
    insta::assert_snapshot!(table);
}

#[test]
fn the_holes_of_the_predecessor_are_closed() {
    let anchor = anchor(FREE);
    let status = |targets: &[&str]| one(gap(GapType::RootClutter, targets), &anchor);
    assert_eq!(status(&["notes/a.md", "NOTES.md"]), (ApprovalStatus::AutoApproved, "auto_low_risk".into()));
    for (path, rule) in [
        (".git/config", "git_internal"),
        ("/abs", "unsafe_path"),
        ("./docs/x", "unsafe_path"),
        ("notes/../docs/y", "unsafe_path"),
        (".env", "path_never"),
        ("notes/.env.local", "path_never"),
        ("autopack.toml", "path_never"),
    ] {
        assert_eq!(status(&["notes/a.md", path]), (ApprovalStatus::Blocked, rule.into()), "{path}");
    }
    for (path, rule) in
        [("Docs/x", "path_protected"), ("src/thing.rs", "path_default_deny"), ("notes/kept/x.md", "anchor_protected")]
    {
        assert_eq!(status(&["notes/a.md", path]), (ApprovalStatus::RequiresApproval, rule.into()), "{path}");
    }
    // The predecessor looked at ten paths only.
    let many: Vec<String> = (0..5).map(|n| format!("notes/{n}.md")).chain(["docs/x".to_owned()]).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(status(&many).0, ApprovalStatus::RequiresApproval);
    assert_eq!(status(&[]), (ApprovalStatus::RequiresApproval, "no_target_paths".into()));
}

#[test]
fn what_the_gap_says_can_only_restrict() {
    let anchor = anchor(FREE);
    let mut blocking = gap(GapType::RootClutter, &["notes/a.md"]);
    blocking.blocks_autopilot = true;
    assert_eq!(one(blocking, &anchor).1, "gap_blocks_autopilot");
    let mut more = gap(GapType::RootClutter, &["notes/a.md"]);
    more.evidence.omitted_paths = 3;
    assert_eq!(one(more, &anchor).1, "more_targets");
}

#[test]
fn rules_of_the_anchor_restrict_first_and_allow_last() {
    let with = |safety: &str, rules: &str| {
        anchor(&format!(
            r#""safety_risk":{{"risk_tolerance":"moderate"{safety}}},"scope_boundaries":{{"allowed_write_roots":["notes"]}},
            "governance_review":{{"auto_approve_rules":[{rules}]}}"#
        ))
    };
    let rule = |conditions: &str| format!(r#"{{"rule_id":"r1","description":"d","conditions":[{conditions}]}}"#);
    let status = |safety: &str, rules: &str| one(gap(GapType::SotDuplicate, &["notes/a.md"]), &with(safety, rules));
    let asks = |rule: &str| (ApprovalStatus::RequiresApproval, rule.to_owned());
    assert_eq!(status("", ""), asks("default_deny"));
    assert_eq!(status("", &rule("")), asks("default_deny"), "a rule without a condition allows nothing");
    assert_eq!(status("", &rule(r#""file_delete""#)), asks("default_deny"), "an untyped condition allows nothing");
    let typed = rule(r#""action:file_delete","path:notes/**","risk<0.5""#);
    assert_eq!(status("", &typed), (ApprovalStatus::AutoApproved, "auto_rule".into()));
    assert_eq!(status("", &rule(r#""action:file_delete","path:lib/**""#)), asks("default_deny"));
    for entry in ["path:notes/*.md", "gap:sot_duplicate", "anything that touches users"] {
        let safety = format!(r#","requires_approval":["{entry}"]"#);
        assert_eq!(status(&safety, &typed), asks("anchor_requires_approval"), "{entry}");
    }
    assert_eq!(status(r#","requires_approval":["gap:doc_drift"]"#, &typed).0, ApprovalStatus::AutoApproved);
    let never = status(r#","never_allow":["path:notes/**"]"#, &typed);
    assert_eq!(never, (ApprovalStatus::Blocked, "never_allow".into()));
}

#[test]
fn budgets_block_ask_or_warn() {
    let with = |caps: &str| anchor(&format!(r#"{FREE},"budget_cost":{{{caps}}}"#));
    let gaps = || vec![gap(GapType::RootClutter, &["notes/a.md"]), gap(GapType::RootClutter, &["notes/b.md"])];
    let statuses = |caps: &str| {
        let plan = plan_with(gaps(), &with(caps), "");
        plan.actions.iter().map(|a| a.rule.clone().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(r#""token_cap_global":400"#), ["auto_low_risk", "auto_low_risk"]);
    let global = r#""token_cap_global":300,"cost_escalation_policy"#;
    assert_eq!(statuses(&format!(r#"{global}":"block""#)), ["auto_low_risk", "budget_block"]);
    assert_eq!(statuses(&format!(r#"{global}":"request_approval""#)), ["auto_low_risk", "budget_approval"]);
    assert_eq!(statuses(&format!(r#"{global}":"warn""#)), ["auto_low_risk", "auto_low_risk"]);
    assert_eq!(statuses(r#""token_cap_global":0"#), ["budget_approval", "budget_approval"], "a cap of 0 is a cap");
    assert_eq!(statuses(r#""token_cap_per_call":199"#), ["budget_approval", "budget_approval"]);
    assert_eq!(statuses(r#""time_cap_seconds":5"#), ["auto_low_risk", "budget_approval"]);
    let plan = plan_with(gaps(), &with(r#""token_cap_global":100"#), "");
    let budget = plan.governance_checks.budget_compliance.unwrap();
    assert!(!budget.within_global_cap && budget.within_per_call_cap);
    assert_eq!(budget.estimated_usage_pct, Some(100.0));
}

#[test]
fn a_first_build_is_never_automatic() {
    let builders = BTreeMap::new();
    let options = ProposeOptions { now: Timestamp::from_millis(1), builders: &builders, first_build: true };
    let gaps = report(vec![gap(GapType::RootClutter, &["notes/a.md"])]);
    let plan = propose(&gaps, &anchor(FREE), &Policy::builtin(), &options);
    assert_eq!(plan.actions[0].rule.as_deref(), Some("first_build"));
}

#[test]
fn nothing_is_automatic_in_a_repository_that_is_in_doubt() {
    let clutter = || gap(GapType::RootClutter, &["notes/a.md"]);
    assert_eq!(one(clutter(), &anchor(FREE)).0, ApprovalStatus::AutoApproved);
    let mut failed = gap(GapType::Unknown, &[]);
    failed.detection_signals = vec!["detector_failed: doc_drift".into()];
    for doubt in [gap(GapType::GitStateCorruption, &[]), failed] {
        let plan = plan_with(vec![doubt, clutter()], &anchor(FREE), "");
        let action = plan.actions.iter().find(|a| a.action_type == ActionType::FileMove).unwrap();
        assert_eq!(action.approval_status, ApprovalStatus::RequiresApproval);
        assert_eq!(action.rule.as_deref(), Some("repository_in_doubt"));
    }
}

#[test]
fn nothing_is_automatic_while_a_gap_blocks_automatic_work() {
    let mut blocking = gap(GapType::TestInfraDrift, &["notes/x"]);
    blocking.blocks_autopilot = true;
    let plan = plan_with(vec![blocking, gap(GapType::RootClutter, &["notes/a.md"])], &anchor(FREE), "");
    let action = plan.actions.iter().find(|a| a.action_type == ActionType::FileMove).unwrap();
    assert_eq!(action.approval_status, ApprovalStatus::RequiresApproval);
    assert_eq!(action.rule.as_deref(), Some("blocking_gap"));
}

#[test]
fn every_action_names_who_does_it_or_is_blocked() {
    let toml = "[builders.split]\nkind = \"command\"\nargv = [\"make\", \"split\"]\ngaps = [\"memory_budget_cap_issue\", \"root_clutter\"]\n";
    let mut large = gap(GapType::MemoryBudgetCapIssue, &["notes/large.md"]);
    large.safe_remediation.target_paths = None;
    let mut lock = gap(GapType::TestInfraDrift, &["notes/x"]);
    lock.safe_remediation.target_paths = None;
    let mut dirty = gap(GapType::RootClutter, &["notes/large.md", "NOTES.md"]);
    dirty.safe_remediation.uncommitted_paths = vec!["NOTES.md".into()];
    let plan = plan_with(vec![large, lock, dirty], &anchor(FREE), toml);
    let shown: Vec<_> = plan
        .actions
        .iter()
        .map(|a| (a.gap_type.unwrap().as_str(), a.builder.as_deref(), a.needs_commit, a.approval_status))
        .collect();
    assert_eq!(
        shown,
        [
            ("root_clutter", Some("remediation"), true, ApprovalStatus::AutoApproved),
            ("test_infra_drift", None, false, ApprovalStatus::Blocked),
            ("memory_budget_cap_issue", Some("command:split"), false, ApprovalStatus::RequiresApproval),
        ]
    );
    assert_eq!(plan.actions[1].rule.as_deref(), Some("unsupported"));
    assert_eq!(plan.actions[2].command.as_deref(), Some("make split"));
    assert_eq!(plan.actions[2].dependencies, [plan.actions[0].action_id.clone()], "they share a path");
    assert_eq!(plan.runnable().count(), 2);
    let s = plan.summary;
    assert_eq!(
        (s.total_actions, s.auto_approved_actions, s.requires_approval_actions, s.blocked_actions),
        (3, 1, 1, 1)
    );
}

#[test]
fn plans_have_full_digests_and_the_same_id_at_another_time() {
    let anchor = anchor(FREE);
    let plan = plan_with(vec![gap(GapType::RootClutter, &["notes/a.md", "config/x"])], &anchor, "");
    let later = PlanProposalV1 { generated_at: Timestamp::from_millis(99), ..plan.clone() };
    assert_eq!(plan.id(), later.id());
    assert_eq!(plan.id().len(), "plan-".len() + 64);
    assert_eq!(plan.anchor_id, format!("anchor-{}", anchor.digest().to_hex()));
    assert_eq!(plan.gap_report_id, Some(format!("gap-report-{}", Digest::of(b"tree").to_hex())));
    let id = Digest::of(format!("{}:file_move", plan.actions[0].target_gap_ids[0]).as_bytes()).to_hex();
    assert_eq!(plan.actions[0].action_id, format!("action-{}", &id[..12]));
    let checks = &plan.governance_checks.protected_path_checks;
    let checks: Vec<_> = checks.iter().map(|c| (c.path.as_str(), c.is_protected)).collect();
    assert_eq!(checks, [("notes/a.md", false), ("config/x", true)]);
    let json = serde_json::to_string(&plan).unwrap();
    assert!(json.starts_with(r#"{"format":"plan_proposal/1","format_version":"v1""#));
    assert_eq!(serde_json::from_str::<PlanProposalV1>(&json).unwrap(), plan);
}

#[test]
fn a_plan_of_the_predecessor_is_read() {
    let text = r#"{"format_version":"v1","project_id":"autopack","run_id":"R1","generated_at":"2026-01-01T00:00:00Z",
      "anchor_id":"anchor-0123456789abcdef","gap_report_id":"gap-report-0123456789ab","actions":[{"action_id":"action-0123456789ab",
      "action_type":"tidy_apply","target_gap_ids":["root_clutter-0123456789ab"],"risk_score":0.2,"risk_factors":["x"],
      "approval_status":"requires_approval","approval_reason":"r","target_paths":["a.md"],"command":"python -m tidy",
      "estimated_cost":{"tokens":200,"time_seconds":5},"dependencies":[],"rollback_strategy":"git restore"}],
      "summary":{"total_actions":1,"auto_approved_actions":0,"requires_approval_actions":1,"blocked_actions":0,
      "total_estimated_tokens":200,"total_estimated_time_seconds":5},"governance_checks":{"default_deny_applied":true,
      "never_auto_approve_violations":[],"protected_path_checks":[{"path":"a.md","is_protected":false,"action_id":"action-0123456789ab"}],
      "budget_compliance":{"within_global_cap":true,"within_per_call_cap":true,"estimated_usage_pct":0.5}},
      "metadata":{"proposer_version":"1.0.0","generation_duration_ms":3}}"#;
    assert_eq!(serde_json::from_str::<PlanProposalV1>(text).unwrap().actions.len(), 1);
}

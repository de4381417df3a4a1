//! Tests of the gap report: the predecessor's files are read, ours are stable.

use super::*;
use crate::domain::ids::Timestamp;

fn head() -> ReportHead {
    ReportHead {
        project_id: "p".into(),
        run_id: "r".into(),
        generated_at: Timestamp::from_millis(1_767_225_600_000),
        digest: Some(Digest::of(b"tree").into()),
        workspace_state: vec!["branch:main".into()],
        notices: vec![],
    }
}

#[test]
fn ids_do_not_depend_on_the_order_of_files() {
    let a = gap_id(GapType::RootClutter, &["b.md".into(), "a.md".into()]);
    let b = gap_id(GapType::RootClutter, &["a.md".into(), "b.md".into()]);
    assert_eq!(a, b);
    // SHA-256 of "root_clutter:a.md|b.md", as the predecessor computes it.
    assert_eq!(a, format!("root_clutter-{}", &Digest::of(b"root_clutter:a.md|b.md").to_hex()[..12]));
}

#[test]
fn every_kind_has_the_name_it_has_in_json() {
    for kind in GapType::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        assert_eq!(GapType::from_name(kind.as_str()), Some(kind));
    }
}

#[test]
fn a_report_of_the_predecessor_is_read() {
    let text = r#"{"format_version":"v1","project_id":"autopack","run_id":"R1","generated_at":"2026-01-01T00:00:00+00:00",
      "workspace_state_digest":"0123456789abcdef","gaps":[{"gap_id":"doc_drift-0123456789ab","gap_type":"doc_drift",
      "detection_signals":["Exit code: 1"],"evidence":{"file_paths":[],"test_names":[],"excerpts":[],
      "command_evidence":{"command":"python x","exit_code":1,"stdout_hash":"0123456789abcdef","stderr_excerpt":"no"}},
      "risk_classification":"medium","blocks_autopilot":false,
      "safe_remediation":{"approach":"run tidy","requires_approval":true,"estimated_actions":1}}],
      "summary":{"total_gaps":1,"critical_gaps":0,"high_gaps":0,"medium_gaps":1,"low_gaps":0,"autopilot_blockers":0},
      "metadata":{"scanner_version":"1.1.0","scan_duration_ms":12}}"#;
    let report: GapReportV1 = serde_json::from_str(text).unwrap();
    assert_eq!(report.gaps[0].gap_type, GapType::DocDrift);
    assert!(serde_json::from_str::<GapReportV1>(&text.replace("\"metadata\"", "\"extra\"")).is_err());
    assert!(serde_json::from_str::<GapReportV1>(&text.replace("0123456789abcdef\",\"gaps", "XYZ\",\"gaps")).is_err());
}

#[test]
fn gaps_are_ordered_worst_first_and_counted() {
    let gap = |kind, risk, file: &str| Gap::new(kind, risk, &[file.to_owned()]);
    let gaps = vec![
        gap(GapType::RootClutter, RiskClass::Medium, "a"),
        gap(GapType::Unknown, RiskClass::Info, "b"),
        gap(GapType::GitStateCorruption, RiskClass::Critical, "c"),
        gap(GapType::DbLockContention, RiskClass::High, "d"),
        gap(GapType::DbLockContention, RiskClass::High, "d"),
    ];
    let report = GapReportV1::assemble(head(), gaps);
    let kinds: Vec<_> = report.gaps.iter().map(|g| g.gap_type.as_str()).collect();
    assert_eq!(kinds, ["git_state_corruption", "db_lock_contention", "root_clutter", "unknown"]);
    let s = report.summary;
    assert_eq!((s.total_gaps, s.critical_gaps, s.high_gaps, s.medium_gaps, s.autopilot_blockers), (4, 1, 1, 1, 2));
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.starts_with(r#"{"format":"gap_report/1","format_version":"v1""#), "{json}");
    assert_eq!(serde_json::from_str::<GapReportV1>(&json).unwrap(), report);
}

#[test]
fn a_protected_path_makes_a_gap_block() {
    let mut gap = Gap::new(GapType::RootClutter, RiskClass::Medium, &["NOTES.md".into()]);
    gap.safe_remediation.target_paths = Some(vec!["NOTES.md".into(), "docs/notes/NOTES.md".into()]);
    let mut report = GapReportV1::assemble(head(), vec![gap]);
    assert_eq!(report.summary.autopilot_blockers, 0);
    report.block_protected(|path| path.starts_with("docs/"));
    assert_eq!(report.summary.autopilot_blockers, 1);
    assert_eq!(report.gaps[0].detection_signals, ["anchor_protected: docs/notes/NOTES.md"]);
    assert_eq!(report.gaps[0].risk_classification, RiskClass::Medium);
}

#[test]
fn previews_are_cut_and_disarmed() {
    let excerpt = Excerpt::new("a.md:1", &format!("\u{1b}[2J\u{202e}{}", "x".repeat(500)));
    let preview = excerpt.preview.unwrap();
    assert_eq!(preview.chars().count(), PREVIEW_CHARS);
    assert!(!preview.contains(['\u{1b}', '\u{202e}']));
}

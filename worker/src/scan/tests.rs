//! Tests of the scan on whole repositories: each kind of gap, sameness, and folders that are not as one would wish.

use autopack_shared::domain::gap::{GapType, RiskClass};

use super::fixture::{Fixture, LONG, options};
use super::*;

mod bad_input;

#[test]
fn a_clean_repository_has_no_gaps() {
    let report = Fixture::clean().scan();
    assert_eq!(report.gaps, []);
    assert!(report.metadata.workspace_state.contains(&"branch:main".to_owned()));
    assert_eq!(report.workspace_state_digest.unwrap().as_str().len(), 64);
}

/// One of everything.
fn everything() -> Fixture {
    let f = Fixture::with(&[
        ("docs/guide/setup.md", "# Setup\n"),
        ("docs/a.md", "[s](old/setup.md) [gone](nowhere.md) [ok](guide/) [w](https://x.org/y.md)\n"),
        ("NOTES.md", "see [readme](README.md)\n"),
        ("scratch.log", "x\n"),
        ("GUIDE.md", LONG),
        ("docs/GUIDE.md", LONG),
        ("src/merge.py", "<<<<<<< a\n1\n=======\n2\n>>>>>>> b\n"),
        ("docs/huge.md", &"word ".repeat(30_000)),
        (".gitignore", ".pytest_cache/\n*.db-lock\n"),
    ]);
    f.write("src/latin.py", b"# caf\xe9\n");
    f.write("src/unclear.txt", b"\xcf\xf0\xe8\xe2\xe5\xf2\n");
    f.git(&["rm", "-q", "--cached", "config/baseline_policy.yaml"]);
    std::fs::remove_file(f.path("config/baseline_policy.yaml")).unwrap();
    f.commit();
    f.write(".pytest_cache/v/cache/lastfailed", r#"{"tests/test_a.py::test_x": true}"#);
    f.write("autopack.db-lock", "");
    f.write("docs/a.md", "[s](old/setup.md) [gone](nowhere.md) changed\n");
    f.write("MERGE_NOTE.txt", "untracked\n");
    std::fs::write(f.path(".git/refs/heads/broken"), format!("{}\n", "1".repeat(40))).unwrap();
    f
}

#[test]
fn every_kind_of_gap_is_found() {
    let f = everything();
    let report = f.scan();
    let of = |kind: GapType| report.gaps.iter().filter(|g| g.gap_type == kind).collect::<Vec<_>>();
    for kind in GapType::ALL {
        assert!(!of(kind).is_empty(), "{kind}");
    }
    let paths = |kind| of(kind).iter().map(|g| g.evidence.file_paths.clone()).collect::<Vec<_>>();
    assert_eq!(paths(GapType::RootClutter), [["MERGE_NOTE.txt", "NOTES.md", "scratch.log"]]);
    assert_eq!(paths(GapType::SotDuplicate), [["docs/GUIDE.md", "GUIDE.md"]]);
    assert_eq!(paths(GapType::DocDrift), [["docs/a.md"], ["docs/a.md"]]);
    assert_eq!(paths(GapType::ProtectedPathViolation), [["docs/a.md"]]);
    assert_eq!(paths(GapType::MemoryBudgetCapIssue), [["docs/huge.md"]]);
    assert_eq!(paths(GapType::Unknown), [["src/merge.py"]]);
    assert_eq!(of(GapType::TestInfraDrift)[0].evidence.test_names, ["tests/test_a.py::test_x"]);
    assert_eq!(report.gaps[0].gap_type, GapType::GitStateCorruption);
    assert_eq!(report.gaps[0].risk_classification, RiskClass::Critical);
    let encoding = paths(GapType::WindowsEncodingIssue);
    assert!(encoding.contains(&vec!["src/latin.py".to_owned()]), "{encoding:?}");
    assert!(encoding.contains(&vec!["src/unclear.txt".to_owned()]), "{encoding:?}");
}

#[test]
fn two_scans_of_one_tree_are_the_same_bytes() {
    let f = everything();
    let json = |threads| {
        let mut options = options();
        options.limits.threads = threads;
        options.deep = true;
        serde_json::to_string_pretty(&f.scan_with(&options)).unwrap()
    };
    let first = json(1);
    for threads in [1, 2, 7] {
        assert_eq!(first, json(threads));
    }
    let report: GapReportV1 = serde_json::from_str(&first).unwrap();
    let lines = report.gaps.iter().map(|gap| {
        let title = gap.title.as_deref().unwrap_or_default();
        let targets = gap.safe_remediation.target_paths.as_ref().map_or("-".to_owned(), |t| t.join(" "));
        let signals = gap.detection_signals.join("; ");
        let risk = gap.risk_classification;
        format!(
            "{}\n  {risk:?} blocks={} {title}\n  {signals}\n  targets: {targets}\n",
            gap.gap_id, gap.blocks_autopilot
        )
    });
    insta::assert_snapshot!(lines.collect::<String>());
}

#[test]
fn a_scan_writes_nothing() {
    let f = everything();
    let snapshot = || {
        let list = std::process::Command::new("find").arg(f.root()).args(["-printf", "%p %s %T@ %m\n"]).output();
        list.unwrap().stdout
    };
    let before = snapshot();
    let mut deep = options();
    deep.deep = true;
    f.scan_with(&deep);
    assert_eq!(String::from_utf8_lossy(&before), String::from_utf8_lossy(&snapshot()));
}

#[test]
fn what_a_remediation_takes_is_complete_or_counted() {
    let files: Vec<(String, &str)> = (0..60).map(|n| (format!("NOTE-{n:02}.md"), "x\n")).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), *t)).collect();
    let gap = Fixture::with(&files).gap(GapType::RootClutter);
    assert_eq!(gap.evidence.file_paths.len(), 50);
    assert_eq!(gap.evidence.omitted_paths, 10);
    assert_eq!(gap.safe_remediation.target_paths.unwrap().len(), 100);
    assert!(gap.detection_signals.contains(&"truncated: 50 of 60 are listed".to_owned()));
}

#[test]
fn specimens_ignored_files_and_files_in_use_are_left_alone() {
    let f = Fixture::with(&[
        (".gitignore", "*.log\nprivate/\n"),
        ("tests/fixtures/broken.md", "[x](nowhere.md)\n"),
        ("vendor/lib/copy.md", LONG),
        ("lib/copy.md", LONG),
        ("DESCRIPTION.md", "x\n"),
        ("setup.cfg", "long_description = file: DESCRIPTION.md\n"),
    ]);
    f.write("tests/fixtures/latin.py", b"\xe9\n");
    f.write("legacy.py", b"# -*- coding: latin-1 -*-\nx = '\xe9'\n");
    f.write("out.log", "x\n");
    f.write("private/a.md", "[x](nowhere.md)\n");
    assert_eq!(f.scan().gaps, []);
}

#[test]
fn since_keeps_what_changed() {
    let f = Fixture::with(&[("OLD.md", "x\n"), ("docs/a.md", "[x](gone.md) [y](../later.md)\n"), ("later.md", "x\n")]);
    let base: Oid = f.git(&["rev-parse", "HEAD"]).parse().unwrap();
    f.write("NEW.md", "x\n");
    f.git(&["rm", "-q", "later.md"]);
    f.commit();
    let mut options = options();
    options.since = Some(base);
    let report = f.scan_with(&options);
    let told: Vec<_> =
        report.gaps.iter().map(|g| (g.gap_type, g.evidence.excerpts.len(), &g.evidence.file_paths)).collect();
    let (new, drift) = (vec!["NEW.md".to_owned()], vec!["docs/a.md".to_owned()]);
    assert_eq!(told, [(GapType::DocDrift, 1, &drift), (GapType::RootClutter, 0, &new)]);
    options.since = Some(Oid::from_bytes([9; 20]));
    assert_eq!(scan(f.root(), &options).unwrap_err().reason(), "not_found");
}

#[test]
fn a_strict_anchor_makes_gaps_on_its_paths_block() {
    let f = Fixture::with(&[("NOTES.md", "x\n")]);
    let anchor = |tolerance: &str| {
        let text = format!(
            r#"{{"format_version":"v2","project_id":"p","created_at":"2026-01-01T00:00:00Z","raw_input_digest":"0123456789abcdef",
            "pivot_intentions":{{"safety_risk":{{"risk_tolerance":"{tolerance}"}},"scope_boundaries":{{"protected_paths":["docs/"]}}}}}}"#
        );
        IntentionAnchorV2::parse(&text).unwrap()
    };
    for (tolerance, blocks) in [("low", true), ("moderate", false)] {
        let mut options = options();
        options.anchor = Some(anchor(tolerance));
        let report = f.scan_with(&options);
        assert_eq!(report.gaps[0].blocks_autopilot, blocks, "{tolerance}");
        assert_eq!(report.summary.autopilot_blockers, u64::from(blocks));
    }
}

#[test]
fn uncommitted_files_of_a_gap_are_named() {
    let f = Fixture::with(&[("NOTES.md", "x\n")]);
    f.write("FRESH.md", "x\n");
    let gap = f.gap(GapType::RootClutter);
    assert_eq!(gap.safe_remediation.uncommitted_paths, ["FRESH.md"]);
}

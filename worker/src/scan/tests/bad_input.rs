//! Tests of the scan on folders that are not as one would wish.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use autopack_shared::domain::gap::{GapReportV1, GapType, RiskClass};

use crate::scan::fixture::{Fixture, options};
use crate::scan::scan;

fn reason(path: &Path) -> &'static str {
    scan(path, &options()).unwrap_err().reason()
}

fn state(report: &GapReportV1) -> String {
    report.metadata.workspace_state.join(" ")
}

#[test]
fn folders_without_a_tree_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(reason(dir.path()), "not_a_repository");
    assert_eq!(reason(&dir.path().join("missing")), "not_a_repository");
    let f = Fixture::clean();
    f.git(&["clone", "-q", "--bare", ".", "bare.git"]);
    assert_eq!(reason(&f.path("bare.git")), "bare_repository");
    f.git(&["init", "-q", "empty"]);
    assert_eq!(reason(&f.path("empty")), "empty_repository");
    assert_eq!(reason(&f.path("config")), "not_a_repository");
}

#[test]
fn detached_and_shallow_checkouts_work_and_say_so() {
    let f = Fixture::with(&[("a.py", "x\n")]);
    f.git(&["checkout", "-q", "--detach"]);
    let report = f.scan();
    assert!(state(&report).contains("detached_head:"), "{report:?}");
    assert_eq!(report.gaps, []);
    let url = format!("file://{}", f.root().display());
    let outside = tempfile::tempdir().unwrap();
    let to = outside.path().join("shallow");
    f.git(&["clone", "-q", "--depth", "1", &url, to.to_str().unwrap()]);
    let mut deep = options();
    deep.deep = true;
    let report = scan(&to, &deep).unwrap();
    assert!(state(&report).contains("shallow"), "{report:?}");
    assert_eq!(report.gaps, []);
}

#[test]
fn a_merge_in_progress_blocks() {
    let f = Fixture::with(&[("a.py", "1\n")]);
    f.git(&["checkout", "-q", "-b", "other"]);
    f.write("a.py", "2\n");
    f.commit();
    f.git(&["checkout", "-q", "main"]);
    f.write("a.py", "3\n");
    f.commit();
    assert!(!f.git_may_fail(&["merge", "other"]).status.success());
    let gap = f.gap(GapType::GitStateCorruption);
    assert!(gap.blocks_autopilot);
    assert_eq!(gap.evidence.file_paths, ["a.py"]);
    assert_eq!(gap.detection_signals, ["in_progress: merge"]);
    assert!(state(&f.scan()).contains("in_progress:merge"));
}

#[test]
fn a_damaged_index_is_a_gap_and_so_are_the_detectors_it_stops() {
    let f = Fixture::with(&[("NOTES.md", "x\n")]);
    fs::write(f.path(".git/index"), "garbage").unwrap();
    let report = f.scan();
    assert!(report.gaps.iter().all(|g| g.blocks_autopilot), "{report:#?}");
    assert_eq!(report.gaps[0].gap_type, GapType::GitStateCorruption);
    assert_eq!(report.gaps[0].risk_classification, RiskClass::Critical);
    let failed = |g: &&autopack_shared::domain::gap::Gap| g.detection_signals[0].starts_with("detector_failed: ");
    assert!(report.gaps.iter().filter(failed).count() > 5);
    assert_eq!(report.workspace_state_digest, None);
}

#[test]
fn submodules_are_named_and_not_entered() {
    let inner = Fixture::with(&[("BROKEN.md", "[x](nowhere.md)\n")]);
    let f = Fixture::with(&[("docs/a.md", "[in](../sub/anything.md)\n")]);
    f.git(&["submodule", "add", "-q", inner.root().to_str().unwrap(), "sub"]);
    f.commit();
    let report = f.scan();
    assert_eq!(report.gaps, []);
    assert!(state(&report).contains("submodules:1"));
    assert_eq!(report.metadata.notices, ["1 submodule(s) were not entered"]);
    let before = report.workspace_state_digest;
    fs::write(f.path("sub/new.md"), "x").unwrap();
    f.git(&["-C", "sub", "commit", "-q", "--allow-empty", "-m", "y"]);
    assert_ne!(before, f.scan().workspace_state_digest);
}

#[test]
fn a_repository_that_cannot_be_written_is_scanned() {
    let f = Fixture::with(&[("NOTES.md", "x\n")]);
    let modes = |mode: &str| {
        assert!(std::process::Command::new("chmod").args(["-R", mode]).arg(f.root()).status().unwrap().success());
    };
    modes("a-w");
    let gaps = f.gaps(GapType::RootClutter);
    modes("u+w");
    assert_eq!(gaps.len(), 1);
}

#[test]
fn names_that_are_not_utf8_are_shown_escaped_and_never_targets() {
    let f = Fixture::clean();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.md");
    fs::write(f.root().join(name), b"\xe9\n").unwrap();
    f.commit();
    let gaps = f.gaps(GapType::WindowsEncodingIssue);
    assert_eq!(gaps.len(), 2, "{gaps:#?}");
    for gap in gaps {
        assert_eq!(gap.evidence.file_paths, ["caf\\xe9.md"]);
        assert_eq!(gap.safe_remediation.target_paths, None);
    }
    assert_eq!(f.gaps(GapType::RootClutter), []);
}

#[test]
fn links_out_of_the_tree_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.md"), b"[x](nowhere.md) \xe9\n").unwrap();
    let f = Fixture::clean();
    symlink(outside.path().join("secret.md"), f.path("link.md")).unwrap();
    symlink(outside.path(), f.path("folder")).unwrap();
    f.commit();
    symlink(outside.path().join("secret.md"), f.path("new.md")).unwrap();
    assert_eq!(f.scan().gaps, []);
    // A tracked file whose folder was swapped for a link.
    let f = Fixture::with(&[("sub/secret.md", "fine\n")]);
    fs::remove_dir_all(f.path("sub")).unwrap();
    symlink(outside.path(), f.path("sub")).unwrap();
    assert_eq!(f.gaps(GapType::WindowsEncodingIssue), []);
    assert_eq!(f.gaps(GapType::DocDrift), []);
}

#[test]
fn a_large_file_is_streamed() {
    let f = Fixture::clean();
    let file = fs::File::create(f.path("docs.txt")).unwrap();
    file.set_len(100 << 20).unwrap();
    f.write("docs/large.md", "[x](nowhere.md)\n".repeat(300_000));
    f.commit();
    let report = f.scan();
    assert!(report.metadata.notices[0].starts_with("2 file(s) above"), "{:?}", report.metadata);
    let kinds: Vec<_> = report.gaps.iter().map(|g| g.gap_type).collect();
    assert_eq!(kinds, [GapType::RootClutter, GapType::MemoryBudgetCapIssue]);
}

#[test]
fn a_nested_repository_is_not_entered() {
    let f = Fixture::clean();
    f.git(&["init", "-q", "nested"]);
    f.write("nested/BROKEN.md", "[x](nowhere.md)\n");
    assert_eq!(f.scan().gaps, []);
}

#[test]
fn damage_in_history_is_found_by_a_deep_scan_only() {
    let f = Fixture::with(&[("a.py", "1\n")]);
    let old = f.git(&["rev-parse", "HEAD:a.py"]);
    f.write("a.py", "2\n");
    f.commit();
    fs::remove_file(f.path(&format!(".git/objects/{}/{}", &old[..2], &old[2..]))).unwrap();
    assert_eq!(f.scan().gaps, []);
    let mut deep = options();
    deep.deep = true;
    let report = f.scan_with(&deep);
    assert_eq!(report.gaps.len(), 1);
    assert!(report.gaps[0].detection_signals[0].contains(&old));
}

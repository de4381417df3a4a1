//! Tests of the remediations on real files: the gap is gone afterwards, links still lead where they led, and nothing
//! outside the plan was touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;
use crate::scan::fixture::{Fixture, LONG};

/// Mends the only gap of a kind and checks that it is gone and that only planned paths changed.
fn mend(f: &Fixture, kind: GapType) -> RemediationReport {
    let mut gaps = f.gaps(kind);
    gaps.retain(Gap::has_remediation);
    assert_eq!(gaps.len(), 1, "{gaps:#?}");
    let gap = &gaps[0];
    let before = contents(f);
    let report = remediate(f.root(), &RemediationTask::of(gap).unwrap()).unwrap();
    assert_eq!(changed(&before, &contents(f)), report.changed);
    assert!(report.changed.iter().all(|path| planned_paths(gap).contains(path)), "{report:?}");
    f.commit();
    let left: Vec<_> = f.gaps(kind).into_iter().filter(Gap::has_remediation).collect();
    assert_eq!(left, []);
    report
}

/// Every file with its bytes.
fn contents(f: &Fixture) -> BTreeMap<String, Vec<u8>> {
    fn walk(folder: &Path, prefix: &str, all: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() && name != ".git" {
                walk(&entry.path(), &format!("{name}/"), all);
            } else if kind.is_file() {
                all.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(f.root(), "", &mut all);
    all
}

fn changed(old: &BTreeMap<String, Vec<u8>>, new: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut names: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    names.sort();
    names.dedup();
    names.retain(|name| old.get(name) != new.get(name));
    names
}

#[test]
fn clutter_is_moved_and_every_link_follows() {
    let f = Fixture::with(&[
        ("NOTES.md", "[r](README.md) [p](PLAN.md#next) [g](docs/guide.md) ![i](img/a%20b.png)\n"),
        ("PLAN.md", "plain\n"),
        ("docs/guide.md", "[n](../NOTES.md) and [p][ref]\n\n[ref]: ../PLAN.md\n\n`[n](../NOTES.md)`\n"),
        ("docs/notes/PLAN.md", "another plan\n"),
        ("run.log", "out\n"),
        ("img/a b.png", "x"),
    ]);
    f.write("README.md", "[n](NOTES.md) <a href=\"./PLAN.md\">p</a>\n");
    f.commit();
    let report = mend(&f, GapType::RootClutter);
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(f.read("README.md"), "[n](docs/notes/NOTES.md) <a href=\"docs/notes/PLAN-2.md\">p</a>\n");
    let notes = "[r](../../README.md) [p](PLAN-2.md#next) [g](../guide.md) ![i](../../img/a%20b.png)\n";
    assert_eq!(f.read("docs/notes/NOTES.md"), notes);
    let guide = "[n](notes/NOTES.md) and [p][ref]\n\n[ref]: notes/PLAN-2.md\n\n`[n](../NOTES.md)`\n";
    assert_eq!(f.read("docs/guide.md"), guide);
    assert_eq!(f.read("docs/notes/PLAN.md"), "another plan\n");
    assert_eq!(f.read("docs/notes/run.log"), "out\n");
    assert_eq!(f.gaps(GapType::DocDrift), []);
}

#[test]
fn copies_are_removed_and_links_lead_to_the_one_that_stays() {
    let f = Fixture::with(&[
        ("GUIDE.md", LONG),
        ("docs/GUIDE.md", LONG),
        ("old/GUIDE.md", LONG),
        ("docs/a.md", "[root](../GUIDE.md#x) [old](../old/GUIDE.md) [kept](GUIDE.md)\n"),
    ]);
    mend(&f, GapType::SotDuplicate);
    assert!(!f.path("GUIDE.md").exists() && !f.path("old").exists());
    assert_eq!(f.read("docs/GUIDE.md"), LONG);
    assert_eq!(f.read("docs/a.md"), "[root](GUIDE.md#x) [old](GUIDE.md) [kept](GUIDE.md)\n");
}

#[test]
fn copies_that_were_edited_since_stay() {
    let f = Fixture::with(&[("GUIDE.md", LONG), ("docs/GUIDE.md", LONG)]);
    let gap = f.gap(GapType::SotDuplicate);
    f.write("GUIDE.md", "edited\n");
    let error = remediate(f.root(), &RemediationTask::of(&gap).unwrap()).unwrap_err();
    assert_eq!(error.reason(), "nothing_to_do");
    assert_eq!(f.read("GUIDE.md"), "edited\n");
}

#[test]
fn text_becomes_utf8_and_keeps_its_lines_and_mode() {
    let f = Fixture::clean();
    f.write("a.py", b"# caf\xe9 \x80\r\nx = 1\n");
    let utf16 = "é\r\n".encode_utf16().flat_map(u16::to_le_bytes);
    f.write("docs/b.md", [0xff, 0xfe].into_iter().chain(utf16).collect::<Vec<u8>>());
    f.write("unclear.py", b"caf\xc3\xa9 caf\xe9\n");
    f.git(&["config", "core.fileMode", "true"]);
    f.git(&["add", "-A"]);
    f.git(&["update-index", "--chmod=+x", "a.py"]);
    f.git(&["commit", "-q", "-m", "x"]);
    f.git(&["checkout", "-q", "--", "a.py"]);
    let report = mend(&f, GapType::WindowsEncodingIssue);
    assert_eq!(report.changed, ["a.py", "docs/b.md"]);
    assert_eq!(f.read("a.py"), "# café €\r\nx = 1\n");
    assert_eq!(f.read("docs/b.md"), "é\r\n");
    assert!(f.git(&["ls-files", "-s", "a.py"]).starts_with("100755"));
}

#[test]
fn links_with_a_certain_target_are_repaired_and_the_others_stay() {
    let f = Fixture::with(&[
        ("docs/guide/setup.md", "x\n"),
        ("docs/a/same.md", "1\n"),
        ("docs/b/same.md", "2\n"),
        ("docs/index.md", "[s](setup.md#install \"t\") [d](<same.md>) [n](nothing.md) [ok](guide/setup)\n"),
    ]);
    mend(&f, GapType::DocDrift);
    let want = "[s](guide/setup.md#install \"t\") [d](<same.md>) [n](nothing.md) [ok](guide/setup)\n";
    assert_eq!(f.read("docs/index.md"), want);
    assert_eq!(f.gap(GapType::DocDrift).detection_signals, ["broken_links_undecided: 2"]);
}

#[test]
fn the_baseline_policy_is_written_once() {
    let f = Fixture::clean();
    fs::remove_file(f.path("config/baseline_policy.yaml")).unwrap();
    f.commit();
    let gap = f.gap(GapType::BaselinePolicyDrift);
    mend(&f, GapType::BaselinePolicyDrift);
    assert!(f.read(BASELINE_POLICY).starts_with("# Baseline policy"));
    let again = remediate(f.root(), &RemediationTask::of(&gap).unwrap()).unwrap_err();
    assert_eq!(again.reason(), "nothing_to_do");
}

#[test]
fn kinds_without_a_remediation_are_unsupported() {
    let f = Fixture::clean();
    for kind in GapType::ALL.into_iter().filter(|kind| !is_supported(*kind)) {
        let task = RemediationTask { gap_type: kind, gap_id: "x".into(), subjects: vec![], scope: vec![] };
        assert_eq!(remediate(f.root(), &task).unwrap_err().reason(), "unsupported", "{kind}");
    }
}

#[test]
fn a_plan_that_no_longer_fits_changes_nothing() {
    let f = Fixture::with(&[("NOTES.md", "x\n"), ("docs/a.md", "x\n")]);
    let gap = f.gap(GapType::RootClutter);
    f.write("docs/a.md", "[n](../NOTES.md)\n");
    let before = contents(&f);
    let error = remediate(f.root(), &RemediationTask::of(&gap).unwrap()).unwrap_err();
    assert!(matches!(error, RemediationError::OutOfScope { ref path } if path == "docs/a.md"), "{error:?}");
    assert_eq!(before, contents(&f));
}

#[test]
fn nothing_is_written_through_a_link() {
    let outside = tempfile::tempdir().unwrap();
    let f = Fixture::with(&[("NOTES.md", "x\n")]);
    let gap = f.gap(GapType::RootClutter);
    symlink(outside.path(), f.path("docs")).unwrap();
    let error = remediate(f.root(), &RemediationTask::of(&gap).unwrap()).unwrap_err();
    assert_eq!(error.reason(), "io");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(f.path("NOTES.md").exists());
}

/// Small trees of documents that link to each other in every way.
fn trees() -> impl Strategy<Value = Vec<(String, String)>> {
    const NAMES: [&str; 9] = [
        "NOTES.md",
        "PLAN.md",
        "x.log",
        "docs/NOTES.md",
        "docs/a.md",
        "docs/notes/PLAN.md",
        "lib/b.md",
        "lib/a b.md",
        "old.txt",
    ];
    let link = (prop::sample::select(&NAMES[..]), prop::sample::select(vec!["", "../", "docs/", "gone/"]))
        .prop_map(|(name, up)| format!("[l]({up}{}) ", name.replace(' ', "%20")));
    let body = prop_oneof![Just(LONG.to_owned()), prop::collection::vec(link, 0..5).prop_map(|l| l.concat())];
    prop::collection::btree_map(prop::sample::select(&NAMES[..]), body, 1..8)
        .prop_map(|m| m.into_iter().map(|(n, b)| (n.to_owned(), b)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_remediation_touches_planned_paths_only_and_breaks_no_link(tree in trees()) {
        let files: Vec<(&str, &str)> = tree.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        let f = Fixture::with(&files);
        let broken = |f: &Fixture| -> u64 {
            f.gaps(GapType::DocDrift).iter().filter_map(|g| g.safe_remediation.estimated_actions).sum()
        };
        for gap in f.scan().gaps.iter().filter(|g| g.has_remediation()) {
            let (before, were) = (contents(&f), broken(&f));
            let result = remediate(f.root(), &RemediationTask::of(gap).unwrap());
            let touched = changed(&before, &contents(&f));
            prop_assert!(touched.iter().all(|path| planned_paths(gap).contains(path)), "{touched:?} {gap:?}");
            prop_assert!(result.is_ok() , "{result:?} {gap:?}");
            prop_assert!(broken(&f) <= were);
            f.git(&["reset", "-q", "--hard"]);
            f.git(&["clean", "-q", "-fdx"]);
        }
    }
}

//! The playground has exactly the faults that its page promises, so that the demo has something to mend.

use std::fs;
use std::path::Path;
use std::process::Command;

use autopack_shared::domain::gap::{Gap, GapType};
use autopack_shared::domain::ids::{ProjectId, RunId, Timestamp};
use autopack_worker::scan::{ScanOptions, scan};

use crate::house_rules::source::root;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder can be written");
    for entry in fs::read_dir(from).expect("the playground is there") {
        let entry = entry.expect("the playground can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a temporary folder can be written");
        }
    }
}

fn git(root: &Path, arguments: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    let status = Command::new("git").current_dir(root).args(identity).args(arguments).status();
    assert!(status.is_ok_and(|status| status.success()), "git {arguments:?}");
}

#[test]
fn the_playground_has_three_faults_that_can_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    copy(&root().join("examples/playground"), &dir.path().join("examples/playground"));
    fs::create_dir_all(dir.path().join("config")).unwrap();
    fs::write(dir.path().join("config/baseline_policy.yaml"), "version: 1\n").unwrap();
    git(dir.path(), &["init", "-q"]);
    git(dir.path(), &["add", "-A"]);
    git(dir.path(), &["commit", "-q", "-m", "playground"]);
    let options = ScanOptions::new(
        RunId::new("playground").unwrap(),
        ProjectId::new("playground").unwrap(),
        Timestamp::from_millis(1_767_225_600_000),
    );
    let gaps = scan(dir.path(), &options).unwrap().gaps;
    let mut kinds: Vec<GapType> = gaps.iter().map(|gap| gap.gap_type).collect();
    kinds.sort_by_key(ToString::to_string);
    assert_eq!(kinds, [GapType::DocDrift, GapType::SotDuplicate, GapType::WindowsEncodingIssue], "{gaps:#?}");
    let targets = |gap: &Gap| gap.safe_remediation.target_paths.clone().unwrap_or_default();
    let outside = |path: &String| !path.starts_with("examples/playground/");
    assert!(gaps.iter().all(|gap| !targets(gap).is_empty() && !targets(gap).iter().any(outside)), "{gaps:#?}");
}

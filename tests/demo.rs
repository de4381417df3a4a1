//! The first command of the README: the whole product on a scratch clone, from start to end.

use crate::harness::Bench;

#[test]
fn the_demo_shows_every_outcome_and_leaves_its_source_alone() {
    let bench = Bench::with(&[("README.md", "# Shop\n"), ("docs/guide.md", "# Guide\n")]);
    let head = std::fs::read(bench.repo().join(".git/refs/heads/main")).unwrap();
    let ran = bench.run(&["demo", "--yes"]).expect(0);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    for outcome in ["AUTO_APPROVED", "NOTIFY_AND_PROCEED", "APPROVAL_REQUIRED", "BLOCKED", "ROLLED_BACK", "whole: "] {
        assert!(told.contains(outcome), "{outcome} in\n{told}");
    }
    assert!(told.contains("What happened") && told.contains("On your own repository"), "{told}");
    assert_eq!(std::fs::read(bench.repo().join(".git/refs/heads/main")).unwrap(), head);
    assert!(!bench.repo().join(".autonomous_runs").exists() && !bench.repo().join("autopack.toml").exists());
}

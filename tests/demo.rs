//! The first command of the README: the whole product on a scratch clone, from start to end.

use crate::harness::Bench;

#[test]
fn the_demo_shows_every_outcome_and_leaves_its_source_alone() {
    let bench = Bench::with(&[("README.md", "# Shop\n"), ("docs/guide.md", "# Guide\n")]);
    let head = std::fs::read(bench.repo().join(".git/refs/heads/main")).unwrap();
    // What is set for the person's own repository is not for the scratch clone.
    let data = bench.path().join("elsewhere");
    let env = [("AUTOPACK_DATA_DIR", data.to_str().unwrap()), ("AUTOPACK_WORKER_SLOTS", "1")];
    let ran = bench.run_in(&bench.repo(), &["demo", "--yes"], &env).expect(0);
    assert!(!data.exists());
    let told = format!("{}{}", ran.stdout, ran.stderr);
    for outcome in ["AUTO_APPROVED", "NOTIFY_AND_PROCEED", "APPROVAL_REQUIRED", "BLOCKED", "ROLLED_BACK", "whole: "] {
        assert!(told.contains(outcome), "{outcome} in\n{told}");
    }
    let (_, ending) = told.split_once("What happened").unwrap();
    for line in [
        "tier 1  outcomes/small, a small note where notes may be written: applied by itself [AUTO_APPROVED, APPLIED]",
        "tier 2  outcomes/many, six notes at once: applied, and you were told [NOTIFY_AND_PROCEED, APPLIED]",
        "was applied [APPROVAL_REQUIRED, APPLIED]",
        "tier 4  outcomes/secrets, a file that should not be here: blocked (",
        "tier 1  red-gate/fault, a note that breaks the project's rule: applied, then rolled back by a new commit (",
        "On your own repository",
    ] {
        assert!(ending.contains(line), "{line} in\n{ending}");
    }
    assert_eq!(std::fs::read(bench.repo().join(".git/refs/heads/main")).unwrap(), head);
    assert!(!bench.repo().join(".autonomous_runs").exists() && !bench.repo().join("autopack.toml").exists());
}

#[test]
fn nobody_decides_where_there_is_no_terminal() {
    let bench = Bench::with(&[("README.md", "# Shop\n")]);
    let ran = bench.run(&["-q", "demo"]).expect(4);
    assert!(ran.stderr.contains("go on with: autopack demo --yes") && ran.stdout.is_empty(), "{ran:?}");
}

//! Programs of the operator's as builders of an autopilot run: from `autopack.toml` to the run's history.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::harness::{Bench, SITE};

/// A repository with one gap, a link whose target nobody can guess, and a builder that takes it.
fn site(builder: &str) -> Bench {
    let bench = Bench::with(SITE);
    std::fs::remove_file(bench.repo().join("NOTES-old.md")).unwrap();
    bench.write("examples/page.md", "# Page\n\nSee [it](nowhere.md).\n");
    let policy = "[policy]\nextends = \"autopack\"\n\n[builders.mend]\nkind = \"command\"\ngaps = [\"doc_drift\"]\n";
    bench.write("autopack.toml", &format!("{policy}{builder}\n"));
    bench.commit("a builder");
    bench
}

/// The one phase of the run `k`, after a command that ends so.
fn phase(bench: &Bench, code: i32) -> Value {
    let run = ["autopilot", "run", "--enable", "--no-wait", "--insecure-no-sandbox", "--run-id", "k", "-o", "json"];
    let ended = bench.run(&run).expect(code).json();
    assert_eq!(ended["run"]["phases"].as_array().unwrap().len(), 1, "{ended}");
    ended["run"]["phases"][0].clone()
}

fn reason(phase: &Value) -> &str {
    phase["reason"].as_str().unwrap_or_else(|| panic!("{phase}"))
}

#[test]
fn its_entry_bounds_the_time_of_a_builder() {
    let bench = site("argv = [\"sleep\", \"600\"]\ntimeout_seconds = 1");
    let phase = phase(&bench, 1);
    assert!(reason(&phase).contains("still running after 1 s"), "{phase}");
}

#[test]
fn a_builder_that_changes_nothing_has_done_nothing() {
    let bench = site("argv = [\"true\"]");
    let phase = phase(&bench, 1);
    assert_eq!((phase["state"].as_str(), phase["attempt"].as_u64()), (Some("FAILED"), Some(5)), "{phase}");
    assert!(reason(&phase).starts_with("nothing_done: "), "{phase}");
}

#[test]
fn what_a_collection_leaves_out_is_in_the_history_and_a_run_has_a_private_database() {
    let bench = site("argv = [\"sh\", \"-c\", \"mkdir .git && echo '# Page' > examples/page.md\"]");
    assert_eq!(phase(&bench, 4)["state"], "APPROVAL_PENDING");
    let logs = bench.run(&["runs", "logs", "k", "-o", "jsonl"]).expect(0).stdout;
    let note = logs.lines().find(|line| line.contains("worker.collect.note")).unwrap_or_else(|| panic!("{logs}"));
    assert!(note.contains("a .git in the root was discarded"), "{note}");
    let folder = bench.repo().join(".autonomous_runs/k");
    assert!(std::fs::read_to_string(folder.join("run.log")).unwrap().contains("worker.collect.note"));
    let mode = folder.join("k.db").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

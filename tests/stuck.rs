//! Runs that something outside keeps from moving: the command says what, ends in time, and goes on once it is gone.

use std::fs;

use serde_json::Value;

use crate::harness::{Bench, SITE};

const RUN: &[&str] = &["autopilot", "run", "--enable", "--no-wait", "--run-id", "k"];
const RESUME: &[&str] = &["runs", "resume", "k", "--no-wait"];

fn approve(bench: &Bench) {
    let listed = bench.run(&["approvals", "list", "-o", "json"]).expect(0).json();
    let text = |key: &str| listed["requests"][0][key].as_str().unwrap().to_owned();
    let (id, digest) = (text("request_id"), text("subject_digest"));
    bench.run(&["approvals", "approve", &id, "--expect-digest", &digest, "--reason", "x"]).expect(0);
}

fn phases(run: &Value) -> Vec<&str> {
    run["phases"].as_array().unwrap().iter().map(|phase| phase["state"].as_str().unwrap()).collect()
}

#[test]
fn a_result_branch_that_is_checked_out_is_told_and_waited_for() {
    let bench = Bench::with(SITE);
    bench.run(RUN).expect(4);
    approve(&bench);
    let repo = git2::Repository::open(bench.repo()).unwrap();
    let linked = bench.path().join("linked");
    let branch = repo.find_reference("refs/heads/autopack/k").unwrap();
    repo.worktree("look", &linked, Some(git2::WorktreeAddOptions::new().reference(Some(&branch)))).unwrap();
    let told = bench.run(RESUME).expect(6);
    assert!(told.stderr.contains("error[checked_out]") && told.stderr.contains("linked"), "{}", told.stderr);
    fs::remove_dir_all(&linked).unwrap();
    bench.run(RESUME).expect(0);
    bench.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_lock_of_somebody_elses_git_is_named() {
    let bench = Bench::with(SITE);
    bench.run(RUN).expect(4);
    approve(&bench);
    let lock = bench.repo().join(".git/refs/heads/autopack/k.lock");
    fs::write(&lock, "").unwrap();
    let told = bench.run(RESUME).expect(6);
    assert!(told.stderr.contains("error[locked]") && told.stderr.contains("autopack/k.lock"), "{}", told.stderr);
    assert!(lock.exists(), "it is not ours to remove");
    fs::remove_file(&lock).unwrap();
    bench.run(RESUME).expect(0);
}

#[test]
fn a_branch_that_is_in_the_way_fails_the_run() {
    let bench = Bench::with(SITE);
    let repo = git2::Repository::open(bench.repo()).unwrap();
    let head = repo.head().unwrap().peel_to_commit().unwrap();
    repo.branch("autopack", &head, false).unwrap();
    let told = bench.run(RUN).expect(1);
    let all = format!("{}{}", told.stdout, told.stderr);
    assert!(all.contains("cannot be made while refs/heads/autopack is there"), "{all}");
}

#[test]
fn a_commit_that_was_lost_before_its_ref_moved_is_made_again() {
    let bench = Bench::with(SITE);
    bench.run(RUN).expect(4);
    approve(&bench);
    // Between the preparation and the move: a foreign lock holds the move up, and then the object is gone.
    let lock = bench.repo().join(".git/refs/heads/autopack/k.lock");
    fs::write(&lock, "").unwrap();
    bench.run(RESUME).expect(6);
    let repo = git2::Repository::open(bench.repo()).unwrap();
    let tip = repo.refname_to_id("refs/heads/autopack/k").unwrap();
    let mut lost = 0;
    for entry in walkdir::WalkDir::new(bench.repo().join(".git/objects")).into_iter().filter_map(Result::ok) {
        let name = entry.path().strip_prefix(bench.repo().join(".git/objects")).unwrap().display().to_string();
        let Ok(id) = git2::Oid::from_str(&name.replace('/', "")) else { continue };
        let Ok(found) = repo.find_commit(id) else { continue };
        if found.parent_ids().any(|parent| parent == tip) {
            fs::remove_file(entry.path()).unwrap();
            lost += 1;
        }
    }
    assert_eq!(lost, 1, "the prepared commit");
    fs::remove_file(&lock).unwrap();
    bench.run(RESUME).expect(0);
    bench.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_second_data_directory_does_not_lock_the_first_one_out() {
    let bench = Bench::with(SITE);
    bench.run(RUN).expect(4);
    let other = bench.path().join("other");
    let args: Vec<&str> = [&["--data-dir", other.to_str().unwrap()][..], RUN].concat();
    let told = bench.run(&args).expect(6);
    assert!(
        told.stderr.contains("error[other_data_dir]") && told.stderr.contains(".autonomous_runs"),
        "{}",
        told.stderr
    );
    approve(&bench);
    bench.run(RESUME).expect(0);
    // Once the first one is gone, another may take over.
    fs::remove_dir_all(bench.repo().join(".autonomous_runs")).unwrap();
    let args: Vec<&str> = [&["--data-dir", other.to_str().unwrap()][..], &RUN[..4], &["--run-id", "anew"]].concat();
    bench.run(&args).expect(4);
}

#[test]
fn one_data_directory_has_the_runs_of_one_repository() {
    let bench = Bench::with(SITE);
    let data = bench.path().join("data");
    let here: Vec<&str> = [&["--data-dir", data.to_str().unwrap()][..], RUN].concat();
    bench.run(&here).expect(4);
    let second = Bench::with(SITE);
    let told = second.run(&here).expect(6);
    assert!(told.stderr.contains("error[other_repository]"), "{}", told.stderr);
    let mut up = bench.command(&bench.repo());
    let mut up = up.args(["--data-dir", data.to_str().unwrap(), "up"]).spawn().unwrap();
    let attached = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        bench.run(&["--data-dir", data.to_str().unwrap(), "runs", "list"]).code == 0
    });
    assert!(attached);
    let told = second.run(&["--data-dir", data.to_str().unwrap(), "runs", "list"]).expect(6);
    assert!(told.stderr.contains("error[other_repository]"), "{}", told.stderr);
    up.kill().unwrap();
    up.wait().unwrap();
}

#[test]
fn a_change_that_its_branch_lost_is_never_called_verified() {
    let bench = Bench::with(SITE);
    let toml = "[policy]\nextends = \"autopack\"\n[[gate.commands]]\nname = \"slow\"\nrun = \"sleep 600\"\n";
    bench.write("autopack.toml", toml);
    bench.commit("a gate");
    let mut child = bench.command(&bench.repo()).args(RUN).spawn().unwrap();
    let verifying = (0..400).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let ran = bench.run(&["runs", "show", "k", "-o", "json"]);
        ran.code == 0 && phases(&ran.json()).contains(&"VERIFYING")
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(verifying);
    let repo = git2::Repository::open(bench.repo()).unwrap();
    repo.find_reference("refs/heads/autopack/k").unwrap().delete().unwrap();
    let ran = bench.run(RESUME);
    assert_ne!(ran.code, 0, "{ran:?}");
    let run = bench.run(&["runs", "show", "k", "-o", "json"]).expect(0).json();
    assert!(phases(&run).contains(&"ROLLED_BACK") && !phases(&run).contains(&"APPLIED"), "{run}");
    bench.run(&["audit", "verify"]).expect(0);
}

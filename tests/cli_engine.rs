//! The commands that need an engine, each run as a process of its own on one data directory.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::harness::{Bench, Ran, SITE};

/// A repository with one gap that a run mends after asking, and one that it mends unasked.
fn initialised() -> Bench {
    let bench = Bench::with(&[
        ("README.md", "# Shop\n"),
        ("NOTES-old.md", "# Old notes\n\nSome words about things that were.\n"),
        ("docs/guide.md", "# Guide\n"),
    ]);
    bench.run(&["init", "--write-root", "notes", "--risk-tolerance", "moderate"]).expect(0);
    bench.commit("init");
    bench
}

fn pending(bench: &Bench) -> Vec<Value> {
    let list = bench.run(&["approvals", "list", "-o", "json"]).expect(0).json();
    assert_eq!(list["format"], "requests/1");
    list["requests"].as_array().unwrap().clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn session(bench: &Bench, run: &str) -> Value {
    let folder = bench.repo().join(".autonomous_runs").join(run).join("autopilot");
    let file = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn waiting(bench: &Bench, run: &str) -> Ran {
    bench.run(&["autopilot", "run", "--enable", "--no-wait", "--run-id", run])
}

#[test]
fn a_dry_run_changes_nothing_and_shows_both_documents() {
    let bench = initialised();
    let dry = bench.run(&["autopilot", "run", "-o", "json"]).expect(0).json();
    assert_eq!((&dry["format"], &dry["session"]["status"]), (&json!("autopilot/1"), &json!("dry_run")));
    assert!(dry["report"]["gaps"].is_array() && dry["plan"]["actions"].is_array());
    let branches = git2::Repository::open(bench.repo()).unwrap().branches(None).unwrap().count();
    assert_eq!(branches, 1);
    bench.run(&["autopilot", "run", "--write", "--run-id", "dry"]).expect(0);
    assert_eq!(session(&bench, "dry")["status"], "dry_run");
}

#[test]
fn a_run_waits_for_a_person_and_goes_on_after_the_decision() {
    let bench = initialised();
    let before = bench.run(&["runs", "list"]).expect(0);
    assert!(before.stderr.contains("no runs; next: "), "{}", before.stderr);
    let first = waiting(&bench, "r1").expect(4);
    assert!(first.stderr.contains("next: autopack approvals list --run-id r1"), "{}", first.stderr);
    assert_eq!(session(&bench, "r1")["status"], "awaiting_approval");

    let requests = pending(&bench);
    assert_eq!((requests.len(), text(&requests[0], "status"), text(&requests[0], "run_id")), (1, "PENDING", "r1"));
    let (id, digest) = (text(&requests[0], "request_id"), text(&requests[0], "subject_digest"));
    let refused = bench.run(&["approvals", "approve", id]).expect(2);
    assert!(refused.stderr.contains("--expect-digest") && refused.stderr.contains(digest), "{}", refused.stderr);
    let other = format!("sha256:{}", "0".repeat(64));
    for wrong in [&other, "sha256:beef"] {
        let ran = bench.run(&["approvals", "approve", id, "--expect-digest", wrong]).expect(6);
        assert!(ran.stderr.starts_with("error[approval_subject_mismatch]"), "{}", ran.stderr);
    }

    let prefix = &id[..id.len() - 2];
    let shown = bench.run(&["approvals", "show", prefix]).expect(0);
    assert!(shown.stdout.contains(digest) && shown.stdout.contains("+++ b/"), "{}", shown.stdout);
    let approved =
        bench.run(&["approvals", "approve", prefix, "--expect-digest", digest, "--reason", "read it", "-o", "json"]);
    assert_eq!(approved.expect(0).json()["status"], "APPROVED");
    bench.run(&["approvals", "approve", id, "--expect-digest", digest]).expect(6);

    let resumed = bench.run(&["runs", "resume", "r1", "-o", "json"]).expect(0).json();
    assert_eq!((&resumed["format"], &resumed["state"]), (&json!("run/1"), &json!("SUCCEEDED")));
    assert_eq!(session(&bench, "r1")["status"], "completed", "whichever command went with it");
    waiting(&bench, "r1").expect(0);
    assert_eq!(session(&bench, "r1")["status"], "completed");
    assert!(bench.repo().join(".autonomous_runs/r1/run_summary.md").exists());
    let diff = bench.run(&["runs", "diff", "r1"]).expect(0).stdout;
    assert!(diff.contains("NOTES-old.md"), "{diff}");
    bench.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_rejection_needs_no_digest_and_its_words_reach_the_history() {
    let bench = initialised();
    waiting(&bench, "r1").expect(4);
    let requests = pending(&bench);
    let rejected =
        bench.run(&["approvals", "reject", text(&requests[0], "request_id"), "--reason", "leave it", "-o", "json"]);
    assert_eq!(rejected.expect(0).json()["status"], "REJECTED");
    let all = bench.run(&["governance", "history", "--run-id", "r1", "-o", "json"]).expect(0).json();
    assert_eq!(all["requests"][0]["notes"], "leave it");
    let logs = bench.run(&["runs", "logs", "r1", "-o", "jsonl"]).expect(0).stdout;
    let events: Vec<Value> = logs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().all(|event| event["format"] == "event/1"));
    assert!(events.iter().any(|event| text(event, "kind") == "request.rejected"), "{logs}");
}

#[test]
fn the_same_command_goes_on_with_an_unfinished_run_of_the_same_plan() {
    let bench = initialised();
    bench.run(&["autopilot", "run", "--enable", "--no-wait"]).expect(4);
    let again = bench.run(&["autopilot", "run", "--enable", "--no-wait"]).expect(4);
    assert!(again.stderr.contains("going on with the unfinished run autopilot-"), "{}", again.stderr);
    let runs = bench.run(&["runs", "list", "-o", "json"]).expect(0).json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn supervise_asks_the_gate_first() {
    let bench = initialised();
    let denied = bench.run(&["autopilot", "supervise", "--run-ids", "a,b,c", "--workers", "3"]).expect(5);
    assert!(denied.stderr.starts_with("error[over_limit]"), "{}", denied.stderr);
    let paper = bench.run(&["autopilot", "supervise", "--run-ids", "a,b,c", "--workers", "3", "-o", "json"]).expect(5);
    assert_eq!((&paper.json()["format"], &paper.json()["reason"]), (&json!("gate/1"), &json!("over_limit")));
    let cleaned = bench.run(&["autopilot", "supervise", "--cleanup", "-o", "json"]).expect(0).json();
    assert_eq!(cleaned, json!({ "format": "cleanup/1", "removed": 0, "left": 0 }));
    let ran = bench
        .run(&["autopilot", "supervise", "--run-ids", "a,b", "--workers", "2", "--no-wait", "-o", "json"])
        .expect(4)
        .json();
    let states: Vec<&str> = ran["runs"].as_array().unwrap().iter().map(|run| text(run, "state")).collect();
    assert_eq!(states, ["WAITING", "WAITING"]);
}

/// A run file that adds one page below `examples/`, phase after phase.
fn pages(run: &str, phases: &[(&str, &str)]) -> String {
    let mut file = format!("run_id: {run}\nphases:\n");
    for (id, after) in phases {
        let name = format!("examples/{run}-{id}.md");
        let diff = format!(
            "diff --git a/{name} b/{name}\\nnew file mode 100644\\nindex 0000000..1111111\\n--- /dev/null\\n+++ b/{name}\\n@@ -0,0 +1 @@\\n+{id}\\n"
        );
        file.push_str(&format!(
            "  - id: {id}\n    goal: add {id}\n    category: documentation\n    depends_on: [{after}]\n    scope: {{paths: [{name}]}}\n    builder: {{kind: patch, diff: \"{diff}\"}}\n"
        ));
    }
    file
}

#[test]
fn supervise_drives_four_runs_two_at_once() {
    let bench = Bench::with(SITE);
    let place = ".autopack/anchor_v2.json";
    let mut anchor: Value = serde_json::from_slice(&std::fs::read(bench.repo().join(place)).unwrap()).unwrap();
    anchor["pivot_intentions"]["parallelism_isolation"] =
        json!({ "allowed": true, "isolation_model": "four_layer", "max_concurrent_runs": 2 });
    bench.write(place, &anchor.to_string());
    // A gate that is green once two leases were held at once: one at a time would never end.
    let met = bench.path().join("met");
    std::fs::create_dir(&met).unwrap();
    let wait = format!("until [ -e {}/two ]; do sleep 0.02; done", met.display());
    let policy = "[policy]\nextends = \"autopack\"\n\n[[gate.commands]]\nname = \"meet\"\n";
    bench.write("autopack.toml", &format!("{policy}run = \"{wait}\"\n"));
    bench.commit("two at once");
    for run in ["w1", "w2", "w3", "w4"] {
        bench.write("../run.yaml", &pages(run, &[("one", "")]));
        bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    }
    let all = ["autopilot", "supervise", "--run-ids", "w1,w2,w3,w4", "--workers", "2", "--no-wait", "-o", "json"];
    let seen = [("AUTOPACK_WORKER_SANDBOX_PATHS", met.to_str().unwrap())];
    let ran = std::thread::scope(|scope| {
        let supervised = scope.spawn(|| bench.run_in(&bench.repo(), &all, &seen));
        let peak = || bench.run(&["leases", "list", "--all", "-o", "json"]).json()["peak"].as_u64();
        while !supervised.is_finished() && peak() < Some(2) {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        std::fs::write(met.join("two"), "").unwrap();
        supervised.join().unwrap()
    });
    let ran = ran.expect(0).json();
    let states: Vec<&str> = ran["runs"].as_array().unwrap().iter().map(|run| text(run, "state")).collect();
    assert_eq!(states, ["SUCCEEDED"; 4]);
    let leases = bench.run(&["leases", "list", "--all", "-o", "json"]).expect(0).json();
    assert_eq!(leases["peak"], 2, "{leases}");
}

#[test]
fn supervise_with_nothing_to_do_is_done_and_ends_as_its_other_runs_do() {
    let bench = initialised();
    waiting(&bench, "r1").expect(4);
    std::fs::remove_file(bench.repo().join("NOTES-old.md")).unwrap();
    bench.write("config/baseline_policy.yaml", "version: 1\n");
    bench.commit("no gaps");
    let supervise = |runs: &str| {
        let args = ["autopilot", "supervise", "--run-ids", runs, "--workers", "2", "--no-wait"];
        bench.run(&args)
    };
    let idle = supervise("i1").expect(0);
    assert!(idle.stderr.contains("i1: nothing to do"), "{}", idle.stderr);
    assert_eq!(session(&bench, "i1")["status"], "nothing_to_do");
    supervise("i2,r1").expect(4);
    // Something to do, and nothing that may be done: uncommitted.
    bench.write("NOTES-new.md", "# New notes\n");
    assert!(supervise("i3").expect(5).stderr.contains("i3: no action of the plan may run"));
    supervise("i4,r1").expect(4);
}

#[test]
fn a_run_file_is_submitted_once_and_steered() {
    let bench = initialised();
    let file = "run_id: hand\nphases:\n  - id: one\n    goal: say hello\n    builder: {kind: patch, diff: ''}\n";
    bench.write("../run.yaml", file);
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    let folder = bench.run(&["runs", "submit", "docs"]).expect(2);
    assert!(folder.stderr.starts_with("error[invalid]"), "{}", folder.stderr);
    let again = bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    assert!(again.stdout.contains("is there already"), "{}", again.stdout);
    bench.write("../run.yaml", &file.replace("hello", "goodbye"));
    bench.run(&["runs", "submit", "../run.yaml"]).expect(6);
    bench.write("../run.yaml", &file.replace("goal", "gaol"));
    assert!(bench.run(&["runs", "submit", "../run.yaml"]).expect(2).stderr.contains("gaol"));
    let explain = bench.run(&["runs", "explain", "hand", "-o", "json"]).expect(0).json();
    assert_eq!((&explain["format"], &explain["blockers"][0]["kind"]), (&json!("explain/1"), &json!("no_engine")));
    bench.run(&["runs", "cancel", "hand"]).expect(0);
    let again = bench.run(&["runs", "cancel", "hand"]).expect(0);
    assert!(again.stdout.contains("CANCELLED"), "{}", again.stdout);
    bench.run(&["runs", "show", "nope"]).expect(3);
    for late in [&["runs", "pause", "hand"][..], &["runs", "retry", "hand"]] {
        let ran = bench.run(late).expect(6);
        assert!(ran.stderr.starts_with("error[illegal_move]") && ran.stderr.contains("CANCELLED"), "{}", ran.stderr);
    }
}

#[test]
fn one_resume_takes_back_a_pause_that_nobody_obeyed_yet() {
    let bench = initialised();
    let file = "run_id: hand\nphases:\n  - id: one\n    goal: say hello\n    builder: {kind: patch, diff: ''}\n";
    bench.write("../run.yaml", file);
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    bench.run(&["runs", "retry", "hand", "--phase", "two"]).expect(3);
    bench.run(&["runs", "pause", "hand"]).expect(0);
    let resumed = bench.run(&["runs", "resume", "hand", "-o", "json"]).json();
    assert_ne!(resumed["state"], "PAUSED", "{resumed}");
}

#[test]
fn looking_where_nothing_ever_ran_leaves_nothing_behind() {
    let bench = Bench::with(&[("README.md", "# x\n")]);
    for command in [
        &["runs", "list"][..],
        &["approvals", "list"],
        &["approvals", "watch"],
        &["leases", "list"],
        &["savepoints", "list"],
        &["audit", "query"],
        &["audit", "export"],
    ] {
        let ran = bench.run(command).expect(0);
        assert!(ran.stdout.is_empty() && ran.stderr.contains("next: "), "{command:?}: {ran:?}");
    }
    bench.run(&["runs", "watch", "nope"]).expect(3);
    bench.run(&["runs", "pause", "nope"]).expect(3);
    bench.run(&["approvals", "reject", "nope", "--reason", "no"]).expect(3);
    assert!(!bench.repo().join(".autonomous_runs").exists());
}

#[test]
fn audit_verify_ends_in_its_own_codes() {
    let bench = Bench::with(&[("README.md", "# x\n")]);
    let absent = bench.run(&["audit", "verify"]).expect(64);
    assert!(absent.stderr.starts_with("error[not_found]"), "{}", absent.stderr);
    bench.run(&["audit", "verify", "--repo", "../nowhere"]).expect(64);
    bench.run(&["audit", "--quiet", "verify", "--bogus"]).expect(64);
    bench.run(&["audit", "verify", "-o", "sarif"]).expect(64);
    bench.run(&["audit", "bogus"]).expect(2);
    let bench = initialised();
    let data = bench.repo().join(".autonomous_runs");
    let elsewhere = ["audit", "verify", "--data-dir", data.to_str().unwrap()];
    bench.run_in(&bench.path().join("home"), &elsewhere, &[]).expect(0);
    let report = bench.run(&["audit", "verify", "--json", "--semantic"]).expect(0).json();
    assert_eq!(report["format"], "audit_verify/1");
}

#[test]
fn watching_never_takes_over_from_an_engine_that_ends() {
    let bench = initialised();
    waiting(&bench, "r1").expect(4);
    let repo = bench.repo();
    let start = |args: &[&str]| {
        let mut command = bench.command(&repo);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let first_line = |child: &mut Child| {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line
    };
    let mut up = start(&["up"]);
    assert!(first_line(&mut up).starts_with("up:"));
    let mut watch = start(&["runs", "watch", "r1"]);
    assert!(!first_line(&mut watch).is_empty(), "it shows what happened so far");
    up.kill().unwrap();
    up.wait().unwrap();
    let ended = watch.wait_with_output().unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(7), "{stderr}");
    assert!(stderr.contains("do this: autopack runs resume r1"), "{stderr}");
}

#[test]
fn nothing_to_show_names_the_next_command() {
    let bench = initialised();
    for (command, next) in [
        (&["runs", "list"][..], "autopack autopilot run"),
        (&["approvals", "list"], "autopack approvals list --all"),
        (&["leases", "list"], "autopack leases list --all"),
        (&["savepoints", "list"], "autopack runs list"),
        (&["audit", "query", "--op", "nothing."], "autopack audit query"),
        (&["autopilot", "supervise", "--list-worktrees"], "autopack autopilot run"),
    ] {
        let ran = bench.run(command).expect(0);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(next), "{command:?}: {ran:?}");
    }
}

#[test]
fn the_doctor_looks_and_leaves_everything_alone() {
    let bench = Bench::with(&[("README.md", "# x\n")]);
    let found = bench.run(&["doctor", "-o", "json"]).expect(0).json();
    assert_eq!((&found["format"], &found["healthy"]), (&json!("doctor/1"), &json!(true)));
    assert!(!bench.repo().join(".autonomous_runs").exists());
    bench.write(".autopack/anchor_v2.json", "{}");
    assert_eq!(bench.run(&["doctor", "-o", "json"]).expect(1).json()["healthy"], json!(false));
}

#[test]
fn a_save_point_is_looked_at_and_gone_back_to() {
    let bench = Bench::with(SITE);
    let file = pages("hand", &[("one", ""), ("two", "one"), ("three", "two")]);
    bench.write("../run.yaml", &file);
    bench.run(&["runs", "submit", "../run.yaml"]).expect(0);
    bench.run(&["runs", "resume", "hand"]).expect(0);
    let tree = |name: &str| {
        let repo = git2::Repository::open(bench.repo()).unwrap();
        repo.revparse_single(&format!("{name}^{{tree}}")).unwrap().id()
    };
    let before = tree("autopack/hand~2");
    let since = bench.run(&["savepoints", "diff", "hand", "--phase", "two"]).expect(0).stdout;
    assert!(since.contains("+two") && since.contains("+three") && !since.contains("+one"), "{since}");
    let all = bench.run(&["savepoints", "diff", "hand", "-o", "json"]).expect(0).json();
    assert!(text(&all, "diff").contains("+one"), "{all}");

    bench.run(&["savepoints", "restore", "hand", "--phase", "nope"]).expect(3);
    let back = bench.run(&["savepoints", "restore", "hand", "--phase", "two", "-o", "json"]).expect(0).json();
    let states: Vec<&str> = back["phases"].as_array().unwrap().iter().map(|phase| text(phase, "state")).collect();
    assert_eq!(states, ["APPLIED", "ROLLED_BACK", "ROLLED_BACK"]);
    assert_eq!(tree("autopack/hand"), before, "by new commits, to the very tree");
    bench.run(&["audit", "verify"]).expect(0);
}

#[test]
fn data_that_nobody_can_keep_here_is_refused_and_not_replaced() {
    let bench = initialised();
    std::fs::write(bench.path().join("run.yaml"), pages("r1", &[("p", "")])).unwrap();
    let anchor = bench.repo().join(".autopack/anchor_v2.json");
    let mut said: Value = serde_json::from_str(&std::fs::read_to_string(&anchor).unwrap()).unwrap();
    for (model, code) in [("database", 5), ("schema", 5), ("sqlite", 0)] {
        said["pivot_intentions"]["parallelism_isolation"]["run_data"] = model.into();
        std::fs::write(&anchor, said.to_string()).unwrap();
        bench.commit(model);
        let told = bench.run(&["runs", "submit", "../run.yaml"]).expect(code).stderr;
        assert_eq!(told.starts_with("error[run_data_unavailable]"), code == 5, "{told}");
        assert!(code == 0 || told.contains("ask for \"sqlite\""), "{told}");
    }
}

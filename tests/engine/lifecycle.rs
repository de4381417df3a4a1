//! A run from submission to its branch, and what its author may do to it on the way.

use serde_json::json;

use autopack_shared::wire::pb::{self, SteerOp};

use super::harness::{Rig, Site, reason};

fn patch(id: &str, line: &str) -> serde_json::Value {
    let diff = format!(
        "diff --git a/examples/{id}.txt b/examples/{id}.txt\nnew file mode 100644\nindex 0000000000000000000000000000000000000000..{}\n--- /dev/null\n+++ b/examples/{id}.txt\n@@ -0,0 +1 @@\n+{line}\n",
        git2::Oid::hash_object(git2::ObjectType::Blob, format!("{line}\n").as_bytes()).unwrap()
    );
    json!({ "id": id, "goal": "add a note", "scope": { "paths": ["examples/"] }, "builder": { "kind": "patch", "diff": diff } })
}

#[tokio::test]
async fn a_small_allowed_change_is_applied_by_itself() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit_file(&json!({ "run_id": "auto", "phases": [patch("n1", "hello"), patch("n2", "again")] })).await;
    let run = rig.until_state("auto", "SUCCEEDED").await;
    assert!(run.phases.iter().all(|p| p.state == "APPLIED" && p.verdict == "AUTO_APPROVED" && p.tier == 1), "{run:#?}");
    assert_eq!(site.text_at("refs/heads/autopack/auto", "examples/n1.txt").as_deref(), Some("hello\n"));
    assert_eq!(site.log("auto"), ["autopack: auto/n2 attempt 1", "autopack: auto/n1 attempt 1", "first"]);
    // Nothing of the checkout moved.
    assert!(site.text_at("refs/heads/main", "examples/n1.txt").is_none());
    assert!(!site.repo().join("examples/n1.txt").exists());
    rig.audit_is_whole().await;
    let log = std::fs::read_to_string(site.data().join("auto/run.log")).unwrap();
    assert!(log.lines().any(|l| l.contains("AUTO_APPROVED")), "{log}");
    rig.close().await;
}

#[tokio::test]
async fn a_run_changes_no_more_files_than_it_may() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let mut phases = [patch("n1", "hello"), patch("n2", "again")];
    phases[1]["max_attempts"] = json!(1);
    phases[1]["depends_on"] = json!(["n1"]);
    rig.submit_file(&json!({ "run_id": "few", "limits": { "files": 1 }, "phases": phases })).await;
    let run = rig.until_state("few", "FAILED").await;
    let states: Vec<&str> = run.phases.iter().map(|p| p.state.as_str()).collect();
    assert_eq!(states, ["APPLIED", "FAILED"]);
    assert!(run.phases[1].reason.contains("limit_files: the run would have changed 2 files of 1"), "{run:#?}");
    assert_eq!(site.log("few").len(), 2, "one change and the first commit");
    rig.close().await;
}

#[tokio::test]
async fn the_same_file_attaches_and_another_one_is_refused() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let file = json!({ "run_id": "once", "phases": [patch("n1", "hello")] });
    rig.submit_file(&file).await;
    rig.until_state("once", "SUCCEEDED").await;
    let call = pb::SubmitRequest { run_file_json: file.to_string(), insecure_no_sandbox: true, ..Default::default() };
    assert!(!rig.runs.submit(call).await.unwrap().into_inner().created);
    let other = json!({ "run_id": "once", "phases": [patch("n2", "hello")] });
    let call = pb::SubmitRequest { run_file_json: other.to_string(), ..Default::default() };
    assert_eq!(reason(&rig.runs.submit(call).await.unwrap_err()), "EXISTS");
    assert_eq!(site.log("once").len(), 2, "applied once");
    rig.close().await;
}

#[tokio::test]
async fn builders_that_do_nothing_fail_or_lie_do_no_harm() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let once = json!({ "max_attempts": 1 });
    rig.submit("idle", &[("nothing", "true", once.clone())]).await;
    let run = rig.until_state("idle", "SUCCEEDED").await;
    assert_eq!(run.phases[0].verdict, "NO_CHANGE");
    rig.submit("fails", &[("bad", "echo no >&2; exit 1", json!({ "max_attempts": 2 }))]).await;
    let run = rig.until_state("fails", "FAILED").await;
    assert_eq!((run.phases[0].attempt, run.phases[0].state.as_str()), (2, "FAILED"));
    assert!(run.phases[0].reason.contains("builder_failed"), "{run:#?}");
    rig.submit("slow", &[("sleeps", "sleep 300", json!({ "max_attempts": 1, "timeout": 1 }))]).await;
    let run = rig.until_state("slow", "FAILED").await;
    assert!(run.phases[0].reason.contains("timeout"), "{run:#?}");
    rig.submit("wipe", &[("all", "rm -rf ./* .autopack", once)]).await;
    rig.until_state("wipe", "BLOCKED").await;
    assert!(site.repo().join("README.md").exists());
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn a_builder_that_leaves_a_repository_is_told_and_nothing_of_it_comes_in() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    // The second attempt heeds what the first was told; a `.git` in the root is no harm.
    let script = "mkdir -p .git/hooks; echo x > .git/hooks/a
        grep -q sub/.git \"$AUTOPACK_TASK\" || { mkdir -p sub/.git sub/.GIT; echo x > sub/.git/config; }
        echo x > examples/gitty.txt";
    rig.submit("gitty", &[("hooks", script, json!({ "max_attempts": 2 }))]).await;
    let run = rig.until_state("gitty", "WAITING").await;
    assert_eq!(run.phases[0].attempt, 2);
    let history = rig.history("gitty").await;
    let told = history.iter().any(|line| line.contains("git_internal") && line.contains("sub/.git"));
    assert!(told, "{history:#?}");
    assert_eq!(history.iter().filter(|line| line.starts_with("worker.patch.uploaded")).count(), 1, "{history:#?}");
    let fsck = std::process::Command::new("git").current_dir(site.repo()).args(["fsck", "--strict"]).output().unwrap();
    assert!(fsck.status.success() && !String::from_utf8_lossy(&fsck.stderr).contains("hasDotgit"), "{fsck:?}");
    rig.close().await;
}

#[tokio::test]
async fn a_worktree_that_nobody_can_make_ends_with_the_phases_time() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("first", &[("p", "true", json!({}))]).await;
    rig.until_state("first", "SUCCEEDED").await;
    // Another process that hangs while it has the turn to change the mirror.
    let held = std::fs::File::options().write(true).open(site.dir.path().join("worker/mirror.lock")).unwrap();
    held.lock().unwrap();
    rig.submit("stuck", &[("p", "true", json!({ "max_attempts": 1, "timeout": 1 }))]).await;
    let run = rig.until_state("stuck", "FAILED").await;
    assert!(run.phases[0].reason.contains("timeout"), "{run:#?}");
    drop(held);
    rig.submit("free", &[("p", "true", json!({}))]).await;
    rig.until_state("free", "SUCCEEDED").await;
    rig.close().await;
}

#[tokio::test]
async fn a_builder_works_in_a_sandbox_unless_told_otherwise() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let file = json!({ "run_id": "safe", "phases": [{ "id": "p", "goal": "x", "builder": { "kind": "command", "argv": ["sh", "-c", "test $PWD = /ws"] }, "max_attempts": 1 }] });
    let call = pb::SubmitRequest { run_file_json: file.to_string(), insecure_no_sandbox: false, ..Default::default() };
    rig.runs.submit(call).await.unwrap();
    let run = rig.until_state("safe", "SUCCEEDED").await;
    assert_eq!(run.phases[0].attempt, 1, "{run:#?}");
    rig.close().await;
}

#[tokio::test]
async fn cancel_stops_a_running_builder() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    rig.submit("long", &[("p", "sleep 300", json!({}))]).await;
    rig.until("long", "its worktree", |r| r.state == "RUNNING").await;
    rig.steer("long", SteerOp::Cancel).await;
    let run = rig.until_state("long", "CANCELLED").await;
    assert_eq!(run.phases[0].state, "CANCELLED");
    assert_eq!(site.log("long"), ["first"]);
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn phases_that_depend_on_a_failed_one_do_not_start() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let phases = [
        ("a", "exit 1", json!({ "max_attempts": 1 })),
        ("b", "echo x > examples/b.txt", json!({ "depends_on": ["a"] })),
    ];
    rig.submit("chain", &phases).await;
    let run = rig.until_state("chain", "FAILED").await;
    assert!(run.phases[1].reason.contains("dependency") && run.phases[1].attempt == 0, "{run:#?}");
    rig.close().await;
}

#[tokio::test]
async fn two_runs_at_once_where_the_anchor_allows_two() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    for n in 0..4 {
        let script = format!("echo {n} > examples/par-{n}.txt");
        let scope = json!({ "scope": { "paths": [format!("examples/par-{n}.txt")] } });
        rig.submit(&format!("par{n}"), &[("p", &script, scope)]).await;
    }
    for n in 0..4 {
        rig.until_state(&format!("par{n}"), "WAITING").await;
    }
    let leases = rig.admin.leases(pb::LeasesRequest { all: true, run_id: String::new() }).await.unwrap().into_inner();
    assert_eq!(leases.leases.len(), 4);
    assert!((1..=2).contains(&leases.peak), "peak {}", leases.peak);
    rig.close().await;
}

#[tokio::test]
async fn a_scope_that_can_never_be_written_starts_no_builder() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let marker = site.dir.path().join("ran");
    let script = format!("touch {}", marker.display());
    rig.submit("never", &[("p", &script, json!({ "scope": { "paths": [".env", ".git/"] } }))]).await;
    let run = rig.until_state("never", "BLOCKED").await;
    assert_eq!((run.phases[0].attempt, run.phases[0].request_id.as_str()), (0, ""));
    assert!(!marker.exists());
    rig.close().await;
}

#[tokio::test]
async fn a_paused_run_starts_nothing_until_it_is_resumed() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let go = site.dir.path().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.02; done; echo 1 > examples/one.txt", go.display());
    rig.submit("hold", &[("a", &script, json!({})), ("b", "echo 2 > examples/two.txt", json!({}))]).await;
    rig.until("hold", "a running builder", |r| r.state == "RUNNING").await;
    rig.steer("hold", SteerOp::Pause).await;
    std::fs::write(&go, "").unwrap();
    let run = rig.until_state("hold", "PAUSED").await;
    assert_eq!((run.phases[0].state.as_str(), run.phases[1].state.as_str()), ("COLLECTED", "QUEUED"));
    rig.steer("hold", SteerOp::Resume).await;
    rig.until("hold", "both requests", |r| r.phases.iter().all(|p| p.state == "APPROVAL_PENDING")).await;
    rig.close().await;
}

#[tokio::test]
async fn cancelling_takes_back_what_the_gate_has_not_judged() {
    let policy = "[policy]\nallowed = [\"examples/**\"]\n\n[[gate.commands]]\nname = \"slow\"\nrun = \"sleep 300\"\n";
    let site = Site::new(policy);
    let mut rig = Rig::open(&site).await;
    rig.submit_file(&json!({ "run_id": "stop", "phases": [patch("n1", "hello")] })).await;
    rig.until("stop", "its gate", |r| r.state == "RUNNING" && r.phases[0].state == "VERIFYING").await;
    rig.steer("stop", SteerOp::Cancel).await;
    let run = rig.until("stop", "the way back", |r| r.state == "CANCELLED" && r.phases[0].state == "ROLLED_BACK").await;
    assert!(run.phases[0].reason.contains("cancelled"), "{run:#?}");
    assert!(site.text_at("refs/heads/autopack/stop", "examples/n1.txt").is_none());
    rig.audit_is_whole().await;
    rig.close().await;
}

#[tokio::test]
async fn what_was_promised_must_be_in_the_tree() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    let mut phase = patch("n1", "hello");
    phase["deliverables"] = json!(["examples/n1.txt", "examples/n2.txt"]);
    phase["max_attempts"] = json!(1);
    rig.submit_file(&json!({ "run_id": "promise", "phases": [phase] })).await;
    let run = rig.until_state("promise", "FAILED").await;
    assert!(run.phases[0].reason.contains("deliverables_missing: examples/n2.txt"), "{run:#?}");
    rig.close().await;
}

#[tokio::test]
async fn a_secret_is_never_shown() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    // Put together here, so that this file holds none.
    let key = ["AK", "IA", "454ML6LG4TJFCZ4K"].concat();
    rig.submit("leak", &[("p", &format!("echo key={key} | tee examples/key.txt"), json!({}))]).await;
    let run = rig.until_state("leak", "BLOCKED").await;
    assert_eq!(run.phases[0].verdict, "BLOCKED");
    let request = rig.pending("leak").await;
    let detail =
        rig.governance.get(pb::GetRequestRequest { request_id: request.id.clone() }).await.unwrap().into_inner();
    assert!(!detail.verdict_json.contains(&key) && !String::from_utf8_lossy(&detail.diff).contains(&key));
    assert!(rig.history("leak").await.iter().all(|line| !line.contains(&key)));
    rig.close().await;
}

#[tokio::test]
async fn each_run_has_a_database_of_its_own() {
    let site = Site::new("");
    let mut rig = Rig::open(&site).await;
    for run in ["one", "two"] {
        rig.submit(run, &[("p", "echo \"$DATABASE_URL\" > docs/url.md", json!({}))]).await;
        rig.until_state(run, "WAITING").await;
        let request = rig.pending(run).await;
        rig.decide(&request, pb::Choice::Approve, "ok").await.unwrap();
        rig.until_state(run, "SUCCEEDED").await;
        let url = site.text_at(&format!("refs/heads/autopack/{run}"), "docs/url.md").unwrap();
        assert!(url.starts_with("sqlite://") && url.contains(&format!("/{run}/{run}.db")), "{url}");
    }
    rig.close().await;
}

//! What operators do to a cluster that works: look at leases, break one, drain workers.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::site::{Cluster, Desk};
use super::{ONE, faults, proof, text, until, work};
use crate::transcripts;

/// A run whose first attempt hangs, and whose second does its work.
fn hangs_once(run: &str, folder: &Path) -> Value {
    let (path, line) = work::page(run, "one");
    let flag = folder.join(format!("{run}-was-here"));
    let script =
        format!("if [ -e {0} ]; then echo '{1}' >> {path}; else touch {0}; sleep 600; fi", flag.display(), line.trim());
    let phase = json!({
        "id": "one", "goal": format!("write {path}"), "category": "documentation", "scope": { "paths": [path] },
        "builder": { "kind": "command", "argv": ["sh", "-c", script] },
    });
    json!({ "run_id": run, "phases": [phase] })
}

/// The run's open lease, as it is listed.
fn lease(desk: &Desk, run: &str) -> Option<Value> {
    let leases = desk.ask(&["leases", "list", "--run-id", run]);
    leases["leases"].as_array().unwrap().first().cloned()
}

fn held<'a>(listed: &'a Value, kind: &str) -> Vec<&'a Value> {
    listed["held"].as_array().unwrap().iter().filter(|held| held["kind"] == kind).collect()
}

fn worker(desk: &Desk, name: &str) -> Option<Value> {
    let listed = desk.ask(&["workers", "list"]);
    listed["workers"].as_array().unwrap().iter().find(|worker| worker["worker_id"] == name).cloned()
}

fn approve(cluster: &Cluster, run: &str) {
    let asks = || cluster.bob.ask(&["approvals", "list", "--run-id", run])["requests"][0].clone();
    assert!(until(ONE, || asks().is_object()), "{run} does not ask:\n{}", cluster.logs());
    let request = asks();
    let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
    cluster.bob.run(&["approvals", "approve", id, "--expect-digest", digest]).expect(0);
    let done = || cluster.ann.ask(&["runs", "show", run])["state"] == "SUCCEEDED";
    assert!(until(ONE, done), "{run} does not end:\n{}", cluster.logs());
}

#[test]
fn a_lease_is_seen_and_broken() {
    let cluster = Cluster::start(1, 2, 2);
    let file = hangs_once("stuck", &cluster.roots().canonicalize().unwrap());
    cluster.ann.run(&["leases", "break", "stuck", "--reason", "x"]).expect(3);
    cluster.ann.submit(&file).expect(0);
    let flag = cluster.roots().join("stuck-was-here");
    assert!(until(ONE, || flag.exists()), "it does not begin:\n{}", cluster.logs());

    let listed = cluster.ann.ask(&["leases", "list"]);
    assert_eq!((held(&listed, "director").len(), held(&listed, "session").len()), (1, 2), "{listed}");
    assert_eq!((held(&listed, "run").len(), held(&listed, "workspace").len()), (1, 1), "{listed}");
    for one in listed["held"].as_array().unwrap().iter().chain(listed["leases"].as_array().unwrap()) {
        let (ttl, left) = (one["ttl_ms"].as_u64().unwrap(), one["remaining_ms"].as_u64().unwrap());
        assert!(ttl >= 10_000 && left > 0 && left <= ttl && one["suspect"] == false, "{one}");
    }
    let first = listed["leases"][0].clone();
    assert_eq!(text(&first, "locked_by"), format!("{} (epoch {})", text(&first, "worker_id"), first["epoch"]));

    // A worker that is frozen cannot see to its own end.
    let name = text(&first, "worker_id").to_owned();
    let root = cluster.roots().join(&name).display().to_string();
    let stands = |args: &[&str]| cluster.ann.ask(&[&["workspaces"], args, &["--root", &root]].concat());
    let workspaces = stands(&["list"]);
    assert_eq!(workspaces["workspaces"].as_array().unwrap().len(), 1, "{workspaces}");
    assert_eq!(workspaces["workspaces"][0]["state"], "LIVE", "{workspaces}");
    assert_eq!(stands(&["cleanup"])["removed"], json!([]), "what is in use stays");
    let at = cluster.workers.iter().position(|one| one.name == name).unwrap();
    cluster.workers[at].freeze();
    cluster.ann.run(&["leases", "break", "stuck"]).expect(2);
    let broken = cluster.ann.run(&["leases", "break", "stuck", "--reason", "it hangs", "-o", "json"]).expect(0).json();
    assert_eq!((text(&broken, "state"), &broken["epoch"]), ("REVOKED", &first["epoch"]), "{broken}");
    let again = || lease(&cluster.ann, "stuck").is_some_and(|lease| lease["epoch"].as_u64() > first["epoch"].as_u64());
    let asks = || !super::pending(&cluster.ann).is_empty();
    assert!(until(ONE, || again() || asks()), "it is not granted again:\n{}", cluster.logs());
    // What it had not handed in stays until somebody says so.
    let path = PathBuf::from(text(&workspaces["workspaces"][0], "path"));
    assert_eq!(stands(&["list"])["workspaces"][0]["state"], "LOST");
    assert_eq!(stands(&["cleanup"])["kept"][0]["state"], "LOST");
    assert_eq!(stands(&["cleanup", "--discard", "--dry-run"])["removed"][0]["state"], "LOST");
    assert!(path.is_dir());
    assert_eq!(stands(&["cleanup", "--discard"])["removed"][0]["state"], "LOST");
    assert!(!path.exists());
    let suspect = || worker(&cluster.ann, &name).is_none_or(|worker| worker["state"] == "SUSPECT");
    assert!(until(ONE, suspect) && worker(&cluster.ann, &name).is_some(), "nobody suspects it");
    // The zombie wakes, and its builder's second life would be seen in the file.
    cluster.workers[at].thaw();
    approve(&cluster, "stuck");
    proof::is_applied_once(&cluster.hub(), &file);
    let none = cluster.ann.run(&["leases", "break", "stuck", "--reason", "x"]).expect(6);
    assert!(none.stderr.starts_with("error[no_lease]"), "{}", none.stderr);
    let told = cluster.ann.run(&["audit", "query", "--op", "lease.revoked", "-o", "json"]).expect(0).stdout;
    assert!(told.contains("token:ann") && told.contains("it hangs"), "{told}");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn workers_leave_when_their_work_is_done() {
    let mut cluster = Cluster::start(1, 2, 2);
    let slow = |run: &str| work::commands(run, &["one"], 4.0, false);
    let busy = |run: &str, cluster: &Cluster| -> usize {
        cluster.ann.submit(&slow(run)).expect(0);
        assert!(until(ONE, || lease(&cluster.ann, run).is_some()), "{run} is not granted:\n{}", cluster.logs());
        let name = text(&lease(&cluster.ann, run).unwrap(), "worker_id").to_owned();
        cluster.workers.iter().position(|one| one.name == name).unwrap()
    };
    let state = |cluster: &Cluster, at: usize| {
        worker(&cluster.ann, &cluster.workers[at].name)?["state"].as_str().map(str::to_owned)
    };

    // By command; a director that is lost meanwhile changes nothing.
    let at = busy("first", &cluster);
    let name = cluster.workers[at].name.clone();
    cluster.ann.run(&["workers", "drain", &name, "--reason", "a new kernel"]).expect(0);
    assert_eq!(state(&cluster, at).as_deref(), Some("DRAINING"));
    let director = faults::director(&cluster);
    let lost = cluster.supervisors.iter().position(|one| one.name == director).unwrap();
    cluster.supervisors[lost].kill();
    let other = busy("second", &cluster);
    assert_ne!(other, at, "it went to the one that drains");
    assert!(until(ONE, || cluster.workers[at].ended().is_some()), "it stays:\n{}", cluster.logs());
    assert_eq!(cluster.workers[at].ended(), Some(0), "{}", cluster.workers[at].told());
    approve(&cluster, "first");

    // By a signal, and not before what it has is done.
    cluster.workers[at].revive();
    cluster.workers[at].is_up();
    approve(&cluster, "second");
    let at = busy("third", &cluster);
    cluster.workers[at].terminate();
    assert!(until(ONE, || state(&cluster, at).as_deref() == Some("DRAINING")), "nobody knows:\n{}", cluster.logs());
    assert!(until(ONE, || cluster.workers[at].ended().is_some()), "it stays:\n{}", cluster.logs());
    assert_eq!(cluster.workers[at].ended(), Some(0), "{}", cluster.workers[at].told());
    approve(&cluster, "third");
    assert_eq!(cluster.number("SELECT count(*) FROM autopack.lease WHERE state <> 'released'"), 0, "no work was lost");
    cluster.ann.run(&["workers", "drain", "nobody"]).expect(3);
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_builder_elsewhere_is_heard_while_it_works() {
    let cluster = Cluster::start(1, 2, 1);
    let flag = cluster.roots().join("go");
    cluster.ann.submit(&transcripts::talks(&flag)).expect(0);
    let follow = cluster.ann.command(&["runs", "logs", "talks", "-f"]);
    transcripts::is_followed(follow, &flag, |args| cluster.ann.run(args));
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

//! What must hold when everything has ended, read from the store, the hub, etcd and the workers' folders.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use git2::Repository;
use serde_json::Value;

use super::site::{AT_ONCE, Cluster};
use super::{text, until, work};

/// How long folders and locks may take to go after the last run ended.
const SETTLED: Duration = Duration::from_secs(40);

/// The ids of a run file's phases.
fn phases(file: &Value) -> Vec<&str> {
    file["phases"].as_array().unwrap().iter().map(|phase| text(phase, "id")).collect()
}

/// One commit a phase on top of the hub's branch, in order, and each file once with its line once.
pub(super) fn is_applied_once(hub: &Path, file: &Value) {
    let (repo, run) = (Repository::open(hub).unwrap(), text(file, "run_id"));
    let tip = repo.find_reference(&format!("refs/heads/autopack/{run}")).unwrap().peel_to_commit().unwrap();
    let main = repo.find_reference("refs/heads/main").unwrap().peel_to_commit().unwrap();
    let (mut at, mut applied) = (tip.clone(), Vec::new());
    while at.id() != main.id() {
        assert_eq!(at.parent_count(), 1, "{run}");
        applied.push(at.summary().unwrap().unwrap().split(" attempt").next().unwrap().to_owned());
        at = at.parent(0).unwrap();
    }
    applied.reverse();
    let expected: Vec<String> = phases(file).iter().map(|phase| format!("autopack: {run}/{phase}")).collect();
    assert_eq!(applied, expected, "{run}");
    let (tree, base) = (tip.tree().unwrap(), main.tree().unwrap());
    for phase in phases(file) {
        let (path, line) = work::page(run, phase);
        let blob = tree.get_path(Path::new(&path)).unwrap().to_object(&repo).unwrap().peel_to_blob().unwrap();
        assert_eq!(String::from_utf8_lossy(blob.content()), line, "{path}");
    }
    let changed = repo.diff_tree_to_tree(Some(&base), Some(&tree), None).unwrap().deltas().len();
    assert_eq!(changed, phases(file).len(), "{run} has nothing but its own files");
}

/// Every run, in the store and in the hub.
pub(super) fn of_runs(cluster: &Cluster, files: &[Value]) {
    for file in files {
        is_applied_once(&cluster.hub(), file);
        let shown = cluster.ann.ask(&["runs", "show", text(file, "run_id")]);
        assert_eq!(shown["state"], "SUCCEEDED");
    }
    let hub = Repository::open(cluster.hub()).unwrap();
    let branches = hub.references_glob("refs/heads/autopack/*").unwrap().count();
    assert_eq!(branches, files.len(), "no branch but the runs'");
    let all = i64::try_from(files.iter().map(|file| phases(file).len()).sum::<usize>()).unwrap();
    for (what, query) in [
        ("phases", "SELECT count(*) FROM autopack.phase"),
        ("attempts that succeeded", "SELECT count(*) FROM autopack.attempt WHERE state = 'succeeded'"),
        ("moves of branches", "SELECT count(*) FROM autopack.apply WHERE state = 'committed'"),
    ] {
        assert_eq!(cluster.number(query), all, "{what}");
    }
    assert_eq!(cluster.number("SELECT count(*) FROM autopack.apply WHERE state = 'prepared'"), 0);
}

/// Each acknowledged approval was used by exactly one move, and no move that had to ask went without one.
pub(super) fn of_approvals(cluster: &Cluster, acknowledged: &BTreeSet<String>) {
    let used = "SELECT q.id FROM autopack.request q JOIN autopack.apply a ON a.request_id = q.id \
                WHERE q.state = 'consumed' AND a.state = 'committed' ORDER BY 1";
    let used = cluster.sql(used);
    let once: BTreeSet<String> = used.iter().cloned().collect();
    assert_eq!(once.len(), used.len(), "an approval was used twice");
    let lost: Vec<&String> = acknowledged.difference(&once).collect();
    let states = |ids: &[&String]| -> Vec<String> {
        ids.iter()
            .flat_map(|id| cluster.sql(&format!("SELECT id, state, doc FROM autopack.request WHERE id = '{id}'")))
            .collect()
    };
    assert!(lost.is_empty(), "acknowledged and not used: {:#?}", states(&lost));
    let commands = "SELECT count(*) FROM autopack.phase WHERE doc::text LIKE '%\"argv\"%'";
    assert_eq!(i64::try_from(used.len()).unwrap(), cluster.number(commands), "one approval for each command");
    let open = "SELECT count(*) FROM autopack.request WHERE state IN ('pending', 'approved')";
    assert_eq!(cluster.number(open), 0);
    for id in acknowledged {
        let shown = cluster.ann.ask(&["approvals", "show", id]);
        assert_eq!(shown["request"]["status"], "CONSUMED", "{shown}");
    }
}

/// Never more leases than allowed, by three accounts: the history, what the product says, what was seen.
pub(super) fn of_leases(cluster: &Cluster, most_seen: i64) {
    let peak = "SELECT max(active) FROM (SELECT sum(change) OVER (ORDER BY commit_no, change \
                ROWS UNBOUNDED PRECEDING) AS active FROM autopack.lease_history) AS h";
    let peak = cluster.number(peak);
    let told = cluster.ann.ask(&["leases", "list", "--all"]);
    assert_eq!(told["peak"].as_i64(), Some(peak));
    assert!(peak <= AT_ONCE && most_seen <= peak, "at most {peak}, seen {most_seen}");
    println!("at most {peak} leases at once of {} in all", told["leases"].as_array().unwrap().len());
    assert_eq!(cluster.number("SELECT count(*) FROM autopack.lease WHERE state IN ('granting', 'held')"), 0);
    assert_eq!(cluster.number("SELECT coalesce(sum(change), 0) FROM autopack.lease_history"), 0);
    assert_eq!(cluster.ann.ask(&["leases", "list"])["leases"].as_array().map(Vec::len), Some(0));
}

/// No lock in etcd, and in the workers' roots nothing but their mirrors.
pub(super) fn nothing_is_left(cluster: &Cluster) {
    let mut locks = Vec::new();
    let free = until(SETTLED, || {
        locks = cluster.etcd_keys("/autopack/v1/autopack/locks");
        locks.is_empty()
    });
    assert!(free, "locks are left: {locks:?}");
    for worker in &cluster.workers {
        let mirror = cluster.roots().join(&worker.name).join("mirrors/shop");
        let mut left = Vec::new();
        let clear = until(SETTLED, || {
            left = leftovers(&mirror);
            left.is_empty()
        });
        assert!(clear, "{} left {left:?}", worker.name);
    }
}

/// What is in a project's folder of a worker beside its mirror.
fn leftovers(folder: &Path) -> Vec<String> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let inside = [".trash", ".scratch", "mirror.git/worktrees"];
    // Worktrees that are ready for the next leases wait in the pool.
    let known = [".trash", ".scratch", ".pool", "mirror.git", "mirror.lock", "repo.lock"];
    let mut left: Vec<String> = inside.iter().flat_map(|inner| names(&folder.join(inner))).collect();
    left.extend(names(folder).into_iter().filter(|name| !known.contains(&name.as_str())));
    left
}

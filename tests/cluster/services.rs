//! Services that change under a cluster that works: a database that becomes read-only, a hub that is moved, a store that
//! is older than a hub. What is told stays told, and it goes on by itself.

use std::process::{Command, Stdio};

use git2::Repository;
use git2::build::RepoBuilder;
use serde_json::Value;

use super::site::{Cluster, Desk};
use super::{ONE, pending, text, until, work};
use crate::harness::{Bench, SITE};

fn state(desk: &Desk, run: &str) -> String {
    text(&desk.ask(&["runs", "show", run]), "state").to_owned()
}

pub(super) fn ends(cluster: &Cluster, run: &str) {
    let done = || state(&cluster.ann, run) == "SUCCEEDED";
    assert!(until(ONE, done), "{run} does not end:\n{}", cluster.logs());
}

/// What to say to approve the one request that waits.
fn approval(cluster: &Cluster) -> Vec<String> {
    assert!(until(ONE, || !pending(&cluster.ann).is_empty()), "nobody asks:\n{}", cluster.logs());
    let request = pending(&cluster.ann).remove(0);
    let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
    ["approvals", "approve", id, "--expect-digest", digest].map(str::to_owned).to_vec()
}

fn say(desk: &Desk, words: &[String]) -> crate::harness::Ran {
    desk.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_database_that_becomes_read_only_loses_nothing() {
    let cluster = Cluster::start(1, 1, 1);
    cluster.ann.submit(&work::commands("first", &["one"], 0.1, false)).expect(0);
    let approve = approval(&cluster);
    let switch = |to: &str| {
        cluster.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {to}"));
        cluster.sql("SELECT pg_reload_conf()");
        let shown = || cluster.sql("SHOW default_transaction_read_only")[0] == to;
        assert!(until(ONE, shown), "the setting does not change");
    };
    switch("on");
    let refused = |words: &[String]| {
        let mut last = None;
        // A connection that is in the middle of something may still write once.
        let seen = until(ONE, || {
            let ran = say(&cluster.bob, words);
            let away = ran.code == 7;
            last = Some(ran);
            away
        });
        assert!(seen, "{last:?}");
        last.unwrap()
    };
    let told = refused(&approve);
    assert!(told.stderr.starts_with("error[unavailable]") && told.stderr.contains("read-only"), "{}", told.stderr);
    let submitted = cluster.ann.submit(&work::patch("second")).expect(7);
    assert!(submitted.stderr.contains("read-only"), "{}", submitted.stderr);
    for look in [
        &["runs", "list"][..],
        &["runs", "show", "first"],
        &["approvals", "list"],
        &["leases", "list"],
        &["workers", "list"],
    ] {
        cluster.ann.run(look).expect(0);
    }
    assert_eq!(pending(&cluster.ann).len(), 1, "what was refused was not done");
    switch("off");
    assert!(until(ONE, || say(&cluster.bob, &approve).code == 0), "it does not come back:\n{}", cluster.logs());
    ends(&cluster, "first");
    cluster.ann.submit(&work::patch("second")).expect(0);
    ends(&cluster, "second");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_hub_that_is_moved_holds_up_its_own_runs_only() {
    let cluster = Cluster::start(1, 1, 1);
    cluster.ann.submit(&work::commands("first", &["one"], 0.1, false)).expect(0);
    let approve = approval(&cluster);
    let other = cluster.hub().with_file_name("other.git");
    RepoBuilder::new().bare(true).clone(cluster.hub().to_str().unwrap(), &other).unwrap();
    cluster.ann.run(&["projects", "add", "other", "--hub", other.to_str().unwrap()]).expect(0);
    let explained = || {
        let blockers = cluster.ann.ask(&["runs", "explain", "first"])["blockers"].clone();
        blockers.as_array().unwrap().iter().any(|one| one["kind"] == "hub_unavailable")
    };
    // Whole, and then only what is in it.
    let away = cluster.hub().with_file_name("away.git");
    std::fs::rename(cluster.hub(), &away).unwrap();
    say(&cluster.bob, &approve).expect(0);
    assert!(until(ONE, explained), "nobody says why:\n{}", cluster.logs());
    let refused = submit_to(&cluster, "shop", &work::patch("late")).expect(7);
    assert!(refused.stderr.starts_with("error[hub_unavailable]"), "{}", refused.stderr);
    submit_to(&cluster, "other", &work::patch("second")).expect(0);
    ends(&cluster, "second");
    std::fs::rename(&away, cluster.hub()).unwrap();
    ends(&cluster, "first");
    assert!(!explained());

    let objects = cluster.hub().join("objects");
    std::fs::rename(&objects, &away).unwrap();
    let refused = submit_to(&cluster, "shop", &work::patch("late")).expect(7);
    assert!(refused.stderr.starts_with("error[hub_unavailable]"), "{}", refused.stderr);
    cluster.ann.run(&["runs", "show", "first"]).expect(0);
    std::fs::rename(&away, &objects).unwrap();
    submit_to(&cluster, "shop", &work::patch("late")).expect(0);
    ends(&cluster, "late");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

pub(super) fn submit_to(cluster: &Cluster, project: &str, file: &Value) -> crate::harness::Ran {
    let path = cluster.hub().with_file_name("run.json");
    std::fs::write(&path, file.to_string()).unwrap();
    cluster.ann.run(&["runs", "submit", "--insecure-no-sandbox", "--project", project, path.to_str().unwrap()])
}

#[test]
fn a_store_that_is_older_than_a_hub_is_refused() {
    let mut cluster = Cluster::start(1, 1, 0);
    // As after a restore: the hub has seen directors that the store does not know of.
    let repo = Repository::open(cluster.hub()).unwrap();
    let fenced = || repo.find_reference("refs/autopack/fence").is_ok();
    assert!(until(ONE, fenced), "nobody directs:\n{}", cluster.logs());
    cluster.supervisors[0].kill();
    let later = repo.blob(b"1 99\n").unwrap();
    repo.reference("refs/autopack/fence", later, true, "a later director").unwrap();
    cluster.supervisors[0].revive();
    assert!(until(ONE, || cluster.supervisors[0].ended().is_some()), "it goes on:\n{}", cluster.logs());
    assert_eq!(cluster.supervisors[0].ended(), Some(78), "{}", cluster.logs());
    let told = cluster.supervisors[0].told();
    assert!(told.contains("error[store_restored]") && told.contains("shop"), "{told}");
}

#[test]
fn a_claim_that_was_cut_off_is_made_again() {
    let mut cluster = Cluster::start(1, 1, 0);
    let mark = cluster.hub().join("refs/autopack/cluster");
    assert!(until(ONE, || mark.exists()), "nobody directs:\n{}", cluster.logs());
    cluster.supervisors[0].kill();
    // As when it was killed between the lock of the mark and the mark.
    let lock = mark.with_extension("lock");
    std::fs::rename(&mark, &lock).unwrap();
    cluster.supervisors[0].revive();
    assert!(until(ONE, || mark.exists()), "its project is not directed:\n{}", cluster.logs());
    assert!(!lock.exists());
}

#[test]
fn a_result_is_kept_where_its_project_is_not_open_and_its_hub_is_away() {
    let mut cluster = Cluster::start(1, 1, 1);
    let (seen, go) = (cluster.roots().join("seen"), cluster.roots().join("go"));
    let mut file = work::commands("first", &["one"], 0.0, false);
    let script = format!("touch {}; until test -e {}; do sleep 0.1; done; exit 1", seen.display(), go.display());
    file["phases"][0]["builder"]["argv"][2] = script.into();
    file["phases"][0]["max_attempts"] = 1.into();
    cluster.ann.submit(&file).expect(0);
    assert!(until(ONE, || seen.exists()), "nobody begins:\n{}", cluster.logs());
    cluster.supervisors[0].kill();
    let away = cluster.hub().with_file_name("away.git");
    std::fs::rename(cluster.hub(), &away).unwrap();
    cluster.supervisors[0].revive();
    cluster.supervisors[0].is_up();
    std::fs::write(&go, "").unwrap();
    let lease = || cluster.sql("SELECT state FROM autopack.lease WHERE run_id = 'first'");
    assert!(until(ONE, || lease() != ["held"]), "it is not heard:\n{}", cluster.logs());
    assert_eq!(lease(), ["released"], "{}", cluster.logs());
    std::fs::rename(&away, cluster.hub()).unwrap();
    let failed = || state(&cluster.ann, "first") == "FAILED";
    assert!(until(ONE, failed), "it does not end:\n{}", cluster.logs());
}

#[test]
fn a_hub_is_of_one_cluster() {
    let mut cluster = Cluster::start(1, 1, 0);
    let repo = Repository::open(cluster.hub()).unwrap();
    let mark = repo.find_reference("refs/autopack/cluster").unwrap().peel_to_blob().unwrap();
    assert_eq!(
        String::from_utf8(mark.content().to_vec()).unwrap().trim(),
        cluster.sql("SELECT cluster_id FROM autopack.cluster")[0]
    );
    // Another cluster's hub is not taken in, and what is there is left as it is.
    let theirs = cluster.hub().with_file_name("theirs.git");
    RepoBuilder::new().bare(true).clone(cluster.hub().to_str().unwrap(), &theirs).unwrap();
    let foreign = |repo: &Repository| {
        let blob = repo.blob(b"of-somebody-else\n").unwrap();
        repo.reference("refs/autopack/cluster", blob, true, "").unwrap();
    };
    foreign(&Repository::open(&theirs).unwrap());
    let refused = cluster.ann.run(&["projects", "add", "theirs", "--hub", theirs.to_str().unwrap()]).expect(78);
    assert!(refused.stderr.starts_with("error[cluster_mismatch]"), "{}", refused.stderr);
    assert!(refused.stderr.contains("of-somebody-else"), "{}", refused.stderr);
    assert_eq!(cluster.ann.ask(&["projects", "list"])["projects"].as_array().unwrap().len(), 1);
    // One that became another's keeps its supervisors from starting.
    cluster.supervisors[0].kill();
    foreign(&repo);
    cluster.supervisors[0].revive();
    assert!(until(ONE, || cluster.supervisors[0].ended().is_some()), "it goes on:\n{}", cluster.logs());
    assert_eq!(cluster.supervisors[0].ended(), Some(78), "{}", cluster.logs());
    assert!(cluster.supervisors[0].told().contains("error[cluster_mismatch]"), "{}", cluster.logs());
}

#[test]
fn a_repository_is_of_a_cluster_or_of_an_embedded_engine() {
    let cluster = Cluster::start(1, 1, 0);
    let drive = ["autopilot", "run", "--enable"];
    // A git server takes no look at whether it has a checkout.
    let add = |name: &str, bench: &Bench| {
        let address = format!("file://{}", bench.repo().display());
        cluster.ann.run(&["projects", "add", name, "--repo", &address])
    };
    let (theirs, own) = (Bench::with(SITE), Bench::with(SITE));
    add("theirs", &theirs).expect(0);
    let refused = theirs.run(&drive).expect(78);
    assert!(refused.stderr.starts_with("error[cluster_mismatch]"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("belongs to the cluster") && refused.stderr.contains("remove refs/autopack/cluster"),
        "{refused:?}"
    );
    theirs.run(&["runs", "list"]).expect(0);
    own.run(&drive).expect(4);
    let refused = add("own", &own).expect(78);
    assert!(refused.stderr.starts_with("error[cluster_mismatch]"), "{}", refused.stderr);
    assert!(refused.stderr.contains("belongs to an embedded engine"), "{}", refused.stderr);
    // Another data directory is no other owner; and once a person says that it is nobody's, a cluster may have it.
    std::fs::remove_dir_all(own.repo().join(".autonomous_runs")).unwrap();
    own.run(&["autopilot", "run", "--enable", "--run-id", "anew"]).expect(4);
    Repository::open(own.repo()).unwrap().find_reference("refs/autopack/cluster").unwrap().delete().unwrap();
    add("own", &own).expect(0);
}

#[test]
fn projects_have_one_repository_and_repositories_one_project() {
    let cluster = Cluster::start(1, 1, 0);
    let folder = cluster.hub().parent().unwrap().to_path_buf();
    let path = |name: &str| folder.join(name).display().to_string();
    std::os::unix::fs::symlink(cluster.hub(), folder.join("link.git")).unwrap();
    RepoBuilder::new().bare(true).clone(cluster.hub().to_str().unwrap(), &folder.join("two.git")).unwrap();
    Repository::init(folder.join("checkout")).unwrap();
    for (name, hub, code, reason, says) in [
        ("shop", path("hub.git"), 0, "", ""),
        ("shop", path("link.git"), 0, "", ""),
        ("shop", path("two.git"), 6, "exists", "shop"),
        ("again", path("hub.git"), 6, "exists", "one name"),
        ("again", path("link.git"), 6, "exists", "one name"),
        ("again", path("checkout"), 2, "invalid", "work tree"),
        ("again", path("checkout/.git"), 2, "invalid", "work tree"),
        ("again", path("nothing.git"), 2, "invalid", "nothing.git"),
        ("again", "two.git".to_owned(), 2, "invalid", "absolute"),
        ("../x", path("two.git"), 2, "", ""),
        ("two", path("two.git"), 0, "", ""),
    ] {
        let ran = cluster.ann.run(&["projects", "add", name, "--hub", &hub]);
        assert_eq!(ran.code, code, "{name} {hub}: {ran:?}");
        assert!(reason.is_empty() || ran.stderr.starts_with(&format!("error[{reason}]")), "{name} {hub}: {ran:?}");
        assert!(ran.stderr.contains(says), "{name} {hub}: {ran:?}");
    }
    let listed = cluster.ann.ask(&["projects", "list"]);
    assert_eq!(listed["projects"].as_array().unwrap().len(), 2, "{listed}");
}

#[test]
fn a_worker_comes_in_under_its_own_name_only() {
    let cluster = Cluster::start(1, 1, 0);
    let url = cluster.urls().remove(0);
    let mut worker = Command::new(env!("CARGO_BIN_EXE_autopack"));
    worker.args(["worker", "--name", "x1", "-v", "--supervisor", &url]);
    worker.arg("--root").arg(cluster.roots().join("x1")).env("AUTOPACK_TOKEN", &cluster.worker_token);
    let log = cluster.roots().join("x1.log");
    let file = std::fs::File::create(&log).unwrap();
    worker.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
    let mut running = worker.spawn().unwrap();
    let told = || std::fs::read_to_string(&log).unwrap().contains("this token is for the worker w*, not for x1");
    let seen = until(ONE, told);
    let _gone = running.kill();
    running.wait().unwrap();
    assert!(seen, "{}", std::fs::read_to_string(&log).unwrap());
    let listed = cluster.ann.ask(&["workers", "list"]);
    assert_eq!(listed["workers"].as_array().unwrap().len(), 0, "{listed}");
}

//! Services that are away for longer than anything of ours waits for them, and that come back: as they were, or, with
//! etcd, as they had been once. What was acknowledged stays, what could not be done was said so, and nobody builds twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, test_kill_process};

use super::faults::director;
use super::services::ends;
use super::site::{Cluster, Desk};
use super::{ONE, now, pending, proof, text, until, work};
use crate::harness::Ran;

/// How long PostgreSQL is away: longer than sessions and seats live, and than builders go on by themselves.
const STORE: Duration = Duration::from_secs(30);
/// How long etcd is.
const ETCD: Duration = Duration::from_secs(20);
/// In this time every call is answered, whatever is away.
const ANSWERED: Duration = Duration::from_secs(20);

/// The requests that wait for a run's phases.
fn asks(cluster: &Cluster, run: &str) -> Option<(String, String)> {
    let found = pending(&cluster.ann).into_iter().find(|one| one["run_id"] == run)?;
    Some((text(&found, "request_id").to_owned(), text(&found, "subject_digest").to_owned()))
}

fn approve(desk: &Desk, (id, digest): &(String, String)) -> Ran {
    desk.run(&["approvals", "approve", id, "--expect-digest", digest])
}

/// Submits a run that takes long, and waits until its builder is at work.
fn begin(cluster: &Cluster, run: &str, seconds: u32, seen: &Path) -> Pid {
    cluster.ann.submit(&work::long(run, seconds, seen)).expect(0);
    let mut pid = None;
    let begun = until(ONE, || {
        let text = std::fs::read_to_string(seen).unwrap_or_default();
        pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.is_some()
    });
    assert!(begun, "{run} does not begin:\n{}", cluster.logs());
    pid.unwrap()
}

fn wait_for(since: Instant, lasts: Duration) {
    assert!(until(lasts * 2, || since.elapsed() >= lasts));
}

/// The leases of a run's builds, as attempt and state.
fn builds(cluster: &Cluster, run: &str) -> Vec<String> {
    let of = format!(
        "SELECT doc->>'attempt', state FROM autopack.lease WHERE run_id = '{run}' AND doc->>'purpose' = 'build'"
    );
    cluster.sql(&of)
}

/// Asks all of this at once; each has to be answered in time.
fn answers(desk: &Desk, calls: &[&[&str]]) -> Vec<Ran> {
    let from = now();
    let asked: Vec<_> = calls.iter().map(|call| desk.command(call)).collect();
    let asked: Vec<_> = asked
        .into_iter()
        .map(|mut one| std::thread::spawn(move || crate::harness::ran(&one.output().unwrap())))
        .collect();
    let told = asked.into_iter().map(|one| one.join().unwrap()).collect();
    assert!(from.elapsed() < ANSWERED, "{:?}", from.elapsed());
    told
}

/// Both at once, each in a cluster of its own: most of it is waiting.
#[test]
fn what_is_away_for_long_costs_time_only() {
    std::thread::scope(|scope| {
        scope.spawn(half_a_minute_without_the_store_costs_half_a_minute);
        scope.spawn(etcd_may_be_away_for_long_and_may_come_back_older);
    });
}

fn half_a_minute_without_the_store_costs_half_a_minute() {
    let mut cluster = Cluster::start(1, 2, 2);
    let files = ["told", "asked", "late"].map(|run| work::commands(run, &["one"], 0.1, false));
    for file in &files[..2] {
        cluster.ann.submit(file).expect(0);
    }
    let mut wait = Vec::new();
    for run in ["told", "asked"] {
        assert!(until(ONE, || asks(&cluster, run).is_some()), "{run} does not ask:\n{}", cluster.logs());
        wait.push(asks(&cluster, run).unwrap());
    }
    let seen = cluster.roots().join("builder");
    let builder = begin(&cluster, "slow", 15, &seen);
    // Acknowledged, and the server is gone before anybody can act on it.
    approve(&cluster.bob, &wait[0]).expect(0);
    cluster.postgres.stop(Signal::QUIT);
    let since = now();

    let (id, digest) = &wait[1];
    let late = cluster.folder().join("late.json");
    std::fs::write(&late, files[2].to_string()).unwrap();
    let calls: [&[&str]; 7] = [
        &["approvals", "approve", id, "--expect-digest", digest],
        &["runs", "submit", "--insecure-no-sandbox", late.to_str().unwrap()],
        &["runs", "list"],
        &["runs", "show", "told"],
        &["approvals", "list"],
        &["leases", "list"],
        &["audit", "verify"],
    ];
    for (told, call) in answers(&cluster.bob, &calls).into_iter().zip(calls) {
        assert_eq!(told.code, 7, "{call:?}: {told:?}");
        assert!(told.stderr.starts_with("error[unavailable]"), "{call:?}: {}", told.stderr);
    }
    assert!(until(STORE, || test_kill_process(builder).is_err()), "its builder does not end by itself");
    assert!(since.elapsed() > Duration::from_secs(8), "it was ended");
    wait_for(since, STORE);
    cluster.postgres.resume();

    ends(&cluster, "told");
    assert!(until(ONE, || asks(&cluster, "slow").is_some()), "its result is lost:\n{}", cluster.logs());
    assert_eq!(builds(&cluster, "slow"), ["1|released"], "{}", cluster.logs());
    assert_eq!(asks(&cluster, "asked").as_ref(), Some(&wait[1]), "what was refused was not done");
    cluster.ann.run(&["runs", "show", "late"]).expect(3);
    cluster.ann.submit(&files[2]).expect(0);
    let mut acknowledged = BTreeSet::from([wait[0].0.clone()]);
    for run in ["asked", "slow", "late"] {
        assert!(until(ONE, || asks(&cluster, run).is_some()), "{run} does not ask:\n{}", cluster.logs());
        let request = asks(&cluster, run).unwrap();
        approve(&cluster.bob, &request).expect(0);
        acknowledged.insert(request.0);
        ends(&cluster, run);
    }
    let all = [&files[..], &[work::long("slow", 15, &seen)]].concat();
    proof::of_runs(&cluster, &all);
    proof::of_approvals(&cluster, &acknowledged);
    proof::nothing_is_left(&cluster);
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

fn etcd_may_be_away_for_long_and_may_come_back_older() {
    let mut cluster = Cluster::start(1, 2, 1);
    let files = ["asked", "late", "after"].map(|run| work::commands(run, &["one"], 0.1, false));
    cluster.ann.submit(&files[0]).expect(0);
    assert!(until(ONE, || asks(&cluster, "asked").is_some()), "it does not ask:\n{}", cluster.logs());
    let asked = asks(&cluster, "asked").unwrap();
    let seen = cluster.roots().join("builder");
    begin(&cluster, "slow", 12, &seen);
    // With the lock of a run that will have ended.
    let backup = cluster.folder().join("etcd.db");
    cluster.etcd.snapshot(&backup);
    cluster.etcd.end(0);
    let since = now();
    assert!(until(ANSWERED, || approve(&cluster.bob, &asked).code == 0), "people can decide:\n{}", cluster.logs());
    assert!(until(ANSWERED, || cluster.ann.submit(&files[1]).code == 0), "and submit:\n{}", cluster.logs());
    let leases = || cluster.number("SELECT count(*) FROM autopack.lease");
    let granted = leases();
    let calls: [&[&str]; 3] = [&["runs", "list"], &["approvals", "list"], &["runs", "explain", "late"]];
    for (told, call) in answers(&cluster.ann, &calls).into_iter().zip(calls) {
        assert_eq!(told.code, 0, "{call:?}: {told:?}");
    }
    wait_for(since, ETCD);
    assert_eq!(leases(), granted, "nothing is granted without it");
    cluster.etcd.resume(0);
    assert!(cluster.etcd.ready());
    ends(&cluster, "asked");
    let mut acknowledged = BTreeSet::from([asked.0]);
    let mut approved = |cluster: &Cluster, run: &str| {
        assert!(until(ONE, || asks(cluster, run).is_some()), "{run} does not ask:\n{}", cluster.logs());
        let request = asks(cluster, run).unwrap();
        approve(&cluster.bob, &request).expect(0);
        acknowledged.insert(request.0);
        ends(cluster, run);
    };
    approved(&cluster, "slow");
    assert_eq!(builds(&cluster, "slow"), ["1|released"], "it went on meanwhile:\n{}", cluster.logs());
    approved(&cluster, "late");

    cluster.etcd.end(0);
    cluster.etcd.restore(&backup);
    cluster.etcd.resume(0);
    assert!(cluster.etcd.ready());
    assert_eq!(cluster.etcd_keys("/autopack/v1/autopack/locks/run").len(), 1, "the lock of a run that has ended");
    assert!(until(ONE, || cluster.ann.submit(&files[2]).code == 0), "{}", cluster.logs());
    approved(&cluster, "after");
    assert!(!director(&cluster).is_empty());
    let all = [&files[..], &[work::long("slow", 12, &seen)]].concat();
    proof::of_runs(&cluster, &all);
    proof::of_approvals(&cluster, &acknowledged);
    proof::nothing_is_left(&cluster);
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

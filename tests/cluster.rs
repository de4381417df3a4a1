//! A cluster of real processes: what a person sees of it, who gets in, and that it survives the loss of every part
//! (`coordination.md` P1 to P12).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use self::approver::Approver;
use self::site::{Cluster, Desk};

mod approver;
mod faults;
mod incarnation;
mod kinds;
mod names;
mod net;
mod operate;
mod outages;
mod partition;
mod process;
mod proof;
mod quality;
mod quarantine;
mod run_data;
mod server;
mod services;
mod silent;
mod site;
mod slots;
mod stranger;
mod surveys;
mod telemetry;
mod uploads;
mod work;

/// How long twenty runs may take, all faults included.
const ALL: Duration = Duration::from_secs(240);
/// How long one run may take on a machine that does much else.
const ONE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// Looks until something holds, or for as long as it may take; whether it came to hold.
fn until(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let from = now();
    while from.elapsed() < patience {
        if holds() {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    holds()
}

#[expect(clippy::disallowed_methods, reason = "a deadline of a test, in real time")]
fn now() -> Instant {
    Instant::now()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

/// The requests that wait.
fn pending(desk: &Desk) -> Vec<Value> {
    desk.ask(&["approvals", "list"])["requests"].as_array().unwrap().clone()
}

#[test]
fn a_run_goes_through_a_cluster() {
    let cluster = Cluster::start(1, 1, 1);
    let file = work::commands("first", &["one"], 0.1, false);
    cluster.ann.submit(&file).expect(0);
    assert!(until(ONE, || !pending(&cluster.ann).is_empty()), "nobody asks:\n{}", cluster.logs());
    let request = pending(&cluster.ann).remove(0);
    let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
    let approve = ["approvals", "approve", id, "--expect-digest", digest, "--reason", "read it"];
    let own = cluster.ann.run(&approve).expect(5);
    assert!(own.stderr.starts_with("error[sod_self_approval]"), "{}", own.stderr);
    cluster.bob.run(&approve).expect(0);
    let done = || cluster.ann.ask(&["runs", "show", "first"])["state"] == "SUCCEEDED";
    assert!(until(ONE, done), "it does not end:\n{}", cluster.logs());
    proof::is_applied_once(&cluster.hub(), &file);
    // The worker had the commit from the supervisor: its mirror borrows from nobody.
    let mirror = cluster.roots().join("w1/mirrors/shop/mirror.git");
    assert!(mirror.join("objects").is_dir() && !mirror.join("objects/info/alternates").exists());
    let diff = cluster.ann.run(&["runs", "diff", "first"]).expect(0).stdout;
    assert!(diff.contains("+++ b/examples/first-one.md"), "{diff}");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_door_is_closed_without_a_token() {
    let cluster = Cluster::start(1, 1, 0);
    let file = work::patch("r1");
    let unknown = format!("ap_{}", "0".repeat(64));
    for token in [None, Some(unknown.as_str()), Some(cluster.worker_token.as_str())] {
        let stranger = cluster.ann.with(token);
        let submitted = stranger.submit(&file).expect(5);
        assert!(submitted.stderr.starts_with("error[forbidden"), "{token:?}: {}", submitted.stderr);
        let looks: [&[&str]; 5] =
            [&["runs", "list"], &["approvals", "list"], &["workers", "list"], &["audit", "query"], &["gaps", "scan"]];
        for look in looks {
            let looked = stranger.run(look).expect(5);
            assert!(looked.stdout.is_empty() && looked.stderr.starts_with("error[forbidden"), "{}", looked.stderr);
        }
    }
    assert_eq!(cluster.ann.ask(&["runs", "list"])["runs"], json!([]));
    let (from, alone) = (now(), cluster.ann.run(&["gaps", "scan"]).expect(7));
    assert!(alone.stderr.starts_with("error[no_worker]"), "{}", alone.stderr);
    assert!(from.elapsed() < Duration::from_secs(20), "nobody is waited for: {:?}", from.elapsed());
}

#[test]
fn twenty_runs_survive_the_loss_of_every_part() {
    let mut cluster = Cluster::start(3, 2, 3);
    let files = work::twenty();
    let begin = now();
    let approver = Approver::start(cluster.bob.clone());
    let hits = faults::happen(&mut cluster, &files);
    let fallen = begin.elapsed();
    let ended = || cluster.number("SELECT count(*) FROM autopack.run WHERE state = 'succeeded'") == 20;
    let all = until(ALL.saturating_sub(fallen), ended);
    let seen = approver.stop();
    if !all {
        let states = "SELECT r.id, r.state, p.id, p.state, p.doc FROM autopack.run r JOIN autopack.phase p ON \
                      p.run_id = r.id WHERE r.state <> 'succeeded'";
        panic!("not all succeeded: {:#?}\n{}", cluster.sql(states), cluster.logs());
    }
    println!("20 runs in {:.1?}, faults over after {fallen:.1?}; {seen}", begin.elapsed());
    proof::of_runs(&cluster, &files);
    proof::of_approvals(&cluster, &seen.acknowledged);
    proof::of_leases(&cluster, seen.most_leases);
    proof::nothing_is_left(&cluster);
    cluster.ann.run(&["audit", "verify"]).expect(0);
    faults::tell(&cluster, &hits);
}

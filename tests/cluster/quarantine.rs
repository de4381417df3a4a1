//! A sandbox that is weakened while its worker runs: found at the next self-test, and nothing more is granted.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::site::{Cluster, Size};
use super::{ONE, text, until, work};

/// A bubblewrap that leaves a namespace out.
const WEAK: &str = "#!/bin/sh\nfor word do shift; [ \"$word\" = --unshare-ipc ] || set -- \"$@\" \"$word\"; done\n\
                    exec /usr/bin/bwrap \"$@\"\n";

/// Puts a program in the place of another at once, as an update does.
fn install(place: &Path, bytes: &[u8]) {
    let new = place.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, place).unwrap();
}

fn worker(cluster: &Cluster) -> Value {
    cluster.ann.ask(&["workers", "list"])["workers"][0].clone()
}

/// The epoch of the run's open lease; none where it has none.
fn lease(cluster: &Cluster) -> Option<u64> {
    cluster.ann.ask(&["leases", "list", "--run-id", "confined"])["leases"][0]["epoch"].as_u64()
}

#[test]
fn a_sandbox_that_is_weakened_is_found_and_gets_no_more_work() {
    let programs = tempfile::tempdir().unwrap();
    std::fs::set_permissions(programs.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let bwrap = programs.path().join("bwrap");
    let good = std::fs::read("/usr/bin/bwrap").unwrap();
    install(&bwrap, &good);
    let env = [
        ("PATH".to_owned(), format!("{}:/usr/bin:/bin", programs.path().display())),
        ("AUTOPACK_WORKER_SANDBOX_SELFTEST_SECONDS".to_owned(), "2".to_owned()),
    ];
    let cluster = Cluster::start_with(&Size { members: 1, supervisors: 1, workers: 1 }, &env);
    let before = worker(&cluster);
    assert_eq!((text(&before, "sandbox_level"), text(&before, "state")), ("S3", "LIVE"), "{before}");
    assert!(text(&before, "sandbox_digest").starts_with("sha256:"), "{before}");
    let file = cluster.folder().join("confined.json");
    std::fs::write(&file, work::commands("confined", &["one"], 1000.0, false).to_string()).unwrap();
    cluster.ann.run(&["runs", "submit", file.to_str().unwrap()]).expect(0);
    assert!(until(ONE, || lease(&cluster).is_some()), "it is not granted:\n{}", cluster.logs());
    let epoch = lease(&cluster).unwrap();
    // As long as it holds, it is measured again and again, and nothing happens.
    let measured = || worker(&cluster)["sandbox_measured_ms"].as_i64();
    assert!(until(ONE, || measured() > before["sandbox_measured_ms"].as_i64()), "{}", worker(&cluster));
    assert_eq!((lease(&cluster), text(&worker(&cluster), "state")), (Some(epoch), "LIVE"));

    install(&bwrap, WEAK.as_bytes());
    let found = || worker(&cluster)["state"] == "QUARANTINED";
    assert!(until(ONE, found), "nobody notices: {}\n{}", worker(&cluster), cluster.logs());
    let after = worker(&cluster);
    assert_eq!(text(&after, "sandbox_level"), "S1", "{after}");
    assert!(text(&after, "quarantine").contains("shared_memory"), "{after}");
    assert_ne!(text(&after, "sandbox_digest"), text(&before, "sandbox_digest"));
    assert!(until(ONE, || lease(&cluster).is_none()), "it keeps its lease:\n{}", cluster.logs());
    let told = cluster.ann.run(&["workers", "list"]).expect(0);
    assert!(told.stdout.contains("QUARANTINED"), "{}", told.stdout);
    assert!(
        told.stderr.contains("w1 gets nothing that needs a sandbox: its sandbox fell from S3 to S1"),
        "{}",
        told.stderr
    );
    let explained = || cluster.ann.run(&["runs", "explain", "confined"]).stdout;
    assert!(until(ONE, || explained().contains("sandbox_too_weak")), "{}", explained());
    // Some more self-tests go by, and nothing is granted.
    let fallen = measured();
    assert!(until(ONE, || measured() > fallen), "it is not measured again:\n{}", cluster.logs());
    assert_eq!((lease(&cluster), text(&worker(&cluster), "state")), (None, "QUARANTINED"));

    install(&bwrap, &good);
    let again = || lease(&cluster) > Some(epoch);
    assert!(until(ONE, again), "it gets nothing though it holds: {}\n{}", worker(&cluster), cluster.logs());
    assert_eq!((text(&worker(&cluster), "sandbox_level"), text(&worker(&cluster), "state")), ("S3", "LIVE"));
    let revoked = cluster.ann.run(&["audit", "query", "--op", "lease.revoked", "-o", "json"]).expect(0).stdout;
    assert!(revoked.contains("quarantined"), "{revoked}");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

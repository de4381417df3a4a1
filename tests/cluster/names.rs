//! Two workers under one name: one of them works, and the other one waits until the first is gone.

use std::process::{Command, Stdio};

use super::services::ends;
use super::site::Cluster;
use super::{ONE, until, work};

#[test]
fn of_two_workers_with_one_name_one_works() {
    let mut cluster = Cluster::start(1, 2, 1);
    let log = cluster.roots().join("twin.log");
    let file = std::fs::File::create(&log).unwrap();
    let mut twin = Command::new(env!("CARGO_BIN_EXE_autopack"));
    twin.args(["worker", "--name", "w1", "-v"]).arg("--root").arg(cluster.roots().join("twin"));
    // At the other supervisor: names are of the cluster.
    twin.args(["--supervisor", &cluster.url(1)]).env_clear().env("PATH", "/usr/bin:/bin");
    twin.env("AUTOPACK_TOKEN", &cluster.worker_token).stdin(Stdio::null()).stdout(file.try_clone().unwrap());
    let mut twin = twin.stderr(file).spawn().unwrap();
    let told = || std::fs::read_to_string(&log).unwrap();
    let refused = until(ONE, || told().contains("run_locked"));
    let listed = cluster.ann.ask(&["workers", "list"]);
    cluster.ann.submit(&work::patch("first")).expect(0);
    ends(&cluster, "first");
    cluster.workers[0].kill();
    cluster.ann.submit(&work::patch("second")).expect(0);
    let done = until(ONE, || cluster.ann.ask(&["runs", "show", "second"])["state"] == "SUCCEEDED");
    let _gone = twin.kill();
    twin.wait().unwrap();
    assert!(refused, "{}", told());
    assert_eq!(listed["workers"].as_array().unwrap().len(), 1, "{listed}");
    assert!(done, "the twin does not come in:\n{}\n{}", told(), cluster.logs());
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

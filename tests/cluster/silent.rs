//! A hub that takes a question and never answers it: a file of its is a pipe that nobody writes to. And a supervisor that
//! says nothing for longer than builders may go on, and for less than they may live.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use git2::build::RepoBuilder;

use super::services::{ends, submit_to};
use super::site::Cluster;
use super::{ONE, now, until, work};

/// Puts a pipe in a file's place; what was there is put back, and who waits at the pipe is let go, when it is dropped.
struct Pipe<'a>(&'a Path);

impl<'a> Pipe<'a> {
    fn instead_of(file: &'a Path) -> Self {
        std::fs::rename(file, file.with_extension("kept")).unwrap();
        assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
        Self(file)
    }
}

impl Drop for Pipe<'_> {
    fn drop(&mut self) {
        let pipe = self.0.with_extension("pipe");
        std::fs::rename(self.0, &pipe).unwrap();
        std::fs::rename(self.0.with_extension("kept"), self.0).unwrap();
        // Nobody may be waiting.
        let _gone = OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(pipe);
    }
}

#[test]
fn a_hub_that_hangs_keeps_no_other_project_out() {
    let mut cluster = Cluster::start(1, 1, 1);
    let other = cluster.hub().with_file_name("other.git");
    RepoBuilder::new().bare(true).clone(cluster.hub().to_str().unwrap(), &other).unwrap();
    cluster.ann.run(&["projects", "add", "other", "--hub", other.to_str().unwrap()]).expect(0);
    cluster.supervisors[0].kill();
    let config = cluster.hub().join("config");
    let pipe = Pipe::instead_of(&config);
    cluster.supervisors[0].revive();
    cluster.supervisors[0].is_up();
    submit_to(&cluster, "other", &work::patch("second")).expect(0);
    ends(&cluster, "second");
    let from = now();
    for _ in 0..3 {
        let refused = submit_to(&cluster, "shop", &work::patch("first")).expect(7);
        assert!(refused.stderr.starts_with("error[hub_unavailable]"), "{}", refused.stderr);
    }
    assert!(from.elapsed() < ONE, "nobody waits for ever");
    drop(pipe);
    assert!(until(ONE, || submit_to(&cluster, "shop", &work::patch("first")).code == 0), "{}", cluster.logs());
    ends(&cluster, "first");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_hub_that_hangs_keeps_no_grant_of_another_project_from_a_worker() {
    let mut cluster = Cluster::start(1, 2, 0);
    let director = cluster.director();
    let other = 1 - director;
    let ann = cluster.ann.at(cluster.url(director));
    let second = cluster.hub().with_file_name("other.git");
    RepoBuilder::new().bare(true).clone(cluster.hub().to_str().unwrap(), &second).unwrap();
    ann.run(&["projects", "add", "other", "--hub", second.to_str().unwrap()]).expect(0);
    cluster.join("w1", other);
    let there = || ann.ask(&["workers", "list"])["workers"].as_array().unwrap().len() == 1;
    assert!(until(ONE, there), "no worker comes:\n{}", cluster.logs());
    // It gets a lease of the first project while its supervisor, which never opened that, sees nothing.
    cluster.supervisors[other].freeze();
    let run = |project: &str, file: &serde_json::Value| {
        let path = cluster.hub().with_file_name(format!("{project}.json"));
        std::fs::write(&path, file.to_string()).unwrap();
        let file = path.to_str().unwrap();
        ann.run(&["runs", "submit", "--insecure-no-sandbox", "--project", project, file]).expect(0);
    };
    run("shop", &work::patch("first"));
    let held = || cluster.number("SELECT count(*) FROM autopack.lease WHERE run_id = 'first' AND state = 'held'") == 1;
    let granted = until(ONE, held);
    let config = cluster.hub().join("config");
    let pipe = Pipe::instead_of(&config);
    cluster.supervisors[other].thaw();
    assert!(granted, "it is not granted:\n{}", cluster.logs());
    run("other", &work::patch("second"));
    let done = || ann.ask(&["runs", "show", "second"])["state"] == "SUCCEEDED";
    assert!(until(ONE, done), "it waits for what it does not need:\n{}", cluster.logs());
    let leases = cluster.number("SELECT count(*) FROM autopack.lease WHERE run_id = 'second'");
    assert_eq!(leases, 1, "it was brought the first time:\n{}", cluster.logs());
    drop(pipe);
    ends(&cluster, "first");
}

/// The state of a process, as `/proc` has it: `T` where it is stopped.
fn state_of(pid: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().unwrap_or_default().chars().take(1).collect()
}

#[test]
fn builders_stand_still_while_nothing_is_heard() {
    let cluster = Cluster::start(1, 1, 1);
    let seen = cluster.roots().join("builder");
    cluster.ann.submit(&work::long("slow", 15, &seen)).expect(0);
    assert!(until(ONE, || std::fs::read_to_string(&seen).is_ok_and(|pid| pid.ends_with('\n'))), "{}", cluster.logs());
    let pid = std::fs::read_to_string(&seen).unwrap().trim().to_owned();
    assert_eq!(state_of(&pid), "S");
    cluster.supervisors[0].freeze();
    let frozen = until(ONE, || state_of(&pid) == "T" || state_of(&pid).is_empty());
    let stopped = state_of(&pid);
    cluster.supervisors[0].thaw();
    assert!(frozen && stopped == "T", "it goes on: {stopped:?}\n{}", cluster.logs());
    assert!(until(ONE, || state_of(&pid) != "T"), "it stays frozen:\n{}", cluster.logs());
    assert!(until(ONE, || !super::pending(&cluster.ann).is_empty()), "it does not end:\n{}", cluster.logs());
    assert_eq!(cluster.ann.ask(&["runs", "show", "slow"])["phases"][0]["attempt"], 1, "it was the same builder");
}

//! Partitions, one after another, each while work is under way, and what each may cost: a worker cut from the
//! supervisors, the director cut from etcd or from PostgreSQL alone, either service away for everybody. Every daemon's
//! wall clock is off, some by a day: nothing may depend on one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};
use serde_json::Value;

use super::approver::Approver;
use super::faults::director;
use super::net::Net;
use super::site::{Apart, Cluster, Size};
use super::{ALL, now, proof, until, work};

/// How long anything may take to happen at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// A director that lost something is replaced in this time (`coordination.md` P11).
const REPLACED: Duration = Duration::from_secs(20);
/// The run of a worker that is gone is granted again in this time.
const GRANTED: Duration = Duration::from_secs(25);
/// A worker's own limit, and what it may take to end its builder.
const SELF: Duration = Duration::from_secs(14);

/// How long a long cut is: seconds in `AUTOPACK_TEST_CUT` (60 in the long profile), longer than any limit.
fn long_cut() -> Duration {
    let told = std::env::var_os("AUTOPACK_TEST_CUT");
    let seconds = |told: OsString| told.to_str().and_then(|told| told.parse().ok());
    Duration::from_secs(told.map_or(15, |told| seconds(told).expect("AUTOPACK_TEST_CUT is a number of seconds")))
}

/// A cluster in a network, and what it was given to do.
struct Scene {
    net: Net,
    cluster: Cluster,
    waves: std::vec::IntoIter<Vec<Value>>,
    files: Vec<Value>,
    seen: PathBuf,
    told: Vec<String>,
}

/// One lease of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lease {
    worker: String,
    epoch: String,
    attempt: String,
    state: String,
}

#[test]
fn runs_survive_partitions() {
    let mut net = Net::new();
    for place in ["etcd", "pg", "s1", "s2", "w1", "w2", "w3"] {
        net.add(place);
    }
    let tools = tempfile::tempdir().unwrap();
    let library = skewer(tools.path());
    let env = |name: &str| {
        let seconds = match name {
            "s1" | "w2" => "86400",
            "s2" | "w1" => "-86400",
            _ => "3600",
        };
        let library = library.display().to_string();
        vec![("LD_PRELOAD".to_owned(), library), ("SKEW_SECONDS".to_owned(), seconds.to_owned())]
    };
    let size = Size { members: 3, supervisors: 2, workers: 3 };
    let cluster = Cluster::apart(&size, &Apart { net: &net, env: &env });
    clocks_are_a_day_apart(&cluster);
    let waves: Vec<Vec<Value>> = work::twenty().chunks(3).map(<[Value]>::to_vec).collect();
    let seen = tools.path().to_path_buf();
    let mut scene = Scene { net, cluster, waves: waves.into_iter(), files: Vec::new(), seen, told: Vec::new() };

    let begin = now();
    let approver = Approver::start(scene.cluster.bob.clone());
    scene.a_worker_is_cut_for_a_moment();
    scene.a_worker_is_cut_for_long();
    scene.the_director_is_cut_from_etcd();
    scene.the_director_is_cut_from_the_store();
    scene.the_store_is_away_for_everybody();
    scene.etcd_is_away_for_everybody();
    while scene.wave() {}
    let (cluster, files) = (&scene.cluster, &scene.files);
    let all = files.len();
    let ended = || cluster.number("SELECT count(*) FROM autopack.run WHERE state = 'succeeded'") == all as i64;
    let over = until(ALL, ended);
    let seen = approver.stop();
    assert!(over, "not all succeeded: {:#?}\n{}", cluster.sql("SELECT id, state FROM autopack.run"), cluster.logs());
    println!("{all} runs in {:.1?}; {seen}", begin.elapsed());
    proof::of_runs(cluster, files);
    proof::of_approvals(cluster, &seen.acknowledged);
    proof::of_leases(cluster, seen.most_leases);
    proof::nothing_is_left(cluster);
    heartbeats_are_not_written(cluster);
    cluster.ann.run(&["audit", "verify"]).expect(0);
    for told in &scene.told {
        println!("  {told}");
    }
    let ended = "SELECT coalesce(doc->>'reason', 'done'), state, count(*) FROM autopack.lease GROUP BY 1, 2 ORDER BY 3";
    println!("how the leases ended: {:?}", cluster.sql(ended));
}

impl Scene {
    /// Submits the next few runs; false when there are no more.
    fn wave(&mut self) -> bool {
        let Some(wave) = self.waves.next() else { return false };
        wave.into_iter().for_each(|file| self.submit(file));
        true
    }

    fn submit(&mut self, file: Value) {
        // Said again, a submission attaches to the run that is there.
        let submitted = until(PATIENCE, || self.cluster.ann.submit(&file).code == 0);
        assert!(submitted, "{file} cannot be submitted:\n{}", self.cluster.logs());
        self.files.push(file);
    }

    /// Gives everybody something to do, submits a run that takes long, and waits until its builder is at work.
    fn long(&mut self, run: &str, seconds: u32) -> (Lease, Pid) {
        self.wave();
        let seen = self.seen.join(run);
        self.submit(work::long(run, seconds, &seen));
        let mut pid = None;
        let begun = until(PATIENCE, || {
            let text = std::fs::read_to_string(&seen).unwrap_or_default();
            pid = text.trim().parse().ok().and_then(Pid::from_raw);
            pid.is_some()
        });
        assert!(begun, "{run} does not begin:\n{}", self.cluster.logs());
        (self.leases(run).pop().unwrap(), pid.unwrap())
    }

    /// The leases of a run's builds, oldest first.
    fn leases(&self, run: &str) -> Vec<Lease> {
        let query = format!(
            "SELECT doc->>'worker', doc->>'epoch', doc->>'attempt', state FROM autopack.lease WHERE run_id = '{run}' \
             AND doc->>'purpose' = 'build' ORDER BY (doc->>'epoch')::bigint"
        );
        let lease = |row: String| {
            let [worker, epoch, attempt, state] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
            Lease { worker: worker.into(), epoch: epoch.into(), attempt: attempt.into(), state: state.into() }
        };
        self.cluster.sql(&query).into_iter().map(lease).collect()
    }

    fn cut(&self, one: &str, others: &[&str]) -> Instant {
        others.iter().for_each(|other| self.net.cut(one, other));
        now()
    }

    /// Waits until a cut has lasted, and ends it.
    fn heal(&self, since: Instant, lasts: Duration, one: &str, others: &[&str]) {
        assert!(until(lasts * 2, || since.elapsed() >= lasts));
        others.iter().for_each(|other| self.net.heal(one, other));
    }

    /// Waits until something is so, and says how long after the fault that was.
    fn within(&mut self, what: &str, since: Instant, limit: Duration, holds: impl Fn(&Self) -> bool) {
        let came = until(PATIENCE + limit, || holds(self));
        let took = since.elapsed();
        assert!(came, "{what}: never:\n{}", self.cluster.logs());
        assert!(took <= limit, "{what}: after {took:.1?}, and not within {limit:?}:\n{}", self.cluster.logs());
        self.told.push(format!("{what}: after {took:.1?}"));
    }

    /// Waits until a run has succeeded on the very lease it had: nothing was lost and nothing done twice.
    fn went_on(&self, run: &str, before: &Lease) {
        let state = || self.cluster.sql(&format!("SELECT state FROM autopack.run WHERE id = '{run}'"));
        assert!(until(PATIENCE, || state() == ["succeeded"]), "{run}: {:?}\n{}", state(), self.cluster.logs());
        let mut released = before.clone();
        "released".clone_into(&mut released.state);
        let history = || self.cluster.ann.run(&["runs", "logs", run]).stdout;
        let logs = || self.cluster.logs();
        assert_eq!(self.leases(run), [released], "the same epoch and attempt:\n{}{}", history(), logs());
    }

    fn a_worker_is_cut_for_a_moment(&mut self) {
        let (lease, pid) = self.long("moment", 10);
        let worker = lease.worker.clone();
        let since = self.cut(&worker, &["s1", "s2"]);
        self.heal(since, Duration::from_secs(5), &worker, &["s1", "s2"]);
        assert!(test_kill_process(pid).is_ok(), "its builder runs through");
        self.went_on("moment", &lease);
        self.told.push(format!("{worker} cut from the supervisors for 5 s: same epoch, same attempt"));
    }

    fn a_worker_is_cut_for_long(&mut self) {
        let (lease, pid) = self.long("cut", 90);
        let (worker, lasts) = (lease.worker.clone(), long_cut());
        let since = self.cut(&worker, &["s1", "s2"]);
        self.within("its builder is ended", since, SELF, |_| test_kill_process(pid).is_err());
        if lasts >= GRANTED {
            self.within("its run is granted again", since, GRANTED, |scene| scene.leases("cut").len() > 1);
            self.heal(since, lasts, &worker, &["s1", "s2"]);
        } else {
            self.heal(since, lasts, &worker, &["s1", "s2"]);
            self.within("its run is granted again", since, GRANTED, |scene| scene.leases("cut").len() > 1);
        }
        assert_eq!(self.leases("cut")[0], Lease { state: "expired".to_owned(), ..lease });
        self.told.push(format!("{worker} was cut from the supervisors for {lasts:?}"));
    }

    /// The director loses one service, another one takes over, work goes on.
    fn the_director_loses(&mut self, run: &str, service: &str) {
        let (lease, _) = self.long(run, 20);
        let old = director(&self.cluster);
        let (lasts, other) = (long_cut(), if old == "s1" { "s2" } else { "s1" });
        let since = self.cut(&old, &[service]);
        self.within(&format!("{old} cut from {service}: {other} directs"), since, REPLACED, |scene| {
            director(&scene.cluster) == other
        });
        self.heal(since, lasts, &old, &[service]);
        let grants = "SELECT count(*) FROM autopack.lease";
        let before = self.cluster.number(grants);
        self.submit(work::patch(&format!("{run}-next")));
        let next = now();
        self.within(&format!("a grant by {other}"), next, REPLACED, |scene| scene.cluster.number(grants) > before);
        self.went_on(run, &lease);
    }

    fn the_director_is_cut_from_etcd(&mut self) {
        self.the_director_loses("no-etcd", "etcd");
    }

    fn the_director_is_cut_from_the_store(&mut self) {
        self.the_director_loses("no-store", "pg");
    }

    /// Longer than a worker's own limit: its supervisor answers, so it goes on, and nothing it has to say is lost.
    fn the_store_is_away_for_everybody(&mut self) {
        let (lease, pid) = self.long("storeless", 6);
        let lasts = long_cut();
        let since = self.cut("pg", &["s1", "s2"]);
        self.within("PostgreSQL is away, and a builder runs to its end", since, PATIENCE, |_| {
            test_kill_process(pid).is_err()
        });
        self.heal(since, lasts, "pg", &["s1", "s2"]);
        let back = now();
        self.went_on("storeless", &lease);
        self.told.push(format!("PostgreSQL was away for {lasts:?}; its result counted {:.1?} after", back.elapsed()));
    }

    /// Without a quorum nothing new is granted, and what is under way goes on (`coordination.md` 3.13).
    fn etcd_is_away_for_everybody(&mut self) {
        let lasts = long_cut();
        let (lease, _) = self.long("quorumless", 8 + u32::try_from(lasts.as_secs()).unwrap());
        let leader = self.cluster.etcd.leader();
        let frozen = [leader, (leader + 1) % 3];
        frozen.iter().for_each(|node| self.cluster.etcd.freeze(*node));
        let since = now();
        assert!(until(lasts * 2, || since.elapsed() >= lasts));
        frozen.iter().for_each(|node| self.cluster.etcd.thaw(*node));
        self.went_on("quorumless", &lease);
        self.told.push(format!("etcd without a quorum for {lasts:?}: same epoch, same attempt"));
    }
}

/// Nobody has anything to do, and every worker says twice that it is there: not one commit.
fn heartbeats_are_not_written(cluster: &Cluster) {
    let commits = || cluster.number("SELECT sum(commits) FROM autopack.clock");
    let before = commits();
    assert!(!until(Duration::from_secs(5), || commits() != before), "something is written while nothing happens");
}

/// Makes the library that gives a process another wall clock.
fn skewer(folder: &Path) -> PathBuf {
    let library = folder.join("skew.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/cluster/skew.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.expect("a C compiler is needed").success());
    library
}

/// The supervisors themselves say so, in what they tell etcd of themselves.
fn clocks_are_a_day_apart(cluster: &Cluster) {
    let started = |id: &str| {
        let mut found = None;
        let told = until(PATIENCE, || {
            let keys = cluster.etcd_keys(&format!("/autopack/v1/autopack/supervisors/{id}"));
            let value: Option<Value> = keys.first().map(|(_, value)| serde_json::from_str(value).unwrap());
            found = value.and_then(|value| value["started"].as_i64());
            found.is_some()
        });
        assert!(told, "{id} is not in etcd:\n{}", cluster.logs());
        found.unwrap()
    };
    let apart = started("s1") - started("s2");
    assert!(apart > 86_400_000, "the clocks of the supervisors are {apart} ms apart");
}

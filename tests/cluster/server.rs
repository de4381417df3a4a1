//! Runs whose hub is on a git server, the only thing that the supervisors share of it; and the director that is killed
//! while the server works on its push.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use git2::Repository;
use rustix::process::{Pid, Signal, kill_process_group};

use super::approver::Approver;
use super::faults::director;
use super::site::Cluster;
use super::{ALL, ONE, proof, until, work};

/// `git daemon` over a folder.
pub(super) struct GitServer {
    child: Child,
    port: u16,
}

impl GitServer {
    pub(super) fn start(folder: &Path) -> Self {
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = Command::new("git");
            command.args(["daemon", "--export-all", "--enable=receive-pack", "--listen=127.0.0.1"]);
            command.arg(format!("--port={port}")).arg(format!("--base-path={}", folder.display())).arg(folder);
            command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").process_group(0);
            let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let answers = || TcpStream::connect(("127.0.0.1", port)).is_ok();
            if until(ONE, || answers() || child.try_wait().unwrap().is_some()) && child.try_wait().unwrap().is_none() {
                return Self { child, port };
            }
        }
        panic!("git daemon does not start");
    }

    pub(super) fn address(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        let _gone = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _reaped = self.child.wait();
    }
}

/// Makes the server take its time with each move of a run's branch, and say that it does.
const SLOW: &str = "#!/bin/sh\nif grep -q ' refs/heads/autopack/'; then touch \"$GIT_DIR/moving\"; sleep 1; fi\n";

#[test]
fn a_hub_on_a_git_server_outlives_its_director() {
    let mut cluster = Cluster::served(1, 2, 2);
    let listed = cluster.ann.run(&["projects", "list"]).expect(0).stdout;
    assert!(listed.contains("remote") && listed.contains("git://127.0.0.1:"), "{listed}");
    let (hook, moving) = (cluster.hub().join("hooks/pre-receive"), cluster.hub().join("moving"));
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, SLOW).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();

    let name = director(&cluster);
    let at = cluster.supervisors.iter().position(|one| one.name == name).unwrap();
    let other = 1 - at;
    // The one that will take over starts with nothing of the hub's.
    cluster.supervisors[other].kill();
    let cold = cluster.state_of(other).join("hubs/shop.git");
    drop(std::fs::remove_dir_all(&cold));

    let approver = Approver::start(cluster.bob.clone());
    let files = [
        work::patch("p1"),
        work::commands("c1", &["one", "two"], 0.3, true),
        work::patch("p2"),
        work::commands("c2", &["one"], 0.3, false),
    ];
    for file in &files {
        assert!(until(ONE, || cluster.ann.submit(file).code == 0), "{file} cannot be submitted");
    }
    let applied = "SELECT count(*) FROM autopack.apply WHERE state = 'committed'";
    assert!(until(ONE, || cluster.number(applied) > 0), "nothing is applied:\n{}", cluster.logs());
    assert!(!cold.exists());
    drop(std::fs::remove_file(&moving));
    assert!(until(ONE, || moving.exists()), "nothing is pushed:\n{}", cluster.logs());
    cluster.supervisors[at].kill();
    cluster.supervisors[other].revive();

    let ended = || cluster.number("SELECT count(*) FROM autopack.run WHERE state = 'succeeded'") == 4;
    assert!(until(ALL, ended), "not all succeeded:\n{}", cluster.logs());
    let seen = approver.stop();
    assert!(cold.join("objects").is_dir());
    proof::of_runs(&cluster, &files);
    proof::of_approvals(&cluster, &seen.acknowledged);
    let hub = Repository::open(cluster.hub()).unwrap();
    let pending = || hub.references_glob("refs/autopack/q/*").unwrap().count();
    assert!(until(ONE, || pending() == 0), "{} pending results are left", pending());
    let nowhere = cluster.ann.run(&["gaps", "scan", "--at", "0123456789012345678901234567890123456789"]).expect(3);
    assert!(nowhere.stderr.starts_with("error[not_found]"), "{}", nowhere.stderr);
    // Landing moves the branch on the server, by the supervisor that directs now.
    cluster.ann.run(&["runs", "land", "p1"]).expect(0);
    let (main, run) = (hub.refname_to_id("refs/heads/main"), hub.refname_to_id("refs/heads/autopack/p1"));
    assert_eq!(main.unwrap(), run.unwrap());
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn an_address_that_cannot_be_a_hub_is_not_added() {
    let cluster = Cluster::start(1, 1, 0);
    let add = |repo: &str| cluster.ann.run(&["projects", "add", "other", "--repo", repo]);
    for bad in ["ext::sh -c true", "https://bot:s3cret@git.example.com/x.git", "--upload-pack=x", "shop.git"] {
        let ran = add(bad);
        assert!(ran.code == 2 && !ran.stderr.contains("s3cret"), "{bad}: {}", ran.stderr);
    }
    let gone = add("git://127.0.0.1:1/x.git").expect(7).stderr;
    assert!(gone.starts_with("error[hub_unavailable]"), "{gone}");
    let ssh = add("git@127.0.0.1:x.git").expect(78).stderr;
    assert!(ssh.contains("ssh_key"), "{ssh}");
    Repository::open(cluster.hub()).unwrap().config().unwrap().set_bool("receive.advertiseAtomic", false).unwrap();
    let unfit = add(&format!("file://{}", cluster.hub().display())).expect(2).stderr;
    assert!(unfit.starts_with("error[hub_unfit]") && unfit.contains("receive.advertiseAtomic"), "{unfit}");
    assert_eq!(cluster.ann.ask(&["projects", "list"])["projects"].as_array().unwrap().len(), 1);
}

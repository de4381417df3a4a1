//! Several commands at once on one data directory: one owns the engine, the others attach over its socket, and when it
//! is killed one of those that drive takes over and goes on.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Bench, SITE};

const RUN: &[&str] = &["autopilot", "run", "--enable", "--no-wait", "--run-id", "k"];

/// A gate that waits until it is let go: what is under way stays so, however long the others need.
const GATE: &str = "[policy]\nextends = \"autopack\"\n\n[[gate.commands]]\nname = \"go\"\nrun = \"until [ -e {go} ]; do sleep 0.02; done\"\n";

/// A command that was started, and what it says.
struct Started {
    child: Child,
    said: std::io::Lines<BufReader<ChildStderr>>,
}

impl Drop for Started {
    fn drop(&mut self) {
        // One that has ended already is no error.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Started {
    fn new(bench: &Bench, args: &[&str]) -> Self {
        let mut command: Command = bench.command(&bench.repo());
        let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, said }
    }

    /// Waits until it says something; nextest ends a test that waits for ever.
    fn until(&mut self, words: &str) {
        let mut all = Vec::new();
        for line in self.said.by_ref() {
            let line = line.unwrap();
            if line.contains(words) {
                return;
            }
            all.push(line);
        }
        panic!("it never said {words:?}:\n{}", all.join("\n"));
    }

    /// Waits for its end.
    fn code(mut self) -> Option<i32> {
        // Read to the end, or a full pipe would hold it up.
        for line in self.said.by_ref() {
            line.unwrap();
        }
        self.child.wait().unwrap().code()
    }

    fn kill_9(&mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }
}

/// A site whose gate waits for the file `go` beside the home.
fn gated() -> Bench {
    let bench = Bench::with(SITE);
    let go = bench.path().join("shared/go");
    std::fs::create_dir(bench.path().join("shared")).unwrap();
    // It sees nothing else of this machine.
    let seen = format!("\n[worker]\nsandbox_paths = \"{}\"\n", bench.path().join("shared").display());
    let wait = GATE.replace("{go}", go.to_str().unwrap()) + &seen;
    bench.write("autopack.toml", &wait);
    bench.commit("a gate that waits");
    bench
}

fn approve(bench: &Bench) {
    let listed = bench.run(&["approvals", "list", "-o", "json"]).expect(0).json();
    let text = |key: &str| listed["requests"][0][key].as_str().unwrap().to_owned();
    let (id, digest) = (text("request_id"), text("subject_digest"));
    bench.run(&["approvals", "approve", &id, "--expect-digest", &digest, "--reason", "x"]).expect(0);
}

/// One commit for each of the two changes on top of the fork commit.
fn is_applied_once(bench: &Bench, below: usize) {
    let repo = git2::Repository::open(bench.repo()).unwrap();
    let mut walk = repo.revwalk().unwrap();
    walk.push_ref("refs/heads/autopack/k").unwrap();
    assert_eq!(walk.count(), 2 + below);
    bench.run(&["audit", "verify"]).expect(0);
}

#[test]
fn decisions_come_over_the_socket_of_the_one_that_runs() {
    let bench = Bench::with(SITE);
    let mut owner = Started::new(&bench, &["up"]);
    owner.until("next, in another terminal");
    bench.run(RUN).expect(4);
    let watcher = Started::new(&bench, &["runs", "watch", "k", "-v"]);
    approve(&bench);
    // Nobody resumes: the owner has followed the decision, and the watcher ends with its run.
    assert_eq!(watcher.code(), Some(0));
    bench.run(&["runs", "resume", "k", "--no-wait"]).expect(0);
    is_applied_once(&bench, 1);
}

#[test]
fn an_owner_keeps_the_files_of_a_run_that_ends_while_nobody_goes_with_it() {
    let bench = Bench::with(SITE);
    let mut owner = Started::new(&bench, &["up"]);
    owner.until("next, in another terminal");
    bench.run(RUN).expect(4);
    approve(&bench);
    let folder = bench.repo().join(".autonomous_runs/k");
    let file = std::fs::read_dir(folder.join("autopilot")).unwrap().next().unwrap().unwrap().path();
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let kept = || read(&file).contains("\"completed\"") && read(&folder.join("run_summary.md")).contains("SUCCEEDED");
    // Each look takes as long as a command does; commands that go with the run would write the files themselves.
    let mut looks = 0..400;
    while !kept() {
        assert!(looks.next().is_some(), "{}", read(&file));
        bench.run(&["runs", "show", "k"]).expect(0);
    }
}

#[test]
fn one_that_drives_takes_over_from_an_owner_that_is_killed() {
    let bench = gated();
    let mut owner = Started::new(&bench, RUN);
    owner.until("go: until");
    let mut second = Started::new(&bench, RUN);
    second.until("going on with the run k");
    owner.kill_9();
    // It was attached; now it owns, and verifies what the first one had under way.
    second.until("the engine went away; connected again and going on");
    std::fs::write(bench.path().join("shared/go"), "").unwrap();
    assert_eq!(second.code(), Some(4));
    approve(&bench);
    bench.run(&["runs", "resume", "k", "--no-wait"]).expect(0);
    is_applied_once(&bench, 2);
}

#[test]
fn one_that_only_watches_is_told_when_the_owner_is_killed() {
    let bench = gated();
    let mut owner = Started::new(&bench, RUN);
    owner.until("go: until");
    let mut command = bench.command(&bench.repo());
    let mut watcher =
        command.args(["runs", "watch", "k"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen = BufReader::new(watcher.stdout.take().unwrap()).lines();
    assert!(seen.any(|line| line.unwrap().contains("go: until")));
    owner.kill_9();
    drop(seen);
    let ended = watcher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("autopack runs resume k"), "{:?}: {said}", ended.status);
    std::fs::write(bench.path().join("shared/go"), "").unwrap();
    bench.run(RUN).expect(4);
}

//! T126: a worker that is killed or stopped in mid-build leaves no builder.

use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{now, running};
use crate::harness::{Bench, SITE};

/// A builder that ignores signals and sleeps, and a daemon of it.
fn site(sleep: &str) -> Bench {
    let bench = Bench::with(SITE);
    bench.write("examples/page.md", "# Page\n\nSee [it](nowhere.md).\n");
    let script = format!("trap '' TERM HUP; (setsid {sleep} &); {sleep} & wait; {sleep}");
    let policy = "[policy]\nextends = \"autopack\"\n\n[builders.hang]\nkind = \"command\"\ngaps = [\"doc_drift\"]\n";
    bench.write("autopack.toml", &format!("{policy}argv = [\"sh\", \"-c\", \"{script}\"]\n"));
    bench.commit("a builder that hangs");
    bench
}

fn start(bench: &Bench) -> Child {
    let mut command = bench.command(&bench.repo());
    command.args(["autopilot", "run", "--enable", "--no-wait", "--run-id", "k"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until a builder of the worker sleeps, does something to the worker, and says how long the builder lived on.
fn outlived(sleep: &str, signal: Signal) -> Duration {
    let bench = site(sleep);
    let mut worker = start(&bench);
    let began = now();
    while running(sleep).len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "no builder was started");
        assert_eq!(worker.try_wait().unwrap(), None, "it ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(i32::try_from(worker.id()).unwrap());
    kill(pid, signal).unwrap();
    let began = now();
    while !running(sleep).is_empty() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let lived = began.elapsed();
    let _gone = kill(pid, Signal::SIGKILL);
    worker.wait().unwrap();
    lived
}

#[test]
fn a_worker_that_is_killed_leaves_no_builder() {
    let lived = outlived(&format!("sleep 8{}.5", std::process::id()), Signal::SIGKILL);
    assert!(lived < Duration::from_secs(5), "{lived:?}");
}

#[test]
fn a_worker_that_is_stopped_leaves_no_builder() {
    let lived = outlived(&format!("sleep 9{}.5", std::process::id()), Signal::SIGSTOP);
    assert!(lived > Duration::from_secs(5) && lived < Duration::from_secs(14), "{lived:?}");
}

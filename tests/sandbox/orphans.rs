//! T126: a worker that is killed or stopped in mid-build leaves no builder: in either kind of sandbox and without one,
//! of a command, of an agent and of a gate.

use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{now, running};
use crate::harness::{Bench, SITE};

/// What hangs, and how it is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A command in bubblewrap's sandbox.
    Bwrap,
    /// A command in the built-in one.
    Builtin,
    /// A command without one.
    Bare,
    /// An agent, which talks by pipes.
    Agent,
    /// A command of the gate.
    Gate,
}

/// A run whose one phase ignores signals, leaves a daemon, and sleeps; and the worker that is at it.
fn start(way: Way, sleep: &str) -> (Bench, Child) {
    let bench = Bench::with(SITE);
    let script = format!("trap '' TERM HUP; (setsid {sleep} &); {sleep} & wait; {sleep}");
    let argv = format!("argv = [\"sh\", \"-c\", \"{script}\"]\n");
    let (policy, builder) = match way {
        Way::Bwrap | Way::Builtin | Way::Bare => {
            (format!("[builders.hang]\nkind = \"command\"\n{argv}"), "{kind: command, name: hang}")
        }
        Way::Agent => (format!("[builders.hang]\nkind = \"agent\"\n{argv}"), "{kind: agent, preset: hang}"),
        Way::Gate => (
            format!("[[gate.commands]]\nname = \"hang\"\nrun = \"\"\"{script}\"\"\"\n"),
            "{kind: command, argv: [sh, -c, echo x > examples/x.md]}",
        ),
    };
    bench.write("autopack.toml", &format!("[policy]\nextends = \"autopack\"\n\n{policy}"));
    bench.commit("something that hangs");
    let phase =
        "  - id: p\n    goal: hang\n    category: documentation\n    scope: {paths: [examples/]}\n    timeout: 300\n";
    bench.write("../run.yaml", &format!("run_id: k\nphases:\n{phase}    builder: {builder}\n"));
    let bare: &[&str] = if matches!(way, Way::Bare | Way::Agent) { &["--insecure-no-sandbox"] } else { &[] };
    bench.run(&[&["runs", "submit", "../run.yaml"], bare].concat()).expect(0);
    let mut command = bench.command(&bench.repo());
    command.args(["runs", "resume", "k", "--no-wait"]).stdout(Stdio::null()).stderr(Stdio::null());
    if way == Way::Builtin {
        command.env("AUTOPACK_WORKER_BWRAP", "none");
    }
    let worker = command.spawn().unwrap();
    (bench, worker)
}

/// Waits until what hangs sleeps, does something to the worker, and says how long it lived on.
fn outlived(way: Way, signal: Signal) -> Duration {
    let sleep = format!("sleep 8{}.5", std::process::id());
    let (bench, mut worker) = start(way, &sleep);
    let began = now();
    while running(&sleep).len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "{way:?}: nothing was started");
        assert_eq!(worker.try_wait().unwrap(), None, "{way:?}: it ended: {}", bench.run(&["runs", "show", "k"]).stdout);
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = Pid::from_raw(i32::try_from(worker.id()).unwrap());
    kill(pid, signal).unwrap();
    let began = now();
    while !running(&sleep).is_empty() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let lived = began.elapsed();
    let _gone = kill(pid, Signal::SIGKILL);
    worker.wait().unwrap();
    lived
}

macro_rules! ways {
    ($($name:ident: $way:ident;)+) => {
        mod killed {
            $(#[test]
            fn $name() {
                let lived = super::outlived(super::Way::$way, super::Signal::SIGKILL);
                assert!(lived < super::Duration::from_secs(5), "{lived:?}");
            })+
        }
        mod stopped {
            $(#[test]
            fn $name() {
                let lived = super::outlived(super::Way::$way, super::Signal::SIGSTOP);
                assert!((super::Duration::from_secs(5)..super::Duration::from_secs(14)).contains(&lived), "{lived:?}");
            })+
        }
    };
}

ways! {
    a_worker_leaves_no_command_in_bubblewrap: Bwrap;
    a_worker_leaves_no_command_in_the_built_in_sandbox: Builtin;
    a_worker_leaves_no_command_without_a_sandbox: Bare;
    a_worker_leaves_no_agent: Agent;
    a_worker_leaves_no_gate: Gate;
}

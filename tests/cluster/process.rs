//! One daemon of a cluster as a process that can be killed, frozen and started again, and that ends with this one.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::until;

/// Ends the daemon when the pipe ends that only this process holds open, however this process ends; and writes down how
/// the daemon ended.
const GUARD: &str = r#"log=$1; shift; exec 3<&0; "$@" </dev/null >"$log" 2>&1 3<&- & p=$!; echo $p
exec >/dev/null 2>&1; { cat <&3; kill -KILL $p; } & c=$!; wait $p; echo $? >"$log.new"; mv "$log.new" "$log.code"; kill $c"#;

/// How long a daemon may take to come up.
const UP: Duration = Duration::from_secs(60);

/// A daemon: how it is started, and the life it has.
pub(super) struct Process {
    pub(super) name: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    says: String,
    folder: PathBuf,
    lives: usize,
    running: Option<Running>,
}

struct Running {
    guard: Child,
    pid: Pid,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ended = self.guard.wait();
    }
}

impl Process {
    /// Starts one; it is up when its log has what it `says` then.
    pub(super) fn start(
        name: &str,
        args: Vec<String>,
        env: Vec<(String, String)>,
        says: String,
        folder: PathBuf,
    ) -> Self {
        let mut process = Self { name: name.to_owned(), args, env, says, folder, lives: 0, running: None };
        process.revive();
        process.is_up();
        process
    }

    /// Starts it again, with the same arguments.
    pub(super) fn revive(&mut self) {
        self.lives += 1;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "sh"]).arg(self.log()).arg(env!("CARGO_BIN_EXE_autopack")).args(&self.args);
        command.env_clear().env("HOME", &self.folder).env("PATH", "/usr/bin:/bin").envs(self.env.iter().cloned());
        command.current_dir(&self.folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guard = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        self.running = Some(Running { guard, pid });
    }

    /// Waits until it is up.
    pub(super) fn is_up(&self) {
        let up = || std::fs::read_to_string(self.log()).unwrap_or_default().contains(&self.says);
        assert!(until(UP, up), "{} does not come up: {}", self.name, self.told());
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}-{}.log", self.name, self.lives))
    }

    /// The end of the log of each life.
    pub(super) fn told(&self) -> String {
        let log = |life: usize| {
            let text = std::fs::read_to_string(self.folder.join(format!("{}-{life}.log", self.name)));
            let text = text.unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("-- {} {life}\n{}\n", self.name, lines[lines.len().saturating_sub(40)..].join("\n"))
        };
        (1..=self.lives).map(log).collect()
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        kill_process(self.running.as_ref().unwrap().pid, Signal::KILL).unwrap();
        drop(self.running.take());
    }

    /// SIGTERM.
    pub(super) fn terminate(&self) {
        kill_process(self.running.as_ref().unwrap().pid, Signal::TERM).unwrap();
    }

    /// How it ended; none while it runs.
    pub(super) fn ended(&self) -> Option<i32> {
        let code = std::fs::read_to_string(format!("{}.code", self.log().display())).ok()?;
        Some(code.trim().parse().unwrap())
    }

    /// SIGSTOP.
    pub(super) fn freeze(&self) {
        kill_process(self.running.as_ref().unwrap().pid, Signal::STOP).unwrap();
    }

    /// SIGCONT.
    pub(super) fn thaw(&self) {
        kill_process(self.running.as_ref().unwrap().pid, Signal::CONT).unwrap();
    }
}

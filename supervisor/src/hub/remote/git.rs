//! git as a process, for the two things that libgit2 cannot do: fetch and push over a network, and push several refs at
//! once or none. It runs in our cache only, which no builder can write, without anybody's configuration, and is ended
//! with all it started when it takes too long.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use autopack_shared::runtime::clock::Clock;

use super::credentials::Access;
use crate::hub::local::io_error;
use crate::hub::place::Address;
use crate::hub::{HubError, place};

/// Where git and ssh are looked for; the person's own PATH is not.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Bytes of an answer: half a million refs.
const MAX_ANSWER: usize = 64 << 20;

/// Bytes of complaints that are kept.
const MAX_COMPLAINT: usize = 16 << 10;

/// Between two looks whether a process that closed its outputs has ended.
const PAUSE: Duration = Duration::from_millis(2);

/// What stands above every configuration file.
const PINNED: &[&str] = &[
    "protocol.allow=never",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.askPass=",
    "gc.auto=0",
    "maintenance.auto=false",
    "credential.helper=",
    "credential.interactive=false",
    "fetch.recurseSubmodules=false",
    "fetch.unpackLimit=1",
    "fetch.writeCommitGraph=false",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=30",
    "http.sslVerify=true",
    "push.followTags=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "submodule.recurse=false",
];

/// Runs git for one hub.
pub(super) struct Git {
    program: PathBuf,
    cache: PathBuf,
    address: Address,
    access: Access,
    clock: Arc<dyn Clock>,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Whether it says that all went well.
    pub(super) well: bool,
    /// Its output.
    pub(super) answer: Vec<u8>,
    /// The beginning of its complaints, for people.
    pub(super) complaint: String,
}

impl Git {
    pub(super) fn new(program: &Path, cache: &Path, address: Address, access: Access, clock: Arc<dyn Clock>) -> Self {
        Self { program: program.to_path_buf(), cache: cache.to_path_buf(), address, access, clock }
    }

    /// The server.
    pub(super) const fn address(&self) -> &Address {
        &self.address
    }

    /// Runs `git <verb> <options> -- <address> <more>` and waits for its end.
    ///
    /// # Errors
    /// [`HubError::ServerAway`] when it took too long or was killed, [`HubError::Io`] when it cannot be started.
    pub(super) fn talk(
        &self,
        verb: &str,
        options: &[String],
        more: &[String],
        limit: Duration,
    ) -> Result<Ended, HubError> {
        self.access.check()?;
        let mut command = self.command();
        command.arg(verb).args(options).arg("--").arg(self.address.as_str()).args(more);
        self.run(command, limit)
    }

    /// Brings one small object of the server's, and moves no ref of the cache: whoever fetches meanwhile does not matter.
    ///
    /// # Errors
    /// As [`Git::talk`].
    pub(super) fn glance(&self, name: &str, limit: Duration) -> Result<Ended, HubError> {
        let mut command = self.command();
        // One object of its own is whole or not there; a pack for each would be one too many.
        command.args(["-c", "fetch.unpackLimit=100", "fetch", "--no-tags", "--no-write-fetch-head", "--refmap="]);
        command.args(["--no-auto-maintenance", "--quiet", "--", self.address.as_str(), name]);
        self.run(command, limit)
    }

    /// Puts small packs together, and forgets no object.
    ///
    /// # Errors
    /// As [`Git::talk`].
    pub(super) fn tidy(&self, limit: Duration) -> Result<Ended, HubError> {
        let mut command = self.command();
        command.args(["repack", "--geometric=2", "-d", "-q"]);
        self.run(command, limit)
    }

    /// Puts all packs into one, without what no ref needs and is older than `expiry`.
    ///
    /// # Errors
    /// As [`Git::talk`].
    pub(super) fn shrink(&self, expiry: Duration, limit: Duration) -> Result<Ended, HubError> {
        let before = format!("{}.seconds.ago", expiry.as_secs());
        let mut command = self.command();
        command.args(["repack", "-A", "-d", "-q", &format!("--unpack-unreachable={before}")]);
        let packed = self.run(command, limit)?;
        if !packed.well {
            return Ok(packed);
        }
        let mut command = self.command();
        command.args(["prune", &format!("--expire={before}")]);
        self.run(command, limit)
    }

    fn run(&self, mut command: Command, limit: Duration) -> Result<Ended, HubError> {
        let mut child = command.spawn().map_err(io_error(&self.program))?;
        let (told, ended) = mpsc::channel();
        let answer = drain(child.stdout.take(), MAX_ANSWER, told.clone());
        let complaint = drain(child.stderr.take(), MAX_COMPLAINT, told);
        let status = match self.wait(&mut child, &ended, limit) {
            Ok(status) => status,
            Err(error) => {
                // What it started is in its group. Whoever left that may keep an output open: nobody waits for it.
                let _gone = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _reaped = child.wait();
                return Err(error);
            }
        };
        let ((answer, cut), (complaint, _)) = (collect(answer), collect(complaint));
        let complaint = plain(&String::from_utf8_lossy(&complaint));
        if let Some(signal) = status.signal() {
            return Err(self.away(format!("git was ended by signal {signal}")));
        }
        if cut {
            return Err(self.away(format!("it answers with more than {MAX_ANSWER} bytes")));
        }
        Ok(Ended { well: status.success(), answer, complaint })
    }

    /// Says that the server could not be asked.
    pub(super) fn away(&self, said: String) -> HubError {
        HubError::ServerAway { address: self.address.to_string(), said }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").env("HOME", &self.cache);
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
        ] {
            command.env(name, value);
        }
        command.env("GIT_DIR", &self.cache).current_dir(&self.cache);
        for setting in PINNED {
            command.args(["-c", setting]);
        }
        command.args(["-c", &format!("protocol.{}.allow=always", self.address.transport().name())]);
        if self.address.transport() == place::Transport::Ssh {
            command.env("GIT_SSH_COMMAND", self.access.ssh()).env("GIT_SSH_VARIANT", "ssh");
        }
        if let Some(helper) = self.access.helper() {
            command.args(["-c", &format!("credential.helper={helper}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    /// Waits until both outputs are closed and the process has ended.
    fn wait(
        &self,
        child: &mut Child,
        ended: &Receiver<()>,
        limit: Duration,
    ) -> Result<std::process::ExitStatus, HubError> {
        let until = self.clock.monotonic() + limit;
        let late = || self.away(format!("no answer within {} s", limit.as_secs()));
        for _output in 0..2 {
            let left = until.saturating_sub(self.clock.monotonic());
            ended.recv_timeout(left).map_err(|_| late())?;
        }
        loop {
            if let Some(status) = child.try_wait().map_err(io_error(&self.program))? {
                return Ok(status);
            }
            if self.clock.monotonic() >= until {
                return Err(late());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// Reads an output to its end and keeps its beginning; whether there was more.
fn drain(
    output: Option<impl Read + Send + 'static>,
    keep: usize,
    told: mpsc::Sender<()>,
) -> JoinHandle<(Vec<u8>, bool)> {
    std::thread::spawn(move || {
        let (mut kept, mut more) = (Vec::new(), false);
        if let Some(mut output) = output {
            let limit = u64::try_from(keep).unwrap_or(u64::MAX);
            // An output that breaks has ended.
            let _broken = output.by_ref().take(limit).read_to_end(&mut kept);
            more = io::copy(&mut output, &mut io::sink()).is_ok_and(|bytes| bytes > 0);
        }
        // Nobody listens any more when it took too long.
        let _late = told.send(());
        (kept, more)
    })
}

fn collect(drained: JoinHandle<(Vec<u8>, bool)>) -> (Vec<u8>, bool) {
    drained.join().unwrap_or_default()
}

/// What a server or git said, in one short line that moves no terminal.
pub(super) fn plain(text: &str) -> String {
    const MOST: usize = 400;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line: String = lines.join("; ").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use autopack_shared::runtime::clock::SystemClock;

    use super::*;

    fn git(dir: &Path, script: &str) -> Git {
        let program = dir.join("git");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let address = Address::parse("git://127.0.0.1/x").unwrap();
        let clock = Arc::new(SystemClock::default());
        Git::new(&program, dir, address, Access::none(), clock)
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let git = git(dir.path(), "sleep 600 & echo $! > \"$GIT_DIR/inner\"; wait");
        let error = git.talk("fetch", &[], &[], Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, HubError::ServerAway { .. }), "{error}");
        let inner: u32 = std::fs::read_to_string(dir.path().join("inner")).unwrap().trim().parse().unwrap();
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{inner}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        for _ in 0..500 {
            if ended() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{inner} is still there");
    }

    #[test]
    fn nothing_of_the_persons_reaches_it_and_an_endless_complaint_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let git = git(dir.path(), "env; printf '%s\\n' \"$@\"; yes complaint | head -c 1000000 >&2; exit 3");
        let ended = git.talk("push", &["--atomic".to_owned()], &["a:b".to_owned()], Duration::from_secs(30)).unwrap();
        let answer = String::from_utf8(ended.answer).unwrap();
        assert!(!ended.well && ended.complaint.len() < 1000);
        let known = ["GIT_", "PATH=", "LC_ALL=", "HOME=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
        let mut env = answer.lines().take_while(|line| *line != "-c");
        assert!(env.all(|line| known.iter().any(|name| line.starts_with(name))), "{answer}");
        assert!(answer.contains("GIT_CONFIG_GLOBAL=/dev/null\n"), "{answer}");
        assert!(answer.contains("protocol.allow=never\n") && answer.contains("protocol.git.allow=always\n"));
        assert!(answer.ends_with("push\n--atomic\n--\ngit://127.0.0.1/x\na:b\n"), "{answer}");
        assert_eq!(plain("remote: \u{1b}[31mno\n\n  way\n"), "remote:  [31mno; way");
    }
}

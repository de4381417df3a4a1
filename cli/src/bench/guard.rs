//! Processes that end with this one, however it ends: a shell beside each waits for the end of a pipe that only this
//! process holds open.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::exit::{CliError, During as _};

/// Starts a program beside itself and ends it, by the signal it is told, when its own standard input ends.
const GUARD: &str = r#"signal=$1 log=$2; shift 2; ulimit -n "$(ulimit -Hn)" 2>/dev/null
"$@" </dev/null >>"$log" 2>&1 & program=$!; echo $program; exec >/dev/null 2>&1; cat >/dev/null
kill "-$signal" $program; wait $program"#;

/// How long a program may take to be ready, on a machine that does much else.
const READY: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// How a program is run.
#[derive(Debug, Default)]
pub(super) struct Way<'a> {
    /// More environment.
    pub(super) env: &'a [(&'a str, String)],
    /// Another user and group.
    pub(super) owner: Option<(u32, u32)>,
    /// The signal that ends it.
    pub(super) signal: &'a str,
}

/// A program that runs.
#[derive(Debug)]
pub(super) struct Guarded {
    name: String,
    shell: Child,
    input: Option<ChildStdin>,
    log: PathBuf,
    pid: u32,
}

impl Guarded {
    /// Starts it; what it prints goes to a log.
    pub(super) fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = S>,
        log: &Path,
        way: &Way<'_>,
    ) -> Result<Self, CliError> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", GUARD, "sh", way.signal]).arg(log).arg(program).args(args);
        // Settings of the person's are not those of a cluster that is made to be measured.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"AUTOPACK_") {
                shell.env_remove(name);
            }
        }
        shell.envs(way.env.iter().map(|(name, value)| (name, value))).current_dir("/");
        if let Some((user, group)) = way.owner {
            shell.uid(user).gid(group);
        }
        let started = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut shell = started.during(format!("start {name}"))?;
        let input = shell.stdin.take();
        let mut line = String::new();
        if let Some(out) = shell.stdout.take() {
            BufReader::new(out).read_line(&mut line).during(format!("start {name}"))?;
        }
        let pid = line.trim().parse().map_err(|_| {
            CliError::refused(
                "unavailable",
                format!("{name} could not be started"),
                "its shell says nothing",
                "try again",
            )
        })?;
        Ok(Self { name: name.to_owned(), shell, input, log: log.to_path_buf(), pid })
    }

    /// Its process.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until something holds; an error with the end of its log where it ends instead, or takes too long.
    pub(super) async fn until(&self, mut ready: impl AsyncFnMut() -> bool) -> Result<(), CliError> {
        let from = Instant::now();
        while !ready().await {
            if from.elapsed() > READY || !self.runs() {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(3).collect();
                let why = format!("its log ends with: {}", end.into_iter().rev().collect::<Vec<_>>().join(" / "));
                let what = format!("{} did not get ready", self.name);
                return Err(CliError::refused(
                    "unavailable",
                    what,
                    why,
                    "try again, with another --dir if it is the disk",
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether its log has these words.
    pub(super) fn says(&self, words: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.contains(words))
    }

    fn runs(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        !matches!(state, None | Some('Z'))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ended = self.shell.wait();
    }
}

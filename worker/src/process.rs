//! Starting and killing builders and gate commands. Each gets a process group of its own, dies with this process, and
//! is marked by its lease in its environment, so that a later worker finds what an earlier one left. In a sandbox it is
//! besides confined, and everything that comes from it is gone afterwards, whatever group it went to.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use self::output::{Output, Stream};
use crate::contact::Frozen;
use crate::sandbox::{Confined, Place, Sandbox, SandboxError};
use crate::sys;

mod leftovers;
pub mod output;

pub mod piped;

pub use leftovers::kill_leftovers;
pub(crate) use leftovers::kill_marked;

/// The variable that marks every process of a lease.
pub const LEASE_MARK: &str = "AUTOPACK_LEASE";

/// Bytes of output that are kept: its end.
const TAIL: usize = 4096;

/// How long a process group has between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);

/// How a process is confined.
#[derive(Debug, Clone)]
pub enum Cage {
    /// Not at all: only where the operator said so for this run.
    None,
    /// In a sandbox. Paths of the host in its arguments and variables become the ones inside.
    Sandboxed(Arc<Sandbox>, Box<Place>),
}

/// What to run.
#[derive(Debug, Clone)]
pub struct ProcSpec {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where.
    pub cwd: PathBuf,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The lease it belongs to.
    pub lease: String,
    /// Wall time it may take.
    pub timeout: Duration,
    /// Bytes of output after which the rest is dropped.
    pub log_budget: u64,
    /// How it is confined.
    pub cage: Cage,
    /// Where its output goes besides.
    pub output: Output,
    /// Whether it stands still: what runs is stopped until it may go on, what does not is not begun.
    pub frozen: Frozen,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcEnd {
    /// By itself, with this code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It took too long and was killed.
    Timeout,
    /// The lease ended and it was killed.
    Cancelled,
    /// It wanted more memory than it may have and was killed.
    OutOfMemory,
    /// It took up more of the disk than it may, for this reason, and was killed.
    Overfull(String),
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct ProcReport {
    /// How it ended.
    pub end: ProcEnd,
    /// The end of its output, lossy UTF-8.
    pub tail: String,
    /// Bytes it printed in all.
    pub printed: u64,
    /// Whether output was dropped.
    pub truncated: bool,
}

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// No program was named.
    #[error("no program was named")]
    Empty,
    /// It could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// Its sandbox could not be built, and nothing ran.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// It could not be waited for.
    #[error("lost track of {program}: {source}")]
    Wait {
        /// The program.
        program: String,
        /// The system's word.
        source: std::io::Error,
    },
}

impl ProcError {
    /// A stable code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Sandbox(SandboxError::Failed(_)) => "sandbox_failed",
            Self::Sandbox(SandboxError::NoProgram { .. }) | Self::Empty | Self::Start { .. } | Self::Wait { .. } => {
                "builder_unavailable"
            }
        }
    }
}

/// Runs a process to its end, or to the end of its time or lease; in every case the whole group is gone afterwards.
///
/// # Errors
/// [`ProcError`] when it cannot be started or waited for.
pub async fn run(spec: &ProcSpec, cancel: &CancellationToken) -> Result<ProcReport, ProcError> {
    let program = spec.argv.first().cloned().ok_or(ProcError::Empty)?;
    let mut frozen = spec.frozen.clone();
    tokio::select! {
        _thawed = frozen.wait_for(|frozen| !*frozen) => {}
        () = cancel.cancelled() => return Ok(ProcReport::never()),
    }
    let (mut child, mut confined) = match &spec.cage {
        Cage::Sandboxed(sandbox, place) => {
            let (child, confined) = sandbox.start(place, spec, None).await?;
            (child, Some(confined))
        }
        Cage::None => (bare(spec, &program, Stdio::null())?, None),
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let out = child.stdout.take();
    let err = child.stderr.take();
    let budget = spec.log_budget;
    let pump = async {
        tokio::join!(drain(out, budget, (&spec.output, Stream::Out)), drain(err, budget, (&spec.output, Stream::Err)))
    };
    let limit = tokio::time::sleep(spec.timeout);
    tokio::pin!(pump, limit);
    let mut output = None;
    let ended = loop {
        tokio::select! {
            status = child.wait() => break Ok(status.map_err(|source| ProcError::Wait { program: program.clone(), source })?),
            drained = &mut pump, if output.is_none() => output = Some(drained),
            () = &mut limit => break Err(ProcEnd::Timeout),
            () = cancel.cancelled() => break Err(ProcEnd::Cancelled),
            never = Confined::beat_of(confined.as_ref()) => match never {},
            why = Confined::overfull(confined.as_ref()) => break Err(ProcEnd::Overfull(why)),
            () = hold(group, confined.as_ref(), &mut frozen) => {}
        }
    };
    // What stands still cannot end by itself, and what fills up the disk has no time to.
    let gently = matches!(ended, Err(ProcEnd::Timeout | ProcEnd::Cancelled)) && !*frozen.borrow();
    let inside = end(group, &mut child, &mut confined, gently).await;
    // Whoever still holds the pipe was in the group and is gone; the deadline is for one that left it.
    let (out, err) = match output {
        Some(drained) => drained,
        None => tokio::time::timeout(TERM_GRACE, pump).await.unwrap_or_default(),
    };
    let end = match ended {
        Ok(status) => inside.unwrap_or_else(|| exit_of(status)),
        Err(end) => end,
    };
    let mut tail = out.text();
    tail.push_str(&err.text());
    Ok(ProcReport { end, tail, printed: out.total + err.total, truncated: out.total > budget || err.total > budget })
}

/// Stops the group, or lets it go on, at the next word of it.
async fn hold(group: Option<Pid>, confined: Option<&Confined>, frozen: &mut Frozen) {
    if frozen.changed().await.is_err() {
        // Nobody is there to freeze anything.
        return std::future::pending().await;
    }
    let still = *frozen.borrow();
    if let Some(confined) = confined {
        // PID 1 inside stops the others, and goes on listening for signs of life.
        return confined.freeze(still);
    }
    let signal = if still { Signal::SIGSTOP } else { Signal::SIGCONT };
    if let Some(Err(error)) = group.map(|group| killpg(group, signal)) {
        tracing::debug!(%error, %signal, "a group that is gone");
    }
}

impl ProcReport {
    /// Of a process that was not begun.
    const fn never() -> Self {
        Self { end: ProcEnd::Cancelled, tail: String::new(), printed: 0, truncated: false }
    }
}

fn exit_of(status: std::process::ExitStatus) -> ProcEnd {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().map_or_else(|| ProcEnd::Signal(status.signal().unwrap_or(0)), ProcEnd::Exit)
}

/// Starts a process that nothing confines.
fn bare(spec: &ProcSpec, program: &str, stdin: Stdio) -> Result<Child, ProcError> {
    let mut command = Command::new(program);
    command
        .args(&spec.argv[1..])
        .current_dir(&spec.cwd)
        .env_clear()
        .envs(spec.env.iter().map(|(k, v)| (k, v)))
        .env(LEASE_MARK, &spec.lease)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    sys::die_with_parent(&mut command);
    command.spawn().map_err(|source| ProcError::Start { program: program.to_owned(), source })
}

/// Ends what is left of a process; how the one program of a sandbox ended.
async fn end(group: Option<Pid>, child: &mut Child, confined: &mut Option<Confined>, gently: bool) -> Option<ProcEnd> {
    if let Some(confined) = confined.as_ref().filter(|_| gently) {
        // A signal to the process outside would end all at once.
        confined.ask_to_end();
        let _ended = tokio::time::timeout(TERM_GRACE, child.wait()).await;
    }
    stop_group(group, child, gently && confined.is_none()).await;
    match confined {
        Some(confined) => confined.end().await,
        None => None,
    }
}

async fn stop_group(group: Option<Pid>, child: &mut Child, gently: bool) {
    let Some(group) = group else { return };
    if gently && killpg(group, Signal::SIGTERM).is_ok() {
        let _ended = tokio::time::timeout(TERM_GRACE, child.wait()).await;
    }
    // What the leader left behind in its group goes too. ESRCH only says that nothing is left.
    let _gone = killpg(group, Signal::SIGKILL);
    let _reaped = tokio::time::timeout(TERM_GRACE, child.wait()).await;
}

#[derive(Debug, Default)]
struct Drained {
    tail: VecDeque<u8>,
    total: u64,
}

impl Drained {
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Reads to the end, keeping the last bytes; past the budget it still reads, so that the writer never blocks.
async fn drain<R: AsyncRead + Unpin>(source: Option<R>, budget: u64, (output, stream): (&Output, Stream)) -> Drained {
    let mut drained = Drained::default();
    let Some(mut source) = source else { return drained };
    let mut buffer = vec![0u8; 16 * 1024];
    while let Ok(n @ 1..) = source.read(&mut buffer).await {
        drained.total += n as u64;
        output.write(stream, &buffer[..n]);
        if drained.total <= budget {
            drained.tail.extend(&buffer[..n]);
            let excess = drained.tail.len().saturating_sub(TAIL);
            drained.tail.drain(..excess);
        }
    }
    drained
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(script: &str, timeout: Duration) -> ProcSpec {
        ProcSpec {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            cwd: std::env::temp_dir(),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            lease: format!("lease-{}", std::process::id()),
            timeout,
            log_budget: 1 << 20,
            cage: Cage::None,
            output: Output::default(),
            frozen: tokio::sync::watch::channel(false).1,
        }
    }

    #[tokio::test]
    async fn what_is_frozen_stands_still_and_is_not_begun() {
        let (frozen, dir) = (tokio::sync::watch::Sender::new(true), tempfile::tempdir().unwrap());
        let (began, ended) = (dir.path().join("began"), dir.path().join("ended"));
        let script = format!("touch {}; sleep 0.3; touch {}", began.display(), ended.display());
        let spec = ProcSpec { frozen: frozen.subscribe(), ..spec(&script, Duration::from_secs(60)) };
        let none = CancellationToken::new();
        let mut running = Box::pin(run(&spec, &none));
        let pause = Duration::from_millis(900);
        assert!(tokio::time::timeout(pause, &mut running).await.is_err() && !began.exists());
        frozen.send_replace(false);
        while !began.exists() {
            let _still = tokio::time::timeout(Duration::from_millis(5), &mut running).await;
        }
        frozen.send_replace(true);
        assert!(tokio::time::timeout(pause, &mut running).await.is_err() && !ended.exists());
        frozen.send_replace(false);
        assert_eq!(running.await.unwrap().end, ProcEnd::Exit(0));
        assert!(ended.exists());
        // Frozen, it is killed all the same.
        let cancel = CancellationToken::new();
        let mut running = Box::pin(run(&spec, &cancel));
        let _still = tokio::time::timeout(Duration::from_millis(100), &mut running).await;
        frozen.send_replace(true);
        let _still = tokio::time::timeout(Duration::from_millis(100), &mut running).await;
        cancel.cancel();
        assert_eq!(
            tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap().end,
            ProcEnd::Cancelled
        );
    }

    #[tokio::test]
    async fn reports_the_exit_code_and_the_output() {
        let report = run(&spec("echo out; echo err >&2; exit 3", Duration::from_secs(10)), &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!(report.end, ProcEnd::Exit(3));
        assert!(report.tail.contains("out") && report.tail.contains("err"));
    }

    #[tokio::test]
    async fn a_timeout_takes_the_grandchildren_too() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script =
            format!("sh -c 'trap \"\" TERM; echo $$ > {}; while :; do sleep 0.05; done' & wait", mark.display());
        // Long enough for a busy machine to start the grandchild, which never ends by itself.
        let report = run(&spec(&script, Duration::from_secs(5)), &CancellationToken::new()).await.unwrap();
        assert_eq!(report.end, ProcEnd::Timeout);
        let pid = std::fs::read_to_string(&mark).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        // What was killed may still be on its way out; what was not never ends.
        let gone = |stat: &str| stat.is_empty() || stat.contains(") Z ");
        for _ in 0..100 {
            if gone(&stat()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(gone(&stat()), "grandchild is gone: {}", stat());
    }

    #[tokio::test]
    async fn a_flood_of_output_is_read_and_dropped() {
        let mut spec = spec("head -c 5000000 /dev/zero; echo end", Duration::from_secs(20));
        spec.log_budget = 1000;
        let report = run(&spec, &CancellationToken::new()).await.unwrap();
        assert!(report.truncated && report.printed > 5_000_000 && report.tail.len() <= 2 * TAIL);
    }

    #[tokio::test]
    async fn the_environment_is_exactly_what_was_given() {
        let report =
            run(&spec("env | cut -d= -f1 | sort | tr '\\n' ' '", Duration::from_secs(10)), &CancellationToken::new())
                .await
                .unwrap();
        for name in report.tail.split_whitespace() {
            assert!(["AUTOPACK_LEASE", "PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name), "{name}");
        }
    }
}

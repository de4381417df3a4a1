//! The worker's side of one sandbox: starts it, gives signs of life, hears how it ends, and sees to it that nothing is
//! left.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::cgroup::Group;
use super::config::{Parts, Sandbox, SandboxError};
use super::entry::BUILD;
use super::handover;
use super::layout::Place;
use super::quota::Quota;
use super::slots::Slot;
use super::spec::{BEAT, CONT, GO, Record, STOP, TERM, frame};
use crate::process::{LEASE_MARK, ProcEnd, ProcSpec};
use crate::sys;

/// Time between two signs of life.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// How long a sandbox may take to stand.
const STANDS_IN: Duration = Duration::from_secs(20);

/// How long what was killed may take to be gone.
const GONE_IN: Duration = Duration::from_secs(5);

/// One sandbox that stands.
#[derive(Debug)]
pub(crate) struct Confined {
    socket: UnixStream,
    heard: Vec<u8>,
    group: Option<Group>,
    quota: Quota,
    // Held until nothing is left: the next sandbox of this user must not meet the last one.
    _slot: Option<Slot>,
}

impl Sandbox {
    /// Starts a process in a sandbox of its own; it runs when this returns. It reads from `input`, or nothing.
    ///
    /// # Errors
    /// [`SandboxError`]; nothing ran then, and nothing is left.
    pub(crate) async fn start(
        &self,
        place: &Place,
        spec: &ProcSpec,
        input: Option<OwnedFd>,
    ) -> Result<(Child, Confined), SandboxError> {
        let mut parts = self.parts(place, spec)?;
        parts.inner.stdin = input.is_some();
        let failed = |what: &str, e: std::io::Error| SandboxError::Failed(format!("{what}: {e}"));
        let frames = [frame(&parts.outer), frame(&parts.inner)];
        let [outer, inner] = frames.map(|frame| frame.map_err(|e| failed("cannot describe it", e)));
        let (mut child, socket) =
            spawn(self, spec).map_err(|e| failed(&format!("cannot start {}", self.config().helper.display()), e))?;
        let Parts { group, slot, .. } = parts;
        let quota = Quota::watch(self.watched(place, group.as_ref()));
        let mut confined = Confined { socket, heard: Vec::new(), group, quota, _slot: slot };
        let stood = confined.stand(child.id(), &outer?, &inner?, input).await;
        let Err(why) = stood else { return Ok((child, confined)) };
        let _killed = child.start_kill();
        confined.clear().await;
        Err(match why {
            SandboxError::Failed(why) => {
                let said = last_words(&mut child).await;
                SandboxError::Failed(if said.is_empty() { why } else { format!("{why} ({said})") })
            }
            SandboxError::NoProgram { why, .. } => {
                SandboxError::NoProgram { program: spec.argv.first().cloned().unwrap_or_default(), why }
            }
        })
    }
}

fn spawn(sandbox: &Sandbox, spec: &ProcSpec) -> std::io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(&sandbox.config().helper);
    command
        .arg(BUILD)
        .current_dir("/")
        .env_clear()
        .env(LEASE_MARK, &spec.lease)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    sys::die_with_parent(&mut command);
    Ok((command.spawn()?, UnixStream::from_std(ours)?))
}

/// What bubblewrap said before it gave up.
async fn last_words(child: &mut Child) -> String {
    let Some(mut stderr) = child.stderr.take() else { return String::new() };
    let mut said = vec![0u8; 2048];
    let read = tokio::time::timeout(Duration::from_secs(1), stderr.read(&mut said)).await;
    let said = read.ok().and_then(Result::ok).map_or("".into(), |n| String::from_utf8_lossy(&said[..n]).into_owned());
    said.trim().replace('\n', " | ")
}

impl Confined {
    /// Says how it is built and what runs in it, and waits until that runs.
    async fn stand(
        &mut self,
        pid: Option<u32>,
        outer: &[u8],
        inner: &[u8],
        input: Option<OwnedFd>,
    ) -> Result<(), SandboxError> {
        let stands = async {
            // A side that gives up early says why before it goes.
            let _gone = self.socket.write_all(outer).await;
            // It is put together while it joins its control group.
            let joined = match (pid, &self.group) {
                (Some(pid), Some(group)) => group.add(pid).await,
                (None, _) | (_, None) => Ok(()),
            };
            if joined.is_ok() {
                let _gone = self.socket.write_all(&[GO]).await;
                let _gone = self.socket.write_all(inner).await;
                if let Some(input) = input {
                    let _gone = handover::send(&self.socket, input).await;
                }
            } else {
                // Nothing runs then; why it is gone it may have said itself.
                let _closed = self.socket.shutdown().await;
            }
            (self.record().await, joined)
        };
        let Ok((record, joined)) = tokio::time::timeout(STANDS_IN, stands).await else {
            return Err(SandboxError::Failed(format!("it did not stand after {} s", STANDS_IN.as_secs())));
        };
        let outside = joined.err().map(|error| format!("cannot join the control group: {error}"));
        let failed =
            |why: String| Err(SandboxError::Failed(outside.map_or_else(|| why.clone(), |o| format!("{o}; {why}"))));
        match record {
            Some(Record::Started) => Ok(()),
            Some(Record::NoProgram(why)) => Err(SandboxError::NoProgram { program: String::new(), why }),
            Some(Record::Failed(why)) => failed(why),
            Some(Record::Exit(_) | Record::Signal(_)) | None => failed("it ended before anything ran".to_owned()),
        }
    }

    /// The next record; none where the other side is gone.
    async fn record(&mut self) -> Option<Record> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return serde_json::from_slice(&line).ok();
            }
            let mut more = [0u8; 1024];
            match self.socket.read(&mut more).await {
                Ok(n @ 1..) if self.heard.len() < 64 * 1024 => self.heard.extend(&more[..n]),
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// Gives signs of life of one that is there; for none it never ends either.
    pub(crate) async fn beat_of(confined: Option<&Self>) -> std::convert::Infallible {
        match confined {
            Some(confined) => confined.beat().await,
            None => std::future::pending().await,
        }
    }

    /// Completes when one that is there takes up more of the disk than it may, with why.
    pub(crate) async fn overfull(confined: Option<&Self>) -> String {
        match confined {
            Some(confined) => confined.quota.over().await,
            None => std::future::pending().await,
        }
    }

    /// How the program inside ended; afterwards nothing of it is left.
    pub(crate) async fn end(&mut self) -> Option<ProcEnd> {
        let ended = self.ended().await;
        let starved = self.starved();
        self.clear().await;
        let failed = !matches!(ended, Some(ProcEnd::Exit(0)));
        if starved && failed { Some(ProcEnd::OutOfMemory) } else { ended }
    }

    /// Gives signs of life for ever.
    async fn beat(&self) -> std::convert::Infallible {
        let mut tick = tokio::time::interval(BEAT_EVERY);
        loop {
            tick.tick().await;
            // A full or broken socket needs no more of them.
            let _full = self.socket.try_write(&[BEAT]);
        }
    }

    /// Asks everything inside to end.
    pub(crate) fn ask_to_end(&self) {
        let _gone = self.socket.try_write(&[TERM]);
    }

    /// Stops everything inside, or lets it go on.
    pub(crate) fn freeze(&self, still: bool) {
        let _gone = self.socket.try_write(&[if still { STOP } else { CONT }]);
    }

    /// How the one program ended, once the process outside has; none where PID 1 was killed.
    async fn ended(&mut self) -> Option<ProcEnd> {
        match tokio::time::timeout(Duration::from_secs(1), self.record()).await {
            Ok(Some(Record::Exit(code))) => Some(ProcEnd::Exit(code)),
            Ok(Some(Record::Signal(signal))) => Some(ProcEnd::Signal(signal)),
            Ok(Some(Record::Failed(_) | Record::NoProgram(_) | Record::Started) | None) | Err(_) => None,
        }
    }

    /// Whether the kernel ended something for want of memory.
    fn starved(&self) -> bool {
        self.group.as_ref().is_some_and(|group| group.oom_kills() > 0)
    }

    /// Ends everything that is left and gives its group and user back.
    async fn clear(&mut self) {
        let _closed = self.socket.shutdown().await;
        let Some(group) = self.group.take() else { return };
        group.kill();
        if !group.empty(GONE_IN).await {
            tracing::error!("processes of a sandbox could not be ended");
        }
        group.remove();
    }
}

impl Drop for Confined {
    /// For one that nobody waited for: the closed socket ends it too, a moment later.
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            if !group.processes().is_empty() {
                group.kill();
            }
            group.remove();
        }
    }
}

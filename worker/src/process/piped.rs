//! A process that is talked with, line by line. As with any other, its time is bounded, its whole group is gone
//! afterwards, and what it prints is kept within limits: a line that is too long is passed over, not stored.

use std::io;
use std::process::Stdio;

use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdout};
use tokio_util::sync::CancellationToken;

use super::output::Stream;
use super::{Cage, ProcEnd, ProcError, ProcReport, ProcSpec, TERM_GRACE, bare, drain, end, exit_of, hold};
use crate::sandbox::Confined;

/// What a process prints, a line at a time.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<ChildStdout>,
    most_line: usize,
    left: u64,
}

/// One thing that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A line without its end, lossy UTF-8.
    Line(String),
    /// A line that was too long, and is gone.
    TooLong,
    /// It has printed more than it may; nothing more is heard.
    TooMuch,
    /// It says nothing more.
    End,
}

impl Lines {
    /// The next line. Safe to be given up half way only when no more is wanted.
    pub async fn next(&mut self) -> Heard {
        let mut line = Vec::new();
        let mut too_long = false;
        loop {
            let chunk = match self.reader.fill_buf().await {
                Ok(chunk) if !chunk.is_empty() => chunk,
                // An error says as little as an end.
                Ok(_) | Err(_) if line.is_empty() && !too_long => return Heard::End,
                Ok(_) | Err(_) => break,
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(chunk.len(), |end| end + 1);
            let text = &chunk[..end.unwrap_or(chunk.len())];
            if line.len() + text.len() > self.most_line {
                too_long = true;
                line = Vec::new();
            }
            if !too_long {
                line.extend_from_slice(text);
            }
            self.reader.consume(taken);
            self.left = self.left.saturating_sub(taken as u64);
            if self.left == 0 {
                return Heard::TooMuch;
            }
            if end.is_some() {
                break;
            }
        }
        if too_long { Heard::TooLong } else { Heard::Line(String::from_utf8_lossy(&line).into_owned()) }
    }
}

/// What a process reads; its end is the process's end of file.
pub struct Writer(Box<dyn AsyncWrite + Send + Unpin>);

impl Writer {
    /// Writes a text and sends it off.
    ///
    /// # Errors
    /// When the process does not read any more.
    pub async fn write(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(text.as_bytes()).await?;
        self.0.flush().await
    }
}

/// Starts a process and talks with it; when the talk is over, or its time, the process is ended. Its errors are kept as
/// the report's tail; its output is the talk's.
///
/// # Errors
/// [`ProcError`] when it cannot be started or waited for.
pub async fn converse<T, F: Future<Output = T>>(
    spec: &ProcSpec,
    most_line: usize,
    cancel: &CancellationToken,
    talk: impl FnOnce(Writer, Lines) -> F,
) -> Result<(Option<T>, ProcReport), ProcError> {
    let program = spec.argv.first().cloned().ok_or(ProcError::Empty)?;
    let mut frozen = spec.frozen.clone();
    tokio::select! {
        _thawed = frozen.wait_for(|frozen| !*frozen) => {}
        () = cancel.cancelled() => return Ok((None, ProcReport::never())),
    }
    let lost = |source| ProcError::Wait { program: program.clone(), source };
    let (mut child, mut confined, writer) = started(spec, &program).await?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let Some(stdout) = child.stdout.take() else { return Err(lost(io::ErrorKind::BrokenPipe.into())) };
    let errors = drain(child.stderr.take(), spec.log_budget, (&spec.output, Stream::Err));
    let lines = Lines { reader: BufReader::new(stdout), most_line, left: spec.log_budget };
    let talk = talk(writer, lines);
    let limit = tokio::time::sleep(spec.timeout);
    tokio::pin!(talk, errors, limit);
    let (mut said, mut tail) = (None, None);
    let ended = loop {
        tokio::select! {
            text = &mut talk, if said.is_none() => {
                said = Some(text);
                // Its input has ended, so it may end too.
                break match tokio::time::timeout(TERM_GRACE, child.wait()).await {
                    Ok(status) => Ok(Some(status.map_err(lost)?)),
                    Err(_) => Ok(None),
                };
            }
            status = child.wait() => break Ok(Some(status.map_err(lost)?)),
            drained = &mut errors, if tail.is_none() => tail = Some(drained),
            () = &mut limit => break Err(ProcEnd::Timeout),
            () = cancel.cancelled() => break Err(ProcEnd::Cancelled),
            never = Confined::beat_of(confined.as_ref()) => match never {},
            why = Confined::overfull(confined.as_ref()) => break Err(ProcEnd::Overfull(why)),
            () = hold(group, confined.as_ref(), &mut frozen) => {}
        }
    };
    // What stands still cannot end by itself.
    let gently = !matches!(ended, Ok(Some(_)) | Err(ProcEnd::Overfull(_))) && !*frozen.borrow();
    let inside = end(group, &mut child, &mut confined, gently).await;
    if said.is_none() && ended.is_ok() {
        // What it printed last is still to be read.
        said = tokio::time::timeout(TERM_GRACE, talk).await.ok();
    }
    let tail = match tail {
        Some(drained) => drained,
        None => tokio::time::timeout(TERM_GRACE, errors).await.unwrap_or_default(),
    };
    let end = match ended {
        // It did all that was asked, and was ended because it stayed.
        Ok(None) => ProcEnd::Exit(0),
        Ok(Some(status)) => inside.unwrap_or_else(|| exit_of(status)),
        Err(end) => end,
    };
    let truncated = tail.total > spec.log_budget;
    Ok((said, ProcReport { end, tail: tail.text(), printed: tail.total, truncated }))
}

/// Starts a process whose streams are ours.
async fn started(spec: &ProcSpec, program: &str) -> Result<(Child, Option<Confined>, Writer), ProcError> {
    let broken = |source| ProcError::Start { program: program.to_owned(), source };
    if let Cage::Sandboxed(sandbox, place) = &spec.cage {
        let (theirs, ours) = io::pipe().map_err(broken)?;
        let ours = pipe::Sender::from_owned_fd(ours.into()).map_err(broken)?;
        let (child, confined) = sandbox.start(place, spec, Some(theirs.into())).await?;
        return Ok((child, Some(confined), Writer(Box::new(ours))));
    }
    let mut child = bare(spec, program, Stdio::piped())?;
    let stdin = child.stdin.take().ok_or_else(|| broken(io::ErrorKind::BrokenPipe.into()))?;
    Ok((child, None, Writer(Box::new(stdin))))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn spec(script: &str, seconds: u64, log_budget: u64) -> ProcSpec {
        ProcSpec {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            cwd: std::env::temp_dir(),
            env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            lease: format!("piped-{}", std::process::id()),
            timeout: Duration::from_secs(seconds),
            log_budget,
            frozen: tokio::sync::watch::channel(false).1,
            output: crate::process::output::Output::default(),
            cage: crate::process::Cage::None,
        }
    }

    async fn heard(script: &str, most_line: usize, budget: u64) -> (Option<Vec<Heard>>, ProcReport) {
        let talk = |mut writer: Writer, mut lines: Lines| async move {
            let _gone = writer.write("one\ntwo\n").await;
            drop(writer);
            let mut all = Vec::new();
            loop {
                let next = lines.next().await;
                all.push(next.clone());
                if matches!(next, Heard::End | Heard::TooMuch) {
                    return all;
                }
            }
        };
        converse(&spec(script, 20, budget), most_line, &CancellationToken::new(), talk).await.unwrap()
    }

    fn line(text: &str) -> Heard {
        Heard::Line(text.to_owned())
    }

    #[tokio::test]
    async fn lines_go_both_ways() {
        let (said, report) = heard("cat; printf tail; echo oops >&2; exit 3", 100, 1 << 20).await;
        assert_eq!(said.unwrap(), [line("one"), line("two"), line("tail"), Heard::End]);
        assert_eq!((report.end, report.tail.as_str()), (ProcEnd::Exit(3), "oops\n"));
    }

    #[tokio::test]
    async fn long_lines_and_floods_are_not_kept() {
        let (said, _) = heard("head -c 100000 /dev/zero; echo; echo short", 1000, 1 << 20).await;
        assert_eq!(said.unwrap(), [Heard::TooLong, line("short"), Heard::End]);
        let (said, report) = heard("yes", 1000, 100_000).await;
        assert_eq!(said.unwrap().last(), Some(&Heard::TooMuch));
        // Nobody reads it any more.
        assert!(matches!(report.end, ProcEnd::Exit(_) | ProcEnd::Signal(_)), "{report:?}");
    }

    #[tokio::test]
    async fn who_neither_speaks_nor_ends_is_ended() {
        let talk = |_writer: Writer, mut lines: Lines| async move { lines.next().await };
        let began = tokio::time::Instant::now();
        let (said, report) = converse(&spec("sleep 60", 1, 1000), 100, &CancellationToken::new(), talk).await.unwrap();
        assert_eq!((said, report.end), (None, ProcEnd::Timeout));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_pipe_does_not_keep_the_talk() {
        let (said, report) = heard("sleep 60 & echo one; exit 0", 100, 1000).await;
        assert_eq!(said.unwrap(), [line("one"), Heard::End]);
        assert_eq!(report.end, ProcEnd::Exit(0));
    }
}

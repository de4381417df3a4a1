//! What a process prints, while it prints: lines for those who watch, and the whole of it for later, both bounded. Memory
//! is as much as is kept and no more, however much is printed.
//!
//! Secrets are taken out before anything leaves here. They are looked for in whole lines, so that it does not matter how
//! the bytes were read; a line that is too long to wait for is cut where no secret stands.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use memchr::memmem;
use tokio::sync::Notify;

use autopack_shared::domain::secret::key::{KeyLine, KeyLines, MARK};
use autopack_shared::domain::secret::redact;

use crate::provision::Hidden;

/// Bytes of lines that wait to be told.
pub const BATCH: usize = 4096;

/// The longest line that is waited for.
const LINE: usize = 32 * 1024;

/// Bytes that are looked at on either side of a cut, and how far and how often a cut is moved.
const AROUND: usize = 2048;
const STEP: usize = 512;
const TRIES: usize = 8;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Err,
}

/// Where the output of a process goes; nowhere by default.
#[derive(Clone, Default)]
pub struct Output(Option<Arc<Shared>>);

struct Shared {
    recorder: Mutex<Recorder>,
    news: Notify,
}

/// What was printed, at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// The whole of it, or its beginning and its end, without secrets.
    pub body: Vec<u8>,
    /// Bytes that were printed.
    pub bytes: u64,
    /// Bytes that are not in the body.
    pub dropped: u64,
    /// Bytes that were never handed out to be told.
    pub untold: u64,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("records", &self.0.is_some()).finish()
    }
}

impl Output {
    /// One that keeps at most so many bytes, without secrets and without what is hidden.
    #[must_use]
    pub(crate) fn recording(limit: usize, hidden: Hidden) -> Self {
        let recorder = Mutex::new(Recorder { half: limit / 2, hidden, ..Recorder::default() });
        Self(Some(Arc::new(Shared { recorder, news: Notify::new() })))
    }

    fn recorder(&self) -> Option<MutexGuard<'_, Recorder>> {
        self.0.as_ref().map(|shared| shared.recorder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what was read of one stream.
    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        let Some(shared) = &self.0 else { return };
        let Some(mut recorder) = self.recorder() else { return };
        recorder.write(stream, bytes);
        if !recorder.live.is_empty() {
            shared.news.notify_one();
        }
    }

    /// Adds a line of our own at once, between whole lines of the process: it counts as one of them.
    pub(crate) fn remark(&self, line: &str) {
        let Some(shared) = &self.0 else { return };
        if let Some(mut recorder) = self.recorder() {
            let line = format!("{line}\n");
            recorder.bytes += line.len() as u64;
            recorder.whole_lines(Stream::Err, line.as_bytes());
        }
        shared.news.notify_one();
    }

    /// Puts a line of our own between what is printed, which is none of what was printed.
    pub(crate) fn note(&self, line: &str) {
        if let Some(mut recorder) = self.recorder() {
            // Two streams of lines that have not ended: what comes now is of another process.
            recorder.end_lines();
            recorder.keep(format!("{line}\n").as_bytes());
        }
    }

    /// Nothing more will be printed: what was left of a last line is a line.
    pub fn close(&self) {
        let Some(shared) = &self.0 else { return };
        if let Some(mut recorder) = self.recorder() {
            recorder.close();
        }
        shared.news.notify_one();
    }

    /// Waits until there is something to tell; false once there never will be.
    pub async fn news(&self) -> bool {
        let Some(shared) = &self.0 else { return false };
        loop {
            {
                let recorder = shared.recorder.lock().unwrap_or_else(PoisonError::into_inner);
                if !recorder.live.is_empty() {
                    return true;
                }
                if recorder.closed {
                    return false;
                }
            }
            shared.news.notified().await;
        }
    }

    /// Completes when nothing more will be printed.
    pub async fn closed(&self) {
        let Some(shared) = &self.0 else { return };
        while !shared.recorder.lock().unwrap_or_else(PoisonError::into_inner).closed {
            shared.news.notified().await;
        }
        // Somebody else may wait for the same word.
        shared.news.notify_one();
    }

    /// Whole lines that were printed since the last time and were not too many, without secrets.
    #[must_use]
    pub fn lines(&self) -> String {
        let taken = self.recorder().map(|mut recorder| (std::mem::take(&mut recorder.live), recorder.hidden.clone()));
        taken.map(|(raw, hidden)| clean(&raw, &hidden)).unwrap_or_default()
    }

    /// All of it, after [`Output::close`]; none where nothing was printed. Takes a while: call it off the async threads.
    #[must_use]
    pub fn printed(&self) -> Option<Printed> {
        let mut recorder = std::mem::take(&mut *self.recorder()?);
        (recorder.bytes > 0).then(|| recorder.printed())
    }
}

#[derive(Default)]
struct Recorder {
    half: usize,
    hidden: Hidden,
    closed: bool,
    bytes: u64,
    /// What was read of a line that has not ended, by stream.
    open: [Vec<u8>; 2],
    /// Whether its next line may be one of a private key, by stream.
    key: [KeyLines; 2],
    live: Vec<u8>,
    untold: u64,
    head: Vec<u8>,
    head_full: bool,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Recorder {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let mut open = std::mem::take(&mut self.open[stream as usize]);
        open.extend_from_slice(bytes);
        let end = memchr::memrchr(b'\n', &open).map_or(0, |at| at + 1);
        self.whole_lines(stream, &open[..end]);
        open.drain(..end);
        while open.len() > LINE {
            let at = cut(&open, &self.hidden);
            let mut piece = open[..at].to_vec();
            piece.push(b'\n');
            self.whole_lines(stream, &piece);
            open.drain(..at);
        }
        self.open[stream as usize] = open;
    }

    fn close(&mut self) {
        self.end_lines();
        self.closed = true;
    }

    fn end_lines(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            let mut open = std::mem::take(&mut self.open[stream as usize]);
            if !open.is_empty() {
                open.push(b'\n');
                self.whole_lines(stream, &open);
            }
        }
        self.key = [KeyLines::OUTSIDE; 2];
    }

    /// Takes lines that have ended, without the bodies of private keys: those have no mark of their own.
    fn whole_lines(&mut self, stream: Stream, lines: &[u8]) {
        if !self.key[stream as usize].inside() && memmem::find(lines, b"PRIVATE KEY").is_none() {
            return self.keep(lines);
        }
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match self.key[stream as usize].next(line) {
                KeyLine::Inside => {}
                KeyLine::Begins(at) => self.keep(&[&line[..at], MARK.as_bytes(), b"\n"].concat()),
                KeyLine::Other => self.keep(line),
            }
        }
    }

    fn keep(&mut self, lines: &[u8]) {
        self.tell(lines);
        let mut rest = lines;
        if !self.head_full {
            let fit = fitting(lines, self.half - self.head.len());
            self.head.extend_from_slice(&lines[..fit]);
            rest = &lines[fit..];
            self.head_full = !rest.is_empty();
        }
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.half);
        if excess > 0 {
            // From a line's beginning on: half a line may be half a secret.
            let ends = self.tail.range(excess - 1..).position(|byte| *byte == b'\n');
            let gone = ends.map_or(self.tail.len(), |at| excess + at);
            self.tail.drain(..gone);
            self.dropped += gone as u64;
        }
    }

    fn tell(&mut self, lines: &[u8]) {
        let room = BATCH.saturating_sub(self.live.len());
        let fit = fitting(lines, room);
        self.live.extend_from_slice(&lines[..fit]);
        let mut rest = &lines[fit..];
        if self.live.is_empty()
            && let Some(end) = memchr::memchr(b'\n', rest)
        {
            // One that is longer than all that is told at once: its beginning is.
            let shown = clean(&rest[..end], &self.hidden);
            self.live.extend(shown.chars().take(BATCH / 4).chain(['…', '\n']).collect::<String>().bytes());
            rest = &rest[end + 1..];
        }
        self.untold += rest.len() as u64;
    }

    fn printed(&mut self) -> Printed {
        let mut body = clean(&self.head, &self.hidden).into_bytes();
        if self.dropped > 0 {
            body.extend(format!("[... {} bytes are left out here ...]\n", self.dropped).into_bytes());
        }
        body.extend(clean(self.tail.make_contiguous(), &self.hidden).into_bytes());
        let untold = self.untold + self.live.len() as u64;
        Printed { body, bytes: self.bytes, dropped: self.dropped, untold }
    }
}

/// Bytes as text without secrets.
fn clean(bytes: &[u8], hidden: &Hidden) -> String {
    redact(&hidden.cover(&String::from_utf8_lossy(bytes)))
}

/// How many bytes of whole lines fit into a room.
fn fitting(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room { lines.len() } else { memchr::memrchr(b'\n', &lines[..room]).map_or(0, |at| at + 1) }
}

/// Where a line without an end can be cut: nowhere inside of a secret, nor of a character.
fn cut(line: &[u8], hidden: &Hidden) -> usize {
    let mut at = line.len() - AROUND;
    for _ in 0..TRIES {
        while at > AROUND && line[at] & 0xc0 == 0x80 {
            at -= 1;
        }
        let (left, right) = (&line[at - AROUND..at], &line[at..(at + AROUND).min(line.len())]);
        if clean(&[left, right].concat(), hidden) == clean(left, hidden) + &clean(right, hidden) {
            break;
        }
        at -= STEP;
    }
    at
}

#[cfg(test)]
mod tests;

//! Bodies on their way through: counted against the budget, ended when nothing comes for too long, and, on the way in,
//! looked through for usage and for the key, which must not come back. Nothing is kept whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::ledger::{Ledger, Outcome, Way};
use super::spent::Call;
use super::usage::Tap;

/// Why a body was cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// It has a reason of ours.
    #[error("{0}")]
    Refused(&'static str),
    /// The other side broke off.
    #[error("the other side broke off")]
    Broken,
}

/// What looks at the bytes of a body.
pub(super) trait Watch {
    /// Takes what came; what may go on now.
    fn take(&mut self, data: Bytes) -> Result<Bytes, &'static str>;
    /// What was held back and may go on at the end.
    fn rest(&mut self) -> Bytes;
}

/// A body that is watched.
pub(super) struct Watched<B, W> {
    inner: B,
    watch: W,
    idle: Duration,
    patience: Pin<Box<Sleep>>,
    ended: bool,
}

impl<B, W> Watched<B, W> {
    pub(super) fn new(inner: B, watch: W, idle: Duration) -> Self {
        Self { inner, watch, idle, patience: Box::pin(sleep(idle)), ended: false }
    }
}

impl<B: Body<Data = Bytes> + Unpin, W: Watch + Unpin> Body for Watched<B, W> {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        while !this.ended {
            let Poll::Ready(next) = Pin::new(&mut this.inner).poll_frame(context) else {
                ready!(this.patience.as_mut().poll(context));
                this.ended = true;
                return Poll::Ready(Some(Err(Cut::Refused("idle"))));
            };
            this.patience.as_mut().reset(Instant::now() + this.idle);
            let frame = match next {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(Cut::Broken)));
                }
                None => {
                    this.ended = true;
                    let rest = this.watch.rest();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            };
            // Trailers say nothing that anybody here needs.
            let Ok(data) = frame.into_data() else { continue };
            match this.watch.take(data) {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(why) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(Cut::Refused(why))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body.
pub(super) struct Upward {
    pub(super) ledger: Arc<Ledger>,
    pub(super) place: String,
    pub(super) call: Arc<Call>,
}

impl Watch for Upward {
    fn take(&mut self, data: Bytes) -> Result<Bytes, &'static str> {
        self.call.asked(data.len() as u64);
        if self.ledger.spend(Way::Up, &self.place, data.len() as u64) {
            return Ok(data);
        }
        self.ledger.note(&self.place, Outcome::Refused("byte_budget"));
        Err("byte_budget")
    }

    fn rest(&mut self) -> Bytes {
        Bytes::new()
    }
}

/// An answer's body. What its model used is charged when it is through, or given up.
pub(super) struct Downward {
    pub(super) ledger: Arc<Ledger>,
    pub(super) place: String,
    pub(super) call: Arc<Call>,
    pub(super) sieve: Sieve,
    pub(super) tap: Tap,
}

impl Watch for Downward {
    fn take(&mut self, data: Bytes) -> Result<Bytes, &'static str> {
        self.tap.look(&data);
        let within = self.ledger.spend(Way::Down, &self.place, data.len() as u64);
        let why = match self.sieve.pass(data) {
            Some(data) if within => return Ok(data),
            Some(_) => "byte_budget",
            None => "key_echoed",
        };
        self.ledger.note(&self.place, Outcome::Refused(why));
        Err(why)
    }

    fn rest(&mut self) -> Bytes {
        self.sieve.rest()
    }
}

impl Drop for Downward {
    fn drop(&mut self) {
        self.call.done(&self.tap);
    }
}

/// Lets everything through but one secret: what could be its beginning is held until it is clear what it is.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    secret: Secret,
    held: Vec<u8>,
}

/// Not shown, not even for debugging.
#[derive(Default)]
struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

impl Sieve {
    pub(super) fn of(secret: &str) -> Self {
        Self { secret: Secret(secret.as_bytes().to_vec()), held: Vec::new() }
    }

    /// Whether a text has the secret in it.
    pub(super) fn finds(&self, text: &[u8]) -> bool {
        !self.secret.0.is_empty() && memchr::memmem::find(text, &self.secret.0).is_some()
    }

    /// What may go on; none where it was the secret.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        let Secret(secret) = &self.secret;
        if secret.is_empty() {
            return Some(data);
        }
        let text = if self.held.is_empty() { data } else { Bytes::from([&self.held[..], &data].concat()) };
        if self.finds(&text) {
            return None;
        }
        let longest = (secret.len() - 1).min(text.len());
        let hold = (1..=longest).rev().find(|length| text.ends_with(&secret[..*length])).unwrap_or(0);
        self.held = text[text.len() - hold..].to_vec();
        Some(text.slice(..text.len() - hold))
    }

    fn rest(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_pass_however_it_is_cut() {
        let text = b"before sk-sk-secret after";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut sieve = Sieve::of("sk-secret");
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let passed: Option<Vec<Bytes>> =
                    pieces.iter().map(|piece| sieve.pass(Bytes::copy_from_slice(piece))).collect();
                assert!(passed.is_none(), "{first} {second}");
            }
        }
    }

    #[test]
    fn everything_else_passes_whole() {
        let text = b"sk-secre sk-s sk-secreT sk-sec";
        for at in 0..text.len() {
            let mut sieve = Sieve::of("sk-secret");
            let mut passed = sieve.pass(Bytes::copy_from_slice(&text[..at])).unwrap().to_vec();
            passed.extend(sieve.pass(Bytes::copy_from_slice(&text[at..])).unwrap());
            assert!(!passed.ends_with(b"sk-sec"), "it could still become one");
            passed.extend(sieve.rest());
            assert_eq!(passed, text, "{at}");
        }
        assert_eq!(Sieve::of("").pass(Bytes::from_static(b"x")).unwrap(), "x");
    }
}

//! What a job says on its way: events in order, and the digest of what its builder printed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use autopack_shared::wire::pb;

use super::{Job, JobOutput};
use crate::builder::BuildError;
use crate::provision::Hidden;

/// Sends a job's events, numbered.
#[derive(Debug)]
pub struct EventSink {
    pub(super) job: Job,
    out: mpsc::Sender<JobOutput>,
    seq: AtomicU64,
    /// The digest of what was printed, once it is kept.
    transcript: Mutex<String>,
    /// Which hosts were tried.
    contacts: Mutex<Vec<String>>,
    /// Whether a builder was asked for anything.
    asked: AtomicBool,
    pub(super) began: tokio::time::Instant,
    pub(super) hidden: Hidden,
}

impl EventSink {
    pub(super) fn new(job: Job, out: mpsc::Sender<JobOutput>, began: tokio::time::Instant) -> Self {
        Self {
            job,
            out,
            seq: AtomicU64::new(0),
            transcript: Mutex::default(),
            contacts: Mutex::default(),
            asked: AtomicBool::new(false),
            began,
            hidden: Hidden::default(),
        }
    }

    /// The number of the last event.
    pub(super) fn said(&self) -> u64 {
        self.seq.load(Ordering::SeqCst)
    }

    /// A builder is about to be asked.
    pub(super) fn asks(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// What came of a job; nothing was used where its failure came before any builder was asked.
    pub(super) fn told<T>(&self, done: Result<T, BuildError>) -> Result<T, BuildError> {
        let unasked = |error: BuildError| if error.usage.is_none() { error.unasked() } else { error };
        if self.asked.load(Ordering::SeqCst) { done } else { done.map_err(unasked) }
    }

    /// One event. A stream that is gone is no error here: the job is about to be cancelled.
    pub async fn send(&self, kind: &str, text: impl Into<String>) {
        let event = pb::RunEvent {
            run_id: self.job.run.to_string(),
            epoch: self.job.epoch,
            phase_id: self.job.phase.to_string(),
            attempt: self.job.attempt,
            run_seq: self.seq.fetch_add(1, Ordering::SeqCst) + 1,
            kind: kind.to_owned(),
            text: self.hidden.cover(&text.into()),
            data_json: String::new(),
        };
        let _gone = self.out.send(JobOutput::Event(event)).await;
    }

    pub(super) fn has_transcript(&self, digest: String) {
        *self.transcript.lock().unwrap_or_else(PoisonError::into_inner) = digest;
    }

    pub(super) fn has_contacts(&self, lines: Vec<String>) {
        *self.contacts.lock().unwrap_or_else(PoisonError::into_inner) = lines;
    }

    pub(super) fn contacts(&self) -> Vec<String> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn transcript(&self) -> String {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

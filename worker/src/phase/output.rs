//! What a job says on its way and at its end, before it is a message of the stream.

use autopack_shared::wire::pb::{self, worker_message};

use super::{Job, ending};
use crate::builder::BuildError;

/// What a job sends to the stream.
#[derive(Debug, Clone)]
pub enum JobOutput {
    /// Something happened.
    Event(pb::RunEvent),
    /// It ended.
    Done(Box<pb::AttemptResult>),
}

impl JobOutput {
    /// A job that could not even begin.
    pub(crate) fn failed(job: &Job, error: BuildError) -> Self {
        Self::Done(Box::new(ending::result(job, 0, Err(error))))
    }

    /// Its run, epoch and number; a result comes after its events.
    pub(crate) fn place(&self) -> (&str, u64, u64) {
        match self {
            Self::Event(event) => (&event.run_id, event.epoch, event.run_seq),
            Self::Done(result) => (&result.run_id, result.epoch, result.run_seq + 1),
        }
    }

    /// As a message body.
    #[must_use]
    pub fn into_body(self) -> worker_message::Body {
        match self {
            Self::Event(event) => worker_message::Body::Event(event),
            Self::Done(result) => worker_message::Body::Result(*result),
        }
    }
}

//! Transcripts: what builders printed. Content-addressed within a run: what was printed twice is kept once, and nobody
//! reads another run's by knowing its digest.

use async_trait::async_trait;
use serde::Serialize;

use autopack_shared::domain::ids::{Digest, ProjectId, RunId, Timestamp};

use super::StoreResult;

/// A transcript that may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTranscript {
    /// Its run.
    pub run: RunId,
    /// What it is kept under.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A transcript that has gone; what the log pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GoneTranscript {
    /// Its run.
    pub run: RunId,
    /// What it was kept under.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// When it went.
    pub at: Timestamp,
}

/// Verbs of transcripts.
#[async_trait]
pub trait Transcripts {
    /// Keeps a text under its digest, which the caller has computed; under the run's fence. One that is there stays.
    async fn keep_transcript(&mut self, run: &RunId, digest: &Digest, body: &[u8]) -> StoreResult<()>;
    /// Whether a run has a text with this digest.
    async fn has_transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<bool>;
    /// The text that is kept under a digest; whoever shows it checks that it is the one.
    async fn transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<Option<Vec<u8>>>;
    /// Transcripts of a project's runs that are at their end, kept since before an instant and named by no decision: the
    /// oldest, at most `limit`.
    async fn due_transcripts(
        &mut self,
        project: &ProjectId,
        before: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<DueTranscript>>;
    /// Bytes of the transcripts of a project that no decision names: those that it names stay.
    async fn transcript_bytes(&mut self, project: &ProjectId) -> StoreResult<u64>;
    /// Lets one go, under the director's fence: what it was, none where it is not there.
    async fn forget_transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<Option<GoneTranscript>>;
    /// Those of a run that have gone.
    async fn gone_transcripts(&mut self, run: &RunId) -> StoreResult<Vec<GoneTranscript>>;
}

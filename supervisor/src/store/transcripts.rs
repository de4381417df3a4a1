//! Transcripts: what builders printed. Content-addressed within a run: what was printed twice is kept once, and nobody
//! reads another run's by knowing its digest.

use async_trait::async_trait;

use autopack_shared::domain::ids::{Digest, RunId};

use super::StoreResult;

/// Verbs of transcripts.
#[async_trait]
pub trait Transcripts {
    /// Keeps a text under its digest, which the caller has computed; under the run's fence. One that is there stays.
    async fn keep_transcript(&mut self, run: &RunId, digest: &Digest, body: &[u8]) -> StoreResult<()>;
    /// Whether a run has a text with this digest.
    async fn has_transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<bool>;
    /// The text that is kept under a digest; whoever shows it checks that it is the one.
    async fn transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<Option<Vec<u8>>>;
}

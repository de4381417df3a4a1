//! Surveys: what waits for a worker to look at a commit. None needs a fence: each write is a compare-and-set on its own
//! row, and a worker has a survey once its write of the row was the first.

use async_trait::async_trait;

use autopack_shared::domain::ids::{Digest, RowId, Timestamp};
use autopack_shared::domain::survey::Survey;

use super::StoreResult;

/// Open surveys that are looked at; the rest has to wait for these.
pub const OPEN: u32 = 32;

/// Verbs of surveys.
#[async_trait]
pub trait Surveys {
    /// Adds a survey. A second open one with the same key is refused with `Exists`.
    async fn insert_survey(&mut self, survey: &Survey) -> StoreResult<()>;
    /// One survey.
    async fn survey(&mut self, id: &RowId) -> StoreResult<Option<Survey>>;
    /// The newest survey with a key.
    async fn newest_survey(&mut self, key: &Digest) -> StoreResult<Option<Survey>>;
    /// Surveys that nobody has answered, oldest first, at most [`OPEN`] of them.
    async fn open_surveys(&mut self) -> StoreResult<Vec<Survey>>;
    /// Writes a survey by its version.
    async fn update_survey(&mut self, survey: &mut Survey) -> StoreResult<()>;
    /// Deletes the surveys that have expired; how many.
    async fn drop_surveys(&mut self, now: Timestamp) -> StoreResult<u64>;
}

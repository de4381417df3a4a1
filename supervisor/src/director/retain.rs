//! Transcripts that are old, or more than a project may have, go: in small batches, those that no decision names. What a
//! decision names is kept as long as the decision, which is for good.

use std::time::Duration;

use super::{Director, moves};
use crate::error::Error;
use crate::store::transcripts::DueTranscript;

/// Transcripts that go in one transaction.
const BATCH: u32 = 50;

/// Between two looks, where the last one found nothing.
pub(super) const LOOK: Duration = Duration::from_secs(600);

const DAY_SECONDS: i64 = 86_400;

/// How long a project's transcripts are kept that no decision names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days; 0 keeps them for good.
    pub days: u32,
    /// Bytes of all transcripts of a project, above which the oldest go; 0 for no bound.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 90, bytes: 4 << 30 }
    }
}

impl Director {
    /// Lets one batch go, if it is time to look; true where there is more to do.
    pub(super) async fn retain(&self) -> Result<bool, Error> {
        let now = self.clock.monotonic();
        if self.pauses().looked_at_transcripts.is_some_and(|at| now < at + LOOK) {
            return Ok(false);
        }
        let due = self.due().await?;
        if due.is_empty() {
            self.pauses().looked_at_transcripts = Some(now);
            return Ok(false);
        }
        let Retention { days, bytes } = self.config.governing.retention;
        let why = format!("kept for {days} days, {bytes} bytes in all");
        let mut tx = self.fenced(&[]).await?;
        for one in &due {
            moves::forget_transcript(tx.as_mut(), one, &why).await?;
        }
        tx.commit().await?;
        tracing::info!(project = %self.project, count = due.len(), "transcripts were deleted");
        Ok(true)
    }

    /// The next that go.
    async fn due(&self) -> Result<Vec<DueTranscript>, Error> {
        let Retention { days, bytes } = self.config.governing.retention;
        let mut tx = self.store.read().await?;
        let now = tx.now();
        if days > 0 {
            let before = now.plus_seconds(-DAY_SECONDS * i64::from(days));
            let old = tx.due_transcripts(&self.project, before, BATCH).await?;
            if !old.is_empty() {
                return Ok(old);
            }
        }
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let mut excess = tx.transcript_bytes(&self.project).await?.saturating_sub(bytes);
        if excess == 0 {
            return Ok(Vec::new());
        }
        let mut oldest = tx.due_transcripts(&self.project, now, BATCH).await?;
        oldest.retain(|one| {
            let goes = excess > 0;
            excess = excess.saturating_sub(one.size);
            goes
        });
        Ok(oldest)
    }
}

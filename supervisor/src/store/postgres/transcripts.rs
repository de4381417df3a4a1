//! Transcripts.

use async_trait::async_trait;
use sqlx::query;

use autopack_shared::domain::ids::{Digest, RunId};

use super::error::Subject;
use super::tx::{PostgresTx, bytes};
use crate::store::StoreResult;
use crate::store::transcripts::Transcripts;

#[async_trait]
impl Transcripts for PostgresTx {
    async fn keep_transcript(&mut self, run: &RunId, digest: &Digest, body: &[u8]) -> StoreResult<()> {
        self.touch(run).await?;
        let sql = "INSERT INTO transcript (run_id, digest, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
        let subject = Subject::new("transcript", digest).of("run", run).in_run(run);
        self.write(&subject, query(sql).bind(run.as_str()).bind(digest.to_hex()).bind(body)).await?;
        Ok(())
    }

    async fn has_transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<bool> {
        let sql = "SELECT 1 FROM transcript WHERE run_id = $1 AND digest = $2";
        Ok(self.one(query(sql).bind(run.as_str()).bind(digest.to_hex())).await?.is_some())
    }

    async fn transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<Option<Vec<u8>>> {
        let sql = "SELECT body FROM transcript WHERE run_id = $1 AND digest = $2";
        let row = self.one(query(sql).bind(run.as_str()).bind(digest.to_hex())).await?;
        row.map(|row| bytes(&row, 0).map(<[u8]>::to_vec)).transpose()
    }
}

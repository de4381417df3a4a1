//! Transcripts.

use async_trait::async_trait;
use sqlx::query;

use autopack_shared::domain::ids::{Digest, ProjectId, RunId, Timestamp};

use super::error::Subject;
use super::tx::{SqliteTx, bytes, integer, maybe_integer, natural, text};
use crate::store::transcripts::{DueTranscript, GoneTranscript, Transcripts};
use crate::store::{StoreError, StoreResult, Tx as _};

#[async_trait]
impl Transcripts for SqliteTx {
    async fn keep_transcript(&mut self, run: &RunId, digest: &Digest, body: &[u8]) -> StoreResult<()> {
        let sql = "INSERT INTO transcript (run_id, digest, body, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        let now = self.now().as_millis();
        let subject = Subject::new("transcript", digest).of("run", run).in_run(run);
        self.write(&subject, query(sql).bind(run.as_str()).bind(digest.to_hex()).bind(body).bind(now)).await?;
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

    async fn due_transcripts(
        &mut self,
        project: &ProjectId,
        before: Timestamp,
        limit: u32,
    ) -> StoreResult<Vec<DueTranscript>> {
        let sql = "SELECT t.run_id, t.digest, length(t.body) FROM transcript AS t JOIN run AS r ON r.id = t.run_id \
                   JOIN final_state AS f ON f.machine = 'run' AND f.state = r.state \
                   WHERE r.project = $1 AND t.at < $2 AND NOT EXISTS (SELECT 1 FROM decision AS d \
                   WHERE d.run_id = t.run_id AND d.doc ->> '$.transcript' = 'sha256:' || t.digest) \
                   ORDER BY t.at, t.run_id, t.digest LIMIT $3";
        let rows = self.all(query(sql).bind(project.as_str()).bind(before.as_millis()).bind(i64::from(limit))).await?;
        let due = |row| {
            let (run, digest, size) = (text(row, 0)?, text(row, 1)?, natural(row, 2)?);
            Ok(DueTranscript { run: name(run)?, digest: hex(digest)?, size })
        };
        rows.iter().map(due).collect()
    }

    async fn transcript_bytes(&mut self, project: &ProjectId) -> StoreResult<u64> {
        let sql = "SELECT coalesce(sum(length(t.body)), 0) FROM transcript AS t JOIN run AS r ON r.id = t.run_id \
                   WHERE r.project = $1 AND NOT EXISTS (SELECT 1 FROM decision AS d \
                   WHERE d.run_id = t.run_id AND d.doc ->> '$.transcript' = 'sha256:' || t.digest)";
        self.one(query(sql).bind(project.as_str())).await?.map_or(Ok(0), |row| natural(&row, 0))
    }

    async fn forget_transcript(&mut self, run: &RunId, digest: &Digest) -> StoreResult<Option<GoneTranscript>> {
        let sql = "SELECT length(body) FROM transcript WHERE run_id = $1 AND digest = $2";
        let there = self.one(query(sql).bind(run.as_str()).bind(digest.to_hex())).await?;
        let Some(size) = there.map(|row| natural(&row, 0)).transpose()? else { return Ok(None) };
        let subject = Subject::new("transcript", digest).of("run", run).in_run(run);
        let gone = GoneTranscript { run: run.clone(), digest: *digest, size, at: self.now() };
        let sql = "INSERT INTO transcript_gone (run_id, digest, size, at) VALUES ($1, $2, $3, $4)";
        let row = query(sql).bind(run.as_str()).bind(digest.to_hex()).bind(integer(size)).bind(gone.at.as_millis());
        self.write(&subject, row).await?;
        let sql = "DELETE FROM transcript WHERE run_id = $1 AND digest = $2";
        self.write(&subject, query(sql).bind(run.as_str()).bind(digest.to_hex())).await?;
        Ok(Some(gone))
    }

    async fn gone_transcripts(&mut self, run: &RunId) -> StoreResult<Vec<GoneTranscript>> {
        let sql = "SELECT digest, size, at FROM transcript_gone WHERE run_id = $1 ORDER BY digest";
        let rows = self.all(query(sql).bind(run.as_str())).await?;
        let gone = |row| {
            let (digest, size, at) =
                (hex(text(row, 0)?)?, natural(row, 1)?, maybe_integer(row, 2)?.unwrap_or_default());
            Ok(GoneTranscript { run: run.clone(), digest, size, at: Timestamp::from_millis(at) })
        };
        rows.iter().map(gone).collect()
    }
}

fn name(run: &str) -> StoreResult<RunId> {
    RunId::new(run).map_err(|e| StoreError::Corrupt(format!("a transcript's run: {e}")))
}

fn hex(digest: &str) -> StoreResult<Digest> {
    format!("sha256:{digest}").parse().map_err(|e| StoreError::Corrupt(format!("a transcript's digest: {e}")))
}

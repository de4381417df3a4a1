//! Verbs for many rows: a loop over one, since there is no way between this process and its file to spare.

use async_trait::async_trait;
use sqlx::query;

use autopack_shared::domain::ids::{PhaseId, RequestId, RowId, RunId, Scope};
use autopack_shared::domain::record::{Apply, Decision, Phase, Request, Run};

use super::tx::{SqliteTx, natural};
use crate::store::batches::{Batches, Gathered};
use crate::store::{Applies as _, Fences as _, Phases as _, Requests as _, Runs as _, StoreResult};

#[async_trait]
impl Batches for SqliteTx {
    fn defer(&mut self) {}

    async fn gather(&mut self, wanted: &[(RunId, Option<PhaseId>)]) -> StoreResult<Vec<Gathered>> {
        self.writes()?;
        let mut found = Vec::with_capacity(wanted.len());
        for (run, phase) in wanted {
            let phase = match phase {
                Some(phase) => self.phase(run, phase).await?,
                None => None,
            };
            found.push(Gathered { run: self.run(run).await?, phase });
        }
        Ok(found)
    }

    async fn lock_slots(&mut self) -> StoreResult<()> {
        // There is one writer at a time.
        self.writes()
    }

    async fn bump_all(&mut self, scopes: &[(Scope, String)]) -> StoreResult<Vec<u64>> {
        let mut raised = Vec::with_capacity(scopes.len());
        for (scope, holder) in scopes {
            raised.push(self.bump(scope, holder).await?);
        }
        Ok(raised)
    }

    async fn runs_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<Run>> {
        let mut found = Vec::with_capacity(runs.len());
        for run in runs {
            found.extend(self.run(run).await?);
        }
        Ok(found)
    }

    async fn phases_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<Phase>> {
        let mut found = Vec::new();
        for run in runs {
            found.extend(self.phases(run).await?);
        }
        Ok(found)
    }

    async fn lines_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<(RunId, u64)>> {
        let mut found = Vec::with_capacity(runs.len());
        for run in runs {
            let sql = query("SELECT coalesce(max(seq), 0) FROM event WHERE run_id = $1").bind(run.as_str());
            let lines = self.one(sql).await?.map(|row| natural(&row, 0)).transpose()?;
            found.push((run.clone(), lines.unwrap_or(0)));
        }
        Ok(found)
    }

    async fn decisions_of(&mut self, ids: &[RowId]) -> StoreResult<Vec<Decision>> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.decision(id).await?);
        }
        Ok(found)
    }

    async fn requests_of(&mut self, ids: &[RequestId]) -> StoreResult<Vec<Request>> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.request(id).await?);
        }
        Ok(found)
    }

    async fn applies_of(&mut self, ids: &[RowId]) -> StoreResult<Vec<Apply>> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            found.extend(self.apply(id).await?);
        }
        Ok(found)
    }
}

//! Verbs for many rows: each one question.

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::{Row as _, query};

use autopack_shared::domain::ids::{PhaseId, RequestId, RowId, RunId, Scope};
use autopack_shared::domain::record::{Apply, Decision, Event, Phase, Request, Run};

use super::audit::digest;
use super::error::failed;
use super::tx::{PostgresTx, maybe_integer, maybe_text, natural, read_living, read_living_at, read_plain};
use crate::store::batches::{Batches, Gathered};
use crate::store::{StoreError, StoreResult, Tx as _, doc};

/// What the lock of all slots is called among the gates; no project can have this name.
const SLOTS: &str = "/slots";

/// The last line of a run's history, by what was told of a run that is held.
fn last(row: &PgRow, column: usize) -> StoreResult<Option<Event>> {
    maybe_text(row, column)?.map(|text| doc::unpack(text, [])).transpose()
}

impl PostgresTx {
    /// Holds the row of a run until the transaction ends, so that two that write to one run come one after the other
    /// whatever they write there. A run that is not there is left to the statement that needs it.
    pub(super) async fn touch(&mut self, run: &RunId) -> StoreResult<()> {
        self.writes()?;
        if self.held.contains_key(run) {
            return Ok(());
        }
        let sql = "SELECT run_version, last, head_seq, head_hash FROM autopack.gather(ARRAY[$1], ARRAY[NULL])";
        for row in self.all(query(sql).bind(run.as_str())).await? {
            self.learn(run, &row, 0)?;
        }
        Ok(())
    }

    /// Keeps what is known of a run whose row is held, from `version, last, head_seq, head_hash`.
    fn learn(&mut self, run: &RunId, row: &PgRow, column: usize) -> StoreResult<()> {
        if maybe_integer(row, column)?.is_some() {
            self.held.insert(run.clone(), last(row, column + 1)?);
            let head = match maybe_integer(row, column + 2)? {
                Some(_) => (natural(row, column + 2)?, digest(row, column + 3)?),
                None => super::audit::NOTHING,
            };
            // Records that this transaction has written already say more.
            self.heads.entry(format!("run/{run}")).or_insert(head);
        }
        Ok(())
    }

    /// Rows with a life, by their ids.
    async fn living_of<T: serde::de::DeserializeOwned>(
        &mut self,
        sql: &'static str,
        ids: Vec<&str>,
    ) -> StoreResult<Vec<T>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.all(query(sql).bind(ids)).await?.iter().map(read_living).collect()
    }
}

#[async_trait]
impl Batches for PostgresTx {
    fn defer(&mut self) {
        self.deferring = true;
    }

    async fn gather(&mut self, wanted: &[(RunId, Option<PhaseId>)]) -> StoreResult<Vec<Gathered>> {
        self.writes()?;
        if let Some(shown) = self.shown(wanted) {
            return Ok(vec![shown]);
        }
        let mut order: Vec<usize> = (0..wanted.len()).collect();
        order.sort_by_key(|&at| &wanted[at].0);
        let runs: Vec<&str> = order.iter().map(|&at| wanted[at].0.as_str()).collect();
        let phases: Vec<Option<&str>> = order.iter().map(|&at| wanted[at].1.as_ref().map(PhaseId::as_str)).collect();
        let sql = "SELECT run_doc, run_state, run_version, phase_doc, phase_state, phase_version, run_version, last, \
                   head_seq, head_hash FROM autopack.gather($1, $2)";
        let rows = self.all(query(sql).bind(runs).bind(phases)).await?;
        let mut found: Vec<Option<Gathered>> = vec![None; wanted.len()];
        for (&at, row) in order.iter().zip(&rows) {
            if !self.held.contains_key(&wanted[at].0) {
                self.learn(&wanted[at].0, row, 6)?;
            }
            found[at] = Some(Gathered { run: read_living_at(row, 0)?, phase: read_living_at(row, 3)? });
        }
        let short = || StoreError::Corrupt("fewer answers than were asked for".to_owned());
        found.into_iter().map(|one| one.ok_or_else(short)).collect()
    }

    async fn lock_slots(&mut self) -> StoreResult<()> {
        self.writes()?;
        self.one(query("SELECT autopack.lock_gate($1)").bind(SLOTS)).await?;
        Ok(())
    }

    async fn bump_all(&mut self, scopes: &[(Scope, String)]) -> StoreResult<Vec<u64>> {
        self.writes()?;
        let names: Vec<String> = scopes.iter().map(|(scope, _)| scope.to_string()).collect();
        let holders: Vec<&str> = scopes.iter().map(|(_, holder)| holder.as_str()).collect();
        let sql = query("SELECT autopack.fence_bump_all($1, $2, $3)").bind(names).bind(holders);
        let row = self.one(sql.bind(self.now().as_millis())).await?;
        let row = row.ok_or_else(|| StoreError::Corrupt("a query without an answer".to_owned()))?;
        let raised: Vec<i64> = row.try_get(0).map_err(|e| failed(&e, None))?;
        let epoch = |epoch: i64| u64::try_from(epoch).map_err(|_| StoreError::Corrupt(format!("epoch {epoch}")));
        raised.into_iter().map(epoch).collect()
    }

    async fn runs_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<Run>> {
        let sql = "SELECT doc::text, state, version FROM run WHERE id = ANY($1)";
        self.living_of(sql, runs.iter().map(RunId::as_str).collect()).await
    }

    async fn phases_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<Phase>> {
        let sql = "SELECT doc::text, state, version FROM phase WHERE run_id = ANY($1) ORDER BY run_id, ordinal";
        self.living_of(sql, runs.iter().map(RunId::as_str).collect()).await
    }

    async fn lines_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<(RunId, u64)>> {
        // The newest line of each by the index, whatever came before it.
        let sql = "SELECT r.ord, coalesce((SELECT e.seq FROM event AS e WHERE e.run_id = r.id ORDER BY e.seq DESC LIMIT 1), 0) \
                   FROM unnest($1::text[]) WITH ORDINALITY AS r (id, ord) ORDER BY r.ord";
        let names: Vec<&str> = runs.iter().map(RunId::as_str).collect();
        let rows = self.all(query(sql).bind(names)).await?;
        runs.iter().zip(&rows).map(|(run, row)| Ok((run.clone(), natural(row, 1)?))).collect()
    }

    async fn decisions_of(&mut self, ids: &[RowId]) -> StoreResult<Vec<Decision>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = ids.iter().map(RowId::as_str).collect();
        let sql = query("SELECT doc::text FROM decision WHERE id = ANY($1)").bind(names);
        self.all(sql).await?.iter().map(read_plain).collect()
    }

    async fn requests_of(&mut self, ids: &[RequestId]) -> StoreResult<Vec<Request>> {
        let sql = "SELECT doc::text, state, version FROM request WHERE id = ANY($1)";
        self.living_of(sql, ids.iter().map(RequestId::as_str).collect()).await
    }

    async fn applies_of(&mut self, ids: &[RowId]) -> StoreResult<Vec<Apply>> {
        let sql = "SELECT doc::text, state, version FROM apply WHERE id = ANY($1)";
        self.living_of(sql, ids.iter().map(RowId::as_str).collect()).await
    }
}

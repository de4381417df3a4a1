//! Moves of branches, and the size windows they fill.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::postgres::PgRow;
use sqlx::query;

use autopack_shared::domain::ids::{RequestId, RowId, RunId, Timestamp};
use autopack_shared::domain::record::{Apply, Run, WindowSums};

use super::error::Subject;
use super::tx::{PostgresTx, integer, living, natural, read_living, text};
use crate::store::{Applies, StoreResult, Tx as _};

fn sums(rows: &[PgRow]) -> StoreResult<BTreeMap<String, u64>> {
    rows.iter().map(|row| Ok((text(row, 0)?.to_owned(), natural(row, 1)?))).collect()
}

#[async_trait]
impl Applies for PostgresTx {
    async fn insert_apply(&mut self, apply: &Apply) -> StoreResult<()> {
        self.touch(&apply.run).await?;
        let request = apply.request.as_ref().map_or("", RequestId::as_str);
        let subject = Subject::new("apply", &apply.id)
            .in_run(&apply.run)
            .of("run or request of apply", &apply.id)
            .once(&["apply_prepared_once"], "a prepared apply of", &apply.target_ref)
            .once(&["apply_consumes_once"], "an apply of request", request);
        let sql = "INSERT INTO apply (id, run_id, target_ref, request_id, state, version, doc) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7::json)";
        let sql = query(sql).bind(apply.id.as_str()).bind(apply.run.as_str()).bind(apply.target_ref.as_str());
        let sql = sql.bind(apply.request.as_ref().map(RequestId::as_str)).bind(apply.state.as_str());
        self.write(&subject, sql.bind(integer(apply.version)).bind(living(apply)?)).await?;
        Ok(())
    }

    async fn apply(&mut self, id: &RowId) -> StoreResult<Option<Apply>> {
        let row =
            self.one(query("SELECT doc::text, state, version FROM apply WHERE id = $1").bind(id.as_str())).await?;
        row.map(|row| read_living(&row)).transpose()
    }

    async fn applies(&mut self, run: &RunId) -> StoreResult<Vec<Apply>> {
        let sql = "SELECT doc::text, state, version FROM apply WHERE run_id = $1 ORDER BY seq";
        self.all(query(sql).bind(run.as_str())).await?.iter().map(read_living).collect()
    }

    async fn prepared_applies(&mut self) -> StoreResult<Vec<Apply>> {
        let sql = "SELECT doc::text, state, version FROM apply WHERE state = 'prepared' ORDER BY seq";
        self.all(query(sql)).await?.iter().map(read_living).collect()
    }

    async fn update_apply(&mut self, apply: &mut Apply) -> StoreResult<()> {
        self.touch(&apply.run).await?;
        let sql = "UPDATE apply SET state = $1, version = version + 1, doc = $2::json WHERE id = $3 AND version = $4";
        let sql = query(sql).bind(apply.state.as_str()).bind(living(apply)?);
        let sql = sql.bind(apply.id.as_str()).bind(integer(apply.version));
        let there = query("SELECT 1 FROM apply WHERE id = $1").bind(apply.id.as_str());
        self.cas(&Subject::new("apply", &apply.id).in_run(&apply.run), &mut apply.version, sql, there).await
    }

    async fn add_window(&mut self, run: &Run, apply: &RowId, sizes: &BTreeMap<String, u64>) -> StoreResult<()> {
        self.touch(&run.id).await?;
        let subject = Subject::new("size window of apply", apply).in_run(&run.id).of("apply", apply);
        let at = self.now().as_millis();
        for (class, lines) in sizes {
            let sql = "INSERT INTO size_window (apply_id, class, run_id, project, lines, at) \
                       VALUES ($1, $2, $3, $4, $5, autopack.instant($6))";
            let sql = query(sql).bind(apply.as_str()).bind(class).bind(run.id.as_str()).bind(run.project.as_str());
            self.write(&subject, sql.bind(integer(*lines)).bind(at)).await?;
        }
        Ok(())
    }

    async fn window(&mut self, run: &Run, since: Timestamp) -> StoreResult<WindowSums> {
        // What was prepared but never reached its branch does not count.
        let of_run = "SELECT class, sum(lines)::bigint FROM size_window AS w JOIN apply AS a ON a.id = w.apply_id \
                      WHERE w.run_id = $1 AND a.state IN ('prepared', 'committed') GROUP BY class";
        let of_project = "SELECT class, sum(lines)::bigint FROM size_window AS w JOIN apply AS a ON a.id = w.apply_id \
                          WHERE w.project = $1 AND w.at >= autopack.instant($2) \
                          AND a.state IN ('prepared', 'committed') GROUP BY class";
        let mine = self.all(query(of_run).bind(run.id.as_str())).await?;
        let all = self.all(query(of_project).bind(run.project.as_str()).bind(since.as_millis())).await?;
        Ok(WindowSums { run: sums(&mine)?, project_24h: sums(&all)? })
    }
}

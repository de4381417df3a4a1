//! What gates have learned.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use autopack_shared::domain::gate::Measured;
use autopack_shared::domain::ids::{Digest, Oid, ProjectId, RunId, Timestamp};

use super::error::Subject;
use super::tx::{SqliteTx, limit, maybe_integer, natural, read_plain, text};
use crate::store::gates::{BASELINES, FLAKY, FlakyTest, Gates};
use crate::store::{StoreError, StoreResult, Tx as _, doc};

#[async_trait]
impl Gates for SqliteTx {
    async fn put_baseline(&mut self, project: &ProjectId, base: Oid, measured: &Measured) -> StoreResult<()> {
        let subject = Subject::new("baseline", base);
        let sql = "INSERT INTO gate_baseline (project, base, command, doc, measured_at) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (project, base, command) DO NOTHING";
        let sql = query(sql).bind(project.as_str()).bind(base.to_string()).bind(measured.command.to_hex());
        let now = self.now().as_millis();
        self.write(&subject, sql.bind(doc::pack(measured, &[])?).bind(now)).await?;
        let old = "DELETE FROM gate_baseline WHERE project = $1 AND seq <= \
                   (SELECT seq FROM gate_baseline WHERE project = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2)";
        self.write(&subject, query(old).bind(project.as_str()).bind(i64::from(BASELINES))).await?;
        Ok(())
    }

    async fn baselines(&mut self, project: &ProjectId, base: Oid) -> StoreResult<Vec<Measured>> {
        let sql = "SELECT doc FROM gate_baseline WHERE project = $1 AND base = $2 ORDER BY seq";
        let rows = self.all(query(sql).bind(project.as_str()).bind(base.to_string())).await?;
        rows.iter().map(read_plain).collect()
    }

    async fn baselines_of(
        &mut self,
        project: &ProjectId,
        base: Oid,
        commands: &[Digest],
    ) -> StoreResult<Vec<Measured>> {
        let commands: Vec<String> = commands.iter().map(Digest::to_hex).collect();
        let sql = "SELECT doc FROM gate_baseline WHERE project = $1 AND base = $2 \
                   AND command IN (SELECT value FROM json_each($3)) ORDER BY seq";
        let sql = query(sql).bind(project.as_str()).bind(base.to_string()).bind(list(&commands)?);
        self.all(sql).await?.iter().map(read_plain).collect()
    }

    async fn drop_baselines(&mut self, project: &ProjectId, base: Oid) -> StoreResult<u64> {
        let sql = query("DELETE FROM gate_baseline WHERE project = $1 AND base = $2");
        self.write(&Subject::new("baseline", base), sql.bind(project.as_str()).bind(base.to_string())).await
    }

    async fn note_flaky(
        &mut self,
        project: &ProjectId,
        tests: &BTreeSet<(String, String)>,
        run: &RunId,
    ) -> StoreResult<()> {
        if tests.is_empty() {
            return Ok(());
        }
        let subject = Subject::new("flaky tests", project);
        let sql = "INSERT INTO flaky_test (project, command, test, count, first_seen, last_seen, last_run) \
                   SELECT $1, json_extract(value, '$[0]'), json_extract(value, '$[1]'), 1, $3, $3, $4 \
                   FROM json_each($2) WHERE true ON CONFLICT (project, command, test) DO UPDATE \
                   SET count = count + 1, last_seen = excluded.last_seen, last_run = excluded.last_run";
        let now = self.now().as_millis();
        let sql = query(sql).bind(project.as_str()).bind(list(tests)?).bind(now).bind(run.as_str());
        self.write(&subject, sql).await?;
        let old = "DELETE FROM flaky_test WHERE (project, command, test) IN (SELECT project, command, test \
                   FROM flaky_test WHERE project = $1 ORDER BY last_seen DESC, command, test LIMIT -1 OFFSET $2)";
        self.write(&subject, query(old).bind(project.as_str()).bind(i64::from(FLAKY))).await?;
        Ok(())
    }

    async fn flaky_tests(&mut self, project: &ProjectId, most: u32) -> StoreResult<Vec<FlakyTest>> {
        let sql = "SELECT command, test, count, first_seen, last_seen, last_run FROM flaky_test WHERE project = $1 \
                   ORDER BY last_seen DESC, command, test LIMIT $2";
        let rows = self.all(query(sql).bind(project.as_str()).bind(limit(most))).await?;
        rows.iter().map(|row| flaky(project, row)).collect()
    }
}

fn flaky(project: &ProjectId, row: &SqliteRow) -> StoreResult<FlakyTest> {
    let instant = |column| Ok::<_, StoreError>(Timestamp::from_millis(maybe_integer(row, column)?.unwrap_or(0)));
    Ok(FlakyTest {
        project: project.clone(),
        command: text(row, 0)?.to_owned(),
        test: text(row, 1)?.to_owned(),
        count: natural(row, 2)?,
        first_seen: instant(3)?,
        last_seen: instant(4)?,
        last_run: RunId::new(text(row, 5)?.to_owned()).map_err(|e| StoreError::Corrupt(e.to_string()))?,
    })
}

/// A list as SQLite reads it.
fn list(list: &impl serde::Serialize) -> StoreResult<String> {
    serde_json::to_string(list).map_err(|e| StoreError::Corrupt(e.to_string()))
}

//! Phases and attempts.

use async_trait::async_trait;
use sqlx::query;

use autopack_shared::domain::ids::{PhaseId, RunId};
use autopack_shared::domain::record::{Attempt, Phase};
use autopack_shared::domain::state::PhaseState;

use super::error::Subject;
use super::tx::{PostgresTx, integer, living, read_living, text};
use crate::store::{Phases, StoreError, StoreResult};

fn phase_subject(phase: &Phase) -> Subject {
    let place = format!("{}/{}", phase.run, phase.ordinal);
    Subject::new("phase", format!("{}/{}", phase.run, phase.id)).in_run(&phase.run).of("run", &phase.run).once(
        &["phase_by_ordinal"],
        "a phase at place",
        place,
    )
}

fn attempt_subject(attempt: &Attempt) -> Subject {
    let phase = format!("{}/{}", attempt.run, attempt.phase);
    Subject::new("attempt", format!("{phase}/{}", attempt.number)).in_run(&attempt.run).of("phase", phase)
}

#[async_trait]
impl Phases for PostgresTx {
    async fn insert_phase(&mut self, phase: &Phase) -> StoreResult<()> {
        self.touch(&phase.run).await?;
        let sql = "INSERT INTO phase (run_id, id, ordinal, state, version, doc) VALUES ($1, $2, $3, $4, $5, $6::json)";
        let sql = query(sql).bind(phase.run.as_str()).bind(phase.id.as_str()).bind(i64::from(phase.ordinal));
        let sql = sql.bind(phase.state.as_str()).bind(integer(phase.version)).bind(living(phase)?);
        self.write(&phase_subject(phase), sql).await?;
        Ok(())
    }

    async fn phase(&mut self, run: &RunId, id: &PhaseId) -> StoreResult<Option<Phase>> {
        let sql = "SELECT doc::text, state, version FROM phase WHERE run_id = $1 AND id = $2";
        let row = self.one(query(sql).bind(run.as_str()).bind(id.as_str())).await?;
        row.map(|row| read_living(&row)).transpose()
    }

    async fn phases(&mut self, run: &RunId) -> StoreResult<Vec<Phase>> {
        let sql = "SELECT doc::text, state, version FROM phase WHERE run_id = $1 ORDER BY ordinal";
        self.all(query(sql).bind(run.as_str())).await?.iter().map(read_living).collect()
    }

    async fn runs_with_phase(&mut self, state: PhaseState) -> StoreResult<Vec<RunId>> {
        let sql = "SELECT DISTINCT run_id FROM phase WHERE state = $1 ORDER BY run_id";
        let rows = self.all(query(sql).bind(state.as_str())).await?;
        let id = |name: &str| RunId::new(name).map_err(|e| StoreError::Corrupt(e.to_string()));
        rows.iter().map(|row| text(row, 0).and_then(id)).collect()
    }

    async fn update_phase(&mut self, phase: &mut Phase) -> StoreResult<()> {
        self.touch(&phase.run).await?;
        let sql = "UPDATE phase SET state = $1, version = version + 1, doc = $2::json \
                   WHERE run_id = $3 AND id = $4 AND version = $5";
        let sql = query(sql).bind(phase.state.as_str()).bind(living(phase)?);
        let sql = sql.bind(phase.run.as_str()).bind(phase.id.as_str()).bind(integer(phase.version));
        let there =
            query("SELECT 1 FROM phase WHERE run_id = $1 AND id = $2").bind(phase.run.as_str()).bind(phase.id.as_str());
        self.cas(&phase_subject(phase), &mut phase.version, sql, there).await
    }

    async fn insert_attempt(&mut self, attempt: &Attempt) -> StoreResult<()> {
        self.touch(&attempt.run).await?;
        let sql =
            "INSERT INTO attempt (run_id, phase_id, number, state, version, doc) VALUES ($1, $2, $3, $4, $5, $6::json)";
        let sql = query(sql).bind(attempt.run.as_str()).bind(attempt.phase.as_str()).bind(i64::from(attempt.number));
        let sql = sql.bind(attempt.state.as_str()).bind(integer(attempt.version)).bind(living(attempt)?);
        self.write(&attempt_subject(attempt), sql).await?;
        Ok(())
    }

    async fn attempt(&mut self, run: &RunId, phase: &PhaseId, number: u32) -> StoreResult<Option<Attempt>> {
        let sql = "SELECT doc::text, state, version FROM attempt WHERE run_id = $1 AND phase_id = $2 AND number = $3";
        let row = self.one(query(sql).bind(run.as_str()).bind(phase.as_str()).bind(i64::from(number))).await?;
        row.map(|row| read_living(&row)).transpose()
    }

    async fn attempts(&mut self, run: &RunId, phase: &PhaseId) -> StoreResult<Vec<Attempt>> {
        let sql = "SELECT doc::text, state, version FROM attempt WHERE run_id = $1 AND phase_id = $2 ORDER BY number";
        self.all(query(sql).bind(run.as_str()).bind(phase.as_str())).await?.iter().map(read_living).collect()
    }

    async fn update_attempt(&mut self, attempt: &mut Attempt) -> StoreResult<()> {
        self.touch(&attempt.run).await?;
        let subject = attempt_subject(attempt).once(
            &["attempt_succeeds_once"],
            "a successful attempt of phase",
            format!("{}/{}", attempt.run, attempt.phase),
        );
        let sql = "UPDATE attempt SET state = $1, version = version + 1, doc = $2::json \
                   WHERE run_id = $3 AND phase_id = $4 AND number = $5 AND version = $6";
        let sql = query(sql).bind(attempt.state.as_str()).bind(living(attempt)?).bind(attempt.run.as_str());
        let sql = sql.bind(attempt.phase.as_str()).bind(i64::from(attempt.number)).bind(integer(attempt.version));
        let there = "SELECT 1 FROM attempt WHERE run_id = $1 AND phase_id = $2 AND number = $3";
        let there =
            query(there).bind(attempt.run.as_str()).bind(attempt.phase.as_str()).bind(i64::from(attempt.number));
        self.cas(&subject, &mut attempt.version, sql, there).await
    }
}

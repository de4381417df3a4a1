//! Phases and attempts.

use async_trait::async_trait;
use sqlx::query;

use autopack_shared::domain::ids::{PhaseId, RunId};
use autopack_shared::domain::record::{Attempt, Phase};
use autopack_shared::domain::state::PhaseState;

use super::error::Subject;
use super::puts::Put;
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

fn put_attempt(what: &'static str, attempt: &Attempt, subject: Subject) -> StoreResult<Put> {
    let put = Put::new(what, &attempt.run, attempt.phase.as_str(), living(attempt)?, subject);
    Ok(put.living(attempt.state.as_str(), attempt.version).numbered(i64::from(attempt.number)))
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
        let rows = self.look(&["phase"], query(sql).bind(run.as_str()).bind(id.as_str())).await?;
        rows.first().map(read_living).transpose()
    }

    async fn phases(&mut self, run: &RunId) -> StoreResult<Vec<Phase>> {
        let sql = "SELECT doc::text, state, version FROM phase WHERE run_id = $1 ORDER BY ordinal";
        self.look(&["phase"], query(sql).bind(run.as_str())).await?.iter().map(read_living).collect()
    }

    async fn runs_with_phase(&mut self, state: PhaseState) -> StoreResult<Vec<RunId>> {
        let sql = "SELECT DISTINCT run_id FROM phase WHERE state = $1 ORDER BY run_id";
        let rows = self.all(query(sql).bind(state.as_str())).await?;
        let id = |name: &str| RunId::new(name).map_err(|e| StoreError::Corrupt(e.to_string()));
        rows.iter().map(|row| text(row, 0).and_then(id)).collect()
    }

    async fn update_phase(&mut self, phase: &mut Phase) -> StoreResult<()> {
        let put = Put::new("phase", &phase.run, phase.id.as_str(), living(phase)?, phase_subject(phase));
        self.put(put.living(phase.state.as_str(), phase.version)).await?;
        phase.version += 1;
        Ok(())
    }

    async fn insert_attempt(&mut self, attempt: &Attempt) -> StoreResult<()> {
        self.put(put_attempt("attempt+", attempt, attempt_subject(attempt))?).await
    }

    async fn attempt(&mut self, run: &RunId, phase: &PhaseId, number: u32) -> StoreResult<Option<Attempt>> {
        let sql = "SELECT doc::text, state, version FROM attempt WHERE run_id = $1 AND phase_id = $2 AND number = $3";
        let sql = query(sql).bind(run.as_str()).bind(phase.as_str()).bind(i64::from(number));
        self.look(&["attempt"], sql).await?.first().map(read_living).transpose()
    }

    async fn attempts(&mut self, run: &RunId, phase: &PhaseId) -> StoreResult<Vec<Attempt>> {
        let sql = "SELECT doc::text, state, version FROM attempt WHERE run_id = $1 AND phase_id = $2 ORDER BY number";
        self.all(query(sql).bind(run.as_str()).bind(phase.as_str())).await?.iter().map(read_living).collect()
    }

    async fn update_attempt(&mut self, attempt: &mut Attempt) -> StoreResult<()> {
        let subject = attempt_subject(attempt).once(
            &["attempt_succeeds_once"],
            "a successful attempt of phase",
            format!("{}/{}", attempt.run, attempt.phase),
        );
        self.put(put_attempt("attempt", attempt, subject)?).await?;
        attempt.version += 1;
        Ok(())
    }
}

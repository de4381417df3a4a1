//! Surveys.

use async_trait::async_trait;
use sqlx::query;

use autopack_shared::domain::ids::{Digest, RowId, Timestamp};
use autopack_shared::domain::survey::Survey;

use super::error::Subject;
use super::tx::{SqliteTx, integer, living, read_living};
use crate::store::StoreResult;
use crate::store::surveys::{OPEN, Surveys};

#[async_trait]
impl Surveys for SqliteTx {
    async fn insert_survey(&mut self, survey: &Survey) -> StoreResult<()> {
        let subject = Subject::new("survey", &survey.id).once(&["survey.ask"], "an open survey of", survey.key);
        let sql = "INSERT INTO survey (id, ask, state, version, expires_at, doc) VALUES ($1, $2, $3, $4, $5, $6)";
        let sql = query(sql).bind(survey.id.as_str()).bind(survey.key.to_hex()).bind(survey.state.as_str());
        let sql = sql.bind(integer(survey.version)).bind(survey.expires_at.as_millis()).bind(living(survey)?);
        self.write(&subject, sql).await?;
        Ok(())
    }

    async fn survey(&mut self, id: &RowId) -> StoreResult<Option<Survey>> {
        let sql = query("SELECT doc, state, version FROM survey WHERE id = $1").bind(id.as_str());
        self.one(sql).await?.map(|row| read_living(&row)).transpose()
    }

    async fn newest_survey(&mut self, key: &Digest) -> StoreResult<Option<Survey>> {
        let sql = "SELECT doc, state, version FROM survey WHERE ask = $1 ORDER BY seq DESC LIMIT 1";
        self.one(query(sql).bind(key.to_hex())).await?.map(|row| read_living(&row)).transpose()
    }

    async fn open_surveys(&mut self) -> StoreResult<Vec<Survey>> {
        let sql = "SELECT doc, state, version FROM survey WHERE state IN ('requested', 'claimed') \
                   ORDER BY seq LIMIT $1";
        self.all(query(sql).bind(i64::from(OPEN))).await?.iter().map(read_living).collect()
    }

    async fn update_survey(&mut self, survey: &mut Survey) -> StoreResult<()> {
        let sql = "UPDATE survey SET state = $1, version = version + 1, expires_at = $2, doc = $3 \
                   WHERE id = $4 AND version = $5";
        let sql = query(sql).bind(survey.state.as_str()).bind(survey.expires_at.as_millis()).bind(living(survey)?);
        let sql = sql.bind(survey.id.as_str()).bind(integer(survey.version));
        let there = query("SELECT 1 FROM survey WHERE id = $1").bind(survey.id.as_str());
        self.cas(&Subject::new("survey", &survey.id), &mut survey.version, sql, there).await
    }

    async fn drop_surveys(&mut self, now: Timestamp) -> StoreResult<u64> {
        let sql = query("DELETE FROM survey WHERE expires_at <= $1").bind(now.as_millis());
        self.write(&Subject::new("survey", "that has expired"), sql).await
    }
}

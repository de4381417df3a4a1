//! Budgets, breakers, credentials.

use async_trait::async_trait;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::query;

use autopack_shared::domain::breaker::{Breaker, Credential};
use autopack_shared::domain::budget::{Amounts, Spend, Spent, Unit};
use autopack_shared::domain::ids::{ProjectId, RunId};

use super::error::Subject;
use super::tx::{PostgresTx, integer, natural, text};
use crate::store::budgets::{Governors, Spending, SpentBy};
use crate::store::{StoreError, StoreResult, doc};

/// What some rows come to, by state.
macro_rules! sums {
    ($which:literal) => {
        concat!(
            "SELECT state, sum(tokens)::bigint, sum(cost_micros)::bigint, sum(calls)::bigint, sum(seconds)::bigint, \
             sum(files)::bigint FROM spend WHERE ",
            $which,
            " GROUP BY state"
        )
    };
}

/// What stands in columns only.
const COLUMNS: &[&str] = &["state", "version", "counted"];

fn subject(spend: &Spend) -> Subject {
    let id = format!("{}#{}", spend.run, spend.epoch);
    Subject::new("reservation", id).in_run(&spend.run).of("run", &spend.run)
}

fn amounts(row: &PgRow, from: usize) -> StoreResult<Amounts> {
    let mut amounts = Amounts::default();
    for (unit, column) in Unit::ALL.into_iter().zip(from..) {
        amounts.set(unit, natural(row, column)?);
    }
    Ok(amounts)
}

fn spend(row: &PgRow) -> StoreResult<Spend> {
    let counted = serde_json::to_value(amounts(row, 3)?).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    let state = Value::from(text(row, 1)?);
    doc::unpack(text(row, 0)?, [("state", state), ("version", natural(row, 2)?.into()), ("counted", counted)])
}

fn governor<T: serde::de::DeserializeOwned>(row: &PgRow) -> StoreResult<T> {
    doc::unpack(text(row, 0)?, [("version", natural(row, 1)?.into())])
}

#[async_trait]
impl Spending for PostgresTx {
    async fn insert_spend(&mut self, spend: &Spend) -> StoreResult<()> {
        self.touch(&spend.run).await?;
        let sql = "INSERT INTO spend (run_id, epoch, phase_id, project, credential, day, state, version, tokens, \
                   cost_micros, calls, seconds, files, doc) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::json)";
        let sql = query(sql).bind(spend.run.as_str()).bind(integer(spend.epoch)).bind(spend.phase.as_str());
        let sql = sql.bind(spend.project.as_str()).bind(spend.credential.as_deref()).bind(spend.day);
        let mut sql = sql.bind(spend.state.as_str()).bind(integer(spend.version));
        for unit in Unit::ALL {
            sql = sql.bind(integer(spend.counted.get(unit)));
        }
        self.write(&subject(spend), sql.bind(doc::pack(spend, COLUMNS)?)).await?;
        Ok(())
    }

    async fn spend(&mut self, run: &RunId, epoch: u64) -> StoreResult<Option<Spend>> {
        let sql = "SELECT doc::text, state, version, tokens, cost_micros, calls, seconds, files FROM spend \
                   WHERE run_id = $1 AND epoch = $2";
        let sql = query(sql).bind(run.as_str()).bind(integer(epoch));
        self.one(sql).await?.map(|row| self::spend(&row)).transpose()
    }

    async fn update_spend(&mut self, spend: &mut Spend) -> StoreResult<()> {
        self.touch(&spend.run).await?;
        let sql = "UPDATE spend SET state = $1, version = version + 1, tokens = $2, cost_micros = $3, calls = $4, \
                   seconds = $5, files = $6, doc = $7::json \
                   WHERE run_id = $8 AND epoch = $9 AND version = $10";
        let mut sql = query(sql).bind(spend.state.as_str());
        for unit in Unit::ALL {
            sql = sql.bind(integer(spend.counted.get(unit)));
        }
        let sql = sql.bind(doc::pack(spend, COLUMNS)?).bind(spend.run.as_str()).bind(integer(spend.epoch));
        let sql = sql.bind(integer(spend.version));
        let run = spend.run.clone();
        let there = query("SELECT 1 FROM spend WHERE run_id = $1 AND epoch = $2");
        let there = there.bind(run.as_str()).bind(integer(spend.epoch));
        self.cas(&subject(spend), &mut spend.version, sql, there).await
    }

    async fn spent(&mut self, by: SpentBy<'_>) -> StoreResult<Spent> {
        let sql = match by {
            SpentBy::Phase(..) => sums!("run_id = $1 AND phase_id = $2"),
            SpentBy::Run(_) => sums!("run_id = $1"),
            SpentBy::Project(_) => sums!("project = $1"),
            SpentBy::Day(..) => sums!("project = $1 AND day = $2"),
        };
        let sql = query(sql);
        let sql = match by {
            SpentBy::Phase(run, phase) => sql.bind(run.as_str()).bind(phase.as_str()),
            SpentBy::Run(run) => sql.bind(run.as_str()),
            SpentBy::Project(project) => sql.bind(project.as_str()),
            SpentBy::Day(project, day) => sql.bind(project.as_str()).bind(day),
        };
        let mut spent = Spent::default();
        for row in self.all(sql).await? {
            let mut sums = Amounts::default();
            for (unit, column) in Unit::ALL.into_iter().zip(1..) {
                sums.add(unit, natural(&row, column)?);
            }
            match text(&row, 0)? {
                "settled" => spent.settled = sums,
                _ => spent.reserved = sums,
            }
        }
        Ok(spent)
    }

    async fn orphans(&mut self, project: &ProjectId) -> StoreResult<Vec<Spend>> {
        let sql = "SELECT s.doc::text, s.state, s.version, s.tokens, s.cost_micros, s.calls, s.seconds, s.files \
                   FROM spend AS s WHERE s.state = 'reserved' AND s.project = $1 AND NOT EXISTS ( \
                   SELECT 1 FROM lease AS l WHERE l.run_id = s.run_id AND l.state IN ('granting', 'held') \
                   AND (l.doc->>'epoch')::bigint = s.epoch) ORDER BY s.run_id, s.epoch";
        self.all(query(sql).bind(project.as_str())).await?.iter().map(spend).collect()
    }

    async fn credential_uses(&mut self, name: &str) -> StoreResult<u64> {
        let sql = "SELECT count(*) FROM spend WHERE credential = $1 AND state = 'reserved'";
        let row = self.one(query(sql).bind(name)).await?;
        row.map_or(Ok(0), |row| natural(&row, 0))
    }
}

#[async_trait]
impl Governors for PostgresTx {
    async fn breaker(&mut self, project: &ProjectId, builder: &str) -> StoreResult<Option<Breaker>> {
        let sql = "SELECT doc::text, version FROM breaker WHERE project = $1 AND builder = $2";
        let row = self.one(query(sql).bind(project.as_str()).bind(builder)).await?;
        row.map(|row| governor(&row)).transpose()
    }

    async fn breakers(&mut self, project: &ProjectId) -> StoreResult<Vec<Breaker>> {
        let sql = "SELECT doc::text, version FROM breaker WHERE project = $1 ORDER BY builder";
        self.all(query(sql).bind(project.as_str())).await?.iter().map(governor).collect()
    }

    async fn lock_breaker(&mut self, project: &ProjectId, builder: &str) -> StoreResult<Breaker> {
        let fresh = Breaker::new(project.clone(), builder.to_owned());
        let subject = Subject::new("breaker", builder);
        let sql = "INSERT INTO breaker (project, builder, version, doc) VALUES ($1, $2, 0, $3::json) \
                   ON CONFLICT DO NOTHING";
        let sql = query(sql).bind(project.as_str()).bind(builder).bind(doc::pack(&fresh, &["version"])?);
        self.write(&subject, sql).await?;
        let sql = "SELECT doc::text, version FROM breaker WHERE project = $1 AND builder = $2 FOR UPDATE";
        let row = self.one(query(sql).bind(project.as_str()).bind(builder)).await?;
        row.map_or_else(|| Err(subject.not_found()), |row| governor(&row))
    }

    async fn update_breaker(&mut self, breaker: &mut Breaker) -> StoreResult<()> {
        let sql = "UPDATE breaker SET version = version + 1, doc = $1::json \
                   WHERE project = $2 AND builder = $3 AND version = $4";
        let sql = query(sql).bind(doc::pack(breaker, &["version"])?).bind(breaker.project.as_str());
        let (project, builder) = (breaker.project.clone(), breaker.builder.clone());
        let sql = sql.bind(&builder).bind(integer(breaker.version));
        let there = query("SELECT 1 FROM breaker WHERE project = $1 AND builder = $2");
        let there = there.bind(project.as_str()).bind(&builder);
        self.cas(&Subject::new("breaker", &builder), &mut breaker.version, sql, there).await
    }

    async fn credential(&mut self, name: &str) -> StoreResult<Option<Credential>> {
        let sql = query("SELECT doc::text, version FROM credential WHERE name = $1").bind(name);
        self.one(sql).await?.map(|row| governor(&row)).transpose()
    }

    async fn lock_credential(&mut self, name: &str) -> StoreResult<Credential> {
        let subject = Subject::new("credential", name);
        let fresh = doc::pack(&Credential::new(name.to_owned()), &["version"])?;
        let sql = "INSERT INTO credential (name, version, doc) VALUES ($1, 0, $2::json) ON CONFLICT DO NOTHING";
        self.write(&subject, query(sql).bind(name).bind(fresh)).await?;
        let sql = query("SELECT doc::text, version FROM credential WHERE name = $1 FOR UPDATE").bind(name);
        self.one(sql).await?.map_or_else(|| Err(subject.not_found()), |row| governor(&row))
    }

    async fn update_credential(&mut self, credential: &mut Credential) -> StoreResult<()> {
        let sql = "UPDATE credential SET version = version + 1, doc = $1::json WHERE name = $2 AND version = $3";
        let name = credential.name.clone();
        let sql = query(sql).bind(doc::pack(credential, &["version"])?).bind(&name).bind(integer(credential.version));
        let there = query("SELECT 1 FROM credential WHERE name = $1").bind(&name);
        self.cas(&Subject::new("credential", &name), &mut credential.version, sql, there).await
    }
}

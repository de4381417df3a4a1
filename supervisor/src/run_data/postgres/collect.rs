//! Removing the data of runs that are over, a few of them in one transaction: every table of every run takes a lock
//! until its end, and a server has only so many.

use sqlx::{Connection as _, PgConnection};

use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::run_data::{RunDataModel, SqlNames};

use super::error::failed;
use super::provision::logins;
use super::{PostgresRunDatabases, quoted, registry, run_sql};
use crate::run_data::{RunDataError, RunDataResult};

/// Runs in one transaction at most (`coordination.md` 3.9).
const BATCH: usize = 50;

impl PostgresRunDatabases {
    /// Removes in batches. A batch that fails is halved, so that what cannot be removed holds up nothing else.
    pub(super) async fn remove(&self, runs: &[RunId]) -> RunDataResult<usize> {
        let mut link = self.pool.acquire().await.map_err(|e| failed(&e))?;
        let (mut gone, mut kept) = (0, None);
        let mut left: Vec<&[RunId]> = runs.chunks(BATCH).collect();
        while let Some(batch) = left.pop() {
            match remove_batch(&mut link, batch).await {
                Ok(removed) => gone += removed,
                Err(_) if batch.len() > 1 => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    left.extend([first, second]);
                }
                Err(error) => {
                    tracing::warn!(run = ?batch, %error, "the data of an ended run stays for now");
                    kept = Some(error);
                }
            }
        }
        match kept {
            Some(error) if gone == 0 => Err(error),
            Some(_) | None => Ok(gone),
        }
    }
}

async fn remove_batch(link: &mut PgConnection, runs: &[RunId]) -> RunDataResult<usize> {
    let all: Vec<SqlNames> = runs.iter().map(SqlNames::of).collect();
    for names in &all {
        drop_database(link, names).await?;
    }
    let mut tx = link.begin().await.map_err(|e| failed(&e))?;
    run_sql(&mut tx, "SET LOCAL statement_timeout = '5min'".to_owned()).await?;
    let mut gone = 0;
    for names in &all {
        if !is_over(&mut tx, names, None).await? {
            continue;
        }
        let mut roles: Vec<String> = logins(&mut tx, names).await?.iter().map(|login| quoted(&login.name)).collect();
        roles.push(quoted(&names.owner()));
        let roles = roles.join(", ");
        run_sql(&mut tx, format!("DROP OWNED BY {roles} CASCADE; DROP ROLE {roles}")).await?;
        registry::set_state(&mut tx, names.key(), "gone").await?;
        gone += 1;
    }
    tx.commit().await.map_err(|e| failed(&e))?;
    Ok(gone)
}

/// Whether a run's last stint is retired and its data still there; of one kind or of any.
async fn is_over(link: &mut PgConnection, names: &SqlNames, kind: Option<RunDataModel>) -> RunDataResult<bool> {
    let entry = registry::hold(link, names.key()).await?;
    Ok(entry.is_some_and(|e| e.state == "closed" && kind.is_none_or(|kind| registry::model_of(&e) == kind)))
}

/// Databases go one by one, and in no transaction; what is dropped twice is dropped once.
async fn drop_database(link: &mut PgConnection, names: &SqlNames) -> RunDataResult<()> {
    if !is_over(link, names, Some(RunDataModel::Database)).await? {
        return Ok(());
    }
    match run_sql(link, format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&names.owner()))).await {
        Err(RunDataError::Unavailable { why, hint }) => {
            Err(RunDataError::Unavailable { why: format!("its database cannot be dropped: {why}"), hint })
        }
        done => done,
    }
}

//! One transaction on one connection: how verbs run their statements, and how a failure gives the whole of it up.

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite, Transaction};
use tokio::sync::watch;

use autopack_shared::domain::ids::{Fence, Timestamp};
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::error::{Subject, away, failed};
use crate::store::{StoreError, StoreResult, Tx, doc};

/// A statement with its values.
pub(super) type Sql<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// One transaction.
pub(super) struct SqliteTx {
    link: Transaction<'static, Sqlite>,
    now: Timestamp,
    /// Where commits are announced; a read view has nowhere.
    commits: Option<watch::Sender<u64>>,
    /// After a failure that is no refusal SQLite may have rolled back on its own; what followed would commit by itself.
    broken: bool,
}

impl SqliteTx {
    pub(super) const fn reading(link: Transaction<'static, Sqlite>, now: Timestamp) -> Self {
        Self { link, now, commits: None, broken: false }
    }

    pub(super) const fn writing(
        link: Transaction<'static, Sqlite>,
        now: Timestamp,
        commits: watch::Sender<u64>,
    ) -> Self {
        Self { link, now, commits: Some(commits), broken: false }
    }

    /// Checks one fence and holds it until the transaction ends.
    pub(super) async fn hold(&mut self, fence: &Fence) -> StoreResult<()> {
        let scope = fence.scope.to_string();
        let current = self.current_epoch(&scope).await?;
        if current != Some(fence.epoch) {
            metrics().fenced("store");
            return Err(StoreError::Fenced { scope, held: fence.epoch, current });
        }
        self.remember_fence(&scope, fence.epoch).await
    }

    pub(super) async fn current_epoch(&mut self, scope: &str) -> StoreResult<Option<u64>> {
        let row = self.one(sqlx::query("SELECT epoch FROM fence WHERE scope = $1").bind(scope)).await?;
        row.map(|row| natural(&row, 0)).transpose()
    }

    /// Lets the schema's triggers see that this transaction holds a fence.
    pub(super) async fn remember_fence(&mut self, scope: &str, epoch: u64) -> StoreResult<()> {
        let sql = "INSERT INTO fence_held (scope, epoch) VALUES ($1, $2) ON CONFLICT (scope) DO UPDATE SET epoch = excluded.epoch";
        self.write(&Subject::new("fence", scope), sqlx::query(sql).bind(scope).bind(integer(epoch))).await?;
        Ok(())
    }

    /// Refuses what only a write transaction may do.
    pub(super) fn writes(&self) -> StoreResult<()> {
        self.usable()?;
        if self.commits.is_none() {
            return Err(StoreError::Corrupt("a write in a read view".to_owned()));
        }
        Ok(())
    }

    /// Runs a writing statement; how many rows it touched.
    pub(super) async fn write(&mut self, subject: &Subject, sql: Sql<'_>) -> StoreResult<u64> {
        self.writes()?;
        match sql.execute(&mut *self.link).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(self.give_up(&error, Some(subject))),
        }
    }

    /// Runs a compare-and-set on a version; on success the caller's version rises too.
    pub(super) async fn cas(
        &mut self,
        subject: &Subject,
        version: &mut u64,
        sql: Sql<'_>,
        there: Sql<'_>,
    ) -> StoreResult<()> {
        if self.write(subject, sql).await? == 1 {
            *version += 1;
            return Ok(());
        }
        match self.one(there).await? {
            Some(_) => Err(subject.conflict(*version)),
            None => Err(subject.not_found()),
        }
    }

    /// The one row of a query, if there is one.
    pub(super) async fn one(&mut self, sql: Sql<'_>) -> StoreResult<Option<SqliteRow>> {
        self.usable()?;
        match sql.fetch_optional(&mut *self.link).await {
            Ok(row) => Ok(row),
            Err(error) => Err(self.give_up(&error, None)),
        }
    }

    /// All rows of a query.
    pub(super) async fn all(&mut self, sql: Sql<'_>) -> StoreResult<Vec<SqliteRow>> {
        self.usable()?;
        match sql.fetch_all(&mut *self.link).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.give_up(&error, None)),
        }
    }

    fn usable(&self) -> StoreResult<()> {
        if self.broken {
            return Err(away("an earlier statement of this transaction failed".to_owned(), "begin again"));
        }
        Ok(())
    }

    fn give_up(&mut self, error: &sqlx::Error, subject: Option<&Subject>) -> StoreError {
        let error = failed(error, subject);
        self.broken |= matches!(error, StoreError::Full(_) | StoreError::Unavailable { .. } | StoreError::Corrupt(_));
        error
    }

    async fn seal(&mut self) -> StoreResult<()> {
        let subject = Subject::new("cluster", "clock");
        self.write(&subject, sqlx::query("DELETE FROM fence_held")).await?;
        let sql = "UPDATE cluster SET clock_ms = max(clock_ms, $1), commits = commits + 1";
        self.write(&subject, sqlx::query(sql).bind(self.now.as_millis())).await?;
        Ok(())
    }
}

#[async_trait]
impl Tx for SqliteTx {
    fn now(&self) -> Timestamp {
        self.now
    }

    async fn commit(mut self: Box<Self>) -> StoreResult<()> {
        self.usable()?;
        let Some(commits) = self.commits.clone() else { return Ok(()) };
        self.seal().await?;
        self.link.commit().await.map_err(|e| failed(&e, None))?;
        commits.send_modify(|n| *n = n.wrapping_add(1));
        Ok(())
    }
}

/// Names of the fields that rows with a life keep in columns.
pub(super) const LIFE: &[&str] = &["state", "version"];

/// Writes the document of a row with a life.
pub(super) fn living<T: Serialize>(row: &T) -> StoreResult<String> {
    doc::pack(row, LIFE)
}

/// Reads a row with a life from `doc, state, version`.
pub(super) fn read_living<T: DeserializeOwned>(row: &SqliteRow) -> StoreResult<T> {
    let version = natural(row, 2)?;
    doc::unpack(text(row, 0)?, [("state", Value::from(text(row, 1)?)), ("version", version.into())])
}

/// Reads a row that never changes from `doc`.
pub(super) fn read_plain<T: DeserializeOwned>(row: &SqliteRow) -> StoreResult<T> {
    doc::unpack(text(row, 0)?, [])
}

/// A text column.
pub(super) fn text(row: &SqliteRow, column: usize) -> StoreResult<&str> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// A text column that may be NULL.
pub(super) fn maybe_text(row: &SqliteRow, column: usize) -> StoreResult<Option<&str>> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// A column of bytes.
pub(super) fn bytes(row: &SqliteRow, column: usize) -> StoreResult<&[u8]> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// An integer column that may be NULL.
pub(super) fn maybe_integer(row: &SqliteRow, column: usize) -> StoreResult<Option<i64>> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// An integer column that is never negative.
pub(super) fn natural(row: &SqliteRow, column: usize) -> StoreResult<u64> {
    let value: i64 = row.try_get(column).map_err(|e| failed(&e, None))?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("column {column} is {value}")))
}

/// A number as SQLite has it; what does not fit is larger than anything stored.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit as SQLite has it; 0 means all.
pub(super) fn limit(value: u32) -> i64 {
    if value == 0 { -1 } else { i64::from(value) }
}

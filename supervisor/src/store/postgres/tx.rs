//! One transaction on one connection: how verbs run their statements, and how a failure gives the whole of it up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{PgConnection, Postgres, Row as _, Transaction, query, raw_sql};

use autopack_shared::domain::audit::AuditDraft;
use autopack_shared::domain::ids::{Fence, RunId, Timestamp};
use autopack_shared::domain::record::Event;
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::SILENCE;
use super::audit::Head;
use super::base::Commits;
use super::error::{Subject, away, failed, within};
use super::puts::Put;
use super::sheet::Sheet;
use crate::store::{StoreError, StoreResult, Tx, doc};

/// A statement with its values.
pub(super) type Sql<'q> = sqlx::query::Query<'q, Postgres, PgArguments>;

/// One transaction.
pub(super) struct PostgresTx {
    /// Its connection; none as long as it is a sheet.
    link: Option<Transaction<'static, Postgres>>,
    /// What it was shown, as long as nothing is locked.
    pub(super) sheet: Option<Box<Sheet>>,
    now: Timestamp,
    /// Where commits are announced; a read view has nowhere.
    commits: Option<Commits>,
    /// A failure that is no refusal leaves a transaction that can only be given up.
    pub(super) broken: bool,
    /// There is a savepoint from an earlier statement.
    saved: bool,
    /// How long the server may say nothing.
    silence: Duration,
    /// The store's id and incarnation, as they were when it began.
    pub(super) place: (String, u32),
    /// Runs whose row this transaction holds, with the last line of the history of each.
    pub(super) held: BTreeMap<RunId, Option<Event>>,
    /// Whether writes may wait for others.
    pub(super) deferring: bool,
    /// Writes that wait.
    pub(super) puts: Vec<Put>,
    /// Whether it changes which leases are active.
    pub(super) leases: bool,
    /// Records of the log that it has written before its end.
    pub(super) appended: i64,
    /// Records of the log that are written when everything else is done.
    pub(super) drafts: Vec<AuditDraft>,
    /// What the heads of their chains are taken for; compared when they are locked.
    pub(super) heads: BTreeMap<String, Head>,
}

impl PostgresTx {
    pub(super) fn new(link: Option<Transaction<'static, Postgres>>, commits: Option<Commits>) -> Self {
        let now = Timestamp::from_millis(0);
        Self {
            link,
            sheet: None,
            now,
            commits,
            broken: false,
            saved: false,
            silence: SILENCE,
            place: (String::new(), 0),
            held: BTreeMap::new(),
            deferring: false,
            puts: Vec::new(),
            leases: false,
            appended: 0,
            drafts: Vec::new(),
            heads: BTreeMap::new(),
        }
    }

    /// The same with its instant.
    pub(super) fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// Checks fences in order and holds them until the transaction ends; the store's clock then.
    pub(super) async fn hold(&mut self, fences: &BTreeSet<&Fence>, seen: i64) -> StoreResult<i64> {
        let scopes: Vec<String> = fences.iter().map(|fence| fence.scope.to_string()).collect();
        let epochs: Vec<i64> = fences.iter().map(|fence| integer(fence.epoch)).collect();
        let sql = "SELECT autopack.begin_write($1, $2, $3), cluster_id, incarnation FROM autopack.cluster";
        let answer = self.one(query(sql).bind(&scopes).bind(epochs).bind(seen)).await;
        let row = answer.map_err(|error| {
            let StoreError::Fenced { scope, current, .. } = error else { return error };
            metrics().fenced("store");
            let mine = fences.iter().find(|fence| fence.scope.to_string() == scope);
            StoreError::Fenced { held: mine.map_or(0, |fence| fence.epoch), scope, current }
        })?;
        let row = row.ok_or_else(|| StoreError::Corrupt("the cluster row is missing".to_owned()))?;
        let broken = |_| StoreError::Corrupt("the incarnation is out of range".to_owned());
        self.place = (text(&row, 1)?.to_owned(), u32::try_from(natural(&row, 2)?).map_err(broken)?);
        row.try_get(0).map_err(|e| failed(&e, None))
    }

    /// Refuses what only a write transaction may do.
    pub(super) fn writes(&self) -> StoreResult<()> {
        self.usable()?;
        if self.commits.is_none() {
            return Err(StoreError::Corrupt("a write in a read view".to_owned()));
        }
        Ok(())
    }

    /// Runs a writing statement; how many rows it touched. A refusal takes back this statement alone.
    pub(super) async fn write(&mut self, subject: &Subject, sql: Sql<'_>) -> StoreResult<u64> {
        self.writes()?;
        self.flush().await?;
        let save = if self.saved { "RELEASE SAVEPOINT w; SAVEPOINT w" } else { "SAVEPOINT w" };
        self.raw(save).await?;
        self.saved = true;
        let silence = self.silence;
        match within(silence, sql.execute(self.link().await?)).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => {
                let refusal = self.give_up(&error, Some(subject));
                if !self.broken {
                    self.raw("ROLLBACK TO SAVEPOINT w").await?;
                }
                Err(refusal)
            }
        }
    }

    async fn raw(&mut self, sql: &'static str) -> StoreResult<()> {
        let silence = self.silence;
        match within(silence, raw_sql(sql).execute(self.link().await?)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.give_up(&error, None)),
        }
    }

    /// Its connection. A sheet becomes a transaction first, which holds what it was shown.
    pub(super) async fn link(&mut self) -> StoreResult<&mut PgConnection> {
        if self.link.is_none() {
            self.link = Some(Box::pin(self.open()).await?);
        }
        let gone = || StoreError::Corrupt("a transaction without a connection".to_owned());
        Ok(&mut **self.link.as_mut().ok_or_else(gone)?)
    }

    /// The transaction that it has begun, for a sheet that becomes one.
    pub(super) fn begun(self) -> Option<Transaction<'static, Postgres>> {
        self.link
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
    pub(super) async fn one(&mut self, sql: Sql<'_>) -> StoreResult<Option<PgRow>> {
        self.usable()?;
        self.flush().await?;
        let silence = self.silence;
        match within(silence, sql.fetch_optional(self.link().await?)).await {
            Ok(row) => Ok(row),
            Err(error) => Err(self.give_up(&error, None)),
        }
    }

    /// The one number of a query that always has one.
    pub(super) async fn number(&mut self, sql: Sql<'_>) -> StoreResult<i64> {
        let none = || StoreError::Corrupt("a query without an answer".to_owned());
        let row = self.one(sql).await?.ok_or_else(none)?;
        row.try_get(0).map_err(|e| failed(&e, None))
    }

    /// All rows of a query.
    pub(super) async fn all(&mut self, sql: Sql<'_>) -> StoreResult<Vec<PgRow>> {
        self.usable()?;
        self.flush().await?;
        self.rows(sql).await
    }

    /// The same, while writes wait on.
    pub(super) async fn rows(&mut self, sql: Sql<'_>) -> StoreResult<Vec<PgRow>> {
        self.usable()?;
        let silence = self.silence;
        match within(silence, sql.fetch_all(self.link().await?)).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.give_up(&error, None)),
        }
    }

    /// Lets what reads whole tables take longer than other statements may.
    pub(super) async fn be_patient(&mut self) -> StoreResult<()> {
        self.one(query("SET LOCAL statement_timeout = '10min'")).await?;
        self.silence = Duration::from_secs(11 * 60);
        Ok(())
    }

    pub(super) fn usable(&self) -> StoreResult<()> {
        if self.broken {
            return Err(away("an earlier statement of this transaction failed".to_owned(), "begin again"));
        }
        Ok(())
    }

    pub(super) fn give_up(&mut self, error: &sqlx::Error, subject: Option<&Subject>) -> StoreError {
        let error = failed(error, subject);
        let whole = subject.is_none()
            || matches!(error, StoreError::Full(_) | StoreError::Unavailable { .. } | StoreError::Corrupt(_));
        self.broken |= whole;
        error
    }
}

#[async_trait]
impl Tx for PostgresTx {
    fn now(&self) -> Timestamp {
        self.now
    }

    async fn commit(mut self: Box<Self>) -> StoreResult<()> {
        self.usable()?;
        let Some(commits) = self.commits.clone() else { return Ok(()) };
        if self.commit_with_others().await? {
            return Ok(());
        }
        self.finish().await?;
        let Some(link) = self.link.take() else { return Ok(()) };
        within(self.silence, link.commit()).await.map_err(|error| unknown(&error))?;
        commits.announce();
        Ok(())
    }
}

/// What a failure of a commit means: the server has refused it, or nobody knows.
pub(super) fn unknown(error: &sqlx::Error) -> StoreError {
    let error = failed(error, None);
    let StoreError::Unavailable { why, .. } = error else { return error };
    let hint = "whether this was committed is not known: look before you repeat it";
    away(format!("the commit was not acknowledged: {why}"), hint)
}

/// Names of the fields that rows with a life keep in columns.
pub(super) const LIFE: &[&str] = &["state", "version"];

/// Writes the document of a row with a life.
pub(super) fn living<T: Serialize>(row: &T) -> StoreResult<String> {
    doc::pack(row, LIFE)
}

/// Reads a row with a life from `doc::text, state, version`.
pub(super) fn read_living<T: DeserializeOwned>(row: &PgRow) -> StoreResult<T> {
    let version = natural(row, 2)?;
    doc::unpack(text(row, 0)?, [("state", Value::from(text(row, 1)?)), ("version", version.into())])
}

/// Reads a row with a life from three columns, where there is one.
pub(super) fn read_living_at<T: DeserializeOwned>(row: &PgRow, at: usize) -> StoreResult<Option<T>> {
    let Some(doc) = maybe_text(row, at)? else { return Ok(None) };
    let (state, version) = (Value::from(text(row, at + 1)?), natural(row, at + 2)?);
    doc::unpack(doc, [("state", state), ("version", version.into())]).map(Some)
}

/// Reads a row that never changes from `doc::text`.
pub(super) fn read_plain<T: DeserializeOwned>(row: &PgRow) -> StoreResult<T> {
    doc::unpack(text(row, 0)?, [])
}

/// A text column.
pub(super) fn text(row: &PgRow, column: usize) -> StoreResult<&str> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// A text column that may be NULL.
pub(super) fn maybe_text(row: &PgRow, column: usize) -> StoreResult<Option<&str>> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// A column of bytes.
pub(super) fn bytes(row: &PgRow, column: usize) -> StoreResult<&[u8]> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// An integer column that may be NULL.
pub(super) fn maybe_integer(row: &PgRow, column: usize) -> StoreResult<Option<i64>> {
    row.try_get(column).map_err(|e| failed(&e, None))
}

/// An integer column that is never negative.
pub(super) fn natural(row: &PgRow, column: usize) -> StoreResult<u64> {
    let value: i64 = row.try_get(column).map_err(|e| failed(&e, None))?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("column {column} is {value}")))
}

/// A number as the database has it; what does not fit is larger than anything stored.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A limit as the database has it; 0 means all.
pub(super) fn limit(value: u32) -> Option<i64> {
    (value != 0).then(|| i64::from(value))
}

//! Writes of rows with a life and of lines of history. Each is one question, in which a refusal takes back nothing but
//! its own write; or, where the caller has said that it can wait, they go together with others, at the latest with the
//! end of the transaction.

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::query;

use autopack_shared::domain::ids::RunId;

use super::error::{Subject, failed, told};
use super::tx::{PostgresTx, Sql, integer, maybe_text};
use crate::store::{StoreError, StoreResult};

/// One write, as `autopack.put` knows it.
pub(super) struct Put {
    what: &'static str,
    run: RunId,
    id: String,
    number: i64,
    project: String,
    state: String,
    version: u64,
    doc: String,
    subject: Subject,
}

impl Put {
    /// A write of a row in the place `id` of a run; `what` names the table, with a `+` where the row is new.
    pub(super) fn new(what: &'static str, run: &RunId, id: &str, doc: String, subject: Subject) -> Self {
        let (id, project, state) = (id.to_owned(), String::new(), String::new());
        Self { what, run: run.clone(), id, number: 0, project, state, version: 0, doc, subject }
    }

    /// With its state, and the version that was read or is the first one.
    pub(super) fn living(mut self, state: &str, version: u64) -> Self {
        (self.state, self.version) = (state.to_owned(), version);
        self
    }

    /// With the number it has within its place.
    pub(super) const fn numbered(mut self, number: i64) -> Self {
        self.number = number;
        self
    }

    /// The run that is written to.
    pub(super) const fn run(&self) -> &RunId {
        &self.run
    }

    /// The table of the row.
    pub(super) fn table(&self) -> &'static str {
        self.what.trim_end_matches('+')
    }

    /// Which row of its run it is.
    pub(super) fn row(&self) -> (&'static str, &str, i64) {
        (self.table(), &self.id, self.number)
    }

    /// Whether it is the run's own, one of its phases or attempts, or a line of its history.
    pub(super) fn is_of_a_run(&self) -> bool {
        matches!(self.table(), "run" | "phase" | "attempt" | "event")
    }

    /// With its project.
    pub(super) fn in_project(mut self, project: &str) -> Self {
        project.clone_into(&mut self.project);
        self
    }
}

/// Gives a statement the columns of writes as its next eight values.
pub(super) fn bind<'q>(sql: Sql<'q>, puts: &[&'q Put]) -> Sql<'q> {
    let column = |of: fn(&Put) -> &str| puts.iter().map(|put| of(put)).collect::<Vec<_>>();
    let sql = sql.bind(column(|put| put.what)).bind(column(|put| put.run.as_str())).bind(column(|put| &put.id));
    let sql = sql.bind(puts.iter().map(|put| put.number).collect::<Vec<_>>());
    let sql = sql.bind(column(|put| &put.project)).bind(column(|put| &put.state));
    let sql = sql.bind(puts.iter().map(|put| integer(put.version)).collect::<Vec<_>>());
    sql.bind(column(|put| &put.doc))
}

/// The refusal in an answer `place, code, message, detail, name`, if it is one.
pub(super) fn refusal(puts: &[Put], row: &PgRow) -> StoreResult<Option<StoreError>> {
    let place: i32 = row.try_get(0).map_err(|e| failed(&e, None))?;
    let Some(put) = usize::try_from(place).ok().and_then(|place| puts.get(place.checked_sub(1)?)) else {
        return Ok(None);
    };
    let word = |column| Ok::<_, StoreError>(maybe_text(row, column)?.unwrap_or_default().to_owned());
    let (code, message, detail, name) = (word(1)?, word(2)?, word(3)?, word(4)?);
    Ok(Some(match code.as_str() {
        "AP005" => put.subject.conflict(put.version),
        "AP006" => put.subject.not_found(),
        code => told((code, &message, &detail, &name), Some(&put.subject)),
    }))
}

impl PostgresTx {
    /// Writes a row, now or with others.
    pub(super) async fn put(&mut self, put: Put) -> StoreResult<()> {
        self.touch(&put.run).await?;
        self.leases |= put.what.starts_with("lease");
        self.puts.push(put);
        if self.deferring { Ok(()) } else { self.flush().await }
    }

    /// Sends the writes that wait.
    pub(super) async fn flush(&mut self) -> StoreResult<()> {
        let puts = std::mem::take(&mut self.puts);
        if puts.is_empty() {
            return Ok(());
        }
        let sql =
            query("SELECT place, code, message, detail, name FROM autopack.put_all($1, $2, $3, $4, $5, $6, $7, $8)");
        for row in self.rows(bind(sql, &puts.iter().collect::<Vec<_>>())).await? {
            if let Some(refusal) = refusal(&puts, &row)? {
                return Err(self.refused(refusal));
            }
        }
        Ok(())
    }

    /// What a refusal leaves of the transaction: nothing, where writes waited or the server is in trouble.
    pub(super) fn refused(&mut self, error: StoreError) -> StoreError {
        let grave = matches!(error, StoreError::Full(_) | StoreError::Unavailable { .. } | StoreError::Corrupt(_));
        self.broken |= self.deferring || grave;
        error
    }
}

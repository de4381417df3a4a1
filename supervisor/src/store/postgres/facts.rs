//! What `audit verify` reads whole. Nothing is locked: the view that it is read in stands still by itself.

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Row as _, query};

use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::record::{Command, Notice};

use super::error::failed;
use super::tx::{PostgresTx, maybe_integer, maybe_text, natural, text};
use crate::store::facts::{Facts, FenceRow, LeaseChange, WindowRow};
use crate::store::{StoreError, StoreResult, doc};

// Each in the order it was written, or of its keys byte by byte.
const LEAVES: &str = "SELECT leaves FROM ledger";
const FENCES: &str = "SELECT scope, epoch, holder, autopack.millis(granted_at) FROM fence ORDER BY scope";
const WINDOWS: &str = "SELECT apply_id, class, run_id, project, lines, autopack.millis(at) FROM size_window \
                       ORDER BY apply_id, class COLLATE \"C\"";
const LEASES: &str = "SELECT commit_no, lease, project, change FROM lease_history ORDER BY seq";
const COMMANDS: &str = "SELECT doc::text, autopack.millis(done_at), result::text FROM command ORDER BY seq";
const NOTICES: &str = "SELECT doc::text, autopack.millis(sent_at) FROM notice ORDER BY seq";

fn instant(row: &PgRow, column: usize) -> StoreResult<Timestamp> {
    Ok(Timestamp::from_millis(maybe_integer(row, column)?.unwrap_or(0)))
}

/// An instant as documents write it.
fn written(row: &PgRow, column: usize) -> StoreResult<Value> {
    let at = maybe_integer(row, column)?.map(Timestamp::from_millis);
    serde_json::to_value(at).map_err(|e| StoreError::Corrupt(format!("an instant that is no JSON: {e}")))
}

fn fence(row: &PgRow) -> StoreResult<FenceRow> {
    Ok(FenceRow {
        scope: text(row, 0)?.to_owned(),
        epoch: natural(row, 1)?,
        holder: text(row, 2)?.to_owned(),
        granted_at: instant(row, 3)?,
    })
}

fn window(row: &PgRow) -> StoreResult<WindowRow> {
    let name = |e| StoreError::Corrupt(format!("a size window: {e}"));
    Ok(WindowRow {
        apply: text(row, 0)?.parse().map_err(name)?,
        class: text(row, 1)?.to_owned(),
        run: text(row, 2)?.parse().map_err(name)?,
        project: text(row, 3)?.to_owned(),
        lines: natural(row, 4)?,
        at: instant(row, 5)?,
    })
}

fn lease(row: &PgRow) -> StoreResult<LeaseChange> {
    let change: i32 = row.try_get(3).map_err(|e| failed(&e, None))?;
    Ok(LeaseChange {
        commit: natural(row, 0)?,
        lease: text(row, 1)?.to_owned(),
        project: text(row, 2)?.to_owned(),
        starts: match change {
            1 => true,
            -1 => false,
            other => return Err(StoreError::Corrupt(format!("a lease that changed by {other}"))),
        },
    })
}

/// A command with what became of it.
pub(super) fn command(row: &PgRow) -> StoreResult<Command> {
    let broken = |e| StoreError::Corrupt(format!("the result of a command is no JSON: {e}"));
    let result = maybe_text(row, 2)?.map_or(Ok(Value::Null), serde_json::from_str).map_err(broken)?;
    doc::unpack(text(row, 0)?, [("done_at", written(row, 1)?), ("result", result)])
}

fn notice(row: &PgRow) -> StoreResult<Notice> {
    doc::unpack(text(row, 0)?, [("sent_at", written(row, 1)?)])
}

impl PostgresTx {
    /// Every row of [`Facts`].
    pub(super) async fn all_facts(&mut self) -> StoreResult<Facts> {
        self.be_patient().await?;
        let gone = || StoreError::Corrupt("the ledger is missing".to_owned());
        Ok(Facts {
            leaves: natural(&self.one(query(LEAVES)).await?.ok_or_else(gone)?, 0)?,
            fences: self.every(FENCES, fence).await?,
            windows: self.every(WINDOWS, window).await?,
            leases: self.every(LEASES, lease).await?,
            commands: self.every(COMMANDS, command).await?,
            notices: self.every(NOTICES, notice).await?,
        })
    }

    async fn every<T>(&mut self, sql: &'static str, read: fn(&PgRow) -> StoreResult<T>) -> StoreResult<Vec<T>> {
        self.all(query(sql)).await?.iter().map(read).collect()
    }
}

//! What `audit verify` reads whole.

use serde_json::Value;
use sqlx::query;
use sqlx::sqlite::SqliteRow;

use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::record::{Command, Notice};

use super::tx::{SqliteTx, maybe_integer, maybe_text, natural, text};
use crate::store::doc;
use crate::store::facts::{Facts, FenceRow, LeaseChange, WindowRow};
use crate::store::{StoreError, StoreResult};

fn instant(row: &SqliteRow, column: usize) -> StoreResult<Timestamp> {
    Ok(Timestamp::from_millis(maybe_integer(row, column)?.unwrap_or(0)))
}

/// An instant as documents write it.
fn written(row: &SqliteRow, column: usize) -> StoreResult<Value> {
    let at = maybe_integer(row, column)?.map(Timestamp::from_millis);
    serde_json::to_value(at).map_err(|e| StoreError::Corrupt(format!("an instant that is no JSON: {e}")))
}

fn fence(row: &SqliteRow) -> StoreResult<FenceRow> {
    Ok(FenceRow {
        scope: text(row, 0)?.to_owned(),
        epoch: natural(row, 1)?,
        holder: text(row, 2)?.to_owned(),
        granted_at: instant(row, 3)?,
    })
}

fn window(row: &SqliteRow) -> StoreResult<WindowRow> {
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

fn lease(row: &SqliteRow) -> StoreResult<LeaseChange> {
    Ok(LeaseChange {
        commit: natural(row, 0)?,
        lease: text(row, 1)?.to_owned(),
        project: text(row, 2)?.to_owned(),
        starts: match maybe_integer(row, 3)? {
            Some(1) => true,
            Some(-1) => false,
            other => return Err(StoreError::Corrupt(format!("a lease that changed by {other:?}"))),
        },
    })
}

/// A command with what became of it.
pub(super) fn command(row: &SqliteRow) -> StoreResult<Command> {
    let result = maybe_text(row, 2)?.map_or(Value::Null, Value::from);
    doc::unpack(text(row, 0)?, [("done_at", written(row, 1)?), ("result", result)])
}

fn notice(row: &SqliteRow) -> StoreResult<Notice> {
    doc::unpack(text(row, 0)?, [("sent_at", written(row, 1)?)])
}

impl SqliteTx {
    pub(super) async fn all_facts(&mut self) -> StoreResult<Facts> {
        let leaves = self.one(query("SELECT leaves FROM cluster")).await?;
        let fences = self.all(query("SELECT scope, epoch, holder, granted_at FROM fence ORDER BY scope")).await?;
        let windows = "SELECT apply_id, class, run_id, project, lines, at FROM size_window ORDER BY apply_id, class";
        let windows = self.all(query(windows)).await?;
        let leases = "SELECT commit_no, lease, project, change FROM lease_history ORDER BY seq";
        let leases = self.all(query(leases)).await?;
        let commands = self.all(query("SELECT doc, done_at, result FROM command ORDER BY seq")).await?;
        let notices = self.all(query("SELECT doc, sent_at FROM notice ORDER BY seq")).await?;
        Ok(Facts {
            leaves: leaves.map_or(Ok(0), |row| natural(&row, 0))?,
            fences: fences.iter().map(fence).collect::<StoreResult<_>>()?,
            windows: windows.iter().map(window).collect::<StoreResult<_>>()?,
            leases: leases.iter().map(lease).collect::<StoreResult<_>>()?,
            commands: commands.iter().map(command).collect::<StoreResult<_>>()?,
            notices: notices.iter().map(notice).collect::<StoreResult<_>>()?,
        })
    }
}

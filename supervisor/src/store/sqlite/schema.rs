//! What happens to the file before anything else may use it: is it ours, is it whole, is its schema known, do its
//! triggers know the tables of this program.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Row as _, SqliteConnection, SqlitePool, query, query_scalar};

use autopack_shared::domain::ids::Timestamp;

use super::error::{away, failed};
use crate::store::{StoreError, StoreResult, state_tables};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations/sqlite");

/// How long the answers of idempotent calls are kept (`coordination.md` 3.11).
const IDEM_MILLIS: i64 = 7 * 24 * 3600 * 1000;

fn sql(error: sqlx::Error) -> StoreError {
    failed(&error, None)
}

/// Makes the file, readable by its owner only; SQLite gives its own files beside it the same mode.
pub(super) fn private_file(path: &Path) -> StoreResult<()> {
    let hint = "check that the data directory is there and that you may write to it";
    let refuse = |e: io::Error| away(format!("{}: {e}", path.display()), hint);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(refuse)?;
    if file.metadata().map_err(refuse)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refuse)?;
    }
    Ok(())
}

/// Brings the file to this program's schema, or says why it cannot be used.
pub(super) async fn prepare(pool: &SqlitePool) -> StoreResult<()> {
    let known = MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0);
    match found(pool).await? {
        Some(found) if found > known => return Err(StoreError::Schema { found, known }),
        Some(_) => check_after_crash(pool).await?,
        None => {}
    }
    // Also refuses a store whose schema was made by a changed copy of a migration.
    MIGRATOR.run(pool).await.map_err(|error| {
        if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = error {
            sql(cause)
        } else {
            StoreError::Corrupt(error.to_string())
        }
    })
}

/// The newest migration the file has seen; none for an empty file.
async fn found(pool: &SqlitePool) -> StoreResult<Option<i64>> {
    let tables: Vec<String> =
        query_scalar("SELECT name FROM sqlite_schema WHERE type = 'table'").fetch_all(pool).await.map_err(sql)?;
    if tables.is_empty() {
        return Ok(None);
    }
    if !tables.iter().any(|t| t == "_sqlx_migrations") {
        return Err(StoreError::Corrupt("this is no control store of autopack".to_owned()));
    }
    query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(pool).await.map_err(sql)
}

/// Checks the whole file when the last process that had it open did not say goodbye.
async fn check_after_crash(pool: &SqlitePool) -> StoreResult<()> {
    let owner = query_scalar("SELECT opened_by FROM cluster").fetch_optional(pool).await.map_err(sql)?;
    let Some(owner): Option<String> = owner.flatten() else { return Ok(()) };
    tracing::info!(owner, "the store was not closed; checking it");
    let wrong: Vec<String> = query_scalar("PRAGMA integrity_check(5)").fetch_all(pool).await.map_err(sql)?;
    if wrong == ["ok"] {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("integrity check: {}", wrong.join("; "))))
}

/// Writes what this process must have in the store before it is used: the cluster row, the tables of moves, who has it
/// open. Returns the store's clock as it was last written.
pub(super) async fn settle(pool: &SqlitePool, cluster: &str, owner: &str) -> StoreResult<Timestamp> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.map_err(sql)?;
    let row = "INSERT INTO cluster (id, cluster_id, incarnation, clock_ms, commits, leaves) VALUES (1, $1, 1, 0, 0, 0) \
               ON CONFLICT (id) DO NOTHING";
    query(row).bind(cluster).execute(&mut *tx).await.map_err(sql)?;
    query("UPDATE cluster SET opened_by = $1").bind(owner).execute(&mut *tx).await.map_err(sql)?;
    let clock: i64 = query_scalar("SELECT clock_ms FROM cluster").fetch_one(&mut *tx).await.map_err(sql)?;
    query("DELETE FROM idem WHERE at < $1").bind(clock - IDEM_MILLIS).execute(&mut *tx).await.map_err(sql)?;
    write_moves(&mut tx).await?;
    tx.commit().await.map_err(sql)?;
    Ok(Timestamp::from_millis(clock))
}

/// Forgets who has the store open, if it is still this process.
pub(super) async fn leave(pool: &SqlitePool, owner: &str) -> StoreResult<()> {
    let left = "UPDATE cluster SET opened_by = NULL WHERE opened_by = $1";
    query(left).bind(owner).execute(pool).await.map_err(sql)?;
    Ok(())
}

/// Makes the store's tables of moves those of this program; the triggers read them.
async fn write_moves(link: &mut SqliteConnection) -> StoreResult<()> {
    let (moves, finals) = state_tables::all();
    let wanted = state_tables::lines(&moves, &finals);
    let there = "SELECT machine || ' ' || from_state || ' ' || to_state FROM legal_move \
                 UNION ALL SELECT machine || ' ' || state FROM final_state";
    let rows = query(there).fetch_all(&mut *link).await.map_err(sql)?;
    let there: Result<BTreeSet<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    if there.map_err(sql)? == wanted {
        return Ok(());
    }
    query("DELETE FROM legal_move").execute(&mut *link).await.map_err(sql)?;
    query("DELETE FROM final_state").execute(&mut *link).await.map_err(sql)?;
    for (machine, from, to) in moves {
        let row = query("INSERT INTO legal_move VALUES ($1, $2, $3)").bind(machine).bind(from).bind(to);
        row.execute(&mut *link).await.map_err(sql)?;
    }
    for (machine, state) in finals {
        let row = query("INSERT INTO final_state VALUES ($1, $2)").bind(machine).bind(state);
        row.execute(&mut *link).await.map_err(sql)?;
    }
    Ok(())
}

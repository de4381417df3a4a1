//! The schema: migrations that only add, applied one after the other in one transaction while no other process does the
//! same, and what a process writes before it uses the store. Processes of another version may be at work meanwhile.
//!
//! A migration that programs before it cannot live with says nothing; one that they can says in a line of its own
//! `-- compatible with: N`, the oldest program schema that may go on using the store.

use std::collections::BTreeSet;

use sqlx::migrate::{Migration, Migrator};
use sqlx::{PgConnection, PgPool, Row as _, query, query_scalar, raw_sql};

use super::error::{away, failed};
use crate::store::{StoreError, StoreResult, state_tables};

static MIGRATOR: Migrator = sqlx::migrate!("./migrations/postgres");

/// The advisory lock of whoever prepares the schema: "autopack" in ASCII.
const LOCK: i64 = 0x6175_746f_7061_636b;
/// How long the answers of idempotent calls are kept (`coordination.md` 3.11).
const IDEM_DAYS: i64 = 7;
/// What a migration says about programs that are older than it.
const COMPATIBLE: &str = "-- compatible with:";

fn sql(error: sqlx::Error) -> StoreError {
    failed(&error, None)
}

/// A migration that the store has seen.
struct Applied {
    version: i64,
    checksum: Vec<u8>,
    /// The oldest program schema that may use the store with it.
    compatible: i64,
}

/// Waits for whoever else prepares the schema, and holds others up until the transaction ends.
pub(super) async fn take_turn(link: &mut PgConnection) -> StoreResult<()> {
    // Others may be at it for as long as it takes to build an index.
    let patience = "SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = '10min'";
    raw_sql(patience).execute(&mut *link).await.map_err(sql)?;
    query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(link).await.map_err(sql)?;
    Ok(())
}

/// Brings the store to this program's schema, or says why it cannot be used.
pub(super) async fn prepare(pool: &PgPool) -> StoreResult<()> {
    let mut tx = pool.begin().await.map_err(sql)?;
    take_turn(&mut tx).await?;
    let applied = applied(&mut tx).await?;
    check(&applied, known())?;
    for migration in MIGRATOR.iter() {
        match applied.iter().find(|a| a.version == migration.version) {
            Some(there) if there.checksum == *migration.checksum => {}
            Some(_) => {
                let why = format!("migration {} was applied from a changed copy", migration.version);
                return Err(StoreError::Corrupt(why));
            }
            None => apply(&mut tx, migration).await?,
        }
    }
    tx.commit().await.map_err(sql)
}

/// Refuses a store whose schema is not this program's, and changes nothing of it.
pub(super) async fn is_current(pool: &PgPool) -> StoreResult<()> {
    let mut link = pool.acquire().await.map_err(sql)?;
    let known = MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0);
    let there = "SELECT to_regclass('autopack.migration') IS NOT NULL";
    let there: bool = query_scalar(there).fetch_one(&mut *link).await.map_err(sql)?;
    let applied = if there { applied(&mut link).await? } else { Vec::new() };
    check(&applied, known)?;
    let same = |m: &Migration| applied.iter().any(|a| a.version == m.version && a.checksum == *m.checksum);
    if MIGRATOR.iter().all(same) {
        return Ok(());
    }
    let found = applied.iter().map(|a| a.version).max().unwrap_or(0);
    let why = format!("its schema is {found}, this program's is {known}, and nothing is to be written");
    Err(away(why, "do it without --dry-run, or start a supervisor of this version before"))
}

/// What the store has seen; the table for it is made where there is nothing yet.
async fn applied(link: &mut PgConnection) -> StoreResult<Vec<Applied>> {
    let there = "SELECT to_regnamespace('autopack') IS NOT NULL, to_regclass('autopack.migration') IS NOT NULL";
    let row = query(there).fetch_one(&mut *link).await.map_err(sql)?;
    match (row.try_get(0).map_err(sql)?, row.try_get(1).map_err(sql)?) {
        (false, _) => {
            let make = "CREATE SCHEMA autopack; CREATE TABLE autopack.migration (version bigint PRIMARY KEY, \
                        description text NOT NULL, checksum bytea NOT NULL, compatible bigint NOT NULL, \
                        applied_at timestamptz NOT NULL DEFAULT now())";
            raw_sql(make).execute(&mut *link).await.map_err(sql)?;
            Ok(Vec::new())
        }
        (true, false) => Err(StoreError::Corrupt("its schema autopack is no control store of autopack".to_owned())),
        (true, true) => {
            let rows = "SELECT version, checksum, compatible FROM autopack.migration ORDER BY version";
            let rows = query(rows).fetch_all(&mut *link).await.map_err(sql)?;
            let read = |row: &sqlx::postgres::PgRow| {
                let (version, checksum, compatible) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                Ok(Applied { version, checksum, compatible })
            };
            rows.iter().map(|row| read(row).map_err(sql)).collect()
        }
    }
}

/// A newer schema is refused, unless each migration that this program does not know says that it may go on.
fn check(applied: &[Applied], known: i64) -> StoreResult<()> {
    let newer = applied.iter().filter(|a| a.version > known);
    match newer.filter(|a| a.compatible > known).map(|a| a.version).max() {
        Some(found) => Err(StoreError::Schema { found, known }),
        None => Ok(()),
    }
}

/// The newest schema that this program knows.
pub(super) fn known() -> i64 {
    MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0)
}

/// The newest migration under which this program may not go on using the store, as another one may have applied while
/// this one has it open; none where it may.
pub(super) async fn outgrown(pool: &PgPool) -> Result<Option<i64>, sqlx::Error> {
    let sql = "SELECT max(version) FROM autopack.migration WHERE version > $1 AND compatible > $1";
    query_scalar(sql).bind(known()).fetch_one(pool).await
}

async fn apply(link: &mut PgConnection, migration: &Migration) -> StoreResult<()> {
    raw_sql(migration.sql.clone()).execute(&mut *link).await.map_err(sql)?;
    let row = "INSERT INTO autopack.migration (version, description, checksum, compatible) VALUES ($1, $2, $3, $4)";
    let row = query(row).bind(migration.version).bind(migration.description.as_ref()).bind(&migration.checksum[..]);
    row.bind(compatible(migration.sql.as_str()).unwrap_or(migration.version)).execute(link).await.map_err(sql)?;
    Ok(())
}

/// The oldest program schema that may use a store with this migration, if it says so.
fn compatible(text: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix(COMPATIBLE)?.trim().parse().ok())
}

/// Writes what must be in the store before it is used: the cluster row and the tables of moves. Refuses a store that
/// was made on another database system.
pub(super) async fn settle(pool: &PgPool, cluster: &str, system: &str) -> StoreResult<()> {
    let mut tx = pool.begin().await.map_err(sql)?;
    take_turn(&mut tx).await?;
    let row = "INSERT INTO cluster (id, cluster_id, incarnation, system_identifier) VALUES (1, $1, 1, $2) \
               ON CONFLICT (id) DO NOTHING";
    query(row).bind(cluster).bind(system).execute(&mut *tx).await.map_err(sql)?;
    let made_on = "SELECT system_identifier FROM cluster";
    let made_on: String = query_scalar(made_on).fetch_one(&mut *tx).await.map_err(sql)?;
    if made_on != system {
        return Err(StoreError::Moved { made_on, found: system.to_owned() });
    }
    let old =
        "DELETE FROM idem WHERE at < autopack.instant(autopack.now_millis(0)) - make_interval(days => $1::integer)";
    query(old).bind(IDEM_DAYS).execute(&mut *tx).await.map_err(sql)?;
    let newest: i64 = query_scalar("SELECT max(version) FROM migration").fetch_one(&mut *tx).await.map_err(sql)?;
    // In a store of a newer program its tables stay as that one has written them.
    if MIGRATOR.iter().any(|m| m.version >= newest) {
        write_moves(&mut tx).await?;
    }
    tx.commit().await.map_err(sql)
}

/// Makes the store's tables of moves those of this program; the triggers read them.
async fn write_moves(link: &mut PgConnection) -> StoreResult<()> {
    let (moves, finals) = state_tables::all();
    let there = "SELECT machine || ' ' || from_state || ' ' || to_state FROM legal_move \
                 UNION ALL SELECT machine || ' ' || state FROM final_state";
    let there: Vec<String> = query_scalar(there).fetch_all(&mut *link).await.map_err(sql)?;
    if there.into_iter().collect::<BTreeSet<_>>() == state_tables::lines(&moves, &finals) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(version: i64, compatible: i64) -> Applied {
        Applied { version, checksum: Vec::new(), compatible }
    }

    #[test]
    fn a_newer_schema_is_refused_unless_it_is_marked() {
        check(&[], 1).unwrap();
        check(&[applied(1, 1)], 1).unwrap();
        check(&[applied(1, 1), applied(2, 1), applied(3, 1)], 1).unwrap();
        let refused = check(&[applied(1, 1), applied(2, 2), applied(3, 1)], 1);
        assert!(matches!(refused, Err(StoreError::Schema { found: 2, known: 1 })));
        assert!(check(&[applied(9, 5)], 4).is_err());
    }

    #[test]
    fn the_mark_is_a_line_of_its_own() {
        assert_eq!(compatible("-- x\n-- compatible with: 3\nSELECT 1;"), Some(3));
        assert_eq!(compatible("-- it is compatible with: 3\n"), None);
        assert_eq!(compatible(MIGRATOR.iter().next().unwrap().sql.as_str()), None);
    }
}

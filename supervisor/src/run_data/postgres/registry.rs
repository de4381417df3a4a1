//! The registry: which runs have data, at which epoch, and whether a login is on. In a schema that only our own login
//! can use.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _, query, query_scalar};

use autopack_shared::domain::ids::{FencingToken, RunId};
use autopack_shared::domain::run_data::RunDataModel;

use super::error::failed;
use crate::run_data::{RunDataError, RunDataResult, Stint};

/// The registry and the key, made once. Of a run whose data is gone the row stays: no older epoch may begin it anew.
pub(super) const MAKE: &str = "\
CREATE SCHEMA IF NOT EXISTS autopack;
CREATE TABLE IF NOT EXISTS autopack.run_server (
  id integer PRIMARY KEY CHECK (id = 1), format integer NOT NULL, cluster text NOT NULL, secret bytea NOT NULL);
CREATE TABLE IF NOT EXISTS autopack.run_data (
  key text PRIMARY KEY, run text NOT NULL UNIQUE, model text NOT NULL CHECK (model IN ('schema', 'database')),
  incarnation bigint NOT NULL, epoch bigint NOT NULL,
  state text NOT NULL CHECK (state IN ('open', 'closed', 'gone')),
  made_at timestamptz NOT NULL DEFAULT now(), closed_at timestamptz);
CREATE INDEX IF NOT EXISTS run_data_kept ON autopack.run_data (state, closed_at) WHERE state <> 'gone';
REVOKE ALL ON SCHEMA autopack FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA autopack FROM PUBLIC;";

/// The advisory lock of whoever prepares the server or adds a run to it: "runs" in ASCII.
pub(super) const LOCK: i64 = 0x7275_6e73;

/// One run's row.
pub(super) struct Entry {
    pub(super) run: String,
    pub(super) model: String,
    pub(super) token: FencingToken,
    pub(super) state: String,
}

fn number<T: TryFrom<i64>>(row: &PgRow, at: &str) -> RunDataResult<T> {
    let value: i64 = row.try_get(at).map_err(|e| failed(&e))?;
    T::try_from(value).map_err(|_| RunDataError::Taken(format!("its registry holds {value} as {at}")))
}

fn token(row: &PgRow) -> RunDataResult<FencingToken> {
    Ok(FencingToken { incarnation: number(row, "incarnation")?, epoch: number(row, "epoch")? })
}

/// A run id as the registry holds it.
pub(super) fn run_id(text: String) -> RunDataResult<RunId> {
    RunId::new(text).map_err(|e| RunDataError::Taken(format!("its registry holds a run id that is none: {e}")))
}

/// Takes the turn of whoever adds to the server, until the transaction ends.
pub(super) async fn take_turn(link: &mut PgConnection) -> RunDataResult<()> {
    query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(link).await.map_err(|e| failed(&e))?;
    Ok(())
}

/// A run's row, held until the transaction ends.
pub(super) async fn hold(link: &mut PgConnection, key: &str) -> RunDataResult<Option<Entry>> {
    let sql = "SELECT run, model, incarnation, epoch, state FROM autopack.run_data WHERE key = $1 FOR UPDATE";
    let Some(row) = query(sql).bind(key).fetch_optional(link).await.map_err(|e| failed(&e))? else {
        return Ok(None);
    };
    let text = |at| row.try_get::<String, _>(at).map_err(|e| failed(&e));
    Ok(Some(Entry { run: text("run")?, model: text("model")?, token: token(&row)?, state: text("state")? }))
}

/// Refuses where the server is full and the run is not there yet.
pub(super) async fn has_room(link: &mut PgConnection, key: &str, limit: u32) -> RunDataResult<()> {
    let sql = "SELECT count(*) FROM autopack.run_data WHERE state <> 'gone' AND key <> $1";
    let others: i64 = query_scalar(sql).bind(key).fetch_one(&mut *link).await.map_err(|e| failed(&e))?;
    if others < i64::from(limit) {
        return Ok(());
    }
    let sql = "SELECT EXISTS (SELECT FROM autopack.run_data WHERE state <> 'gone' AND key = $1)";
    let there: bool = query_scalar(sql).bind(key).fetch_one(link).await.map_err(|e| failed(&e))?;
    if there { Ok(()) } else { Err(RunDataError::Full { limit }) }
}

/// Writes what a stint claims.
pub(super) async fn claim(link: &mut PgConnection, key: &str, stint: &Stint) -> RunDataResult<()> {
    let sql = "INSERT INTO autopack.run_data (key, run, model, incarnation, epoch, state) \
               VALUES ($1, $2, $3, $4, $5, 'open') ON CONFLICT (key) DO UPDATE SET model = excluded.model, \
               incarnation = excluded.incarnation, epoch = excluded.epoch, state = 'open', closed_at = NULL";
    let (token, too_high) = (stint.token, |_| RunDataError::Taken("an epoch that cannot be stored".to_owned()));
    let row = query(sql).bind(key).bind(stint.run.as_str()).bind(stint.model.as_str());
    let row = row.bind(i64::from(token.incarnation)).bind(i64::try_from(token.epoch).map_err(too_high)?);
    row.execute(link).await.map_err(|e| failed(&e))?;
    Ok(())
}

/// Moves a run's row on.
pub(super) async fn set_state(link: &mut PgConnection, key: &str, state: &str) -> RunDataResult<()> {
    let sql = "UPDATE autopack.run_data SET state = $2, closed_at = now() WHERE key = $1";
    query(sql).bind(key).bind(state).execute(link).await.map_err(|e| failed(&e))?;
    Ok(())
}

/// The stints that are not retired.
pub(super) async fn open(link: &mut PgConnection) -> RunDataResult<Vec<(RunId, FencingToken)>> {
    let sql = "SELECT run, incarnation, epoch FROM autopack.run_data WHERE state = 'open' ORDER BY key";
    let rows = query(sql).fetch_all(link).await.map_err(|e| failed(&e))?;
    let read = |row: &PgRow| Ok((run_id(row.try_get("run").map_err(|e| failed(&e))?)?, token(row)?));
    rows.iter().map(read).collect()
}

/// What is wrong with a stint that wants to go on where a row says how far the run is.
pub(super) fn admit(entry: &Entry, stint: &Stint) -> RunDataResult<()> {
    if entry.run != stint.run.as_str() {
        return Err(RunDataError::Taken(format!("run {} has the same digest", entry.run)));
    }
    let known = (entry.token.incarnation, entry.token.epoch);
    let brought = (stint.token.incarnation, stint.token.epoch);
    if brought < known || (brought == known && entry.state != "open") {
        return Err(RunDataError::Fenced { run: stint.run.clone(), held: stint.token, current: entry.token });
    }
    if entry.state != "gone" && entry.model != stint.model.as_str() {
        return Err(RunDataError::Taken(format!("it is there as a {}", entry.model)));
    }
    Ok(())
}

/// The model of a row.
pub(super) fn model_of(entry: &Entry) -> RunDataModel {
    if entry.model == RunDataModel::Database.as_str() { RunDataModel::Database } else { RunDataModel::Schema }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(epoch: u64, state: &str) -> Entry {
        let token = FencingToken { incarnation: 1, epoch };
        Entry { run: "r".to_owned(), model: "schema".to_owned(), token, state: state.to_owned() }
    }

    fn stint(incarnation: u32, epoch: u64) -> Stint {
        let (run, token) = (RunId::new("r").unwrap(), FencingToken { incarnation, epoch });
        Stint { run, model: RunDataModel::Schema, token }
    }

    #[test]
    fn only_the_newest_epoch_goes_on_and_only_until_it_has_ended() {
        let table = [
            (3, "open", (1, 2), false),
            (3, "open", (1, 3), true),
            (3, "open", (1, 4), true),
            (3, "closed", (1, 2), false),
            (3, "closed", (1, 3), false),
            (3, "closed", (1, 4), true),
            (3, "gone", (1, 3), false),
            (3, "gone", (1, 4), true),
            (3, "open", (2, 1), true),
            (3, "open", (0, 9), false),
        ];
        for (epoch, state, (incarnation, brought), allowed) in table {
            let told = admit(&entry(epoch, state), &stint(incarnation, brought));
            assert_eq!(told.is_ok(), allowed, "{epoch} {state} {incarnation}.{brought}");
            assert!(allowed || matches!(told, Err(RunDataError::Fenced { .. })));
        }
    }

    #[test]
    fn another_run_or_another_kind_is_not_gone_on_with() {
        let other = Entry { run: "s".to_owned(), ..entry(3, "open") };
        assert!(matches!(admit(&other, &stint(1, 4)), Err(RunDataError::Taken(_))));
        let database = Entry { model: "database".to_owned(), ..entry(3, "open") };
        assert!(matches!(admit(&database, &stint(1, 4)), Err(RunDataError::Taken(_))));
        assert_eq!(model_of(&database), RunDataModel::Database);
    }
}

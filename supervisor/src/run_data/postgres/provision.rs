//! The life of a stint: claimed, cleared, opened, retired.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection, Row as _, query, query_scalar};

use autopack_shared::domain::ids::{FencingToken, RunId};
use autopack_shared::domain::run_data::{RunDataModel, SqlNames};

use super::error::failed;
use super::registry::{self, Entry};
use super::{PostgresRunDatabases, Ready, quoted, run_sql, sessions};
use crate::run_data::{RunDataError, RunDataResult, Stint};

/// Tries to switch logins off. A session can stand in the way, by a change to its own role that it does not commit; it
/// is ended, and may have come back in between.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(50);

/// How long a login may do one thing, unless it says otherwise itself; a bound that it cannot move is the number of its
/// connections.
const LIMITS: &[(&str, &str)] =
    &[("statement_timeout", "10min"), ("idle_in_transaction_session_timeout", "10min"), ("lock_timeout", "1min")];

/// A login role of a run.
pub(super) struct Login {
    pub(super) name: String,
    on: bool,
}

impl PostgresRunDatabases {
    /// Claims, clears the way, opens.
    pub(super) async fn begin(&self, stint: &Stint) -> RunDataResult<()> {
        let ready = self.ready().await?;
        let names = SqlNames::of(&stint.run);
        let mut link = self.pool.acquire().await.map_err(|e| failed(&e))?;
        self.claim(ready, &mut link, stint).await?;
        let older = switch_off(&mut link, &stint.run, stint.token, Some(&names.login(stint.token))).await?;
        let spelled: Vec<String> = older.iter().map(|login| login.name.clone()).collect();
        sessions::end(&mut link, &spelled).await?;
        if stint.model == RunDataModel::Database {
            make_database(ready, &mut link, &names).await?;
        }
        self.let_in(ready, &mut link, stint).await?;
        for login in older.iter().filter(|login| !login.on) {
            // Off for a whole epoch: no session of it can be on its way any more.
            if let Err(error) = drop_login(&mut link, &login.name).await {
                tracing::debug!(login = login.name, %error, "stays until the run's data goes");
            }
        }
        Ok(())
    }

    /// Records the epoch; makes the role that owns everything, and its schema.
    async fn claim(&self, ready: &Ready, link: &mut PgConnection, stint: &Stint) -> RunDataResult<()> {
        let names = SqlNames::of(&stint.run);
        let owner = quoted(&names.owner());
        let mut tx = link.begin().await.map_err(|e| failed(&e))?;
        let mut entry = registry::hold(&mut tx, names.key()).await?;
        if entry.as_ref().is_none_or(|entry| entry.state == "gone") {
            registry::take_turn(&mut tx).await?;
            registry::has_room(&mut tx, names.key(), self.config.limit).await?;
            // Somebody else may have had the turn before.
            entry = registry::hold(&mut tx, names.key()).await?;
        }
        if let Some(entry) = &entry {
            registry::admit(entry, stint)?;
        }
        if entry.is_none_or(|entry| entry.state == "gone") {
            // It inherits: that is how it owns what is in a database of its own.
            run_sql(&mut tx, format!("CREATE ROLE {owner} NOLOGIN")).await?;
            join(ready, &mut tx, &owner).await?;
        }
        if stint.model == RunDataModel::Schema {
            // Each time: the owner may have dropped it, and cannot make it.
            run_sql(&mut tx, format!("CREATE SCHEMA IF NOT EXISTS {owner} AUTHORIZATION {owner}")).await?;
        }
        registry::claim(&mut tx, names.key(), stint).await?;
        tx.commit().await.map_err(|e| failed(&e))
    }

    /// Makes the login of this epoch, if it is still the newest.
    async fn let_in(&self, ready: &Ready, link: &mut PgConnection, stint: &Stint) -> RunDataResult<()> {
        let names = SqlNames::of(&stint.run);
        let (login, owner) = (names.login(stint.token), quoted(&names.owner()));
        let verifier = ready.key.verifier(&login);
        let mut tx = link.begin().await.map_err(|e| failed(&e))?;
        current(&mut tx, &stint.run, stint.token).await?;
        let there = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)";
        let there: bool = query_scalar(there).bind(&login).fetch_one(&mut *tx).await.map_err(|e| failed(&e))?;
        let (verb, login) = (if there { "ALTER" } else { "CREATE" }, quoted(&login));
        let attributes = format!("LOGIN NOINHERIT CONNECTION LIMIT {} PASSWORD '{verifier}'", self.config.sessions);
        run_sql(&mut tx, format!("{verb} ROLE {login} {attributes}")).await?;
        join(ready, &mut tx, &login).await?;
        let mut sql = format!("GRANT {owner} TO {login}; ALTER ROLE {login} SET role = {owner};");
        for (setting, value) in LIMITS {
            sql.push_str(&format!("ALTER ROLE {login} SET {setting} = '{value}';"));
        }
        match stint.model {
            RunDataModel::Database => sql.push_str(&format!("GRANT CONNECT ON DATABASE {owner} TO {login}")),
            RunDataModel::Schema | RunDataModel::Sqlite => {
                let database = quoted(&ready.database);
                sql.push_str(&format!("ALTER ROLE {login} SET search_path = {owner};"));
                sql.push_str(&format!("GRANT CONNECT ON DATABASE {database} TO {login}"));
            }
        }
        run_sql(&mut tx, sql).await?;
        tx.commit().await.map_err(|e| failed(&e))
    }

    /// Ends a stint; nothing is to be done where a later one has begun.
    pub(super) async fn end(&self, run: &RunId, token: FencingToken) -> RunDataResult<()> {
        let mut link = self.pool.acquire().await.map_err(|e| failed(&e))?;
        match switch_off(&mut link, run, token, None).await {
            Ok(off) => {
                let off: Vec<String> = off.into_iter().map(|login| login.name).collect();
                sessions::end(&mut link, &off).await
            }
            Err(RunDataError::Fenced { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The database that a stint's login is for.
    pub(super) fn database_of(&self, ready: &Ready, stint: &Stint) -> String {
        match stint.model {
            RunDataModel::Database => SqlNames::of(&stint.run).owner(),
            RunDataModel::Schema | RunDataModel::Sqlite => ready.database.clone(),
        }
    }
}

/// The run's row, held, if this token is still its newest.
async fn current(link: &mut PgConnection, run: &RunId, token: FencingToken) -> RunDataResult<Entry> {
    match registry::hold(link, SqlNames::of(run).key()).await? {
        Some(entry) if entry.token == token && entry.state == "open" => Ok(entry),
        Some(entry) => Err(RunDataError::Fenced { run: run.clone(), held: token, current: entry.token }),
        None => Err(RunDataError::Taken("its registry has lost the run".to_owned())),
    }
}

/// Switches off the logins of a run, all but `keep`, and closes the stint where none is kept. Only the newest token may:
/// so what is switched off here is older, and what is ended after it too.
async fn switch_off(
    link: &mut PgConnection,
    run: &RunId,
    token: FencingToken,
    keep: Option<&str>,
) -> RunDataResult<Vec<Login>> {
    let mut tries = 1;
    loop {
        let mut seen = Vec::new();
        match try_off(link, run, token, keep, &mut seen).await {
            Ok(()) => return Ok(seen),
            Err(RunDataError::Unavailable { why, .. }) if tries < TRIES && !seen.is_empty() => {
                tracing::info!(run = %run, why, "a session keeps its login from being switched off and is ended first");
                let spelled: Vec<String> = seen.into_iter().map(|login| login.name).collect();
                sessions::end(link, &spelled).await?;
                tokio::time::sleep(PAUSE).await;
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn try_off(
    link: &mut PgConnection,
    run: &RunId,
    token: FencingToken,
    keep: Option<&str>,
    seen: &mut Vec<Login>,
) -> RunDataResult<()> {
    let names = SqlNames::of(run);
    let mut tx = link.begin().await.map_err(|e| failed(&e))?;
    current(&mut tx, run, token).await?;
    seen.extend(logins(&mut tx, &names).await?.into_iter().filter(|login| Some(login.name.as_str()) != keep));
    for login in seen.iter().filter(|login| login.on) {
        let (owner, login) = (quoted(&names.owner()), quoted(&login.name));
        run_sql(&mut tx, format!("ALTER ROLE {login} NOLOGIN; REVOKE {owner} FROM {login}")).await?;
    }
    if keep.is_none() {
        registry::set_state(&mut tx, names.key(), "closed").await?;
    }
    tx.commit().await.map_err(|e| failed(&e))
}

/// Every login role of a run.
pub(super) async fn logins(link: &mut PgConnection, names: &SqlNames) -> RunDataResult<Vec<Login>> {
    let prefix = names.login_prefix();
    let sql = "SELECT rolname::text, rolcanlogin FROM pg_roles WHERE starts_with(rolname::text, $1) ORDER BY 1";
    let rows = query(sql).bind(prefix).fetch_all(link).await.map_err(|e| failed(&e))?;
    let read = |row: &sqlx::postgres::PgRow| Ok(Login { name: row.try_get(0)?, on: row.try_get(1)? });
    rows.iter().map(|row| read(row).map_err(|e| failed(&e))).collect()
}

/// Where our own login may not do everything, it has to be a member of what it makes.
async fn join(ready: &Ready, link: &mut PgConnection, role: &str) -> RunDataResult<()> {
    if ready.superuser {
        return Ok(());
    }
    run_sql(link, format!("GRANT {role} TO CURRENT_USER")).await
}

/// Makes the run's database where it is not there, and closes it to all but its logins.
async fn make_database(ready: &Ready, link: &mut PgConnection, names: &SqlNames) -> RunDataResult<()> {
    let (name, there) = (names.owner(), "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)");
    let there: bool = query_scalar(there).bind(&name).fetch_one(&mut *link).await.map_err(|e| failed(&e))?;
    let name = quoted(&name);
    if !there {
        // Copying the files of the template makes the whole server write a checkpoint: ten times slower.
        let strategy = if ready.version >= 150_000 { " STRATEGY wal_log" } else { "" };
        run_sql(link, format!("CREATE DATABASE {name} OWNER {name} TEMPLATE template0{strategy}")).await?;
    }
    run_sql(link, format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC")).await
}

/// Removes a login role that is off, with what it may own.
async fn drop_login(link: &mut PgConnection, login: &str) -> RunDataResult<()> {
    let login = quoted(login);
    let mut tx = link.begin().await.map_err(|e| failed(&e))?;
    run_sql(&mut tx, format!("DROP OWNED BY {login}; DROP ROLE {login}")).await?;
    tx.commit().await.map_err(|e| failed(&e))
}

//! Data of runs on a real server: what a run can reach, what is left of an epoch that has ended, and what is removed.

use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, query, query_scalar, raw_sql};

use autopack_shared::domain::ids::{FencingToken, RunId};
use autopack_shared::domain::run_data::{RunDataModel, SqlNames};
use autopack_supervisor::run_data::postgres::{ControlPlace, PostgresRunDatabases, RunDatabaseConfig};
use autopack_supervisor::run_data::{RunDataError, RunDataResult, RunDatabases as _, Stint};

use crate::postgres::{at, open};
use crate::server::Server;

#[path = "run_data/apart.rs"]
mod apart;
#[path = "run_data/collected.rs"]
mod collected;
#[path = "run_data/refused.rs"]
mod refused;
#[path = "run_data/takeover.rs"]
mod takeover;

/// A server with a control store and a database for runs.
struct Rig {
    server: Server,
    databases: PostgresRunDatabases,
    control: ControlPlace,
}

impl Rig {
    async fn start(settings: &[&str]) -> Self {
        Self::start_with(Server::start_guarded(settings), |config| config).await
    }

    async fn start_with(server: Server, change: impl Fn(RunDatabaseConfig) -> RunDatabaseConfig) -> Self {
        let control = control(&server).await;
        at(&server.url("postgres"), "CREATE DATABASE autopack_runs").await;
        let config = change(config(&server, "postgres", "autopack_runs"));
        let databases = PostgresRunDatabases::open(config, control.clone()).await.unwrap();
        Self { server, databases, control }
    }

    /// A session of a stint's login.
    async fn session(&self, stint: &Stint) -> PgConnection {
        self.options(stint).await.connect().await.unwrap()
    }

    async fn options(&self, stint: &Stint) -> PgConnectOptions {
        self.databases.url(stint).await.unwrap().0.parse().unwrap()
    }

    /// A session that may do everything.
    async fn root(&self, database: &str) -> PgConnection {
        self.server.url(database).parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
    }

    async fn count(&self, database: &str, sql: &str) -> i64 {
        let mut link = self.root(database).await;
        query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut link).await.unwrap()
    }
}

/// The control store of a server, closed to others.
async fn control(server: &Server) -> ControlPlace {
    at(&server.url("postgres"), "CREATE DATABASE control").await;
    let store = open(&server.url("control")).await.unwrap();
    let place = store.close_to_others().await.unwrap();
    ControlPlace { system: place.system, database: place.database, cluster: "c1".to_owned(), open: place.open }
}

/// A way for `user` in, and where workers find the server.
fn config(server: &Server, user: &str, database: &str) -> RunDatabaseConfig {
    let url = server.url(database).replacen("postgres@", &format!("{user}@"), 1);
    RunDatabaseConfig { host: Some(format!("127.0.0.1:{}", server.port())), ..RunDatabaseConfig::new(url) }
}

fn stint(run: &str, epoch: u64) -> Stint {
    let token = FencingToken { incarnation: 1, epoch };
    Stint { run: RunId::new(run).unwrap(), model: RunDataModel::Schema, token }
}

fn whole(run: &str, epoch: u64) -> Stint {
    Stint { model: RunDataModel::Database, ..stint(run, epoch) }
}

/// The name of what a run owns.
fn place(run: &str) -> String {
    SqlNames::of(&RunId::new(run).unwrap()).owner()
}

async fn run(link: &mut PgConnection, sql: &str) -> Result<(), String> {
    let done = raw_sql(AssertSqlSafe(sql.to_owned())).execute(link).await;
    done.map(|_| ()).map_err(|e| code(&e))
}

/// The code of a refusal; else the driver's own words.
fn code(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(refused) => refused.code().unwrap_or_default().into_owned(),
        None => format!("{error}"),
    }
}

async fn number(link: &mut PgConnection, sql: &str) -> Result<i64, String> {
    query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(link).await.map_err(|e| code(&e))
}

fn is_fenced<T>(answer: RunDataResult<T>) -> bool {
    matches!(answer, Err(RunDataError::Fenced { .. }))
}

//! Data of runs in PostgreSQL: a registry in a schema of our own, and beside it the schemas and databases of runs. What
//! is recorded there and the roles that it is about change in one transaction, so that a crash leaves no half of it.
//!
//! A stint begins in three steps: *claim* records its epoch and switches the logins of earlier epochs off; then their
//! sessions are ended until none is left; then *open* makes the login of this epoch. An older epoch fails in both
//! transactions, whenever it wakes up.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgConnection, PgPool, query_scalar};
use tokio::sync::OnceCell;

use autopack_shared::domain::ids::{FencingToken, RunId};
use autopack_shared::domain::run_data::SqlNames;

use self::error::failed;
use self::login::Key;
use super::{DataUrl, RunDataError, RunDataResult, RunDatabases, Stint};

mod collect;
mod error;
mod login;
mod prepare;
mod provision;
mod registry;
mod sessions;

/// How long a caller waits for a connection.
const TURN: Duration = Duration::from_secs(2);
/// What every connection of ours sets.
const SETTINGS: &[(&str, &str)] = &[
    ("search_path", "pg_catalog,pg_temp"),
    ("lock_timeout", "2s"),
    ("statement_timeout", "10s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("tcp_user_timeout", "9000"),
    ("client_connection_check_interval", "2s"),
];

/// The control store, as the server for runs has to know it.
#[derive(Debug, Clone)]
pub struct ControlPlace {
    /// The identifier of its database system.
    pub system: String,
    /// The number of its database.
    pub database: i64,
    /// Whose data it is about.
    pub cluster: String,
    /// Why any role of its server can connect to it; none where only its own can.
    pub open: Option<String>,
}

/// Where the server for runs is and how it is used. Shown without the URL, which may hold a password.
#[derive(Clone)]
pub struct RunDatabaseConfig {
    /// The database kept for runs, with a login that may make roles, as `postgres://user:password@host:port/database`.
    pub url: String,
    /// Where workers reach the server, as `host` or `host:port`; by default as in the URL.
    pub host: Option<String>,
    /// How many runs may have data there at once.
    pub limit: u32,
    /// Connections that one login may have at once.
    pub sessions: u32,
}

impl RunDatabaseConfig {
    /// The usual settings for this URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), host: None, limit: 1000, sessions: 8 }
    }
}

impl fmt::Debug for RunDatabaseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunDatabaseConfig")
            .field("host", &self.host)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// The server, and what is known of it once it was looked at.
pub struct PostgresRunDatabases {
    config: RunDatabaseConfig,
    control: ControlPlace,
    /// Where workers reach it.
    place: (String, u16),
    pool: PgPool,
    ready: OnceCell<Ready>,
}

/// What a look at the server found.
struct Ready {
    /// What passwords are made of.
    key: Key,
    /// The database kept for runs.
    database: String,
    /// `server_version_num`.
    version: i64,
    /// Whether our login may do everything.
    superuser: bool,
}

impl PostgresRunDatabases {
    /// Looks at the server. One that is away now is looked at when it is first needed.
    ///
    /// # Errors
    /// [`RunDataError::Unsafe`] for a server, or a way to it, that does not keep runs apart.
    pub async fn open(config: RunDatabaseConfig, control: ControlPlace) -> RunDataResult<Self> {
        // The parser's own words could repeat parts of the URL.
        let wrong = |_| RunDataError::Unsafe("its URL cannot be read".to_owned());
        let options = PgConnectOptions::from_str(&config.url).map_err(wrong)?;
        let options = options.application_name("autopack run data").options(SETTINGS.iter().copied());
        let options = options.disable_statement_logging();
        let place = place(&config, &options)?;
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(TURN).connect_lazy_with(options);
        let databases = Self { config, control, place, pool, ready: OnceCell::new() };
        match databases.ready().await {
            Ok(_) => {}
            Err(error @ RunDataError::Unavailable { .. }) => {
                tracing::warn!(%error, "runs that need it wait until it is back");
            }
            Err(error) => return Err(error),
        }
        Ok(databases)
    }

    async fn ready(&self) -> RunDataResult<&Ready> {
        self.ready.get_or_try_init(|| self.prepare()).await
    }

    fn login(&self, stint: &Stint) -> String {
        SqlNames::of(&stint.run).login(stint.token)
    }
}

/// Where workers reach the server.
fn place(config: &RunDatabaseConfig, options: &PgConnectOptions) -> RunDataResult<(String, u16)> {
    let Some(named) = &config.host else {
        if options.get_socket().is_some() || options.get_host().starts_with('/') {
            let why = "its URL names a socket, which workers do not have: say with --run-database-host where they \
                       reach it";
            return Err(RunDataError::Unsafe(why.to_owned()));
        }
        return Ok((options.get_host().to_owned(), options.get_port()));
    };
    let plain =
        |host: &str| !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
    let wrong = || RunDataError::Unsafe(format!("{named:?} is no host: give it as host or host:port"));
    let (host, port) = match named.rsplit_once(':') {
        // An address of IPv6 has colons of its own.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        Some(_) | None => (named.as_str(), options.get_port()),
    };
    if plain(host) { Ok((host.to_owned(), port)) } else { Err(wrong()) }
}

/// A name as SQL reads it. Ours need none of it; nothing depends on that.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Runs statements that are made here, of names and numbers of ours.
async fn run_sql(link: &mut PgConnection, sql: String) -> RunDataResult<()> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(link).await.map_err(|e| failed(&e))?;
    Ok(())
}

#[async_trait]
impl RunDatabases for PostgresRunDatabases {
    async fn has_room(&self, run: &RunId) -> RunDataResult<()> {
        self.ready().await?;
        let mut link = self.pool.acquire().await.map_err(|e| failed(&e))?;
        registry::has_room(&mut link, SqlNames::of(run).key(), self.config.limit).await
    }

    async fn provision(&self, stint: &Stint) -> RunDataResult<()> {
        self.begin(stint).await
    }

    async fn url(&self, stint: &Stint) -> RunDataResult<DataUrl> {
        let ready = self.ready().await?;
        let (login, (host, port)) = (self.login(stint), &self.place);
        let password = ready.key.password(&login);
        let database = self.database_of(ready, stint);
        Ok(DataUrl(format!("postgres://{login}:{password}@{host}:{port}/{database}")))
    }

    async fn retire(&self, run: &RunId, token: FencingToken) -> RunDataResult<()> {
        self.ready().await?;
        self.end(run, token).await
    }

    async fn open(&self) -> RunDataResult<Vec<(RunId, FencingToken)>> {
        self.ready().await?;
        let mut link = self.pool.acquire().await.map_err(|e| failed(&e))?;
        registry::open(&mut link).await
    }

    async fn sweep(&self) -> RunDataResult<u64> {
        self.ready().await?;
        let mut link = self.pool.acquire().await.map_err(|e| failed(&e))?;
        sessions::sweep(&mut link).await
    }

    async fn idle(&self, since: Duration) -> RunDataResult<Vec<RunId>> {
        self.ready().await?;
        let sql = "SELECT run FROM autopack.run_data WHERE state = 'closed' \
                   AND closed_at <= now() - make_interval(secs => $1::double precision) ORDER BY closed_at";
        let rows: Vec<String> =
            query_scalar(sql).bind(since.as_secs_f64()).fetch_all(&self.pool).await.map_err(|e| failed(&e))?;
        rows.into_iter().map(registry::run_id).collect()
    }

    async fn collect(&self, runs: &[RunId]) -> RunDataResult<usize> {
        self.ready().await?;
        self.remove(runs).await
    }

    async fn close(&self) {
        if tokio::time::timeout(TURN, self.pool.close()).await.is_err() {
            tracing::warn!("the run-database server was left with a transaction open");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str, host: Option<&str>) -> Result<(String, u16), String> {
        let config = RunDatabaseConfig { host: host.map(str::to_owned), ..RunDatabaseConfig::new(url) };
        let options = PgConnectOptions::from_str(url).unwrap();
        place(&config, &options).map_err(|e| e.to_string())
    }

    #[test]
    fn workers_are_told_where_the_server_is() {
        let at = |host: &str, port| Ok((host.to_owned(), port));
        let url = "postgres://a:s3cret@db:5433/runs";
        assert_eq!(found(url, None), at("db", 5433));
        assert_eq!(found(url, Some("10.0.0.7")), at("10.0.0.7", 5433));
        assert_eq!(found(url, Some("pg.example:6000")), at("pg.example", 6000));
        assert_eq!(found(url, Some("[fd00::7]:6000")), at("[fd00::7]", 6000));
        for wrong in ["", "a b", "db:", "db:70000", "x@y", "db/other"] {
            assert!(found(url, Some(wrong)).is_err(), "{wrong}");
        }
        assert!(
            found("postgres://a@localhost/runs?host=/run/postgresql", None)
                .unwrap_err()
                .contains("--run-database-host")
        );
        assert_eq!(found("postgres://a@localhost/runs?host=/run/postgresql", Some("db")), at("db", 5432));
    }

    #[test]
    fn a_url_is_never_shown() {
        let config = RunDatabaseConfig::new("postgres://a:s3cret@db/runs");
        assert!(!format!("{config:?} {:?}", DataUrl(config.url.clone())).contains("s3cret"));
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}

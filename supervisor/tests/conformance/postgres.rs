//! PostgreSQL as an engine of the store's suite: one server for all cases, a database for each.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool, query, raw_sql};

use autopack_shared::runtime::clock::ManualClock;
use autopack_supervisor::store::postgres::{PostgresConfig, PostgresStore};
use autopack_supervisor::store::{Store, StoreResult};

use crate::lab::Lab;
use crate::server::Server;

/// Cases at a time.
const AT_ONCE: usize = 4;
/// The database that others are copies of: the schema, with a hand-moved clock in the place of the server's.
const PATTERN: &str = "pattern";
const WALL: &str = "CREATE TABLE public.wall (at timestamptz NOT NULL); \
                    INSERT INTO public.wall VALUES (autopack.instant(1767225600000)); \
                    CREATE OR REPLACE FUNCTION autopack.wall() RETURNS timestamptz LANGUAGE sql VOLATILE \
                    AS 'SELECT at FROM public.wall'";

static SERVER: OnceLock<Server> = OnceLock::new();
static COUNT: AtomicU32 = AtomicU32::new(0);

/// One case: its name and what it does with a database of its own.
pub(crate) type Case = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

/// A database of the shared server, and a store in it.
pub(crate) struct PostgresLab {
    name: String,
    url: String,
    /// Goes past all code, with every right.
    pub(crate) raw: PgPool,
    store: Arc<PostgresStore>,
}

/// Opens a store; with counted ids, so that clusters are told apart by nothing but their database.
pub(crate) async fn open(url: &str) -> StoreResult<PostgresStore> {
    let config = PostgresConfig { connections: 20, ..PostgresConfig::new(url) };
    PostgresStore::open(&config, Arc::new(ManualClock::at(0))).await
}

/// Runs statements on a connection that is closed again.
pub(crate) async fn at(url: &str, sql: &str) {
    let link = PgPool::connect(url).await.unwrap();
    raw_sql(AssertSqlSafe(sql.to_owned())).execute(&link).await.unwrap();
    link.close().await;
}

impl PostgresLab {
    /// Another process on the same store.
    pub(crate) async fn another(&self) -> PostgresStore {
        open(&self.url).await.unwrap()
    }

    /// Where its database is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A statement past all code; what it touched, or why it was refused.
    pub(crate) async fn raw(&self, sql: &str) -> Result<u64, String> {
        let done = query(AssertSqlSafe(sql.to_owned())).execute(&self.raw).await;
        done.map(|d| d.rows_affected()).map_err(|e| match e.as_database_error() {
            Some(error) => format!("{} {}", error.code().unwrap_or_default(), error.message()),
            None => e.to_string(),
        })
    }

    /// Drops the database; a case that fails leaves it.
    pub(crate) async fn finish(self) {
        self.raw.close().await;
        let name = &self.name;
        at(&SERVER.get().unwrap().url("postgres"), &format!("DROP DATABASE {name} WITH (FORCE)")).await;
    }

    async fn set_wall(&self, sql: &str) {
        assert_eq!(self.raw(&format!("UPDATE public.wall SET at = {sql}")).await, Ok(1));
    }
}

impl Lab for PostgresLab {
    async fn start() -> Self {
        let server = SERVER.get().expect("the suite has started a server");
        let name = format!("case{}", COUNT.fetch_add(1, Ordering::SeqCst));
        at(&server.url("postgres"), &format!("CREATE DATABASE {name} TEMPLATE {PATTERN}")).await;
        let url = server.url(&name);
        let options = url.parse::<PgConnectOptions>().unwrap().options([("search_path", "autopack")]);
        let raw = PgPoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
        Self { store: Arc::new(open(&url).await.unwrap()), name, url, raw }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.set_wall(&format!("at + {} * interval '1 millisecond'", by.as_millis())).await;
    }

    async fn reopen(&mut self, clean: bool, millis: u64) {
        if clean {
            self.store.close().await;
        }
        self.set_wall(&format!("autopack.instant({millis})")).await;
        self.store = Arc::new(open(&self.url).await.unwrap());
    }
}

fn told(name: &str, panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("{name}: {}", text.unwrap_or("failed without a word"))
}

/// Runs every case, a few at a time, and names those that failed.
pub(crate) async fn run(cases: Vec<Case>) {
    assert!(SERVER.set(Server::start(&["max_connections=200"])).is_ok(), "one suite a process");
    let server = SERVER.get().unwrap();
    at(&server.url("postgres"), &format!("CREATE DATABASE {PATTERN}")).await;
    open(&server.url(PATTERN)).await.unwrap().close().await;
    at(&server.url(PATTERN), WALL).await;
    let only = std::env::var_os("AUTOPACK_TEST_CASE").map(|only| only.to_string_lossy().into_owned());
    let wanted = cases.into_iter().filter(|(name, _)| only.as_ref().is_none_or(|only| name.contains(only.as_str())));
    let run = |(name, case): Case| async move { (name, AssertUnwindSafe(case).catch_unwind().await) };
    let ended: Vec<_> = futures::stream::iter(wanted.map(run)).buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<String> = ended.iter().filter_map(|(name, end)| Some(told(name, end.as_ref().err()?))).collect();
    let count = ended.len();
    // A static is not dropped, and the server ends with this process in any case.
    assert!(failed.is_empty(), "{} of {count} cases failed:\n  {}", failed.len(), failed.join("\n  "));
}

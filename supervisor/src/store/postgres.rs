//! The store of a cluster: PostgreSQL, shared by several processes. The schema's triggers refuse what the code must
//! never do, and every write holds the fences it rests on until it commits.
//!
//! Transactions lock in one order, so that they do not wait for each other in a circle: fences as given, in the order
//! of scopes; a project's gate; fences that are raised; then, for every run that is written to, the row of the run
//! before any row that hangs on it; and when all verbs are done, at commit: the heads of audit chains by name, the
//! ledger that numbers the whole store, a row of the clock. A transaction that writes to several runs may still meet
//! another that does so the other way round: then PostgreSQL ends one of them, which is told to try again.
//!
//! A transaction about one run is mostly a turn ([`Store::turn`]): it is shown its run, locks nothing, and what it
//! writes is committed together with what others write at the same time, in the same order of locks (`turns.rs`).

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, query};
use tokio::sync::{Notify, watch};

use autopack_shared::domain::ids::{Fence, PhaseId, RunId, Timestamp};
use autopack_shared::runtime::clock::IdSource;
use autopack_shared::runtime::process::{OnError, Tasks};

use self::base::{Commits, Core};
use self::error::{away, failed, within};
use self::turns::{LANES, Turns};
use self::tx::PostgresTx;
use super::{Store, StoreResult, Tx};

pub use self::closed::Place;

mod applies;
mod audit;
mod base;
mod batches;
mod budgets;
mod closed;
mod error;
mod facts;
mod fences;
pub mod floor;
mod gates;
mod journal;
mod phases;
mod puts;
mod requests;
mod runs;
mod schema;
mod server;
mod sheet;
mod skew;
mod surveys;
mod transcripts;
mod turns;
mod tx;
mod watcher;

/// How long a caller waits for a connection, and a closing store for the last transaction.
const TURN: Duration = Duration::from_secs(10);
/// A server that says nothing for so long will say nothing more: it ends every statement earlier.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a connection that nobody uses is taken to live.
const FRESH: Duration = Duration::from_millis(500);
/// What every connection sets: waits and idle transactions end, and a server whose client is gone notices.
const SETTINGS: &[(&str, &str)] = &[
    ("search_path", "autopack,pg_temp"),
    // Nothing here is worth compiling: what takes long reads many rows, not hard sums.
    ("jit", "off"),
    ("lock_timeout", "3s"),
    ("statement_timeout", "15s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "9000"),
    ("client_connection_check_interval", "2s"),
    ("timezone", "UTC"),
];

/// Where a store is and how it is used. Shown without the URL, which may hold a password.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`; `?host=/folder` for a socket.
    pub url: String,
    /// Connections at most.
    pub connections: u32,
    /// What the server lists the connections as.
    pub application: String,
}

impl PostgresConfig {
    /// The usual settings for this URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), connections: 16, application: "autopack".to_owned() }
    }

    fn options(&self) -> StoreResult<PgConnectOptions> {
        // The parser's own words could repeat parts of the URL.
        let wrong = |_| away("its URL cannot be read".to_owned(), "give it as postgres://user@host:port/database");
        let options = PgConnectOptions::from_str(&self.url).map_err(wrong)?;
        Ok(options.application_name(&self.application).options(SETTINGS.iter().copied()).disable_statement_logging())
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = f.debug_struct("PostgresConfig");
        told.field("connections", &self.connections).field("application", &self.application).finish_non_exhaustive()
    }
}

/// A control store in a PostgreSQL database.
pub struct PostgresStore {
    core: Core,
    turns: Turns,
    tasks: Tasks,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("connections", &self.core.pool.size()).finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Opens a store, and makes its schema if there is none.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] for a server that may lose commits, [`StoreError::Moved`] for a store that was restored
    /// or moved, [`StoreError::Schema`] for one of a newer program, [`StoreError::Corrupt`] for a schema that is not
    /// ours, [`StoreError::Unavailable`] when the server cannot be reached.
    ///
    /// [`StoreError::Unsafe`]: super::StoreError::Unsafe
    /// [`StoreError::Moved`]: super::StoreError::Moved
    /// [`StoreError::Schema`]: super::StoreError::Schema
    /// [`StoreError::Corrupt`]: super::StoreError::Corrupt
    /// [`StoreError::Unavailable`]: super::StoreError::Unavailable
    pub async fn open(config: &PostgresConfig, ids: Arc<dyn IdSource>) -> StoreResult<Self> {
        let options = config.options()?;
        let system = checked(&options).await?;
        let pool = PgPoolOptions::new().max_connections(config.connections).acquire_timeout(TURN);
        // A connection that was just used is not asked whether it lives: who begins finds out, and takes another.
        let pool = pool.test_before_acquire(false).before_acquire(|link, meta| {
            Box::pin(async move { Ok(meta.idle_for < FRESH || within(TURN, link.ping()).await.is_ok()) })
        });
        let lanes = PgPoolOptions::new().max_connections(LANES).acquire_timeout(TURN).test_before_acquire(false);
        let lanes = lanes.before_acquire(|link, meta| {
            Box::pin(async move { Ok(meta.idle_for < FRESH || within(TURN, link.ping()).await.is_ok()) })
        });
        let lanes = lanes.connect_lazy_with(options.clone());
        let pool = pool.connect_lazy_with(options.clone());
        schema::prepare(&pool).await?;
        schema::settle(&pool, &ids.fresh("cluster"), &system).await?;
        let commits = watch::Sender::new(0);
        let tasks = Tasks::new();
        let (name, own, stop) = (ids.fresh("process"), Arc::new(Notify::new()), tasks.stop().clone());
        let outgrown = Arc::new(AtomicI64::new(0));
        let (at, until) = ((pool.clone(), options), (stop.clone(), outgrown.clone()));
        let watcher = watcher::Watcher::new(at, name.clone(), commits.clone(), until).await?;
        tasks.spawn("changes of the control store", OnError::Log, watcher.watch());
        tasks.spawn("hints of commits", OnError::Log, watcher::tell(pool.clone(), name, own.clone(), stop));
        let core = Core::new(pool, Commits { all: commits, own }, outgrown);
        let turns = Turns::start(&core, lanes, &tasks);
        Ok(Self { core, turns, tasks })
    }

    /// Opens a store for reading alone: nothing is made, tidied up or numbered, and the server refuses to write for it.
    /// It hears of no commits.
    ///
    /// # Errors
    /// As [`PostgresStore::open`], and [`StoreError::Unavailable`](super::StoreError::Unavailable) for a schema that is
    /// not this program's.
    pub async fn look(config: &PostgresConfig) -> StoreResult<Self> {
        let options = config.options()?;
        checked(&options).await?;
        let options = options.options([("default_transaction_read_only", "on")]);
        let pool = PgPoolOptions::new().max_connections(config.connections).acquire_timeout(TURN);
        let lanes = PgPoolOptions::new().max_connections(1).acquire_timeout(TURN).connect_lazy_with(options.clone());
        let pool = pool.connect_lazy_with(options);
        schema::is_current(&pool).await?;
        let commits = Commits { all: watch::Sender::new(0), own: Arc::new(Notify::new()) };
        let (core, tasks) = (Core::new(pool, commits, Arc::default()), Tasks::new());
        let turns = Turns::start(&core, lanes, &tasks);
        Ok(Self { core, turns, tasks })
    }

    /// Sees to it that no role of the server connects to this store that was not named for it; what was found.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`](super::StoreError::Unavailable) when the server cannot be reached.
    pub async fn close_to_others(&self) -> StoreResult<Place> {
        closed::close(&self.core.pool).await
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        // Without a close, the watcher ends with the store all the same.
        self.tasks.stop().cancel();
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn read(&self) -> StoreResult<Box<dyn Tx>> {
        let link = self.core.begin("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        let mut view = PostgresTx::new(Some(link), None);
        // Takes the snapshot too.
        let now = view.number(query("SELECT autopack.now_millis($1)").bind(self.core.seen())).await?;
        Ok(Box::new(view.at(self.core.saw(now))))
    }

    async fn tx(&self, fences: &[Fence]) -> StoreResult<Box<dyn Tx>> {
        Ok(Box::new(self.core.write(&fences.iter().collect()).await?))
    }

    async fn turn(&self, fences: &[Fence], run: &RunId, phase: Option<&PhaseId>) -> StoreResult<Box<dyn Tx>> {
        Ok(Box::new(self.turns.take(fences, run, phase).await?))
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        self.core.may_go_on()?;
        let sql = sqlx::query_scalar("SELECT autopack.now_millis($1)").bind(self.core.seen());
        let now: i64 = within(SILENCE, sql.fetch_one(&self.core.pool)).await.map_err(|e| failed(&e, None))?;
        Ok(self.core.saw(now))
    }

    async fn fits(&self) -> StoreResult<()> {
        let found = watcher::outgrown(&self.core.pool).await?;
        self.core.outgrown.fetch_max(found, Ordering::SeqCst);
        self.core.may_go_on()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.core.commits.all.subscribe()
    }

    async fn close(&self) {
        // Pools wait for whoever is still in a transaction; a stuck one must not hold up the end of the process.
        let closing = async {
            self.tasks.shutdown(TURN).await;
            self.turns.close().await;
            self.core.pool.close().await;
        };
        if tokio::time::timeout(TURN, closing).await.is_err() {
            tracing::warn!("the store was left open: a transaction did not end");
        }
    }
}

/// Asks a server by itself first: a pool tries again until its time is up, and then does not say why.
async fn checked(options: &PgConnectOptions) -> StoreResult<String> {
    tokio::time::timeout(TURN, server::check(options))
        .await
        .unwrap_or_else(|_| Err(away("the server does not answer".to_owned(), "check that it runs and can be reached")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_ends_its_waits() {
        let config = PostgresConfig::new("postgres://autopack:s3cret@db.example:5433/control");
        let options = config.options().unwrap();
        let told = options.get_options().unwrap();
        for setting in [
            "lock_timeout=3s",
            "statement_timeout=15s",
            "idle_in_transaction_session_timeout=10s",
            "tcp_user_timeout=9000",
            "search_path=autopack,pg_temp",
        ] {
            assert!(told.contains(setting), "{told}");
        }
        assert_eq!(options.get_application_name(), Some("autopack"));
        assert_eq!((options.get_host(), options.get_port()), ("db.example", 5433));
    }

    #[test]
    fn a_url_is_never_shown() {
        let garbled = PostgresConfig::new("postgres://autopack:s3cret@[::1/x");
        let error = garbled.options().unwrap_err();
        assert!(!format!("{garbled:?} {error} {error:?}").contains("s3cret"), "{error}");
    }
}

//! The store of one machine: one SQLite file, one writing connection, a few that read. A commit is on disk before it is
//! acknowledged (WAL, `synchronous=FULL`), and the schema's triggers refuse what the code must never do.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlitePool, query};
use tokio::sync::watch;

use autopack_shared::domain::ids::{Fence, PhaseId, RunId, Timestamp};
use autopack_shared::runtime::clock::{Clock, IdSource};

use self::clock::StoreClock;
use self::error::failed;
use self::tx::SqliteTx;
use super::{Store, StoreResult, Tx};

mod applies;
mod batches;
mod budgets;
mod clock;
mod error;
mod facts;
mod fences;
mod gates;
mod journal;
mod phases;
mod requests;
mod runs;
mod schema;
mod surveys;
#[cfg(test)]
mod tests;
mod transcripts;
mod tx;

/// How long a writer waits for its turn before the store counts as unavailable.
const TURN: Duration = Duration::from_secs(10);
/// How many may read at once.
const READERS: u32 = 4;

/// A control store in one SQLite file.
pub struct SqliteStore {
    // The pool's only connection is the lock of all writers: whoever has it out is the one in a transaction.
    writer: SqlitePool,
    readers: SqlitePool,
    clock: StoreClock,
    commits: watch::Sender<u64>,
    owner: String,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens a store, and makes it if there is none. The caller holds the data directory's lock.
    ///
    /// # Errors
    /// [`StoreError::Schema`](super::StoreError::Schema) for a store of a newer program,
    /// [`StoreError::Corrupt`](super::StoreError::Corrupt) for a file that is none or is not whole,
    /// [`StoreError::Unavailable`](super::StoreError::Unavailable) when it cannot be read or written.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> StoreResult<Self> {
        schema::private_file(path)?;
        let writer = pool(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options(path).journal_mode(SqliteJournalMode::Wal))
            .await
            .map_err(|e| failed(&e, None))?;
        schema::prepare(&writer).await?;
        let owner = ids.fresh("process");
        let persisted = schema::settle(&writer, &ids.fresh("cluster"), &owner).await?;
        let readers = pool(READERS).connect_lazy_with(options(path).read_only(true));
        let commits = watch::Sender::new(0);
        Ok(Self { writer, readers, clock: StoreClock::new(clock, persisted), commits, owner })
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(TURN)
        .test_before_acquire(false)
        .after_release(|link, _| {
            Box::pin(async {
                // After a full disk SQLite has rolled back on its own, which the driver does not notice: its count of
                // open transactions stays up for good. Such a connection is closed, and the pool makes another.
                link.ping().await?;
                Ok(!link.is_in_transaction())
            })
        })
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .disable_statement_logging()
}

#[async_trait]
impl Store for SqliteStore {
    async fn read(&self) -> StoreResult<Box<dyn Tx>> {
        let link = self.readers.begin().await.map_err(|e| failed(&e, None))?;
        let mut view = SqliteTx::reading(link, self.clock.now());
        // SQLite takes its snapshot at the first read, not at BEGIN.
        view.one(query("SELECT 1 FROM cluster")).await?;
        Ok(Box::new(view))
    }

    async fn tx(&self, fences: &[Fence]) -> StoreResult<Box<dyn Tx>> {
        let link = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|e| failed(&e, None))?;
        let mut tx = SqliteTx::writing(link, self.clock.now(), self.commits.clone());
        for fence in fences.iter().collect::<BTreeSet<_>>() {
            tx.hold(fence).await?;
        }
        Ok(Box::new(tx))
    }

    async fn turn(&self, fences: &[Fence], _: &RunId, _: Option<&PhaseId>) -> StoreResult<Box<dyn Tx>> {
        // Writers take turns here in any case, and nothing goes over a network.
        let mut tx = self.tx(fences).await?;
        tx.defer();
        Ok(tx)
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        Ok(self.clock.now())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    async fn close(&self) {
        // Pools wait for whoever is still in a transaction; a stuck one must not hold up the end of the process.
        let closing = async {
            self.readers.close().await;
            if let Err(error) = schema::leave(&self.writer, &self.owner).await {
                tracing::warn!(%error, "the store could not be marked as closed");
            }
            self.writer.close().await;
        };
        if tokio::time::timeout(TURN, closing).await.is_err() {
            tracing::warn!("the store was left open: a transaction did not end");
        }
    }
}

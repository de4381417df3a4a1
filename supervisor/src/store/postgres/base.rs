//! What everything in the store of a cluster works with: connections, the latest instant, and who hears of commits.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::{PgPool, Postgres, Transaction};
use tokio::sync::{Notify, watch};

use autopack_shared::domain::ids::{Fence, Timestamp};

use super::error::{failed, within};
use super::tx::PostgresTx;
use super::{SILENCE, schema};
use crate::store::{StoreError, StoreResult};

/// Who is told of a commit of this process.
#[derive(Clone)]
pub(super) struct Commits {
    /// Those in it.
    pub(super) all: watch::Sender<u64>,
    /// Whoever tells other processes.
    pub(super) own: Arc<Notify>,
}

impl Commits {
    pub(super) fn announce(&self) {
        self.all.send_modify(|n| *n = n.wrapping_add(1));
        self.own.notify_one();
    }
}

/// The middle of a store.
#[derive(Clone)]
pub(super) struct Core {
    pub(super) pool: PgPool,
    /// The latest instant this process was told, which it is never taken back behind.
    seen: Arc<AtomicI64>,
    pub(super) commits: Commits,
    /// The schema under which this program may not go on, once there is one.
    pub(super) outgrown: Arc<AtomicI64>,
}

impl Core {
    pub(super) fn new(pool: PgPool, commits: Commits, outgrown: Arc<AtomicI64>) -> Self {
        Self { pool, seen: Arc::new(AtomicI64::new(0)), commits, outgrown }
    }

    /// Whether the store's schema is still one that this program knows.
    pub(super) fn may_go_on(&self) -> StoreResult<()> {
        match self.outgrown.load(Ordering::SeqCst) {
            0 => Ok(()),
            found => Err(StoreError::Schema { found, known: schema::known() }),
        }
    }

    /// Begins a transaction; on another connection where one turns out to be gone, as after a restart of the server.
    pub(super) async fn begin(&self, how: &'static str) -> StoreResult<Transaction<'static, Postgres>> {
        self.may_go_on()?;
        let mut tries = 0..self.pool.options().get_max_connections();
        loop {
            match within(SILENCE, self.pool.begin_with(how)).await {
                Err(error) if is_gone(&error) && tries.next().is_some() => {}
                done => return done.map_err(|e| failed(&e, None)),
            }
        }
    }

    /// Begins a write transaction that holds its fences.
    pub(super) async fn write(&self, fences: &BTreeSet<&Fence>) -> StoreResult<PostgresTx> {
        // Whoever makes the server read-only means it: nothing here says otherwise.
        let link = self.begin("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let mut tx = PostgresTx::new(Some(link), Some(self.commits.clone()));
        let now = tx.hold(fences, self.seen()).await?;
        Ok(tx.at(self.saw(now)))
    }

    pub(super) fn saw(&self, millis: i64) -> Timestamp {
        let before = self.seen.fetch_max(millis, Ordering::SeqCst);
        Timestamp::from_millis(before.max(millis))
    }

    pub(super) fn seen(&self) -> i64 {
        self.seen.load(Ordering::SeqCst)
    }
}

/// Whether a connection was closed by the other side before anything was asked on it.
pub(super) fn is_gone(error: &sqlx::Error) -> bool {
    let closed = |kind| {
        matches!(
            kind,
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
        )
    };
    if let sqlx::Error::Io(error) = error {
        return closed(error.kind());
    }
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57P01")
}

//! Where a suite gets its store from: one lab an engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use autopack_shared::runtime::clock::ManualClock;
use autopack_supervisor::store::Store;
use autopack_supervisor::store::sqlite::SqliteStore;

/// One engine with a fresh store and a hand-moved clock.
pub(crate) trait Lab: Send + Sync {
    /// Starts with an empty store.
    async fn start() -> Self;
    /// The store.
    fn store(&self) -> Arc<dyn Store>;
    /// Moves its wall clock on.
    async fn advance(&self, by: Duration);
    /// Opens the same store again, after a clean end of the process or as after a crash; the wall then shows `millis`.
    async fn reopen(&mut self, clean: bool, millis: u64);
}

/// SQLite in a temporary folder.
pub(crate) struct SqliteLab {
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Arc<SqliteStore>,
}

impl SqliteLab {
    async fn open(path: PathBuf, millis: u64) -> (Arc<ManualClock>, Arc<SqliteStore>) {
        let clock = Arc::new(ManualClock::at(millis));
        let store = SqliteStore::open(&path, clock.clone(), clock.clone()).await.unwrap();
        (clock, Arc::new(store))
    }
}

impl Lab for SqliteLab {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, store) = Self::open(folder.path().join("autopack.db"), 1_767_225_600_000).await;
        Self { folder, clock, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn reopen(&mut self, clean: bool, millis: u64) {
        if clean {
            self.store.close().await;
        }
        (self.clock, self.store) = Self::open(self.folder.path().join("autopack.db"), millis).await;
    }
}

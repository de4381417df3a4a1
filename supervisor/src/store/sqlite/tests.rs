//! What the port cannot reach: statements that go past the code, damaged and foreign files, a full disk, forged rows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use sqlx::query_scalar;

use autopack_shared::domain::ids::Scope;
use autopack_shared::runtime::clock::ManualClock;

use super::*;
use crate::store::StoreError;
use crate::store::facts::FenceRow;

#[path = "../../../tests/conformance/fixtures.rs"]
mod fixtures;

mod forgery;

use fixtures::{add_run, draft, event, name, pinned, project, request, run};

struct Bench {
    folder: tempfile::TempDir,
    store: SqliteStore,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("autopack.db")).await.unwrap();
        Self { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("autopack.db")
    }

    /// A statement past all code, on the store's own writing connection.
    async fn raw(&self, sql: &'static str) -> Result<u64, String> {
        let done = query(sql).execute(&self.store.writer).await;
        done.map(|d| d.rows_affected()).map_err(|e| e.to_string())
    }

    /// One row of every table, each with its record in the log.
    async fn filled() -> Self {
        let bench = Self::new().await;
        fixtures::fill(&bench.store).await;
        bench
    }
}

async fn open(path: &Path) -> StoreResult<SqliteStore> {
    let clock = Arc::new(ManualClock::at(1_767_225_600_000));
    SqliteStore::open(path, clock.clone(), clock).await
}

#[tokio::test]
async fn an_unfenced_statement_is_refused_on_the_stores_own_connection() {
    let bench = Bench::filled().await;
    for sql in [
        "UPDATE run SET doc = doc",
        "UPDATE phase SET doc = doc",
        "UPDATE attempt SET doc = doc",
        "UPDATE lease SET doc = doc",
        "UPDATE apply SET doc = doc",
        "INSERT INTO run SELECT 9, 'b', project, state, version, doc FROM run",
        "INSERT INTO phase SELECT run_id, 'q', 1, state, version, doc FROM phase",
        "INSERT INTO attempt SELECT run_id, phase_id, 2, state, version, doc FROM attempt",
        "INSERT INTO lease SELECT 9, 'l-2', run_id, project, 'released', version, doc FROM lease",
        "INSERT INTO apply SELECT 9, 'a-2', run_id, 'x', NULL, state, version, doc FROM apply",
        "INSERT INTO size_window SELECT apply_id, 'docs', run_id, project, 1, at FROM size_window",
    ] {
        let refusal = bench.raw(sql).await.unwrap_err();
        assert!(refusal.contains("AP002 run"), "{sql}: {refusal}");
    }
    let held: i64 = query_scalar("SELECT count(*) FROM fence_held").fetch_one(&bench.store.writer).await.unwrap();
    assert_eq!(held, 0, "fences of a committed transaction are forgotten");
}

#[tokio::test]
async fn history_is_only_ever_added_to() {
    let bench = Bench::filled().await;
    for sql in [
        "UPDATE audit SET body = '{}'",
        "DELETE FROM audit",
        "DELETE FROM audit_head",
        "UPDATE audit_head SET seq = 1",
        "INSERT INTO audit SELECT 'run/b', seq, 99, body, prev_hash, hash, at FROM audit WHERE seq = 1",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 1",
        "UPDATE fence SET epoch = epoch - 1",
        "DELETE FROM fence",
        "UPDATE cluster SET incarnation = 0",
        "UPDATE cluster SET clock_ms = 0",
        "DELETE FROM cluster",
        "UPDATE decision SET doc = '{}'",
        "UPDATE vote SET doc = '{}'",
        "UPDATE event SET doc = '{}'",
        "UPDATE lease_history SET change = -1",
        "UPDATE size_window SET lines = 0",
        "DELETE FROM run",
        "DELETE FROM phase",
        "DELETE FROM attempt",
        "DELETE FROM lease",
        "DELETE FROM lease_history",
        "DELETE FROM decision",
        "DELETE FROM request",
        "DELETE FROM vote",
        "DELETE FROM command",
        "DELETE FROM apply",
        "DELETE FROM size_window",
        "DELETE FROM event",
    ] {
        let refusal = bench.raw(sql).await.unwrap_err();
        assert!(refusal.contains("AP004 "), "{sql}: {refusal}");
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_nothing_of_the_transaction_stays() {
    let bench = Bench::new().await;
    add_run(&bench.store, "a").await;
    bench.raw("PRAGMA max_page_count = 1").await.unwrap();
    let mut tx = bench.store.tx(&[]).await.unwrap();
    tx.put_project(&project("first")).await.unwrap();
    let failure = loop {
        match tx.append_event(&mut event("a", &"x".repeat(100_000))).await {
            Ok(_) => {}
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, StoreError::Full(_)), "{failure}");
    // SQLite has rolled back by itself; what follows must not commit on its own.
    assert!(matches!(tx.put_project(&project("second")).await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(tx.projects().await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(tx.commit().await, Err(StoreError::Unavailable { .. })));
    assert!(bench.store.read().await.unwrap().projects().await.unwrap().is_empty());
    bench.raw("PRAGMA max_page_count = 100000").await.unwrap();
    let mut tx = bench.store.tx(&[]).await.unwrap();
    tx.put_project(&project("third")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bench.store.read().await.unwrap().projects().await.unwrap(), [project("third")]);
}

#[tokio::test]
async fn a_writer_that_keeps_its_turn_makes_others_give_up() {
    let bench = Bench::new().await;
    let impatient = SqlitePoolOptions::new().max_connections(1).acquire_timeout(Duration::from_millis(300));
    let writer = impatient.connect_with(options(&bench.path())).await.unwrap();
    let store = SqliteStore { writer, ..open(&bench.path()).await.unwrap() };
    let held = store.tx(&[]).await.unwrap();
    assert!(matches!(store.tx(&[]).await, Err(StoreError::Unavailable { .. })));
    drop(held);
}

#[tokio::test]
async fn the_file_is_for_its_owner_only() {
    let bench = Bench::new().await;
    add_run(&bench.store, "a").await;
    for entry in fs::read_dir(bench.folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
    }
    bench.store.close().await;
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o644)).unwrap();
    open(&bench.path()).await.unwrap();
    assert_eq!(fs::metadata(bench.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn durability_is_switched_on() {
    let bench = Bench::new().await;
    let mut view = SqliteTx::reading(bench.store.readers.begin().await.unwrap(), bench.store.clock.now());
    for (pragma, expected) in [
        ("PRAGMA journal_mode", "wal"),
        ("PRAGMA synchronous", "2"),
        ("PRAGMA foreign_keys", "1"),
        ("PRAGMA busy_timeout", "5000"),
        ("PRAGMA trusted_schema", "0"),
        ("PRAGMA cell_size_check", "1"),
    ] {
        let mut link = bench.store.writer.acquire().await.unwrap();
        let row = query(pragma).fetch_one(&mut *link).await.unwrap();
        let value = sqlx::Row::try_get_unchecked::<String, _>(&row, 0).unwrap();
        assert_eq!(value, expected, "{pragma}");
    }
    let refused = view.write(&error::Subject::new("x", "y"), query("DELETE FROM run")).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))));
}

#[tokio::test]
async fn a_clean_stop_is_told_from_a_crash() {
    let bench = Bench::new().await;
    let opened = "SELECT opened_by IS NOT NULL FROM cluster";
    assert!(query_scalar::<_, bool>(opened).fetch_one(&bench.store.writer).await.unwrap());
    // Another process that came later is not signed off by an earlier one.
    let later = open(&bench.path()).await.unwrap();
    bench.raw("UPDATE cluster SET opened_by = 'process-later'").await.unwrap();
    bench.store.close().await;
    assert!(query_scalar::<_, bool>(opened).fetch_one(&later.writer).await.unwrap());
    later.close().await;
    let last = open(&bench.path()).await.unwrap();
    last.close().await;
    let reader = SqlitePoolOptions::new().connect_with(options(&bench.path())).await.unwrap();
    assert!(!query_scalar::<_, bool>(opened).fetch_one(&reader).await.unwrap());
}

#[tokio::test]
async fn a_damaged_file_is_found_after_a_crash() {
    let bench = Bench::new().await;
    let mut tx = bench.store.tx(&[]).await.unwrap();
    tx.insert_run(&run("a")).await.unwrap();
    for n in 0..200 {
        tx.append_event(&mut event("a", &format!("{n} {}", "x".repeat(500)))).await.unwrap();
    }
    tx.commit().await.unwrap();
    // As after a kill, but with everything in the main file.
    bench.raw("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    bench.store.readers.close().await;
    bench.store.writer.close().await;
    let mut bytes = fs::read(bench.path()).unwrap();
    let middle = bytes.len() / 4096 * 3 / 4 * 4096;
    bytes[middle..middle + 64].fill(0xff);
    fs::write(bench.path(), bytes).unwrap();
    let refusal = open(&bench.path()).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Corrupt(_)), "{refusal}");
    // It is the check after a crash that finds it: nothing else at the start looks there.
    let pool = SqlitePoolOptions::new().connect_with(options(&bench.path())).await.unwrap();
    query("UPDATE cluster SET opened_by = NULL").execute(&pool).await.unwrap();
    pool.close().await;
    open(&bench.path()).await.unwrap();
}

#[tokio::test]
async fn files_of_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.db");
    fs::write(&text, "no database at all, but long enough to have a header of some kind".repeat(100)).unwrap();
    assert!(matches!(open(&text).await, Err(StoreError::Corrupt(_))));
    let foreign = folder.path().join("foreign.db");
    let pool = SqlitePoolOptions::new().connect_with(options(&foreign).create_if_missing(true)).await.unwrap();
    query("CREATE TABLE theirs (x)").execute(&pool).await.unwrap();
    pool.close().await;
    let refusal = open(&foreign).await.unwrap_err();
    assert!(refusal.to_string().contains("no control store"), "{refusal}");
    let nowhere = open(&folder.path().join("missing/autopack.db")).await.unwrap_err();
    assert!(matches!(nowhere, StoreError::Unavailable { .. }), "{nowhere}");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let bench = Bench::new().await;
    let row = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
               VALUES (99, 'later', TRUE, x'00', 0)";
    bench.raw(row).await.unwrap();
    bench.store.close().await;
    assert!(matches!(open(&bench.path()).await, Err(StoreError::Schema { found: 99, known: 2.. })));
}

#[tokio::test]
async fn the_tables_of_moves_follow_the_program() {
    let bench = Bench::new().await;
    bench.raw("DELETE FROM legal_move WHERE from_state = 'created'").await.unwrap();
    bench.raw("INSERT INTO legal_move VALUES ('run', 'failed', 'queued')").await.unwrap();
    bench.raw("DELETE FROM final_state WHERE machine = 'lease'").await.unwrap();
    bench.raw("INSERT INTO final_state VALUES ('run', 'queued')").await.unwrap();
    bench.store.close().await;
    let store = open(&bench.path()).await.unwrap();
    let count = |sql: &'static str| query_scalar::<_, i64>(sql).fetch_one(&store.writer);
    assert_eq!(count("SELECT count(*) FROM legal_move WHERE from_state = 'failed'").await.unwrap(), 0);
    assert!(count("SELECT count(*) FROM legal_move WHERE from_state = 'created'").await.unwrap() >= 3);
    assert_eq!(count("SELECT count(*) FROM final_state WHERE machine = 'lease'").await.unwrap(), 3);
    assert_eq!(count("SELECT count(*) FROM final_state WHERE state = 'queued'").await.unwrap(), 0);
}

#[tokio::test]
async fn old_idempotent_answers_are_forgotten_at_the_next_start() {
    let bench = Bench::new().await;
    let mut tx = bench.store.tx(&[]).await.unwrap();
    tx.put_idem("k-old", "a", "m", autopack_shared::domain::ids::Digest::of(b"x"), b"").await.unwrap();
    tx.put_idem("k-new", "a", "m", autopack_shared::domain::ids::Digest::of(b"x"), b"").await.unwrap();
    tx.commit().await.unwrap();
    bench.raw("UPDATE idem SET at = at - 604800001 WHERE key = 'k-old'").await.unwrap();
    bench.store.close().await;
    let store = open(&bench.path()).await.unwrap();
    let mut view = store.read().await.unwrap();
    assert!(view.idem("k-old", "a", "m").await.unwrap().is_none());
    assert!(view.idem("k-new", "a", "m").await.unwrap().is_some());
}

#[tokio::test]
async fn a_row_with_a_broken_document_is_corrupt() {
    let bench = Bench::filled().await;
    bench.raw("UPDATE request SET doc = '{\"v\":7}'").await.unwrap();
    let mut view = bench.store.read().await.unwrap();
    assert!(matches!(view.request(&name("q-1")).await, Err(StoreError::Corrupt(_))));
    assert_eq!(view.epoch(&Scope::Run(name("a"))).await.unwrap(), Some(1), "the rest can still be read");
}

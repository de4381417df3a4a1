//! `kill -9` in the middle of writing: whatever was acknowledged is there afterwards, whole, and nothing is half there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use autopack_shared::runtime::clock::{SystemClock, SystemIds};
use autopack_supervisor::store::Store;
use autopack_supervisor::store::sqlite::SqliteStore;
use autopack_supervisor::store::verify::verify;

use crate::fixtures::*;

/// Where the child finds its store; set only for the child.
const PATH: &str = "AUTOPACK_TEST_CRASH_STORE";
const KILLS: usize = 10;

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Arc::new(SystemClock::default()), Arc::new(SystemIds)).await.unwrap()
}

/// The child: writes as fast as it can and says what it was told is safe. Does nothing in an ordinary test run.
#[tokio::test]
async fn writes_until_killed() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let store = open(Path::new(&path)).await;
    loop {
        let mut tx = store.tx(&[]).await.unwrap();
        let mut row = event("a", "written by a process that will be killed");
        let seq = tx.append_event(&mut row).await.unwrap();
        tx.append_audit(draft("run/a", "x.y", "event", &seq.to_string(), None)).await.unwrap();
        tx.commit().await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {seq}").unwrap();
        out.flush().unwrap();
    }
}

fn start(path: &Path) -> Child {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writes_until_killed", "--nocapture", "--test-threads=1"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    child.unwrap()
}

#[tokio::test]
async fn no_acknowledged_row_is_lost_to_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("autopack.db");
    let store = open(&path).await;
    add_logged_run(&store, "a").await;
    store.close().await;
    for kill in 1..=KILLS {
        let mut child = start(&path);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok());
        // A different moment each time, then everything that was said before the end.
        let mut last = acknowledged.nth(kill * 3).unwrap();
        child.kill().unwrap();
        last = acknowledged.last().unwrap_or(last);
        child.wait().unwrap();

        let store = open(&path).await;
        let mut view = store.read().await.unwrap();
        let events = view.events(&name("a"), 0, 1_000_000).await.unwrap();
        let found = events.len() as u64;
        // At most the one commit that was not yet acknowledged may be there besides.
        assert!((last..=last + 1).contains(&found), "acknowledged {last}, found {found}");
        assert!(events.iter().zip(1..).all(|(event, n)| event.seq == n));
        drop(view);
        let report = verify(&store).await.unwrap();
        assert_eq!((report.problems(), report.records), (Vec::new(), 3 + found));
        store.close().await;
    }
}

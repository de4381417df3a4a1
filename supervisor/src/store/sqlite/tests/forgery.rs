//! Edits past all guards, as somebody with the file in hand could make them, and what `audit verify` says to each.

use std::process::Command;

use autopack_shared::domain::audit::AuditDraft;
use autopack_shared::domain::state::RequestState;

use super::*;
use crate::store::verify::verify;

impl Bench {
    /// Takes every guard off: triggers, and the checks of foreign keys.
    async fn unguarded(&self) {
        let names = "SELECT name FROM sqlite_master WHERE type = 'trigger'";
        let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&self.store.writer).await.unwrap();
        assert!(names.len() > 40);
        for name in names {
            query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {name}"))).execute(&self.store.writer).await.unwrap();
        }
        self.raw("PRAGMA foreign_keys = OFF").await.unwrap();
    }
}

async fn forged(statements: &[&'static str]) -> (u32, String) {
    let bench = Bench::filled().await;
    let report = verify(&bench.store).await.unwrap();
    assert_eq!(report.problems(), [""; 0]);
    bench.unguarded().await;
    for sql in statements {
        assert!(bench.raw(sql).await.unwrap() >= 1, "{sql}");
    }
    let report = verify(&bench.store).await.unwrap();
    (report.exit_code(), report.problems().join("; "))
}

#[tokio::test]
async fn every_forgery_of_the_log_has_its_exit_code() {
    let cases: &[(u32, &str, &[&'static str])] = &[
        (2, "run/a breaks at record 2", &["UPDATE audit SET body = replace(body, 'because', 'becausE') WHERE seq = 2"]),
        (2, "run/a breaks at record 2", &["UPDATE audit SET at = at - 1 WHERE seq = 2"]),
        (2, "run/a breaks at record 2", &["DELETE FROM audit WHERE chain = 'run/a' AND seq = 2"]),
        (2, "run/a breaks at record 1", &["UPDATE audit SET seq = seq + 100 WHERE chain = 'run/a'"]),
        (
            2,
            "run/a breaks at record 1",
            &[
                "UPDATE audit SET seq = 99 WHERE chain = 'run/a' AND seq = 1",
                "UPDATE audit SET seq = 1 WHERE chain = 'run/a' AND seq = 2",
                "UPDATE audit SET seq = 2 WHERE chain = 'run/a' AND seq = 99",
            ],
        ),
        (2, "position 11 of the whole log", &["UPDATE audit SET leaf_index = 99 WHERE chain = 'cluster'"]),
        (
            2,
            "position 0 of the whole log",
            &["DELETE FROM audit WHERE chain = 'run/a'", "DELETE FROM audit_head WHERE chain = 'run/a'"],
        ),
        (3, "run/a ends at record 10", &["DELETE FROM audit WHERE chain = 'run/a' AND seq = 11"]),
        (3, "cluster ends at record 0", &["DELETE FROM audit WHERE chain = 'cluster'"]),
        (
            3,
            "(all) ends at record 11",
            &["DELETE FROM audit WHERE chain = 'cluster'", "DELETE FROM audit_head WHERE chain = 'cluster'"],
        ),
        (3, "(all) ends at record 12", &["UPDATE cluster SET leaves = leaves + 1"]),
        (2, "there are 11 records only", &["UPDATE cluster SET leaves = leaves - 1"]),
        (2, "the head has another hash", &["UPDATE audit_head SET hash = zeroblob(32) WHERE chain = 'cluster'"]),
    ];
    for (code, text, statements) in cases {
        let (found, problems) = forged(statements).await;
        assert_eq!(found, *code, "{statements:?}: {problems}");
        assert!(problems.contains(text), "{statements:?}: {problems}");
    }
}

/// The document of a row with one field set to another value.
macro_rules! edit {
    ($table:literal, $field:literal, $value:literal) => {
        concat!("UPDATE ", $table, " SET doc = json_set(doc, '$.", $field, "', ", $value, ")")
    };
}

#[tokio::test]
async fn an_edited_row_is_not_what_was_logged() {
    let cases: &[(&str, &'static str)] = &[
        ("run a: the row says failed, the log says created", "UPDATE run SET state = 'failed'"),
        ("phase a/p: the row says applied, the log says queued", "UPDATE phase SET state = 'applied'"),
        ("lease l-1: the row says held, the log says granting", "UPDATE lease SET state = 'held'"),
        ("apply a-1: the row says committed, the log says prepared", "UPDATE apply SET state = 'committed'"),
        ("request q-1: the row says approved, the log says pending", "UPDATE request SET state = 'approved'"),
        ("apply a-1: the row is not", edit!("apply", "new", "'0505050505050505050505050505050505050505'")),
        ("apply a-1: the row is not", edit!("apply", "old", "'0505050505050505050505050505050505050505'")),
        ("apply a-1: the row is not", edit!("apply", "tree", "'0505050505050505050505050505050505050505'")),
        ("run a: what it was created with", edit!("run", "author.id", "'local:eve'")),
        ("run a: what it was created with", edit!("run", "fork_commit", "'0505050505050505050505050505050505050505'")),
        ("run a: what it was created with", edit!("run", "anchor_digest", "null")),
        ("run a: its columns", "UPDATE run SET project = 'mill'"),
        ("apply a-1: the row is not", "UPDATE apply SET version = 7"),
        ("request q-1: the row is not", edit!("request", "author.id", "'local:eve'")),
        ("request q-1: the row is not", edit!("request", "decided_by.id", "'local:eve'")),
        ("request q-1: the row is not", edit!("request", "risk_level", "'LOW'")),
        ("request q-1: the row is not", edit!("request", "tier", "1")),
        ("request q-1: the row is not", edit!("request", "approvers_needed", "1")),
        ("request q-1: the row is not", edit!("request", "expires_at", "'2036-01-01T00:00:00Z'")),
        ("request q-1: its columns", "UPDATE request SET expires_at = expires_at + 1"),
        ("request q-1: its columns", "UPDATE request SET phase_id = 'q'"),
        ("vote local:ann on q-1: the row is not", edit!("vote", "approve", "json('false')")),
        ("vote local:eve on q-1: the row says", edit!("vote", "principal.id", "'local:eve'")),
        ("vote local:eve on q-1: its columns", "UPDATE vote SET principal = 'local:eve'"),
        ("decision d-1: the row is not", edit!("decision", "verdict", "'AUTO_APPROVED'")),
        ("decision d-1: the row is not", edit!("decision", "tier", "null")),
        ("decision d-1: the row is not", edit!("decision", "document.findings", "json('[]')")),
        ("history of run/a: 1 lines", edit!("event", "text", "'nothing happened'")),
        ("a row: ", "UPDATE request SET doc = json_remove(doc, '$.run')"),
    ];
    for (text, sql) in cases {
        let (found, problems) = forged(&[sql]).await;
        assert_eq!(found, 6, "{sql}: {problems}");
        assert!(problems.contains(text), "{sql}: {problems}");
    }
}

#[tokio::test]
async fn a_row_that_is_gone_or_came_from_nowhere_is_found() {
    let cases: &[(&str, &'static str)] = &[
        ("run a: the log says created, but there is no such row", "DELETE FROM run"),
        ("phase a/p: the log says queued, but", "DELETE FROM phase"),
        ("attempt a/p/1: the log says created, but", "DELETE FROM attempt"),
        ("lease l-1: the log says granting, but", "DELETE FROM lease"),
        ("decision d-1: the log says recorded, but", "DELETE FROM decision"),
        ("request q-1: the log says pending, but", "DELETE FROM request"),
        ("vote local:ann on q-1: the log says recorded, but", "DELETE FROM vote"),
        ("apply a-1: the log says prepared, but", "DELETE FROM apply"),
        ("history of run/a: 1 lines", "DELETE FROM event"),
        (
            "run b: it has a row but no chain",
            "INSERT INTO run SELECT 9, 'b', project, state, version, json_set(doc, '$.id', 'b') FROM run",
        ),
        (
            "phase a/q: the row says queued, the log says nothing",
            "INSERT INTO phase SELECT run_id, 'q', 1, state, version, json_set(doc, '$.id', 'q', '$.attempt', 0) FROM phase",
        ),
        (
            "vote local:eve on q-1: the row says recorded, the log says nothing",
            "INSERT INTO vote SELECT 9, request_id, 'local:eve', json_set(doc, '$.principal.id', 'local:eve') FROM vote",
        ),
        (
            "decision d-2: the row says recorded, the log says nothing",
            "INSERT INTO decision SELECT 9, 'd-2', run_id, json_set(doc, '$.id', 'd-2') FROM decision",
        ),
    ];
    for (text, sql) in cases {
        let (found, problems) = forged(&[sql]).await;
        assert_eq!(found, 6, "{sql}: {problems}");
        assert!(problems.contains(text), "{sql}: {problems}");
    }
}

/// Rows that nobody logged, under another key than their own.
const NOTICE: &str = "INSERT INTO notice (seq, id, doc) VALUES (9, 'n-2', '{\"id\":\"n-1\",\"run\":\"a\",\
                      \"kind\":\"k\",\"text\":\"t\",\"created_at\":\"2026-01-01T00:00:00Z\",\"v\":1}')";
const PROJECT: &str = "INSERT INTO project (id, doc) VALUES ('mill', '{\"id\":\"shop\",\"repo\":\"/srv/shop\",\
                       \"registered\":{},\"created_at\":\"2026-01-01T00:00:00Z\",\"v\":1}')";

/// Rows of the facts, gone, changed or from nowhere.
#[tokio::test]
async fn what_is_read_at_once_is_compared_too() {
    let cases: &[(&str, &'static str)] = &[
        ("fence run/a: the row is not", "UPDATE fence SET holder = 'eve'"),
        ("fence run/a: the row is not", "UPDATE fence SET epoch = 2"),
        ("fence run/a: the row is not", "UPDATE fence SET granted_at = granted_at + 1"),
        ("fence run/a: the log says recorded, but", "DELETE FROM fence"),
        (
            "fence hub: the row says recorded, the log says nothing",
            "INSERT INTO fence SELECT 'hub', 1, holder, granted_at FROM fence",
        ),
        ("size windows of a: ", "UPDATE size_window SET lines = 1"),
        ("size windows of a: ", "UPDATE size_window SET class = 'docs'"),
        ("size windows of a: ", "UPDATE size_window SET project = 'mill'"),
        ("size windows of a: ", "UPDATE size_window SET at = at + 1"),
        ("size windows of a: ", "DELETE FROM size_window"),
        ("run/b: it has rows but no chain", "UPDATE size_window SET run_id = 'b'"),
        ("lease history: ", "UPDATE lease_history SET change = -1"),
        ("lease history: ", "UPDATE lease_history SET project = 'mill'"),
        ("lease history: ", "UPDATE lease_history SET lease = 'l-2'"),
        ("lease history: ", "DELETE FROM lease_history"),
        ("command c-1: the row says done, the log says open", "UPDATE command SET done_at = 1, result = 'done'"),
        ("command c-1: the row is not", edit!("command", "principal.id", "'local:eve'")),
        ("command c-2: its columns", "UPDATE command SET id = 'c-2'"),
        ("command c-1: the log says open, but", "DELETE FROM command"),
        ("notice n-1: the row says queued, the log says nothing", NOTICE),
        ("notice n-2: its columns", NOTICE),
        ("project/shop: it has rows but no chain", PROJECT),
        ("project mill: its columns", PROJECT),
    ];
    for (text, sql) in cases {
        let (found, problems) = forged(&[sql]).await;
        assert_eq!(found, 6, "{sql}: {problems}");
        assert!(problems.contains(text), "{sql}: {problems}");
    }
}

/// The program took the edited row for granted and logged its next move.
#[tokio::test]
async fn a_move_from_a_state_that_was_forged_is_found() {
    let bench = Bench::filled().await;
    let mut tx = bench.store.tx(&[]).await.unwrap();
    let (before, after) = (Some("approved".to_owned()), "consumed");
    let mut used = request("q-1", "a");
    for state in [RequestState::Approved, RequestState::Consumed] {
        used.state = state;
        tx.update_request(&mut used).await.unwrap();
    }
    let moved = draft("run/a", "request.consumed", "request", "q-1", Some(after));
    tx.append_audit(pinned(AuditDraft { before, ..moved }, &used)).await.unwrap();
    tx.commit().await.unwrap();
    let report = verify(&bench.store).await.unwrap();
    assert_eq!(report.problems(), ["request q-1: it was moved on from approved, the log had it at pending"]);
    assert_eq!(report.exit_code(), 6);
}

/// What an operator has at hand is often older than the SQLite in here.
#[tokio::test]
async fn the_file_can_be_read_by_the_sqlite_of_the_system() {
    let bench = Bench::filled().await;
    bench.store.close().await;
    let script = "\
import sqlite3, sys
file = sqlite3.connect(sys.argv[1])
print(file.execute('SELECT count(*) FROM audit').fetchone()[0])
for (name,) in file.execute(\"SELECT name FROM sqlite_master WHERE type = 'trigger'\").fetchall():
    file.execute('DROP TRIGGER ' + name)
file.execute(\"UPDATE request SET state = 'approved'\")
file.commit()
";
    let Ok(read) = Command::new("python3").args(["-c", script]).arg(bench.path()).output() else {
        // No Python here: nothing to ask.
        return;
    };
    let told = String::from_utf8_lossy(&read.stderr).into_owned();
    if told.contains("No module named") {
        return;
    }
    assert!(read.status.success(), "{told}");
    assert_eq!(read.stdout, b"12\n");
    let store = super::open(&bench.path()).await.unwrap();
    assert_eq!(verify(&store).await.unwrap().exit_code(), 6);
}

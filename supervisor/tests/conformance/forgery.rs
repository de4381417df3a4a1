//! Edits past all guards, as somebody with every right on the database could make them, and what `audit verify` says
//! to each.

use autopack_shared::domain::audit::AuditDraft;
use autopack_shared::domain::state::RequestState;
use autopack_supervisor::store::StoreResult;
use autopack_supervisor::store::verify::{AuditReport, verify};

use crate::fixtures::*;
use crate::lab::Lab;
use crate::postgres::{Case, PostgresLab};

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    cases_of! { forgery {
        every_forgery_of_the_log_has_its_exit_code an_edited_row_is_not_what_was_logged
        a_row_that_is_gone_or_came_from_nowhere_is_found what_is_read_at_once_is_compared_too
        a_move_from_a_state_that_was_forged_is_found
    } }
}

/// What is found after these statements. They are taken back in the end: each case starts from the whole log.
async fn forged(lab: &PostgresLab, statements: &[&str]) -> (u32, String) {
    let mut link = lab.raw.acquire().await.unwrap();
    let mut run =
        async |sql: &str| sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut *link).await.unwrap();
    // Positions come a moment after the commit; here they are there.
    run("SELECT autopack.number_pending()").await;
    // No trigger and no foreign key is looked at.
    run("SET session_replication_role = replica").await;
    run("DROP SCHEMA IF EXISTS kept CASCADE; CREATE SCHEMA kept").await;
    for table in TABLES {
        run(&format!("CREATE TABLE kept.{table} AS TABLE autopack.{table}")).await;
    }
    for sql in statements {
        assert!(run(sql).await.rows_affected() >= 1, "{sql}");
    }
    let report: StoreResult<AuditReport> = verify(&*lab.store()).await;
    for table in TABLES {
        run(&format!("DELETE FROM autopack.{table}")).await;
        run(&format!("INSERT INTO autopack.{table} SELECT * FROM kept.{table}")).await;
    }
    run("RESET session_replication_role").await;
    let report = report.unwrap();
    (report.exit_code(), report.problems().join("; "))
}

const TABLES: &[&str] = &[
    "ledger",
    "audit",
    "audit_head",
    "fence",
    "project",
    "run",
    "phase",
    "attempt",
    "lease",
    "lease_history",
    "decision",
    "request",
    "vote",
    "command",
    "apply",
    "size_window",
    "event",
    "notice",
];

async fn whole(lab: &PostgresLab) {
    let report = verify(&*lab.store()).await.unwrap();
    assert_eq!(report.problems(), [""; 0]);
}

async fn every_forgery_of_the_log_has_its_exit_code(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    let cases: &[(u32, &str, &[&str])] = &[
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
        (3, "(all) ends at record 12", &["UPDATE ledger SET leaves = leaves + 1"]),
        (2, "there are 11 records only", &["UPDATE ledger SET leaves = leaves - 1"]),
        (
            2,
            "the head has another hash",
            &["UPDATE audit_head SET hash = decode(repeat('00', 32), 'hex') WHERE chain = 'cluster'"],
        ),
    ];
    for (code, text, statements) in cases {
        let (found, problems) = forged(lab, statements).await;
        assert_eq!(found, *code, "{statements:?}: {problems}");
        assert!(problems.contains(text), "{statements:?}: {problems}");
    }
    whole(lab).await;
}

/// The document of a row with one field set to another value.
fn edit(table: &str, path: &str, value: &str) -> String {
    format!("UPDATE {table} SET doc = jsonb_set(doc::jsonb, '{{{path}}}', '{value}')::json")
}

async fn an_edited_row_is_not_what_was_logged(lab: &mut PostgresLab) {
    const OID: &str = "\"0505050505050505050505050505050505050505\"";
    fill(&*lab.store()).await;
    let sql = |sql: &str| sql.to_owned();
    let cases = [
        ("run a: the row says failed, the log says created", sql("UPDATE run SET state = 'failed'")),
        ("phase a/p: the row says applied, the log says queued", sql("UPDATE phase SET state = 'applied'")),
        ("lease l-1: the row says held, the log says granting", sql("UPDATE lease SET state = 'held'")),
        ("apply a-1: the row says committed, the log says prepared", sql("UPDATE apply SET state = 'committed'")),
        ("request q-1: the row says approved, the log says pending", sql("UPDATE request SET state = 'approved'")),
        ("apply a-1: the row is not", edit("apply", "new", OID)),
        ("apply a-1: the row is not", edit("apply", "old", OID)),
        ("apply a-1: the row is not", edit("apply", "tree", OID)),
        ("run a: what it was created with", edit("run", "author,id", "\"local:eve\"")),
        ("run a: what it was created with", edit("run", "fork_commit", OID)),
        ("run a: what it was created with", edit("run", "anchor_digest", "null")),
        ("run a: its columns", sql("UPDATE run SET project = 'mill'")),
        ("lease l-1: its columns", sql("UPDATE lease SET workspace = 'b'")),
        ("apply a-1: the row is not", sql("UPDATE apply SET version = 7")),
        ("request q-1: the row is not", edit("request", "author,id", "\"local:eve\"")),
        ("request q-1: the row is not", edit("request", "decided_by,id", "\"local:eve\"")),
        ("request q-1: the row is not", edit("request", "risk_level", "\"LOW\"")),
        ("request q-1: the row is not", edit("request", "tier", "1")),
        ("request q-1: the row is not", edit("request", "approvers_needed", "1")),
        ("request q-1: the row is not", edit("request", "expires_at", "\"2036-01-01T00:00:00Z\"")),
        ("request q-1: its columns", sql("UPDATE request SET expires_at = expires_at + interval '1 ms'")),
        ("request q-1: its columns", sql("UPDATE request SET phase_id = 'q'")),
        ("vote local:ann on q-1: the row is not", edit("vote", "approve", "false")),
        ("vote local:eve on q-1: the row says", edit("vote", "principal,id", "\"local:eve\"")),
        ("vote local:eve on q-1: its columns", sql("UPDATE vote SET principal = 'local:eve'")),
        ("decision d-1: the row is not", edit("decision", "verdict", "\"AUTO_APPROVED\"")),
        ("decision d-1: the row is not", edit("decision", "tier", "null")),
        ("decision d-1: the row is not", edit("decision", "document,findings", "[]")),
        ("history of run/a: 1 lines", edit("event", "text", "\"nothing happened\"")),
        ("a row: ", sql("UPDATE request SET doc = (doc::jsonb - 'run')::json")),
    ];
    for (text, sql) in cases {
        let (found, problems) = forged(lab, &[&sql]).await;
        assert_eq!(found, 6, "{sql}: {problems}");
        assert!(problems.contains(text), "{sql}: {problems}");
    }
    whole(lab).await;
}

async fn a_row_that_is_gone_or_came_from_nowhere_is_found(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    let cases: &[(&str, &str)] = &[
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
            "INSERT INTO run SELECT 9, 'b', project, state, version, jsonb_set(doc::jsonb, '{id}', '\"b\"')::json \
             FROM run",
        ),
        (
            "phase a/q: the row says queued, the log says nothing",
            "INSERT INTO phase SELECT run_id, 'q', 1, state, version, \
             (doc::jsonb || '{\"id\":\"q\",\"attempt\":0,\"ordinal\":1}')::json FROM phase",
        ),
        (
            "vote local:eve on q-1: the row says recorded, the log says nothing",
            "INSERT INTO vote SELECT 9, request_id, 'local:eve', \
             jsonb_set(doc::jsonb, '{principal,id}', '\"local:eve\"')::json FROM vote",
        ),
        (
            "decision d-2: the row says recorded, the log says nothing",
            "INSERT INTO decision SELECT 9, 'd-2', run_id, jsonb_set(doc::jsonb, '{id}', '\"d-2\"')::json FROM decision",
        ),
    ];
    for (text, sql) in cases {
        let (found, problems) = forged(lab, &[sql]).await;
        assert_eq!(found, 6, "{sql}: {problems}");
        assert!(problems.contains(text), "{sql}: {problems}");
    }
    whole(lab).await;
}

/// Rows that nobody logged, under another key than their own.
const NOTICE: &str = "INSERT INTO notice (seq, id, doc) VALUES (9, 'n-2', '{\"id\":\"n-1\",\"run\":\"a\",\
                      \"kind\":\"k\",\"text\":\"t\",\"created_at\":\"2026-01-01T00:00:00Z\",\"v\":1}')";
const PROJECT: &str = "INSERT INTO project (id, doc) VALUES ('mill', '{\"id\":\"shop\",\"repo\":\"/srv/shop\",\
                       \"registered\":{},\"created_at\":\"2026-01-01T00:00:00Z\",\"v\":1}')";

/// Rows of the facts, gone, changed or from nowhere.
async fn what_is_read_at_once_is_compared_too(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    let cases: &[(&str, &str)] = &[
        ("fence run/a: the row is not", "UPDATE fence SET holder = 'eve'"),
        ("fence run/a: the row is not", "UPDATE fence SET epoch = 2"),
        ("fence run/a: the row is not", "UPDATE fence SET granted_at = granted_at + interval '1 ms'"),
        ("fence run/a: the log says recorded, but", "DELETE FROM fence"),
        (
            "fence hub: the row says recorded, the log says nothing",
            "INSERT INTO fence SELECT 'hub', 1, holder, granted_at FROM fence",
        ),
        ("size windows of a: ", "UPDATE size_window SET lines = 1"),
        ("size windows of a: ", "UPDATE size_window SET class = 'docs'"),
        ("size windows of a: ", "UPDATE size_window SET project = 'mill'"),
        ("size windows of a: ", "UPDATE size_window SET at = at + interval '1 ms'"),
        ("size windows of a: ", "DELETE FROM size_window"),
        ("run/b: it has rows but no chain", "UPDATE size_window SET run_id = 'b'"),
        ("lease history: ", "UPDATE lease_history SET change = -1"),
        ("lease history: ", "UPDATE lease_history SET project = 'mill'"),
        ("lease history: ", "UPDATE lease_history SET lease = 'l-2'"),
        ("lease history: ", "DELETE FROM lease_history"),
        (
            "command c-1: the row says done, the log says open",
            "UPDATE command SET done_at = now(), result = '\"done\"'",
        ),
        (
            "command c-1: the row is not",
            "UPDATE command SET doc = jsonb_set(doc::jsonb, '{principal,id}', '\"local:eve\"')::json",
        ),
        ("command c-2: its columns", "UPDATE command SET id = 'c-2'"),
        ("command c-1: the log says open, but", "DELETE FROM command"),
        ("notice n-1: the row says queued, the log says nothing", NOTICE),
        ("notice n-2: its columns", NOTICE),
        ("project/shop: it has rows but no chain", PROJECT),
        ("project mill: its columns", PROJECT),
    ];
    for (text, sql) in cases {
        let (found, problems) = forged(lab, &[sql]).await;
        assert_eq!(found, 6, "{sql}: {problems}");
        assert!(problems.contains(text), "{sql}: {problems}");
    }
    whole(lab).await;
}

/// The program took the edited row for granted and logged its next move.
async fn a_move_from_a_state_that_was_forged_is_found(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let (before, after) = (Some("approved".to_owned()), "consumed");
    let mut used = request("q-1", "a");
    for state in [RequestState::Approved, RequestState::Consumed] {
        used.state = state;
        tx.update_request(&mut used).await.unwrap();
    }
    let moved = draft("run/a", "request.consumed", "request", "q-1", Some(after));
    tx.append_audit(pinned(AuditDraft { before, ..moved }, &used)).await.unwrap();
    tx.commit().await.unwrap();
    let report = verify(&*lab.store()).await.unwrap();
    assert_eq!(report.problems(), ["request q-1: it was moved on from approved, the log had it at pending"]);
    assert_eq!(report.exit_code(), 6);
}

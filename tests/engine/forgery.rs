//! Whoever has the file in hand changes any one value of any row, or takes any one row out: `audit verify` tells. The
//! tables and their columns are read from the file, so that a new one is covered or fails here.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection, query, query_scalar};

use autopack_shared::runtime::clock::{SystemClock, SystemIds};
use autopack_shared::wire::pb::{self, Choice, SteerOp};
use autopack_supervisor::director::{Governing, Retention};
use autopack_supervisor::store::sqlite::SqliteStore;
use autopack_supervisor::store::verify::verify;

use super::harness::{Rig, Site};

/// Tables that are no part of what was audited.
const TABLES: &[&str] = &[
    // Answers kept for repeated calls: forgotten after a week, and what they answer for is logged.
    "idem",
    // What workers found at a commit: nothing rests on it, and it is forgotten within minutes.
    "survey",
    // What gates have learned: a report, which is logged, names the baseline it went by.
    "gate_baseline",
    "flaky_test",
    // Which builders and credentials rest: nothing that is applied rests on it, and a reset is logged.
    "breaker",
    "credential",
    // What attempts used: it says whether more may start, never what may be applied.
    "spend",
    // Written anew from code at every start.
    "legal_move",
    "final_state",
    // Empty between transactions: a row in it is of nobody's.
    "fence_held",
    // The schema's own record, checked by its checksums at every start.
    "_sqlx_migrations",
];

/// Columns that are no part of it, and why.
const COLUMNS: &[(&str, &str)] = &[
    // The store's clock and count of commits only keep later ones in order; every entry has its own instant.
    ("cluster", "clock_ms"),
    ("cluster", "commits"),
    // Whether the last process stopped cleanly.
    ("cluster", "opened_by"),
    // The name under which supervisors meet: another one keeps them from starting, and says nothing of what was done.
    ("cluster", "coordination"),
    // The key of the only row.
    ("cluster", "id"),
    // The order of a listing. Where a decision rests on it (leases, decisions, requests, applies of one run) an order
    // that is another is found: see `an_order_that_was_changed_is_found`; numbers that leave it alone say nothing.
    ("run", "seq"),
    ("lease", "seq"),
    ("lease_history", "seq"),
    ("decision", "seq"),
    ("request", "seq"),
    ("vote", "seq"),
    ("command", "seq"),
    ("apply", "seq"),
    ("notice", "seq"),
    // How long it is kept, where no decision names it: never what was printed.
    ("transcript", "at"),
    // The same: it orders starts and ends, one a commit. Two of one commit, or another order, are found.
    ("lease_history", "commit_no"),
];

const POLICY: &str = r#"
[project]
id = "site"

[policy]
allowed = ["examples/**"]

[[gate.commands]]
name = "no-bad-words"
run = "! grep -rq BAD examples"
timeout_seconds = 20
"#;

/// What there is to change: approvals, a rejection, a retry, a pause, a rollback by the gate and one by a person, a
/// failed and a cancelled run, a landing with a merge, notices, registered files, a second director.
async fn scenario(site: &Site) {
    let mut rig = Rig::open(site).await;
    let files = [("autopack.toml".to_owned(), POLICY.to_owned())].into();
    rig.admin.register(pb::RegisterRequest { files, ..Default::default() }).await.unwrap();
    let script = "if grep -q nicely \"$AUTOPACK_TASK\"; then echo please >> examples/b.txt; else echo rude >> examples/b.txt; fi";
    let phases = [
        ("one", "echo good | tee -a examples/a.txt", json!({})),
        ("two", script, json!({ "depends_on": ["one"], "max_attempts": 2 })),
    ];
    rig.submit("work", &phases).await;
    rig.until("work", "a request", |r| r.phases[0].state == "APPROVAL_PENDING").await;
    decide(&mut rig, "work", Choice::Approve, "ok").await;
    rig.until("work", "a request", |r| r.phases[1].state == "APPROVAL_PENDING").await;
    decide(&mut rig, "work", Choice::Reject, "say it nicely").await;
    rig.until("work", "another", |r| r.phases[1].state == "APPROVAL_PENDING" && r.phases[1].attempt == 2).await;
    decide(&mut rig, "work", Choice::Approve, "better").await;
    rig.until_state("work", "SUCCEEDED").await;
    git2::Repository::open(site.repo()).unwrap().set_head_detached(site.commit("other")).unwrap();
    let call = pb::LandRequest { run_id: "work".into(), ..Default::default() };
    let landing = rig.runs.land(call).await.unwrap().into_inner().run.unwrap();
    rig.until_state(&landing.id, "WAITING").await;
    decide(&mut rig, &landing.id, Choice::Approve, "ok").await;
    rig.until_state(&landing.id, "SUCCEEDED").await;
    let call = pb::SteerRequest {
        run_id: "work".into(),
        op: SteerOp::Rollback.into(),
        phase_id: "two".into(),
        text: "not wanted".into(),
        ..Default::default()
    };
    rig.runs.steer(call).await.unwrap();
    rig.until("work", "the rollback", |r| r.phases[1].state == "ROLLED_BACK").await;
    rig.submit("red", &[("p", "echo BAD >> examples/a.txt", json!({}))]).await;
    rig.until_state("red", "WAITING").await;
    decide(&mut rig, "red", Choice::Approve, "ok").await;
    rig.until_state("red", "FAILED").await;
    let lost = ("p", "echo lost; exit 1", json!({ "max_attempts": 1 }));
    rig.submit("retry", &[lost, ("q", "echo A=1 > .env", json!({}))]).await;
    rig.until("retry", "the block", |r| r.phases[1].state == "BLOCKED").await;
    let call = pb::SteerRequest {
        run_id: "retry".into(),
        op: SteerOp::Retry.into(),
        phase_id: "q".into(),
        text: "once more".into(),
        ..Default::default()
    };
    rig.runs.steer(call).await.unwrap();
    rig.until("retry", "the second block", |r| r.phases[1].state == "BLOCKED" && r.phases[1].attempt == 2).await;
    rig.steer("retry", SteerOp::Cancel).await;
    rig.until_state("retry", "CANCELLED").await;
    rig.submit("pause", &[("p", "sleep 300", json!({}))]).await;
    rig.until("pause", "its worktree", |r| r.state == "RUNNING").await;
    rig.steer("pause", SteerOp::Pause).await;
    rig.steer("pause", SteerOp::Cancel).await;
    rig.until_state("pause", "CANCELLED").await;
    rig.audit_is_whole().await;
    rig.close().await;
    forgets(site).await;
}

/// A second director lets go of what no decision names.
async fn forgets(site: &Site) {
    let retention = Retention { days: 0, bytes: 1 };
    let mut rig = Rig::governed_with_worker(site, Governing { retention, ..Governing::default() }).await;
    while rig.gone_transcripts("retry").await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    rig.audit_is_whole().await;
    rig.close().await;
}

async fn decide(rig: &mut Rig, run: &str, choice: Choice, why: &str) {
    let request = rig.pending(run).await;
    rig.decide(&request, choice, why).await.unwrap();
}

/// A finished store with every guard taken off.
struct Victim {
    _site: Site,
    store: SqliteStore,
    link: SqliteConnection,
}

impl Victim {
    async fn new() -> Self {
        let site = Site::new(POLICY);
        scenario(&site).await;
        let path = site.data().join("autopack.db");
        let store = SqliteStore::open(&path, Arc::new(SystemClock::default()), Arc::new(SystemIds)).await.unwrap();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(false)
            .pragma("synchronous", "OFF")
            .pragma("ignore_check_constraints", "ON");
        let mut link = SqliteConnection::connect_with(&options).await.unwrap();
        let guards = "SELECT 'DROP ' || type || ' ' || name FROM sqlite_master \
                      WHERE type = 'trigger' OR (type = 'index' AND sql IS NOT NULL)";
        let guards: Vec<String> = query_scalar(guards).fetch_all(&mut link).await.unwrap();
        for guard in guards {
            query(AssertSqlSafe(guard)).execute(&mut link).await.unwrap();
        }
        let mut victim = Self { _site: site, store, link };
        assert_eq!(victim.verdict().await, (0, String::new()));
        victim
    }

    /// The exit code, and why. A store that cannot be read at all is no whole one either.
    async fn verdict(&mut self) -> (u32, String) {
        match verify(&self.store).await {
            Ok(report) => (report.exit_code(), report.problems().join("; ")),
            Err(error) => (2, error.to_string()),
        }
    }

    async fn run(&mut self, sql: &str) -> Result<u64, sqlx::Error> {
        Ok(query(AssertSqlSafe(sql.to_owned())).execute(&mut self.link).await?.rows_affected())
    }

    async fn texts(&mut self, sql: String) -> Vec<String> {
        query_scalar(AssertSqlSafe(sql)).fetch_all(&mut self.link).await.unwrap()
    }

    /// Keeps a table as it is.
    async fn keep(&mut self, table: &str) {
        self.run(&format!("CREATE TEMP TABLE kept_{table} AS SELECT * FROM {table}")).await.unwrap();
    }

    /// The exit code after a statement; the table is put back as it was. None where the schema refuses it.
    async fn forged(&mut self, table: &str, sql: &str) -> Option<(u32, String)> {
        if self.run(sql).await.ok()? == 0 {
            return None;
        }
        let verdict = self.verdict().await;
        self.run("BEGIN").await.unwrap();
        self.run(&format!("DELETE FROM {table}")).await.unwrap();
        self.run(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await.unwrap();
        self.run("COMMIT").await.unwrap();
        Some(verdict)
    }
}

/// The pointers to every value of a document that holds no others.
fn places(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, field)| places(field, &format!("{at}/{}", name.replace('/', "~1")), out));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(n, item)| places(item, &format!("{at}/{n}"), out));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            out.push(at.to_owned());
        }
    }
}

/// Another value, plausible where there is a way to be.
fn another(value: &Value) -> Value {
    match value {
        Value::Object(_) => json!({ "x": "x" }),
        Value::Array(_) => json!(["x"]),
        Value::Null => json!("x"),
        Value::Bool(was) => json!(!was),
        Value::Number(was) => was.as_i64().map_or_else(|| json!(0.5), |was| json!(was + 1)),
        Value::String(was) if was.ends_with('Z') => json!(was.replacen("202", "203", 1)),
        Value::String(was) => match was.char_indices().last() {
            Some((at, '0'..='8' | 'a'..='e')) => {
                let next = char::from(was.as_bytes()[at] + 1);
                json!(format!("{}{next}", &was[..at]))
            }
            _ => json!(format!("{was}x")),
        },
    }
}

/// What changes one value of a row, for each that there is: the place, and the statement.
async fn changes(victim: &mut Victim, table: &str, row: &str) -> Vec<(String, String)> {
    let columns = victim.texts(format!("SELECT name || ' ' || type FROM pragma_table_info('{table}')")).await;
    let mut found = Vec::new();
    for column in &columns {
        let (column, kind) = column.split_once(' ').unwrap();
        if COLUMNS.contains(&(table, column)) {
            continue;
        }
        if column == "doc" {
            let doc = victim.texts(format!("SELECT doc FROM {table} WHERE {row}")).await.remove(0);
            let doc: Value = serde_json::from_str(&doc).unwrap();
            let mut at = Vec::new();
            places(&doc, "", &mut at);
            for place in at {
                let mut forged = doc.clone();
                let value = forged.pointer_mut(&place).unwrap();
                *value = another(value);
                let text = forged.to_string().replace('\'', "''");
                found.push((format!("doc{place}"), format!("UPDATE {table} SET doc = '{text}' WHERE {row}")));
            }
            continue;
        }
        let value = match kind {
            "INTEGER" => format!("coalesce({column}, 0) + 1"),
            "BLOB" => format!("randomblob(length({column}))"),
            _ => format!("coalesce({column}, '') || 'x'"),
        };
        found.push((column.to_owned(), format!("UPDATE {table} SET {column} = {value} WHERE {row}")));
    }
    found
}

/// Every row is taken out or changed in one place, and each place of a table is changed in some row.
#[tokio::test]
async fn any_row_that_was_changed_or_is_gone_is_found() {
    let mut victim = Victim::new().await;
    let tables = victim.texts("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name".to_owned()).await;
    let (mut missed, mut tried, mut asked) = (Vec::new(), BTreeSet::new(), 0);
    for table in tables.iter().filter(|table| !TABLES.contains(&table.as_str())) {
        victim.keep(table).await;
        let key = "group_concat('''' || name || ' = '' || quote(' || name || ')', ' || '' AND '' || ')";
        let key = victim.texts(format!("SELECT {key} FROM pragma_table_info('{table}') WHERE pk > 0")).await.remove(0);
        let rows = victim.texts(format!("SELECT {key} FROM {table}")).await;
        assert!(!rows.is_empty(), "the scenario leaves {table} empty");
        for (n, row) in rows.iter().enumerate() {
            let mut forgeries = Vec::new();
            let mut all = changes(&mut victim, table, row).await;
            all.insert(0, ("(gone)".to_owned(), format!("DELETE FROM {table} WHERE {row}")));
            // Taken out or changed by turns, each time in another place.
            let turn = if n % 2 == 0 { 0 } else { n / 2 % all.len() };
            for (at, (place, sql)) in all.into_iter().enumerate() {
                // Items of a list are one place.
                let kind: String = place.chars().filter(|c| !c.is_ascii_digit()).collect();
                if tried.insert((table.clone(), kind)) || at == turn {
                    forgeries.push((place, sql));
                }
            }
            for (place, sql) in forgeries {
                asked += 1;
                if let Some((0, _)) = victim.forged(table, &sql).await {
                    missed.push(format!("{table} {place} where {row}"));
                }
            }
        }
    }
    assert!(asked > 500 && tried.len() > 250, "{asked} forgeries in {} places", tried.len());
    assert_eq!(victim.verdict().await, (0, String::new()), "all was put back");
    assert!(missed.is_empty(), "{} forgeries stay unseen:\n{}", missed.len(), missed.join("\n"));
}

/// Numbers of rows that decisions rest on the order of, turned round; a record that is missing; a run that is gone.
#[tokio::test]
async fn an_order_that_was_changed_is_found() {
    let mut victim = Victim::new().await;
    let turned = |table: &str, column: &str| format!("UPDATE {table} SET {column} = 1000000 - {column}");
    for (table, code, sql) in [
        ("lease", 6, turned("lease", "seq")),
        ("decision", 6, turned("decision", "seq")),
        ("request", 6, turned("request", "seq")),
        ("apply", 6, turned("apply", "seq")),
        ("lease_history", 6, turned("lease_history", "seq")),
        ("lease_history", 6, "UPDATE lease_history SET commit_no = 1".to_owned()),
        ("cluster", 3, "UPDATE cluster SET leaves = leaves + 1".to_owned()),
    ] {
        victim.run(&format!("DROP TABLE IF EXISTS kept_{table}")).await.unwrap();
        victim.keep(table).await;
        let (found, why) = victim.forged(table, &sql).await.unwrap();
        assert_eq!(found, code, "{sql}: {why}");
    }
}

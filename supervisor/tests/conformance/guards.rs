//! The database's own guards, statements that go past the code, and what a store is refused for when it is opened.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use autopack_shared::domain::ids::Digest;
use autopack_shared::runtime::clock::ManualClock;
use autopack_supervisor::director::Claim;
use autopack_supervisor::store::postgres::{PostgresConfig, PostgresStore};
use autopack_supervisor::store::{Store, StoreError};

use crate::fixtures::*;
use crate::lab::Lab;
use crate::postgres::{Case, PostgresLab, at, open};
use crate::server::Server;

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    cases_of! { guards {
        an_unfenced_statement_is_refused history_is_only_ever_added_to an_ended_row_is_never_written_again
        the_tables_of_moves_follow_the_program a_newer_schema_is_refused_unless_it_is_marked
        a_schema_that_came_meanwhile_ends_the_use schemas_of_others_are_refused a_restored_store_is_refused settings_that_lose_commits_are_refused
        every_code_has_its_answer old_idempotent_answers_are_forgotten_at_the_next_start
        a_row_with_a_broken_document_is_corrupt documents_come_back_byte_by_byte many_may_open_at_once
        a_user_without_rights_is_told
    } }
}

async fn an_unfenced_statement_is_refused(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    for sql in [
        "UPDATE run SET doc = doc",
        "UPDATE phase SET doc = doc",
        "UPDATE attempt SET doc = doc",
        "UPDATE lease SET doc = doc",
        "UPDATE apply SET doc = doc",
        "INSERT INTO run SELECT 9, 'b', project, state, version, doc FROM run",
        "INSERT INTO phase SELECT run_id, 'q', 1, state, version, doc FROM phase",
        "INSERT INTO attempt SELECT run_id, phase_id, 2, state, version, doc FROM attempt",
        "INSERT INTO lease SELECT 9, 'l-2', run_id, workspace, project, 'released', version, doc FROM lease",
        "INSERT INTO apply SELECT 9, 'a-2', run_id, 'x', NULL, state, version, doc FROM apply",
        "INSERT INTO size_window SELECT apply_id, 'docs', run_id, project, 1, at FROM size_window",
        // A token that was once right is not.
        "WITH held AS (SELECT fence_hold('run/a', 9)) UPDATE run SET doc = doc FROM held",
    ] {
        let refusal = lab.raw(sql).await.unwrap_err();
        assert!(refusal.starts_with("AP002 run/"), "{sql}: {refusal}");
    }
    // The setting ends with its transaction.
    assert!(lab.raw("WITH held AS (SELECT fence_hold('run/a', 1)) UPDATE run SET doc = doc FROM held").await.is_ok());
    assert!(lab.raw("UPDATE run SET doc = doc").await.unwrap_err().starts_with("AP002"));
    let stale = lab.raw("SELECT fence_check('run/a', 7)").await.unwrap_err();
    assert_eq!(stale, "AP001 FENCED scope=run/a token=7 current=1");
}

async fn history_is_only_ever_added_to(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    for sql in [
        "UPDATE audit SET body = '{}'",
        "UPDATE audit_head SET seq = 1",
        "INSERT INTO audit SELECT 'run/b', seq, 99, body, prev_hash, hash, at FROM audit WHERE seq = 2",
        "INSERT INTO audit_head SELECT 'run/b', seq, hash FROM audit_head LIMIT 1",
        "UPDATE fence SET epoch = epoch - 1",
        "UPDATE cluster SET incarnation = 0",
        "UPDATE cluster SET system_identifier = '1'",
        "UPDATE clock SET at = at - interval '1 s'",
        "UPDATE ledger SET leaves = 0",
        "UPDATE decision SET doc = '{}'",
        "UPDATE vote SET doc = '{}'",
        "UPDATE event SET doc = '{}'",
        "UPDATE lease_history SET change = -1",
    ] {
        let refusal = lab.raw(sql).await.unwrap_err();
        assert!(refusal.starts_with("AP004 "), "{sql}: {refusal}");
    }
    for table in [
        "audit",
        "audit_head",
        "fence",
        "cluster",
        "ledger",
        "clock",
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
    ] {
        let refusals = [format!("DELETE FROM {table}"), format!("TRUNCATE {table} CASCADE")];
        for sql in refusals {
            let refusal = lab.raw(&sql).await.unwrap_err();
            assert!(refusal.starts_with("AP004 "), "{sql}: {refusal}");
        }
    }
}

async fn an_ended_row_is_never_written_again(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    let held = "WITH held AS (SELECT fence_hold('run/a', 1))";
    for table in ["run", "phase", "attempt", "lease", "apply", "request"] {
        let end = match table {
            "attempt" | "run" | "phase" => "failed",
            "lease" => "released",
            "apply" => "committed",
            _ => "cancelled",
        };
        // Past the tables of moves, which allow most of these in one step only from elsewhere.
        let force = "SET session_replication_role = replica";
        let mut link = lab.raw.acquire().await.unwrap();
        for sql in [force, &format!("UPDATE {table} SET state = '{end}'"), "RESET session_replication_role"] {
            sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut *link).await.unwrap();
        }
        drop(link);
        let refusal = lab.raw(&format!("{held} UPDATE {table} SET doc = doc FROM held")).await.unwrap_err();
        assert_eq!(refusal, "AP003 it has ended", "{table}");
    }
    let illegal = "INSERT INTO notice (id, doc) VALUES ('n', '{}')";
    assert_eq!(lab.raw(illegal).await, Ok(1), "what has no states is not touched by this");
}

async fn the_tables_of_moves_follow_the_program(lab: &mut PostgresLab) {
    for sql in [
        "DELETE FROM legal_move WHERE from_state = 'created'",
        "INSERT INTO legal_move VALUES ('run', 'failed', 'queued')",
        "DELETE FROM final_state WHERE machine = 'lease'",
        "INSERT INTO final_state VALUES ('run', 'queued')",
    ] {
        lab.raw(sql).await.unwrap();
    }
    drop(lab.another().await);
    assert_eq!(lab.raw("SELECT 1 FROM legal_move WHERE from_state = 'failed'").await, Ok(0));
    assert!(lab.raw("SELECT 1 FROM legal_move WHERE from_state = 'created'").await.unwrap() >= 3);
    assert_eq!(lab.raw("SELECT 1 FROM final_state WHERE machine = 'lease'").await, Ok(3));
    assert_eq!(lab.raw("SELECT 1 FROM final_state WHERE state = 'queued'").await, Ok(0));
}

async fn a_newer_schema_is_refused_unless_it_is_marked(lab: &mut PostgresLab) {
    lab.raw("INSERT INTO migration VALUES (98, 'later', '', 1)").await.unwrap();
    lab.raw("DELETE FROM legal_move WHERE from_state = 'created'").await.unwrap();
    drop(lab.another().await);
    assert_eq!(
        lab.raw("SELECT 1 FROM legal_move WHERE from_state = 'created'").await,
        Ok(0),
        "they are the newer one's"
    );
    lab.raw("INSERT INTO migration VALUES (99, 'later still', '', 99)").await.unwrap();
    let refusal = open(lab.url()).await.unwrap_err();
    assert!(matches!(refusal, StoreError::Schema { found: 99, known: 2.. }), "{refusal}");
    lab.raw("DELETE FROM migration WHERE version > 1").await.unwrap();
    lab.raw("UPDATE migration SET checksum = 'x'").await.unwrap();
    let refusal = open(lab.url()).await.unwrap_err();
    assert!(refusal.to_string().contains("changed copy"), "{refusal}");
}

async fn a_schema_that_came_meanwhile_ends_the_use(lab: &mut PostgresLab) {
    let store = lab.another().await;
    lab.raw("INSERT INTO migration VALUES (98, 'later', '', 1)").await.unwrap();
    store.fits().await.unwrap();
    lab.raw("INSERT INTO migration VALUES (99, 'later still', '', 99)").await.unwrap();
    let other = lab.store();
    let refused = Claim::raise(&store, "one", None, None).await.unwrap_err();
    assert!(refused.to_string().contains("use a newer autopack"), "{refused}");
    assert!(matches!(store.tx(&[]).await.err(), Some(StoreError::Schema { found: 99, .. })));
    // Who asks for nothing finds out too.
    let stopped = async {
        while other.read().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        matches!(other.now().await, Err(StoreError::Schema { found: 99, .. }))
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), stopped).await.unwrap());
}

async fn schemas_of_others_are_refused(lab: &mut PostgresLab) {
    lab.raw("ALTER SCHEMA autopack RENAME TO ours").await.unwrap();
    lab.raw("CREATE SCHEMA autopack").await.unwrap();
    let refusal = open(lab.url()).await.unwrap_err();
    assert!(refusal.to_string().contains("no control store"), "{refusal}");
}

async fn a_restored_store_is_refused(lab: &mut PostgresLab) {
    let mut link = lab.raw.acquire().await.unwrap();
    for sql in ["SET session_replication_role = replica", "UPDATE cluster SET system_identifier = '7'"] {
        sqlx::query(sql).execute(&mut *link).await.unwrap();
    }
    let refusal = open(lab.url()).await.unwrap_err();
    assert!(
        matches!(&refusal, StoreError::Moved { made_on, found } if made_on == "7" && found.len() > 10),
        "{refusal}"
    );
}

async fn settings_that_lose_commits_are_refused(lab: &mut PostgresLab) {
    let alter = async |sql: &str| {
        lab.raw(&format!("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {sql}', current_database()); END $$"))
            .await
            .unwrap()
    };
    for (value, safe) in [("off", false), ("local", false), ("remote_write", true), ("on", true)] {
        alter(&format!("SET synchronous_commit = {value}")).await;
        match open(lab.url()).await {
            Ok(_) => assert!(safe, "{value}"),
            Err(StoreError::Unsafe(what)) => {
                assert!(!safe);
                assert_eq!(what, format!("synchronous_commit is {value}, must be on or remote_write or remote_apply"));
            }
            Err(other) => panic!("{other}"),
        }
    }
    alter("SET default_transaction_read_only = on").await;
    let refusal = open(lab.url()).await.unwrap_err();
    assert!(matches!(&refusal, StoreError::Unavailable { hint, .. } if hint.contains("primary")), "{refusal}");
}

/// What the server may say in the middle of a write, and what becomes of it.
async fn every_code_has_its_answer(lab: &mut PostgresLab) {
    let fail = "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                RAISE EXCEPTION 'as told' USING ERRCODE = NEW.doc->>'repo'; END $$";
    lab.raw(fail).await.unwrap();
    lab.raw("CREATE TRIGGER fail BEFORE INSERT ON project FOR EACH ROW EXECUTE FUNCTION public.fail()").await.unwrap();
    for (code, expected) in [
        ("40001", "unavailable"),
        ("40P01", "unavailable"),
        ("55P03", "unavailable"),
        ("57014", "unavailable"),
        ("57P01", "unavailable"),
        ("08006", "unavailable"),
        ("25006", "unavailable"),
        ("53200", "unavailable"),
        ("53100", "full"),
        ("23505", "exists"),
        ("23503", "not found"),
        ("AP002", "fenced"),
        ("AP003", "illegal"),
        ("AP004", "corrupt"),
        ("XX001", "corrupt"),
        ("42P01", "corrupt"),
    ] {
        let mut tx = lab.store().tx(&[]).await.unwrap();
        let mut told = project("shop");
        told.repo = code.to_owned();
        let answer = tx.put_project(&told).await;
        let got = match &answer {
            Err(StoreError::Unavailable { hint, .. }) if !hint.is_empty() => "unavailable",
            Err(StoreError::Full(_)) => "full",
            Err(StoreError::Exists { .. }) => "exists",
            Err(StoreError::NotFound { .. }) => "not found",
            Err(StoreError::Fenced { .. }) => "fenced",
            Err(StoreError::IllegalMove(_)) => "illegal",
            Err(StoreError::Corrupt(_)) => "corrupt",
            other => panic!("{code}: {other:?}"),
        };
        assert_eq!(got, expected, "{code}: {answer:?}");
        // A refusal leaves the transaction as it was; anything else ends it.
        let refusal = matches!(expected, "exists" | "not found" | "fenced" | "illegal");
        let after = tx.insert_notice(&notice(&format!("n-{}", code.to_lowercase()), "a")).await;
        assert_eq!(after.is_ok(), refusal, "{code}");
        assert_eq!(tx.commit().await.is_ok(), refusal, "{code}");
    }
}

async fn old_idempotent_answers_are_forgotten_at_the_next_start(lab: &mut PostgresLab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.put_idem("k-old", "a", "m", Digest::of(b"x"), b"").await.unwrap();
    tx.put_idem("k-new", "a", "m", Digest::of(b"x"), b"").await.unwrap();
    tx.commit().await.unwrap();
    lab.raw("UPDATE idem SET at = at - interval '7 days 1 ms' WHERE key = 'k-old'").await.unwrap();
    let mut view = lab.another().await.read().await.unwrap();
    assert!(view.idem("k-old", "a", "m").await.unwrap().is_none());
    assert!(view.idem("k-new", "a", "m").await.unwrap().is_some());
}

async fn a_row_with_a_broken_document_is_corrupt(lab: &mut PostgresLab) {
    fill(&*lab.store()).await;
    lab.raw("UPDATE request SET doc = '{\"v\":7}'").await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert!(matches!(view.request(&name("q-1")).await, Err(StoreError::Corrupt(_))));
    assert!(view.run(&name("a")).await.unwrap().is_some(), "the rest can still be read");
    assert!(lab.raw("UPDATE request SET doc = 'no JSON'").await.unwrap_err().starts_with("22P02"));
}

async fn documents_come_back_byte_by_byte(lab: &mut PostgresLab) {
    add_run(&*lab.store(), "a").await;
    let mut line = event("a", "\u{0}zero \u{1f980} \\u0000 \"quoted\"");
    line.data = json!({ "z": 1, "a": [1.0, 1e300, 1.5e-7, -0.0], "\u{0}": "\u{0}", "big": u64::MAX });
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.append_event(&mut line).await.unwrap();
    tx.insert_command(&command("c-1", "a")).await.unwrap();
    tx.finish_command(&name("c-1"), crate::fixtures::at(1), "ended\0").await.unwrap();
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.events(&name("a"), 0, 9).await.unwrap(), [line]);
    assert_eq!(view.facts().await.unwrap().commands[0].result.as_deref(), Some("ended\0"));
    assert_eq!(view.skewed_rows().await.unwrap(), [""; 0]);
}

async fn many_may_open_at_once(lab: &mut PostgresLab) {
    lab.raw("DROP SCHEMA autopack CASCADE").await.unwrap();
    let opened = futures::future::join_all((0..6).map(|_| open(lab.url()))).await;
    let mut ids = std::collections::BTreeSet::new();
    for store in opened {
        ids.insert(store.unwrap().read().await.unwrap().cluster_id().await.unwrap());
    }
    assert_eq!(ids.len(), 1, "one of them has made it");
}

async fn a_user_without_rights_is_told(lab: &mut PostgresLab) {
    let user = lab.url().rsplit_once("/case").unwrap().1.split('?').next().unwrap().to_owned();
    lab.raw(&format!("CREATE ROLE plain{user} LOGIN")).await.unwrap();
    let url = lab.url().replacen("postgres@", &format!("plain{user}:s3cret@"), 1);
    let refusal = open(&url).await.unwrap_err();
    assert!(matches!(&refusal, StoreError::Unavailable { hint, .. } if hint.contains("right")), "{refusal}");
    assert!(!format!("{refusal} {refusal:?}").contains("s3cret"));
    // Whoever owns the schema needs no more than that.
    lab.raw(&format!("GRANT CREATE ON DATABASE case{user} TO plain{user}")).await.unwrap();
    lab.raw("DROP SCHEMA autopack CASCADE").await.unwrap();
    let store = open(&url).await.unwrap();
    fill(&store).await;
}

/// A server that may lose commits is named with each setting; one that is gone is said to be away.
#[tokio::test]
async fn a_server_is_checked_and_may_go_away() {
    let server = Server::start(&["fsync=off", "full_page_writes=off"]);
    let unsafe_store = open(&server.url("postgres")).await.unwrap_err();
    let told = "the server of the control store is not safe to use: fsync is off, must be on; full_page_writes is off, \
                must be on";
    assert_eq!(unsafe_store.to_string(), told);
    at(&server.url("postgres"), "ALTER SYSTEM SET fsync = on").await;
    drop(server);

    let server = Server::start(&[]);
    let url = format!("postgres://postgres:s3cret@127.0.0.1:{}/postgres?sslmode=disable", server.port());
    let config = PostgresConfig::new(&*url);
    assert!(!format!("{config:?}").contains("s3cret"));
    let store = PostgresStore::open(&config, Arc::new(ManualClock::at(0))).await.unwrap();
    let missing = open(&server.url("nowhere")).await.unwrap_err();
    assert!(
        matches!(&missing, StoreError::Unavailable { hint, .. } if hint.contains("make the database")),
        "{missing}"
    );
    let begun = store.tx(&[]).await.unwrap();
    let pid = server.pid();
    drop(server);
    assert!(!std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists(), "the server ends with its test");
    let lost = begun.commit().await.unwrap_err();
    assert!(matches!(lost, StoreError::Unavailable { .. }), "{lost}");
    let away = store.now().await.unwrap_err();
    assert!(matches!(away, StoreError::Unavailable { .. }), "{away}");
    let refused = PostgresStore::open(&config, Arc::new(ManualClock::at(0))).await.unwrap_err();
    for error in [lost, away, refused] {
        assert!(matches!(&error, StoreError::Unavailable { hint, .. } if !hint.is_empty()), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
    }
    let garbled = PostgresConfig::new("postgres://u:s3cret@[::1/x");
    let garbled = PostgresStore::open(&garbled, Arc::new(ManualClock::at(0))).await.unwrap_err();
    assert!(!format!("{garbled} {garbled:?}").contains("s3cret"), "{garbled}");
    store.close().await;
}

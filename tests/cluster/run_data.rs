//! Data of runs in a cluster: what builders and gates find there, and what is left of it afterwards.

use serde_json::json;

use super::site::{Cluster, Size};
use super::{ONE, pending, text, until, work};
use crate::harness::postgres::Server;
use crate::harness::ran;

/// What the server for runs answers.
fn told(server: &Server, query: &str) -> String {
    let mut psql = std::process::Command::new("psql");
    let port = server.port().to_string();
    psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "autopack_runs", "-X", "-A", "-t", "-c", query]);
    ran(&psql.output().unwrap()).expect(0).stdout.trim().to_owned()
}

/// A run whose first phase makes a table, whose second adds to it, and whose gate counts.
fn file(run: &str) -> serde_json::Value {
    let psql = |sql: &str| format!("psql -qXAt -v ON_ERROR_STOP=1 \"$DATABASE_URL\" -c \"{sql}\"");
    let phase = |id: &str, before: &[&str], script: String| {
        json!({
            "id": id, "goal": "use a database", "category": "documentation",
            "scope": { "paths": [format!("examples/{run}-{id}.md")] },
            "builder": { "kind": "command", "argv": ["sh", "-ec", script] }, "depends_on": before,
            "gate": [{ "name": "rows", "run": format!("test $({}) -ge 1", psql("SELECT count(*) FROM t")) }],
        })
    };
    let make = psql("CREATE TABLE t (who text); INSERT INTO t SELECT current_user");
    let make = format!("{make}; echo \"$DATABASE_URL\"; echo one > examples/{run}-make.md");
    let add = format!(
        "{} > examples/{run}-add.md",
        psql("INSERT INTO t SELECT current_user RETURNING (SELECT min(who) FROM t)")
    );
    json!({ "run_id": run, "phases": [phase("make", &[], make), phase("add", &["make"], add)] })
}

/// The builder said its password aloud: nothing that was kept has it.
fn no_password_is_kept(cluster: &Cluster) {
    let dump = std::process::Command::new("pg_dump")
        .args(["-h", "127.0.0.1", "-p", &cluster.postgres.port().to_string(), "-U", "postgres", "postgres"])
        .output()
        .unwrap();
    let mut kept = ran(&dump).expect(0).stdout;
    assert!(kept.contains("aprd...["), "what the builder said was kept, as a stub");
    kept.push_str(&cluster.logs());
    let shown = kept.match_indices("aprd_").any(|(at, _)| kept[at + 5..].starts_with(|c: char| c.is_ascii_hexdigit()));
    assert!(!shown, "a password was kept");
}

/// A server with a database for runs, and its URL.
fn server() -> (Server, String) {
    let server = Server::start_guarded(&[]);
    let make = ran(&std::process::Command::new("psql")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &server.port().to_string(),
            "-U",
            "postgres",
            "-c",
            "CREATE DATABASE autopack_runs",
        ])
        .output()
        .unwrap());
    make.expect(0);
    let url = format!("postgres://postgres@127.0.0.1:{}/autopack_runs", server.port());
    (server, url)
}

#[test]
fn runs_that_wait_for_their_data_keep_no_other_waiting() {
    let (server, url) = server();
    let mut cluster = Cluster::start_for_runs(&Size { members: 1, supervisors: 1, workers: 0 }, &url);
    let known = || told(&server, "SELECT to_regclass('autopack.run_data') IS NOT NULL") == "t";
    assert!(until(ONE, known), "{}", cluster.logs());
    // It answers, and takes nothing: of all that wait, one finds out.
    let mut holds = std::process::Command::new("psql");
    let port = server.port().to_string();
    let lock = "BEGIN; LOCK TABLE autopack.run_data IN EXCLUSIVE MODE; SELECT pg_sleep(600)";
    holds.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "autopack_runs", "-X", "-c", lock]);
    let mut holds = holds.stdout(std::process::Stdio::null()).spawn().unwrap();
    let locked =
        "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'autopack.run_data'::regclass";
    assert!(until(ONE, || told(&server, locked) == "1"));
    let waiting = ["data-1", "data-2", "data-3", "data-4"];
    // All come into one pass of the director's.
    waiting.iter().for_each(|run| {
        cluster.ann.submit(&file(run)).expect(0);
    });
    cluster.join("w1", 0);
    cluster.join("w2", 0);
    let leases =
        |more: &str| cluster.number(&format!("SELECT count(*) FROM autopack.lease WHERE run_id LIKE 'data-%' {more}"));
    assert!(until(ONE, || leases("AND state NOT IN ('granting', 'held')") > 0), "{}", cluster.logs());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let seen = leases("");
    let _gone = holds.kill();
    let _ended = holds.wait();
    assert_eq!(seen, 1, "a server that fails is left alone:\n{}", cluster.logs());
    waiting.iter().for_each(|run| {
        cluster.ann.run(&["runs", "cancel", run]).expect(0);
    });
    // More than the gate lets in wait for what is away: none of them holds a place of it.
    drop(server);
    for run in ["away-1", "away-2", "away-3", "away-4", "away-5"] {
        cluster.ann.submit(&file(run)).expect(0);
    }
    cluster.ann.submit(&work::patch("plain")).expect(0);
    let done = || cluster.ann.ask(&["runs", "show", "plain"])["state"] == "SUCCEEDED";
    let why = || cluster.ann.ask(&["runs", "explain", "plain"]);
    assert!(until(ONE, done), "it waits for what it does not need: {:#}\n{}", why(), cluster.logs());
}

#[test]
fn a_run_has_its_database_from_phase_to_phase() {
    let (server, url) = server();
    let cluster = Cluster::start_for_runs(&Size { members: 1, supervisors: 2, workers: 2 }, &url);
    cluster.ann.submit(&file("first")).expect(0);
    let succeeded = |run: &str| cluster.ann.ask(&["runs", "show", run])["state"] == "SUCCEEDED";
    let done = || {
        for request in pending(&cluster.ann) {
            let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
            let _voted =
                cluster.bob.run(&["approvals", "approve", id, "--expect-digest", digest, "--reason", "read it"]);
        }
        succeeded("first")
    };
    assert!(
        until(ONE * 2, done),
        "it does not end:\n{}\n{:#}",
        cluster.logs(),
        cluster.ann.ask(&["runs", "explain", "first"])
    );
    let found = cluster.ann.run(&["runs", "diff", "first"]).expect(0).stdout;
    assert!(found.contains("+ap_run_a7937b64b8caa58f"), "the second phase reads what the first wrote: {found}");

    // Each lease had a login, and none is left on.
    let closed = || told(&server, "SELECT run, model, state FROM autopack.run_data") == "first|schema|closed";
    assert!(until(ONE, closed), "{}\n{}", told(&server, "SELECT * FROM autopack.run_data"), cluster.logs());
    assert_eq!(told(&server, "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ap\\_%' AND rolcanlogin"), "0");
    let epochs = told(&server, "SELECT epoch FROM autopack.run_data").parse::<i64>().unwrap();
    assert!(epochs >= 4, "two builds and two gates: {epochs}");

    no_password_is_kept(&cluster);

    // Without the server, runs that need it wait and say why; others go on.
    drop(server);
    cluster.ann.submit(&file("second")).expect(0);
    let waits = || {
        let told = cluster.ann.ask(&["runs", "explain", "second"]);
        told["blockers"].as_array().unwrap().iter().any(|b| b["kind"] == "run_data_unavailable")
    };
    assert!(until(ONE, waits), "{:#}", cluster.ann.ask(&["runs", "explain", "second"]));
    cluster.ann.submit(&work::patch("third")).expect(0);
    assert!(until(ONE, || succeeded("third")), "it waits for what it does not need:\n{}", cluster.logs());
    let leases = cluster.number("SELECT count(*) FROM autopack.lease WHERE run_id = 'second'");
    assert!(leases <= 1, "a server that is away costs no leases: {leases}");
}

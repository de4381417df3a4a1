//! Services that are absent, slow, unsafe, of another cluster or of an older state: a supervisor that starts with one
//! says why it does not, with a stable reason, in time; none of it is waited for without end.

use std::net::TcpListener;

use crate::harness::etcd::Etcd;
use crate::harness::postgres::Server;
use crate::harness::wire::Wire;
use crate::harness::{Bench, Ran, ran};

/// Seconds that a refusal may take on a machine that does much else; without services, a few are usual.
const DEADLINE: &str = "60";

/// What a case starts a supervisor with.
struct Case<'a> {
    what: &'a str,
    database: String,
    etcd: String,
    /// Exit code and reason.
    ends: (i32, &'a str),
    /// What the message has to name.
    names: &'a str,
}

fn folder() -> Bench {
    let bench = Bench::empty();
    let tokens = bench.path().join("tokens").display().to_string();
    let args = ["token", "new", "--name", "ann", "--role", "person", "--tokens", &tokens, "-q"];
    bench.run_in(bench.path(), &args, &[]).expect(0);
    bench
}

/// Starts a supervisor; it has to end by itself.
fn start(bench: &Bench, database: &str, etcd: &str) -> Ran {
    start_as(bench, database, etcd, &[])
}

/// The same, with more arguments.
fn start_as(bench: &Bench, database: &str, etcd: &str, more: &[&str]) -> Ran {
    let mut command = std::process::Command::new("timeout");
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", bench.path()).env("AUTOPACK_DATABASE_URL", database);
    command.args(["-k", "5", DEADLINE, env!("CARGO_BIN_EXE_autopack"), "supervisor", "--id", "s1"]);
    command.args(["--listen", "127.0.0.1:0", "--etcd", etcd, "--state-dir"]).arg(bench.path().join("s1"));
    command.arg("--tokens").arg(bench.path().join("tokens")).args(more).current_dir(bench.path());
    ran(&command.output().unwrap())
}

fn psql(server: &Server, database: &str, sql: &str) {
    let port = server.port().to_string();
    let mut psql = std::process::Command::new("psql");
    psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", database, "-X", "-q"]);
    ran(&psql.args(["-v", "ON_ERROR_STOP=1", "-c", sql]).output().unwrap()).expect(0);
}

/// A port that takes connections and never says a word.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port at which nobody listens.
fn closed() -> u16 {
    silent().1
}

fn put(etcd: &Etcd, key: &str, value: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect(etcd.endpoints(), None).await.unwrap();
        client.put(key, value, None).await.unwrap();
    });
}

/// A case in one line.
fn case<'a>(what: &'a str, database: String, etcd: &str, ends: (i32, &'a str), names: &'a str) -> Case<'a> {
    Case { what, database, etcd: etcd.to_owned(), ends, names }
}

#[test]
fn a_supervisor_says_why_it_does_not_start() {
    let (bench, server, etcd) = (folder(), Server::start(&[]), Etcd::start(1));
    let (_quiet, quiet) = silent();
    let at = |port: u16, name: &str| format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
    let here = |name: &str| at(server.port(), name);
    let (url, http) = (etcd.endpoints().remove(0), |port: u16| format!("http://127.0.0.1:{port}"));
    let nowhere = http(closed());
    for name in ["newer", "readonly", "theirs"] {
        psql(&server, "postgres", &format!("CREATE DATABASE {name}"));
        // The schema is made first: every start gets as far as the wrong etcd.
        start(&bench, &here(name), &nowhere).expect(7);
    }
    psql(&server, "newer", "INSERT INTO autopack.migration VALUES (9999, 'of tomorrow', '\\x00', 9999)");
    psql(&server, "postgres", "ALTER DATABASE readonly SET default_transaction_read_only = on");
    put(&etcd, "/autopack/v1/autopack/meta/incarnation", r#"{"incarnation":1,"cluster":"another"}"#);
    let (away, unsafe_config) = ((7, "unavailable"), (78, "unsafe_config"));
    let cases = [
        case("no database server", at(closed(), "x"), &url, away, "store"),
        case("a silent one", at(quiet, "x"), &url, away, "store"),
        case("no such database", here("nothing"), &url, away, "nothing"),
        case("a read-only one", here("readonly"), &url, away, "read-only"),
        case("a newer schema", here("newer"), &url, (2, "version"), "9999"),
        case("no etcd", here("theirs"), &nowhere, away, "etcd"),
        case("a silent etcd", here("theirs"), &http(quiet), away, "etcd"),
        case("another cluster's etcd", here("theirs"), &url, (78, "cluster_mismatch"), "another"),
        case("no URL", "not a url".to_owned(), &url, away, "URL"),
    ];
    for case in &cases {
        says(case, &start(&bench, &case.database, &case.etcd));
    }
    psql(&server, "postgres", "ALTER SYSTEM SET fsync = off");
    psql(&server, "postgres", "SELECT pg_reload_conf()");
    let case = case("an unsafe server", here("theirs"), &url, unsafe_config, "fsync");
    says(&case, &start(&bench, &case.database, &case.etcd));
}

#[test]
fn one_database_is_of_one_cluster() {
    let (bench, server) = (folder(), Server::start(&[]));
    let database = format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", server.port());
    let nowhere = format!("http://127.0.0.1:{}", closed());
    let other = ["--cluster-id", "other"];
    // Whoever comes first gives it its name, and gets as far as its etcd.
    start(&bench, &database, &nowhere).expect(7);
    let refused = start_as(&bench, &database, &nowhere, &other).expect(78);
    assert!(refused.stderr.starts_with("error[cluster_mismatch]"), "{refused:?}");
    assert!(refused.stderr.contains("under the name autopack, these under other"), "{refused:?}");
    start(&bench, &database, &nowhere).expect(7);
}

#[test]
fn servers_that_are_too_old_are_named_with_their_version() {
    let (bench, server, etcd) = (folder(), Server::start(&[]), Etcd::start(1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let at = |port: u16| format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    // The servers are as they are; who asks hears that they are older, in the form in which a number is sent.
    let port = server.port().to_string();
    let mut psql = std::process::Command::new("psql");
    psql.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-X", "-A", "-t", "-c", "SHOW server_version_num"]);
    let version: i64 = ran(&psql.output().unwrap()).expect(0).stdout.trim().parse().unwrap();
    let old = runtime.block_on(Wire::instead(server.port(), &version.to_be_bytes(), &130_009_i64.to_be_bytes()));
    let url = etcd.endpoints().remove(0);
    let refused = start(&bench, &at(old.port()), &url);
    says(&case("an old database server", String::new(), &url, (78, "unsafe_config"), "130009"), &refused);
    let older = runtime.block_on(Wire::instead(etcd.port(0), b"3.4.", b"3.3."));
    let refused = start(&bench, &at(server.port()), &older.endpoints()[0]);
    says(&case("an old etcd", String::new(), &url, (2, "version"), "3.3."), &refused);
}

/// One line of what, one of why, one of what to do; and never the URL, which may hold a password.
fn says(case: &Case<'_>, ran: &Ran) {
    let (code, reason) = case.ends;
    assert_eq!(ran.code, code, "{}: {ran:?}", case.what);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(lines[0].starts_with(&format!("error[{reason}]")), "{}: {ran:?}", case.what);
    assert!(lines.len() == 3 && lines.iter().all(|line| !line.trim().is_empty()), "{}: {ran:?}", case.what);
    assert!(ran.stderr.contains(case.names), "{}: {ran:?}", case.what);
    assert!(!ran.stderr.contains("postgres@"), "{}: {ran:?}", case.what);
}

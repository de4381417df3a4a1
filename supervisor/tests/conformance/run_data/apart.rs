//! What one run can reach: its own, and nothing of others.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_reach_their_own_data_and_no_other() {
    let rig = Rig::start(&["log_statement=all"]).await;
    let (one, two) = (stint("one", 1), stint("two", 1));
    let (mut first, mut second) = (prepared(&rig, &one).await, prepared(&rig, &two).await);
    assert_eq!(number(&mut first, "SELECT sum(n)::bigint FROM t").await, Ok(1));
    run(&mut second, "UPDATE t SET n = 2; CREATE TEMP TABLE mine (n integer)").await.unwrap();
    assert_eq!(number(&mut first, "SELECT sum(n)::bigint FROM t").await, Ok(1), "each has a table t of its own");

    let (theirs, login) = (place("one"), SqlNames::of(&one.run).login(one.token));
    let denied = "42501";
    for (sql, wanted) in [
        (format!("SELECT * FROM {theirs}.t"), denied),
        (format!("INSERT INTO {theirs}.t VALUES (7)"), denied),
        (format!("CREATE TABLE {theirs}.x (n integer)"), denied),
        (format!("DROP SCHEMA {theirs} CASCADE"), denied),
        (format!("SET ROLE {theirs}"), denied),
        (format!("SET ROLE {login}"), denied),
        (format!("SET ROLE NONE; SET ROLE {theirs}"), denied),
        (format!("SET SESSION AUTHORIZATION {login}"), denied),
        (format!("GRANT {theirs} TO CURRENT_USER"), denied),
        (format!("ALTER ROLE {login} PASSWORD 'x'"), denied),
        (format!("ALTER ROLE {theirs} LOGIN"), denied),
        ("CREATE ROLE x".to_owned(), denied),
        ("CREATE DATABASE x".to_owned(), denied),
        ("CREATE SCHEMA x".to_owned(), denied),
        ("CREATE TABLE public.x (n integer)".to_owned(), denied),
        ("CREATE EXTENSION plperl".to_owned(), "0A000 42501 58P01"),
        ("SELECT * FROM autopack.run_server".to_owned(), denied),
        ("UPDATE autopack.run_data SET epoch = 0".to_owned(), denied),
        ("SELECT * FROM pg_authid".to_owned(), denied),
        ("SELECT pg_read_file('/etc/passwd')".to_owned(), denied),
        ("COPY (SELECT 1) TO PROGRAM 'true'".to_owned(), denied),
        ("ALTER SYSTEM SET fsync = off".to_owned(), denied),
        (format!("SET search_path = {theirs}; SELECT * FROM t"), "42P01"),
    ] {
        let mut session = rig.session(&two).await;
        let told = run(&mut session, &sql).await.expect_err(&sql);
        assert!(wanted.contains(&told), "{sql}: {told}");
    }
    // Its own schema is its own, and all it can do to its login does not reach further.
    run(&mut second, "RESET ROLE; ALTER TABLE t ADD m integer; CREATE INDEX ON t (m)").await.unwrap();
    assert_eq!(
        run(&mut second, &format!("ALTER ROLE {} CONNECTION LIMIT 99", login2(&two))).await,
        Err(denied.to_owned())
    );

    let options = rig.options(&two).await;
    let as_other = options.clone().username(&login).connect().await.unwrap_err();
    assert_eq!(code(&as_other), "28P01", "another login needs another password");
    for database in ["control"] {
        let refused = options.clone().database(database).connect().await.unwrap_err();
        assert_eq!(code(&refused), denied, "{database}");
    }
    let password = rig.databases.url(&two).await.unwrap().0;
    let password = password.split(['@', ':']).nth(2).unwrap();
    assert!(password.len() > 60 && !rig.server.log().contains(password), "a statement shows the password");
    assert!(rig.server.log().contains(&login), "and the log has its statements");
}

fn login2(stint: &Stint) -> String {
    SqlNames::of(&stint.run).login(stint.token)
}

/// A session of a run with a table `t` that holds 1.
async fn prepared(rig: &Rig, stint: &Stint) -> PgConnection {
    rig.databases.has_room(&stint.run).await.unwrap();
    rig.databases.provision(stint).await.unwrap();
    let mut session = rig.session(stint).await;
    run(&mut session, "CREATE TABLE t (n integer); INSERT INTO t VALUES (1)").await.unwrap();
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_has_so_many_connections() {
    let rig = Rig::start(&[]).await;
    let one = stint("one", 1);
    rig.databases.provision(&one).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(rig.session(&one).await);
    }
    assert_eq!(code(&rig.options(&one).await.connect().await.unwrap_err()), "53300");
    drop(sessions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_its_own_is_closed_to_others() {
    let server = Server::start_guarded(&[]);
    // Not a superuser: what docs/CLUSTER.md asks for is enough.
    at(&server.url("postgres"), "CREATE ROLE keeper LOGIN CREATEROLE CREATEDB; GRANT pg_signal_backend TO keeper;")
        .await;
    let rig = Rig::start_with(server, |config| config).await;
    at(&rig.server.url("postgres"), "CREATE DATABASE kept OWNER keeper").await;
    let own = PostgresRunDatabases::open(config(&rig.server, "keeper", "kept"), rig.control.clone()).await.unwrap();
    let rig = Rig { databases: own, ..rig };

    let (one, two, three) = (whole("one", 1), whole("two", 1), stint("three", 1));
    let mut sessions = Vec::new();
    for stint in [&one, &two, &three] {
        sessions.push(prepared(&rig, stint).await);
    }
    run(&mut sessions[0], "CREATE SCHEMA more; CREATE TABLE more.t (n integer)").await.unwrap();
    for (own, other) in [(&one, &two), (&two, &one), (&three, &one)] {
        let elsewhere = rig.options(own).await.database(&place(other.run.as_str()));
        assert_eq!(code(&elsewhere.connect().await.unwrap_err()), "42501", "{own:?}");
        let mut link = rig.session(own).await;
        assert_eq!(run(&mut link, "CREATE DATABASE x").await, Err("42501".to_owned()));
    }
    // The next epoch: the old one's session ends in the middle of what it does, and what it did before is there.
    run(&mut sessions[0], "BEGIN; INSERT INTO t VALUES (666)").await.unwrap();
    let next = whole("one", 2);
    let begin = tokio::time::Instant::now();
    rig.databases.provision(&next).await.unwrap();
    println!("{:.1?} to take over", begin.elapsed());
    assert!(run(&mut sessions[0], "COMMIT").await.is_err());
    assert_eq!(code(&rig.options(&one).await.connect().await.unwrap_err()), "28000");
    let mut session = rig.session(&next).await;
    assert_eq!(number(&mut session, "SELECT sum(n)::bigint FROM t").await, Ok(1));
    run(&mut session, "INSERT INTO t VALUES (2); DROP TABLE more.t").await.unwrap();

    // What was a database does not go on as a schema.
    let changed = rig.databases.provision(&stint("one", 3)).await;
    assert!(matches!(changed, Err(RunDataError::Taken(_))), "{changed:?}");
    for stint in [&next, &two, &three] {
        rig.databases.retire(&stint.run, stint.token).await.unwrap();
    }
    let over = rig.databases.idle(Duration::ZERO).await.unwrap();
    assert_eq!(rig.databases.collect(&over).await.unwrap(), 3);
    assert_eq!(rig.count("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'ap\\_%'").await, 0);
    assert_eq!(rig.count("postgres", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ap\\_%'").await, 0);
    assert_eq!(rig.count("kept", "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'ap\\_%'").await, 0);
}

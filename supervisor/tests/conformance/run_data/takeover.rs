//! What is left of an epoch when the next one begins: nothing that can write.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_is_ended_and_does_not_come_back() {
    let rig = Rig::start(&[]).await;
    let (old, new) = (stint("one", 1), stint("one", 2));
    let databases = &rig.databases;
    databases.provision(&old).await.unwrap();
    let mut writing = rig.session(&old).await;
    run(&mut writing, "CREATE TABLE t (n integer); INSERT INTO t VALUES (1)").await.unwrap();
    run(&mut writing, "BEGIN; INSERT INTO t VALUES (666)").await.unwrap();
    // One that has taken its role and does nothing, and one that keeps its own row of the catalogue to itself: the role
    // cannot be changed before that one is gone.
    let mut idle = rig.session(&old).await;
    run(&mut idle, &format!("SET ROLE {}", place("one"))).await.unwrap();
    let mut stubborn = rig.session(&old).await;
    run(&mut stubborn, "BEGIN; SET ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'mine'").await.unwrap();

    databases.provision(&new).await.unwrap();
    assert!(run(&mut writing, "INSERT INTO t VALUES (667); COMMIT").await.is_err());
    assert!(run(&mut idle, "INSERT INTO t VALUES (668)").await.is_err());
    assert!(run(&mut stubborn, "COMMIT").await.is_err());
    assert_eq!(code(&rig.options(&old).await.connect().await.unwrap_err()), "28000", "it may not log in");
    let mut session = rig.session(&new).await;
    assert_eq!(number(&mut session, "SELECT sum(n)::bigint FROM t").await, Ok(1), "and what it had begun is undone");
    run(&mut session, "INSERT INTO t VALUES (2)").await.unwrap();

    // A director that slept through all of it.
    assert!(is_fenced(databases.provision(&old).await));
    databases.retire(&old.run, old.token).await.unwrap();
    assert_eq!(code(&rig.options(&old).await.connect().await.unwrap_err()), "28000");
    assert_eq!(number(&mut session, "SELECT sum(n)::bigint FROM t").await, Ok(3), "the new session lives on");
    assert_eq!(databases.open().await.unwrap(), [(new.run.clone(), new.token)]);

    // Said again, by whoever sends the grant once more: nothing changes for who works with it.
    databases.provision(&new).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (3)").await.unwrap();
    rig.session(&new).await;
    // A role that was taken away does not end a session: that is why sessions are ended.
    databases.retire(&new.run, new.token).await.unwrap();
    assert!(run(&mut session, "INSERT INTO t VALUES (4)").await.is_err());
    assert!(is_fenced(databases.provision(&new).await), "what has ended does not begin again");
    assert!(databases.open().await.unwrap().is_empty());

    databases.provision(&stint("one", 3)).await.unwrap();
    let mut session = rig.session(&stint("one", 3)).await;
    assert_eq!(number(&mut session, "SELECT sum(n)::bigint FROM t").await, Ok(6));
    let left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ap\\_%\\_e%'";
    assert_eq!(rig.count("postgres", left).await, 1, "logins of epochs long past are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_was_cut_off_is_made_whole() {
    let rig = Rig::start(&[]).await;
    let databases = &rig.databases;
    for (epoch, millis) in [(1, 1), (2, 4), (3, 10), (4, 25), (5, 60), (6, 150)] {
        let one = stint("one", epoch);
        // Wherever it is cut: the director died there.
        let _cut = tokio::time::timeout(Duration::from_millis(millis), databases.provision(&one)).await;
        databases.provision(&one).await.unwrap();
        let mut session = rig.session(&one).await;
        run(&mut session, "CREATE TABLE IF NOT EXISTS t (n integer); INSERT INTO t VALUES (1)").await.unwrap();
        let rows = number(&mut session, "SELECT count(*) FROM t").await;
        assert_eq!(rows, Ok(i64::try_from(epoch).unwrap()));
    }
    let on = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ap\\_%' AND rolcanlogin";
    assert_eq!(rig.count("postgres", on).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_outlived_its_login_is_found() {
    let rig = Rig::start(&[]).await;
    let one = stint("one", 1);
    rig.databases.provision(&one).await.unwrap();
    let mut session = rig.session(&one).await;
    run(&mut session, "CREATE TABLE t (n integer)").await.unwrap();
    assert_eq!(rig.databases.sweep().await.unwrap(), 0, "who may log in may stay");
    // As one that was on its way in.
    let login = SqlNames::of(&one.run).login(one.token);
    at(&rig.server.url("postgres"), &format!("ALTER ROLE {login} NOLOGIN; REVOKE {} FROM {login}", place("one"))).await;
    run(&mut session, "INSERT INTO t VALUES (1)").await.expect("the role is set already");
    assert_eq!(rig.databases.sweep().await.unwrap(), 1);
    assert!(run(&mut session, "INSERT INTO t VALUES (2)").await.is_err());
}

//! What ended runs leave is removed in small batches, whatever is among it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ended_runs_are_removed_in_batches() {
    let server = Server::start_guarded(&[]);
    let rig = Rig::start_with(server, |config| RunDatabaseConfig { limit: 122, ..config }).await;
    let databases = &rig.databases;
    let runs: Vec<Stint> = (0..120).map(|n| stint(&format!("run-{n}"), 1)).collect();
    let begin = tokio::time::Instant::now();
    for one in &runs {
        databases.provision(one).await.unwrap();
    }
    println!("{:.1?} for each of {} logins", begin.elapsed() / 120, runs.len());
    let mut session = rig.session(&runs[0]).await;
    run(&mut session, "CREATE TABLE t (n serial PRIMARY KEY, x text); CREATE VIEW v AS SELECT * FROM t").await.unwrap();
    run(&mut session, "SELECT lo_create(0); GRANT SELECT ON t TO PUBLIC").await.unwrap();
    // In the way: something of its own in a database that is none of ours.
    at(
        &rig.server.url("postgres"),
        &format!("CREATE TABLE public.x (); ALTER TABLE public.x OWNER TO {}", place("run-7")),
    )
    .await;
    let (busy, last) = (stint("busy", 1), stint("last", 1));
    databases.provision(&busy).await.unwrap();
    databases.provision(&last).await.unwrap();
    let full = databases.provision(&stint("one-more", 1)).await;
    assert!(matches!(full, Err(RunDataError::Full { limit: 122 })), "{full:?}");
    assert!(matches!(databases.has_room(&RunId::new("one-more").unwrap()).await, Err(RunDataError::Full { .. })));
    databases.has_room(&last.run).await.expect("who is there already may go on");

    for one in &runs {
        databases.retire(&one.run, one.token).await.unwrap();
    }
    assert!(databases.idle(Duration::from_secs(3600)).await.unwrap().is_empty(), "not before its time");
    let mut over = databases.idle(Duration::ZERO).await.unwrap();
    assert_eq!(over.len(), 120);
    // One that still works is left alone whoever says what.
    over.push(busy.run.clone());
    let begin = tokio::time::Instant::now();
    assert_eq!(databases.collect(&over).await.unwrap(), 119);
    println!("{:.1?} to remove them", begin.elapsed());
    assert_eq!(databases.idle(Duration::ZERO).await.unwrap(), [runs[7].run.clone()]);
    let sizes =
        "SELECT max(n) FROM (SELECT count(*) AS n FROM autopack.run_data WHERE state = 'gone' GROUP BY xmin::text) s";
    let largest = rig.count("autopack_runs", sizes).await;
    assert!((1..=50).contains(&largest), "{largest} in one transaction");
    let kept = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'ap\\_run\\_%'";
    assert_eq!(rig.count("autopack_runs", kept).await, 3);
    let roles = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ap\\_%'";
    assert_eq!(rig.count("autopack_runs", roles).await, 6, "an owner and a login each");
    assert_eq!(rig.count("autopack_runs", "SELECT count(*) FROM pg_largeobject_metadata").await, 0);

    at(&rig.server.url("postgres"), "DROP TABLE public.x").await;
    assert_eq!(databases.collect(&[runs[7].run.clone()]).await.unwrap(), 1);
    assert!(is_fenced(databases.provision(&runs[0]).await), "an old epoch does not bring it back");
    let again = stint("run-0", 2);
    databases.provision(&again).await.unwrap();
    let mut session = rig.session(&again).await;
    assert_eq!(number(&mut session, "SELECT count(*) FROM t").await, Err("42P01".to_owned()), "empty");
    rig.session(&busy).await;
}

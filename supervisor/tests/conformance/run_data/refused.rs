//! Servers that do not keep runs apart are not used.

use super::*;

fn told(answer: RunDataResult<PostgresRunDatabases>) -> String {
    match answer {
        Err(RunDataError::Unsafe(why)) => why,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it is used"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_not_safe_is_refused() {
    let server = Server::start_guarded(&[]);
    let place = control(&server).await;
    at(&server.url("postgres"), "CREATE DATABASE runs").await;
    let open_it = |config, control| PostgresRunDatabases::open(config, control);
    let own = told(open_it(config(&server, "postgres", "control"), place.clone()).await);
    assert!(own.contains("the control store's own database"), "{own}");
    let ajar = ControlPlace { open: Some("REVOKE it".to_owned()), ..place.clone() };
    let ajar = told(open_it(config(&server, "postgres", "runs"), ajar).await);
    assert!(ajar.contains("REVOKE it"), "{ajar}");
    open_it(config(&server, "postgres", "runs"), place.clone()).await.unwrap();
    let other = ControlPlace { cluster: "c2".to_owned(), ..place.clone() };
    let other = told(open_it(config(&server, "postgres", "runs"), other).await);
    assert!(other.contains("another control store (c1)"), "{other}");
    at(&server.url("postgres"), "CREATE ROLE weak LOGIN").await;
    at(&server.url("postgres"), "CREATE DATABASE weak OWNER weak").await;
    let weak = told(open_it(config(&server, "weak", "weak"), place.clone()).await);
    assert!(weak.contains("CREATEROLE"), "{weak}");
    let socket = RunDatabaseConfig { host: None, ..config(&server, "postgres", "runs") };
    assert!(told(open_it(socket, place.clone()).await).contains("--run-database-host"));

    // Everybody may be anybody there.
    let trusting = Server::start(&[]);
    let place = control(&trusting).await;
    at(&trusting.url("postgres"), "CREATE DATABASE runs").await;
    let trusting = told(open_it(config(&trusting, "postgres", "runs"), place).await);
    assert!(trusting.contains("scram-sha-256"), "{trusting}");

    // One that is away is used when it is back; until then it says so.
    let away = RunDatabaseConfig::new("postgres://postgres@127.0.0.1:1/runs");
    let databases = open_it(away, ControlPlace { system: "x".to_owned(), ..control_of_nobody() }).await.unwrap();
    let answer = databases.has_room(&RunId::new("one").unwrap()).await;
    assert!(matches!(answer, Err(RunDataError::Unavailable { .. })), "{answer:?}");
}

fn control_of_nobody() -> ControlPlace {
    ControlPlace { system: String::new(), database: 0, cluster: "c1".to_owned(), open: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_store_is_closed_to_roles_that_were_not_named() {
    let server = Server::start_guarded(&[]);
    at(&server.url("postgres"), "CREATE ROLE stranger LOGIN; CREATE ROLE plain LOGIN").await;
    at(&server.url("postgres"), "CREATE DATABASE lent").await;
    let stranger = |database: &str| server.url(database).replacen("postgres@", "stranger@", 1);
    stranger("lent").parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    let place = control(&server).await;
    assert_eq!(place.open, None);
    let refused = stranger("control").parse::<PgConnectOptions>().unwrap().connect().await.unwrap_err();
    assert_eq!(code(&refused), "42501");

    // A user that does not own its database cannot close it, and is told what its owner has to do.
    at(
        &server.url("lent"),
        "GRANT CREATE ON DATABASE lent TO plain; GRANT EXECUTE ON FUNCTION pg_control_system() TO plain",
    )
    .await;
    let store = open(&server.url("lent").replacen("postgres@", "plain@", 1)).await.unwrap();
    let why = store.close_to_others().await.unwrap().open.unwrap();
    assert!(
        why.contains("REVOKE CONNECT ON DATABASE lent FROM PUBLIC; GRANT CONNECT ON DATABASE lent TO plain"),
        "{why}"
    );
    let mut link = server.url("lent").parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    query("REVOKE CONNECT ON DATABASE lent FROM PUBLIC").execute(&mut link).await.unwrap();
    query("GRANT CONNECT ON DATABASE lent TO plain").execute(&mut link).await.unwrap();
    assert_eq!(store.close_to_others().await.unwrap().open, None);
}

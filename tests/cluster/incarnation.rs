//! `admin new-incarnation`: a store that was restored goes on, and a cluster gets another name.

use std::process::Command;

use git2::Repository;

use super::services::ends;
use super::site::Cluster;
use super::{ONE, text, until, work};

/// Runs what is run while the supervisors are stopped.
fn renew(cluster: &Cluster, more: &[&str]) -> crate::harness::Ran {
    renew_at(cluster, "postgres", more)
}

/// The same over another database of the server.
fn renew_at(cluster: &Cluster, database: &str, more: &[&str]) -> crate::harness::Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_autopack"));
    command.args(["admin", "new-incarnation", "--reason", "restored to noon", "-o", "json"]).args(more);
    command.args(cluster.etcd.endpoints().iter().flat_map(|url| ["--etcd".to_owned(), url.clone()]));
    command.arg("--state-dir").arg(cluster.folder().join("admin")).env_clear();
    let url = format!("postgres://postgres@{}:{}/{database}", cluster.postgres.host(), cluster.postgres.port());
    crate::harness::ran(&command.env("AUTOPACK_DATABASE_URL", url).env("PATH", "/usr/bin:/bin").output().unwrap())
}

#[test]
fn a_restored_store_goes_on_as_a_new_incarnation() {
    let mut cluster = Cluster::start(1, 1, 1);
    cluster.ann.submit(&work::patch("first")).expect(0);
    ends(&cluster, "first");
    let alive = renew(&cluster, &[]).expect(6);
    assert!(alive.stderr.contains("stop every supervisor first"), "{}", alive.stderr);
    cluster.supervisors[0].terminate();
    assert!(until(ONE, || cluster.supervisors[0].ended().is_some()), "it stays:\n{}", cluster.logs());
    // As after a restore: the hub has seen later directors, and a commit of a run that the store lost.
    let repo = Repository::open(cluster.hub()).unwrap();
    let later = repo.blob(b"1 99\n").unwrap();
    repo.reference("refs/autopack/fence", later, true, "a later director").unwrap();
    let main = repo.find_reference("refs/heads/main").unwrap().peel_to_commit().unwrap();
    let who = git2::Signature::now("autopack", "apply@cluster").unwrap();
    let lost = repo.commit(None, &who, &who, "run lost, apply 1234\n", &main.tree().unwrap(), &[&main]).unwrap();
    repo.reference("refs/heads/autopack/lost", lost, false, "").unwrap();
    let on = repo.find_reference("refs/heads/autopack/first").unwrap().peel_to_commit().unwrap();
    let more = repo.commit(None, &who, &who, "run first, apply 99\n", &on.tree().unwrap(), &[&on]).unwrap();
    repo.reference("refs/heads/autopack/first", more, true, "").unwrap();

    let dry = renew(&cluster, &["--dry-run"]).expect(0).json();
    assert_eq!(
        (dry["before"].as_u64(), dry["after"].as_u64(), dry["written"].as_bool()),
        (Some(1), Some(2), Some(false))
    );
    cluster.supervisors[0].revive();
    assert!(until(ONE, || cluster.supervisors[0].ended() == Some(78)), "a dry run is dry:\n{}", cluster.logs());
    let done = renew(&cluster, &[]).expect(0).json();
    assert_eq!((done["etcd"].as_u64(), done["after"].as_u64()), (Some(1), Some(2)), "{done}");
    let foreign: Vec<(&str, &str)> = done["foreign"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert_eq!(one["commits"].as_array().unwrap().len(), 1, "{one}");
            (text(one, "ref"), text(&one["commits"][0], "text"))
        })
        .collect();
    assert_eq!(
        foreign,
        [("refs/heads/autopack/first", "run first, apply 99"), ("refs/heads/autopack/lost", "run lost, apply 1234"),]
    );
    cluster.supervisors[0].revive();
    cluster.supervisors[0].is_up();
    assert!(until(ONE, || cluster.ann.submit(&work::patch("second")).code == 0), "{}", cluster.logs());
    ends(&cluster, "second");
    let kept = cluster.ann.run(&["audit", "query", "--op", "hub.foreign", "-o", "json"]).expect(0).stdout;
    assert!(kept.contains("refs/heads/autopack/lost") && kept.contains("restored to noon"), "{kept}");
    cluster.ann.run(&["audit", "verify"]).expect(0);
}

#[test]
fn a_cluster_gets_another_name_only_when_that_is_asked_for_and_nobody_is_alive() {
    let mut cluster = Cluster::start(1, 1, 0);
    let named = || cluster.sql("SELECT coordination, incarnation FROM autopack.cluster").remove(0);
    assert_eq!(named(), "autopack|1");
    // Nobody is alive under the other name.
    let other = renew(&cluster, &["--cluster-id", "other"]).expect(2);
    assert!(other.stderr.contains("autopack") && other.stderr.contains("--rename"), "{}", other.stderr);
    let alive = renew(&cluster, &["--cluster-id", "other", "--rename"]).expect(6);
    assert!(alive.stderr.contains("stop every supervisor first"), "{}", alive.stderr);
    assert_eq!(named(), "autopack|1", "what was refused was not done");
    cluster.supervisors[0].terminate();
    assert!(until(ONE, || cluster.supervisors[0].ended().is_some()), "it stays:\n{}", cluster.logs());
    let named = || cluster.sql("SELECT coordination, incarnation FROM autopack.cluster").remove(0);

    // A dry run writes nothing at all: neither what a supervisor tidies up, nor a schema where there is none.
    cluster.sql(&format!(
        "INSERT INTO autopack.idem SELECT 'x', 'x', 'x', {}, '', now() - interval '30 days'",
        "decode(repeat('00', 32), 'hex')"
    ));
    let dry = renew(&cluster, &["--cluster-id", "other", "--rename", "--dry-run"]).expect(0).json();
    assert_eq!((text(&dry, "cluster_id_before"), text(&dry, "cluster_id")), ("autopack", "other"));
    assert_eq!((named().as_str(), cluster.number("SELECT count(*) FROM autopack.idem")), ("autopack|1", 1));
    cluster.sql("CREATE DATABASE empty");
    let empty = renew_at(&cluster, "empty", &["--dry-run"]);
    assert_ne!(empty.code, 0, "{empty:?}");
    let made = renew_at(&cluster, "empty", &["--dry-run"]);
    assert!(made.stderr.contains("schema"), "the first one made nothing: {}", made.stderr);

    renew(&cluster, &["--cluster-id", "other", "--rename"]).expect(0);
    assert_eq!(named(), "other|2");
    // Under both names the life before it is over.
    let stands = |name: &str| cluster.etcd_keys(&format!("/autopack/v1/{name}/")).into_iter().map(|(_, value)| value);
    for name in ["autopack", "other"] {
        assert!(stands(name).any(|value| value.contains("\"incarnation\":2")), "{name}");
    }
    cluster.supervisors[0].revive();
    assert!(until(ONE, || cluster.supervisors[0].ended() == Some(78)), "it goes on:\n{}", cluster.logs());
    assert!(cluster.supervisors[0].told().contains("error[cluster_mismatch]"), "{}", cluster.logs());
}

#[test]
fn who_was_left_behind_by_another_name_does_not_direct() {
    let mut cluster = Cluster::start(1, 2, 0);
    let director = cluster.director();
    let other = 1 - director;
    cluster.sql("UPDATE autopack.cluster SET coordination = 'other'");
    let epoch = "SELECT epoch FROM autopack.fence WHERE scope = 'director'";
    let before = cluster.number(epoch);
    cluster.supervisors[director].kill();
    assert!(until(ONE, || cluster.supervisors[other].ended().is_some()), "it goes on:\n{}", cluster.logs());
    assert_eq!(cluster.number(epoch), before, "it raised nothing:\n{}", cluster.logs());
}

//! etcd in trouble: renewals that do not arrive, members that die or freeze, all of it gone.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use autopack_supervisor::coordination::{CoordinationError, Directorship, Renewal};

use super::coordinator::{Cluster as _, SOON, is_taken, locks, open, owner, until};
use super::etcd::{EtcdCluster, timers};
use crate::harness::wire::Wire;

const DIRECTOR: &str = "/autopack/v1/c-1/director";

fn leads(now: &Directorship) -> bool {
    matches!(now, Directorship::Leading { .. })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_that_cannot_renew_steps_down_before_its_key_is_gone() {
    let cluster = EtcdCluster::of(1, timers(5));
    let wire = Wire::to(cluster.etcd.port(0)).await;
    let mut config = cluster.config("r-1");
    config.endpoints = wire.endpoints();
    let (first, second) = (cluster.join(&config).await.unwrap(), cluster.member("r-2").await);
    let mut client = cluster.outsider().await;
    first.campaign("r-1").await.unwrap();
    let mine = owner("w-1", "s-1", 1);
    open(&first, &mine).await;
    let created = client.get(DIRECTOR, None).await.unwrap().kvs()[0].create_revision();
    let mut known = first.directorship();
    wire.hold();
    timeout(SOON, known.wait_for(|now| !leads(now))).await.unwrap().unwrap();
    let stands = client.get(DIRECTOR, None).await.unwrap();
    assert_eq!(stands.kvs().first().map(etcd_client::KeyValue::create_revision), Some(created), "too late");
    assert!(!first.is_director().await.unwrap(), "it knows without asking");
    // The others wait until the key is gone, and only then.
    assert!(is_taken(&second.campaign("r-2").await));
    until(SOON, async || second.campaign("r-2").await, Result::is_ok).await;
    assert!(!leads(&known.borrow()));
    // Whatever the old one still has to say changes nothing.
    wire.release();
    let refused = async || first.campaign("r-1").await;
    until(SOON, refused, is_taken).await;
    first.resign().await.unwrap();
    assert!(second.is_director().await.unwrap());
    assert!(!first.renew_session(&mine.worker, &mine.session).await.unwrap().is_kept());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_silence_is_no_reason_to_step_down() {
    let cluster = EtcdCluster::of(1, timers(10));
    let wire = Wire::to(cluster.etcd.port(0)).await;
    let mut config = cluster.config("r-1");
    config.endpoints = wire.endpoints();
    let first = cluster.join(&config).await.unwrap();
    first.campaign("r-1").await.unwrap();
    let mut known = first.directorship();
    known.mark_unchanged();
    wire.hold();
    // Longer than a renewal, shorter than the deadline.
    assert!(timeout(cluster.timers.director_renew * 3 / 2, known.changed()).await.is_err());
    wire.release();
    // Longer than it could have led without the renewals that follow.
    assert!(timeout(cluster.timers.director_ttl, known.changed()).await.is_err());
    assert!(first.is_director().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_go_on_when_the_leader_dies() {
    let mut cluster = EtcdCluster::of(3, timers(10));
    let (first, second) = (cluster.member("r-1").await, cluster.member("r-2").await);
    first.campaign("r-1").await.unwrap();
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 2));
    open(&first, &mine).await;
    open(&second, &theirs).await;
    first.lock(&locks("a"), &mine).await.unwrap();
    cluster.etcd.end(cluster.etcd.leader());
    let since = Instant::now();
    until(SOON, async || second.lock(&locks("b"), &theirs).await, Result::is_ok).await;
    assert!(since.elapsed() < Duration::from_secs(5), "locks took {:?}", since.elapsed());
    assert_eq!(second.holder(&locks("a")[0]).await.unwrap(), Some(mine.clone()));
    // The director did not even notice, and a campaign works, too.
    assert!(leads(&first.directorship().borrow()));
    assert!(first.is_director().await.unwrap());
    let since = Instant::now();
    until(SOON, async || first.resign().await, Result::is_ok).await;
    until(SOON, async || second.campaign("r-2").await, Result::is_ok).await;
    assert!(since.elapsed() < Duration::from_secs(5), "a campaign took {:?}", since.elapsed());
    // With one of three away for good, no call is lost.
    for epoch in 3..40 {
        let owner = owner("w-2", "s-2", epoch);
        second.lock(&locks("c"), &owner).await.unwrap();
        second.unlock(&locks("c"), &owner).await.unwrap();
        assert!(second.renew_session(&theirs.worker, &theirs.session).await.unwrap().is_kept());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_that_is_cut_off_is_not_believed() {
    let cluster = EtcdCluster::of(3, timers(5));
    let first = cluster.member("r-1").await;
    first.campaign("r-1").await.unwrap();
    let leader = cluster.etcd.leader();
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    others.iter().for_each(|node| cluster.etcd.freeze(*node));
    // One of three still runs; it may not answer for all.
    let since = Instant::now();
    let answer = first.is_director().await;
    assert!(matches!(answer, Ok(false) | Err(CoordinationError::Unavailable(_))), "{answer:?}");
    assert!(since.elapsed() < cluster.timers.patience + Duration::from_secs(2));
    let mut known = first.directorship();
    timeout(SOON, known.wait_for(|now| !leads(now))).await.unwrap().unwrap();
    others.iter().for_each(|node| cluster.etcd.thaw(*node));
    until(SOON, async || first.campaign("r-1").await, Result::is_ok).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_gone_is_an_answer_and_all_resumes_when_it_is_back() {
    let mut cluster = EtcdCluster::of(1, timers(10));
    let first = cluster.member("r-1").await;
    first.campaign("r-1").await.unwrap();
    let mine = owner("w-1", "s-1", 1);
    open(&first, &mine).await;
    first.lock(&locks("a"), &mine).await.unwrap();
    cluster.etcd.end(0);
    let away = |error: CoordinationError| {
        assert!(matches!(error, CoordinationError::Unavailable(_)), "{error:?}");
        error.to_string()
    };
    let endpoint = cluster.etcd.endpoints().remove(0);
    let since = Instant::now();
    assert!(away(first.holder(&locks("a")[0]).await.unwrap_err()).contains(&endpoint));
    away(first.lock(&locks("b"), &mine).await.unwrap_err());
    // No answer is no end: the worker goes on.
    away(first.renew_session(&mine.worker, &mine.session).await.unwrap_err());
    let Err(refusal) = cluster.join(&cluster.config("r-2")).await else { panic!("it is away") };
    assert!(away(refusal).contains(&endpoint));
    assert!(since.elapsed() < cluster.timers.patience * 4, "{:?}", since.elapsed());
    let mut known = first.directorship();
    timeout(SOON, known.wait_for(|now| !leads(now))).await.unwrap().unwrap();
    assert!(!first.is_director().await.unwrap());
    cluster.etcd.resume(0);
    assert!(cluster.etcd.ready());
    // What was on leases is still there: they begin anew with a new leader.
    until(
        SOON,
        async || first.renew_session(&mine.worker, &mine.session).await,
        |answer| matches!(answer, Ok(Renewal::Kept { .. })),
    )
    .await;
    assert_eq!(first.holder(&locks("a")[0]).await.unwrap(), Some(mine.clone()));
    first.lock(&locks("b"), &mine).await.unwrap();
    // The one who stepped down does not wait for its own key.
    until(Duration::from_secs(5), async || first.campaign("r-1").await, Result::is_ok).await;
    assert!(first.is_director().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_etcd_is_noticed_within_the_patience_of_a_call() {
    let cluster = EtcdCluster::of(1, timers(5));
    let first = cluster.member("r-1").await;
    cluster.etcd.freeze(0);
    let since = Instant::now();
    assert!(matches!(first.holder(&locks("a")[0]).await, Err(CoordinationError::Unavailable(_))));
    assert!(since.elapsed() < cluster.timers.patience + Duration::from_secs(2), "{:?}", since.elapsed());
    cluster.etcd.thaw(0);
    until(SOON, async || first.holder(&locks("a")[0]).await, Result::is_ok).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resigning_ends_in_a_bounded_time_even_without_etcd() {
    let cluster = EtcdCluster::of(1, timers(5));
    let first = cluster.member("r-1").await;
    first.campaign("r-1").await.unwrap();
    cluster.etcd.freeze(0);
    let since = Instant::now();
    assert!(first.resign().await.is_err());
    assert_eq!(*first.directorship().borrow(), Directorship::Unknown);
    assert!(since.elapsed() < cluster.timers.patience + Duration::from_secs(3), "{:?}", since.elapsed());
    cluster.etcd.thaw(0);
}

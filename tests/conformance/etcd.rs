//! What only etcd has: sessions that move between replicas, claims that run out, a cluster that may be somebody else's,
//! users and passwords.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, PutOptions};

use autopack_shared::runtime::clock::SystemClock;
use autopack_supervisor::coordination::etcd::EtcdCoordinator;
use autopack_supervisor::coordination::etcd::config::{EtcdConfig, EtcdUser, Replica, StoreIdentity};
use autopack_supervisor::coordination::timers::Timers;
use autopack_supervisor::coordination::{CoordinationError, Coordinator, Directorship};

use super::coordinator::{Cluster, SOON, facts, held, is_taken, locks, open, owner, until, worker};
use crate::harness::etcd::Etcd;

/// One etcd, and members that ask it.
pub(super) struct EtcdCluster {
    pub(super) etcd: Etcd,
    pub(super) timers: Timers,
}

impl Cluster for EtcdCluster {
    async fn start() -> Self {
        Self::of(1, timers(5))
    }

    async fn member(&self, replica: &str) -> Arc<dyn Coordinator> {
        self.join(&self.config(replica)).await.unwrap()
    }
}

impl EtcdCluster {
    pub(super) fn of(members: usize, timers: Timers) -> Self {
        Self { etcd: Etcd::start(members), timers }
    }

    pub(super) fn config(&self, replica: &str) -> EtcdConfig {
        EtcdConfig {
            endpoints: self.etcd.endpoints(),
            cluster_id: "c-1".to_owned(),
            replica: Replica { id: replica.to_owned(), addr: "127.0.0.1:7000".to_owned() },
            store: StoreIdentity { incarnation: 3, cluster: "store-1".to_owned() },
            user: None,
            tls: None,
            timers: self.timers.clone(),
        }
    }

    pub(super) async fn join(&self, config: &EtcdConfig) -> Result<Arc<dyn Coordinator>, CoordinationError> {
        Ok(Arc::new(EtcdCoordinator::connect(config, Arc::new(SystemClock::default())).await?))
    }

    /// Somebody who looks at the keys, and changes them, past every member.
    pub(super) async fn outsider(&self) -> Client {
        Client::connect(self.etcd.endpoints(), None).await.unwrap()
    }
}

/// Short times around one TTL in seconds; the relations are those of the real ones.
pub(super) fn timers(ttl: u64) -> Timers {
    let part = |percent: u64| Duration::from_millis(ttl * 10 * percent);
    Timers {
        heartbeat: part(2),
        worker_soft: part(10),
        worker_self: part(40),
        session_ttl: Duration::from_secs(ttl),
        director_ttl: Duration::from_secs(ttl),
        director_renew: part(20),
        step_down: part(60),
        margin: part(20),
        request: Duration::from_secs(2),
        patience: Duration::from_secs(5),
        silence: Duration::from_secs(30),
    }
}

const KEY: &str = "/autopack/v1/c-1";

async fn value(client: &mut Client, key: &str) -> serde_json::Value {
    let found = client.get(format!("{KEY}{key}"), None).await.unwrap();
    serde_json::from_slice(found.kvs().first().unwrap_or_else(|| panic!("no {key}")).value()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_are_those_of_the_protocol() {
    let cluster = EtcdCluster::start().await;
    let mut client = cluster.outsider().await;
    let member = cluster.member("r-1").await;
    member.campaign("r-1").await.unwrap();
    let mine = owner("w-1", "s-1", 7);
    open(&member, &mine).await;
    member.lock(&locks("a"), &mine).await.unwrap();
    let meta = value(&mut client, "/meta/incarnation").await;
    assert_eq!(meta, serde_json::json!({ "incarnation": 3, "cluster": "store-1" }));
    let director = value(&mut client, "/director").await;
    assert_eq!((&director["replica_id"], &director["addr"]), (&"r-1".into(), &"127.0.0.1:7000".into()));
    let supervisor = value(&mut client, "/supervisors/r-1").await;
    assert_eq!(supervisor["addr"], "127.0.0.1:7000");
    let session = value(&mut client, "/workers/w-1").await;
    assert_eq!((&session["session_uuid"], &session["via_replica"]), (&"s-1".into(), &"r-1".into()));
    for lock in ["/locks/run/a", "/locks/ws/a"] {
        let lock = value(&mut client, lock).await;
        assert_eq!((&lock["run_id"], &lock["worker_id"], &lock["epoch"]), (&"a".into(), &"w-1".into(), &7.into()));
    }
    // Evidence is the revision that made the key.
    let Directorship::Leading { evidence: Some(evidence), .. } = member.directorship().borrow().clone() else {
        panic!("not leading")
    };
    let found = client.get(format!("{KEY}/director"), None).await.unwrap();
    assert_eq!(i64::try_from(evidence.revision).unwrap(), found.kvs()[0].create_revision());
    assert_eq!(evidence.cluster, found.header().unwrap().cluster_id());
    // Sessions and locks say how long they have.
    let life = member.locks().await.unwrap()[0].life;
    assert_eq!(life.ttl, Some(cluster.timers.session_ttl));
    assert_eq!(member.sessions().await.unwrap()[0].holder, "r-1");
    // Everything but the incarnation hangs on a lease.
    let all = client.get(KEY, Some(etcd_client::GetOptions::new().with_prefix())).await.unwrap();
    let forever: Vec<_> = all.kvs().iter().filter(|kv| kv.lease() == 0).map(|kv| kv.key_str().unwrap()).collect();
    assert_eq!(forever, [format!("{KEY}/meta/incarnation")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_renews_ends_and_its_holder_can_do_nothing_more() {
    let cluster = EtcdCluster::of(1, timers(2));
    let (member, other) = (cluster.member("r-1").await, cluster.member("r-2").await);
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 2));
    open(&member, &mine).await;
    member.lock(&locks("a"), &mine).await.unwrap();
    let since = tokio::time::Instant::now();
    until(SOON, async || other.holder(&locks("a")[0]).await.unwrap(), Option::is_none).await;
    assert!(since.elapsed() > Duration::from_secs(1), "a lock stays while its session may be alive");
    assert!(!member.renew_session(&mine.worker, &mine.session).await.unwrap().is_kept());
    assert!(!member.session_alive(&mine.worker, &mine.session).await.unwrap());
    open(&other, &theirs).await;
    other.lock(&locks("a"), &theirs).await.unwrap();
    assert!(matches!(member.lock(&locks("b"), &mine).await, Err(CoordinationError::Unavailable(_))));
    member.unlock(&locks("a"), &mine).await.unwrap();
    member.close_session(&mine.worker, &mine.session).await.unwrap();
    assert!(other.renew_session(&theirs.worker, &theirs.session).await.unwrap().is_kept());
    assert_eq!(member.holder(&locks("a")[0]).await.unwrap(), Some(theirs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_to_another_replica_with_its_lease_and_locks() {
    let cluster = EtcdCluster::start().await;
    let (first, second) = (cluster.member("r-1").await, cluster.member("r-2").await);
    let mine = owner("w-1", "s-1", 1);
    open(&first, &mine).await;
    first.lock(&locks("a"), &mine).await.unwrap();
    let mut client = cluster.outsider().await;
    let key = format!("{KEY}/workers/w-1");
    let lease = client.get(key.as_str(), None).await.unwrap().kvs()[0].lease();
    // A worker of the same name that is another process stays out, wherever it asks.
    assert_eq!(held(second.open_session(&mine.worker, "s-2", &facts()).await), "worker w-1");
    open(&second, &mine).await;
    assert_eq!(client.get(key.as_str(), None).await.unwrap().kvs()[0].lease(), lease);
    assert_eq!(second.sessions().await.unwrap()[0].holder, "r-2");
    // The first replica only now hears that its stream broke; what it closes is not its own any more.
    first.close_session(&mine.worker, &mine.session).await.unwrap();
    assert!(second.renew_session(&mine.worker, &mine.session).await.unwrap().is_kept());
    assert_eq!(second.holder(&locks("a")[0]).await.unwrap(), Some(mine.clone()));
    // Any replica locks for a session of any other.
    first.lock(&locks("b"), &mine).await.unwrap();
    second.close_session(&mine.worker, &mine.session).await.unwrap();
    for run in ["a", "b"] {
        assert_eq!(first.holder(&locks(run)[0]).await.unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_hears_that_the_seat_is_free() {
    let cluster = EtcdCluster::start().await;
    let (first, second) = (cluster.member("r-1").await, cluster.member("r-2").await);
    first.campaign("r-1").await.unwrap();
    let mut known = second.directorship();
    assert!(is_taken(&second.campaign("r-2").await));
    first.resign().await.unwrap();
    let free = Directorship::Following { holder: None };
    // Well before the 30 s after which it would look by itself.
    tokio::time::timeout(Duration::from_secs(5), known.wait_for(|now| *now == free)).await.unwrap().unwrap();
    second.campaign("r-2").await.unwrap();
    assert!(second.is_director().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_director_whose_key_is_taken_away_steps_down_at_once() {
    let cluster = EtcdCluster::start().await;
    let member = cluster.member("r-1").await;
    member.campaign("r-1").await.unwrap();
    let mut known = member.directorship();
    cluster.outsider().await.delete(format!("{KEY}/director"), None).await.unwrap();
    let leads = |now: &Directorship| matches!(now, Directorship::Leading { .. });
    tokio::time::timeout(Duration::from_secs(3), known.wait_for(|now| !leads(now))).await.unwrap().unwrap();
    assert!(!member.is_director().await.unwrap());
    member.campaign("r-1").await.unwrap();
    assert!(member.is_director().await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_etcd_is_refused() {
    let cluster = EtcdCluster::start().await;
    let member = cluster.member("r-1").await;
    let told = |answer: Result<Arc<dyn Coordinator>, CoordinationError>| match answer.map(|_| ()) {
        Err(error @ CoordinationError::Foreign { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let mut config = cluster.config("r-2");
    config.store.cluster = "store-2".to_owned();
    let refusal = told(cluster.join(&config).await);
    assert!(refusal.contains("says store-1; this is incarnation 3 of store-2"), "{refusal}");
    assert!(refusal.contains("etcd.cluster_id"), "it says what to do: {refusal}");
    for incarnation in [2, 4] {
        let mut config = cluster.config("r-2");
        config.store.incarnation = incarnation;
        let refusal = told(cluster.join(&config).await);
        assert!(refusal.contains("says incarnation 3") && refusal.contains("restored"), "{refusal}");
    }
    let mut beside = cluster.config("r-2");
    (beside.cluster_id, beside.store.cluster) = ("c-2".to_owned(), "store-2".to_owned());
    cluster.join(&beside).await.unwrap().campaign("r-2").await.unwrap();

    // The same for one that runs already: nothing is acquired under another incarnation.
    let mine = owner("w-1", "s-1", 1);
    open(&member, &mine).await;
    let other = br#"{"incarnation":4,"cluster":"store-1"}"#.to_vec();
    let mut client = cluster.outsider().await;
    client.put(format!("{KEY}/meta/incarnation"), other, Some(PutOptions::new())).await.unwrap();
    let foreign = |answer: Result<(), CoordinationError>| matches!(answer, Err(CoordinationError::Foreign { .. }));
    assert!(foreign(member.campaign("r-1").await));
    assert!(foreign(member.lock(&locks("a"), &mine).await));
    assert!(foreign(member.open_session(&worker("w-2"), "s-2", &facts()).await));
    assert!(foreign(member.open_session(&mine.worker, &mine.session, &facts()).await));
    for key in ["/director", "/locks/run/a", "/workers/w-2"] {
        assert_eq!(client.get(format!("{KEY}{key}"), None).await.unwrap().count(), 0, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_comes_from_a_file_and_stays_there() {
    let cluster = EtcdCluster::start().await;
    let mut client = cluster.outsider().await;
    client.user_add("root", "hunter2", None).await.unwrap();
    client.role_add("root").await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.auth_enable().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let mut config = cluster.config("r-1");
    assert!(cluster.join(&config).await.is_err(), "without a user, nothing is answered");
    config.user = Some(EtcdUser { name: "root".to_owned(), password_file: file.clone() });
    assert!(matches!(cluster.join(&config).await.map(|_| ()), Err(CoordinationError::Unusable { .. })));
    std::fs::write(&file, "wrong-guess\n").unwrap();
    let Err(refusal) = cluster.join(&config).await else { panic!("any password will do") };
    assert!(matches!(refusal, CoordinationError::Setting { .. }), "{refusal}");
    assert!(!refusal.to_string().contains("wrong-guess") && !format!("{config:?}").contains("wrong-guess"));
    std::fs::write(&file, "hunter2\n").unwrap();
    let member = cluster.join(&config).await.unwrap();
    member.campaign("r-1").await.unwrap();
    assert!(member.is_director().await.unwrap());
}

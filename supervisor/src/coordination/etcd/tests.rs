//! What a watch may do to us, on a real etcd: forget, say nothing, break. None of it hides a change.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use autopack_shared::runtime::clock::SystemClock;

use super::EtcdCoordinator;
use super::config::{EtcdConfig, Replica, StoreIdentity};
use super::link::Link;
use super::watcher::{Ended, Seen, follow, wait};
use crate::coordination::timers::Timers;
use crate::coordination::{Coordinator as _, Directorship};

#[allow(dead_code, reason = "the system tests use more of it")]
#[path = "../../../../tests/harness/etcd.rs"]
mod harness;

use harness::Etcd;

const LONG: Duration = Duration::from_secs(30);

fn config(etcd: &Etcd) -> EtcdConfig {
    EtcdConfig {
        endpoints: etcd.endpoints(),
        cluster_id: "c".to_owned(),
        replica: Replica { id: "r".to_owned(), addr: String::new() },
        store: StoreIdentity { incarnation: 1, cluster: "s".to_owned() },
        user: None,
        tls: None,
        timers: Timers::default(),
    }
}

async fn link(etcd: &Etcd) -> (Link, Client) {
    (Link::connect(&config(etcd)).await.unwrap(), Client::connect(etcd.endpoints(), None).await.unwrap())
}

/// Writes some values and forgets all but the last.
async fn overwrite_and_compact(client: &mut Client) -> i64 {
    let mut at = 0;
    for value in ["1", "2", "3"] {
        at = client.put("k", value, None).await.unwrap().header().unwrap().revision();
    }
    client.compact(at, None).await.unwrap();
    at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_watch_has_its_reason() {
    let mut etcd = Etcd::start(1);
    let (link, mut client) = link(&etcd).await;
    let at = overwrite_and_compact(&mut client).await;
    assert_eq!(wait(&link, "k", 1, LONG).await, Ended::Compacted);
    assert_eq!(wait(&link, "k", at, LONG).await, Ended::Changed, "from a revision that is kept");
    assert_eq!(wait(&link, "k", at + 1, Duration::from_millis(200)).await, Ended::Silent);
    let (ended, ()) = tokio::join!(wait(&link, "k", at + 1, LONG), async {
        client.delete("k", None).await.unwrap();
    });
    assert_eq!(ended, Ended::Changed);
    let (ended, ()) = tokio::join!(wait(&link, "k", at + 10, LONG), async {
        // Whether it is made already or not, it does not outlive its server.
        etcd.end(0);
    });
    assert_eq!(ended, Ended::Broken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_forgotten_before_the_watch_began_is_looked_up() {
    let etcd = Etcd::start(1);
    let (link, mut client) = link(&etcd).await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut first = true;
    let tell = |seen: Seen<'_>| {
        let Seen::At(_, found) = seen else { return };
        told.send(found.map(|kv| kv.value_str().unwrap().to_owned())).unwrap();
        if std::mem::take(&mut first) {
            // Between the look and the watch: its beginning is gone before it is asked for.
            block_in_place(|| Handle::current().block_on(overwrite_and_compact(&mut client)));
        }
    };
    let listen = async {
        assert_eq!(heard.recv().await.unwrap(), None);
        assert_eq!(heard.recv().await.unwrap().as_deref(), Some("3"));
    };
    tokio::select! {
        () = follow(&link, "k", LONG, tell) => unreachable!("it follows for ever"),
        listened = tokio::time::timeout(Duration::from_secs(10), listen) => listened.unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_from_before_the_claim_says_nothing_about_it() {
    let etcd = Etcd::start(1);
    let member = EtcdCoordinator::connect(&config(&etcd), Arc::new(SystemClock::default())).await.unwrap();
    member.campaign("r").await.unwrap();
    let known = member.directorship();
    let Directorship::Leading { evidence: Some(evidence), .. } = known.borrow().clone() else { panic!("not leading") };
    let created = i64::try_from(evidence.revision).unwrap();
    // The answer of a read that was under way while the key was made.
    member.election.observe(created - 1, None);
    assert!(member.is_director().await.unwrap());
    member.election.observe(created + 1, None);
    assert_eq!(*known.borrow(), Directorship::Following { holder: None });
    assert!(!member.is_director().await.unwrap());
}

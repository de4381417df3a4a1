//! Many writers at once: nothing lost, nothing twice, one winner.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use autopack_shared::domain::ids::{Fence, Scope};
use autopack_shared::domain::state::LeaseState;
use autopack_supervisor::store::StoreError;
use autopack_supervisor::store::verify::verify;

use crate::fixtures::*;
use crate::lab::Lab;

const WRITERS: u64 = 16;
const EACH: u64 = 10;

pub(crate) async fn every_writer_gets_its_turn(lab: &mut impl Lab) {
    add_logged_run(&*lab.store(), "a").await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = lab.store();
        writers.spawn(async move {
            let mut got = Vec::new();
            for n in 0..EACH {
                let mut tx = store.tx(&[]).await.unwrap();
                got.push(tx.append_event(&mut event("a", &format!("{writer}.{n}"))).await.unwrap());
                tx.append_audit(draft("run/a", "x.y", "run", "a", None)).await.unwrap();
                bump(tx.as_mut(), &Scope::Repo(name("shop")), "w").await;
                tx.commit().await.unwrap();
            }
            got
        });
    }
    let numbers: BTreeSet<u64> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(numbers, (1..=WRITERS * EACH).collect());
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.epoch(&Scope::Repo(name("shop"))).await.unwrap(), Some(WRITERS * EACH));
    let texts: BTreeSet<_> = view.events(&name("a"), 0, 10_000).await.unwrap().into_iter().map(|e| e.text).collect();
    assert_eq!(texts.len() as u64, WRITERS * EACH);
    drop(view);
    let report = verify(&*lab.store()).await.unwrap();
    assert_eq!((report.problems(), report.records), (Vec::new(), 3 + 2 * WRITERS * EACH));
}

pub(crate) async fn a_version_has_one_winner(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        let store = lab.store();
        writers.spawn(async move {
            let mut mine = run("a");
            mine.reason = Some(n.to_string());
            let mut tx = store.tx(&[run_fence("a", 1)]).await.unwrap();
            match tx.update_run(&mut mine).await {
                Ok(()) => tx.commit().await.is_ok(),
                Err(StoreError::Conflict { .. }) => false,
                Err(other) => panic!("{other}"),
            }
        });
    }
    assert_eq!(writers.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

pub(crate) async fn only_the_newest_director_writes(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut directors = JoinSet::new();
    for _ in 0..WRITERS {
        let store = lab.store();
        directors.spawn(async move {
            let mine = director(&*store).await;
            let answer = store.tx(std::slice::from_ref(&mine)).await.map(drop);
            (mine.epoch, answer)
        });
    }
    let mut epochs = BTreeSet::new();
    for (epoch, answer) in directors.join_all().await {
        assert!(epochs.insert(epoch), "epoch {epoch} was given twice");
        match answer {
            Ok(()) => {}
            Err(StoreError::Fenced { held, current, .. }) => assert!(current > Some(held)),
            Err(other) => panic!("{other}"),
        }
    }
    for epoch in epochs {
        let answer = lab.store().tx(&[Fence { scope: Scope::Director, epoch }]).await;
        assert_eq!(answer.is_ok(), epoch == WRITERS);
    }
}

/// Several leases may begin in one commit; what began before another one ended never counts as after it.
pub(crate) async fn leases_that_begin_together_are_whole(lab: &mut impl Lab) {
    for run in ["a", "b"] {
        add_logged_run(&*lab.store(), run).await;
    }
    let mut tx = directing(&*lab.store()).await;
    let mut given = [lease("l-a", "a"), lease("l-b", "b")];
    for one in &given {
        tx.insert_lease(one).await.unwrap();
        let began = draft(&format!("run/{}", one.run), "lease.granting", "lease", one.id.as_str(), Some("granting"));
        tx.append_audit(pinned(began, one)).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(lab.store().read().await.unwrap().peak_leases(&name("shop")).await.unwrap(), 2);
    assert_eq!(verify(&*lab.store()).await.unwrap().problems(), [""; 0]);
    // One that ends and one that begins in one commit is nothing that is ever done: it would hide a peak.
    let mut tx = directing(&*lab.store()).await;
    given[0].state = LeaseState::Revoked;
    tx.update_lease(&mut given[0]).await.unwrap();
    let ended = draft("run/a", "lease.revoked", "lease", "l-a", Some("revoked"));
    tx.append_audit(pinned(ended, &given[0])).await.unwrap();
    let again = lease("l-c", "a");
    tx.insert_lease(&again).await.unwrap();
    let began = draft("run/a", "lease.granting", "lease", "l-c", Some("granting"));
    tx.append_audit(pinned(began, &again)).await.unwrap();
    tx.commit().await.unwrap();
    let problems = verify(&*lab.store()).await.unwrap().problems().join("; ");
    assert!(problems.contains("lease history"), "{problems}");
}

/// Leases of many runs begin and end side by side; the history of them and the log are in one order all the same.
pub(crate) async fn leases_are_noted_in_the_order_of_the_log(lab: &mut impl Lab) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = lab.store();
        writers.spawn(async move {
            let (run, id) = (format!("r-{writer}"), format!("l-{writer}"));
            let mut tx = store.tx(&[]).await.unwrap();
            tx.insert_run(&crate::fixtures::run(&run)).await.unwrap();
            tx.insert_phase(&phase(&run, "p", 0)).await.unwrap();
            tx.append_audit(created(&run)).await.unwrap();
            tx.commit().await.unwrap();
            let (chain, mut mine) = (format!("run/{run}"), lease(&id, &run));
            let mut tx = store.tx(&[run_fence(&run, 1)]).await.unwrap();
            tx.insert_lease(&mine).await.unwrap();
            let began = draft(&chain, "lease.granting", "lease", &id, Some("granting"));
            tx.append_audit(pinned(began, &mine)).await.unwrap();
            tx.commit().await.unwrap();
            let mut tx = store.tx(&[run_fence(&run, 1)]).await.unwrap();
            mine.state = LeaseState::Revoked;
            tx.update_lease(&mut mine).await.unwrap();
            let ended = draft(&chain, "lease.revoked", "lease", &id, Some("revoked"));
            tx.append_audit(pinned(ended, &mine)).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    writers.join_all().await;
    let changes = lab.store().read().await.unwrap().facts().await.unwrap().leases;
    assert_eq!(changes.len() as u64, 2 * WRITERS);
    let report = verify(&*lab.store()).await.unwrap();
    assert_eq!((report.problems(), report.records), (Vec::new(), 3 * WRITERS));
}

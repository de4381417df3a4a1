//! The store's clock, and what survives: of the clock, of commits, of transactions that were dropped.

use std::time::Duration;

use autopack_supervisor::store::StoreError;

use crate::fixtures::*;
use crate::lab::Lab;

pub(crate) async fn the_clock_follows_the_wall_but_never_back(lab: &mut impl Lab) {
    let store = lab.store();
    let start = store.now().await.unwrap();
    lab.advance(Duration::from_secs(5)).await;
    assert_eq!(store.now().await.unwrap(), start.plus_seconds(5));
    let tx = store.tx(&[]).await.unwrap();
    lab.advance(Duration::from_secs(5)).await;
    assert_eq!(tx.now(), start.plus_seconds(5), "one instant a transaction");
    tx.commit().await.unwrap();
    let tx = store.tx(&[]).await.unwrap();
    assert_eq!(tx.now(), start.plus_seconds(10));
    tx.commit().await.unwrap();
    // The machine comes back with its clock an hour behind.
    for clean in [true, false] {
        lab.reopen(clean, 1_767_222_000_000).await;
        assert_eq!(lab.store().now().await.unwrap(), start.plus_seconds(10));
        let tx = lab.store().tx(&[]).await.unwrap();
        assert_eq!(tx.now(), start.plus_seconds(10));
        drop(tx);
        assert_eq!(lab.store().read().await.unwrap().now(), start.plus_seconds(10));
    }
    lab.advance(Duration::from_secs(3600 + 11)).await;
    assert_eq!(lab.store().now().await.unwrap(), start.plus_seconds(11));
}

pub(crate) async fn a_commit_survives_a_restart(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    for clean in [false, true] {
        lab.reopen(clean, 1_767_225_700_000).await;
        let mut view = lab.store().read().await.unwrap();
        assert_eq!(view.run(&name("a")).await.unwrap(), Some(run("a")));
        assert_eq!(view.phases(&name("a")).await.unwrap(), [phase("a", "p", 0)]);
    }
}

pub(crate) async fn a_dropped_transaction_leaves_nothing(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.insert_run(&run("a")).await.unwrap();
    drop(tx);
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(tx.run(&name("a")).await.unwrap(), None);
    tx.insert_run(&run("a")).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn a_view_stays_as_it_was_and_cannot_write(lab: &mut impl Lab) {
    let mut view = lab.store().read().await.unwrap();
    add_run(&*lab.store(), "a").await;
    assert_eq!(view.run(&name("a")).await.unwrap(), None);
    assert!(matches!(view.put_project(&project("shop")).await, Err(StoreError::Corrupt(_))));
    assert!(matches!(view.insert_run(&run("b")).await, Err(StoreError::Corrupt(_))));
    view.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert!(view.run(&name("a")).await.unwrap().is_some());
    assert!(view.projects().await.unwrap().is_empty());
}

pub(crate) async fn commits_are_announced_and_nothing_else(lab: &mut impl Lab) {
    let mut changes = lab.store().changes();
    changes.mark_unchanged();
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.put_project(&project("shop")).await.unwrap();
    drop(tx);
    lab.store().read().await.unwrap().commit().await.unwrap();
    assert!(!changes.has_changed().unwrap());
    let before = *changes.borrow_and_update();
    add_run(&*lab.store(), "a").await;
    assert!(changes.has_changed().unwrap());
    assert!(*changes.borrow_and_update() > before);
    // Whoever is woken finds the commit.
    assert!(lab.store().read().await.unwrap().run(&name("a")).await.unwrap().is_some());
}

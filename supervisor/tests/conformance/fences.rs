//! Fences: a stale token writes nothing, and run state without one is refused whatever the caller forgot.

use std::collections::BTreeMap;

use autopack_shared::domain::ids::{Fence, Scope};
use autopack_supervisor::store::{StoreError, StoreResult};

use crate::fixtures::*;
use crate::lab::Lab;

fn fenced<T: std::fmt::Debug>(answer: StoreResult<T>) -> (String, u64, Option<u64>) {
    match answer.err() {
        Some(StoreError::Fenced { scope, held, current }) => (scope, held, current),
        other => panic!("not fenced: {other:?}"),
    }
}

async fn try_tx(lab: &impl Lab, fences: &[Fence]) -> StoreResult<()> {
    lab.store().tx(fences).await.map(drop)
}

pub(crate) async fn a_stale_token_is_refused(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    try_tx(lab, &[run_fence("a", 1)]).await.unwrap();
    let mut tx = directing(&*lab.store()).await;
    assert_eq!(tx.bump(&Scope::Run(name("a")), "w-1").await.unwrap(), 2);
    tx.commit().await.unwrap();
    assert_eq!(fenced(try_tx(lab, &[run_fence("a", 1)]).await), ("run/a".to_owned(), 1, Some(2)));
    try_tx(lab, &[run_fence("a", 2)]).await.unwrap();
    assert_eq!(fenced(try_tx(lab, &[run_fence("a", 3)]).await), ("run/a".to_owned(), 3, Some(2)));
}

pub(crate) async fn a_scope_without_an_epoch_fences_everybody(lab: &mut impl Lab) {
    for epoch in [0, 1, u64::MAX] {
        assert_eq!(fenced(try_tx(lab, &[run_fence("ghost", epoch)]).await), ("run/ghost".to_owned(), epoch, None));
    }
}

pub(crate) async fn every_fence_of_a_transaction_is_checked(lab: &mut impl Lab) {
    let director = director(&*lab.store()).await;
    add_run(&*lab.store(), "a").await;
    try_tx(lab, &[run_fence("a", 1), director.clone()]).await.unwrap();
    assert_eq!(fenced(try_tx(lab, &[director.clone(), run_fence("a", 9)]).await).0, "run/a");
    // Both are stale; the first in scope order is the one that is named.
    let stale = Fence { epoch: 9, ..director };
    assert_eq!(fenced(try_tx(lab, &[run_fence("a", 9), stale]).await).0, "director");
}

pub(crate) async fn a_bump_ends_older_tokens_at_commit_only(lab: &mut impl Lab) {
    let first = director(&*lab.store()).await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.bump(&Scope::Director, "b").await.unwrap();
    drop(tx);
    try_tx(lab, std::slice::from_ref(&first)).await.unwrap();
    let second = director(&*lab.store()).await;
    assert_eq!(second.epoch, first.epoch + 1);
    assert_eq!(fenced(try_tx(lab, &[first]).await).2, Some(second.epoch));
}

pub(crate) async fn a_bump_hands_its_own_transaction_the_new_fence(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
    tx.bump(&Scope::Run(name("a")), "w-1").await.unwrap();
    let mut run = tx.run(&name("a")).await.unwrap().unwrap();
    run.reason = None;
    tx.update_run(&mut run).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn epochs_are_counted_by_scope(lab: &mut impl Lab) {
    let scopes = [Scope::Director, Scope::Repo(name("shop")), Scope::Run(name("shop")), Scope::Workspace(name("shop"))];
    let mut tx = lab.store().tx(&[]).await.unwrap();
    for (n, scope) in scopes.iter().enumerate() {
        assert_eq!(tx.epoch(scope).await.unwrap(), None);
        for expected in 1..=n as u64 + 1 {
            assert_eq!(tx.bump(scope, "x").await.unwrap(), expected);
        }
    }
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    for (n, scope) in scopes.iter().enumerate() {
        assert_eq!(view.epoch(scope).await.unwrap(), Some(n as u64 + 1));
    }
}

pub(crate) async fn a_run_and_its_phases_are_added_without_a_fence(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.epoch(&Scope::Run(name("a"))).await.unwrap(), Some(1));
    drop(view);
    // Later ones need it.
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(fenced(tx.insert_phase(&phase("a", "q", 1)).await).0, "run/a");
}

pub(crate) async fn run_state_without_a_fence_is_refused(lab: &mut impl Lab) {
    let mut tx = directing(&*lab.store()).await;
    tx.insert_run(&run("a")).await.unwrap();
    tx.insert_phase(&phase("a", "p", 0)).await.unwrap();
    tx.insert_attempt(&attempt("a", "p", 1)).await.unwrap();
    tx.insert_lease(&lease("l-1", "a")).await.unwrap();
    tx.insert_apply(&apply("a-1", "a")).await.unwrap();
    tx.insert_run(&run("b")).await.unwrap();
    tx.commit().await.unwrap();
    // Neither nothing nor another run's fence, nor the workspace's, is enough.
    let mut other = directing(&*lab.store()).await;
    other.bump(&Scope::Workspace(name("a")), "w-1").await.unwrap();
    other.commit().await.unwrap();
    let workspace = Fence { scope: Scope::Workspace(name("a")), epoch: 1 };
    for fences in [vec![], vec![run_fence("b", 1)], vec![workspace]] {
        let mut tx = lab.store().tx(&fences).await.unwrap();
        assert_eq!(fenced(tx.update_run(&mut run("a")).await).0, "run/a");
        assert_eq!(fenced(tx.update_phase(&mut phase("a", "p", 0)).await).0, "run/a");
        assert_eq!(fenced(tx.insert_attempt(&attempt("a", "p", 2)).await).0, "run/a");
        assert_eq!(fenced(tx.update_attempt(&mut attempt("a", "p", 1)).await).0, "run/a");
        assert_eq!(fenced(tx.insert_lease(&lease("l-2", "a")).await).0, "run/a");
        assert_eq!(fenced(tx.update_lease(&mut lease("l-1", "a")).await).0, "run/a");
        assert_eq!(fenced(tx.insert_apply(&apply("a-2", "a")).await).0, "run/a");
        assert_eq!(fenced(tx.update_apply(&mut apply("a-1", "a")).await).0, "run/a");
        let sizes = BTreeMap::from([("code".to_owned(), 1)]);
        assert_eq!(fenced(tx.add_window(&run("a"), &name("a-1"), &sizes).await).0, "run/a");
        // A refusal takes nothing else down with it.
        tx.put_project(&project("shop")).await.unwrap();
        tx.commit().await.unwrap();
    }
}

pub(crate) async fn the_runs_own_fence_is_enough(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
    tx.update_run(&mut run("a")).await.unwrap();
    tx.update_phase(&mut phase("a", "p", 0)).await.unwrap();
    tx.insert_attempt(&attempt("a", "p", 1)).await.unwrap();
    tx.insert_lease(&lease("l-1", "a")).await.unwrap();
    tx.insert_apply(&apply("a-1", "a")).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn what_people_ask_for_needs_no_fence(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.put_project(&project("shop")).await.unwrap();
    tx.insert_decision(&decision("d-1", "a")).await.unwrap();
    tx.insert_request(&request("q-1", "a")).await.unwrap();
    tx.update_request(&mut request("q-1", "a")).await.unwrap();
    tx.insert_vote(&vote("q-1", "local:ann")).await.unwrap();
    tx.insert_command(&command("c-1", "a")).await.unwrap();
    tx.finish_command(&name("c-1"), at(1), "done").await.unwrap();
    tx.append_event(&mut event("a", "x")).await.unwrap();
    tx.insert_notice(&notice("n-1", "a")).await.unwrap();
    tx.append_audit(draft("run/a", "run.created", "run", "a", Some("created"))).await.unwrap();
    tx.commit().await.unwrap();
}

pub(crate) async fn the_incarnation_only_rises(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let first = tx.incarnation().await.unwrap();
    let id = tx.cluster_id().await.unwrap();
    assert!(!id.is_empty());
    tx.set_incarnation(first + 4).await.unwrap();
    tx.set_incarnation(first + 4).await.unwrap();
    assert!(matches!(tx.set_incarnation(first).await, Err(StoreError::IllegalMove(_))));
    assert_eq!(tx.coordination().await.unwrap(), None);
    assert!(tx.set_coordination(None, "one").await.unwrap());
    assert!(!tx.set_coordination(None, "two").await.unwrap(), "somebody was faster");
    assert!(tx.set_coordination(Some("one"), "another").await.unwrap());
    tx.commit().await.unwrap();
    lab.reopen(true, 1_767_225_700_000).await;
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.incarnation().await.unwrap(), first + 4);
    assert_eq!(view.cluster_id().await.unwrap(), id);
    assert_eq!(view.coordination().await.unwrap().as_deref(), Some("another"));
}

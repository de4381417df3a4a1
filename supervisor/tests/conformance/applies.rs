//! Moves of branches, and the size windows they fill.

use std::collections::BTreeMap;
use std::time::Duration;

use autopack_shared::domain::record::{Apply, Run};
use autopack_shared::domain::state::ApplyState;

use crate::fixtures::*;
use crate::lab::Lab;
use crate::rows::{exists, missing};

fn sizes(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(class, lines)| ((*class).to_owned(), *lines)).collect()
}

pub(crate) async fn a_branch_has_one_prepared_apply(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let mut tx = directing(&*lab.store()).await;
    let mut first = apply("a-1", "a");
    tx.insert_apply(&first).await.unwrap();
    let rival = Apply { target_ref: first.target_ref.clone(), ..apply("a-2", "b") };
    assert_eq!(exists(tx.insert_apply(&rival).await), "a prepared apply of refs/heads/autopack/a-1");
    assert_eq!(exists(tx.insert_apply(&Apply { target_ref: "refs/x".to_owned(), ..first.clone() }).await), "apply a-1");
    assert_eq!(tx.prepared_applies().await.unwrap(), std::slice::from_ref(&first));
    first.state = ApplyState::Committed;
    tx.update_apply(&mut first).await.unwrap();
    tx.insert_apply(&rival).await.unwrap();
    assert_eq!(tx.prepared_applies().await.unwrap(), [rival]);
    assert_eq!(tx.applies(&name("a")).await.unwrap(), std::slice::from_ref(&first));
    assert_eq!(tx.apply(&name("a-1")).await.unwrap(), Some(first));
    assert_eq!(tx.apply(&name("a-9")).await.unwrap(), None);
}

pub(crate) async fn an_approval_is_used_by_one_apply(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = directing(&*lab.store()).await;
    tx.insert_request(&request("q-1", "a")).await.unwrap();
    let mut first = Apply { request: Some(name("q-1")), ..apply("a-1", "a") };
    tx.insert_apply(&first).await.unwrap();
    first.state = ApplyState::Conflict;
    tx.update_apply(&mut first).await.unwrap();
    let second = Apply { request: Some(name("q-1")), ..apply("a-2", "a") };
    assert_eq!(exists(tx.insert_apply(&second).await), "an apply of request q-1");
    let unknown = Apply { request: Some(name("q-9")), ..apply("a-2", "a") };
    assert!(missing(tx.insert_apply(&unknown).await).contains("a-2"));
    tx.insert_apply(&apply("a-3", "a")).await.unwrap();
    tx.insert_apply(&apply("a-4", "a")).await.unwrap();
}

pub(crate) async fn windows_sum_what_was_applied(lab: &mut impl Lab) {
    let other = Run { project: name("mill"), ..run("c") };
    let mut tx = directing(&*lab.store()).await;
    for run in [&run("a"), &run("b"), &other] {
        tx.insert_run(run).await.unwrap();
    }
    for (id, run) in [("a-1", "a"), ("a-2", "a"), ("a-3", "b"), ("a-4", "c"), ("a-5", "a")] {
        tx.insert_apply(&apply(id, run)).await.unwrap();
    }
    let early = tx.now();
    tx.add_window(&run("a"), &name("a-1"), &sizes(&[("code", 10), ("docs", 1)])).await.unwrap();
    assert!(!exists(tx.add_window(&run("a"), &name("a-1"), &sizes(&[("code", 10)])).await).is_empty());
    tx.commit().await.unwrap();
    lab.advance(Duration::from_secs(60)).await;
    let mut tx = directing(&*lab.store()).await;
    tx.add_window(&run("a"), &name("a-2"), &sizes(&[("code", 5)])).await.unwrap();
    tx.add_window(&run("b"), &name("a-3"), &sizes(&[("code", 100)])).await.unwrap();
    tx.add_window(&other, &name("a-4"), &sizes(&[("code", 1000)])).await.unwrap();
    tx.add_window(&run("a"), &name("a-5"), &sizes(&[("code", 7)])).await.unwrap();
    // A move that never reached its branch takes its lines with it.
    let mut lost = tx.apply(&name("a-5")).await.unwrap().unwrap();
    lost.state = ApplyState::Conflict;
    tx.update_apply(&mut lost).await.unwrap();
    let late = tx.now();
    tx.commit().await.unwrap();

    let mut view = lab.store().read().await.unwrap();
    let all = view.window(&run("a"), early).await.unwrap();
    assert_eq!(all.run, sizes(&[("code", 15), ("docs", 1)]));
    assert_eq!(all.project_24h, sizes(&[("code", 115), ("docs", 1)]));
    let recent = view.window(&run("a"), late).await.unwrap();
    assert_eq!(recent.run, all.run, "a run's own window has no end");
    assert_eq!(recent.project_24h, sizes(&[("code", 105)]));
    let none = view.window(&run("b"), late.plus_seconds(1)).await.unwrap();
    assert_eq!(none.project_24h, sizes(&[]));
    drop(view);

    // A window and its apply come in either order, but never one without the other.
    let mut tx = directing(&*lab.store()).await;
    tx.add_window(&run("b"), &name("a-6"), &sizes(&[("docs", 3)])).await.unwrap();
    tx.insert_apply(&apply("a-6", "b")).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = directing(&*lab.store()).await;
    tx.add_window(&run("b"), &name("a-9"), &sizes(&[("docs", 3)])).await.unwrap();
    assert!(tx.commit().await.is_err());
    let after = lab.store().read().await.unwrap().window(&run("b"), late.plus_seconds(1)).await.unwrap();
    assert_eq!(after.run, sizes(&[("code", 100), ("docs", 3)]));
}

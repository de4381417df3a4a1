//! What gates have learned: baselines, and flaky tests.

use std::collections::BTreeSet;
use std::time::Duration;

use autopack_shared::domain::gate::{Baseline, Measured};
use autopack_shared::domain::ids::Digest;
use autopack_supervisor::store::gates::{BASELINES, FlakyTest};

use crate::fixtures::*;
use crate::lab::Lab;

fn measured(command: &str, failing: &[&str]) -> Measured {
    let failing = failing.iter().map(|name| (*name).to_owned()).collect();
    let ran = BTreeSet::from(["a".to_owned(), "tests \u{1F600} [x-\u{0}]".to_owned()]);
    let baseline = Baseline { code: 1, failing, flaky: BTreeSet::new(), ran, whole: true };
    Measured { command: Digest::of(command.as_bytes()), baseline }
}

pub(crate) async fn a_baseline_is_of_a_project_a_base_and_a_command(lab: &mut impl Lab) {
    let (shop, other) = (name("shop"), name("other"));
    let (first, second) = (measured("x", &["a"]), measured("y", &[]));
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.put_baseline(&shop, oid(1), &first).await.unwrap();
    tx.put_baseline(&shop, oid(1), &second).await.unwrap();
    tx.put_baseline(&shop, oid(2), &measured("x", &["b"])).await.unwrap();
    tx.put_baseline(&other, oid(1), &measured("x", &["c"])).await.unwrap();
    // The first of two that measured at once stays.
    tx.put_baseline(&shop, oid(1), &measured("x", &["d"])).await.unwrap();
    assert_eq!(tx.baselines(&shop, oid(1)).await.unwrap(), [first, second]);
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.baselines(&shop, oid(2)).await.unwrap(), [measured("x", &["b"])]);
    assert_eq!(view.baselines(&shop, oid(3)).await.unwrap(), []);
    let of = |names: &[&str]| names.iter().map(|name| Digest::of(name.as_bytes())).collect::<Vec<_>>();
    assert_eq!(view.baselines_of(&shop, oid(1), &of(&["z", "y"])).await.unwrap(), [measured("y", &[])]);
    assert_eq!(view.baselines_of(&shop, oid(1), &of(&["y", "x", "x"])).await.unwrap().len(), 2);
    assert_eq!(view.baselines_of(&shop, oid(2), &of(&["y"])).await.unwrap(), []);
    assert_eq!(view.baselines_of(&other, oid(1), &of(&[])).await.unwrap(), []);
    drop(view);
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(tx.drop_baselines(&shop, oid(1)).await.unwrap(), 2);
    assert_eq!(tx.drop_baselines(&shop, oid(1)).await.unwrap(), 0);
    assert_eq!(tx.baselines(&other, oid(1)).await.unwrap(), [measured("x", &["c"])]);
    tx.commit().await.unwrap();
}

pub(crate) async fn old_baselines_are_forgotten(lab: &mut impl Lab) {
    let (shop, other) = (name("shop"), name("other"));
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.put_baseline(&other, oid(1), &measured("first", &[])).await.unwrap();
    for n in 0..=BASELINES {
        tx.put_baseline(&shop, oid(1), &measured(&n.to_string(), &[])).await.unwrap();
    }
    let left = tx.baselines(&shop, oid(1)).await.unwrap();
    assert_eq!(left.len(), BASELINES as usize);
    assert!(!left.contains(&measured("0", &[])) && left.contains(&measured(&BASELINES.to_string(), &[])));
    assert_eq!(tx.baselines(&other, oid(1)).await.unwrap().len(), 1);
    tx.commit().await.unwrap();
}

fn tests(named: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    named.iter().map(|(command, test)| ((*command).to_owned(), (*test).to_owned())).collect()
}

pub(crate) async fn flaky_tests_are_counted(lab: &mut impl Lab) {
    let (shop, other) = (name("shop"), name("other"));
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.note_flaky(&shop, &tests(&[("unit", "a::b [ü]"), ("unit", "")]), &name("r1")).await.unwrap();
    tx.note_flaky(&other, &tests(&[("unit", "a::b [ü]")]), &name("r2")).await.unwrap();
    tx.note_flaky(&name("none"), &tests(&[]), &name("r2")).await.unwrap();
    tx.commit().await.unwrap();
    let first = lab.store().read().await.unwrap().flaky_tests(&shop, 0).await.unwrap();
    lab.advance(Duration::from_secs(5)).await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.note_flaky(&shop, &tests(&[("unit", "a::b [ü]"), ("lint", "a::b [ü]")]), &name("r3")).await.unwrap();
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    let found = view.flaky_tests(&shop, 0).await.unwrap();
    let shown: Vec<_> =
        found.iter().map(|t| (t.command.as_str(), t.test.as_str(), t.count, t.last_run.as_str())).collect();
    assert_eq!(shown, [("lint", "a::b [ü]", 1, "r3"), ("unit", "a::b [ü]", 2, "r3"), ("unit", "", 1, "r1")]);
    let twice: &FlakyTest = &found[1];
    assert_eq!(twice.first_seen, first[0].first_seen);
    assert!(twice.last_seen > twice.first_seen);
    assert_eq!(view.flaky_tests(&shop, 1).await.unwrap(), found[..1]);
    assert_eq!(view.flaky_tests(&other, 0).await.unwrap().len(), 1);
    assert_eq!(view.flaky_tests(&name("none"), 0).await.unwrap(), []);
}

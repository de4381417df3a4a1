//! Every noun: what goes in comes out, in order, once, by its version.

use autopack_shared::domain::record::{Lease, Phase, Run};
use autopack_shared::domain::state::{LeaseState, PhaseState, RunState};
use autopack_supervisor::store::{RunFilter, StoreError, StoreResult};

use crate::fixtures::*;
use crate::lab::Lab;

/// What a refusal `Exists` names.
pub(crate) fn exists<T: std::fmt::Debug>(answer: StoreResult<T>) -> String {
    match answer {
        Err(StoreError::Exists { what, id }) => format!("{what} {id}"),
        other => panic!("not refused as existing: {other:?}"),
    }
}

/// What a refusal `NotFound` names.
pub(crate) fn missing<T: std::fmt::Debug>(answer: StoreResult<T>) -> String {
    match answer {
        Err(StoreError::NotFound { what, id }) => format!("{what} {id}"),
        other => panic!("not refused as missing: {other:?}"),
    }
}

/// What a refusal `Conflict` names.
pub(crate) fn conflict<T: std::fmt::Debug>(answer: StoreResult<T>) -> (String, u64) {
    match answer {
        Err(StoreError::Conflict { what, id, expected }) => (format!("{what} {id}"), expected),
        other => panic!("not refused as changed: {other:?}"),
    }
}

pub(crate) async fn projects_are_replaced_and_listed_by_name(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    for id in ["b", "a", "c", "a"] {
        tx.put_project(&project(id)).await.unwrap();
    }
    let mut moved = project("b");
    moved.repo = "/elsewhere".to_owned();
    tx.put_project(&moved).await.unwrap();
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.projects().await.unwrap(), [project("a"), moved.clone(), project("c")]);
    assert_eq!(view.project(&name("b")).await.unwrap(), Some(moved));
    assert_eq!(view.project(&name("x")).await.unwrap(), None);
}

pub(crate) async fn runs_come_back_whole_newest_first_and_filtered(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let mut all: Vec<Run> = ["a", "b", "c", "d"].map(run).into();
    all[1].project = name("mill");
    all[2].state = RunState::Queued;
    for run in &all {
        tx.insert_run(run).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.run(&name("a")).await.unwrap().as_ref(), Some(&all[0]));
    assert_eq!(view.run(&name("x")).await.unwrap(), None);
    let mut listed = async |project: Option<&str>, states: &[RunState], limit| {
        let filter = RunFilter { project: project.map(name), states: states.to_vec(), limit };
        view.runs(&filter).await.unwrap().iter().map(|r| r.id.as_str()).collect::<String>()
    };
    assert_eq!(listed(None, &[], 0).await, "dcba");
    assert_eq!(listed(None, &[], 2).await, "dc");
    assert_eq!(listed(Some("shop"), &[], 0).await, "dca");
    assert_eq!(listed(None, &[RunState::Queued], 0).await, "c");
    assert_eq!(listed(None, &[RunState::Queued, RunState::Created], 0).await, "dcba");
    assert_eq!(listed(Some("shop"), &[RunState::Created], 1).await, "d");
    assert_eq!(listed(Some("mill"), &[RunState::Failed], 0).await, "");
}

pub(crate) async fn a_run_is_added_once(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(exists(tx.insert_run(&run("a")).await), "run a");
    drop(tx);
    // Nor does the refusal hand out the run's fence.
    let mut tx = lab.store().tx(&[]).await.unwrap();
    drop(tx.insert_run(&run("a")).await);
    assert!(matches!(tx.update_run(&mut run("a")).await, Err(StoreError::Fenced { .. })));
}

pub(crate) async fn a_write_goes_by_the_version_that_was_read(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = directing(&*lab.store()).await;
    let mut first = tx.run(&name("a")).await.unwrap().unwrap();
    let mut second = first.clone();
    first.state = RunState::Queued;
    first.reason = None;
    tx.update_run(&mut first).await.unwrap();
    assert_eq!(first.version, 1);
    assert_eq!(tx.run(&name("a")).await.unwrap().unwrap(), first);
    assert_eq!(conflict(tx.update_run(&mut second).await), ("run a".to_owned(), 0));
    assert_eq!(second.version, 0, "a refused write leaves the caller's copy alone");
    tx.update_run(&mut first).await.unwrap();
    assert_eq!(first.version, 2);
    assert_eq!(missing(tx.update_run(&mut run("x")).await), "run x");
}

pub(crate) async fn every_row_with_a_life_has_a_version(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = directing(&*lab.store()).await;
    tx.insert_attempt(&attempt("a", "p", 1)).await.unwrap();
    tx.insert_lease(&lease("l-1", "a")).await.unwrap();
    tx.insert_apply(&apply("a-1", "a")).await.unwrap();
    tx.insert_request(&request("q-1", "a")).await.unwrap();
    tx.update_phase(&mut phase("a", "p", 0)).await.unwrap();
    tx.update_attempt(&mut attempt("a", "p", 1)).await.unwrap();
    tx.update_lease(&mut lease("l-1", "a")).await.unwrap();
    tx.update_apply(&mut apply("a-1", "a")).await.unwrap();
    tx.update_request(&mut request("q-1", "a")).await.unwrap();
    assert_eq!(conflict(tx.update_phase(&mut phase("a", "p", 0)).await).0, "phase a/p");
    assert_eq!(conflict(tx.update_attempt(&mut attempt("a", "p", 1)).await).0, "attempt a/p/1");
    assert_eq!(conflict(tx.update_lease(&mut lease("l-1", "a")).await).0, "lease l-1");
    assert_eq!(conflict(tx.update_apply(&mut apply("a-1", "a")).await).0, "apply a-1");
    assert_eq!(conflict(tx.update_request(&mut request("q-1", "a")).await).0, "request q-1");
    assert_eq!(missing(tx.update_phase(&mut phase("a", "x", 0)).await), "phase a/x");
    assert_eq!(missing(tx.update_attempt(&mut attempt("a", "p", 2)).await), "attempt a/p/2");
    assert_eq!(missing(tx.update_lease(&mut lease("l-x", "a")).await), "lease l-x");
    assert_eq!(missing(tx.update_apply(&mut apply("a-x", "a")).await), "apply a-x");
    assert_eq!(missing(tx.update_request(&mut request("q-x", "a")).await), "request q-x");
}

pub(crate) async fn phases_and_attempts_stand_in_order(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.insert_run(&run("a")).await.unwrap();
    for (id, ordinal) in [("z", 0), ("m", 2), ("b", 1)] {
        tx.insert_phase(&phase("a", id, ordinal)).await.unwrap();
    }
    assert_eq!(exists(tx.insert_phase(&phase("a", "z", 7)).await), "phase a/z");
    assert_eq!(exists(tx.insert_phase(&phase("a", "y", 1)).await), "a phase at place a/1");
    for number in [2, 1, 3] {
        tx.insert_attempt(&attempt("a", "z", number)).await.unwrap();
    }
    assert_eq!(exists(tx.insert_attempt(&attempt("a", "z", 2)).await), "attempt a/z/2");
    assert_eq!(missing(tx.insert_attempt(&attempt("a", "q", 1)).await), "phase a/q");
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    let expected = [phase("a", "z", 0), phase("a", "b", 1), phase("a", "m", 2)];
    assert_eq!(view.phases(&name("a")).await.unwrap(), expected);
    assert_eq!(view.phase(&name("a"), &name("m")).await.unwrap().as_ref(), expected.last());
    assert_eq!(view.phase(&name("a"), &name("q")).await.unwrap(), None);
    let attempts = [1, 2, 3].map(|n| attempt("a", "z", n));
    assert_eq!(view.attempts(&name("a"), &name("z")).await.unwrap(), attempts);
    assert_eq!(view.attempt(&name("a"), &name("z"), 3).await.unwrap().as_ref(), attempts.last());
    assert_eq!(view.attempt(&name("a"), &name("z"), 4).await.unwrap(), None);
    assert!(view.attempts(&name("a"), &name("b")).await.unwrap().is_empty());
}

pub(crate) async fn a_phase_needs_its_run(lab: &mut impl Lab) {
    let mut tx = directing(&*lab.store()).await;
    assert_eq!(missing(tx.insert_phase(&phase("ghost", "p", 0)).await), "run ghost");
    assert_eq!(missing(tx.insert_lease(&lease("l-1", "ghost")).await), "run ghost");
    assert_eq!(missing(tx.insert_decision(&decision("d-1", "ghost")).await), "run ghost");
    assert_eq!(missing(tx.insert_request(&request("q-1", "ghost")).await), "run ghost");
    assert_eq!(missing(tx.insert_command(&command("c-1", "ghost")).await), "run ghost");
    assert_eq!(missing(tx.append_event(&mut event("ghost", "x")).await), "run ghost");
}

pub(crate) async fn runs_are_found_by_the_state_of_a_phase(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    for id in ["a", "b", "c"] {
        tx.insert_run(&run(id)).await.unwrap();
        tx.insert_phase(&phase(id, "p", 0)).await.unwrap();
        let mut second = phase(id, "q", 1);
        second.state = if id == "b" { PhaseState::Queued } else { PhaseState::Applied };
        tx.insert_phase(&second).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.runs_with_phase(PhaseState::Applied).await.unwrap(), [name("a"), name("c")]);
    assert_eq!(view.runs_with_phase(PhaseState::Queued).await.unwrap().len(), 3, "a run is named once");
    assert!(view.runs_with_phase(PhaseState::Failed).await.unwrap().is_empty());
}

pub(crate) async fn one_attempt_of_a_phase_succeeds(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = directing(&*lab.store()).await;
    use autopack_shared::domain::state::AttemptState::{Collected, Succeeded};
    for number in [1, 2] {
        let mut row = attempt("a", "p", number);
        row.state = Collected;
        tx.insert_attempt(&row).await.unwrap();
    }
    let mut first = attempt("a", "p", 1);
    first.state = Succeeded;
    tx.update_attempt(&mut first).await.unwrap();
    let mut second = attempt("a", "p", 2);
    second.state = Succeeded;
    assert_eq!(exists(tx.update_attempt(&mut second).await), "a successful attempt of phase a/p");
}

pub(crate) async fn a_run_has_one_active_lease(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let mut tx = directing(&*lab.store()).await;
    let mut held = lease("l-1", "a");
    tx.insert_lease(&held).await.unwrap();
    assert_eq!(exists(tx.insert_lease(&lease("l-2", "a")).await), "an active lease of run a");
    held.state = LeaseState::Held;
    tx.update_lease(&mut held).await.unwrap();
    assert_eq!(exists(tx.insert_lease(&lease("l-2", "a")).await), "an active lease of run a");
    assert_eq!(exists(tx.insert_lease(&lease("l-1", "b")).await), "lease l-1");
    let other = Lease { project: name("mill"), ..lease("l-3", "b") };
    tx.insert_lease(&other).await.unwrap();
    assert_eq!(tx.active_leases(None).await.unwrap(), [held.clone(), other.clone()]);
    assert_eq!(tx.active_leases(Some(&name("mill"))).await.unwrap(), [other]);
    held.state = LeaseState::Released;
    tx.update_lease(&mut held).await.unwrap();
    tx.insert_lease(&lease("l-2", "a")).await.unwrap();
    assert_eq!(tx.leases(&name("a")).await.unwrap(), [held, lease("l-2", "a")]);
    assert!(tx.active_leases(Some(&name("shop"))).await.unwrap().len() == 1);
}

pub(crate) async fn the_peak_of_leases_counts_commits(lab: &mut impl Lab) {
    for id in ["a", "b", "c", "d"] {
        add_run(&*lab.store(), id).await;
    }
    let director = director(&*lab.store()).await;
    let peak = async |lab: &_| Lab::store(lab).read().await.unwrap().peak_leases(&name("shop")).await.unwrap();
    assert_eq!(peak(lab).await, 0);
    let mut leases: Vec<Lease> = ["a", "b", "c", "d"].map(|run| lease(&format!("l-{run}"), run)).into();
    let fences = std::slice::from_ref(&director);
    for lease in &leases[..2] {
        let mut tx = lab.store().tx(fences).await.unwrap();
        tx.insert_lease(lease).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(peak(lab).await, 2);
    // One comes and one goes in the same commit: never three at once, whatever the order of the statements.
    let mut tx = lab.store().tx(fences).await.unwrap();
    tx.insert_lease(&leases[2]).await.unwrap();
    leases[0].state = LeaseState::Revoked;
    tx.update_lease(&mut leases[0]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(peak(lab).await, 2);
    // One that is rolled back never was.
    let mut tx = lab.store().tx(fences).await.unwrap();
    tx.insert_lease(&leases[3]).await.unwrap();
    drop(tx);
    assert_eq!(peak(lab).await, 2);
    let mut tx = lab.store().tx(fences).await.unwrap();
    tx.insert_lease(&leases[3]).await.unwrap();
    tx.commit().await.unwrap();
    lab.reopen(true, 1_767_225_700_000).await;
    assert_eq!(peak(lab).await, 3);
    let other = lab.store().read().await.unwrap().peak_leases(&name("mill")).await.unwrap();
    assert_eq!(other, 0);
}

pub(crate) async fn a_gate_is_held_by_writers_only(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.lock_gate(&name("shop")).await.unwrap();
    tx.lock_gate(&name("shop")).await.unwrap();
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert!(matches!(view.lock_gate(&name("shop")).await, Err(StoreError::Corrupt(_))));
}

pub(crate) async fn a_census_counts_by_project_and_state(lab: &mut impl Lab) {
    let fences = [director(&*lab.store()).await];
    let mut tx = lab.store().tx(&fences).await.unwrap();
    let mut all: Vec<Run> = ["a", "b", "c"].map(run).into();
    all[2].project = name("mill");
    all[2].state = RunState::Queued;
    for run in &all {
        tx.insert_run(run).await.unwrap();
        tx.insert_phase(&phase(run.id.as_str(), "p", 0)).await.unwrap();
    }
    tx.insert_phase(&Phase { state: PhaseState::Executing, ..phase("b", "q", 1) }).await.unwrap();
    tx.insert_lease(&lease("l-1", "a")).await.unwrap();
    let mut over = lease("l-2", "b");
    tx.insert_lease(&over).await.unwrap();
    over.state = LeaseState::Revoked;
    tx.update_lease(&mut over).await.unwrap();
    tx.commit().await.unwrap();
    let census = lab.store().read().await.unwrap().census().await.unwrap();
    let shown: Vec<String> =
        census.iter().map(|t| format!("{:?} {} {} {}", t.noun, t.project, t.state, t.count)).collect();
    let wanted = [
        "Runs mill queued 1",
        "Runs shop created 2",
        "Phases mill queued 1",
        "Phases shop executing 1",
        "Phases shop queued 2",
        "Leases shop granting 1",
    ];
    assert_eq!(shown, wanted);
}

pub(crate) async fn what_was_written_before_there_were_traces_is_read(lab: &mut impl Lab) {
    let before = Run { trace: None, ..run("a") };
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.insert_run(&before).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(lab.store().read().await.unwrap().run(&name("a")).await.unwrap().as_ref(), Some(&before));
    // As it is written, it is byte for byte what a program of before writes.
    let written = serde_json::to_value(&before).unwrap();
    assert!(written.get("trace").is_none(), "{written}");
    assert_eq!(before.origin(), run("a").origin(), "what it was created with is the same with and without");
}

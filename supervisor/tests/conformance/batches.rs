//! Verbs for many rows: the same answers as one by one, and what waits is found, or refused with all the rest.

use autopack_shared::domain::ids::{PhaseId, RowId, RunId, Scope};
use autopack_shared::domain::state::{LeaseState, PhaseState, RunState};
use autopack_supervisor::store::StoreError;
use autopack_supervisor::store::verify::verify;

use crate::fixtures::*;
use crate::lab::Lab;

fn names<T: std::str::FromStr<Err: std::fmt::Debug>>(of: &[&str]) -> Vec<T> {
    of.iter().map(|text| name(text)).collect()
}

pub(crate) async fn rows_are_gathered_in_the_order_asked_for(lab: &mut impl Lab) {
    for id in ["a", "b"] {
        add_run(&*lab.store(), id).await;
    }
    let mut tx = lab.store().tx(&[run_fence("b", 1)]).await.unwrap();
    let wanted: Vec<(RunId, Option<PhaseId>)> = vec![
        (name("b"), Some(name("p"))),
        (name("none"), Some(name("p"))),
        (name("a"), None),
        (name("b"), Some(name("none"))),
    ];
    let found = tx.gather(&wanted).await.unwrap();
    let runs: Vec<_> = found.iter().map(|one| one.run.as_ref().map(|run| run.id.as_str())).collect();
    assert_eq!(runs, [Some("b"), None, Some("a"), Some("b")]);
    assert_eq!(found[2].run, Some(run("a")));
    let phases: Vec<_> = found.iter().map(|one| one.phase.clone()).collect();
    assert_eq!(phases, [Some(phase("b", "p", 0)), None, None, None]);
    // What was gathered can be written.
    tx.update_run(&mut run("b")).await.unwrap();
    assert_eq!(tx.append_event(&mut event("b", "x")).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert!(view.gather(&wanted).await.is_err(), "who only reads holds nothing");
}

pub(crate) async fn many_rows_are_read_at_once(lab: &mut impl Lab) {
    for id in ["a", "b", "c"] {
        add_run(&*lab.store(), id).await;
    }
    let mut tx = directing(&*lab.store()).await;
    tx.insert_phase(&phase("b", "q", 1)).await.unwrap();
    tx.insert_decision(&decision("d-1", "a")).await.unwrap();
    tx.insert_request(&request("q-1", "a")).await.unwrap();
    tx.insert_apply(&apply("a-1", "a")).await.unwrap();
    tx.append_event(&mut event("b", "x")).await.unwrap();
    tx.append_event(&mut event("b", "y")).await.unwrap();
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    let mut runs = view.runs_of(&names::<RunId>(&["c", "none", "a"])).await.unwrap();
    runs.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(runs, [run("a"), run("c")]);
    let phases = view.phases_of(&names::<RunId>(&["b", "a", "none"])).await.unwrap();
    let of_b: Vec<_> = phases.iter().filter(|phase| phase.run.as_str() == "b").map(|phase| phase.id.as_str()).collect();
    assert_eq!((of_b, phases.len()), (vec!["p", "q"], 3));
    let lines = view.lines_of(&names::<RunId>(&["b", "a", "none"])).await.unwrap();
    assert_eq!(lines, [(name("b"), 2), (name("a"), 0), (name("none"), 0)]);
    assert_eq!(view.decisions_of(&names::<RowId>(&["d-1", "d-2"])).await.unwrap(), [decision("d-1", "a")]);
    assert_eq!(view.requests_of(&[name("q-1"), name("q-2")]).await.unwrap(), [request("q-1", "a")]);
    assert_eq!(view.applies_of(&names::<RowId>(&["a-2", "a-1"])).await.unwrap(), [apply("a-1", "a")]);
    assert!(view.runs_of(&[]).await.unwrap().is_empty() && view.lines_of(&[]).await.unwrap().is_empty());
}

pub(crate) async fn epochs_are_raised_together(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let scopes = [
        (Scope::Run(name("a")), "w-1".to_owned()),
        (Scope::Workspace(name("a")), "w-1".to_owned()),
        (Scope::Repo(name("shop")), "w-2".to_owned()),
    ];
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(tx.bump_all(&scopes).await.unwrap(), [2, 1, 1]);
    assert!(tx.bump_all(&[]).await.unwrap().is_empty());
    // Who raised them holds them.
    tx.update_run(&mut run("a")).await.unwrap();
    tx.commit().await.unwrap();
    let refused = lab.store().tx(&[run_fence("a", 1)]).await.map(drop).unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { held: 1, current: Some(2), .. }), "{refused}");
}

pub(crate) async fn what_waits_is_found_and_is_there_in_the_end(lab: &mut impl Lab) {
    add_logged_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
    tx.defer();
    let mut mine = run("a");
    mine.state = RunState::Queued;
    tx.update_run(&mut mine).await.unwrap();
    mine.state = RunState::Leased;
    tx.update_run(&mut mine).await.unwrap();
    assert_eq!(tx.append_event(&mut event("a", "x")).await.unwrap(), 1);
    assert_eq!(tx.append_event(&mut event("a", "y")).await.unwrap(), 2);
    let mut given = lease("l-1", "a");
    tx.insert_lease(&given).await.unwrap();
    // In the middle of it.
    assert_eq!(tx.run(&name("a")).await.unwrap().unwrap(), mine);
    assert_eq!(tx.events(&name("a"), 0, 10).await.unwrap().len(), 2);
    given.state = LeaseState::Held;
    tx.update_lease(&mut given).await.unwrap();
    let updated = draft("run/a", "run.leased", "run", "a", Some("leased"));
    tx.append_audit(pinned(updated, &mine)).await.unwrap();
    tx.append_audit(pinned(draft("run/a", "lease.held", "lease", "l-1", Some("held")), &given)).await.unwrap();
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.run(&name("a")).await.unwrap().unwrap().version, 2);
    assert_eq!(view.leases(&name("a")).await.unwrap(), [given]);
    let events = view.events(&name("a"), 0, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.text.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(view.audit_heads().await.unwrap().iter().find(|(chain, ..)| chain == "run/a").unwrap().1, 4);
}

pub(crate) async fn what_waits_and_is_refused_leaves_nothing(lab: &mut impl Lab) {
    add_logged_run(&*lab.store(), "a").await;
    // A version that is gone, a move that no table lists, a second lease: each is told at the latest by the commit.
    for wrong in 0..3 {
        let mut tx = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
        tx.defer();
        let refused = async {
            tx.append_event(&mut event("a", "never")).await?;
            match wrong {
                0 => {
                    let mut old = run("a");
                    old.version = 7;
                    tx.update_run(&mut old).await?;
                }
                1 => {
                    let mut odd = phase("a", "p", 0);
                    odd.state = PhaseState::Applied;
                    tx.update_phase(&mut odd).await?;
                }
                _ => {
                    tx.insert_lease(&lease("l-1", "a")).await?;
                    tx.insert_lease(&lease("l-2", "a")).await?;
                }
            }
            tx.append_audit(draft("run/a", "x.y", "run", "a", None)).await?;
            tx.commit().await
        };
        let refused = refused.await.unwrap_err();
        match wrong {
            0 => assert!(matches!(refused, StoreError::Conflict { expected: 7, .. }), "{refused}"),
            1 => assert!(matches!(&refused, StoreError::IllegalMove(what) if what.contains("a/p")), "{refused}"),
            _ => assert!(matches!(refused, StoreError::Exists { .. }), "{refused}"),
        }
    }
    let mut view = lab.store().read().await.unwrap();
    assert!(view.events(&name("a"), 0, 10).await.unwrap().is_empty());
    assert!(view.leases(&name("a")).await.unwrap().is_empty());
    drop(view);
    assert_eq!(verify(&*lab.store()).await.unwrap().problems(), [""; 0]);
}

/// Two projects give work to one worker: together they give it no more than it has slots for, and none of them gives
/// more than its gate allows.
pub(crate) async fn no_worker_gets_more_than_its_slots(lab: &mut impl Lab) {
    const ASKING: usize = 64;
    const SLOTS: usize = 3;
    let mut tx = directing(&*lab.store()).await;
    for n in 0..ASKING {
        tx.insert_run(&in_project(n)).await.unwrap();
        tx.insert_phase(&phase(&format!("r-{n}"), "p", 0)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let fence = director(&*lab.store()).await;
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..ASKING {
        let (store, fence) = (lab.store(), fence.clone());
        asking.spawn(async move {
            let run = in_project(n);
            let mut tx = store.tx(std::slice::from_ref(&fence)).await.unwrap();
            tx.lock_gate(&run.project).await.unwrap();
            tx.lock_slots().await.unwrap();
            if tx.active_leases(None).await.unwrap().len() >= SLOTS {
                return false;
            }
            tx.bump_all(&[(Scope::Run(run.id.clone()), "w-1".to_owned())]).await.unwrap();
            let mut given = lease(&format!("l-{n}"), run.id.as_str());
            given.project = run.project;
            tx.insert_lease(&given).await.unwrap();
            tx.commit().await.unwrap();
            true
        });
    }
    let given = asking.join_all().await.into_iter().filter(|given| *given).count();
    assert_eq!(given, SLOTS);
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.active_leases(None).await.unwrap().len(), SLOTS);
    let peaks = [view.peak_leases(&name("even")).await.unwrap(), view.peak_leases(&name("odd")).await.unwrap()];
    assert_eq!(peaks.iter().sum::<u64>(), SLOTS as u64, "{peaks:?}");
}

fn in_project(n: usize) -> autopack_shared::domain::record::Run {
    let mut row = run(&format!("r-{n}"));
    row.project = name(if n.is_multiple_of(2) { "even" } else { "odd" });
    row
}

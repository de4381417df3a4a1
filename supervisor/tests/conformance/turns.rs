//! Turns: transactions of one run that may be committed together. Each is as good as one of its own: its own answer, its
//! own fences, all of it or nothing, and no refusal of one is a refusal of another.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use autopack_shared::domain::audit::EVENT;
use autopack_shared::domain::ids::{Fence, Scope};
use autopack_shared::domain::state::{PhaseState, RunState};
use autopack_supervisor::store::verify::verify;
use autopack_supervisor::store::{Store, StoreError, StoreResult, Tx};

use crate::fixtures::*;
use crate::lab::Lab;
use crate::postgres::{Case, PostgresLab};

const RUNS: u32 = 24;
const EACH: u64 = 6;

/// Moves the run of a turn as the director does: its row, a line of its history, its record in the log.
async fn moved(tx: &mut dyn Tx, id: &str, to: RunState) -> StoreResult<()> {
    let found = tx.gather(&[(name(id), None)]).await?.pop().and_then(|found| found.run);
    let mut run = found.ok_or(StoreError::NotFound { what: "run", id: id.to_owned() })?;
    let before = run.state.to_string();
    run.state = to;
    tx.update_run(&mut run).await?;
    let mut line = event(id, to.as_str());
    line.at = tx.now();
    tx.append_event(&mut line).await?;
    let mut note = pinned(draft(&format!("run/{id}"), "run.moved", "run", id, Some(to.as_str())), &run);
    note.before = Some(before);
    note.digests.insert(EVENT.to_owned(), autopack_shared::domain::audit::row_digest(&line).unwrap());
    tx.append_audit(note).await
}

/// A turn from its beginning to its end.
async fn turn(store: &dyn Store, fence: &Fence, id: &str, to: RunState) -> StoreResult<()> {
    let mut tx = store.turn(std::slice::from_ref(fence), &name(id), None).await?;
    moved(tx.as_mut(), id, to).await?;
    tx.commit().await
}

/// Runs that wait in the queue, and the director's fence.
async fn queued(store: &dyn Store, runs: u32) -> Fence {
    for n in 0..runs {
        add_logged_run(store, &format!("r-{n}")).await;
    }
    let fence = director(store).await;
    for n in 0..runs {
        turn(store, &fence, &format!("r-{n}"), RunState::Queued).await.unwrap();
    }
    fence
}

async fn whole(store: &dyn Store) {
    assert_eq!(verify(store).await.unwrap().problems(), [""; 0]);
}

pub(crate) async fn a_turn_is_shown_its_run_and_writes_it(lab: &mut impl Lab) {
    let store = lab.store();
    add_logged_run(&*store, "a").await;
    let mut tx = store.turn(&[run_fence("a", 1)], &name("a"), Some(&name("p"))).await.unwrap();
    let found = tx.gather(&[(name("a"), Some(name("p")))]).await.unwrap();
    assert_eq!((found[0].run.as_ref(), found[0].phase.as_ref()), (Some(&run("a")), Some(&phase("a", "p", 0))));
    assert_eq!(tx.gather(&[(name("a"), None)]).await.unwrap()[0].phase, None, "as it was asked");
    moved(tx.as_mut(), "a", RunState::Queued).await.unwrap();
    tx.commit().await.unwrap();
    let mut view = store.read().await.unwrap();
    let after = view.run(&name("a")).await.unwrap().unwrap();
    assert_eq!((after.state, after.version), (RunState::Queued, 1));
    assert_eq!(view.events(&name("a"), 0, 9).await.unwrap().len(), 1);
    drop(view);
    whole(&*store).await;
}

pub(crate) async fn a_turn_finds_what_it_has_written(lab: &mut impl Lab) {
    let store = lab.store();
    add_logged_run(&*store, "a").await;
    add_logged_run(&*store, "b").await;
    let mut tx = store.turn(&[run_fence("a", 1)], &name("a"), Some(&name("p"))).await.unwrap();
    let mut mine = phase("a", "p", 0);
    mine.state = PhaseState::Executing;
    tx.update_phase(&mut mine).await.unwrap();
    assert_eq!(tx.append_event(&mut event("a", "x")).await.unwrap(), 1);
    // One whose table it has not written to, then those that it has.
    assert_eq!(tx.attempts(&name("a"), &name("p")).await.unwrap().len(), 1);
    assert_eq!(tx.phase(&name("a"), &name("p")).await.unwrap().unwrap().state, PhaseState::Executing);
    assert_eq!(tx.gather(&[(name("a"), Some(name("p")))]).await.unwrap()[0].phase, Some(mine.clone()));
    assert_eq!(tx.events(&name("a"), 0, 9).await.unwrap().len(), 1);
    assert_eq!(tx.append_event(&mut event("a", "y")).await.unwrap(), 2);
    // Twice the same row, and a row of another run, which needs no fence of that run's.
    mine.reason = Some("again".to_owned());
    tx.update_phase(&mut mine).await.unwrap();
    assert_eq!(tx.append_event(&mut event("b", "z")).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let mut view = store.read().await.unwrap();
    assert_eq!(view.phase(&name("a"), &name("p")).await.unwrap(), Some(mine));
    assert_eq!(view.events(&name("a"), 0, 9).await.unwrap().len(), 2);
    assert_eq!(view.events(&name("b"), 0, 9).await.unwrap().len(), 1);
}

pub(crate) async fn a_turn_without_its_fence_is_refused(lab: &mut impl Lab) {
    let store = lab.store();
    add_logged_run(&*store, "a").await;
    add_logged_run(&*store, "b").await;
    let stale = run_fence("a", 7);
    let refused = store.turn(&[stale], &name("a"), None).await.map(drop).unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { held: 7, current: Some(1), .. }), "{refused}");
    // None at all, and another run's, which is a good one.
    for fences in [vec![], vec![run_fence("b", 1)]] {
        let mut tx = store.turn(&fences, &name("a"), None).await.unwrap();
        let refused = match moved(tx.as_mut(), "a", RunState::Queued).await {
            Ok(()) => tx.commit().await.unwrap_err(),
            Err(refused) => refused,
        };
        assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
    }
    assert_eq!(store.read().await.unwrap().run(&name("a")).await.unwrap(), Some(run("a")));
    whole(&*store).await;
}

pub(crate) async fn a_turn_of_nothing_and_one_that_is_dropped_leave_nothing(lab: &mut impl Lab) {
    let store = lab.store();
    add_logged_run(&*store, "a").await;
    let fence = director(&*store).await;
    let mut tx = store.turn(std::slice::from_ref(&fence), &name("none"), None).await.unwrap();
    assert_eq!(tx.gather(&[(name("none"), None)]).await.unwrap()[0].run, None);
    drop(tx);
    let mut tx = store.turn(std::slice::from_ref(&fence), &name("none"), None).await.unwrap();
    let refused = match tx.append_event(&mut event("none", "x")).await {
        Ok(_) => tx.commit().await.unwrap_err(),
        Err(refused) => {
            drop(tx);
            refused
        }
    };
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
    let mut tx = store.turn(std::slice::from_ref(&fence), &name("a"), None).await.unwrap();
    moved(tx.as_mut(), "a", RunState::Queued).await.unwrap();
    drop(tx);
    let mut view = store.read().await.unwrap();
    assert_eq!(view.run(&name("a")).await.unwrap(), Some(run("a")));
    assert!(view.events(&name("a"), 0, 9).await.unwrap().is_empty());
    drop(view);
    whole(&*store).await;
}

/// Among many that go on are one with a stale fence, one whose move is not in the tables, one of a run that is not there.
pub(crate) async fn turns_at_once_have_each_their_own_answer(lab: &mut impl Lab) {
    let store = lab.store();
    let fence = queued(&*store, RUNS).await;
    let mut work = JoinSet::new();
    for n in 0..RUNS {
        let (store, fence, id) = (store.clone(), fence.clone(), format!("r-{n}"));
        work.spawn(async move {
            for round in 0..EACH {
                match n {
                    1 => {
                        let stale = Fence { epoch: fence.epoch + 1, ..fence.clone() };
                        let refused = turn(&*store, &stale, &id, RunState::Paused).await.unwrap_err();
                        assert!(matches!(refused, StoreError::Fenced { .. }), "{refused}");
                    }
                    2 => {
                        let refused = turn(&*store, &fence, &id, RunState::Created).await.unwrap_err();
                        assert!(matches!(&refused, StoreError::IllegalMove(why) if why.contains("r-2")), "{refused}");
                    }
                    3 => {
                        let refused = turn(&*store, &fence, "none", RunState::Paused).await.unwrap_err();
                        assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
                    }
                    _ => {
                        let to = if round % 2 == 0 { RunState::Paused } else { RunState::Queued };
                        turn(&*store, &fence, &id, to).await.unwrap();
                    }
                }
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let mut view = store.read().await.unwrap();
    for n in 0..RUNS {
        let (id, bad) = (format!("r-{n}"), (1..=3).contains(&n));
        let history: Vec<_> = view.events(&name(&id), 0, 99).await.unwrap().into_iter().map(|e| e.text).collect();
        let moves = ["paused", "queued"].repeat(if bad { 0 } else { usize::try_from(EACH / 2).unwrap() });
        assert_eq!(history, [&["queued"][..], &moves].concat(), "{id}");
        let version = view.run(&name(&id)).await.unwrap().unwrap().version;
        assert_eq!(version, if bad { 1 } else { 1 + EACH });
    }
    drop(view);
    whole(&*store).await;
}

/// One epoch ends while many turns are under way: what comes after it is refused, what was acknowledged is there.
pub(crate) async fn a_fence_that_rises_ends_the_turns_of_the_old_one(lab: &mut impl Lab) {
    let store = lab.store();
    let fence = queued(&*store, 8).await;
    let mut work = JoinSet::new();
    for n in 0..8 {
        let (store, fence, id) = (store.clone(), fence.clone(), format!("r-{n}"));
        work.spawn(async move {
            let mut done = 0;
            loop {
                let to = if done % 2 == 0 { RunState::Paused } else { RunState::Queued };
                match turn(&*store, &fence, &id, to).await {
                    Ok(()) => done += 1,
                    Err(StoreError::Fenced { .. }) => return (id, done),
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut tx = store.tx(&[]).await.unwrap();
    bump(tx.as_mut(), &Scope::Director, "next").await;
    tx.commit().await.unwrap();
    let mut view = store.read().await.unwrap();
    let mut before = std::collections::BTreeMap::new();
    for n in 0..8 {
        let run = view.run(&name(&format!("r-{n}"))).await.unwrap().unwrap();
        before.insert(run.id.to_string(), run.version);
    }
    drop(view);
    while let Some(done) = timeout(Duration::from_secs(20), work.join_next()).await.unwrap() {
        let (id, done) = done.unwrap();
        assert_eq!(before[&id], 1 + done, "{id}: nothing more, and nothing less than was told");
    }
    whole(&*store).await;
}

/// What only the engine that commits turns together can show.
pub(crate) fn cases() -> Vec<Case> {
    cases_of! { turns {
        a_run_that_was_written_meanwhile_is_a_conflict a_run_that_is_locked_holds_up_no_other
        a_fence_that_is_locked_holds_up_no_other a_turn_that_only_comes_to_be_refused_in_the_commit
        what_was_acknowledged_is_there_when_connections_break
    } }
}

async fn a_run_that_was_written_meanwhile_is_a_conflict(lab: &mut PostgresLab) {
    let store = lab.store();
    add_logged_run(&*store, "a").await;
    let fence = director(&*store).await;
    // Committed together, and made a transaction of its own by a verb that locks.
    for locks in [false, true] {
        let mut tx = store.turn(std::slice::from_ref(&fence), &name("a"), None).await.unwrap();
        let to = if locks { RunState::Paused } else { RunState::Queued };
        turn(&*store, &fence, "a", to).await.unwrap();
        let refused = if locks {
            tx.lock_gate(&name("shop")).await.unwrap_err()
        } else {
            moved(tx.as_mut(), "a", RunState::Queued).await.unwrap();
            tx.commit().await.unwrap_err()
        };
        assert!(matches!(refused, StoreError::Conflict { what: "run", .. }), "{refused}");
    }
    // A line of the history alone is something that was written, too.
    let mut tx = store.turn(std::slice::from_ref(&fence), &name("a"), None).await.unwrap();
    let mut other = store.turn(std::slice::from_ref(&fence), &name("a"), None).await.unwrap();
    assert_eq!(other.append_event(&mut event("a", "x")).await.unwrap(), 3);
    other.commit().await.unwrap();
    assert_eq!(tx.append_event(&mut event("a", "y")).await.unwrap(), 3);
    let refused = tx.commit().await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
    assert_eq!(store.read().await.unwrap().events(&name("a"), 0, 9).await.unwrap().len(), 3);
}

async fn a_run_that_is_locked_holds_up_no_other(lab: &mut PostgresLab) {
    let fence = queued(&*lab.store(), 8).await;
    let fences = std::array::from_fn(|_| fence.clone());
    the_others_go_on(lab, "SELECT 1 FROM run WHERE id = 'r-0' FOR UPDATE", fences).await;
}

/// A director that stopped after it had raised the fence of one run.
async fn a_fence_that_is_locked_holds_up_no_other(lab: &mut PostgresLab) {
    let store = lab.store();
    let fence = queued(&*store, 8).await;
    let mut tx = store.tx(&[]).await.unwrap();
    let epoch = bump(tx.as_mut(), &Scope::Run(name("r-0")), "test").await;
    tx.commit().await.unwrap();
    let own = Fence { scope: Scope::Run(name("r-0")), epoch };
    let fences = std::array::from_fn(|n| if n == 0 { own.clone() } else { fence.clone() });
    the_others_go_on(lab, "SELECT 1 FROM fence WHERE scope = 'run/r-0' FOR UPDATE", fences).await;
}

/// Somebody holds what the first of eight turns needs: the others are done meanwhile, and it when it is free.
async fn the_others_go_on(lab: &mut PostgresLab, lock: &'static str, fences: [Fence; 8]) {
    let store = lab.store();
    let mut holder = lab.raw.begin().await.unwrap();
    sqlx::query(lock).execute(&mut *holder).await.unwrap();
    let mut work = JoinSet::new();
    for (n, fence) in fences.into_iter().enumerate() {
        let store = store.clone();
        work.spawn(async move {
            turn(&*store, &fence, &format!("r-{n}"), RunState::Paused).await.unwrap();
            n
        });
    }
    for _ in 1..8 {
        let done = timeout(Duration::from_secs(1), work.join_next()).await.unwrap().unwrap().unwrap();
        assert_ne!(done, 0, "what it needs is locked");
    }
    holder.rollback().await.unwrap();
    assert_eq!(work.join_next().await.unwrap().unwrap(), 0);
    whole(&*store).await;
}

/// The database says so in the middle of a batch: a trigger of somebody else's, as a full disk or a check would.
async fn a_turn_that_only_comes_to_be_refused_in_the_commit(lab: &mut PostgresLab) {
    let store = lab.store();
    let fence = queued(&*store, 8).await;
    let fail = "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                IF NEW.run_id = 'r-5' THEN RAISE EXCEPTION 'no' USING ERRCODE = '23514'; END IF; RETURN NEW; END $$";
    lab.raw(fail).await.unwrap();
    lab.raw("CREATE TRIGGER fail BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION public.fail()").await.unwrap();
    let mut work = JoinSet::new();
    for n in 0..8 {
        let (store, fence) = (store.clone(), fence.clone());
        work.spawn(async move { (n, turn(&*store, &fence, &format!("r-{n}"), RunState::Paused).await.is_ok()) });
    }
    while let Some(done) = work.join_next().await {
        let (n, done) = done.unwrap();
        assert_eq!(done, n != 5, "r-{n}");
    }
    let mut view = store.read().await.unwrap();
    assert_eq!(view.run(&name("r-5")).await.unwrap().unwrap().state, RunState::Queued);
    drop(view);
    whole(&*store).await;
}

/// Connections break in the middle of batches. Whoever was told that it is committed finds it; whoever was told that
/// nobody knows looks, and goes on from there.
async fn what_was_acknowledged_is_there_when_connections_break(lab: &mut PostgresLab) {
    let store = lab.store();
    let fence = queued(&*store, 8).await;
    let mut work = JoinSet::new();
    for n in 0..8 {
        let (store, fence, id) = (store.clone(), fence.clone(), format!("r-{n}"));
        work.spawn(async move {
            let (mut told, mut unknown) = (0_u64, 0_u64);
            while told < 40 {
                let Ok(mut view) = store.read().await else { continue };
                let Ok(Some(found)) = view.run(&name(&id)).await else { continue };
                drop(view);
                assert!(found.version > told && found.version <= 1 + told + unknown, "{id}: {told} and {unknown}");
                let to = if found.state == RunState::Queued { RunState::Paused } else { RunState::Queued };
                match turn(&*store, &fence, &id, to).await {
                    Ok(()) => told += 1,
                    Err(StoreError::Unavailable { .. }) => unknown += 1,
                    // Of one that nobody knew of, and that was committed after it was looked for.
                    Err(StoreError::Conflict { .. } | StoreError::IllegalMove(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            (id, told, unknown)
        });
    }
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name = 'autopack' AND query LIKE '%move_all%'";
    let mut broken = 0;
    while !work.is_empty() {
        tokio::time::sleep(Duration::from_millis(7)).await;
        broken += sqlx::query_scalar::<_, i64>(end).fetch_one(&lab.raw).await.unwrap();
        while let Some(done) = work.try_join_next() {
            let (id, told, unknown) = done.unwrap();
            let version = store.read().await.unwrap().run(&name(&id)).await.unwrap().unwrap().version;
            assert!((told..=told + unknown).contains(&(version - 1)), "{id}: {told}, {unknown}, {version}");
        }
    }
    assert!(broken > 5, "{broken} connections were broken");
    whole(&*store).await;
}

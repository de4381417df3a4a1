//! What only a store that several processes share can show: writers that wait for each other, and those that must not.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;

use autopack_shared::domain::ids::{Fence, Scope};
use autopack_supervisor::store::verify::verify;
use autopack_supervisor::store::{Store, StoreError, StoreResult, Tx};

use crate::fixtures::*;
use crate::lab::Lab;
use crate::postgres::{Case, PostgresLab};

const WRITERS: usize = 16;

/// Every case.
pub(crate) fn cases() -> Vec<Case> {
    cases_of! { shared {
        a_bump_waits_for_whoever_holds_the_fence a_gate_lets_one_count_at_a_time chains_stay_whole_under_many_writers
        opposite_orders_end_and_say_so a_lock_is_not_waited_for_for_ever a_run_is_written_by_one_at_a_time
        commits_of_other_processes_are_announced no_process_is_behind_the_commits_of_another
        a_transaction_whose_connection_is_gone_is_given_up readers_keep_their_view_and_hold_nobody_up
        commits_of_different_runs_do_not_wait_for_each_other the_log_is_numbered_once_and_in_order
    } }
}

/// Waits until this many connections of the database wait for a lock.
async fn waiting(lab: &PostgresLab, count: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    for _ in 0..2000 {
        let now: i64 = sqlx::query_scalar(sql).fetch_one(&lab.raw).await.unwrap();
        if now >= count {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody waits");
}

fn again(answer: &StoreError) -> bool {
    matches!(answer, StoreError::Unavailable { hint, .. } if hint.ends_with("try again"))
}

async fn a_bump_waits_for_whoever_holds_the_fence(lab: &mut PostgresLab) {
    add_run(&*lab.store(), "a").await;
    let mut old = lab.store().tx(&[run_fence("a", 1)]).await.unwrap();
    // Another writer of the same epoch is not held up.
    lab.store().tx(&[run_fence("a", 1)]).await.unwrap().commit().await.unwrap();
    let store = lab.another().await;
    let mut bump = JoinSet::new();
    bump.spawn(async move {
        let mut tx = store.tx(&[]).await.unwrap();
        let epoch = tx.bump(&Scope::Run(name("a")), "w-2").await.unwrap();
        tx.commit().await.unwrap();
        epoch
    });
    waiting(lab, 1).await;
    assert!(bump.try_join_next().is_none());
    old.update_run(&mut run("a")).await.unwrap();
    old.commit().await.unwrap();
    assert_eq!(bump.join_all().await[0], 2, "raised when the older writer was done");
    let refused = lab.store().tx(&[run_fence("a", 1)]).await.map(drop).unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { held: 1, current: Some(2), .. }), "{refused}");

    // And the other way round: whoever comes while the bump is under way waits for it, and is refused.
    let mut bumping = lab.store().tx(&[]).await.unwrap();
    bumping.bump(&Scope::Run(name("a")), "w-3").await.unwrap();
    let store = lab.another().await;
    let mut late = JoinSet::new();
    late.spawn(async move { store.tx(&[run_fence("a", 2)]).await.map(drop) });
    waiting(lab, 1).await;
    bumping.commit().await.unwrap();
    let refused = late.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(matches!(refused, StoreError::Fenced { held: 2, current: Some(3), .. }), "{refused}");
}

async fn grant(store: &dyn Store, fence: &Fence, run: &str) -> StoreResult<bool> {
    const LIMIT: usize = 3;
    let mut tx = store.tx(std::slice::from_ref(fence)).await?;
    tx.lock_gate(&name("shop")).await?;
    if tx.active_leases(Some(&name("shop"))).await?.len() >= LIMIT {
        return Ok(false);
    }
    tx.bump(&Scope::Run(name(run)), "w").await?;
    tx.insert_lease(&lease(&format!("l-{run}"), run)).await?;
    tx.append_audit(draft(&format!("run/{run}"), "lease.granting", "lease", &format!("l-{run}"), None)).await?;
    tx.commit().await?;
    Ok(true)
}

async fn a_gate_lets_one_count_at_a_time(lab: &mut PostgresLab) {
    for n in 0..WRITERS {
        add_run(&*lab.store(), &format!("r{n}")).await;
    }
    let fence = director(&*lab.store()).await;
    let other = std::sync::Arc::new(lab.another().await);
    let mut grants = JoinSet::new();
    for n in 0..WRITERS {
        let (fence, mine) = (fence.clone(), lab.store());
        let store: std::sync::Arc<dyn Store> = if n % 2 == 0 { mine } else { other.clone() };
        grants.spawn(async move { grant(&*store, &fence, &format!("r{n}")).await.unwrap() });
    }
    assert_eq!(grants.join_all().await.into_iter().filter(|granted| *granted).count(), 3);
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.active_leases(Some(&name("shop"))).await.unwrap().len(), 3);
    assert_eq!(view.peak_leases(&name("shop")).await.unwrap(), 3);
}

async fn chains_stay_whole_under_many_writers(lab: &mut PostgresLab) {
    const EACH: usize = 12;
    let other = std::sync::Arc::new(lab.another().await);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store: std::sync::Arc<dyn Store> = if writer % 2 == 0 { lab.store() } else { other.clone() };
        writers.spawn(async move {
            for n in 0..EACH {
                // All want the same chains, in different orders.
                let mut chains = ["cluster", "project/shop", "project/mill"];
                chains.rotate_left((writer + n) % 3);
                let mut tx = store.tx(&[]).await.unwrap();
                for chain in chains {
                    tx.append_audit(draft(chain, "x.y", "run", "a", None)).await.unwrap();
                }
                if n % 4 == 3 {
                    // What is dropped leaves no gap.
                    tx.audit_heads().await.unwrap();
                    drop(tx);
                } else {
                    tx.commit().await.unwrap();
                }
            }
        });
    }
    writers.join_all().await;
    let report = verify(&*lab.store()).await.unwrap();
    assert_eq!(report.problems(), [""; 0]);
    assert_eq!((report.chains, report.records), (3, (WRITERS * EACH / 4 * 3 * 3) as u64));
    let mut view = lab.store().read().await.unwrap();
    for (chain, seq, _) in view.audit_heads().await.unwrap() {
        let records = view.audit(&chain, 1, 1000).await.unwrap();
        assert!(records.iter().map(|r| r.seq).eq(1..=seq), "{chain}");
    }
}

async fn opposite_orders_end_and_say_so(lab: &mut PostgresLab) {
    let fence = director(&*lab.store()).await;
    for id in ["a", "b"] {
        add_run(&*lab.store(), id).await;
    }
    let begin = async || lab.store().tx(std::slice::from_ref(&fence)).await.unwrap();
    let (mut first, mut second) = (begin().await, begin().await);
    first.update_run(&mut run("a")).await.unwrap();
    second.update_run(&mut run("b")).await.unwrap();
    let end = async |mut tx: Box<dyn Tx>, id: &str| {
        tx.update_run(&mut run(id)).await?;
        tx.commit().await
    };
    let answers = tokio::join!(end(first, "b"), end(second, "a"));
    let (won, lost) = if answers.0.is_ok() { answers } else { (answers.1, answers.0) };
    // The winner's second write comes after the loser is gone, and finds the row as it was.
    won.unwrap();
    let lost = lost.unwrap_err();
    assert!(again(&lost), "{lost}");
    let mut view = lab.store().read().await.unwrap();
    for id in ["a", "b"] {
        assert_eq!(view.run(&name(id)).await.unwrap().unwrap().version, 1);
    }
}

async fn a_lock_is_not_waited_for_for_ever(lab: &mut PostgresLab) {
    let mut held = lab.store().tx(&[]).await.unwrap();
    held.lock_gate(&name("shop")).await.unwrap();
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let refused = tx.lock_gate(&name("shop")).await.unwrap_err();
    assert!(again(&refused), "{refused}");
    assert!(matches!(tx.commit().await, Err(StoreError::Unavailable { .. })), "it can only be given up");
    held.commit().await.unwrap();
}

async fn a_run_is_written_by_one_at_a_time(lab: &mut PostgresLab) {
    add_run(&*lab.store(), "a").await;
    let mut setup = lab.store().tx(&[]).await.unwrap();
    setup.insert_request(&request("q-1", "a")).await.unwrap();
    setup.commit().await.unwrap();
    // One writes a request and then the history, the other the history and then the request: no circle.
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        let store = lab.store();
        writers.spawn(async move {
            let mut tx = store.tx(&[]).await.unwrap();
            if n % 2 == 0 {
                let mut row = tx.request(&name("q-1")).await.unwrap().unwrap();
                let written = tx.update_request(&mut row).await;
                assert!(matches!(written, Ok(()) | Err(StoreError::Conflict { .. })), "{written:?}");
                tx.append_event(&mut event("a", "x")).await.unwrap();
            } else {
                tx.append_event(&mut event("a", "x")).await.unwrap();
                let mut row = tx.request(&name("q-1")).await.unwrap().unwrap();
                tx.update_request(&mut row).await.unwrap();
            }
            tx.append_audit(draft("run/a", "x.y", "run", "a", None)).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    writers.join_all().await;
    let events = lab.store().read().await.unwrap().events(&name("a"), 0, 100).await.unwrap();
    assert_eq!(events.iter().map(|e| e.seq).collect::<BTreeSet<_>>(), (1..=WRITERS as u64).collect());
}

async fn commits_of_other_processes_are_announced(lab: &mut PostgresLab) {
    let other = lab.another().await;
    let mut changes = lab.store().changes();
    changes.mark_unchanged();
    let tx = other.tx(&[]).await.unwrap();
    assert!(!changes.has_changed().unwrap());
    tx.commit().await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), changes.changed()).await.unwrap().unwrap();
    // A closed store looks no more.
    lab.store().close().await;
    changes.mark_unchanged();
    other.tx(&[]).await.unwrap().commit().await.unwrap();
    let told = tokio::time::timeout(Duration::from_millis(1500), changes.changed()).await;
    assert!(told.is_err());
}

async fn no_process_is_behind_the_commits_of_another(lab: &mut PostgresLab) {
    let start = lab.store().now().await.unwrap();
    lab.advance(Duration::from_secs(60)).await;
    let other = lab.another().await;
    // Read, but never committed: only this process must not fall behind it.
    assert_eq!(other.now().await.unwrap(), start.plus_seconds(60));
    assert_eq!(lab.raw("UPDATE public.wall SET at = at - interval '40 s'").await, Ok(1));
    assert_eq!(other.now().await.unwrap(), start.plus_seconds(60));
    assert_eq!(lab.store().now().await.unwrap(), start.plus_seconds(20));
    other.tx(&[]).await.unwrap().commit().await.unwrap();
    assert_eq!(lab.store().tx(&[]).await.unwrap().now(), start.plus_seconds(60));
    assert_eq!(lab.another().await.now().await.unwrap(), start.plus_seconds(60));
}

async fn a_transaction_whose_connection_is_gone_is_given_up(lab: &mut PostgresLab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.put_project(&project("first")).await.unwrap();
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                AND application_name = 'autopack'";
    assert!(lab.raw(kill).await.unwrap() >= 1);
    let lost = tx.put_project(&project("second")).await.unwrap_err();
    assert!(matches!(lost, StoreError::Unavailable { .. }), "{lost}");
    let lost = tx.commit().await.unwrap_err();
    assert!(matches!(lost, StoreError::Unavailable { .. }), "{lost}");
    // The next one has a connection of its own, and nothing of the lost one is there.
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert!(tx.projects().await.unwrap().is_empty());
    tx.put_project(&project("third")).await.unwrap();
    tx.commit().await.unwrap();
}

/// What is committed for one run is not held up by another transaction that has written to the log already.
async fn commits_of_different_runs_do_not_wait_for_each_other(lab: &mut PostgresLab) {
    for id in ["a", "b"] {
        add_run(&*lab.store(), id).await;
    }
    let write = async |id: &str| {
        let mut tx = lab.store().tx(&[]).await.unwrap();
        tx.append_event(&mut event(id, "x")).await.unwrap();
        tx.append_audit(draft(&format!("run/{id}"), "x.y", "run", id, None)).await.unwrap();
        tx
    };
    let mut slow = write("a").await;
    // From here on it holds all that a commit holds until it is durable.
    slow.audit_heads().await.unwrap();
    write("b").await.commit().await.unwrap();
    slow.commit().await.unwrap();
}

async fn the_log_is_numbered_once_and_in_order(lab: &mut PostgresLab) {
    for id in ["a", "b"] {
        add_run(&*lab.store(), id).await;
    }
    for n in 0..3 {
        for id in ["b", "a"] {
            let mut tx = lab.store().tx(&[run_fence(id, 1)]).await.unwrap();
            tx.append_audit(draft(&format!("run/{id}"), "x.y", "run", id, None)).await.unwrap();
            if n == 2 && id == "a" {
                // The history of leases is compared with the log: such a commit has its positions at once.
                tx.insert_lease(&lease("l-1", "a")).await.unwrap();
            }
            tx.commit().await.unwrap();
        }
    }
    let positions = async |lab: &PostgresLab| {
        let mut view = lab.store().read().await.unwrap();
        let (a, b) = (view.audit("run/a", 1, 9).await.unwrap(), view.audit("run/b", 1, 9).await.unwrap());
        assert!(a.is_sorted_by_key(|r| r.leaf_index) && b.is_sorted_by_key(|r| r.leaf_index));
        let mut all: Vec<u64> = a.iter().chain(&b).map(|r| r.leaf_index).collect();
        all.sort_unstable();
        (a.last().unwrap().leaf_index, all)
    };
    assert_eq!(positions(lab).await, (5, (0..6).collect()), "with the lease, all that came before it");
    assert_eq!(lab.raw("SELECT 1 WHERE autopack.number_pending() = 0").await, Ok(1));
    let refusal = lab.raw("UPDATE audit SET leaf_index = 7 WHERE leaf_index = 5").await.unwrap_err();
    assert!(refusal.starts_with("AP004"), "{refusal}");
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.append_audit(draft("run/b", "x.y", "run", "b", None)).await.unwrap();
    tx.commit().await.unwrap();
    let facts = lab.store().read().await.unwrap().facts().await.unwrap();
    assert_eq!(facts.leaves, 7, "it is counted at once");
    // Nobody has to ask for its position.
    for _ in 0..500 {
        if lab.store().read().await.unwrap().facts().await.unwrap().numbered == 7 {
            assert_eq!(positions(lab).await.1, (0..7).collect::<Vec<_>>());
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the log is not numbered");
}

async fn readers_keep_their_view_and_hold_nobody_up(lab: &mut PostgresLab) {
    add_run(&*lab.store(), "a").await;
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.epoch(&Scope::Run(name("a"))).await.unwrap(), Some(1));
    let mut tx = lab.another().await.tx(&[]).await.unwrap();
    tx.bump(&Scope::Run(name("a")), "w-2").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(view.epoch(&Scope::Run(name("a"))).await.unwrap(), Some(1));
}

//! Reservations are summed as they stand and never overspent; breakers and credentials are held by who changes them.

use tokio::task::JoinSet;

use autopack_shared::domain::breaker::{Breaker, BreakerConfig, BreakerState};
use autopack_shared::domain::budget::{
    Admission, Amounts, BudgetScope, Caps, Ending, Ledger, Spend, SpendState, Unit, admit,
};
use autopack_shared::domain::ids::{Fence, Scope};
use autopack_shared::domain::state::LeaseState;
use autopack_shared::domain::usage::Usage;
use autopack_supervisor::store::{SpentBy, StoreError};

use crate::fixtures::*;
use crate::lab::Lab;
use crate::rows::{conflict, exists, missing};

/// Runs that are granted at once.
const RUNS: u64 = 12;
/// What the day has, and what each attempt asks for.
const DAY: u64 = 1000;
const ASK: u64 = 170;

fn spend(run: &str, phase: &str, epoch: u64, tokens: u64) -> Spend {
    Spend {
        run: name(run),
        phase: name(phase),
        attempt: 1,
        epoch,
        project: name("shop"),
        builder: "llm:m".to_owned(),
        credential: Some("main".to_owned()),
        day: 7,
        at: at(1),
        state: SpendState::Reserved,
        version: 0,
        counted: Amounts::default(),
        granted: Caps { tokens: Some(tokens), seconds: Some(60), ..Caps::default() },
        bounds: Vec::new(),
        models: true,
        reported: None,
    }
    .reserve()
}

fn fence(run: &str) -> Fence {
    Fence { scope: Scope::Run(name(run)), epoch: 1 }
}

fn used(tokens: u64) -> Ending {
    Ending::Reported(Some(Usage { input_tokens: tokens, ..Usage::default() }), 5)
}

pub(crate) async fn what_is_reserved_and_used_is_summed_by_scope(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    add_run(&*lab.store(), "b").await;
    let mut tx = lab.store().tx(&[fence("a"), fence("b")]).await.unwrap();
    let mut first = spend("a", "p", 1, 100);
    tx.insert_spend(&first).await.unwrap();
    assert_eq!(exists(tx.insert_spend(&first).await), "reservation a#1");
    tx.insert_spend(&spend("a", "q", 2, 10)).await.unwrap();
    tx.insert_spend(&Spend { day: 8, ..spend("b", "p", 1, 1) }).await.unwrap();
    assert_eq!(tx.credential_uses("main").await.unwrap(), 3);
    first.settle(used(30));
    tx.update_spend(&mut first).await.unwrap();
    assert_eq!(tx.credential_uses("main").await.unwrap(), 2);
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    assert_eq!(view.spend(&name("a"), 1).await.unwrap(), Some(first));
    assert_eq!(view.spend(&name("a"), 9).await.unwrap(), None);
    let (a, p, shop) = (name("a"), name("p"), name("shop"));
    let mut tokens = async |by: SpentBy<'_>| {
        let spent = view.spent(by).await.unwrap();
        (spent.settled.get(Unit::Tokens), spent.reserved.get(Unit::Tokens), spent.settled.seconds)
    };
    assert_eq!(tokens(SpentBy::Phase(&a, &p)).await, (30, 0, 5));
    assert_eq!(tokens(SpentBy::Run(&a)).await, (30, 10, 5));
    assert_eq!(tokens(SpentBy::Project(&shop)).await, (30, 11, 5));
    assert_eq!(tokens(SpentBy::Day(&shop, 7)).await, (30, 10, 5));
    assert_eq!(tokens(SpentBy::Day(&shop, 9)).await, (0, 0, 0));
}

pub(crate) async fn a_reservation_is_settled_once_and_under_a_fence(lab: &mut impl Lab) {
    add_run(&*lab.store(), "a").await;
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let refused = tx.insert_spend(&spend("a", "p", 1, 5)).await;
    assert!(matches!(refused, Err(StoreError::Fenced { .. })), "{refused:?}");
    drop(tx);
    let mut tx = lab.store().tx(&[fence("a")]).await.unwrap();
    let mut mine = spend("a", "p", 1, 5);
    assert_eq!(missing(tx.update_spend(&mut mine).await), "reservation a#1");
    tx.insert_spend(&mine).await.unwrap();
    let mut stale = mine.clone();
    mine.settle(Ending::Lost);
    tx.update_spend(&mut mine).await.unwrap();
    assert_eq!(conflict(tx.update_spend(&mut stale).await), ("reservation a#1".to_owned(), 0));
    let mut again = Spend { state: SpendState::Reserved, ..mine.clone() };
    let refused = tx.update_spend(&mut again).await;
    assert!(matches!(refused, Err(StoreError::IllegalMove(_))), "{refused:?}");
    // Files are counted when the change is judged, after the attempt has ended.
    mine.counted.set(Unit::Files, 3);
    tx.update_spend(&mut mine).await.unwrap();
    tx.commit().await.unwrap();
}

/// Whoever ends a lease may know nothing of what was reserved for it.
pub(crate) async fn a_lease_that_ends_settles_what_was_reserved_for_it(lab: &mut impl Lab) {
    for run in ["a", "b", "c"] {
        add_run(&*lab.store(), run).await;
    }
    let mut tx = lab.store().tx(&[fence("a"), fence("b"), fence("c")]).await.unwrap();
    let mut leases = Vec::new();
    for run in ["a", "b"] {
        tx.insert_spend(&spend(run, "p", 2, 100)).await.unwrap();
        leases.push(lease(&format!("l-{run}"), run));
        tx.insert_lease(leases.last().unwrap()).await.unwrap();
    }
    // Nobody has this one.
    tx.insert_spend(&spend("c", "p", 5, 7)).await.unwrap();
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    let orphans = view.orphans(&name("shop")).await.unwrap();
    assert_eq!(orphans.iter().map(|one| (one.run.as_str(), one.epoch)).collect::<Vec<_>>(), [("c", 5)]);
    assert!(view.orphans(&name("mill")).await.unwrap().is_empty());
    drop(view);
    let mut tx = lab.store().tx(&[fence("a"), fence("b")]).await.unwrap();
    // What is known is said first, and stays.
    let mut known = tx.spend(&name("b"), 2).await.unwrap().unwrap();
    known.settle(used(30));
    tx.update_spend(&mut known).await.unwrap();
    for mut one in leases {
        one.state = LeaseState::Revoked;
        tx.update_lease(&mut one).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut view = lab.store().read().await.unwrap();
    let lost = view.spend(&name("a"), 2).await.unwrap().unwrap();
    assert_eq!((lost.state, lost.counted.tokens, lost.version), (SpendState::Settled, 100, 1));
    assert_eq!(view.spend(&name("b"), 2).await.unwrap(), Some(known));
    assert_eq!(view.orphans(&name("shop")).await.unwrap().len(), 1);
}

/// Grants and settles as the director does, by many at once. After every commit the day has at most what it has.
pub(crate) async fn parallel_grants_never_overspend_a_day(lab: &mut impl Lab) {
    for n in 0..RUNS {
        add_run(&*lab.store(), &format!("r{n}")).await;
    }
    let shop = name("shop");
    let mut grants = JoinSet::new();
    for n in 0..RUNS {
        let (store, shop) = (lab.store(), name("shop"));
        grants.spawn(async move {
            let run = format!("r{n}");
            let mut granted = 0;
            for epoch in 1..=3 {
                let mut tx = store.tx(&[fence(&run)]).await.unwrap();
                tx.lock_gate(&shop).await.unwrap();
                let spent = tx.spent(SpentBy::Day(&shop, 7)).await.unwrap();
                let caps = Caps { tokens: Some(DAY), ..Caps::default() };
                let asked = Caps { tokens: Some(ASK), ..Caps::default() };
                let ledger = Ledger { scope: BudgetScope::Day, caps, spent };
                let Admission::Granted(caps, _) = admit(&[ledger], asked, true, at(0)) else { continue };
                let mut mine = Spend { granted: caps, ..spend(&run, "p", epoch, 0) }.reserve();
                tx.insert_spend(&mine).await.unwrap();
                tx.commit().await.unwrap();
                granted += 1;
                let mut tx = store.tx(&[fence(&run)]).await.unwrap();
                // One builder lies upwards, one is lost, others use some.
                mine.settle(match (n + epoch) % 3 {
                    0 => used(u64::MAX),
                    1 => Ending::Lost,
                    _ => used(20),
                });
                tx.update_spend(&mut mine).await.unwrap();
                tx.commit().await.unwrap();
            }
            granted
        });
    }
    let mut looks = 0;
    while !grants.is_empty() {
        let spent = lab.store().read().await.unwrap().spent(SpentBy::Day(&shop, 7)).await.unwrap();
        let all = spent.settled.tokens + spent.reserved.tokens;
        assert!(all <= DAY, "{all} of {DAY}");
        looks += 1;
        if let Ok(Some(done)) = tokio::time::timeout(std::time::Duration::from_millis(2), grants.join_next()).await {
            done.unwrap();
        }
    }
    let spent = lab.store().read().await.unwrap().spent(SpentBy::Day(&shop, 7)).await.unwrap();
    assert!(looks > 3 && spent.reserved == Amounts::default() && spent.settled.tokens <= DAY, "{looks} {spent:?}");
    assert!(spent.settled.tokens > DAY / 2, "it was used: {spent:?}");
}

pub(crate) async fn a_breaker_is_held_by_who_changes_it(lab: &mut impl Lab) {
    let shop = name("shop");
    assert_eq!(lab.store().read().await.unwrap().breaker(&shop, "llm:m").await.unwrap(), None);
    let mut all = JoinSet::new();
    for n in 0..8 {
        let store = lab.store();
        all.spawn(async move {
            let mut tx = store.tx(&[]).await.unwrap();
            let mut breaker = tx.lock_breaker(&name("shop"), "llm:m").await.unwrap();
            let config = BreakerConfig { failures: 8, ..BreakerConfig::default() };
            breaker.failed(&name(&format!("r{n}")), "timeout", at(n), &config);
            tx.update_breaker(&mut breaker).await.unwrap();
            tx.commit().await.unwrap();
        });
    }
    all.join_all().await;
    let mut view = lab.store().read().await.unwrap();
    let open = view.breaker(&shop, "llm:m").await.unwrap().unwrap();
    assert_eq!((open.failures, open.state, open.version), (8, BreakerState::Open, 8), "none was lost");
    assert_eq!(view.breakers(&shop).await.unwrap(), std::slice::from_ref(&open));
    assert!(view.breakers(&name("mill")).await.unwrap().is_empty());
    drop(view);
    let mut tx = lab.store().tx(&[]).await.unwrap();
    let mut stale = Breaker { version: 3, ..open };
    assert_eq!(conflict(tx.update_breaker(&mut stale).await), ("breaker llm:m".to_owned(), 3));
}

pub(crate) async fn a_credential_rests_for_everybody(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    assert_eq!(tx.credential("main").await.unwrap(), None);
    let mut key = tx.lock_credential("main").await.unwrap();
    key.limited(Some(60), at(0));
    tx.update_credential(&mut key).await.unwrap();
    assert_eq!(tx.lock_credential("main").await.unwrap(), key, "locked again, it is the same");
    tx.commit().await.unwrap();
    let found = lab.store().read().await.unwrap().credential("main").await.unwrap().unwrap();
    assert_eq!((found.rests(at(1000)), found.version), (Some(at(60_000)), 1));
    let mut tx = lab.store().tx(&[]).await.unwrap();
    key.version = 0;
    assert_eq!(conflict(tx.update_credential(&mut key).await), ("credential main".to_owned(), 0));
}

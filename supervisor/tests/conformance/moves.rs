//! Every pair of states of every machine: the database lets the listed moves through and no other, whatever the code
//! above it forgot to check.

use std::collections::BTreeSet;

use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::state::{ApplyState, AttemptState, LeaseState, PhaseState, RequestState, RunState};
use autopack_supervisor::store::{StoreError, StoreResult, Tx};

use crate::fixtures::*;
use crate::lab::Lab;

/// Tries every pair on a fresh row each; `$insert` adds a row in a state, `$update` writes it in another.
macro_rules! every_pair {
    ($state:ident, $tx:ident, $make:expr, $insert:ident, $update:ident) => {
        let listed: BTreeSet<_> = $state::MOVES.iter().map(|(from, _, to)| (*from, *to)).collect();
        let mut n = 0;
        for from in $state::ALL {
            for to in $state::ALL {
                n += 1;
                let mut row = $make(&mut *$tx, n).await;
                row.state = *from;
                $tx.$insert(&row).await.unwrap();
                row.state = *to;
                let allowed = listed.contains(&(*from, *to)) || (from == to && !from.is_terminal());
                judge(allowed, $tx.$update(&mut row).await, &format!("{}: {from} to {to}", $state::MACHINE));
                assert_eq!(row.version, u64::from(allowed));
            }
        }
        assert!(n >= 16);
    };
}

fn judge(allowed: bool, answer: StoreResult<()>, pair: &str) {
    match answer {
        Ok(()) => assert!(allowed, "{pair} went through"),
        Err(StoreError::IllegalMove(what)) => {
            assert!(!allowed, "{pair} was refused");
            let machine = pair.split(':').next().unwrap();
            assert!(what.starts_with(&format!("{machine} ")), "{pair}: {what} does not name the row");
            assert!(what.ends_with(": no table lists this move") || what.ends_with(": it has ended"), "{what}");
        }
        Err(other) => panic!("{pair}: {other}"),
    }
}

pub(crate) async fn runs_move_by_the_table(lab: &mut impl Lab) {
    let mut tx = directing(&*lab.store()).await;
    every_pair!(RunState, tx, async |_: &mut dyn Tx, n: usize| run(&format!("r{n}")), insert_run, update_run);
}

pub(crate) async fn phases_move_by_the_table(lab: &mut impl Lab) {
    let mut tx = directing(&*lab.store()).await;
    tx.insert_run(&run("a")).await.unwrap();
    let make = async |_: &mut dyn Tx, n: usize| phase("a", &format!("p{n}"), u32::try_from(n).unwrap());
    every_pair!(PhaseState, tx, make, insert_phase, update_phase);
}

pub(crate) async fn attempts_move_by_the_table(lab: &mut impl Lab) {
    let mut tx = directing(&*lab.store()).await;
    tx.insert_run(&run("a")).await.unwrap();
    // One phase each, since only one attempt of a phase may succeed.
    let make = async |tx: &mut dyn Tx, n: usize| {
        let id = format!("p{n}");
        tx.insert_phase(&phase("a", &id, u32::try_from(n).unwrap())).await.unwrap();
        attempt("a", &id, 1)
    };
    every_pair!(AttemptState, tx, make, insert_attempt, update_attempt);
}

pub(crate) async fn requests_move_by_the_table(lab: &mut impl Lab) {
    let mut tx = lab.store().tx(&[]).await.unwrap();
    tx.insert_run(&run("a")).await.unwrap();
    let make = async |_: &mut dyn Tx, n: usize| {
        let mut row = request(&format!("q{n}"), "a");
        row.subject_digest = Digest::of(&n.to_be_bytes());
        row
    };
    every_pair!(RequestState, tx, make, insert_request, update_request);
}

pub(crate) async fn leases_move_by_the_table(lab: &mut impl Lab) {
    let mut tx = directing(&*lab.store()).await;
    // One run each, since a run has one active lease.
    let make = async |tx: &mut dyn Tx, n: usize| {
        let id = format!("r{n}");
        tx.insert_run(&run(&id)).await.unwrap();
        lease(&format!("l{n}"), &id)
    };
    every_pair!(LeaseState, tx, make, insert_lease, update_lease);
}

pub(crate) async fn applies_move_by_the_table(lab: &mut impl Lab) {
    let mut tx = directing(&*lab.store()).await;
    tx.insert_run(&run("a")).await.unwrap();
    let make = async |_: &mut dyn Tx, n: usize| apply(&format!("a{n}"), "a");
    every_pair!(ApplyState, tx, make, insert_apply, update_apply);
}

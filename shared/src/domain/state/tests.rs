//! Every state with every event, as one snapshot a machine; terminal states have no way out.

use std::fmt::Write as _;

use super::*;

macro_rules! table {
    ($state:ident, $event:ident) => {{
        let mut out = String::new();
        for from in $state::ALL {
            for event in $event::ALL {
                match from.next(*event) {
                    Ok(to) => writeln!(out, "{from} + {} => {to}", event.as_str()).unwrap(),
                    Err(refused) => assert_eq!(refused.from, from.as_str()),
                }
            }
            if from.is_terminal() {
                assert!($state::MOVES.iter().all(|(f, _, _)| f != from), "{from} is terminal");
                writeln!(out, "{from} is terminal").unwrap();
            }
            assert_eq!(from.as_str().parse::<$state>().unwrap(), *from);
        }
        let mut pairs: Vec<_> = $state::MOVES.iter().map(|(f, e, _)| (*f, *e)).collect();
        pairs.sort();
        pairs.dedup();
        assert_eq!(pairs.len(), $state::MOVES.len(), "one row a pair");
        out
    }};
}

#[test]
fn run_table() {
    insta::assert_snapshot!(table!(RunState, RunEvent));
}

#[test]
fn phase_table() {
    insta::assert_snapshot!(table!(PhaseState, PhaseEvent));
}

#[test]
fn attempt_table() {
    insta::assert_snapshot!(table!(AttemptState, AttemptEvent));
}

#[test]
fn request_table() {
    insta::assert_snapshot!(table!(RequestState, RequestEvent));
}

#[test]
fn lease_table() {
    insta::assert_snapshot!(table!(LeaseState, LeaseEvent));
}

#[test]
fn apply_table() {
    insta::assert_snapshot!(table!(ApplyState, ApplyEvent));
}

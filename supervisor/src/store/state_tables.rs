//! The domain's tables of moves, as rows: every engine copies them into its database, whose triggers read them there.

use std::collections::BTreeSet;

use autopack_shared::domain::state::{ApplyState, AttemptState, LeaseState, PhaseState, RequestState, RunState};

/// A machine, the state it leaves, the state it enters.
pub(super) type Move = (&'static str, &'static str, &'static str);
/// A machine and a state that nothing leaves.
pub(super) type Final = (&'static str, &'static str);

/// Every legal move and every final state of this program's machines.
pub(super) fn all() -> (BTreeSet<Move>, BTreeSet<Final>) {
    let (mut moves, mut finals) = (BTreeSet::new(), BTreeSet::new());
    macro_rules! add {
        ($($state:ident),+) => {$(
            moves.extend($state::MOVES.iter().map(|(from, _, to)| ($state::MACHINE, from.as_str(), to.as_str())));
            let ended = $state::ALL.iter().filter(|state| state.is_terminal());
            finals.extend(ended.map(|state| ($state::MACHINE, state.as_str())));
        )+};
    }
    add!(RunState, PhaseState, AttemptState, RequestState, LeaseState, ApplyState);
    (moves, finals)
}

/// The same as lines of text, to be compared with what a database holds.
pub(super) fn lines(moves: &BTreeSet<Move>, finals: &BTreeSet<Final>) -> BTreeSet<String> {
    let moves = moves.iter().map(|(machine, from, to)| format!("{machine} {from} {to}"));
    moves.chain(finals.iter().map(|(machine, state)| format!("{machine} {state}"))).collect()
}

//! Attempts that met a bound before they were done: which, and when the next one may start.

use super::{Admission, BudgetScope, Caps, Hit, Ledger, Short, Unit, admit, next_day};
use crate::domain::ids::Timestamp;

/// What ended an attempt before it was done, by its worker's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// All that it had of a unit.
    Unit(Unit),
    /// What one call may take.
    Call,
}

impl Stop {
    const WORDS: [(Self, &'static str); 4] = [
        (Self::Unit(Unit::Tokens), "tokens"),
        (Self::Unit(Unit::CostMicros), "cost_micros"),
        (Self::Unit(Unit::Calls), "calls"),
        (Self::Call, "call"),
    ];

    /// As it is said on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(stop, _)| *stop == self).map_or("", |(_, word)| word)
    }

    /// Reads what was said; none where nothing was, or what nobody knows here.
    #[must_use]
    pub fn read(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(stop, _)| *stop)
    }
}

/// As [`admit`], after an attempt for which `short` was not enough: the next one starts when it gets more, or when
/// nobody else holds anything of that budget. What it would get then is all that there is, and it finds out whether
/// that is enough.
#[must_use]
pub fn admit_again(ledgers: &[Ledger], attempt: Caps, models: bool, short: Option<Short>, now: Timestamp) -> Admission {
    let admission = admit(ledgers, attempt, models, now);
    let (Admission::Granted(caps, bounds), Some(short)) = (&admission, short) else { return admission };
    let bound = bounds.iter().find(|bound| bound.unit == short.unit);
    let more = caps.get(short.unit).is_none_or(|cap| cap > short.got);
    let Some(bound) = bound.filter(|_| !more) else { return admission };
    let Some(ledger) = ledgers.iter().find(|ledger| ledger.scope == bound.scope) else { return admission };
    let (settled, reserved) = (ledger.spent.settled.get(short.unit), ledger.spent.reserved.get(short.unit));
    if reserved == 0 {
        return admission;
    }
    Admission::Wait(Hit {
        scope: bound.scope,
        unit: short.unit,
        limit: bound.limit,
        used: settled.saturating_add(reserved),
        until: (bound.scope == BudgetScope::Day).then(|| next_day(now)),
        phase: None,
    })
}

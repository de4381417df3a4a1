//! Budgets: what a phase, a run, a project and a day may use, and what an attempt gets of it before it starts. An
//! attempt reserves what it may use; the reservation counts until the attempt is settled, so that what runs in parallel
//! never uses more than there is (`docs/adr/0024`).

use serde::{Deserialize, Serialize};

use super::ids::{PhaseId, Timestamp};
use super::run_file::RunLimits;

mod again;
mod spend;
#[cfg(test)]
mod tests;

pub use again::{Stop, admit_again};
pub use spend::{Ending, PhaseBudget, RunBudget, Short, Spend, SpendState, asks_models};

/// The most of a unit that one attempt can be counted with, so that sums never overflow.
pub const MOST: u64 = 1_000_000_000_000;

/// An attempt that would get less than this part of what it asks for, because others hold the rest, waits for them.
const CRUMB: u64 = 4;

/// Milliseconds of a day.
const DAY: i64 = 86_400_000;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Tokens of models, both ways.
    Tokens,
    /// Money, in millionths of the price list's currency.
    CostMicros,
    /// Calls of models.
    Calls,
    /// Wall seconds of builders.
    Seconds,
    /// Changed files.
    Files,
}

impl Unit {
    /// All of them, in the order they are checked.
    pub const ALL: [Self; 5] = [Self::Tokens, Self::CostMicros, Self::Calls, Self::Seconds, Self::Files];

    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::CostMicros => "cost_micros",
            Self::Calls => "calls",
            Self::Seconds => "seconds",
            Self::Files => "files",
        }
    }

    /// Whether only builders that ask models use it.
    #[must_use]
    pub const fn of_models(self) -> bool {
        matches!(self, Self::Tokens | Self::CostMicros | Self::Calls)
    }
}

/// Where a budget is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// What one attempt may use at most.
    Attempt,
    /// All attempts of a phase.
    Phase,
    /// All attempts of a run.
    Run,
    /// All attempts of a project, ever.
    Project,
    /// All attempts of a project that were granted on one day, by UTC.
    Day,
}

impl BudgetScope {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Phase => "phase",
            Self::Run => "run",
            Self::Project => "project",
            Self::Day => "day",
        }
    }
}

/// Bounds by unit; what is absent does not bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caps {
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Money in millionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
}

impl Caps {
    /// The bound of one unit.
    #[must_use]
    pub const fn get(self, unit: Unit) -> Option<u64> {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::CostMicros => self.cost_micros,
            Unit::Calls => self.calls,
            Unit::Seconds => self.seconds,
            Unit::Files => self.files,
        }
    }

    /// Sets the bound of one unit.
    pub const fn set(&mut self, unit: Unit, bound: Option<u64>) {
        match unit {
            Unit::Tokens => self.tokens = bound,
            Unit::CostMicros => self.cost_micros = bound,
            Unit::Calls => self.calls = bound,
            Unit::Seconds => self.seconds = bound,
            Unit::Files => self.files = bound,
        }
    }

    /// These bounds, and the others where these name none.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut caps = self;
        for unit in Unit::ALL {
            caps.set(unit, self.get(unit).or_else(|| other.get(unit)));
        }
        caps
    }
}

impl From<&RunLimits> for Caps {
    fn from(limits: &RunLimits) -> Self {
        Self {
            tokens: limits.tokens,
            cost_micros: limits.cost.map(micros),
            calls: limits.calls,
            seconds: limits.seconds,
            files: limits.files,
        }
    }
}

/// An amount of money in millionths; what is no amount is none.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the bounds are checked just before")]
pub fn micros(cost: f64) -> u64 {
    let micros = (cost * 1e6).round();
    if micros.is_finite() && micros > 0.0 { micros.min(1e18) as u64 } else { 0 }
}

/// How much of each unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amounts {
    /// Tokens.
    pub tokens: u64,
    /// Money in millionths.
    pub cost_micros: u64,
    /// Calls.
    pub calls: u64,
    /// Seconds.
    pub seconds: u64,
    /// Files.
    pub files: u64,
}

impl Amounts {
    /// How much of one unit.
    #[must_use]
    pub const fn get(self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::CostMicros => self.cost_micros,
            Unit::Calls => self.calls,
            Unit::Seconds => self.seconds,
            Unit::Files => self.files,
        }
    }

    /// Sets one unit, to [`MOST`] at most.
    pub fn set(&mut self, unit: Unit, amount: u64) {
        let amount = amount.min(MOST);
        match unit {
            Unit::Tokens => self.tokens = amount,
            Unit::CostMicros => self.cost_micros = amount,
            Unit::Calls => self.calls = amount,
            Unit::Seconds => self.seconds = amount,
            Unit::Files => self.files = amount,
        }
    }
}

impl Amounts {
    /// Adds to one unit, past [`MOST`] where a sum is.
    pub const fn add(&mut self, unit: Unit, amount: u64) {
        let sum = self.get(unit).saturating_add(amount);
        match unit {
            Unit::Tokens => self.tokens = sum,
            Unit::CostMicros => self.cost_micros = sum,
            Unit::Calls => self.calls = sum,
            Unit::Seconds => self.seconds = sum,
            Unit::Files => self.files = sum,
        }
    }
}

/// The bounds that the operator sets for every project of this supervisor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BudgetConfig {
    /// One call of a model: tokens and money.
    pub call: Caps,
    /// One attempt.
    pub attempt: Caps,
    /// A phase that names no bounds itself.
    pub phase: Caps,
    /// A project, ever.
    pub project: Caps,
    /// A project on one day.
    pub day: Caps,
}

/// What was used and what is reserved in one scope.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// By attempts that are settled.
    pub settled: Amounts,
    /// By attempts that are under way.
    pub reserved: Amounts,
}

/// One scope that an attempt falls in.
#[derive(Debug, Clone, Copy)]
pub struct Ledger {
    /// Which one.
    pub scope: BudgetScope,
    /// Its bounds.
    pub caps: Caps,
    /// What has gone.
    pub spent: Spent,
}

/// A budget that is used up, or reserved to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// Whose budget.
    pub scope: BudgetScope,
    /// Of what.
    pub unit: Unit,
    /// How much there was.
    pub limit: u64,
    /// How much of it is used.
    pub used: u64,
    /// When there is more by itself; none where somebody has to raise it.
    pub until: Option<Timestamp>,
    /// The phase, where it is a phase's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<PhaseId>,
}

impl std::fmt::Display for Hit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { scope, unit, limit, used, until, phase: _ } = self;
        write!(f, "budget_exhausted: {used} of {limit} {} of the {} are used", unit.as_str(), scope.as_str())?;
        match until {
            Some(until) => write!(f, "; it goes on by itself at {until}"),
            None => f.write_str("; it goes on when that is raised"),
        }
    }
}

/// What an attempt got of one unit, and which scope kept it from more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Of what.
    pub unit: Unit,
    /// The tightest scope.
    pub scope: BudgetScope,
    /// That scope's whole budget.
    pub limit: u64,
}

/// Whether an attempt may start, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It may use so much.
    Granted(Caps, Vec<Bound>),
    /// What is left is reserved by others, who may give some of it back.
    Wait(Hit),
    /// Nothing is left.
    Exhausted(Hit),
}

/// Reserves for an attempt out of what is left in every scope it falls in. `models` says whether it asks any.
#[must_use]
pub fn admit(ledgers: &[Ledger], attempt: Caps, models: bool, now: Timestamp) -> Admission {
    let (mut caps, mut bounds, mut waits) = (Caps::default(), Vec::new(), None);
    for unit in Unit::ALL.into_iter().filter(|unit| models || !unit.of_models()) {
        let mut most = attempt.get(unit).map(|cap| (cap, Bound { unit, scope: BudgetScope::Attempt, limit: cap }));
        for ledger in ledgers {
            let Some(limit) = ledger.caps.get(unit) else { continue };
            let (settled, reserved) = (ledger.spent.settled.get(unit), ledger.spent.reserved.get(unit));
            let until = (ledger.scope == BudgetScope::Day).then(|| next_day(now));
            let hit = |used| Hit { scope: ledger.scope, unit, limit, used, until, phase: None };
            if settled >= limit {
                return Admission::Exhausted(hit(settled));
            }
            let left = limit.saturating_sub(settled).saturating_sub(reserved);
            // Who would get a crumb of it now gets more when the others are settled.
            let crumb = reserved > 0 && attempt.get(unit).is_some_and(|asked| left < asked / CRUMB);
            if left == 0 || crumb {
                waits.get_or_insert(hit(settled.saturating_add(reserved)));
            }
            if most.is_none_or(|(cap, _)| left < cap) {
                most = Some((left, Bound { unit, scope: ledger.scope, limit }));
            }
        }
        // Files are known when a change is judged, not before.
        if let Some((cap, bound)) = most.filter(|_| unit != Unit::Files) {
            caps.set(unit, Some(cap));
            bounds.push(bound);
        }
    }
    waits.map_or(Admission::Granted(caps, bounds), Admission::Wait)
}

/// The day that an instant belongs to, by UTC: days since 1970.
#[must_use]
pub const fn day_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(DAY)
}

/// When the day after begins, by UTC.
#[must_use]
pub fn next_day(at: Timestamp) -> Timestamp {
    Timestamp::from_millis((day_of(at) + 1).saturating_mul(DAY))
}

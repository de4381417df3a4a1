//! What one attempt reserves, and what counts once it has ended.

use serde::{Deserialize, Serialize};

use super::{Amounts, Bound, BudgetScope, Caps, Hit, Stop, Unit};
use crate::domain::ids::{PhaseId, ProjectId, RunId, Timestamp};
use crate::domain::run_file::BuilderSpec;
use crate::domain::usage::{Allowance, Usage};

/// Whether a builder asks models, as far as this program can tell.
#[must_use]
pub const fn asks_models(spec: &BuilderSpec) -> bool {
    matches!(spec, BuilderSpec::Agent { .. } | BuilderSpec::Llm { .. })
}

/// Whether an attempt is still at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpendState {
    /// Its reservation counts.
    Reserved,
    /// What it used counts.
    Settled,
}

impl SpendState {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Settled => "settled",
        }
    }
}

/// What one attempt reserved, and then used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// The run.
    pub run: RunId,
    /// The phase.
    pub phase: PhaseId,
    /// The attempt.
    pub attempt: u32,
    /// The run's epoch that it was granted under.
    pub epoch: u64,
    /// The project.
    pub project: ProjectId,
    /// The builder, as breakers know it.
    pub builder: String,
    /// The credential it uses, where one is known.
    pub credential: Option<String>,
    /// The day it counts for.
    pub day: i64,
    /// When it was reserved.
    pub at: Timestamp,
    /// Where it stands.
    pub state: SpendState,
    /// Rises with every write.
    pub version: u64,
    /// What counts against every budget it falls in.
    pub counted: Amounts,
    /// What it may use at most.
    pub granted: Caps,
    /// Which scope kept it from more.
    pub bounds: Vec<Bound>,
    /// Whether its builder asks models.
    pub models: bool,
    /// What its builder says it used; untrusted.
    pub reported: Option<Usage>,
}

/// How an attempt ended, as far as budgets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It never started.
    NotStarted,
    /// Nobody knows what it used.
    Lost,
    /// It reported, after so many seconds by the supervisor's clock.
    Reported(Option<Usage>, u64),
}

impl Spend {
    /// Reserves what was granted: it counts from now on.
    #[must_use]
    pub fn reserve(mut self) -> Self {
        for unit in Unit::ALL {
            self.counted.set(unit, self.granted.get(unit).unwrap_or(0));
        }
        self
    }

    /// Settles it. What counts is never more than was reserved, whatever a builder says; what a builder that asks models
    /// does not say is counted with all of it, unit by unit.
    pub fn settle(&mut self, ending: Ending) {
        let files = self.counted.files;
        match ending {
            Ending::NotStarted => self.counted = Amounts::default(),
            Ending::Lost => {}
            Ending::Reported(usage, seconds) => {
                self.reported = usage;
                self.count(Unit::Seconds, seconds);
                if let Some(usage) = usage.filter(|_| self.models) {
                    let units = [Unit::Tokens, Unit::CostMicros, Unit::Calls];
                    units.into_iter().for_each(|unit| self.count_said(unit, usage));
                }
            }
        }
        self.counted.files = files;
        self.state = SpendState::Settled;
    }

    fn count(&mut self, unit: Unit, used: u64) {
        self.counted.set(unit, self.granted.get(unit).map_or(used, |granted| used.min(granted)));
    }

    /// What its models may be asked for.
    #[must_use]
    pub fn allowance(&self, call: Caps) -> Allowance {
        Allowance {
            tokens: self.granted.tokens,
            cost_micros: self.granted.cost_micros,
            calls: self.granted.calls,
            call_tokens: call.tokens,
            call_cost_micros: call.cost_micros,
        }
    }

    fn count_said(&mut self, unit: Unit, usage: Usage) {
        if let Some(used) = said(usage, unit) {
            self.count(unit, used);
        }
    }

    /// Which wider scope ended it before it was done; none where it was its own allowance, or the bound of one call.
    /// `stop` is its worker's word; without one it is told by what was used. `of_call` says whether calls have a bound.
    #[must_use]
    pub fn ended_by(&self, stop: Option<Stop>, of_call: bool) -> Option<Bound> {
        let mut bounds = self.bounds.iter().copied().filter(|bound| bound.unit.of_models());
        let used = |unit| self.reported.and_then(|usage| said(usage, unit)).unwrap_or(0);
        let wide = |bound: &Bound| bound.scope != BudgetScope::Attempt;
        match stop {
            Some(Stop::Call) => None,
            Some(Stop::Unit(unit)) => bounds.find(|bound| bound.unit == unit).filter(wide),
            None => {
                let at_end = |bound: &Bound| used(bound.unit) >= self.granted.get(bound.unit).unwrap_or(u64::MAX);
                let (ends, others): (Vec<Bound>, Vec<Bound>) = bounds.partition(at_end);
                if !ends.is_empty() {
                    return if ends.iter().all(wide) { ends.first().copied() } else { None };
                }
                if of_call {
                    return None;
                }
                // The one of which the largest part is gone; the first of several.
                let gone = |bound: &Bound| {
                    let all = self.granted.get(bound.unit).unwrap_or(u64::MAX).max(1);
                    u128::from(used(bound.unit)) * 1000 / u128::from(all)
                };
                others.into_iter().rev().max_by_key(|bound| (gone(bound), wide(bound))).filter(wide)
            }
        }
    }

    /// Which wider scope cut its time short, where it ran out of time after so many seconds by the supervisor's clock.
    /// A builder keeps a part of its time to come to an end.
    #[must_use]
    pub fn out_of_time(&self, seconds: u64) -> Option<Bound> {
        let bound = self.bounds.iter().find(|bound| bound.unit == Unit::Seconds)?;
        let granted = self.granted.seconds?;
        let kept = (granted / 4).min(3);
        (bound.scope != BudgetScope::Attempt && seconds.saturating_add(kept) >= granted).then_some(*bound)
    }
}

/// How much of a unit a builder says that it used, where it says so.
const fn said(usage: Usage, unit: Unit) -> Option<u64> {
    let (used, unsaid) = match unit {
        Unit::Tokens => (usage.tokens(), usage.unsaid.tokens),
        Unit::CostMicros => (usage.cost_micros, usage.unsaid.cost),
        Unit::Calls => (usage.calls, usage.unsaid.calls),
        Unit::Seconds | Unit::Files => (0, true),
    };
    if unsaid { None } else { Some(used) }
}

/// What a phase has besides the bounds that were asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseBudget {
    /// Bounds that an operator set later; they take the place of those it was asked with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub raised: Caps,
    /// What its last attempt got, and it was not enough, while others held the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<Short>,
}

impl PhaseBudget {
    /// Whether there is nothing to say of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// So much of a unit was not enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Short {
    /// Of what.
    pub unit: Unit,
    /// What was granted.
    pub got: u64,
}

/// What a run has besides the bounds of its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunBudget {
    /// Bounds that an operator set later; they take the place of the file's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub raised: Caps,
    /// The budget that holds it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit: Option<Hit>,
}

impl RunBudget {
    /// Whether there is nothing to say of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_default(caps: &Caps) -> bool {
    *caps == Caps::default()
}

//! What one attempt reserves, and what counts once it has ended.

use serde::{Deserialize, Serialize};

use super::{Amounts, Bound, BudgetScope, Caps, Hit, Unit};
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

    /// Settles it. What counts is never more than was reserved, whatever a builder says; a builder that asks models and
    /// says nothing is counted with all of it.
    pub fn settle(&mut self, ending: Ending) {
        let files = self.counted.files;
        match ending {
            Ending::NotStarted => self.counted = Amounts::default(),
            Ending::Lost => {}
            Ending::Reported(usage, seconds) => {
                self.reported = usage;
                self.count(Unit::Seconds, seconds);
                if let Some(usage) = usage.filter(|_| self.models) {
                    self.count(Unit::Tokens, usage.tokens());
                    self.count(Unit::CostMicros, usage.cost_micros);
                    self.count(Unit::Calls, usage.calls);
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

    /// The scope that kept its models from more, where that is wider than the attempt itself.
    #[must_use]
    pub fn wider(&self) -> Option<Bound> {
        let short = |bound: &&Bound| {
            let used = |usage: Usage| match bound.unit {
                Unit::Tokens => usage.tokens(),
                Unit::CostMicros => usage.cost_micros,
                Unit::Calls => usage.calls,
                Unit::Seconds | Unit::Files => 0,
            };
            self.reported.is_some_and(|usage| used(usage) >= self.granted.get(bound.unit).unwrap_or(u64::MAX))
        };
        let wide = || self.bounds.iter().filter(|b| b.unit.of_models() && b.scope != BudgetScope::Attempt);
        wide().find(short).or_else(|| wide().next()).copied()
    }
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

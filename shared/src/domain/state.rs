//! Every life in the system as a table: from, event, to. Only listed moves exist (`coordination.md` 4). The same
//! tables feed the store's triggers, so a forgotten check in code is still refused by the database.

mod apply;
mod attempt;
mod lease;
mod machine;
mod phase;
mod request;
mod run;

pub use apply::{ApplyEvent, ApplyState};
pub use attempt::{AttemptEvent, AttemptState};
pub use lease::{LeaseEvent, LeaseState};
pub use phase::{PhaseEvent, PhaseState};
pub use request::{RequestEvent, RequestState};
pub use run::{RunEvent, RunState};

/// A move that no table lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {machine} that is {from} cannot take '{event}'")]
pub struct IllegalMove {
    /// Which table refused.
    pub machine: &'static str,
    /// The state it was in.
    pub from: &'static str,
    /// What was asked.
    pub event: &'static str,
}

/// A stored state word that no machine knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is no state of a {machine}")]
pub struct UnknownState {
    /// Which machine was asked.
    pub machine: &'static str,
    /// The word.
    pub value: String,
}

#[cfg(test)]
mod tests;

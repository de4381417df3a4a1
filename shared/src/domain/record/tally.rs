//! What a store holds, in numbers: for those who watch, never for a decision.

/// How many things are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// What is counted.
    pub noun: Counts,
    /// The project.
    pub project: String,
    /// The state.
    pub state: String,
    /// How many.
    pub count: u64,
}

/// What is counted of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Runs.
    Runs,
    /// Phases.
    Phases,
    /// Leases that hold a place at the gate.
    Leases,
}

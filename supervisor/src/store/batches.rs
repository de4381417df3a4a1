//! What a transaction asks of many rows at once. One question for all of them instead of one each: where the store is
//! behind a network, the way there and back costs more than the rows.

use async_trait::async_trait;

use autopack_shared::domain::ids::{PhaseId, RequestId, RowId, RunId, Scope};
use autopack_shared::domain::record::{Apply, Decision, Phase, Request, Run};

use super::StoreResult;

/// A run, and one of its phases, as who holds them finds them.
#[derive(Debug, Clone, PartialEq)]
pub struct Gathered {
    /// The run; none where there is none of that name.
    pub run: Option<Run>,
    /// The phase; none where none was asked for, or there is none of that name.
    pub phase: Option<Phase>,
}

/// Verbs for many rows.
#[async_trait]
pub trait Batches {
    /// From here on, writes of runs, phases, attempts, leases and lines of history may wait and be sent together. What
    /// reads finds them. A refusal is told by a later verb or by the commit, and the transaction can then only be given
    /// up.
    fn defer(&mut self);
    /// Holds the rows of runs until the transaction ends, and reads each with one of its phases, in the order given. All
    /// are locked in the order of their names, whatever order they are given in.
    async fn gather(&mut self, wanted: &[(RunId, Option<PhaseId>)]) -> StoreResult<Vec<Gathered>>;
    /// Holds the slots of all workers until the transaction ends, for every project: whoever counts who works where in
    /// order to give somebody work does it under this, after the gate of its project.
    async fn lock_slots(&mut self) -> StoreResult<()>;
    /// Raises several epochs, as [`super::Fences::bump`] does each, in the order given.
    async fn bump_all(&mut self, scopes: &[(Scope, String)]) -> StoreResult<Vec<u64>>;
    /// These runs, in no order; those that are not there are left out.
    async fn runs_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<Run>>;
    /// The phases of these runs, those of each run in order.
    async fn phases_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<Phase>>;
    /// How many lines the history of each of these runs has.
    async fn lines_of(&mut self, runs: &[RunId]) -> StoreResult<Vec<(RunId, u64)>>;
    /// These decisions, in no order; those that are not there are left out.
    async fn decisions_of(&mut self, ids: &[RowId]) -> StoreResult<Vec<Decision>>;
    /// These requests, in no order; those that are not there are left out.
    async fn requests_of(&mut self, ids: &[RequestId]) -> StoreResult<Vec<Request>>;
    /// These applies, in no order; those that are not there are left out.
    async fn applies_of(&mut self, ids: &[RowId]) -> StoreResult<Vec<Apply>>;
}

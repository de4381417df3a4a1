//! Budgets, breakers and credentials. Who adds a reservation holds the project's gate, so that no two count the same
//! money; a breaker or a credential is held by whoever is about to change it.

use async_trait::async_trait;

use autopack_shared::domain::breaker::{Breaker, Credential};
use autopack_shared::domain::budget::{Spend, Spent};
use autopack_shared::domain::ids::{PhaseId, ProjectId, RunId};

use super::StoreResult;

/// Whose spending is summed.
#[derive(Debug, Clone, Copy)]
pub enum SpentBy<'a> {
    /// All attempts of a phase.
    Phase(&'a RunId, &'a PhaseId),
    /// All attempts of a run.
    Run(&'a RunId),
    /// All attempts of a project.
    Project(&'a ProjectId),
    /// Those of a project that were granted on a day.
    Day(&'a ProjectId, i64),
}

/// What attempts reserve and use. Writing needs the run's or the director's fence.
#[async_trait]
pub trait Spending {
    /// Adds a reservation; a second one of the same epoch is refused with `Exists`.
    async fn insert_spend(&mut self, spend: &Spend) -> StoreResult<()>;
    /// What the attempt of a run's epoch reserved or used.
    async fn spend(&mut self, run: &RunId, epoch: u64) -> StoreResult<Option<Spend>>;
    /// Writes a reservation by its version. One that is settled stays so.
    async fn update_spend(&mut self, spend: &mut Spend) -> StoreResult<()>;
    /// What was used and what is reserved.
    async fn spent(&mut self, by: SpentBy<'_>) -> StoreResult<Spent>;
    /// Reservations of a project that are open though their leases have ended.
    async fn orphans(&mut self, project: &ProjectId) -> StoreResult<Vec<Spend>>;
    /// How many attempts that are under way use a credential, in every project.
    async fn credential_uses(&mut self, name: &str) -> StoreResult<u64>;
}

/// Breakers and credentials. None needs a fence: each write is a compare-and-set on a row that is held.
#[async_trait]
pub trait Governors {
    /// One breaker, where there is one.
    async fn breaker(&mut self, project: &ProjectId, builder: &str) -> StoreResult<Option<Breaker>>;
    /// A project's breakers, by builder.
    async fn breakers(&mut self, project: &ProjectId) -> StoreResult<Vec<Breaker>>;
    /// Holds a breaker until the transaction ends; makes a closed one where there is none.
    async fn lock_breaker(&mut self, project: &ProjectId, builder: &str) -> StoreResult<Breaker>;
    /// Writes a breaker by its version.
    async fn update_breaker(&mut self, breaker: &mut Breaker) -> StoreResult<()>;
    /// One credential, where it is known.
    async fn credential(&mut self, name: &str) -> StoreResult<Option<Credential>>;
    /// Holds a credential until the transaction ends; makes a free one where there is none.
    async fn lock_credential(&mut self, name: &str) -> StoreResult<Credential>;
    /// Writes a credential by its version.
    async fn update_credential(&mut self, credential: &mut Credential) -> StoreResult<()>;
}

//! What gates have learned: what commands show on an untouched base, and which tests are flaky. Neither is run state,
//! so neither needs a fence; a report of a gate names the baseline it was compared with by its digest.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use autopack_shared::domain::gate::Measured;
use autopack_shared::domain::ids::{Digest, Oid, ProjectId, RunId, Timestamp};

use super::StoreResult;

/// Flaky tests of a project that are remembered: the ones that were seen last.
pub const FLAKY: u32 = 10_000;

/// Baselines of a project that are kept: the ones that were measured last.
pub const BASELINES: u32 = 500;

/// A test that failed once and passed once on the same tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlakyTest {
    /// The project.
    pub project: ProjectId,
    /// The gate command.
    pub command: String,
    /// The test; the command itself when empty.
    pub test: String,
    /// How often it was seen.
    pub count: u64,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// Whose gate saw it last.
    pub last_run: RunId,
}

/// Verbs of what gates have learned.
#[async_trait]
pub trait Gates {
    /// Keeps what a command showed on a base, and forgets the oldest beyond [`BASELINES`]. What is there already stays:
    /// of two that measured at once, the first is right.
    async fn put_baseline(&mut self, project: &ProjectId, base: Oid, measured: &Measured) -> StoreResult<()>;
    /// All that is known of a base.
    async fn baselines(&mut self, project: &ProjectId, base: Oid) -> StoreResult<Vec<Measured>>;
    /// What is known of these commands on a base.
    async fn baselines_of(&mut self, project: &ProjectId, base: Oid, commands: &[Digest])
    -> StoreResult<Vec<Measured>>;
    /// Forgets what is known of a base, to have it measured again; how many commands.
    async fn drop_baselines(&mut self, project: &ProjectId, base: Oid) -> StoreResult<u64>;
    /// Counts flaky tests, each a command and a test, once more, and forgets the oldest beyond [`FLAKY`]. They are taken
    /// in their order, so that two that learn the same do not wait for each other.
    async fn note_flaky(
        &mut self,
        project: &ProjectId,
        tests: &BTreeSet<(String, String)>,
        run: &RunId,
    ) -> StoreResult<()>;
    /// Flaky tests of a project, the ones seen last first; at most `limit`, 0 means all.
    async fn flaky_tests(&mut self, project: &ProjectId, limit: u32) -> StoreResult<Vec<FlakyTest>>;
}

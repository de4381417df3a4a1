//! Where the data of runs is kept in a cluster: a server of its own beside the control store, in which each run has a
//! schema or a database, and each epoch of it one login role (`coordination.md` 3.9).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use autopack_shared::domain::ids::{FencingToken, RunId};
use autopack_shared::domain::run_data::RunDataModel;

pub mod keeper;
pub mod postgres;

/// How long a grant or a session may wait for the server: others have to get their turn.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Why data of a run could not be given.
#[derive(Debug, thiserror::Error)]
pub enum RunDataError {
    /// The server cannot do it now.
    #[error("the run-database server is unavailable ({why}): {hint}")]
    Unavailable {
        /// What happened.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A later epoch of the run has its role already, or this one's lease has ended.
    #[error("fenced: the data of {run} is at {current}, this is {held}")]
    Fenced {
        /// The run.
        run: RunId,
        /// The token that was brought.
        held: FencingToken,
        /// The token that is there.
        current: FencingToken,
    },
    /// No more runs may have data at once.
    #[error("{limit} runs have data on the run-database server: some have to end first, or be collected sooner")]
    Full {
        /// How many may.
        limit: u32,
    },
    /// What would be made is there and is not ours.
    #[error("the run-database server has something else in the place of this run's data: {0}")]
    Taken(String),
    /// The server, or the way it is reached, does not keep runs apart.
    #[error("the run-database server is not safe to use: {0}")]
    Unsafe(String),
}

/// An answer of the server's.
pub type RunDataResult<T> = Result<T, RunDataError>;

/// One epoch of a run's work, and where its data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stint {
    /// The run.
    pub run: RunId,
    /// How its data is kept.
    pub model: RunDataModel,
    /// The epoch.
    pub token: FencingToken,
}

/// How a run's processes reach its data. Never shown: it holds a password.
#[derive(Clone, PartialEq, Eq)]
pub struct DataUrl(pub String);

impl fmt::Debug for DataUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataUrl(..)")
    }
}

/// The server for runs.
#[async_trait]
pub trait RunDatabases: Send + Sync {
    /// Whether the server answers and a run may have data there: asked before anything is granted.
    async fn has_room(&self, run: &RunId) -> RunDataResult<()>;
    /// Makes what a stint needs: the run's schema or database once, and the login of this epoch. Those of all earlier
    /// epochs are off and their sessions closed before this one is on. Done twice it is done once.
    async fn provision(&self, stint: &Stint) -> RunDataResult<()>;
    /// How the processes of a stint reach it; the same for every caller.
    async fn url(&self, stint: &Stint) -> RunDataResult<DataUrl>;
    /// Ends a stint: its login is off, its sessions are closed.
    async fn retire(&self, run: &RunId, token: FencingToken) -> RunDataResult<()>;
    /// The stints that are not retired.
    async fn open(&self) -> RunDataResult<Vec<(RunId, FencingToken)>>;
    /// Closes sessions of logins that are off: one that was on its way in when its login went.
    async fn sweep(&self) -> RunDataResult<u64>;
    /// Runs whose last stint was retired at least so long ago and whose data is still there.
    async fn idle(&self, since: Duration) -> RunDataResult<Vec<RunId>>;
    /// Removes the data of runs whose stints are retired, in small batches; how many had any.
    async fn collect(&self, runs: &[RunId]) -> RunDataResult<usize>;
    /// Lets go of the server.
    async fn close(&self);
}

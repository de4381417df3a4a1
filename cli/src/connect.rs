//! How a command reaches an engine: one that owns the data directory, or one in this process.

use tonic::transport::Channel;

use autopack_shared::wire::pb::admin_service_client::AdminServiceClient;
use autopack_shared::wire::pb::governance_service_client::GovernanceServiceClient;
use autopack_shared::wire::pb::run_service_client::RunServiceClient;

use crate::context::Context;
use crate::exit::CliError;

/// What a command needs of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Any engine: attach to an owner, else open one that records but drives nothing.
    Passive,
    /// Attach to an owner, else own and drive.
    Drive,
    /// Must own.
    Own,
}

/// A connection to an engine.
#[derive(Debug)]
pub(crate) struct Session {
    /// Runs.
    pub(crate) runs: RunServiceClient<Channel>,
    /// Requests and decisions.
    pub(crate) governance: GovernanceServiceClient<Channel>,
    /// The engine itself.
    pub(crate) admin: AdminServiceClient<Channel>,
    owns: bool,
}

/// Connects.
pub(crate) async fn connect(ctx: &Context, need: Need) -> Result<Session, CliError> {
    let place = ctx.place()?;
    let what = format!("cannot open the engine of {} ({need:?})", place.data_dir.display());
    Err(CliError::refused("unavailable", what, "this build has no engine", "use a build that has one"))
}

impl Session {
    /// Ends the connection; an engine that is owned is stopped within its grace period.
    pub(crate) async fn close(self) {}

    /// Whether the engine runs in this process.
    pub(crate) const fn owns(&self) -> bool {
        self.owns
    }

    /// Completes when the owner went away.
    pub(crate) async fn lost(&self) {
        std::future::pending::<()>().await;
    }
}

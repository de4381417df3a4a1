//! What each command does; one file a group.

mod admin;
mod anchor;
mod approvals;
mod audit;
mod autopilot;
mod builders;
mod daemons;
pub(crate) mod decide;
mod demo;
mod doctor;
mod gaps;
mod gate;
mod init;
mod leases;
mod operate;
mod plan;
mod policy;
mod projects;
mod runs;
pub(crate) mod sandbox;
mod savepoints;
mod settings;
mod workspaces;

use crate::args::Command;
use crate::context::Context;
use crate::exit::{CliError, Exit};
pub(crate) use crate::rules::project_of_folder;

/// Runs a command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Init(args) => init::run(context, args).await,
        Command::Demo(args) => demo::run(context, &args).await,
        Command::Anchor(command) => anchor::run(context, command),
        Command::Gaps(command) => gaps::run(context, command).await,
        Command::Plan(command) => plan::run(context, command).await,
        // Boxed, because it is much larger than the others.
        Command::Autopilot(command) => Box::pin(autopilot::run(context, command)).await,
        Command::Runs(command) => Box::pin(runs::run(context, command)).await,
        Command::Rollback(args) => runs::rollback(context, &args).await,
        Command::Savepoints(command) => savepoints::run(context, command).await,
        Command::Approvals(command) => Box::pin(approvals::run(context, command)).await,
        Command::Governance(command) => Box::pin(approvals::governance(context, command)).await,
        Command::Leases(command) => leases::run(context, command).await,
        Command::Builders(command) => builders::run(context, command).await,
        Command::Policy(command) => policy::run(context, &command),
        Command::Gate(command) => gate::run(context, &command).await,
        Command::Audit(command) => audit::run(context, command).await,
        Command::Up(_) => operate::up(context).await,
        Command::Supervisor(args) => Box::pin(daemons::supervisor(context, args)).await,
        Command::Worker(args) => Box::pin(daemons::worker(context, args)).await,
        Command::Projects(command) => projects::projects(context, command).await,
        Command::Workers(command) => projects::workers(context, command).await,
        Command::Workspaces(command) => workspaces::run(context, command).await,
        Command::Token(command) => daemons::token(context, command),
        Command::Sandbox(command) => sandbox::run(context, command).await,
        Command::Admin(command) => admin::run(context, command).await,
        Command::Doctor(_) => doctor::run(context),
        Command::Bench(args) => Box::pin(crate::bench::run(context, &args)).await,
        Command::Config(command) => settings::config(context, &command),
        Command::Completions(args) => settings::completions(context, &args),
    }
}

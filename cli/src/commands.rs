//! What each command does; one file a group.

mod anchor;
mod gaps;
mod gate;
mod init;
mod plan;
mod policy;
mod settings;

use crate::args::Command;
use crate::context::Context;
use crate::exit::{CliError, Exit};
pub(crate) use crate::rules::project_of_folder;

/// Runs a command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Init(args) => init::run(context, args).await,
        Command::Anchor(command) => anchor::run(context, command),
        Command::Gaps(command) => gaps::run(context, command).await,
        Command::Plan(command) => plan::run(context, command).await,
        Command::Gate(command) => gate::run(context, &command),
        Command::Policy(command) => policy::run(context, &command),
        Command::Config(command) => settings::config(context, &command),
        Command::Completions(args) => settings::completions(context, &args),
        _ => Ok(Exit::Bug),
    }
}

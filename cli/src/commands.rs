//! What each command does; one file a group.

mod gate;
mod policy;

use crate::args::Command;
use crate::context::Context;
use crate::exit::{CliError, Exit};
pub(crate) use crate::rules::project_of_folder;

/// Runs a command.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Gate(gate) => gate::run(context, &gate),
        Command::Policy(policy) => policy::run(context, &policy),
        _ => Ok(Exit::Bug),
    }
}

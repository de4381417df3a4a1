//! `autopilot run` and `autopilot supervise`.

mod far;
mod finish;
mod journal;
mod run;
mod supervise;

pub(crate) use finish::keep_up;

use crate::args::autopilot::Autopilot;
use crate::context::Context;
use crate::exit::{CliError, Exit};

/// Runs `autopilot`.
pub(crate) async fn run(ctx: &Context, command: Autopilot) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Autopilot::Run(args) => Box::pin(run::run(ctx, args)).await,
        Autopilot::Supervise(args) => Box::pin(supervise::run(ctx, args)).await,
    }
}

//! `runs`: submit, look at and steer runs.

mod logs;
pub(crate) mod look;
mod steer;
pub(crate) mod submit;

pub(crate) use look::{Which, show_diff};
pub(crate) use steer::{drive_one, roll_back, rollback};

use crate::args::runs::Runs;
use crate::context::Context;
use crate::exit::{CliError, Exit};

/// Runs `runs`.
pub(crate) async fn run(ctx: &Context, command: Runs) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Runs::Submit(args) => Box::pin(submit::run(ctx, args)).await,
        Runs::List(args) => look::list(ctx, args).await,
        Runs::Show(args) => look::show(ctx, &args.run).await,
        Runs::Watch(args) => Box::pin(look::watch(ctx, &args)).await,
        Runs::Logs(args) => logs::logs(ctx, &args).await,
        Runs::Transcript(args) => logs::transcript(ctx, &args).await,
        Runs::Diff(args) => look::diff(ctx, args).await,
        Runs::Budget(args) => steer::budget(ctx, &args).await,
        Runs::Explain(args) => look::explain(ctx, &args.run).await,
        Runs::Cancel(args) => steer::cancel(ctx, &args.run).await,
        Runs::Pause(args) => steer::pause(ctx, &args.run).await,
        Runs::Retry(args) => steer::retry(ctx, &args).await,
        Runs::Resume(args) => Box::pin(steer::resume(ctx, &args)).await,
        Runs::Land(args) => Box::pin(steer::land(ctx, &args.run)).await,
    }
}

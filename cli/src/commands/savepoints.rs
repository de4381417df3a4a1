//! `savepoints`: the commits a run can go back to, what changed since, and the way back.

use autopack_shared::wire::pb::{SavePoint, SavePointsRequest};

use crate::args::runs::{Restore, Savepoints, SavepointsList};
use crate::commands::runs::{Which, roll_back, show_diff};
use crate::connect::{Need, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::show::save_point_json;
use crate::terminal::Table;

/// Runs `savepoints`.
pub(crate) async fn run(ctx: &Context, command: Savepoints) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Savepoints::List(args) => list_savepoints(ctx, args).await,
        Savepoints::Diff(args) => show_diff(ctx, &args, Which { since_save_point: true, attempts: None }).await,
        Savepoints::Restore(args) => restore(ctx, &args).await,
    }
}

async fn points(ctx: &Context, run_id: String) -> Result<Vec<SavePoint>, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.runs.save_points(SavePointsRequest { run_id }).await;
    session.close().await;
    Ok(answer.during("list save points")?.into_inner().save_points)
}

async fn list_savepoints(ctx: &Context, args: SavepointsList) -> Result<Exit, CliError> {
    let points = points(ctx, args.run.map(String::from).unwrap_or_default()).await?;
    if ctx.out.machine() {
        ctx.out.list("save_points", "save_point", points.iter().map(save_point_json).collect())?;
    } else if points.is_empty() {
        ctx.out.note("no save points: nothing was applied yet; next: autopack runs list");
    } else {
        let mut table = Table::new(["RUN", "PHASE", "ATTEMPT", "COMMIT", "REF"]);
        for point in &points {
            let commit = point.commit.get(..12).unwrap_or(&point.commit).to_owned();
            table.row([
                point.run_id.clone(),
                point.phase_id.clone(),
                point.attempt.to_string(),
                commit,
                point.r#ref.clone(),
            ]);
        }
        ctx.out.table(&table)?;
        ctx.out.note("next: autopack savepoints diff RUN, or autopack savepoints restore RUN --phase PHASE");
    }
    Ok(Exit::Done)
}

/// Takes back the phase and whatever was applied after it, newest first: the branch has the save point's tree again, by
/// commits that go forward.
async fn restore(ctx: &Context, args: &Restore) -> Result<Exit, CliError> {
    let run = &args.named.run;
    let mut later: Vec<String> = points(ctx, run.to_string()).await?.into_iter().map(|point| point.phase_id).collect();
    let Some(at) = later.iter().rposition(|phase| *phase == args.phase.as_str()) else {
        return Err(CliError::refused(
            "not_found",
            format!("no save point of {run}/{}", args.phase),
            "the phase was never applied, or it has another name",
            format!("autopack savepoints list {run}"),
        ));
    };
    let mut later = later.split_off(at);
    // A phase that was applied again later is taken back once, at its newest place.
    let mut seen = std::collections::BTreeSet::new();
    later.reverse();
    later.retain(|phase| seen.insert(phase.clone()));
    let last = later.len().saturating_sub(1);
    for (n, phase) in later.into_iter().enumerate() {
        let exit = roll_back(ctx, run, Some(phase), &args.reason, n == last).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

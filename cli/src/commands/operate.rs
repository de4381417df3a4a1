//! `up`: the engine.

use serde_json::json;
use tokio_stream::StreamExt as _;

use autopack_shared::wire::pb::run_service_client::RunServiceClient;
use autopack_shared::wire::pb::{MovesRequest, StatusRequest};

use crate::commands::autopilot::keep_up;
use crate::connect::{Need, Wire, connect};
use crate::context::Context;
use crate::drive::{Leave, Outcome, Rest};
use crate::exit::{CliError, During as _, Exit};
use crate::rules::{Rules, paper};

/// Runs `up`: owns the engine until it is stopped.
pub(crate) async fn up(ctx: &Context) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    usable_policy(ctx)?;
    let mut leave = Leave::new()?;
    let mut session = connect(ctx, Need::Own).await?;
    let status = match session.admin.status(StatusRequest {}).await.during("look at the engine") {
        Ok(status) => status.into_inner(),
        Err(error) => {
            session.close().await;
            return Err(error);
        }
    };
    let place = ctx.place()?;
    let socket = session.socket().display().to_string();
    if ctx.out.machine() {
        ctx.out.event(&json!({
            "format": "up/1", "project": status.project, "mode": status.mode, "version": status.version, "pid": status.pid,
            "repo": place.root.display().to_string(), "data_dir": place.data_dir.display().to_string(), "socket": socket,
        }))?;
    } else {
        let (repo, data) = (place.root.display(), place.data_dir.display());
        ctx.out.text(&format!("up: project {} on {repo}\n  data    {data}\n  socket  {socket}\n", status.project))?;
        ctx.out.note(
            "next, in another terminal: autopack autopilot run --enable, or autopack approvals watch; Ctrl-C stops it",
        );
    }
    let stopped = tokio::select! {
        () = leave.asked() => true,
        () = session.lost() => false,
        () = keep_files(ctx, session.runs.clone()) => false,
    };
    ctx.out.note(if stopped {
        "stopping: work under way is given back; a second Ctrl-C ends at once"
    } else {
        "the engine stopped by itself"
    });
    tokio::select! {
        () = session.close() => {}
        () = leave.asked() => return Ok(Exit::Interrupted),
    }
    if stopped {
        return Ok(Exit::Done);
    }
    let why = "it lost the data directory, or a part of it failed; its log says more (-v)";
    Err(CliError::refused("unavailable", "the engine stopped by itself", why, "autopack doctor, then start it again"))
}

/// Refuses a commit whose policy or anchor cannot be used: every run from it would fail, one by one.
fn usable_policy(ctx: &Context) -> Result<(), CliError> {
    let paper = paper(&ctx.place()?.root)?;
    // A repository without a commit may get its first one later.
    let Ok(head) = paper.commit("HEAD") else { return Ok(()) };
    let (_, broken) = Rules::at(&paper, head)?;
    broken.map_or(Ok(()), Err)
}

/// Keeps session and summary of the runs that come to rest here, where no command goes with them. Never ends.
async fn keep_files(ctx: &Context, mut runs: RunServiceClient<Wire>) {
    if let Ok(moves) = runs.moves(MovesRequest {}).await {
        let mut moves = moves.into_inner();
        while let Some(Ok(run)) = moves.next().await {
            if let Some(rest) = Rest::of(&run) {
                keep_up(ctx, &Outcome { run, rest });
            }
        }
    }
    // An engine that went away is noticed elsewhere.
    std::future::pending().await
}

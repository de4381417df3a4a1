//! `up` and `leases`: the engine and what it holds.

use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use autopack_shared::wire::pb::run_service_client::RunServiceClient;
use autopack_shared::wire::pb::{LeasesRequest, MovesRequest, StatusRequest};

use crate::args::operate::{Leases, LeasesList};
use crate::commands::autopilot::keep_up;
use crate::connect::{Need, Wire, connect};
use crate::context::Context;
use crate::drive::{Leave, Outcome, Rest};
use crate::exit::{CliError, During as _, Exit};
use crate::rules::{Rules, paper};
use crate::show::{clock, lease_json};
use crate::terminal::Table;

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

/// Runs `leases`.
pub(crate) async fn leases(ctx: &Context, command: Leases) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Leases::List(args) => list_leases(ctx, args).await,
    }
}

async fn list_leases(ctx: &Context, args: LeasesList) -> Result<Exit, CliError> {
    let run_id = args.run_id.map(String::from).unwrap_or_default();
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.leases(LeasesRequest { all: args.all, run_id }).await;
    session.close().await;
    let answer = answer.during("list leases")?.into_inner();
    if ctx.out.machine() {
        let leases: Vec<Value> = answer.leases.iter().map(lease_json).collect();
        ctx.out.document(&json!({ "format": "leases/1", "peak": answer.peak, "leases": leases }))?;
        return Ok(Exit::Done);
    }
    if answer.leases.is_empty() {
        let next = if args.all { "autopack runs list" } else { "autopack leases list --all" };
        ctx.out.note(&format!("no leases, at most {} at once so far; next: {next}", answer.peak));
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["LEASE", "STATE", "RUN", "PHASE", "FOR", "WORKER", "EPOCH", "SINCE", "WHY"]);
    for lease in &answer.leases {
        table.row([
            lease.id.clone(),
            lease.state.to_uppercase(),
            lease.run_id.clone(),
            lease.phase_id.clone(),
            lease.purpose.clone(),
            lease.worker_id.clone(),
            lease.epoch.to_string(),
            clock(lease.granted_at_ms),
            lease.reason.clone(),
        ]);
    }
    ctx.out.table(&table)?;
    ctx.out.note(&format!("at most {} at once so far", answer.peak));
    Ok(Exit::Done)
}

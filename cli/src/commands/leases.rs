//! `leases`: who may work on what, who is alive, and how a lease is taken away.

use std::time::Duration;

use serde_json::{Value, json};

use autopack_shared::wire::pb::{BreakLeaseRequest, BreakLeaseResponse, Held, Lease, LeasesRequest};

use crate::args::operate::{Leases, LeasesBreak, LeasesList};
use crate::connect::{Need, Session, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::output::tagged;
use crate::show::{clock, held_json, lease_json, left, span};
use crate::terminal::{Table, line};

/// How long a break may take until it is done.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(100);

/// Runs `leases`.
pub(crate) async fn run(ctx: &Context, command: Leases) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Leases::List(args) => list(ctx, args).await,
        Leases::Break(args) => break_one(ctx, args).await,
    }
}

async fn list(ctx: &Context, args: LeasesList) -> Result<Exit, CliError> {
    let run_id = args.run_id.map(String::from).unwrap_or_default();
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.leases(LeasesRequest { all: args.all, run_id }).await;
    // What this command itself holds, while it looks, is nothing to tell.
    let alone = session.owns();
    session.close().await;
    let answer = answer.during("list leases")?.into_inner();
    if ctx.out.machine() {
        let leases: Vec<Value> = answer.leases.iter().map(lease_json).collect();
        let held: Vec<Value> = answer.held.iter().map(held_json).collect();
        ctx.out.document(&json!({
            "format": "leases/1", "peak": answer.peak, "leases": leases, "held": held,
            "blind": (!answer.blind.is_empty()).then_some(&answer.blind),
        }))?;
        return Ok(Exit::Done);
    }
    if !answer.leases.is_empty() {
        ctx.out.table(&leases_table(&answer.leases))?;
    }
    if !answer.held.is_empty() && !alone {
        if !answer.leases.is_empty() {
            ctx.out.text("\n")?;
        }
        ctx.out.table(&held_table(&answer.held))?;
    }
    if !answer.blind.is_empty() {
        ctx.out.warn(&format!("who is alive cannot be seen now: {}", line(&answer.blind)));
    }
    if answer.leases.is_empty() {
        let next = if args.all { "autopack runs list" } else { "autopack leases list --all" };
        ctx.out.note(&format!("no leases, at most {} at once so far; next: {next}", answer.peak));
    } else {
        ctx.out.note(&format!("at most {} at once so far", answer.peak));
    }
    Ok(Exit::Done)
}

fn leases_table(leases: &[Lease]) -> Table {
    let heads = ["LEASE", "STATE", "RUN", "PHASE", "FOR", "WORKER", "EPOCH", "SINCE", "AGE", "LEFT", "WHY"];
    let mut table = Table::new(heads);
    for lease in leases {
        let suspect = if lease.suspect { " (suspect)" } else { "" };
        table.row([
            lease.id.clone(),
            format!("{}{suspect}", lease.state),
            lease.run_id.clone(),
            lease.phase_id.clone(),
            lease.purpose.clone(),
            lease.worker_id.clone(),
            lease.epoch.to_string(),
            clock(lease.granted_at_ms),
            age(lease.age_ms),
            left(lease.remaining_ms, lease.ttl_ms),
            lease.reason.clone(),
        ]);
    }
    table
}

fn held_table(held: &[Held]) -> Table {
    let mut table = Table::new(["HELD", "NAME", "BY", "EPOCH", "AGE", "LEFT"]);
    for one in held {
        let suspect = if one.suspect { " (suspect)" } else { "" };
        table.row([
            format!("{}{suspect}", one.kind),
            one.name.clone(),
            one.holder.clone(),
            if one.epoch == 0 { "-".to_owned() } else { one.epoch.to_string() },
            age(one.age_ms),
            left(one.remaining_ms, one.ttl_ms),
        ]);
    }
    table
}

fn age(millis: u64) -> String {
    span(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// `leases break`: asks, and waits until the director has dealt with it. What is meant is what is open at the first look:
/// whoever is given the run after that is left alone.
async fn break_one(ctx: &Context, args: LeasesBreak) -> Result<Exit, CliError> {
    let run = args.run.to_string();
    let mut session = connect(ctx, Need::Passive).await?;
    let broken = broken(ctx, &mut session, &args).await;
    let alone = session.owns();
    session.close().await;
    let answer = broken?;
    if alone {
        ctx.out.text(&format!("{run} loses its lease\n"))?;
        ctx.out.note(&format!("nothing is running here, so next: autopack runs resume {run}"));
        return Ok(Exit::Done);
    }
    if let Some(why) = answer.result.strip_prefix("refused: ") {
        let fix = format!("autopack leases list --run-id {run}, and again with the epoch that it shows");
        return Err(CliError::refused("lease_moved", format!("cannot break the lease of {run}"), line(why), fix));
    }
    let nobodys = || Lease { state: "BROKEN".to_owned(), ..Lease::default() };
    let (lease, done) = (answer.lease.unwrap_or_else(nobodys), !answer.result.is_empty());
    if ctx.out.machine() {
        ctx.out.document(&tagged("lease", lease_json(&lease)))?;
    } else if done {
        let who = if lease.worker_id.is_empty() { "its locks".to_owned() } else { line(&lease.worker_id) };
        ctx.out.text(&format!("{run}  {} of {who} at epoch {}\n", line(&lease.state), lease.epoch))?;
    }
    if done {
        ctx.out.note(&format!("what is still sent for it is refused; next: autopack runs explain {run}"));
        return Ok(Exit::Done);
    }
    ctx.out.note(&format!("recorded, and not done yet; next: autopack leases list --run-id {run}"));
    Ok(Exit::Conflict)
}

/// The last answer to the call, which is made again until it says what became of it.
async fn broken(ctx: &Context, session: &mut Session, args: &LeasesBreak) -> Result<BreakLeaseResponse, CliError> {
    let run = args.run.to_string();
    let epoch = match args.epoch {
        Some(epoch) => epoch,
        None => seen(session, &run).await?,
    };
    let (idempotency_key, reason) = (ctx.ids.fresh("break"), args.reason.clone());
    let call = BreakLeaseRequest { idempotency_key, run_id: run.clone(), reason, epoch: Some(epoch) };
    let what = || format!("break the lease of {run}");
    let mut last = session.admin.break_lease(call.clone()).await.during(what())?.into_inner();
    if session.owns() {
        return Ok(last);
    }
    let looks = async {
        while last.result.is_empty() {
            tokio::time::sleep(LOOK).await;
            last = session.admin.break_lease(call.clone()).await.during(what())?.into_inner();
        }
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, looks).await {
        Ok(looked) => looked.map(|()| last),
        Err(_) => Ok(last),
    }
}

/// The epoch of the run's open lease; 0 where there is none.
async fn seen(session: &mut Session, run: &str) -> Result<u64, CliError> {
    let call = LeasesRequest { all: false, run_id: run.to_owned() };
    let seen = session.admin.leases(call).await.during(format!("look at the leases of {run}"))?.into_inner();
    Ok(seen.leases.first().map_or(0, |lease| lease.epoch))
}

//! `leases`: who may work on what, who is alive, and how a lease is taken away.

use std::time::Duration;

use serde_json::{Value, json};

use autopack_shared::wire::pb::{BreakLeaseRequest, Held, Lease, LeasesRequest, LeasesResponse};

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

/// `leases break`: asks, and waits until the director has done it.
async fn break_one(ctx: &Context, args: LeasesBreak) -> Result<Exit, CliError> {
    let run = args.run.to_string();
    let mut session = connect(ctx, Need::Passive).await?;
    let call =
        BreakLeaseRequest { idempotency_key: ctx.ids.fresh("break"), run_id: run.clone(), reason: args.reason.clone() };
    let broken = match session.admin.break_lease(call).await.during(format!("break the lease of {run}")) {
        Ok(_) if session.owns() => Ok(None),
        Ok(answer) => until_broken(&mut session, &run, answer.into_inner().lease).await.map(Some),
        Err(error) => Err(error),
    };
    session.close().await;
    let Some((lease, done)) = broken? else {
        ctx.out.text(&format!("{run} loses its lease\n"))?;
        ctx.out.note(&format!("nothing is running here, so next: autopack runs resume {run}"));
        return Ok(Exit::Done);
    };
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

/// Looks until the lease, or what is locked without one, is gone; the lease as it is then, and whether that is so.
async fn until_broken(session: &mut Session, run: &str, lease: Option<Lease>) -> Result<(Lease, bool), CliError> {
    let mut last = lease.clone().unwrap_or_default();
    let looks = async {
        loop {
            let call = LeasesRequest { all: true, run_id: run.to_owned() };
            let seen = session.admin.leases(call).await.during(format!("look at the leases of {run}"))?.into_inner();
            let (now, done) = stands(&seen, lease.as_ref());
            last = now;
            if done {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let done = match tokio::time::timeout(PATIENCE, looks).await {
        Ok(looked) => looked.map(|()| true)?,
        Err(_) => false,
    };
    Ok((last, done))
}

fn stands(seen: &LeasesResponse, lease: Option<&Lease>) -> (Lease, bool) {
    match lease {
        Some(lease) => {
            let now = seen.leases.iter().find(|one| one.id == lease.id).unwrap_or(lease);
            (now.clone(), now.ended_at_ms > 0)
        }
        None => {
            (Lease { state: "BROKEN".to_owned(), ..Lease::default() }, seen.held.is_empty() && seen.blind.is_empty())
        }
    }
}

//! `up`, `leases`, `audit`: the engine, what it holds and what it keeps.

use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use autopack_shared::wire::pb::{AuditEntry, ExportAuditRequest, LeasesRequest, StatusRequest, VerifyAuditRequest};

use crate::args::operate::{Audit, AuditQuery, Leases, LeasesList};
use crate::connect::{Need, connect, has_store};
use crate::context::Context;
use crate::drive::Leave;
use crate::exit::{AUDIT_USAGE, CliError, During as _, Exit};
use crate::show::{audit_json, clock, lease_json};
use crate::terminal::{Table, line};

/// Runs `up`: owns the engine until it is stopped.
pub(crate) async fn up(ctx: &Context) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
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

/// Runs `audit`.
pub(crate) async fn audit(ctx: &Context, command: Audit) -> Result<Exit, CliError> {
    match command {
        Audit::Verify(_) => verify(ctx).await.or_else(|error| unverified(ctx, error)),
        Audit::Export(args) => export(ctx, args.chain.unwrap_or_default()).await,
        Audit::Query(args) => query(ctx, args).await,
    }
}

/// The exits of other commands mean something else here: a log that was not found must not look like one cut short.
fn unverified(ctx: &Context, error: CliError) -> Result<Exit, CliError> {
    match error.exit() {
        Exit::Usage | Exit::NotFound | Exit::WorkFailed | Exit::Waiting | Exit::Refused | Exit::Conflict => {
            ctx.out.failure(&error);
            Ok(Exit::Audit(AUDIT_USAGE))
        }
        Exit::Done
        | Exit::Unavailable
        | Exit::Bug
        | Exit::DataDirLocked
        | Exit::UnsafeConfig
        | Exit::Interrupted
        | Exit::Audit(_) => Err(error),
    }
}

async fn verify(ctx: &Context) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let data_dir = &ctx.place()?.data_dir;
    if !has_store(data_dir) {
        let why = format!("{} holds no records", data_dir.display());
        let fix = "name the data directory with --data-dir, or the repository with --repo";
        return Err(CliError::refused("not_found", "there is nothing to verify", why, fix));
    }
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.verify_audit(VerifyAuditRequest {}).await;
    session.close().await;
    let report = answer.during("verify the audit log")?.into_inner();
    let exit = if report.code == 0 { Exit::Done } else { Exit::Audit(u8::try_from(report.code).unwrap_or(u8::MAX)) };
    if ctx.out.machine() {
        ctx.out.document(&json!({
            "format": "audit_verify/1", "ok": report.code == 0, "code": report.code, "records": report.records,
            "chains": report.chains, "problems": report.problems,
        }))?;
        return Ok(exit);
    }
    let word = if report.code == 0 { "whole" } else { "NOT whole" };
    ctx.out.text(&format!("{word}: {} records in {} chains\n", report.records, report.chains))?;
    for problem in &report.problems {
        ctx.out.text(&format!("  {}\n", line(problem)))?;
    }
    if report.code != 0 {
        ctx.out.note("keep the data directory as it is: cp -a it before anything else");
    }
    Ok(exit)
}

/// Reads the records of a chain, or of all, and hands them on one by one.
async fn records(
    ctx: &Context,
    chain: String,
    mut take: impl FnMut(AuditEntry) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.export_audit(ExportAuditRequest { chain }).await.during("read the audit log");
    let done = match answer {
        Ok(stream) => {
            let mut entries = stream.into_inner();
            let mut done = Ok(());
            while let (Ok(()), Some(entry)) = (&done, entries.next().await) {
                done = entry.during("read the audit log").and_then(&mut take);
            }
            done
        }
        Err(error) => Err(error),
    };
    session.close().await;
    done
}

async fn export(ctx: &Context, chain: String) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let mut count = 0_u64;
    records(ctx, chain, |entry| {
        count += 1;
        ctx.out.event(&audit_json(&entry))
    })
    .await?;
    if count == 0 {
        ctx.out.note("no records; next: autopack runs list");
    }
    Ok(Exit::Done)
}

async fn query(ctx: &Context, args: AuditQuery) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let chain = args.run_id.as_ref().map(|run| format!("run/{run}")).unwrap_or_default();
    let text = |body: &Value, at: &str| body.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut found = std::collections::VecDeque::new();
    records(ctx, chain, |entry| {
        let body: Value = serde_json::from_str(&entry.body).unwrap_or(Value::Null);
        let fits_op = args.op.as_ref().is_none_or(|op| text(&body, "/op").starts_with(op.as_str()));
        let actor = [text(&body, "/actor/id"), text(&body, "/actor")];
        if fits_op && args.actor.as_ref().is_none_or(|who| actor.contains(who)) {
            found.push_back((entry, body));
            if found.len() > args.limit {
                found.pop_front();
            }
        }
        Ok(())
    })
    .await?;
    if ctx.out.machine() {
        ctx.out.list(
            "records",
            "record",
            found
                .iter()
                .map(|(entry, body)| {
                    let mut shown = audit_json(entry);
                    shown["body"] = body.clone();
                    shown
                })
                .collect(),
        )?;
    } else if found.is_empty() {
        ctx.out.note("no such records; next: autopack audit query");
    } else {
        let mut table = Table::new(["AT", "CHAIN", "SEQ", "OP", "OBJECT", "ACTOR", "REASON"]);
        for (entry, body) in &found {
            let object = text(body, "/object/id");
            let (op, actor, reason) = (text(body, "/op"), text(body, "/actor/id"), text(body, "/reason"));
            table.row([clock(entry.at_ms), entry.chain.clone(), entry.seq.to_string(), op, object, actor, reason]);
        }
        ctx.out.table(&table)?;
    }
    Ok(Exit::Done)
}

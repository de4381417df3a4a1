//! `audit`: the record of every decision, verified, exported and searched.

use std::path::Path;

use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use autopack_shared::wire::pb::{AuditEntry, ExportAuditRequest, VerifyAuditRequest, VerifyAuditResponse};
use autopack_supervisor::coordination::file_lock::FileCoordinator;
use autopack_supervisor::engine::verify_alone;
use autopack_supervisor::error::Error;

use crate::args::operate::{Audit, AuditQuery};
use crate::artifact::probe;
use crate::connect::{Need, connect, has_store};
use crate::context::Context;
use crate::exit::{AUDIT_USAGE, CliError, During as _, Exit};
use crate::show::{audit_json, clock};
use crate::terminal::{Table, line};

/// Runs `audit`.
pub(crate) async fn run(ctx: &Context, command: Audit) -> Result<Exit, CliError> {
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
    let report = match ctx.named_data_dir()?.filter(|_| !ctx.is_remote()) {
        Some(data_dir) => match alone(ctx, &data_dir).await {
            // Whoever owns it answers for it.
            Err(error) if error.reason() == "data_dir_locked" && ctx.place().is_ok() => asked(ctx).await?,
            done => done?,
        },
        None => asked(ctx).await?,
    };
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

/// Verifies the records of the repository around, by the engine that owns them or by one in this process.
async fn asked(ctx: &Context) -> Result<VerifyAuditResponse, CliError> {
    if !ctx.is_remote() {
        there_is_a_store(&ctx.place()?.data_dir)?;
    }
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.verify_audit(VerifyAuditRequest {}).await;
    session.close().await;
    Ok(answer.during("verify the audit log")?.into_inner())
}

/// Verifies the records of a data directory, wherever its repository is by now.
async fn alone(ctx: &Context, data_dir: &Path) -> Result<VerifyAuditResponse, CliError> {
    there_is_a_store(data_dir)?;
    probe(data_dir).during(format!("write in the data directory {}", data_dir.display()))?;
    let scratch = tempfile::tempdir().during("make a scratch folder")?;
    let failed = |error: Error| CliError::Engine {
        what: "cannot verify the audit log".to_owned(),
        status: Box::new(error.into()),
    };
    let locks =
        FileCoordinator::open(data_dir, scratch.path(), ctx.clock.clone()).map_err(Error::from).map_err(failed)?;
    let found = verify_alone(data_dir, &locks, ctx.clock.clone(), ctx.ids.clone()).await.map_err(failed)?;
    Ok(VerifyAuditResponse {
        code: found.exit_code(),
        records: found.records,
        chains: found.chains,
        problems: found.problems(),
    })
}

fn there_is_a_store(data_dir: &Path) -> Result<(), CliError> {
    if has_store(data_dir) {
        return Ok(());
    }
    let why = format!("{} holds no records", data_dir.display());
    let fix = "name the data directory with --data-dir, or the repository with --repo";
    Err(CliError::refused("not_found", "there is nothing to verify", why, fix))
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

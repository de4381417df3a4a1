//! `admin`: what is done while a cluster is stopped.

use serde_json::{Value, json};

use autopack_shared::domain::record::Principal;
use autopack_supervisor::error::Error;
use autopack_supervisor::replica::recovery::{ForeignBranch, NewIncarnation, RecoveryConfig, new_incarnation};
use autopack_supervisor::store::postgres::PostgresConfig;

use crate::args::admin::{Admin, NewIncarnation as Args};
use crate::commands::daemons::{database_url, private_dir};
use crate::context::Context;
use crate::exit::{CliError, Exit};
use crate::terminal::{Table, line};

/// Runs `admin`.
pub(crate) async fn run(ctx: &Context, command: Admin) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let Admin::NewIncarnation(args) = command;
    renew(ctx, args).await
}

async fn renew(ctx: &Context, args: Args) -> Result<Exit, CliError> {
    if args.reason.trim().is_empty() {
        return Err(CliError::invalid("no reason is given", "it is kept in the audit log", "--reason TEXT"));
    }
    private_dir(&args.state_dir)?;
    let config = RecoveryConfig {
        store: PostgresConfig::new(database_url(ctx, args.database_url_file.as_deref())?),
        etcd: args.etcd,
        cluster_id: args.cluster_id,
        rename: args.rename,
        state_dir: args.state_dir,
        hub_credentials: args.hub_credentials,
        reason: args.reason.trim().to_owned(),
        dry_run: args.dry_run,
    };
    let who = Principal { id: "local:admin".to_owned(), method: "database".to_owned() };
    let done = Box::pin(new_incarnation(config, ctx.clock.clone(), ctx.ids.clone(), who)).await;
    let done = done.map_err(refused)?;
    if ctx.out.machine() {
        ctx.out.document(&document(&done, args.dry_run))?;
        return Ok(Exit::Done);
    }
    let etcd = done.etcd.map_or_else(|| "nothing".to_owned(), |incarnation| incarnation.to_string());
    ctx.out.text(&format!("incarnation {} -> {}  (etcd had {etcd})\n", done.before, done.after))?;
    let before = done.name_before.as_deref().unwrap_or("none");
    if before == done.name {
        ctx.out.text(&format!("cluster     {}\n", line(&done.name)))?;
    } else {
        ctx.out.text(&format!("cluster     {} -> {}\n", line(before), line(&done.name)))?;
    }
    if !done.foreign.is_empty() {
        let mut table = Table::new(["PROJECT", "BRANCH", "COMMIT", "WHAT"]);
        for branch in &done.foreign {
            for (commit, text) in &branch.commits {
                table.row([branch.project.to_string(), line(&branch.name), commit.short(), line(text)]);
            }
        }
        ctx.out.table(&table)?;
        ctx.out.warn(&format!("{} branches have what the store does not know of", done.foreign.len()));
    }
    if args.dry_run {
        ctx.out.note("nothing was written; next: the same without --dry-run");
    } else {
        ctx.out.note("start the supervisors again");
    }
    Ok(Exit::Done)
}

fn refused(error: Error) -> CliError {
    let what = "cannot make a new incarnation";
    if let Error::State { why, id, .. } = &error {
        // One that was killed is taken for alive until its seat has run out.
        let fix = "stop every supervisor, wait 15 s, and repeat the command";
        return CliError::refused("illegal_move", what, format!("{}: {why}", line(id)), fix);
    }
    CliError::Engine { what: what.to_owned(), status: Box::new(error.into()) }
}

fn document(done: &NewIncarnation, dry_run: bool) -> Value {
    let branch = |one: &ForeignBranch| {
        json!({
            "project": one.project, "ref": one.name, "tip": one.tip.to_string(), "run_known": one.run_known,
            "commits": one.commits.iter().map(|(id, text)| json!({ "commit": id.to_string(), "text": text })).collect::<Vec<_>>(),
        })
    };
    let hubs: Vec<Value> =
        done.fences.iter().map(|(project, fence)| json!({ "project": project, "fence": fence.to_string() })).collect();
    json!({
        "format": "incarnation/1", "cluster_id_before": done.name_before, "cluster_id": done.name,
        "before": done.before, "after": done.after, "etcd": done.etcd, "written": !dry_run,
        "hubs": hubs, "foreign": done.foreign.iter().map(branch).collect::<Vec<_>>(),
    })
}

//! `projects` and `workers`: what a cluster knows.

use serde_json::{Value, json};

use autopack_shared::wire::pb::{
    AddProjectRequest, DrainWorkerRequest, Project, ProjectsRequest, Worker, WorkersRequest,
};

use crate::args::cluster::{Projects, Workers, WorkersDrain};
use crate::connect::{Need, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::output::tagged;
use crate::terminal::{Table, line};

/// Runs `projects`.
pub(crate) async fn projects(ctx: &Context, command: Projects) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    let mut session = connect(ctx, Need::Passive).await?;
    match command {
        Projects::Add(args) => {
            let call = AddProjectRequest { name: args.name.to_string(), repo: args.repo.display().to_string() };
            let answer = session.admin.add_project(call).await;
            session.close().await;
            let project = answer.during(format!("add the project {}", args.name))?.into_inner();
            if ctx.out.machine() {
                ctx.out.document(&tagged("project", project_json(&project)))?;
            } else {
                ctx.out.text(&format!("{}  {}\n", line(&project.name), line(&project.repo)))?;
                ctx.out.note(&format!("next: autopack runs submit FILE --project {}", line(&project.name)));
            }
        }
        Projects::List(_) => {
            let answer = session.admin.projects(ProjectsRequest {}).await;
            session.close().await;
            let projects = answer.during("list projects")?.into_inner().projects;
            if ctx.out.machine() {
                ctx.out.list("projects", "project", projects.iter().map(project_json).collect())?;
            } else if projects.is_empty() {
                ctx.out.note("no projects; next: autopack projects add NAME --repo URL|PATH");
            } else {
                let mut table = Table::new(["PROJECT", "KIND", "REPOSITORY"]);
                for project in &projects {
                    table.row([project.name.clone(), project.kind.clone(), project.repo.clone()]);
                }
                ctx.out.table(&table)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn project_json(project: &Project) -> Value {
    json!({ "name": project.name, "kind": project.kind, "repo": project.repo })
}

/// Runs `workers`.
pub(crate) async fn workers(ctx: &Context, command: Workers) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    if let Workers::Drain(args) = command {
        return drain(ctx, args).await;
    }
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.admin.workers(WorkersRequest {}).await;
    session.close().await;
    let workers = answer.during("list workers")?.into_inner().workers;
    if ctx.out.machine() {
        ctx.out.list("workers", "worker", workers.iter().map(worker_json).collect())?;
    } else if workers.is_empty() {
        ctx.out.note("no worker is connected");
    } else {
        let mut table = Table::new(["WORKER", "STATE", "SLOTS", "TAKEN", "SANDBOX", "VIA", "REMAINING"]);
        for worker in &workers {
            let remaining = match worker.remaining_ms {
                0 => "-".to_owned(),
                ms => format!("{:.1} s", ms as f64 / 1000.0),
            };
            table.row([
                worker.worker_id.clone(),
                state(worker).to_owned(),
                worker.slots.to_string(),
                worker.taken.to_string(),
                worker.sandbox_level.clone(),
                worker.via.clone(),
                remaining,
            ]);
        }
        ctx.out.table(&table)?;
        for worker in workers.iter().filter(|worker| !worker.quarantine.is_empty()) {
            let why = line(&worker.quarantine);
            ctx.out.note(&format!("{} gets nothing that needs a sandbox: {why}", line(&worker.worker_id)));
        }
    }
    Ok(Exit::Done)
}

fn state(worker: &Worker) -> &'static str {
    match (worker.quarantine.is_empty(), worker.draining, worker.suspect) {
        (false, ..) => "QUARANTINED",
        (true, true, _) => "DRAINING",
        (true, false, true) => "SUSPECT",
        (true, false, false) => "LIVE",
    }
}

/// `workers drain`.
async fn drain(ctx: &Context, args: WorkersDrain) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let call = DrainWorkerRequest { worker_id: args.name.to_string(), undo: args.undo, reason: args.reason };
    let answer = session.admin.drain_worker(call).await;
    session.close().await;
    let what = if args.undo { "give work again to" } else { "drain" };
    let worker = answer.during(format!("{what} the worker {}", args.name))?.into_inner();
    if ctx.out.machine() {
        ctx.out.document(&tagged("worker", worker_json(&worker)))?;
    } else {
        let word = if args.undo { "gets work again" } else { "gets no more work, and leaves when it has none" };
        ctx.out.text(&format!("{} {word}\n", line(&worker.worker_id)))?;
        ctx.out.note(&format!("it has {} leases; next: autopack workers list", worker.taken));
    }
    Ok(Exit::Done)
}

fn worker_json(worker: &Worker) -> Value {
    json!({
        "worker_id": worker.worker_id, "session": worker.session, "slots": worker.slots, "taken": worker.taken,
        "sandbox_level": worker.sandbox_level, "via": worker.via, "age_ms": worker.age_ms,
        "remaining_ms": worker.remaining_ms, "state": state(worker), "quarantine": worker.quarantine,
        "sandbox_digest": worker.sandbox_digest, "sandbox_measured_ms": worker.sandbox_measured_ms,
    })
}

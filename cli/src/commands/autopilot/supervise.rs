//! `autopilot supervise`: several runs at once, behind the parallelism gate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::parallelism::{AnchorState, GateInput, RunsRequest, decide};
use autopack_shared::domain::plan::Work;

use super::far;
use super::finish::tell;
use super::journal::Journal;
use super::run::{Prepared, conclude, idle, is_known, start};
use crate::args::autopilot::Supervise;
use crate::artifact::RunDir;
use crate::commands::gate;
use crate::connect::{Need, Session, connect, worker_root};
use crate::context::Context;
use crate::drive::{Drive, Leave, Manner, Outcome, close, first_of};
use crate::exit::{CliError, Exit};
use crate::follow::Follow;
use crate::rules::{Rules, judged, paper};
use crate::show::run_json;
use crate::survey::{Survey, Wish, work_tree};
use crate::terminal::line;

/// A run that is gone with.
pub(super) struct Begun {
    /// Its session, if autopilot began it.
    pub(super) journal: Option<Journal>,
    /// Which phase is which action.
    pub(super) work: Work,
    /// Whether it was submitted by this command.
    pub(super) fresh: bool,
}

/// Runs `autopilot supervise`.
pub(super) async fn run(ctx: &Context, args: Supervise) -> Result<Exit, CliError> {
    if args.list_worktrees {
        return worktrees(ctx);
    }
    if args.cleanup {
        return cleanup(ctx).await;
    }
    if let Some(url) = &args.database_url {
        let scheme = url.split("://").next().unwrap_or_default();
        let why = format!("this version keeps its records in SQLite on this machine and cannot use {scheme}");
        return Err(CliError::invalid(
            "cannot use a database server",
            why,
            "leave --database-url out, or use --per-run-sqlite",
        ));
    }
    let anchor = if ctx.is_remote() { far::anchor(ctx, &args).await? } else { anchor_here(ctx, &args)? };
    ask_the_gate(ctx, &args, anchor.as_ref())?;
    let mut leave = Leave::new()?;
    let mut session = connect(ctx, Need::Drive).await?;
    let (begun, idle) = match begin(ctx, &args, &mut session).await {
        Ok(begun) => begun,
        Err(error) => {
            session.close().await;
            return Err(error);
        }
    };
    let mut follow = Follow::new(ctx, Need::Drive, session);
    let manner = Manner { wait: ctx.out.interactive && !args.no_wait, prefix: true, ..Manner::default() };
    let ended = go_with(ctx, &mut follow, &begun, manner, &mut leave).await;
    close(follow, &mut leave).await;
    report(ctx, begun, &ended?, &idle)
}

/// The anchor of the repository here.
fn anchor_here(ctx: &Context, args: &Supervise) -> Result<Option<IntentionAnchorV2>, CliError> {
    let root = ctx.place()?.root.clone();
    work_tree(&root)?;
    let paper = paper(&root)?;
    let head = paper.commit("HEAD").map_err(judged)?;
    Ok(Rules::for_run(&root, &paper, head, args.anchor.as_deref())?.anchor)
}

/// The gate on paper: it is asked again, with what holds a lease, each time the engine grants one.
fn ask_the_gate(ctx: &Context, args: &Supervise, anchor: Option<&IntentionAnchorV2>) -> Result<(), CliError> {
    let decision = decide(&GateInput {
        anchor: anchor.map_or(AnchorState::Absent, AnchorState::Present),
        runs: RunsRequest::Names(args.run_ids.iter().map(ToString::to_string).collect()),
        workers: i64::from(args.workers),
        active: 0,
    });
    if decision.allow {
        return Ok(());
    }
    if ctx.out.machine() {
        ctx.out.document(&gate::document(decision))?;
    }
    let limit = anchor
        .and_then(|anchor| anchor.pivot_intentions.parallelism_isolation.as_ref())
        .map(|pivot| pivot.max_concurrent_runs);
    let limit = limit.map(|limit| format!(", the anchor allows {limit}")).unwrap_or_default();
    let why = format!("{} run(s) would be active at once{limit}", decision.effective);
    Err(CliError::refused(decision.reason.as_str(), "the parallelism gate says no", why, gate::remedy(decision.reason)))
}

/// Submits what is new and takes what is there; and how those end of which nothing runs.
async fn begin(
    ctx: &Context,
    args: &Supervise,
    session: &mut Session,
) -> Result<(BTreeMap<String, Begun>, Vec<Exit>), CliError> {
    if ctx.is_remote() {
        return far::begin(ctx, args, session).await;
    }
    let data_dir = ctx.place()?.data_dir.clone();
    let (mut begun, mut ends) = (BTreeMap::new(), Vec::new());
    for run in &args.run_ids {
        if is_known(session, run).await? {
            begun.insert(run.to_string(), known(&data_dir, run));
            continue;
        }
        let (anchor, at) = (args.anchor.clone(), args.at.clone());
        let wish = Wish { run: run.clone(), since: None, deep: false, anchor, at };
        let prepared = Prepared::new(ctx, run.clone(), Survey::take(ctx, wish).await?)?;
        let dir = Some(RunDir::new(&data_dir, run));
        let mut journal =
            Journal::begin(dir, &ctx.ids.short(), &prepared.plan, true, prepared.survey.head, ctx.clock.wall());
        prepared.keep(journal.dir())?;
        journal.save()?;
        if prepared.work.file.is_none() {
            ends.push(idle(ctx, &mut journal, &prepared)?);
            continue;
        }
        let (journal, _) = start(ctx, session, args.insecure_no_sandbox, journal, &prepared).await?;
        begun.insert(run.to_string(), Begun { journal: Some(journal), work: prepared.work, fresh: true });
    }
    Ok((begun, ends))
}

/// The session and the plan of a run that was submitted before.
fn known(data_dir: &Path, run: &RunId) -> Begun {
    let journal = Journal::of_run(data_dir, run);
    let work = journal.as_ref().map_or_else(Work::none, Journal::work);
    Begun { journal, work, fresh: false }
}

async fn go_with<'a>(
    ctx: &'a Context,
    follow: &mut Follow<'a>,
    begun: &BTreeMap<String, Begun>,
    manner: Manner,
    leave: &mut Leave,
) -> Result<BTreeMap<String, Outcome>, CliError> {
    for (name, run) in begun {
        if run.fresh {
            follow.add(name, 0).await?;
        } else {
            follow.add_from_now(name).await?;
        }
    }
    let names: Vec<String> = begun.keys().cloned().collect();
    Drive::new(ctx, follow, &names, manner).until_rest(leave).await
}

fn report(
    ctx: &Context,
    begun: BTreeMap<String, Begun>,
    outcomes: &BTreeMap<String, Outcome>,
    idle: &[Exit],
) -> Result<Exit, CliError> {
    let mut all = Vec::new();
    for (name, Begun { journal, work, .. }) in begun {
        let Some(outcome) = outcomes.get(&name) else { continue };
        if let Some(mut journal) = journal {
            conclude(ctx, &mut journal, outcome, &work)?;
        }
        if !ctx.out.machine() {
            tell(ctx, outcome, &work)?;
        }
        all.push(run_json(&outcome.run));
    }
    if ctx.out.machine() {
        ctx.out.document(&json!({ "format": "supervise/1", "runs": all }))?;
    }
    Ok(first_of(outcomes.values().map(Outcome::exit).chain(idle.iter().copied())))
}

/// Folders of worktrees, by run.
fn found_worktrees(ctx: &Context) -> Result<Vec<(String, PathBuf)>, CliError> {
    let root = worker_root(ctx, ctx.place()?);
    let folders = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        found.sort();
        found
    };
    let mut all = Vec::new();
    for run in folders(&root) {
        let name = run.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let trees = folders(&run).into_iter().map(|attempt| attempt.join("tree")).filter(|tree| tree.is_dir());
        all.extend(trees.map(|tree| (name.clone(), tree)));
    }
    Ok(all)
}

fn worktrees(ctx: &Context) -> Result<Exit, CliError> {
    let found = found_worktrees(ctx)?;
    if ctx.out.machine() {
        let items = found.iter().map(|(run, path)| json!({ "run_id": run, "path": path.display().to_string() }));
        ctx.out.list("worktrees", "worktree", items.collect::<Vec<Value>>())?;
    } else if found.is_empty() {
        ctx.out.note("no worktrees; next: autopack autopilot run --enable");
    } else {
        for (run, path) in &found {
            ctx.out.text(&format!("{}  {}\n", line(run), line(&path.display().to_string())))?;
        }
    }
    Ok(Exit::Done)
}

/// An engine that drives removes what no lease needs when it starts: opening one is all there is to do.
async fn cleanup(ctx: &Context) -> Result<Exit, CliError> {
    let before = found_worktrees(ctx)?.len();
    let session = connect(ctx, Need::Drive).await?;
    session.close().await;
    let after = found_worktrees(ctx)?.len();
    let removed = before.saturating_sub(after);
    if ctx.out.machine() {
        ctx.out.document(&json!({ "format": "cleanup/1", "removed": removed, "left": after }))?;
    } else {
        ctx.out.text(&format!("{removed} worktree(s) removed, {after} left\n"))?;
    }
    Ok(Exit::Done)
}

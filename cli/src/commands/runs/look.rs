//! Looking at runs: list, show, watch, diff, explain.

use serde_json::json;

use autopack_shared::domain::ids::RunId;
use autopack_shared::wire::pb::{DiffRequest, ExplainResponse, GetRunRequest, ListRunsRequest, Run};

use super::logs;
use crate::args::runs::{Diff, List, PhaseOf, Watch};
use crate::commands::autopilot::keep_up;
use crate::commands::decide::colored_diff;
use crate::connect::{Need, Session, connect};
use crate::context::Context;
use crate::drive::{Drive, Leave, Manner, Outcome, Rest, close};
use crate::exit::{CliError, During as _, Exit};
use crate::follow::{Follow, is_terminal};
use crate::output::tagged;
use crate::show::{Interdiff, blocker_json, moment, run_json, run_text, run_with, short_branch, span};
use crate::terminal::{Table, Tone, line, paint};

/// Interdiffs of one phase that are shown: the newest.
const INTERDIFFS: usize = 4;

/// `runs list`.
pub(super) async fn list(ctx: &Context, args: List) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let states = args.state.iter().map(|state| state.to_uppercase()).collect();
    let answer = session.runs.list(ListRunsRequest { states, limit: args.limit }).await;
    session.close().await;
    let runs = answer.during("list runs")?.into_inner().runs;
    if ctx.out.machine() {
        ctx.out.list("runs", "run", runs.iter().map(run_json).collect())?;
        return Ok(Exit::Done);
    }
    if runs.is_empty() {
        ctx.out.note("no runs; next: autopack autopilot run --enable, or autopack runs submit FILE");
        return Ok(Exit::Done);
    }
    let now = ctx.clock.wall().as_millis();
    let mut table = Table::new(["RUN", "STATE", "AGE", "BRANCH", "WHY"]);
    for run in &runs {
        let age = span(now - run.created_at_ms);
        table.row([run.id.clone(), run.state.clone(), age, short_branch(&run.branch).to_owned(), run.reason.clone()]);
    }
    ctx.out.table(&table)?;
    ctx.out.note("next: autopack runs show RUN");
    Ok(Exit::Done)
}

/// `runs show`.
pub(super) async fn show(ctx: &Context, run: &RunId) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let looked = with_interdiffs(&mut session, run).await;
    session.close().await;
    let (run, diffs) = looked?;
    if ctx.out.machine() {
        let mut document = tagged("run", run_json(&run));
        document["interdiffs"] = diffs.iter().map(Interdiff::json).collect();
        ctx.out.document(&document)?;
        return Ok(Exit::Done);
    }
    ctx.out.text(&run_with(&run, &diffs, ctx.out.data_color))?;
    ctx.out.note(&next(&run));
    Ok(Exit::Done)
}

/// A run, and what changed from each attempt to the next one of those that left anything.
async fn with_interdiffs(session: &mut Session, name: &RunId) -> Result<(Run, Vec<Interdiff>), CliError> {
    let what = format!("look at the run {name}");
    let run = session.runs.get(GetRunRequest { run_id: name.to_string() }).await.during(what.clone())?.into_inner();
    let mut diffs = Vec::new();
    for phase in &run.phases {
        let left: Vec<u32> = phase.attempts.iter().filter(|a| !a.tree.is_empty()).map(|a| a.number).collect();
        for pair in left.windows(2).rev().take(INTERDIFFS).rev() {
            let (from_attempt, to_attempt) = (pair[0], pair[1]);
            let call = DiffRequest {
                run_id: name.to_string(),
                phase_id: phase.id.clone(),
                since_save_point: false,
                from_attempt,
                to_attempt,
            };
            match session.runs.diff(call).await {
                Ok(answer) => {
                    let diff = answer.into_inner();
                    let text = String::from_utf8_lossy(&diff.diff).into_owned();
                    let whole = !diff.truncated;
                    diffs.push(Interdiff { phase: phase.id.clone(), from: from_attempt, to: to_attempt, text, whole });
                }
                // What an attempt left may be gone with its branch: that keeps nobody from looking at the run.
                Err(status) if status.code() == tonic::Code::NotFound => {}
                Err(status) => return Err(status).during(what),
            }
        }
    }
    Ok((run, diffs))
}

/// The command that follows from where a run stands.
pub(crate) fn next(run: &Run) -> String {
    let name = line(&run.id);
    match run.state.as_str() {
        "SUCCEEDED" if run.kind == "landing" => format!("next: git log {}", line(short_branch(&run.target_ref))),
        "SUCCEEDED" if run.tip.is_empty() || run.tip == run.fork_commit => "nothing was changed".to_owned(),
        "SUCCEEDED" => {
            let fork = run.fork_commit.get(..12).unwrap_or(&run.fork_commit);
            format!("next: git diff {fork}...{}   then: autopack runs land {name}", line(short_branch(&run.branch)))
        }
        "QUEUED" if run.rests_until_ms > 0 => {
            format!("it goes on after {} with: autopack runs resume {name}", moment(run.rests_until_ms))
        }
        "FAILED" | "CANCELLED" => format!("next: autopack runs logs {name}"),
        "WAITING" => format!("next: autopack approvals list --run-id {name}, then autopack runs resume {name}"),
        _ => format!("next: autopack runs explain {name}"),
    }
}

/// The command that follows from how a run came to rest.
pub(crate) fn next_of(outcome: &Outcome) -> String {
    next(&outcome.run)
}

/// `runs explain`.
pub(super) async fn explain(ctx: &Context, run: &RunId) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = session.runs.explain(GetRunRequest { run_id: run.to_string() }).await;
    session.close().await;
    let ExplainResponse { run, blockers } = answer.during(format!("explain the run {run}"))?.into_inner();
    let run = run.unwrap_or_default();
    if ctx.out.machine() {
        let blockers: Vec<_> = blockers.iter().map(blocker_json).collect();
        ctx.out.document(&json!({ "format": "explain/1", "run": run_json(&run), "blockers": blockers }))?;
        return Ok(Exit::Done);
    }
    let color = ctx.out.data_color;
    let mut text = run_text(&run, color);
    if blockers.is_empty() {
        text.push_str("nothing holds it up\n");
    }
    let now = ctx.clock.wall().as_millis();
    for blocker in &blockers {
        let phase = if blocker.phase_id.is_empty() { String::new() } else { format!("{} ", line(&blocker.phase_id)) };
        let since = if blocker.since_ms > 0 { format!(" for {}", span(now - blocker.since_ms)) } else { String::new() };
        let kind = paint(color, Tone::Warn, &line(&blocker.kind));
        text.push_str(&format!("{kind}: {phase}{}{since}\n", line(&blocker.what)));
        if !blocker.remedy.is_empty() {
            text.push_str(&format!("  to move it: {}\n", line(&blocker.remedy)));
        }
    }
    ctx.out.text(&text)?;
    Ok(Exit::Done)
}

/// `runs diff`.
pub(super) async fn diff(ctx: &Context, args: Diff) -> Result<Exit, CliError> {
    let which = Which { since_save_point: false, attempts: args.attempts };
    show_diff(ctx, &PhaseOf { named: args.named, phase: args.only.or(args.phase) }, which).await
}

/// Which change is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Which {
    /// What changed since a save point.
    pub(crate) since_save_point: bool,
    /// Between what two attempts left.
    pub(crate) attempts: Option<(u32, u32)>,
}

/// `runs diff`, and `savepoints diff`.
pub(crate) async fn show_diff(ctx: &Context, args: &PhaseOf, which: Which) -> Result<Exit, CliError> {
    let run = &args.named.run;
    let phase_id = args.phase.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut session = connect(ctx, Need::Passive).await?;
    let (from_attempt, to_attempt) = which.attempts.unwrap_or_default();
    let since_save_point = which.since_save_point;
    let call = DiffRequest { run_id: run.to_string(), phase_id, since_save_point, from_attempt, to_attempt };
    let answer = session.runs.diff(call).await;
    session.close().await;
    let diff = answer.during(format!("show what the run {run} changed"))?.into_inner();
    if ctx.out.machine() {
        let text = String::from_utf8_lossy(&diff.diff);
        ctx.out.document(&json!({
            "format": "diff/1", "run_id": run, "phase_id": args.phase, "base": diff.base, "tree": diff.tree,
            "diff": text, "truncated": diff.truncated, "attempts": which.attempts,
        }))?;
        return Ok(Exit::Done);
    }
    ctx.out.text(&colored_diff(&diff.diff, ctx.out.data_color))?;
    if diff.diff.is_empty() {
        ctx.out.note(&format!("nothing changed yet; next: autopack runs explain {run}"));
    }
    if diff.truncated {
        ctx.out.warn("the diff is cut; git diff shows it whole");
    }
    Ok(Exit::Done)
}

/// `runs watch`: what happened, then what happens, until only a person can move it on.
pub(super) async fn watch(ctx: &Context, args: &Watch) -> Result<Exit, CliError> {
    let name = args.named.run.to_string();
    let mut leave = Leave::new()?;
    let mut session = connect(ctx, Need::Passive).await?;
    if session.owns() {
        // Nobody drives: there is a history and no future, and holding the engine would only keep others out.
        let printed = logs::print_history(ctx, &mut session, &args.named.run, (args.after, true), |_| true).await;
        let run =
            session.runs.get(GetRunRequest { run_id: name.clone() }).await.during(format!("look at the run {name}"));
        session.close().await;
        printed?;
        let run = run?.into_inner();
        if !is_terminal(&run.state) {
            ctx.out.note(&format!("no engine is running here; next: autopack runs resume {name}"));
        }
        return Ok(exit_of_idle(ctx, run));
    }
    let mut follow = Follow::new(ctx, Need::Passive, session);
    follow.add(&name, args.after).await?;
    let manner = Manner { wait: true, data: true, ..Manner::default() };
    let ended = Drive::new(ctx, &mut follow, std::slice::from_ref(&name), manner).until_rest(&mut leave).await;
    close(follow, &mut leave).await;
    let outcome = ended?.remove(&name);
    if outcome.as_ref().is_none_or(|outcome| outcome.rest == Rest::Detached) {
        ctx.out.note(&format!("left; the run goes on. Watch again with: autopack runs watch {name}"));
    }
    outcome.iter().for_each(|outcome| keep_up(ctx, outcome));
    Ok(outcome.map_or(Exit::Interrupted, |outcome| outcome.exit()))
}

/// How a run that nobody drives ends a command that wanted to follow it.
fn exit_of_idle(ctx: &Context, run: Run) -> Exit {
    let Some(rest) = Rest::of(&run) else { return Exit::Unavailable };
    let outcome = Outcome { run, rest };
    keep_up(ctx, &outcome);
    outcome.exit()
}

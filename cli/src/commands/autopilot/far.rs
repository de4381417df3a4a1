//! Autopilot on a project of a supervisor elsewhere: it scans, plans and submits there; the run is gone with as any
//! other. Nothing is kept here, unless a folder is named for it.

use std::collections::BTreeMap;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::plan::{Work, work_of};
use autopack_shared::domain::run_file::RunLimits;
use autopack_shared::domain::session::SessionStatus;
use autopack_shared::wire::pb::{self, AutopilotRequest};

use super::journal::Journal;
use super::run::{Prepared, carry_out, dry_run, idle, is_known, nothing_runs};
use super::supervise::Begun;
use crate::args::autopilot::{Run, Supervise};
use crate::artifact::RunDir;
use crate::commands::gaps::default_run;
use crate::commands::plan;
use crate::commands::runs::submit::limits;
use crate::connect::{Need, Session, connect};
use crate::context::Context;
use crate::exit::{CliError, During as _, Exit};
use crate::survey::far::{planned, request};
use crate::survey::{self, Wish};

/// What is asked besides the survey.
struct Terms {
    enable: bool,
    named: bool,
    insecure_no_sandbox: bool,
}

/// What the supervisor made of it.
struct Answer {
    prepared: Prepared,
    run: Option<pb::Run>,
    created: bool,
}

/// Runs `autopilot run`.
pub(super) async fn run(ctx: &Context, args: Run) -> Result<Exit, CliError> {
    let fresh = args.enable || args.write;
    let name = args.run_id.clone().map_or_else(|| default_run(ctx, "autopilot", fresh), Ok)?;
    let kept = if args.write { Some(ctx.kept_in()?) } else { None };
    let wish = Wish { run: name, since: None, deep: false, anchor: args.anchor.clone(), at: args.at.clone() };
    let terms =
        Terms { enable: args.enable, named: args.run_id.is_some(), insecure_no_sandbox: args.insecure_no_sandbox };
    let mut session = connect(ctx, Need::Drive).await?;
    let answer = match ask(ctx, &mut session, &wish, terms).await {
        Ok(answer) => answer,
        Err(error) => {
            session.close().await;
            return Err(error);
        }
    };
    let Answer { prepared, run, created } = answer;
    if !args.enable {
        session.close().await;
        return dry_run(ctx, &args, &prepared);
    }
    let dir = kept.map(|data_dir| RunDir::new(&data_dir, &prepared.run));
    let mut journal = begin_session(ctx, dir, &prepared)?;
    if !ctx.out.machine() {
        ctx.out.text(&plan::render(&prepared.plan, ctx.out.data_color))?;
    }
    let Some(run) = run else {
        session.close().await;
        return nothing_runs(ctx, journal, &prepared);
    };
    running(ctx, &mut journal, &prepared, &run)?;
    carry_out(ctx, &args, session, journal, &prepared.work, created).await
}

/// Submits what is new and takes what is there; and how those end of which nothing runs.
pub(super) async fn begin(
    ctx: &Context,
    args: &Supervise,
    session: &mut Session,
) -> Result<(BTreeMap<String, Begun>, Vec<Exit>), CliError> {
    let (mut begun, mut ends) = (BTreeMap::new(), Vec::new());
    for name in &args.run_ids {
        if is_known(session, name).await? {
            begun.insert(name.to_string(), Begun { journal: None, work: Work::none(), fresh: false });
            continue;
        }
        let wish = wish_of(args, name);
        let terms = Terms { enable: true, named: true, insecure_no_sandbox: args.insecure_no_sandbox };
        let Answer { prepared, run, created } = ask(ctx, session, &wish, terms).await?;
        let mut journal = begin_session(ctx, None, &prepared)?;
        let Some(run) = run else {
            ends.push(idle(ctx, &mut journal, &prepared)?);
            continue;
        };
        running(ctx, &mut journal, &prepared, &run)?;
        begun.insert(name.to_string(), Begun { journal: Some(journal), work: prepared.work, fresh: created });
    }
    Ok((begun, ends))
}

/// The anchor that the gate goes by; none where the project has none.
pub(super) async fn anchor(ctx: &Context, args: &Supervise) -> Result<Option<IntentionAnchorV2>, CliError> {
    let Some(name) = args.run_ids.first() else { return Ok(None) };
    match survey::far::plan(ctx, &wish_of(args, name)).await {
        Ok(planned) => Ok(planned.survey.rules.anchor),
        Err(error) if error.reason() == "anchor_required" => Ok(None),
        Err(error) => Err(error),
    }
}

fn wish_of(args: &Supervise, run: &RunId) -> Wish {
    Wish { run: run.clone(), since: None, deep: false, anchor: args.anchor.clone(), at: args.at.clone() }
}

/// Has the project scanned and planned for, and with `enable` the run submitted.
async fn ask(ctx: &Context, session: &mut Session, wish: &Wish, terms: Terms) -> Result<Answer, CliError> {
    let bounds = limits(RunLimits::default(), &ctx.host_settings()?.limits);
    let call = AutopilotRequest {
        idempotency_key: ctx.ids.fresh("autopilot"),
        survey: Some(request(wish)?),
        enable: terms.enable,
        named: terms.named,
        insecure_no_sandbox: terms.insecure_no_sandbox,
        limits_json: serde_json::to_string(&bounds).map_err(std::io::Error::from).during("write the limits")?,
    };
    let answer = session.runs.autopilot(call).await.during("run autopilot on the project")?.into_inner();
    let found = planned(ctx, &answer.plan.unwrap_or_default())?;
    // Another name than the one that was asked for is that of an unfinished run of the same plan.
    let name = answer.run.as_ref().map_or_else(|| wish.run.to_string(), |run| run.id.clone());
    let run = RunId::new(name).during("read the run's name")?;
    if run != wish.run {
        ctx.out.note(&format!("going on with the unfinished run {run}: its plan is the same"));
    }
    let work = work_of(&run, &found.plan, bounds);
    let prepared = Prepared { run, survey: found.survey, plan: found.plan, work };
    Ok(Answer { prepared, run: answer.run, created: answer.created })
}

fn begin_session(ctx: &Context, dir: Option<RunDir>, prepared: &Prepared) -> Result<Journal, CliError> {
    let (head, now) = (prepared.survey.head, ctx.clock.wall());
    let journal = Journal::begin(dir, &ctx.ids.short(), &prepared.plan, true, head, now);
    prepared.keep(journal.dir())?;
    journal.save()?;
    Ok(journal)
}

/// The run is there: the session runs, and whoever planned under another anchor is told.
fn running(ctx: &Context, journal: &mut Journal, prepared: &Prepared, run: &pb::Run) -> Result<(), CliError> {
    let anchor = prepared.survey.rules.anchor.as_ref().map(|anchor| anchor.digest().to_string()).unwrap_or_default();
    if run.anchor_digest != anchor {
        ctx.out.warn("the run is judged by another anchor than the plan: the project's own is in force");
    }
    journal.go(SessionStatus::Running, None, ctx.clock.wall())
}

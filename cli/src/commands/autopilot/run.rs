//! `autopilot run`: scan, plan, and with `--enable` a run that carries the plan out.

use serde_json::{Value, json};

use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::plan::{PlanProposalV1, Work, work_of};
use autopack_shared::domain::project::ANCHOR_PATH;
use autopack_shared::domain::run_file::RunLimits;
use autopack_shared::domain::session::SessionStatus;
use autopack_shared::wire::pb::GetRunRequest;

use super::far;
use super::finish::{settle, tell};
use super::journal::Journal;
use crate::args::autopilot::Run;
use crate::artifact::RunDir;
use crate::commands::gaps::{self, default_run};
use crate::commands::plan;
use crate::commands::runs::submit::{limits, submit};
use crate::connect::{Need, Session, connect};
use crate::context::Context;
use crate::drive::{Drive, Leave, Manner, Outcome, close, exit_of};
use crate::exit::{CliError, During as _, Exit};
use crate::follow::Follow;
use crate::show::run_json;
use crate::survey::{PLAN, REPORT, Survey, Wish};
use crate::terminal::line;

/// A plan with everything that is needed to carry it out.
pub(super) struct Prepared {
    /// The run.
    pub(super) run: RunId,
    /// What was found.
    pub(super) survey: Survey,
    /// What is to be done about it.
    pub(super) plan: PlanProposalV1,
    /// The same as phases.
    pub(super) work: Work,
}

impl Prepared {
    /// Gives the plan to a run.
    pub(super) fn new(ctx: &Context, run: RunId, survey: Survey) -> Result<Self, CliError> {
        let mut survey = survey;
        survey.report.run_id = run.to_string();
        let plan = survey.plan(ctx)?;
        let bounds = limits(RunLimits::default(), &ctx.place()?.settings.limits);
        let work = work_of(&run, &plan, bounds);
        Ok(Self { run, survey, plan, work })
    }

    /// Keeps report, plan and anchor where they are looked for.
    pub(super) fn keep(&self, dir: Option<&RunDir>) -> Result<(), CliError> {
        let Some(dir) = dir else { return Ok(()) };
        dir.write_json(REPORT, &self.survey.report)?;
        dir.write_json(PLAN, &self.plan)?;
        if let Some(anchor) = &self.survey.rules.anchor {
            dir.write_json("anchor_v2.json", anchor)?;
        }
        Ok(())
    }
}

/// Runs `autopilot run`.
pub(super) async fn run(ctx: &Context, args: Run) -> Result<Exit, CliError> {
    if ctx.is_remote() {
        return Box::pin(far::run(ctx, args)).await;
    }
    if args.enable
        && let Some(exit) = Box::pin(go_on(ctx, &args)).await?
    {
        return Ok(exit);
    }
    let fresh = args.enable || args.write;
    let run = args.run_id.clone().map_or_else(|| default_run(ctx, "autopilot", fresh), Ok)?;
    let wish = Wish { run: run.clone(), since: None, deep: false, anchor: args.anchor.clone(), at: args.at.clone() };
    let prepared = Prepared::new(ctx, run, Survey::take(ctx, wish).await?)?;
    if args.enable { Box::pin(enabled(ctx, &args, prepared)).await } else { dry_run(ctx, &args, &prepared) }
}

/// Shows what would be done; nothing is executed.
pub(super) fn dry_run(ctx: &Context, args: &Run, prepared: &Prepared) -> Result<Exit, CliError> {
    let dir = if args.write { Some(RunDir::new(&ctx.kept_in()?, &prepared.run)) } else { None };
    let (head, now) = (prepared.survey.head, ctx.clock.wall());
    let journal = Journal::begin(dir, &ctx.ids.short(), &prepared.plan, false, head, now);
    if args.write {
        prepared.keep(journal.dir())?;
        journal.save()?;
    }
    let (report, plan) = (&prepared.survey.report, &prepared.plan);
    if ctx.out.machine() {
        let document = json!({ "format": "autopilot/1", "session": journal.session, "report": report, "plan": plan, "run": Value::Null });
        ctx.out.document(&document)?;
        return Ok(Exit::Done);
    }
    ctx.out.text(&format!(
        "{}\n{}",
        gaps::render(report, ctx.out.data_color),
        plan::render(plan, ctx.out.data_color)
    ))?;
    ctx.out.note("a dry run: nothing was changed");
    ctx.out.note(plan::next(plan));
    Ok(Exit::Done)
}

/// Goes on with the named run where it was submitted before; none where there is no such run.
async fn go_on(ctx: &Context, args: &Run) -> Result<Option<Exit>, CliError> {
    let Some(run) = &args.run_id else { return Ok(None) };
    let data_dir = &ctx.place()?.data_dir;
    let Some(journal) = Journal::of_run(data_dir, run) else { return Ok(None) };
    let Some(plan) = journal.plan().filter(|plan| plan.id() == journal.session.plan_proposal_id) else {
        return Ok(None);
    };
    let mut session = connect(ctx, Need::Drive).await?;
    if session.runs.get(GetRunRequest { run_id: run.to_string() }).await.is_err() {
        session.close().await;
        return Ok(None);
    }
    let work = work_of(run, &plan, RunLimits::default());
    carry_out(ctx, args, session, journal, &work, false).await.map(Some)
}

async fn enabled(ctx: &Context, args: &Run, prepared: Prepared) -> Result<Exit, CliError> {
    let data_dir = ctx.place()?.data_dir.clone();
    let prepared = match (&args.run_id, Journal::unfinished(&data_dir, &prepared.plan)) {
        (None, Some((run, _))) => {
            ctx.out.note(&format!("going on with the unfinished run {run}: its plan is the same"));
            Prepared::new(ctx, run, prepared.survey)?
        }
        (Some(_), _) | (None, None) => prepared,
    };
    let dir = Some(RunDir::new(&data_dir, &prepared.run));
    let known =
        Journal::of_run(&data_dir, &prepared.run).filter(|known| known.session.plan_proposal_id == prepared.plan.id());
    let journal = known.filter(|known| known.session.status.is_open()).unwrap_or_else(|| {
        Journal::begin(dir, &ctx.ids.short(), &prepared.plan, true, prepared.survey.head, ctx.clock.wall())
    });
    // Kept before anything is decided: what comes later can be told from it.
    prepared.keep(journal.dir())?;
    journal.save()?;
    if !ctx.out.machine() {
        ctx.out.text(&plan::render(&prepared.plan, ctx.out.data_color))?;
    }
    if prepared.work.file.is_none() {
        return nothing_runs(ctx, journal, &prepared);
    }
    let mut session = connect(ctx, Need::Drive).await?;
    let (journal, created) = match start(ctx, &mut session, args.insecure_no_sandbox, journal, &prepared).await {
        Ok(started) => started,
        Err(error) => {
            session.close().await;
            return Err(error);
        }
    };
    carry_out(ctx, args, session, journal, &prepared.work, created).await
}

/// Ends where no action may run.
pub(super) fn nothing_runs(ctx: &Context, mut journal: Journal, prepared: &Prepared) -> Result<Exit, CliError> {
    let exit = idle(ctx, &mut journal, prepared)?;
    if ctx.out.machine() {
        let document =
            json!({ "format": "autopilot/1", "session": journal.session, "plan": prepared.plan, "run": Value::Null });
        ctx.out.document(&document)?;
    }
    Ok(exit)
}

/// Tells why no action runs, and keeps it: there is nothing to do, or nothing that may be done.
pub(super) fn idle(ctx: &Context, journal: &mut Journal, prepared: &Prepared) -> Result<Exit, CliError> {
    let run = &prepared.run;
    let exit = if prepared.plan.actions.is_empty() {
        ctx.out.note(&format!("{run}: nothing to do: the scan found no gaps"));
        Exit::Done
    } else {
        let why = "no action of the plan may run";
        journal.go(SessionStatus::BlockedGap, Some(why.to_owned()), ctx.clock.wall())?;
        for (action, why) in &prepared.work.left {
            ctx.out.note(&format!("  not run: {} ({})", line(action), line(why)));
        }
        ctx.out.note(&format!("{run}: {why}; next: autopack plan propose says what would change that"));
        Exit::Refused
    };
    journal.save().map(|()| exit)
}

/// Submits the run and sees that it is judged by what was planned with. Tells whether the run is new.
pub(super) async fn start(
    ctx: &Context,
    session: &mut Session,
    insecure: bool,
    mut journal: Journal,
    prepared: &Prepared,
) -> Result<(Journal, bool), CliError> {
    let Some(file) = &prepared.work.file else { return Ok((journal, false)) };
    let digest = prepared.plan.digest().map(|digest| digest.to_string()).unwrap_or_default();
    let answer = submit(ctx, session, file, &digest, insecure).await?;
    for warning in &answer.warnings {
        ctx.out.warn(&line(warning));
    }
    let run = answer.run.unwrap_or_default();
    let rules = &prepared.survey.rules;
    let anchor = rules.anchor.as_ref().map(|anchor| anchor.digest().to_string()).unwrap_or_default();
    if run.anchor_digest != anchor || run.policy_digest != rules.config.policy.digest().to_string() {
        let register = "autopack init registers the files as they are; committing them is better";
        ctx.out.warn(&format!("the run is judged by another policy or {ANCHOR_PATH} than the plan: {register}"));
    }
    journal.go(SessionStatus::Running, None, ctx.clock.wall())?;
    Ok((journal, answer.created))
}

/// Goes with the run until it is at rest, and keeps what came of it.
pub(super) async fn carry_out(
    ctx: &Context,
    args: &Run,
    session: Session,
    mut journal: Journal,
    work: &Work,
    fresh: bool,
) -> Result<Exit, CliError> {
    let run = journal.session.run_id.clone();
    let mut leave = Leave::new()?;
    let mut follow = Follow::new(ctx, Need::Drive, session);
    let wait = ctx.out.interactive && !args.no_wait;
    let manner = Manner { wait: wait || args.interactive, interactive: args.interactive, ..Manner::default() };
    let followed = if fresh { follow.add(&run, 0).await } else { follow.add_from_now(&run).await };
    let ended = match followed {
        Ok(()) => {
            if !fresh {
                ctx.out.note(&format!("going on with the run {run}"));
            }
            let drive = Drive::new(ctx, &mut follow, std::slice::from_ref(&run), manner);
            // Boxed, because it is much larger than the rest.
            Box::pin(drive.until_rest(&mut leave)).await
        }
        Err(error) => Err(error),
    };
    close(follow, &mut leave).await;
    let outcomes = ended?;
    let exit = exit_of(outcomes.values());
    let Some(outcome) = outcomes.into_values().next() else { return Ok(exit) };
    conclude(ctx, &mut journal, &outcome, work)?;
    if ctx.out.machine() {
        let document = json!({ "format": "autopilot/1", "session": journal.session, "run": run_json(&outcome.run) });
        ctx.out.document(&document)?;
    } else {
        tell(ctx, &outcome, work)?;
    }
    Ok(exit)
}

/// Keeps what came of a run.
pub(super) fn conclude(ctx: &Context, journal: &mut Journal, outcome: &Outcome, work: &Work) -> Result<(), CliError> {
    settle(journal, outcome, work, ctx.clock.wall())
}

/// Whether the engine knows a run.
pub(super) async fn is_known(session: &mut Session, run: &RunId) -> Result<bool, CliError> {
    match session.runs.get(GetRunRequest { run_id: run.to_string() }).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
        Err(status) => Err(status).during(format!("look at the run {run}")),
    }
}

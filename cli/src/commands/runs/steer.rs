//! Steering runs: cancel, pause, retry, resume, land, rollback.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_stream::StreamExt as _;

use autopack_shared::domain::budget::{Caps, micros};
use autopack_shared::domain::ids::RunId;
use autopack_shared::wire::pb::{GetRunRequest, LandRequest, Run, SteerOp, SteerRequest, SteerResponse, WatchRequest};

use super::look::next_of;
use crate::args::runs::{Budget, Resume, Retry, Rollback};
use crate::commands::autopilot::keep_up;
use crate::connect::{Need, Session, connect};
use crate::context::Context;
use crate::drive::{Drive, Leave, Manner, Outcome, Rest, close};
use crate::exit::{CliError, During as _, Exit};
use crate::follow::{Follow, Step, is_terminal};
use crate::output::tagged;
use crate::show::{run_json, run_text, short_branch};
use crate::terminal::line;

/// How long a command waits for what it asked for.
const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// How long the moves of a rollback are apart at most, usually.
const BETWEEN_MOVES: Duration = Duration::from_millis(50);

/// What is asked of a run.
struct Wish<'a> {
    op: SteerOp,
    phase: Option<String>,
    text: &'a str,
    scope: Vec<String>,
    caps: String,
}

impl Wish<'_> {
    const fn plain(op: SteerOp) -> Self {
        Self { op, phase: None, text: "", scope: Vec::new(), caps: String::new() }
    }
}

async fn steer(ctx: &Context, session: &mut Session, run: &RunId, wish: Wish<'_>) -> Result<SteerResponse, CliError> {
    let call = SteerRequest {
        idempotency_key: ctx.ids.fresh("steer"),
        run_id: run.to_string(),
        op: wish.op.into(),
        phase_id: wish.phase.unwrap_or_default(),
        text: wish.text.to_owned(),
        scope: wish.scope,
        caps_json: wish.caps,
    };
    Ok(session.runs.steer(call).await.during(format!("steer the run {run}"))?.into_inner())
}

async fn known(session: &mut Session, run: &RunId) -> Result<Run, CliError> {
    let call = GetRunRequest { run_id: run.to_string() };
    Ok(session.runs.get(call).await.during(format!("look at the run {run}"))?.into_inner())
}

/// Records a wish; the engine that runs, or the next one, performs it.
async fn record(ctx: &Context, run: &RunId, wish: Wish<'_>, word: &str) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Passive).await?;
    let answer = steer(ctx, &mut session, run, wish).await;
    let attached = !session.owns();
    session.close().await;
    let found = answer?.run.unwrap_or_default();
    if ctx.out.machine() {
        ctx.out.document(&tagged("run", run_json(&found)))?;
    } else {
        ctx.out.text(&format!("{run} {word}\n"))?;
    }
    let next = if attached {
        format!("next: autopack runs watch {run}")
    } else {
        format!("nothing is running here, so next: autopack runs resume {run}")
    };
    ctx.out.note(&next);
    Ok(Exit::Done)
}

/// `runs pause`.
pub(super) async fn pause(ctx: &Context, run: &RunId) -> Result<Exit, CliError> {
    record(ctx, run, Wish::plain(SteerOp::Pause), "is asked to pause").await
}

/// `runs retry`.
pub(super) async fn retry(ctx: &Context, args: &Retry) -> Result<Exit, CliError> {
    let phase = args.phase.as_ref().map(ToString::to_string);
    let scope = args.scope.clone();
    let wish = Wish { phase, text: &args.feedback, scope, ..Wish::plain(SteerOp::Retry) };
    record(ctx, &args.named.run, wish, "gets one more attempt").await
}

/// `runs budget`: sets bounds anew.
pub(super) async fn budget(ctx: &Context, args: &Budget) -> Result<Exit, CliError> {
    let amount = |cost: f64| cost.is_finite() && cost > 0.0;
    if args.cost.is_some_and(|cost| !amount(cost)) {
        return Err(CliError::invalid("--cost is no amount", "it must be more than 0", "autopack runs budget --help"));
    }
    let caps = Caps {
        tokens: args.tokens,
        cost_micros: args.cost.map(micros),
        calls: args.calls,
        seconds: args.seconds,
        files: args.files,
    };
    let caps = serde_json::to_string(&caps).map_err(std::io::Error::from).during("write the bounds")?;
    let phase = args.phase.as_ref().map(ToString::to_string);
    record(ctx, &args.named.run, Wish { phase, caps, ..Wish::plain(SteerOp::Budget) }, "gets another budget").await
}

/// `runs cancel`: asks, and sees to it that it happens.
pub(super) async fn cancel(ctx: &Context, run: &RunId) -> Result<Exit, CliError> {
    let possible = |run: &Run| !is_terminal(&run.state);
    let shows = |run: &Run| is_terminal(&run.state);
    let order = Order { wish: Wish::plain(SteerOp::Cancel), possible: &possible, shows: &shows };
    let Some(found) = Box::pin(carry_out(ctx, run, order)).await? else { return Ok(Exit::Interrupted) };
    if found.state != "CANCELLED" && is_terminal(&found.state) {
        let why = format!("it is {} already", found.state);
        return Err(CliError::refused(
            "illegal_move",
            format!("cannot cancel {run}"),
            why,
            format!("autopack runs show {run}"),
        ));
    }
    print(ctx, &found)?;
    Ok(if found.state == "CANCELLED" { Exit::Done } else { not_yet(ctx, run) })
}

/// `rollback`: asks, and sees to it that it happens.
pub(crate) async fn rollback(ctx: &Context, args: &Rollback) -> Result<Exit, CliError> {
    roll_back(ctx, &args.named.run, args.phase.as_ref().map(ToString::to_string), &args.reason, true).await
}

/// Rolls back one phase, or all; `show` says whether the run is printed at the end.
pub(crate) async fn roll_back(
    ctx: &Context,
    run: &RunId,
    phase: Option<String>,
    reason: &str,
    show: bool,
) -> Result<Exit, CliError> {
    let count = |run: &Run, states: &[&str]| {
        let meant = run.phases.iter().filter(|one| phase.as_ref().is_none_or(|phase| *phase == one.id));
        meant.filter(|one| states.contains(&one.state.as_str())).count()
    };
    let possible = |run: &Run| count(run, &["APPLIED", "VERIFYING", "ROLLING_BACK"]) > 0;
    let shows = |run: &Run| !possible(run);
    let wish = Wish { phase: phase.clone(), text: reason, ..Wish::plain(SteerOp::Rollback) };
    let order = Order { wish, possible: &possible, shows: &shows };
    let Some(found) = Box::pin(carry_out(ctx, run, order)).await? else { return Ok(Exit::Interrupted) };
    if count(&found, &["ROLLED_BACK", "ROLLING_BACK", "APPLIED", "VERIFYING"]) == 0 {
        let why = "no such phase is applied";
        return Err(CliError::refused(
            "illegal_move",
            format!("cannot roll {run} back"),
            why,
            format!("autopack runs show {run}"),
        ));
    }
    if show || !shows(&found) {
        print(ctx, &found)?;
    }
    Ok(if shows(&found) { Exit::Done } else { not_yet(ctx, run) })
}

fn not_yet(ctx: &Context, run: &RunId) -> Exit {
    ctx.out.note(&format!("recorded, and not done yet; next: autopack runs explain {run}"));
    Exit::Conflict
}

fn print(ctx: &Context, run: &Run) -> Result<(), CliError> {
    if ctx.out.machine() {
        ctx.out.document(&tagged("run", run_json(run)))
    } else {
        ctx.out.text(&run_text(run, ctx.out.data_color))
    }
}

/// A wish that is carried out before the command ends.
struct Order<'a> {
    wish: Wish<'a>,
    /// Whether there is anything to do.
    possible: &'a dyn Fn(&Run) -> bool,
    /// Whether it is done.
    shows: &'a dyn Fn(&Run) -> bool,
}

/// Records a wish and goes with the run until it is done, or for a while. None when the person left before.
async fn carry_out(ctx: &Context, run: &RunId, order: Order<'_>) -> Result<Option<Run>, CliError> {
    let mut leave = Leave::new()?;
    let session = connect(ctx, Need::Drive).await?;
    let mut follow = Follow::new(ctx, Need::Drive, session);
    let ended = tokio::select! {
        ended = carry(ctx, &mut follow, run, order) => ended.map(Some),
        () = leave.asked() => Ok(None),
    };
    close(follow, &mut leave).await;
    if matches!(ended, Ok(None)) {
        ctx.out.note(&format!(
            "left; what is recorded is done by the next engine. Look with: autopack runs explain {run}"
        ));
    }
    if let Ok(Some(run)) = &ended
        && let Some(rest) = Rest::of(run)
    {
        keep_up(ctx, &Outcome { run: run.clone(), rest });
    }
    ended
}

async fn carry(ctx: &Context, follow: &mut Follow<'_>, run: &RunId, order: Order<'_>) -> Result<Run, CliError> {
    let name = run.to_string();
    let known = follow.run(&name).await?;
    if !(order.possible)(&known) {
        return Ok(known);
    }
    let mut seen = follow.last_seq(&name).await?;
    steer(ctx, follow.session()?, run, order.wish).await?;
    follow.add(&name, seen).await?;
    let until_it_shows = async {
        loop {
            let step = follow.next().await?;
            if let Some(Step::Event(event)) = &step {
                seen = event.seq;
            }
            let found = follow.run(&name).await?;
            if (order.shows)(&found) {
                return Ok(found);
            }
            if matches!(step, Some(Step::Ended(_)) | None) {
                // The history of an ended run pauses between the moves of an ordered rollback.
                if !found.phases.iter().any(|phase| phase.state == "ROLLING_BACK") {
                    return Ok(found);
                }
                tokio::time::sleep(BETWEEN_MOVES).await;
                follow.add(&name, seen).await?;
            }
        }
    };
    match tokio::time::timeout(LONG_ENOUGH, until_it_shows).await {
        Ok(found) => found,
        Err(_) => follow.run(&name).await,
    }
}

/// `runs resume`: lets a paused run go on, and drives any run that is not at its end.
pub(super) async fn resume(ctx: &Context, args: &Resume) -> Result<Exit, CliError> {
    let run = &args.named.run;
    let mut session = connect(ctx, Need::Drive).await?;
    let unpausing = match let_go_on(ctx, &mut session, run).await {
        Ok(unpausing) => unpausing,
        Err(error) => {
            session.close().await;
            return Err(error);
        }
    };
    let wait = ctx.out.interactive && !args.no_wait;
    drive_one(
        ctx,
        session,
        run.as_str(),
        Manner { wait, interactive: args.interactive, unpausing, ..Manner::default() },
    )
    .await
}

/// Takes a pause back, also one that was asked for and is not obeyed yet: wishes are obeyed in their order. Tells
/// whether there was one.
async fn let_go_on(ctx: &Context, session: &mut Session, run: &RunId) -> Result<bool, CliError> {
    let known = known(session, run).await?;
    let held = known.state == "PAUSED" || (!is_terminal(&known.state) && asked_to_pause(session, run).await?);
    if held {
        steer(ctx, session, run, Wish::plain(SteerOp::Resume)).await?;
    }
    Ok(held)
}

/// Whether the last that was asked of a run, between going on and pausing, is to pause.
async fn asked_to_pause(session: &mut Session, run: &RunId) -> Result<bool, CliError> {
    let what = format!("read the history of the run {run}");
    let call = WatchRequest { run_id: run.to_string(), after_seq: 0, once: true };
    let mut events = session.runs.watch(call).await.during(what.clone())?.into_inner();
    let mut pause = false;
    while let Some(event) = events.next().await {
        let event = event.during(what.clone())?;
        if event.kind == "command.recorded" {
            match event.text.split(' ').next() {
                Some("pause") => pause = true,
                Some("resume") => pause = false,
                Some(_) | None => {}
            }
        }
    }
    Ok(pause)
}

/// Goes with one run until it is at rest, and says how it stands then.
pub(crate) async fn drive_one(ctx: &Context, session: Session, run: &str, manner: Manner) -> Result<Exit, CliError> {
    let Some(outcome) = until_rest(ctx, session, run, manner).await? else { return Ok(Exit::Done) };
    if outcome.rest == Rest::Detached {
        return Ok(outcome.exit());
    }
    print(ctx, &outcome.run)?;
    if !ctx.out.machine() {
        ctx.out.note(&next_of(&outcome));
    }
    Ok(outcome.exit())
}

/// Goes with one run until it is at rest, and keeps what came of it.
async fn until_rest(ctx: &Context, session: Session, run: &str, manner: Manner) -> Result<Option<Outcome>, CliError> {
    let mut leave = Leave::new()?;
    let mut follow = Follow::new(ctx, Need::Drive, session);
    let name = run.to_owned();
    let ended = match follow.add_from_now(run).await {
        Ok(()) => {
            let drive = Drive::new(ctx, &mut follow, std::slice::from_ref(&name), manner);
            // Boxed, because it is much larger than the rest.
            Box::pin(drive.until_rest(&mut leave)).await
        }
        Err(error) => Err(error),
    };
    close(follow, &mut leave).await;
    let outcome = ended?.into_values().next();
    match &outcome {
        Some(outcome) if outcome.rest == Rest::Detached => {
            ctx.out.note(&format!("left; the run is not cancelled. Go on with: autopack runs resume {}", line(run)));
        }
        Some(outcome) => keep_up(ctx, outcome),
        None => {}
    }
    Ok(outcome)
}

/// `runs land`: merges a run's branch into its target, or says what to do instead.
pub(super) async fn land(ctx: &Context, run: &RunId) -> Result<Exit, CliError> {
    let mut session = connect(ctx, Need::Drive).await?;
    let call = LandRequest { idempotency_key: ctx.ids.fresh("land"), run_id: run.to_string() };
    let answer = match session.runs.land(call).await.during(format!("land the run {run}")) {
        Ok(answer) => answer.into_inner(),
        Err(error) => {
            session.close().await;
            return Err(error);
        }
    };
    let landing = answer.run.unwrap_or_default();
    if !answer.landed && answer.instead.is_empty() {
        ctx.out.note(&format!(
            "the target moved on since the run began: {} merges, judges and verifies it first",
            line(&landing.id)
        ));
        let manner = Manner { wait: ctx.out.interactive, ..Manner::default() };
        let Some(outcome) = until_rest(ctx, session, &landing.id, manner).await? else { return Ok(Exit::Done) };
        let exit = outcome.exit();
        if ctx.out.machine() {
            ctx.out.document(&landing_json(exit == Exit::Done, None, &outcome.run))?;
        } else if outcome.rest != Rest::Detached {
            print(ctx, &outcome.run)?;
            ctx.out.note(&next_of(&outcome));
        }
        return Ok(exit);
    }
    session.close().await;
    let target = short_branch(&landing.target_ref);
    if ctx.out.machine() {
        let instead = (!answer.instead.is_empty()).then_some(answer.instead.as_str());
        ctx.out.document(&landing_json(answer.landed, instead, &landing))?;
    } else if answer.landed {
        ctx.out.text(&format!("{run} is on {}\n", line(target)))?;
    } else {
        ctx.out.text(&format!("{}\n", line(&answer.instead)))?;
        ctx.out.note(&format!(
            "{} is checked out, and a checkout is yours: run the command above, then this one again",
            line(target)
        ));
    }
    Ok(if answer.landed { Exit::Done } else { Exit::Waiting })
}

fn landing_json(landed: bool, instead: Option<&str>, run: &Run) -> Value {
    json!({ "format": "landing/1", "landed": landed, "instead": instead, "run": run_json(run) })
}

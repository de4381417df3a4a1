//! The end of an autopilot run: the session, the summary on disk, and what the person is told.

use std::fmt::Write as _;

use autopack_shared::domain::ids::{RunId, Timestamp};
use autopack_shared::domain::plan::Work;
use autopack_shared::domain::session::SessionStatus;
use autopack_shared::wire::pb::Run;

use super::journal::Journal;
use crate::commands::runs::look::next_of;
use crate::context::Context;
use crate::drive::{Outcome, Rest};
use crate::exit::CliError;
use crate::show::{run_text, short_branch};
use crate::terminal::line;

/// Moves the session to where the run came to rest.
pub(super) fn settle(journal: &mut Journal, outcome: &Outcome, work: &Work, now: Timestamp) -> Result<(), CliError> {
    journal.record(&outcome.run, |phase| work.actions.get(phase).cloned(), now);
    let reason = (!outcome.run.reason.is_empty()).then(|| outcome.run.reason.clone());
    let (status, reason) = match outcome.rest {
        Rest::Waiting => (SessionStatus::AwaitingApproval, reason.or(Some("waiting for decisions".to_owned()))),
        Rest::Blocked => {
            (SessionStatus::AwaitingApproval, reason.or(Some("a phase needs an elevated decision".to_owned())))
        }
        Rest::Paused => (SessionStatus::AwaitingApproval, reason.or(Some("an operator paused it".to_owned()))),
        // Somebody else, or the same command later, goes on with it.
        Rest::Resting => (SessionStatus::AwaitingApproval, reason.or(Some(outcome.run.rests.clone()))),
        Rest::Detached => return journal.save(),
        Rest::Ended => match outcome.run.state.as_str() {
            "SUCCEEDED" => (SessionStatus::Completed, None),
            "CANCELLED" => (SessionStatus::Aborted, reason),
            _ => (SessionStatus::Failed, reason),
        },
    };
    journal.go(status, reason, now)?;
    match journal.dir() {
        Some(dir) => dir.write("run_summary.md", markdown(&outcome.run, work).as_bytes()),
        None => Ok(()),
    }
}

/// Brings session and summary up to date where autopilot began the run, whichever command went with it. The run does
/// not depend on either: what cannot be written is told and no failure.
pub(crate) fn keep_up(ctx: &Context, outcome: &Outcome) {
    // A supervisor elsewhere keeps what its runs leave.
    if ctx.is_remote() {
        return;
    }
    let kept = || {
        let data_dir = &ctx.place()?.data_dir;
        let journal = RunId::new(outcome.run.id.as_str()).ok().and_then(|run| Journal::of_run(data_dir, &run));
        match journal.filter(|journal| journal.session.status != SessionStatus::DryRun) {
            Some(mut journal) => {
                let work = journal.work();
                settle(&mut journal, outcome, &work, ctx.clock.wall())
            }
            None => Ok(()),
        }
    };
    if let Err(error) = kept() {
        let [what, why, _] = error.lines();
        ctx.out.warn(&format!("the run's summary is out of date: {}: {}", line(&what), line(&why)));
    }
}

/// Tells how it went and what comes next.
pub(super) fn tell(ctx: &Context, outcome: &Outcome, work: &Work) -> Result<(), CliError> {
    let run = &outcome.run;
    if outcome.rest == Rest::Detached {
        let id = line(&run.id);
        ctx.out.note(&format!(
            "left; the run is not cancelled. Go on with: autopack autopilot run --enable --run-id {id}"
        ));
        return Ok(());
    }
    ctx.out.text(&run_text(run, ctx.out.data_color))?;
    for (action, why) in &work.left {
        ctx.out.note(&format!("  not run: {} ({})", line(action), line(why)));
    }
    ctx.out.note(&next_of(outcome));
    Ok(())
}

/// The summary of a run as a page.
fn markdown(run: &Run, work: &Work) -> String {
    let mut page = format!("# Run {}\n\n", run.id);
    let _ = writeln!(page, "- state: {}", run.state);
    if !run.reason.is_empty() {
        let _ = writeln!(page, "- why: {}", text(&run.reason));
    }
    let _ = writeln!(page, "- from: {}", run.fork_commit);
    let _ = writeln!(page, "- branch: {}", text(short_branch(&run.branch)));
    if !run.tip.is_empty() {
        let _ = writeln!(page, "- tip: {}", run.tip);
    }
    let _ = writeln!(page, "\n| phase | state | verdict | goal | commit | why |\n|---|---|---|---|---|---|");
    for phase in &run.phases {
        let goal = text(crate::show::first_line(&phase.goal));
        let cells = [&phase.id, &phase.state, &phase.verdict, &goal, &phase.commit, &text(&phase.reason)];
        let _ = writeln!(page, "| {} |", cells.map(String::as_str).join(" | "));
    }
    if !work.left.is_empty() {
        page.push_str("\nNot run:\n\n");
        for (action, why) in &work.left {
            let _ = writeln!(page, "- {}: {}", text(action), text(why));
        }
    }
    page
}

/// Foreign text that must neither act on a terminal nor break out of a table.
fn text(value: &str) -> String {
    line(value).replace('|', "\\|").replace('<', "&lt;")
}

//! `plan propose`: what would be done about each gap, and who would be asked.

use std::fmt::Write as _;

use autopack_shared::domain::plan::{ApprovalStatus, PlanProposalV1};

use super::gaps::default_run;
use crate::args::local::{Plan, PlanPropose};
use crate::artifact::RunDir;
use crate::context::Context;
use crate::exit::{CliError, Exit};
use crate::survey::{PLAN, REPORT, Survey, Wish, far};
use crate::terminal::{Tone, line, paint};

/// Paths that are named before the rest is counted.
const SHOWN: usize = 4;

/// Runs `plan`.
pub(crate) async fn run(ctx: &Context, command: Plan) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Plan::Propose(args) => propose(ctx, args).await,
    }
}

async fn propose(ctx: &Context, args: PlanPropose) -> Result<Exit, CliError> {
    let run = args.run_id.map_or_else(|| default_run(ctx, "plan", args.write), Ok)?;
    let kept = if args.write { Some(RunDir::new(&ctx.kept_in()?, &run)) } else { None };
    let wish = Wish { run, since: None, deep: false, anchor: args.anchor, at: args.at };
    let (report, plan) = if ctx.is_remote() {
        let found = far::plan(ctx, &wish).await?;
        (found.survey.report, found.plan)
    } else {
        let survey = Survey::take(ctx, wish).await?;
        let plan = survey.plan(ctx)?;
        (survey.report, plan)
    };
    if let Some(dir) = kept {
        dir.write_json(REPORT, &report)?;
        let path = dir.write_json(PLAN, &plan)?;
        ctx.out.note(&format!("wrote {}", path.display()));
    }
    if ctx.out.machine() {
        ctx.out.document(&plan)?;
    } else {
        ctx.out.text(&render(&plan, ctx.out.data_color))?;
        ctx.out.note(next(&plan));
    }
    Ok(Exit::Done)
}

/// The command that follows a plan.
pub(crate) fn next(plan: &PlanProposalV1) -> &'static str {
    if plan.runnable().next().is_some() {
        "next: autopack autopilot run --enable"
    } else {
        "next: autopack gaps scan (nothing here can run by itself)"
    }
}

/// The plan for people.
pub(crate) fn render(plan: &PlanProposalV1, color: bool) -> String {
    let mut text = String::new();
    let sum = &plan.summary;
    if plan.actions.is_empty() {
        let _ = writeln!(text, "nothing to do: no gaps");
    } else {
        let _ = writeln!(
            text,
            "{} action(s): {} automatic, {} to be asked about, {} blocked",
            sum.total_actions, sum.auto_approved_actions, sum.requires_approval_actions, sum.blocked_actions
        );
    }
    for action in &plan.actions {
        let (word, tone) = status(action.approval_status);
        let title = action.title.as_deref().unwrap_or(action.action_type.as_str());
        let _ = writeln!(text, "\n{}  {}", paint(color, tone, word), line(title));
        let by = action.builder.as_deref().unwrap_or("nobody");
        let id = format!("{} {} by {by}, risk {:.1}", action.action_id, action.action_type.as_str(), action.risk_score);
        let _ = writeln!(text, "  {}", paint(color, Tone::Faint, &line(&id)));
        for path in action.target_paths.iter().take(SHOWN) {
            let _ = writeln!(text, "    {}", line(path));
        }
        if action.target_paths.len() > SHOWN {
            let _ = writeln!(text, "    and {} more", action.target_paths.len() - SHOWN);
        }
        if let Some(reason) = &action.approval_reason {
            let rule = action.rule.as_deref().map(|rule| format!(" [{rule}]")).unwrap_or_default();
            let _ = writeln!(text, "  because: {}", line(&format!("{reason}{rule}")));
        }
        if action.needs_commit {
            let _ = writeln!(
                text,
                "  {}",
                paint(color, Tone::Warn, "some of its files are not committed: commit them first")
            );
        }
    }
    text
}

const fn status(status: ApprovalStatus) -> (&'static str, Tone) {
    match status {
        ApprovalStatus::AutoApproved => ("automatic", Tone::Good),
        ApprovalStatus::RequiresApproval => ("ask      ", Tone::Warn),
        ApprovalStatus::Blocked => ("blocked  ", Tone::Bad),
    }
}

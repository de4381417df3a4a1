//! `gate`: the parallelism gate on paper, and what the quality gate does and has learned.

mod quality;

use std::path::Path;

use serde_json::{Value, json};

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::parallelism::{AnchorState, GateDecision, GateInput, GateReason, RunsRequest, decide};

use crate::args::local::{Gate, GateCheck};
use crate::context::Context;
use crate::exit::{CliError, Exit};
use crate::terminal::{Tone, line, paint};

/// Runs `gate`.
pub(crate) async fn run(ctx: &Context, command: &Gate) -> Result<Exit, CliError> {
    ctx.out.no_sarif()?;
    match command {
        Gate::Check(check) => self::check(ctx, check),
        Gate::Try(args) => quality::attempt(ctx, args).await,
        Gate::Flaky(args) => quality::flaky(ctx, args).await,
        Gate::Baseline(args) => quality::baseline(ctx, args).await,
    }
}

fn check(ctx: &Context, args: &GateCheck) -> Result<Exit, CliError> {
    let anchor = args.anchor.as_deref().map(read);
    let decision = decide(&GateInput {
        anchor: match &anchor {
            None => AnchorState::Absent,
            Some(Ok(anchor)) => AnchorState::Present(anchor),
            Some(Err(_)) => AnchorState::Invalid,
        },
        runs: runs(&args.runs),
        workers: number(&args.workers),
        active: number(&args.active),
    });
    if ctx.out.machine() {
        ctx.out.document(&document(decision))?;
    } else {
        let tone = if decision.allow { Tone::Good } else { Tone::Bad };
        let word = paint(ctx.out.data_color, tone, if decision.allow { "allowed" } else { "denied" });
        ctx.out.text(&format!("{word}: {} run(s) at once ({})\n", decision.effective, decision.reason.as_str()))?;
    }
    if let Some(Err(why)) = &anchor {
        ctx.out.note(&format!("the anchor is refused: {}", line(why)));
    }
    if !decision.allow {
        ctx.out.note(remedy(decision.reason));
    }
    Ok(exit(decision))
}

/// A decision of the gate as a document.
pub(crate) fn document(decision: GateDecision) -> Value {
    let GateDecision { allow, reason, effective } = decision;
    json!({ "format": "gate/1", "allow": allow, "reason": reason.as_str(), "effective": effective })
}

/// How a decision of the gate ends a command.
pub(crate) const fn exit(decision: GateDecision) -> Exit {
    match decision.reason {
        GateReason::Allowed => Exit::Done,
        GateReason::InvalidInput => Exit::Usage,
        GateReason::AnchorInvalid
        | GateReason::AnchorRequired
        | GateReason::PolicyUndefined
        | GateReason::NotAllowed
        | GateReason::OverLimit
        | GateReason::IsolationInsufficient => Exit::Refused,
    }
}

/// What would make the gate open.
pub(crate) const fn remedy(reason: GateReason) -> &'static str {
    match reason {
        GateReason::Allowed => "",
        GateReason::InvalidInput => {
            "name at least one run and one worker; run names are distinct and match [a-z0-9][a-z0-9._-]*"
        }
        GateReason::AnchorInvalid => "autopack anchor lint FILE explains what is wrong with it",
        GateReason::AnchorRequired => "more than one run needs an anchor: autopack init",
        GateReason::PolicyUndefined => {
            "add the pivot parallelism_isolation to the anchor: {\"allowed\": true, \"isolation_model\": \"four_layer\", \"max_concurrent_runs\": 2}"
        }
        GateReason::NotAllowed => "set parallelism_isolation.allowed to true in the anchor, or work with one worker",
        GateReason::OverLimit => "use fewer workers, or raise parallelism_isolation.max_concurrent_runs in the anchor",
        GateReason::IsolationInsufficient => "set parallelism_isolation.isolation_model to four_layer in the anchor",
    }
}

/// A file that cannot be read, or not be used as an anchor, is an answer of the gate and no failure.
fn read(file: &Path) -> Result<IntentionAnchorV2, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    IntentionAnchorV2::parse(&text).map_err(|error| error.to_string())
}

fn runs(text: &str) -> RunsRequest {
    match text.trim().parse() {
        Ok(count) => RunsRequest::Count(count),
        // A number that is too large to count with is not the name of a run.
        Err(_) if text.trim().bytes().all(|byte| byte.is_ascii_digit()) => RunsRequest::Count(-1),
        Err(_) => RunsRequest::Names(text.split(',').map(|name| name.trim().to_owned()).collect()),
    }
}

/// What is no number is no valid number of anything.
fn number(text: &str) -> i64 {
    text.trim().parse().unwrap_or(-1)
}

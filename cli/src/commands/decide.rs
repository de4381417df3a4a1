//! Deciding a request: what a person is shown, what they are asked, and the call that records it.

use std::fmt::Write as _;

use autopack_shared::domain::change::Op;
use autopack_shared::domain::evaluate::Verdict;
use autopack_shared::domain::ids::Timestamp;
use autopack_shared::wire::pb::{Choice, DecideRequest, GetRequestRequest, Request, RequestDetail};

use super::policy::sentence;
use crate::connect::Session;
use crate::console::Console;
use crate::context::Context;
use crate::exit::{CliError, During as _};
use crate::show::span;
use crate::terminal::{Tone, block, block_bytes, line, paint, tone_of};

/// Lines of a diff that are shown before the rest is left to `runs diff`.
const DIFF_LINES: usize = 400;

/// What came of asking a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is decided.
    Decided,
    /// They do not want to decide it now.
    Skipped,
    /// Nobody is there to answer any more.
    Gone,
}

/// A decision to be recorded.
#[derive(Debug, Clone)]
pub(crate) struct Decision {
    /// The request, by id or prefix.
    pub(crate) request: String,
    /// Yes or no.
    pub(crate) choice: Choice,
    /// The digest that was looked at.
    pub(crate) digest: String,
    /// Why.
    pub(crate) reason: String,
    /// A stable word for a rejection.
    pub(crate) code: String,
}

/// Reads a request with everything that belongs to it.
pub(crate) async fn detail(session: &mut Session, id: &str) -> Result<RequestDetail, CliError> {
    let call = GetRequestRequest { request_id: id.to_owned() };
    Ok(session.governance.get(call).await.during(format!("look at the request {id}"))?.into_inner())
}

/// Records a decision.
pub(crate) async fn record(ctx: &Context, session: &mut Session, decision: Decision) -> Result<Request, CliError> {
    let what = format!("decide the request {}", decision.request);
    let call = DecideRequest {
        idempotency_key: ctx.ids.fresh("decide"),
        request_id: decision.request,
        choice: decision.choice.into(),
        expected_digest: decision.digest,
        reason: decision.reason,
        reason_code: decision.code,
    };
    Ok(session.governance.decide(call).await.during(what)?.into_inner())
}

/// Shows a request and asks for a decision until there is one, or the person wants none.
pub(crate) async fn at_the_keyboard(
    ctx: &Context,
    session: &mut Session,
    console: &mut Console,
    id: &str,
) -> Result<Answer, CliError> {
    let found = detail(session, id).await?;
    let Some(request) = &found.request else { return Ok(Answer::Skipped) };
    console.line(&text(&found, ctx.clock.wall(), ctx.out.color, false));
    loop {
        let answer = console.ask("[a]pprove, [r]eject, show the [d]iff, or [s]kip?").await?;
        let (choice, question) = match answer.as_deref().map(str::to_lowercase).as_deref() {
            Some("a" | "approve") => {
                (Choice::Approve, if request.tier >= 4 { "why (needed for tier 4)?" } else { "why?" })
            }
            Some("r" | "reject") => (Choice::Reject, "what should be done instead?"),
            Some("d" | "diff") => {
                console.line(&diff(&found, ctx.out.color));
                continue;
            }
            Some("s" | "skip") => return Ok(Answer::Skipped),
            None => return Ok(Answer::Gone),
            Some(_) => continue,
        };
        let reason = console.ask(question).await?.unwrap_or_default();
        let decision = Decision {
            request: request.id.clone(),
            choice,
            digest: request.subject_digest.clone(),
            reason,
            code: if choice == Choice::Reject { "rejected".to_owned() } else { String::new() },
        };
        match record(ctx, session, decision).await {
            Ok(_) => return Ok(Answer::Decided),
            Err(error) => {
                // Somebody was faster, or a reason is missing: they see why and can answer again.
                ctx.out.failure(&error);
                if error.reason() != "invalid" {
                    return Ok(Answer::Skipped);
                }
            }
        }
    }
}

/// What to type in a second terminal.
pub(crate) fn invitation(request: &Request) -> Vec<String> {
    let paths: Vec<String> = request.violated_paths.iter().take(3).map(|path| line(path)).collect();
    let id = line(&request.id);
    vec![
        format!("waiting for a decision on {} (tier {}): {}", line(&request.phase_id), request.tier, paths.join(", ")),
        format!("  in a second terminal: autopack approvals show {id}"),
        format!("  then: autopack approvals approve {id}   or: autopack approvals reject {id} --reason '...'"),
    ]
}

/// A request for people: what changes, why it is asked about, what is needed.
pub(crate) fn text(found: &RequestDetail, now: Timestamp, color: bool, with_diff: bool) -> String {
    let mut text = String::new();
    let Some(request) = &found.request else { return text };
    let state = paint(color, tone_of(&request.state), &request.state);
    let _ = writeln!(
        text,
        "{}  {state}  tier {}, risk {} ({})",
        line(&request.id),
        request.tier,
        request.risk_level,
        request.risk_score
    );
    let _ = writeln!(
        text,
        "  run {}, phase {}, attempt {}",
        line(&request.run_id),
        line(&request.phase_id),
        request.attempt
    );
    if !found.goal.is_empty() {
        let _ = writeln!(text, "  goal: {}", one_line(&found.goal));
    }
    if !request.justification.is_empty() {
        let _ = writeln!(text, "  its builder says (not checked): {}", one_line(&request.justification));
    }
    match serde_json::from_str::<Verdict>(&found.verdict_json) {
        Ok(verdict) => facts(&mut text, &verdict, color),
        Err(_) => {
            let _ = writeln!(text, "  because: {}", line(&request.risk_factors.join(", ")));
        }
    }
    let _ = writeln!(
        text,
        "  would move {} from {}",
        line(&request.target_ref),
        line(request.base.get(..12).unwrap_or_default())
    );
    let _ = writeln!(text, "  digest {}", line(&request.subject_digest));
    if request.state == "PENDING" {
        let left = request.expires_at_ms - now.as_millis();
        let so_far = format!("{} of {} approvals", request.approvers_so_far, request.approvers_needed);
        let _ = writeln!(text, "  {so_far}; counts as rejected in {}", span(left));
    } else if !request.decided_by.is_empty() {
        let _ = writeln!(text, "  by {}: {}", line(&request.decided_by), line(&request.notes));
    }
    for vote in &found.votes {
        let word = if vote.approve { "approves" } else { "rejects" };
        let _ = writeln!(text, "  {} {word}: {}", line(&vote.principal), line(&vote.notes));
    }
    if with_diff {
        let _ = write!(text, "\n{}", diff(found, color));
    }
    text
}

/// A text of many lines on one.
fn one_line(text: &str) -> String {
    line(&text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / "))
}

fn facts(text: &mut String, verdict: &Verdict, color: bool) {
    let facts = &verdict.facts;
    let _ = writeln!(text, "  {} file(s), +{} -{}:", facts.files, facts.added, facts.removed);
    for entry in facts.entries.iter().take(20) {
        let _ = writeln!(
            text,
            "    {:<6} {}  +{} -{}",
            op_word(entry.op),
            line(entry.path.shown()),
            entry.added,
            entry.removed
        );
    }
    if facts.entries.len() > 20 {
        let _ = writeln!(text, "    and {} more", facts.entries.len() - 20);
    }
    for reason in &verdict.reasons {
        let code = paint(color, Tone::Warn, reason.code.as_str());
        let rule = reason.rule.as_deref().map(|rule| format!(" [{}]", line(rule))).unwrap_or_default();
        let _ = writeln!(text, "  {code}: {}{rule}", sentence(reason.code));
    }
}

const fn op_word(op: Op) -> &'static str {
    match op {
        Op::Add => "add",
        Op::Modify => "modify",
        Op::Delete => "delete",
        Op::Type => "type",
        Op::Mode => "mode",
    }
}

/// The change as a diff, cut where it is too long for a terminal.
fn diff(found: &RequestDetail, color: bool) -> String {
    let whole = colored_diff(&found.diff, color);
    let mut lines = whole.lines();
    let mut shown: String = lines.by_ref().take(DIFF_LINES).flat_map(|line| [line, "\n"]).collect();
    let rest = lines.count();
    if rest > 0 || found.diff_truncated {
        let run = found.request.as_ref().map(|request| line(&request.run_id)).unwrap_or_default();
        let phase = found.request.as_ref().map(|request| line(&request.phase_id)).unwrap_or_default();
        let _ = writeln!(shown, "... more: autopack runs diff {run} --phase {phase}");
    }
    shown
}

/// A diff with its lines coloured; its bytes are escaped.
pub(crate) fn colored_diff(diff: &[u8], color: bool) -> String {
    if !color {
        return block_bytes(diff);
    }
    let mut shown = String::with_capacity(diff.len());
    for one in block_bytes(diff).lines() {
        let tone = match one.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => Some(Tone::Strong),
            [b'+', ..] => Some(Tone::Good),
            [b'-', ..] => Some(Tone::Bad),
            [b'@', ..] => Some(Tone::Faint),
            _ => one.starts_with("diff ").then_some(Tone::Strong),
        };
        shown.push_str(&tone.map_or_else(|| block(one), |tone| paint(true, tone, one)));
        shown.push('\n');
    }
    shown
}

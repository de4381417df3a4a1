//! Answers of the engine in words and in JSON. Everything a repository, a builder or another person wrote is escaped.

use std::fmt::Write as _;

use serde_json::{Value, json};

use autopack_shared::domain::gate::Report;
use autopack_shared::domain::ids::Timestamp;
use autopack_shared::wire::pb::{AuditEntry, Blocker, Event, Held, Lease, Phase, Request, Run, SavePoint};

mod attempts;

pub(crate) use attempts::Interdiff;

use attempts::{attempt_json, attempts_text, budget_json, budgets_text, feedback_json};

use crate::terminal::{Tone, line, paint, tone_of};

/// Tests of a gate's report that people are shown of each kind.
const SHOWN: usize = 10;

/// An instant of the wire; none where it is not set.
fn at(millis: i64) -> Option<Timestamp> {
    (millis > 0).then(|| Timestamp::from_millis(millis))
}

/// Text of the wire; none where it is empty.
fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// The time of day of an instant, in UTC.
pub(crate) fn clock(millis: i64) -> String {
    let text = Timestamp::from_millis(millis).to_string();
    text.get(11..19).unwrap_or_default().to_owned()
}

/// An instant in UTC, to the second.
pub(crate) fn moment(millis: i64) -> String {
    let text = Timestamp::from_millis(millis).to_string();
    format!("{}Z", text.get(..19).unwrap_or(&text))
}

/// How long something takes or has taken, in the largest unit that says enough.
pub(crate) fn span(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5999 => format!("{}m", seconds / 60),
        6000..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A branch without the prefix that every branch has.
pub(crate) fn short_branch(name: &str) -> &str {
    name.strip_prefix("refs/heads/").unwrap_or(name)
}

/// A run with its phases.
pub(crate) fn run_json(run: &Run) -> Value {
    json!({
        "run_id": run.id, "project": run.project, "kind": run.kind, "state": run.state,
        "fork_commit": run.fork_commit, "target_ref": some(&run.target_ref), "branch": run.branch, "tip": some(&run.tip),
        "author": run.author, "insecure": run.tainted, "reason": some(&run.reason),
        "created_at": at(run.created_at_ms), "updated_at": at(run.updated_at_ms),
        "policy_digest": some(&run.policy_digest), "anchor_digest": some(&run.anchor_digest),
        "plan_digest": some(&run.plan_digest),
        "phases": run.phases.iter().map(phase_json).collect::<Vec<_>>(),
        "budgets": run.budgets.iter().map(budget_json).collect::<Vec<_>>(), "budget_hit": some(&run.budget_hit),
        "rests_until": at(run.rests_until_ms), "rests": some(&run.rests),
    })
}

fn phase_json(phase: &Phase) -> Value {
    json!({
        "phase_id": phase.id, "ordinal": phase.ordinal, "state": phase.state, "goal": phase.goal, "builder": phase.builder,
        "attempt": phase.attempt, "base": some(&phase.base), "tree": some(&phase.tree),
        "request_id": some(&phase.request_id), "verdict": some(&phase.verdict),
        "tier": (phase.tier > 0).then_some(phase.tier), "reason": some(&phase.reason), "feedback": phase.feedback,
        "commit": some(&phase.commit), "scope": phase.scope, "told": feedback_json(phase),
        "transcript": some(&phase.transcript), "gate": gate_json(phase),
        "attempts": phase.attempts.iter().map(attempt_json).collect::<Vec<_>>(),
    })
}

/// What a phase's newest gate came to; none before there was one.
fn gate_json(phase: &Phase) -> Value {
    serde_json::from_str(&phase.gate_json).unwrap_or(Value::Null)
}

/// What a gate came to, for people: each command, and what it holds against the change.
/// `of` is the command that prints a transcript of it, up to the name of the gate.
fn gate_text(gate_json: &str, of: &str, color: bool) -> String {
    let Ok(report) = serde_json::from_str::<Report>(gate_json) else { return String::new() };
    let mut text = String::new();
    for command in &report.commands {
        let tone = if command.green { Tone::Good } else { Tone::Bad };
        let _ = writeln!(text, "      gate {}", paint(color, tone, &line(&command.line())));
        let told = command.new.iter().filter(|finding| !finding.test.is_empty());
        for finding in told.take(SHOWN) {
            let _ = writeln!(text, "        {}: {}", line(&finding.test), line(first_line(&finding.message)));
        }
        if command.transcript.is_some() && !command.green {
            let _ = writeln!(text, "        printed: {of} --gate {:?}", line(&command.name));
        }
        for (what, names) in [("flaky", &command.flaky), ("did not run", &command.vanished)] {
            for name in names.iter().take(SHOWN) {
                let name = if name.is_empty() { &command.name } else { name };
                let _ = writeln!(text, "        {what}: {}", line(name));
            }
        }
    }
    text
}

/// A run with its phases, for people.
pub(crate) fn run_text(run: &Run, color: bool) -> String {
    run_with(run, &[], color)
}

/// A run with its phases and what changed between their attempts, for people.
pub(crate) fn run_with(run: &Run, diffs: &[Interdiff], color: bool) -> String {
    let mut text = String::new();
    let state = paint(color, tone_of(&run.state), &run.state);
    let _ = writeln!(text, "{}  {state}{}", line(&run.id), reason(&run.reason));
    let fork = run.fork_commit.get(..12).unwrap_or(&run.fork_commit);
    let onto = some(&run.target_ref).map(|name| format!(", lands on {}", line(short_branch(name)))).unwrap_or_default();
    let _ = writeln!(text, "  branch {}, from {fork}{onto}", line(short_branch(&run.branch)));
    if run.tainted {
        let _ =
            writeln!(text, "  {}", paint(color, Tone::Warn, "built without a sandbox: every change is asked about"));
    }
    if run.rests_until_ms > 0 {
        let _ = writeln!(text, "  waits until {}: {}", moment(run.rests_until_ms), line(&run.rests));
    }
    text.push_str(&budgets_text(&run.budgets));
    for phase in &run.phases {
        text.push_str(&phase_text((&run.id, phase), diffs, color));
    }
    text
}

fn phase_text((run, phase): (&str, &Phase), diffs: &[Interdiff], color: bool) -> String {
    let mut text = String::new();
    let state = paint(color, tone_of(&phase.state), &format!("{:<17}", phase.state));
    let verdict = some(&phase.verdict).map(|word| format!("  [{word}]")).unwrap_or_default();
    let _ = writeln!(text, "  {state} {}  {}{verdict}", line(&phase.id), line(first_line(&phase.goal)));
    if !phase.reason.is_empty() {
        let _ = writeln!(text, "      {}", line(&phase.reason));
    }
    if !phase.transcript.is_empty() {
        let _ = writeln!(text, "      printed {}", line(&phase.transcript));
    }
    // With several attempts, each gate stands with its own.
    if phase.attempts.len() < 2 {
        let of = format!("autopack runs transcript {} {}", line(run), line(&phase.id));
        text.push_str(&gate_text(&phase.gate_json, &of, color));
    }
    if !phase.request_id.is_empty() && matches!(phase.state.as_str(), "APPROVAL_PENDING" | "BLOCKED") {
        let _ = writeln!(text, "      autopack approvals show {}", line(&phase.request_id));
    }
    text.push_str(&attempts_text((run, phase), diffs, color));
    text
}

fn reason(reason: &str) -> String {
    some(reason).map(|why| format!(": {}", line(why))).unwrap_or_default()
}

/// The first line of a text of many.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// An event as a document of a stream.
pub(crate) fn event_json(event: &Event) -> Value {
    json!({
        "format": "event/1", "run_id": event.run_id, "seq": event.seq, "phase_id": some(&event.phase_id),
        "kind": event.kind, "text": event.text, "at": at(event.at_ms),
        "data": serde_json::from_str::<Value>(&event.data_json).unwrap_or(Value::Null),
    })
}

/// The kind of an event that carries lines of a builder.
const OUTPUT: &str = "worker.builder.output";

/// An event as a line, or as the lines that it carries.
pub(crate) fn event_text(event: &Event, color: bool) -> String {
    let state = event.kind.rsplit('.').next().unwrap_or_default();
    let at = paint(color, Tone::Faint, &clock(event.at_ms));
    if event.kind == OUTPUT {
        // Lines of a builder, many at a time.
        let lines = event.text.trim_end_matches('\n').split('\n');
        return lines.map(|text| format!("{at}  {}", line(text))).collect::<Vec<_>>().join("\n");
    }
    let text = line(event.text.trim_end());
    let shown = match event.kind.split('.').next() {
        Some("run" | "phase" | "request" | "apply") => match tone_of(state) {
            Tone::Strong => text,
            tone @ (Tone::Good | Tone::Warn | Tone::Bad | Tone::Faint) => paint(color, tone, &text),
        },
        Some(_) | None => text,
    };
    format!("{at}  {shown}")
}

/// A request.
pub(crate) fn request_json(request: &Request) -> Value {
    json!({
        "request_id": request.id, "run_id": request.run_id, "phase_id": request.phase_id, "attempt": request.attempt,
        "tier": request.tier, "status": request.state, "subject_digest": request.subject_digest, "base": request.base,
        "tree": request.tree, "target_ref": request.target_ref, "violated_paths": request.violated_paths,
        "justification": request.justification, "risk_level": request.risk_level, "risk_score": request.risk_score,
        "risk_factors": request.risk_factors, "author": request.author, "approvers_needed": request.approvers_needed,
        "approvers_so_far": request.approvers_so_far, "created_at": at(request.created_at_ms),
        "expires_at": at(request.expires_at_ms), "decided_by": some(&request.decided_by),
        "decided_at": at(request.decided_at_ms), "notes": some(&request.notes), "reason_code": some(&request.reason_code),
        "carried_from": some(&request.carried_from),
    })
}

/// A lease.
pub(crate) fn lease_json(lease: &Lease) -> Value {
    json!({
        "lease_id": lease.id, "run_id": lease.run_id, "phase_id": lease.phase_id, "purpose": lease.purpose,
        "worker_id": lease.worker_id, "epoch": lease.epoch, "state": lease.state, "granted_at": at(lease.granted_at_ms),
        "ended_at": at(lease.ended_at_ms), "reason": some(&lease.reason), "age_ms": lease.age_ms, "ttl_ms": ms(lease.ttl_ms),
        "remaining_ms": Some(lease.remaining_ms).filter(|_| lease.ttl_ms > 0), "locked_by": some(&lease.locked_by),
        "suspect": lease.suspect,
    })
}

/// A time of the wire; none where it does not run out.
fn ms(millis: u64) -> Option<u64> {
    (millis > 0).then_some(millis)
}

/// Something that liveness says is held.
pub(crate) fn held_json(held: &Held) -> Value {
    json!({
        "kind": held.kind, "name": held.name, "holder": held.holder, "epoch": ms(held.epoch), "age_ms": held.age_ms,
        "ttl_ms": ms(held.ttl_ms), "remaining_ms": Some(held.remaining_ms).filter(|_| held.ttl_ms > 0),
        "suspect": held.suspect,
    })
}

/// What is left of a time to live, with all of it; a dash where nothing runs out.
pub(crate) fn left(remaining: u64, ttl: u64) -> String {
    if ttl == 0 { "-".to_owned() } else { format!("{} of {} s", remaining / 1000, ttl / 1000) }
}

/// A save point.
pub(crate) fn save_point_json(point: &SavePoint) -> Value {
    json!({
        "run_id": point.run_id, "phase_id": point.phase_id, "attempt": point.attempt, "ref": point.r#ref,
        "commit": point.commit,
    })
}

/// What holds a run up.
pub(crate) fn blocker_json(blocker: &Blocker) -> Value {
    json!({
        "phase_id": some(&blocker.phase_id), "kind": blocker.kind, "what": blocker.what, "since": at(blocker.since_ms),
        "remedy": some(&blocker.remedy),
    })
}

/// An audit record as it is exported: the hashed body is kept as text, byte for byte.
pub(crate) fn audit_json(entry: &AuditEntry) -> Value {
    json!({
        "format": "audit/1", "chain": entry.chain, "seq": entry.seq, "leaf_index": entry.leaf_index, "body": entry.body,
        "prev_hash": entry.prev_hash, "hash": entry.hash, "at": at(entry.at_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_take_the_largest_unit_that_says_enough() {
        let of = |seconds: i64| span(seconds * 1000);
        assert_eq!([of(5), of(99), of(3599), of(7200), of(200_000), of(-1)], ["5s", "99s", "59m", "2h", "2d", "0s"]);
    }

    #[test]
    fn hostile_text_of_a_builder_stays_on_its_line() {
        let event =
            Event { kind: "builder.output".to_owned(), text: "ok\n\u{1b}]0;x\u{7}\r".to_owned(), ..Event::default() };
        assert_eq!(event_text(&event, false), "00:00:00  ok\\x0a\\x1b]0;x\\x07");
        let phase = Phase { goal: "a\u{1b}[2J\nb".to_owned(), id: "p1".to_owned(), ..Phase::default() };
        let run = Run { id: "r".to_owned(), phases: vec![phase], ..Run::default() };
        assert!(!run_text(&run, false).contains('\u{1b}'));
    }

    #[test]
    fn absent_values_are_null_and_not_empty_words() {
        let run = run_json(&Run { id: "r".to_owned(), ..Run::default() });
        let entry = audit_json(&AuditEntry { leaf_index: None, ..AuditEntry::default() });
        assert!(entry["leaf_index"].is_null(), "it has no position yet: {entry}");
        let first = audit_json(&AuditEntry { leaf_index: Some(0), ..AuditEntry::default() });
        assert_eq!(first["leaf_index"], 0);
        assert!(run["tip"].is_null() && run["created_at"].is_null() && run["target_ref"].is_null());
    }
}

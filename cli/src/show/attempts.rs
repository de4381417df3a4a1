//! Attempts, what each was told, and budgets, in words and in JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use autopack_shared::wire::pb::{Attempt, Budget, Phase, Usage};

use super::{at, first_line, gate_text, some};
use crate::terminal::{Tone, line, paint, tone_of};

/// Amounts of money are kept in millionths.
const MICROS: f64 = 1e6;

/// Lines of a diff that are shown between two attempts.
const DIFF_LINES: usize = 30;

/// An attempt.
pub(super) fn attempt_json(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number, "state": attempt.state, "base": attempt.base, "tree": some(&attempt.tree),
        "reason": some(&attempt.reason), "started_at": at(attempt.started_at_ms), "ended_at": at(attempt.ended_at_ms),
        "usage": attempt.usage.as_ref().map(usage_json), "transcript": some(&attempt.transcript),
        "gate": serde_json::from_str(&attempt.gate_json).unwrap_or(Value::Null),
    })
}

fn usage_json(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, "cost_micros": usage.cost_micros,
        "calls": usage.calls,
    })
}

/// What the attempts of a phase were told, as records.
pub(super) fn feedback_json(phase: &Phase) -> Value {
    serde_json::from_str(&phase.feedback_json).unwrap_or(Value::Null)
}

/// A budget.
pub(super) fn budget_json(budget: &Budget) -> Value {
    json!({
        "scope": budget.scope, "unit": budget.unit, "limit": budget.limit, "used": budget.used,
        "reserved": budget.reserved, "resets_at": at(budget.resets_at_ms),
    })
}

/// What changed from what one attempt left to what the next one did.
#[derive(Debug, Clone)]
pub(crate) struct Interdiff {
    /// The phase.
    pub(crate) phase: String,
    /// The earlier attempt.
    pub(crate) from: u32,
    /// The later one.
    pub(crate) to: u32,
    /// A unified diff.
    pub(crate) text: String,
    /// Whether it is all of it.
    pub(crate) whole: bool,
}

impl Interdiff {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "phase_id": self.phase, "from": self.from, "to": self.to, "diff": self.text, "truncated": !self.whole,
        })
    }

    /// For people: its first lines, below the attempt that it leads to.
    fn text(&self, run: &str, color: bool) -> String {
        let mut text = format!("        changed since attempt {}:\n", self.from);
        let rows: Vec<&str> = self.text.lines().filter(|row| !row.starts_with("index ")).collect();
        for row in rows.iter().take(DIFF_LINES) {
            let tone = match row.as_bytes().first() {
                Some(b'+') => Tone::Good,
                Some(b'-') => Tone::Bad,
                Some(_) | None => Tone::Faint,
            };
            let _ = writeln!(text, "          {}", paint(color, tone, &line(row)));
        }
        let (run, phase, from, to) = (line(run), line(&self.phase), self.from, self.to);
        if rows.len() > DIFF_LINES || !self.whole {
            let _ = writeln!(text, "          ... all of it: autopack runs diff {run} {phase} --attempts {from}..{to}");
        } else if rows.is_empty() {
            let _ = writeln!(text, "          nothing");
        }
        text
    }
}

/// The attempts of a phase that had more than one, each with its gate, what changed since the one before, and what the
/// next one was told of it.
pub(super) fn attempts_text((run, phase): (&str, &Phase), diffs: &[Interdiff], color: bool) -> String {
    let mut text = String::new();
    if phase.attempts.len() < 2 {
        return text;
    }
    let records = feedback_json(phase);
    let of = |at: usize| records[at]["attempt"].as_u64().and_then(|n| u32::try_from(n).ok());
    let mut told: Vec<(Option<u32>, &String)> =
        phase.feedback.iter().enumerate().map(|(at, words)| (of(at), words)).collect();
    for attempt in &phase.attempts {
        let why = some(&attempt.reason).map(|why| format!(": {}", line(first_line(why)))).unwrap_or_default();
        let state = paint(color, tone_of(&attempt.state), &attempt.state);
        let _ = writeln!(text, "      attempt {} {state}{why}", attempt.number);
        let number = attempt.number;
        let of = format!("autopack runs transcript {} {} --attempt {number}", line(run), line(&phase.id));
        for row in gate_text(&attempt.gate_json, &of, color).lines() {
            let _ = writeln!(text, "  {row}");
        }
        let mine = diffs.iter().filter(|diff| diff.phase == phase.id && diff.to == attempt.number);
        mine.for_each(|diff| text.push_str(&diff.text(run, color)));
        told.retain(|(of, words)| {
            let here = *of == Some(attempt.number);
            if here {
                text.push_str(&told_text(words));
            }
            !here
        });
    }
    // Of attempts that are not listed, and words that name none.
    told.iter().for_each(|(_, words)| text.push_str(&told_text(words)));
    let collected: Vec<u32> = phase.attempts.iter().filter(|a| !a.tree.is_empty()).map(|a| a.number).collect();
    if let ([.., before, last], true) = (collected.as_slice(), diffs.is_empty()) {
        let (run, phase) = (line(run), line(&phase.id));
        let _ = writeln!(text, "      autopack runs diff {run} {phase} --attempts {before}..{last} shows what changed");
    }
    text
}

/// What an attempt was told of an earlier one.
fn told_text(words: &str) -> String {
    let mut text = String::new();
    for (n, row) in words.lines().enumerate() {
        let _ = writeln!(text, "      {} {}", if n == 0 { "told:" } else { "     " }, line(row));
    }
    text
}

/// The budgets that a run falls in.
pub(super) fn budgets_text(budgets: &[Budget]) -> String {
    let mut text = String::new();
    for budget in budgets {
        let money = budget.unit == "cost_micros";
        let amount = |n: u64| if money { format!("{:.2}", n as f64 / MICROS) } else { n.to_string() };
        let unit = if money { "cost" } else { budget.unit.as_str() };
        let held = if budget.reserved > 0 { format!(", {} reserved", amount(budget.reserved)) } else { String::new() };
        let (scope, used, limit) = (line(&budget.scope), amount(budget.used), amount(budget.limit));
        let _ = writeln!(text, "  budget of the {scope}: {used} of {limit} {} used{held}", line(unit));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_told_in_order_and_hostile_words_stay_on_their_line() {
        let attempt = |number, state: &str, tree: &str| Attempt {
            number,
            state: state.to_owned(),
            tree: tree.to_owned(),
            reason: "gate_failed: x\u{1b}[2J".to_owned(),
            ..Attempt::default()
        };
        let mut phase = Phase { id: "p".to_owned(), attempts: vec![attempt(1, "FAILED", "aa")], ..Phase::default() };
        assert_eq!(attempts_text(("r", &phase), &[], false), "");
        phase.attempts.push(attempt(2, "COLLECTED", "bb"));
        phase.feedback = vec!["attempt 1: the quality gate failed\n- test_x\u{7}".to_owned()];
        let text = attempts_text(("r", &phase), &[], false);
        assert!(text.contains("told: attempt 1") && text.contains("diff r p --attempts 1..2"), "{text}");
        let diff = Interdiff {
            phase: "p".to_owned(),
            from: 1,
            to: 2,
            text: "--- a/x\n+++ b/x\n-one\u{1b}[2J\n+two\n".to_owned(),
            whole: true,
        };
        let text = attempts_text(("r", &phase), &[diff], false);
        let after = text.split("attempt 2 COLLECTED").nth(1).unwrap();
        assert!(after.contains("changed since attempt 1:") && after.contains("          +two"), "{text}");
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text:?}");
    }

    #[test]
    fn money_is_shown_in_its_currency() {
        let budget = |unit: &str| Budget {
            scope: "day".to_owned(),
            unit: unit.to_owned(),
            limit: 10_000_000,
            used: 2_500_000,
            reserved: 0,
            resets_at_ms: 0,
        };
        assert_eq!(budgets_text(&[budget("cost_micros")]), "  budget of the day: 2.50 of 10.00 cost used\n");
        assert_eq!(budgets_text(&[budget("tokens")]), "  budget of the day: 2500000 of 10000000 tokens used\n");
    }
}

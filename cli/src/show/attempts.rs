//! Attempts, what each was told, and budgets, in words and in JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use autopack_shared::wire::pb::{Attempt, Budget, Phase, Usage};

use super::{at, first_line, some};
use crate::terminal::line;

/// Amounts of money are kept in millionths.
const MICROS: f64 = 1e6;

/// An attempt.
pub(super) fn attempt_json(attempt: &Attempt) -> Value {
    json!({
        "number": attempt.number, "state": attempt.state, "base": attempt.base, "tree": some(&attempt.tree),
        "reason": some(&attempt.reason), "started_at": at(attempt.started_at_ms), "ended_at": at(attempt.ended_at_ms),
        "usage": attempt.usage.as_ref().map(usage_json),
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

/// The attempts of a phase that had more than one, and what the next was told each time.
pub(super) fn attempts_text(phase: &Phase) -> String {
    let mut text = String::new();
    if phase.attempts.len() < 2 {
        return text;
    }
    for attempt in &phase.attempts {
        let why = some(&attempt.reason).map(|why| format!(": {}", line(first_line(why)))).unwrap_or_default();
        let _ = writeln!(text, "      attempt {} {}{why}", attempt.number, attempt.state);
    }
    for told in &phase.feedback {
        for (n, words) in told.lines().enumerate() {
            let _ = writeln!(text, "      {} {}", if n == 0 { "told:" } else { "     " }, line(words));
        }
    }
    let collected: Vec<u32> = phase.attempts.iter().filter(|a| !a.tree.is_empty()).map(|a| a.number).collect();
    if let [.., before, last] = collected.as_slice() {
        let _ =
            writeln!(text, "      runs diff RUN {} --attempts {before}..{last} shows what changed", line(&phase.id));
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
        assert_eq!(attempts_text(&phase), "");
        phase.attempts.push(attempt(2, "COLLECTED", "bb"));
        phase.feedback = vec!["attempt 1: the quality gate failed\n- test_x\u{7}".to_owned()];
        let text = attempts_text(&phase);
        assert!(text.contains("told: attempt 1") && text.contains("--attempts 1..2"), "{text}");
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

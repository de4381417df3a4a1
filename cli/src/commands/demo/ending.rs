//! What the demo's runs came to, as they say themselves.

use serde_json::Value;

use crate::show::first_line;
use crate::terminal::line;

/// One line a phase of a `run/1` document: its tier, what it was about, what became of it.
pub(super) fn lines(run: &Value) -> Vec<String> {
    let phases = run["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
    phases.iter().map(|phase| told(&text(run, "run_id"), phase)).collect()
}

fn text(value: &Value, key: &str) -> String {
    line(value[key].as_str().unwrap_or_default())
}

fn told(run: &str, phase: &Value) -> String {
    let tier = phase["tier"].as_u64().map_or_else(|| "        ".to_owned(), |tier| format!("tier {tier}  "));
    let (verdict, state, reason) = (text(phase, "verdict"), text(phase, "state"), text(phase, "reason"));
    let became = match (state.as_str(), verdict.as_str()) {
        ("APPLIED", "AUTO_APPROVED") => "applied by itself".to_owned(),
        ("APPLIED", "NOTIFY_AND_PROCEED") => "applied, and you were told".to_owned(),
        ("APPLIED", "APPROVAL_REQUIRED") => "waited for your decision, and was applied".to_owned(),
        ("APPROVAL_PENDING", _) => "waits for your decision, and holds nothing while it does".to_owned(),
        ("ROLLED_BACK", _) => format!("applied, then rolled back by a new commit ({reason})"),
        _ => format!("{} ({reason})", state.to_lowercase().replace('_', " ")),
    };
    let goal = line(first_line(phase["goal"].as_str().unwrap_or_default()));
    format!("{tier}{run}/{}, {goal}: {became} [{verdict}, {state}]", text(phase, "phase_id"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lines_say_what_happened_and_not_what_was_meant_to() {
        let phase = |verdict: &str, state: &str| json!({ "phase_id": "p", "goal": "a note\nmore", "tier": 1, "verdict": verdict, "state": state, "reason": "why" });
        let run = json!({ "run_id": "r", "phases": [
            phase("AUTO_APPROVED", "APPLIED"), phase("AUTO_APPROVED", "ROLLED_BACK"), phase("BLOCKED", "BLOCKED"),
            { "phase_id": "q", "goal": "x", "state": "FAILED", "reason": "it broke" },
        ] });
        insta::assert_snapshot!(lines(&run).join("\n"), @r"
        tier 1  r/p, a note: applied by itself [AUTO_APPROVED, APPLIED]
        tier 1  r/p, a note: applied, then rolled back by a new commit (why) [AUTO_APPROVED, ROLLED_BACK]
        tier 1  r/p, a note: blocked (why) [BLOCKED, BLOCKED]
                r/q, x: failed (it broke) [, FAILED]
        ");
    }
}

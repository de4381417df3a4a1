//! What an attempt is told of those before it: why each came to nothing, in a record with a kind, bounded and redacted
//! when it is made. Builders get it as text, in order.

use serde::{Deserialize, Serialize};

use super::secret::redact;

pub mod hint;

/// Characters of a text that are kept.
const MAX_TEXT: usize = 4000;
/// Items that are kept, and characters of each: a name and the first lines of what it said.
const MAX_ITEMS: usize = 50;
const MAX_ITEM: usize = 800;
/// Records that a phase keeps: the newest.
pub const MAX_RECORDS: usize = 30;

/// Whose word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedbackKind {
    /// The quality gate's report.
    GateReport,
    /// A reviewer's reason and comments.
    Review,
    /// Reasons of the policy, or of a bound of the run.
    Policy,
    /// What became of the builder.
    Builder,
    /// Deliverables that are not where they should be.
    PathHint,
    /// The branch moved on and the change does not fit any more.
    Conflict,
    /// An operator's words with a retry.
    Operator,
}

impl FeedbackKind {
    /// How it is called to a builder.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::GateReport => "the quality gate failed",
            Self::Review => "a reviewer rejected it",
            Self::Policy => "the policy refused it",
            Self::Builder => "the builder failed",
            Self::PathHint => "deliverables are missing",
            Self::Conflict => "it conflicts with what was applied meanwhile",
            Self::Operator => "an operator says",
        }
    }
}

/// One thing that an attempt is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Whose word it is.
    pub kind: FeedbackKind,
    /// The attempt it is about.
    pub attempt: u32,
    /// A stable code: `gate_failed`, `wrong_approach`, ...
    pub code: String,
    /// For the builder.
    pub text: String,
    /// A short text each: a failed test, a refused path, a hint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<String>,
}

impl Told {
    /// A record, cut to its bounds, with secrets taken out.
    #[must_use]
    pub fn new(kind: FeedbackKind, attempt: u32, code: &str, text: &str, items: Vec<String>) -> Self {
        let more = items.len().saturating_sub(MAX_ITEMS);
        let mut items: Vec<String> = items.iter().take(MAX_ITEMS).map(|item| cut(item, MAX_ITEM)).collect();
        if more > 0 {
            items.push(format!("... and {more} more"));
        }
        Self { kind, attempt, code: cut(code, 100), text: cut(text, MAX_TEXT), items }
    }
}

/// A redacted text of at most so many characters, which says where it was cut.
fn cut(text: &str, most: usize) -> String {
    let text = redact(text.trim());
    if text.chars().count() <= most {
        return text;
    }
    let kept: String = text.chars().take(most).collect();
    format!("{kept} [cut]")
}

/// What a phase keeps of it: a record, or the bare words of before there were records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Feedback {
    /// A record.
    Told(Told),
    /// Words.
    Words(String),
}

impl From<Told> for Feedback {
    fn from(told: Told) -> Self {
        Self::Told(told)
    }
}

impl Feedback {
    /// As a builder gets it.
    #[must_use]
    pub fn render(&self) -> String {
        let told = match self {
            Self::Words(words) => return words.clone(),
            Self::Told(told) => told,
        };
        let code = if told.code.is_empty() { String::new() } else { format!(" ({})", told.code) };
        let mut text = format!("attempt {}: {}{code}", told.attempt, told.kind.words());
        if !told.text.is_empty() {
            text.push_str(": ");
            text.push_str(&told.text);
        }
        for item in &told.items {
            text.push_str("\n- ");
            text.push_str(item);
        }
        text
    }
}

/// Adds a record to what a phase keeps; the oldest goes where there are too many.
pub fn add(all: &mut Vec<Feedback>, told: Told) {
    all.push(told.into());
    let surplus = all.len().saturating_sub(MAX_RECORDS);
    all.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_hides_secrets() {
        let key = ["AK", "IA", "454ML6LG4TJFCZ4K"].concat();
        let items = (0..60).map(|n| format!("{n} {key} {}", "y".repeat(900))).collect();
        let told = Told::new(FeedbackKind::GateReport, 2, "gate_failed", &format!("{key}{}", " x".repeat(9000)), items);
        assert!(told.text.chars().count() <= MAX_TEXT + 6 && told.text.ends_with("[cut]"));
        assert_eq!(told.items.len(), MAX_ITEMS + 1);
        assert!(told.items[0].chars().count() <= MAX_ITEM + 6 && told.items[MAX_ITEMS].contains("10 more"));
        assert!(!Feedback::from(told).render().contains(&key));
        let mut all = Vec::new();
        (0..40).for_each(|n| add(&mut all, Told::new(FeedbackKind::Builder, n, "", "", Vec::new())));
        assert_eq!(all.len(), MAX_RECORDS);
        assert_eq!(all[0].render(), "attempt 10: the builder failed");
    }

    #[test]
    fn words_of_before_stay_as_they_are() {
        let old = r#"["again",{"kind":"review","attempt":1,"code":"style","text":"say it nicely"}]"#;
        let all: Vec<Feedback> = serde_json::from_str(old).unwrap();
        assert_eq!(serde_json::to_string(&all).unwrap(), old, "the digest of a stored row does not change");
        let lines: Vec<String> = all.iter().map(Feedback::render).collect();
        assert_eq!(lines, ["again", "attempt 1: a reviewer rejected it (style): say it nicely"]);
    }
}

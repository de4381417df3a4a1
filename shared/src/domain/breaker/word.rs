//! What the end of an attempt says of its builder's surroundings.

use super::is_of_surroundings;

/// Reasons of failures that came before the builder was asked anything.
const UNASKED: &[&str] = &["secret_refused", "include", "unsupported", "key_missing"];
/// How other such reasons begin.
const UNASKED_KINDS: &[&str] = &["fetch_", "sandbox_"];
/// Reasons that say nothing of whether it was asked.
const SILENT: &[&str] = &["cancelled", "disk_full", "budget_exhausted"];

/// One of four things that are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It came to an answer, good or bad: its surroundings are well.
    Answer,
    /// They failed.
    Trouble,
    /// Its provider told it to wait.
    Limited,
    /// Nothing: it was not asked, or what ended it was not of its surroundings.
    Nothing,
}

/// What the end of an attempt says, by the reason of its failure, none for a success, and whether its models answered
/// anything before.
#[must_use]
pub fn word_of(reason: Option<&str>, answered: bool) -> Word {
    let Some(reason) = reason else { return Word::Answer };
    if reason == "provider_rate_limited" {
        return Word::Limited;
    }
    if is_of_surroundings(reason) {
        return Word::Trouble;
    }
    let silent = was_not_asked(reason) || SILENT.contains(&reason);
    if silent && !answered { Word::Nothing } else { Word::Answer }
}

/// Whether a failure came before its builder was asked anything, by its reason alone.
#[must_use]
pub fn was_not_asked(reason: &str) -> bool {
    UNASKED.contains(&reason) || UNASKED_KINDS.iter().any(|kind| reason.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_says_that_all_is_well() {
        for (reason, answered, expected) in [
            (None, false, Word::Answer),
            (Some("malformed_patch"), false, Word::Answer),
            (Some("builder_failed"), false, Word::Answer),
            (Some("provider_refused"), false, Word::Answer),
            (Some("timeout"), true, Word::Trouble),
            (Some("workspace"), false, Word::Trouble),
            (Some("provider_unavailable"), true, Word::Trouble),
            (Some("provider_rate_limited"), false, Word::Limited),
            (Some("fetch_cut"), false, Word::Nothing),
            (Some("sandbox_too_weak"), false, Word::Nothing),
            (Some("secret_refused"), false, Word::Nothing),
            (Some("budget_exhausted"), false, Word::Nothing),
            (Some("budget_exhausted"), true, Word::Answer),
        ] {
            assert_eq!(word_of(reason, answered), expected, "{reason:?} {answered}");
        }
    }
}

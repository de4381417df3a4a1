//! The score of a change from 0 to 100, its bands, and the risk of a category. Facts of size and path dominate; words
//! can only add.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::PathClass;

/// The band of a score, as shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Severity {
    /// 0 to 29.
    Low,
    /// 30 to 49.
    Medium,
    /// 50 to 79.
    High,
    /// 80 to 100.
    Critical,
}

/// A word that is no severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no risk level; use LOW, MEDIUM, HIGH or CRITICAL")]
pub struct InvalidSeverity(pub String);

impl Severity {
    /// The band of a score.
    #[must_use]
    pub const fn of_score(score: u8) -> Self {
        match score {
            0..=29 => Self::Low,
            30..=49 => Self::Medium,
            50..=79 => Self::High,
            80.. => Self::Critical,
        }
    }

    /// The word as JSON shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High => "HIGH",
            Self::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Severity {
    type Err = InvalidSeverity;
    fn from_str(value: &str) -> Result<Self, InvalidSeverity> {
        [Self::Low, Self::Medium, Self::High, Self::Critical]
            .into_iter()
            .find(|severity| severity.as_str().eq_ignore_ascii_case(value.trim()))
            .ok_or_else(|| InvalidSeverity(value.chars().take(80).collect()))
    }
}

/// How risky the subject of a phase is, by its category and the words of its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CategoryRisk {
    /// Neither list names it.
    None,
    /// Interfaces, structure, infrastructure, configuration.
    Medium,
    /// Data, access and security.
    High,
}

const HIGH: &[&[&str]] =
    &[&["database", "migration"], &["schema", "change"], &["security"], &["authentication"], &["authorization"]];
const MEDIUM: &[&[&str]] = &[&["api", "change"], &["refactor"], &["infrastructure"], &["configuration"]];

impl CategoryRisk {
    /// The risk of a category or of what a description speaks about, whichever is higher.
    #[must_use]
    pub fn of(category: &str, description: &str) -> Self {
        Self::of_text(category).max(Self::of_text(description))
    }

    fn of_text(text: &str) -> Self {
        let lower = text.to_lowercase();
        let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let speaks_of = |phrases: &[&[&str]]| phrases.iter().any(|phrase| contains_phrase(&words, phrase));
        if speaks_of(HIGH) {
            Self::High
        } else if speaks_of(MEDIUM) {
            Self::Medium
        } else {
            Self::None
        }
    }
}

/// The words one after the other; each may carry an ending (`refactoring`, `schema changes`).
fn contains_phrase(words: &[&str], phrase: &[&str]) -> bool {
    words.windows(phrase.len()).any(|window| window.iter().zip(phrase).all(|(word, stem)| word.starts_with(stem)))
}

/// What the score is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoreInput {
    /// Added plus removed lines.
    pub size: u64,
    /// Removed lines.
    pub removed: u64,
    /// Distinct paths.
    pub files: u64,
    /// Distinct parent directories.
    pub dirs: u64,
    /// The most severe class of a path.
    pub class: PathClass,
    /// Whether there is a binary file, a symlink or a change of mode.
    pub odd_entry: bool,
    /// The risk of the category.
    pub category: CategoryRisk,
}

/// The score, 0 to 100.
#[must_use]
pub fn score(input: &ScoreInput) -> u8 {
    let size = match input.size {
        0..=100 => 0,
        101..=200 => 30,
        201.. => 50,
    };
    let removed = match input.removed {
        0..=50 => 0,
        51..=200 => 50,
        201.. => 80,
    };
    let class = match input.class {
        PathClass::Allowed => 0,
        PathClass::Unlisted | PathClass::Protected => 60,
        PathClass::Never | PathClass::Forbidden => 85,
    };
    let odd = if input.odd_entry { 50 } else { 0 };
    let category = match input.category {
        CategoryRisk::None => 0,
        CategoryRisk::Medium => 15,
        CategoryRisk::High => 50,
    };
    let base = [size, removed, class, odd, category].into_iter().max().unwrap_or(0);
    let files = input.files.saturating_sub(5).min(10);
    let dirs = input.dirs.saturating_sub(1).min(5);
    let medium = if input.category == CategoryRisk::Medium && base > 15 { 5 } else { 0 };
    u8::try_from(base + files + dirs + medium).unwrap_or(100).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_whole_and_with_endings() {
        for (category, description, risk) in [
            ("database_migration", "", CategoryRisk::High),
            ("Database-Migration", "", CategoryRisk::High),
            ("feature", "rework the authentication flow", CategoryRisk::High),
            ("feature", "two schema changes", CategoryRisk::High),
            ("feature", "refactoring, small", CategoryRisk::Medium),
            ("api_change", "security", CategoryRisk::High),
            ("feature", "insecurity of the author", CategoryRisk::None),
            ("database", "migration", CategoryRisk::None),
        ] {
            assert_eq!(CategoryRisk::of(category, description), risk, "{category} {description}");
        }
    }

    #[test]
    fn bands_follow_the_table() {
        for (score, severity) in [
            (0, "LOW"),
            (29, "LOW"),
            (30, "MEDIUM"),
            (49, "MEDIUM"),
            (50, "HIGH"),
            (79, "HIGH"),
            (80, "CRITICAL"),
            (100, "CRITICAL"),
        ] {
            assert_eq!(Severity::of_score(score).as_str(), severity);
        }
        assert_eq!("critical".parse(), Ok(Severity::Critical));
        assert!("worst".parse::<Severity>().is_err());
    }
}

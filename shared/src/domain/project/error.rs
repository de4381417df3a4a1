//! How a file that cannot be used is refused: with the place, and for an unknown key with the one that was meant.

/// Why a configuration file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is no TOML, or a value has the wrong type.
    #[error("{at}: {message}")]
    Syntax {
        /// `file:line`.
        at: String,
        /// What the reader says.
        message: String,
    },
    /// A key that is not known here.
    #[error("{at}: unknown key `{key}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    UnknownKey {
        /// `file:line`.
        at: String,
        /// The key.
        key: String,
        /// The known key that is closest to it.
        suggestion: Option<String>,
    },
    /// A value that breaks a rule.
    #[error("{at}: {why}")]
    Invalid {
        /// `file:line`.
        at: String,
        /// The rule.
        why: String,
    },
    /// A policy without a single rule.
    #[error("{origin}: the policy has no rule; list patterns, or write extends = \"autopack\"")]
    NoRules {
        /// The file.
        origin: String,
    },
}

/// A text and the name it goes by.
pub(in crate::domain) struct Source<'a> {
    pub(in crate::domain) text: &'a str,
    pub(in crate::domain) origin: &'a str,
}

impl Source<'_> {
    /// `file:line` of a byte offset.
    pub(in crate::domain) fn at(&self, offset: usize) -> String {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}", self.origin)
    }

    /// A broken rule at the first place that mentions a word.
    pub(in crate::domain) fn invalid(&self, word: &str, why: &str) -> ConfigError {
        ConfigError::Invalid { at: self.at(self.text.find(word).unwrap_or(0)), why: format!("{word}: {why}") }
    }

    /// What the TOML reader could not take.
    pub(in crate::domain) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let at = self.at(error.span().map_or(0, |span| span.start));
        let message = error.message();
        // serde words this the same way for every struct: unknown field `x`, expected one of `a`, `b`
        let mut quoted =
            message.strip_prefix("unknown field ").into_iter().flat_map(|rest| rest.split('`').skip(1).step_by(2));
        match quoted.next() {
            Some(key) => {
                let known: Vec<&str> = quoted.collect();
                ConfigError::UnknownKey { at, key: key.to_owned(), suggestion: suggest(key, &known).map(str::to_owned) }
            }
            None => ConfigError::Syntax { at, message: message.to_owned() },
        }
    }
}

/// The known word that a misspelt one most probably stands for.
#[must_use]
pub fn suggest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(word, candidate), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, drop, replace) between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

//! Secrets in added lines: cloud key ids, private keys, API keys, tokens of forges and package registries.
//!
//! The rules follow the formats their issuers publish, as the well-known scanners do: a fixed prefix or frame and a
//! length, so that prose and hashes do not match. What is found is never kept, only its kind, its line and a stub.

pub mod key;
mod rules;

use std::sync::LazyLock;

use regex::bytes::{Regex, RegexSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use rules::RULES;

/// A secret that was found. The secret itself is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretHit {
    /// What it is (`aws-access-key-id`).
    pub rule: String,
    /// The line of the new file, from 1.
    pub line: u32,
    /// A stub that is safe to show: the issuer's prefix and the length.
    pub redacted: String,
}

struct Scanner {
    prefilter: RegexSet,
    rules: Vec<(&'static str, Regex)>,
}

static SCANNER: LazyLock<Scanner> = LazyLock::new(|| {
    let why = "the rules are constant and compiled by a test";
    Scanner {
        prefilter: RegexSet::new(RULES.iter().map(|(_, pattern)| *pattern)).expect(why),
        rules: RULES.iter().map(|(name, pattern)| (*name, Regex::new(pattern).expect(why))).collect(),
    }
});

/// At most this many hits are reported for one file.
const MAX_HITS: usize = 50;

/// Finds secrets in a text whose first line has the given number.
#[must_use]
pub fn scan(text: &[u8], first_line: u32) -> Vec<SecretHit> {
    let mut hits = Vec::new();
    for index in &SCANNER.prefilter.matches(text) {
        let (name, regex) = &SCANNER.rules[index];
        for found in regex.captures_iter(text) {
            let secret = found.get(1).or_else(|| found.get(0));
            let Some(secret) = secret.filter(|secret| !is_sample(secret.as_bytes())) else {
                continue;
            };
            let before = &text[..secret.start()];
            let line = u32::try_from(before.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u32::MAX);
            hits.push(SecretHit {
                rule: (*name).to_owned(),
                line: first_line.saturating_add(line),
                redacted: stub(secret.as_bytes()),
            });
        }
    }
    hits.sort_by(|a, b| (a.line, &a.rule).cmp(&(b.line, &b.rule)));
    hits.truncate(MAX_HITS);
    hits
}

/// Replaces every secret in a text by its stub; of a private key the whole block goes, also where the text has only half.
#[must_use]
pub fn redact(text: &str) -> String {
    let text = key::without_keys(text);
    let mut bytes = text.as_bytes().to_vec();
    for index in &SCANNER.prefilter.matches(text.as_bytes()) {
        let (_, regex) = &SCANNER.rules[index];
        bytes = regex
            .replace_all(&bytes, |found: &regex::bytes::Captures<'_>| {
                let secret = found.get(1).or_else(|| found.get(0)).map_or(&[][..], |group| group.as_bytes());
                let whole = String::from_utf8_lossy(&found[0]).into_owned();
                whole.replace(&*String::from_utf8_lossy(secret), &stub(secret)).into_bytes()
            })
            .into_owned();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The keys that issuers print in their own documentation.
fn is_sample(secret: &[u8]) -> bool {
    secret.ends_with(b"EXAMPLE") || secret.ends_with(b"EXAMPLEKEY")
}

/// The first four characters and the length: enough to find it, not enough to use it.
fn stub(secret: &[u8]) -> String {
    let text = String::from_utf8_lossy(secret);
    if text.starts_with("-----BEGIN") {
        return key::MARK.to_owned();
    }
    let head: String = text.chars().take(4).collect();
    format!("{head}...[{} characters]", text.chars().count())
}

#[cfg(test)]
mod tests;

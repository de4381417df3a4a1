//! The `[policy]` section as it is written, and how it becomes a [`Policy`].

use serde::Deserialize;
use toml::Spanned;

use crate::domain::ids::Digest;
use crate::domain::path::PathSet;
use crate::domain::project::{ConfigError, Source};
use crate::domain::sandbox::{SandboxLevel, SandboxProfile};

use super::{ApprovalRules, BUILTIN_ORIGIN, Policy, Rule, RuleList, builtin};

/// Never negotiable: no policy of a project can do without these.
pub(super) const FLOOR: &[&str] = &[
    ".autonomous_runs/**",
    "autopack.toml",
    ".autopack/**",
    "intention_v2.json",
    "anchor_v2.json",
    ".gitmodules",
    ".gitattributes",
    ".gitconfig",
];

/// Where a project's lists start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Extends {
    /// From the built-in policy; the default.
    Autopack,
    /// From nothing but the floor.
    None,
}

/// `[policy]` as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::domain) struct PolicySection {
    extends: Option<Extends>,
    #[serde(default)]
    never: Vec<Spanned<String>>,
    #[serde(default)]
    protected: Vec<Spanned<String>>,
    #[serde(default)]
    allowed: Vec<Spanned<String>>,
    #[serde(default)]
    approval: ApprovalRules,
    min_sandbox: Option<SandboxLevel>,
    sandbox_profile: Option<SandboxProfile>,
}

#[derive(Debug, Default)]
struct Lists {
    never: Vec<Rule>,
    protected: Vec<Rule>,
    allowed: Vec<Rule>,
}

impl PolicySection {
    /// Merges the section with what it extends, and compiles it.
    pub(in crate::domain) fn build(self, source: &Source<'_>) -> Result<Policy, ConfigError> {
        let own = self.never.len() + self.protected.len() + self.allowed.len();
        if own == 0 && self.extends != Some(Extends::Autopack) {
            return Err(ConfigError::NoRules { origin: source.origin.to_owned() });
        }
        if !(60..=86_400).contains(&self.approval.timeout_seconds) {
            return Err(source.invalid("timeout_seconds", "it must be between 60 and 86400"));
        }
        if self.approval.tier4_approvers == Some(0) {
            return Err(source.invalid("tier4_approvers", "it must be at least 1"));
        }
        let mut lists = match self.extends.unwrap_or(Extends::Autopack) {
            Extends::Autopack => Lists {
                never: builtin().never.rules.clone(),
                protected: builtin().protected.rules.clone(),
                allowed: builtin().allowed.rules.clone(),
            },
            Extends::None => Lists::default(),
        };
        let relaxed = lists.merge(&self, source)?;
        lists.add_floor();
        Ok(Policy {
            digest: digest(&lists, &self.approval, self.min_sandbox, self.sandbox_profile),
            never: compile(lists.never, source)?,
            protected: compile(lists.protected, source)?,
            allowed: compile(lists.allowed, source)?,
            relaxed,
            approval: self.approval,
            min_sandbox: self.min_sandbox.unwrap_or_default(),
            sandbox_profile: self.sandbox_profile.unwrap_or_default(),
        })
    }
}

impl Lists {
    /// Adds a project's rules. A pattern that stands in another built-in list moves; down from the never list it
    /// cannot.
    fn merge(&mut self, own: &PolicySection, source: &Source<'_>) -> Result<Vec<Rule>, ConfigError> {
        let mut relaxed = Vec::new();
        for pattern in &own.never {
            self.protected.retain(|rule| rule.pattern != *pattern.get_ref());
            self.allowed.retain(|rule| rule.pattern != *pattern.get_ref());
            add(&mut self.never, pattern, source);
        }
        for pattern in &own.protected {
            self.refuse_never(pattern, source)?;
            self.allowed.retain(|rule| rule.pattern != *pattern.get_ref());
            add(&mut self.protected, pattern, source);
        }
        for pattern in &own.allowed {
            self.refuse_never(pattern, source)?;
            let before = self.protected.len();
            self.protected.retain(|rule| rule.pattern != *pattern.get_ref());
            add(&mut self.allowed, pattern, source);
            if self.protected.len() < before {
                relaxed.push(rule(pattern, source));
            }
        }
        Ok(relaxed)
    }

    fn refuse_never(&self, pattern: &Spanned<String>, source: &Source<'_>) -> Result<(), ConfigError> {
        if self.never.iter().any(|rule| rule.pattern == *pattern.get_ref())
            || FLOOR.contains(&pattern.get_ref().as_str())
        {
            let why = format!("{:?} is on the never list and cannot be taken off it", pattern.get_ref());
            return Err(ConfigError::Invalid { at: source.at(pattern.span().start), why });
        }
        Ok(())
    }

    fn add_floor(&mut self) {
        for pattern in FLOOR {
            if !self.never.iter().any(|rule| rule.pattern == *pattern) {
                self.never.push(Rule { pattern: (*pattern).to_owned(), origin: format!("{BUILTIN_ORIGIN}:floor") });
            }
        }
    }
}

fn rule(pattern: &Spanned<String>, source: &Source<'_>) -> Rule {
    Rule { pattern: pattern.get_ref().clone(), origin: source.at(pattern.span().start) }
}

fn add(list: &mut Vec<Rule>, pattern: &Spanned<String>, source: &Source<'_>) {
    if !list.iter().any(|rule| rule.pattern == *pattern.get_ref()) {
        list.push(rule(pattern, source));
    }
}

fn compile(rules: Vec<Rule>, source: &Source<'_>) -> Result<RuleList, ConfigError> {
    for rule in &rules {
        PathSet::compile([rule.pattern.as_str()])
            .map_err(|error| ConfigError::Invalid { at: rule.origin.clone(), why: error.to_string() })?;
    }
    let set = PathSet::compile(rules.iter().map(|rule| rule.pattern.as_str()))
        .map_err(|error| ConfigError::Invalid { at: source.origin.to_owned(), why: error.to_string() })?;
    Ok(RuleList { rules, set })
}

/// What the policy says, in an order of its own and without the places.
fn digest(
    lists: &Lists,
    approval: &ApprovalRules,
    min_sandbox: Option<SandboxLevel>,
    profile: Option<SandboxProfile>,
) -> Digest {
    let patterns = |rules: &[Rule]| {
        let mut patterns: Vec<String> = rules.iter().map(|rule| rule.pattern.clone()).collect();
        patterns.sort();
        patterns
    };
    let content = ("policy/1", patterns(&lists.never), patterns(&lists.protected), patterns(&lists.allowed), approval);
    // A policy that says nothing of these keeps the digest that it had before there were any.
    let digest = match (min_sandbox, profile) {
        (None, None) => Digest::of_json(&content),
        (Some(level), None) => Digest::of_json(&(content, level)),
        (level, Some(profile)) => Digest::of_json(&(content, level, profile)),
    };
    digest.expect("lists of texts and numbers are JSON")
}

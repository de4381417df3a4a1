//! The policy: which class a path is in, from three lists of patterns, and what an approval takes.
//!
//! A policy is data. Every rule knows the line it stands on, so that a verdict can name it.

mod section;

use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::Digest;
use super::path::PathSet;
use super::project::{self, ConfigError};
use super::sandbox::{SandboxLevel, SandboxProfile};

pub(super) use section::PolicySection;

/// Where the rules of the built-in policy come from.
pub const BUILTIN_ORIGIN: &str = "builtin/autopack.toml";
const BUILTIN_TEXT: &str = include_str!("policy/builtin.toml");

/// The class of a path, from harmless to forbidden. The order is the order of severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathClass {
    /// P1: may be changed unasked.
    Allowed,
    /// P3 because no list names it.
    Unlisted,
    /// P3 because a list names it.
    Protected,
    /// P4: needs an elevated approval.
    Never,
    /// P0: nobody can approve it.
    Forbidden,
}

/// One pattern of a list, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The pattern as written.
    pub pattern: String,
    /// `file:line`.
    pub origin: String,
}

/// A list of rules, compiled once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleList {
    rules: Vec<Rule>,
    set: PathSet,
}

impl RuleList {
    /// The rules in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The first rule that matches a folded path.
    #[must_use]
    pub fn find(&self, parts: &[&str]) -> Option<&Rule> {
        self.set.find(parts).and_then(|index| self.rules.get(index))
    }

    /// The first rule that is rooted below a folded directory.
    #[must_use]
    pub fn find_rooted_below(&self, directory: &[&str]) -> Option<&Rule> {
        self.set.find_rooted_below(directory).and_then(|index| self.rules.get(index))
    }
}

/// What an approval takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalRules {
    /// Distinct approvers of a tier-4 request; absent: 1 in embedded mode, 2 in cluster mode.
    pub tier4_approvers: Option<u8>,
    /// Seconds until an open request counts as rejected, 60 to 86,400.
    pub timeout_seconds: u32,
}

impl Default for ApprovalRules {
    fn default() -> Self {
        Self { tier4_approvers: None, timeout_seconds: 3600 }
    }
}

/// The rules in force for a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    never: RuleList,
    protected: RuleList,
    allowed: RuleList,
    relaxed: Vec<Rule>,
    approval: ApprovalRules,
    min_sandbox: SandboxLevel,
    sandbox_profile: SandboxProfile,
    digest: Digest,
}

impl Default for Policy {
    fn default() -> Self {
        Self::builtin()
    }
}

impl Policy {
    /// The built-in policy `autopack`.
    #[must_use]
    pub fn builtin() -> Self {
        builtin().clone()
    }

    /// Reads the `[policy]` section of a file; the other sections of `autopack.toml` may be there too.
    ///
    /// # Errors
    /// [`ConfigError`]: an unknown key, a pattern that cannot be read, no rule at all, or an attempt to take a path
    /// off the built-in never list.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        project::ProjectConfig::parse_with_policy(text, origin).map(|config| config.policy)
    }

    /// P4 rules.
    #[must_use]
    pub const fn never(&self) -> &RuleList {
        &self.never
    }

    /// P3 rules.
    #[must_use]
    pub const fn protected(&self) -> &RuleList {
        &self.protected
    }

    /// P1 rules.
    #[must_use]
    pub const fn allowed(&self) -> &RuleList {
        &self.allowed
    }

    /// Rules by which this policy moved a path of the built-in protected list to the allowed one.
    #[must_use]
    pub fn relaxed(&self) -> &[Rule] {
        &self.relaxed
    }

    /// What an approval takes.
    #[must_use]
    pub const fn approval(&self) -> &ApprovalRules {
        &self.approval
    }

    /// The weakest sandbox that builders and gates may run in.
    #[must_use]
    pub const fn min_sandbox(&self) -> SandboxLevel {
        self.min_sandbox
    }

    /// How much such a sandbox lets through.
    #[must_use]
    pub const fn sandbox_profile(&self) -> SandboxProfile {
        self.sandbox_profile
    }

    /// The class of a folded path, and the rule it comes from. Deny wins over allow.
    #[must_use]
    pub fn classify(&self, parts: &[&str]) -> (PathClass, Option<&Rule>) {
        let lists = [
            (PathClass::Never, &self.never),
            (PathClass::Protected, &self.protected),
            (PathClass::Allowed, &self.allowed),
        ];
        lists
            .into_iter()
            .find_map(|(class, list)| list.find(parts).map(|rule| (class, Some(rule))))
            .unwrap_or((PathClass::Unlisted, None))
    }

    /// The rule that a reason names, by its `file:line`.
    #[must_use]
    pub fn rule_at(&self, origin: &str) -> Option<&Rule> {
        [&self.never, &self.protected, &self.allowed]
            .into_iter()
            .flat_map(RuleList::rules)
            .find(|rule| rule.origin == origin)
    }

    /// The SHA-256 of what the policy says; where it says so does not count.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

fn builtin() -> &'static Policy {
    static BUILTIN: LazyLock<Policy> = LazyLock::new(|| {
        Policy::parse(BUILTIN_TEXT, BUILTIN_ORIGIN).expect("the built-in policy is part of the program and is tested")
    });
    &BUILTIN
}

#[cfg(test)]
mod tests;

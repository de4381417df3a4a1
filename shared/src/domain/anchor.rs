//! `IntentionAnchorV2`: what an owner wants from a project, and how far autonomy may go there.
//!
//! The JSON of the predecessor is read unchanged. Unknown keys are refused at every level: a misspelt safety rule that
//! is silently ignored would be worse than none.

mod pivots;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{Digest, Timestamp};
use super::path::{PathRoot, PathSet};
use super::run_data::RunDataModel;

pub use pivots::{
    AutoApproveRule, BudgetCost, CostEscalation, DefaultPolicy, Deployment, EvidenceVerification, GovernanceReview,
    IsolationModel, MemoryContinuity, NorthStar, ParallelismIsolation, Pivots, RiskTolerance, SafetyRisk,
    ScopeBoundaries,
};

/// The only value of `format_version` that is read.
pub const FORMAT_VERSION: &str = "v2";

/// A project's intention: outcomes, boundaries, budgets and the safety limits of autonomous work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntentionAnchorV2 {
    /// Always `v2`.
    pub format_version: String,
    /// Names the project; never blank.
    pub project_id: String,
    /// When the anchor was made.
    #[schemars(with = "jiff::Timestamp")]
    pub created_at: Timestamp,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<jiff::Timestamp>")]
    pub updated_at: Option<Timestamp>,
    /// 16 to 64 lower-case hex digits of the SHA-256 of the text the anchor was made from.
    #[schemars(regex(pattern = r"^[a-f0-9]{16,64}$"))]
    pub raw_input_digest: String,
    /// The pivots; each may be absent.
    pub pivot_intentions: Pivots,
    /// Who wrote it, and where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<AnchorMetadata>,
    /// Pivots of the project's own, which Autopack keeps and does not read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_pivots: BTreeMap<String, serde_json::Value>,
}

/// Where an anchor came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnchorMetadata {
    /// The person who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The document or conversation it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// How strictly verdicts are given, derived from the risk tolerance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Tier 2 becomes tier 3. Also where there is no anchor or no risk tolerance.
    Strict,
    /// The tiers as they are.
    Normal,
}

impl Profile {
    /// The profile in force for an anchor that may be absent.
    #[must_use]
    pub fn of(anchor: Option<&IntentionAnchorV2>) -> Self {
        anchor.map_or(Self::Strict, IntentionAnchorV2::profile)
    }
}

/// Why an anchor was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// The text is no JSON, or a field is missing, unknown or of the wrong type.
    #[error("{field} (line {line}, column {column}): {message}")]
    Syntax {
        /// The path of the field, as far as it was read (`pivot_intentions.safety_risk`).
        field: String,
        /// Line of the text, from 1.
        line: usize,
        /// Column of the text, from 1.
        column: usize,
        /// What the reader says.
        message: String,
    },
    /// A field is present and breaks a rule.
    #[error("{field} (line {line}): {why}")]
    Invalid {
        /// The path of the field.
        field: String,
        /// The first line that names the field, from 1; 1 where it is not in the text.
        line: usize,
        /// The rule it breaks, and what would be right.
        why: String,
    },
}

impl IntentionAnchorV2 {
    /// Reads and checks an anchor.
    ///
    /// # Errors
    /// [`AnchorError`] names the field and the line.
    pub fn parse(text: &str) -> Result<Self, AnchorError> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let anchor: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            syntax(if path == "." { "anchor".to_owned() } else { path }, error.inner())
        })?;
        reader.end().map_err(|error| syntax("anchor".to_owned(), &error))?;
        anchor.check().map_err(|(field, why)| {
            let line = line_of(text, &field);
            AnchorError::Invalid { field, line, why }
        })?;
        Ok(anchor)
    }

    /// Checks what the types alone cannot: the rules on values.
    fn check(&self) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((field.to_owned(), why));
        if self.format_version != FORMAT_VERSION {
            return refuse("format_version", format!("{:?} is not supported; only \"v2\" is", self.format_version));
        }
        if self.project_id.trim().is_empty() {
            return refuse("project_id", "it must not be blank".to_owned());
        }
        let digest = self.raw_input_digest.as_bytes();
        if !(16..=64).contains(&digest.len()) || !digest.iter().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return refuse("raw_input_digest", "it must be 16 to 64 lower-case hex digits".to_owned());
        }
        if self.pivot_intentions.parallelism_isolation.as_ref().is_some_and(|p| p.max_concurrent_runs == 0) {
            return refuse(
                "pivot_intentions.parallelism_isolation.max_concurrent_runs",
                "it must be at least 1".to_owned(),
            );
        }
        for (index, rule) in self.never_allow().iter().enumerate() {
            let field = || format!("pivot_intentions.safety_risk.never_allow[{index}]");
            let Some(glob) = rule.strip_prefix("path:") else {
                return Err((
                    field(),
                    format!("{rule:?} is no known predicate; write `path:GLOB`, for example `path:secrets/**`"),
                ));
            };
            PathSet::compile([glob]).map_err(|error| (field(), error.to_string()))?;
        }
        let lists = [("allowed_write_roots", self.allowed_write_roots()), ("protected_paths", self.protected_paths())];
        for (name, entries) in lists {
            for (index, entry) in entries.iter().enumerate() {
                PathRoot::parse(entry).map_err(|error| {
                    (format!("pivot_intentions.scope_boundaries.{name}[{index}]"), error.to_string())
                })?;
            }
        }
        Ok(())
    }

    /// How strictly verdicts are given: `moderate` and `high` tolerance are normal, everything else is strict.
    #[must_use]
    pub fn profile(&self) -> Profile {
        match self.pivot_intentions.safety_risk.as_ref().map(|pivot| pivot.risk_tolerance) {
            Some(RiskTolerance::Moderate | RiskTolerance::High) => Profile::Normal,
            Some(RiskTolerance::Minimal | RiskTolerance::Low) | None => Profile::Strict,
        }
    }

    /// The SHA-256 of the canonical JSON: keys sorted, no white space, absent fields left out.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(self).expect("every map of an anchor has text keys")
    }

    /// The predecessor's `raw_input_digest` of a text: the first 16 hex digits of its SHA-256.
    #[must_use]
    pub fn raw_input_digest_of(text: &str) -> String {
        Digest::of(text.as_bytes()).to_hex()[..16].to_owned()
    }

    /// The `never_allow` predicates; empty without the pivot.
    #[must_use]
    pub fn never_allow(&self) -> &[String] {
        self.pivot_intentions.safety_risk.as_ref().map_or(&[], |pivot| &pivot.never_allow)
    }

    /// The allowed write roots; empty without the pivot.
    #[must_use]
    pub fn allowed_write_roots(&self) -> &[String] {
        self.pivot_intentions.scope_boundaries.as_ref().map_or(&[], |pivot| &pivot.allowed_write_roots)
    }

    /// The protected paths; empty without the pivot.
    #[must_use]
    pub fn protected_paths(&self) -> &[String] {
        self.pivot_intentions.scope_boundaries.as_ref().map_or(&[], |pivot| &pivot.protected_paths)
    }

    /// Where it wants runs to keep their data; none where it does not say.
    #[must_use]
    pub fn run_data(&self) -> Option<RunDataModel> {
        self.pivot_intentions.parallelism_isolation.as_ref().and_then(|pivot| pivot.run_data)
    }

    /// What the anchor says and Autopack records but does not follow, one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(review) = &self.pivot_intentions.governance_review {
            if review.default_policy == DefaultPolicy::Allow {
                warnings.push(
                    "governance_review.default_policy = allow is ignored: what no rule allows is denied".to_owned(),
                );
            }
            for rule in &review.auto_approve_rules {
                let idle: Vec<&str> =
                    rule.conditions.iter().map(String::as_str).filter(|text| !is_predicate(text)).collect();
                if rule.conditions.is_empty() || !idle.is_empty() {
                    warnings.push(format!(
                        "governance_review.auto_approve_rules {:?} never holds: every condition has to be path:GLOB, \
                         action:TYPE, gap:TYPE or risk<NUMBER, and it has {}",
                        rule.rule_id,
                        if idle.is_empty() { "none".to_owned() } else { format!("{idle:?}") }
                    ));
                }
            }
        }
        warnings
    }
}

/// Whether a condition has a form that a plan follows.
fn is_predicate(condition: &str) -> bool {
    let condition = condition.trim();
    match condition.strip_prefix("risk<") {
        Some(number) => number.trim().parse::<f64>().is_ok(),
        None => ["path:", "action:", "gap:"].iter().any(|kind| condition.starts_with(kind)),
    }
}

fn syntax(field: String, error: &serde_json::Error) -> AnchorError {
    let text = error.to_string();
    let tail = format!(" at line {} column {}", error.line(), error.column());
    let message = text.strip_suffix(&tail).unwrap_or(&text).to_owned();
    AnchorError::Syntax { field, line: error.line(), column: error.column(), message }
}

/// The first line that holds the last name of a field path as a key.
fn line_of(text: &str, field: &str) -> usize {
    let name = field.rsplit('.').next().unwrap_or(field);
    let key = format!("\"{}\"", name.split('[').next().unwrap_or(name));
    text.lines().position(|line| line.contains(&key)).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests;

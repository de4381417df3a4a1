//! The plan: one action a gap, each with a forecast of the approval it will need, in the predecessor's
//! `PlanProposalV1` form. Plain data here; `classify` decides, `propose` puts together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::gap::{FormatVersion, GapType};
use crate::domain::ids::{Digest, Timestamp};

mod classify;
mod propose;
mod work;

pub use classify::Thresholds;
pub use propose::{ProposeOptions, propose};
pub use work::{Work, work_of};

/// `metadata.proposer_version` of this build.
pub const PROPOSER_VERSION: &str = "2.0.0";

/// The `format` tag of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum PlanFormat {
    /// `plan_proposal/1`.
    #[default]
    #[serde(rename = "plan_proposal/1")]
    V1,
}

/// What kind of work an action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActionType {
    /// Tidying as a whole; only in plans of the predecessor.
    TidyApply,
    /// Mending what tests tell.
    TestFix,
    /// Editing documents.
    DocUpdate,
    /// Renewing a baseline; only in plans of the predecessor.
    BaselineRefresh,
    /// Writing configuration.
    ConfigUpdate,
    /// Installing something; only in plans of the predecessor.
    DependencyInstall,
    /// Moving files.
    FileMove,
    /// Deleting files.
    FileDelete,
    /// Mending the repository itself.
    GitOperation,
    /// Anything else.
    Custom,
}

impl ActionType {
    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TidyApply => "tidy_apply",
            Self::TestFix => "test_fix",
            Self::DocUpdate => "doc_update",
            Self::BaselineRefresh => "baseline_refresh",
            Self::ConfigUpdate => "config_update",
            Self::DependencyInstall => "dependency_install",
            Self::FileMove => "file_move",
            Self::FileDelete => "file_delete",
            Self::GitOperation => "git_operation",
            Self::Custom => "custom",
        }
    }
}

/// The forecast. The order is from free to forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStatus {
    /// It runs, and its patch is expected to need nobody.
    AutoApproved,
    /// It runs, and its patch will be asked about.
    RequiresApproval,
    /// It does not run.
    Blocked,
}

/// What an action is expected to cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EstimatedCost {
    /// Model tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_seconds: Option<u64>,
    /// Calls of an outside service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_calls: Option<u64>,
}

/// One thing to do about one gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanAction {
    /// `action-<12 hex>`, the same for the same gap in every plan.
    pub action_id: String,
    /// What kind of work.
    pub action_type: ActionType,
    /// One line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A sentence or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The gap it mends.
    #[serde(default)]
    pub target_gap_ids: Vec<String>,
    /// 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub risk_score: f64,
    /// What the score rests on.
    #[serde(default)]
    pub risk_factors: Vec<String>,
    /// The forecast.
    pub approval_status: ApprovalStatus,
    /// Why, in words: everything that holds, worst first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_reason: Option<String>,
    /// The rule that decided, as a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Every path it may touch, those it will create included.
    #[serde(default)]
    pub target_paths: Vec<String>,
    /// The command line of the builder, where it is a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What it is expected to cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_cost: Option<EstimatedCost>,
    /// Actions that come first because they touch the same paths.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// How to undo it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_strategy: Option<String>,
    /// The kind of the gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_type: Option<GapType>,
    /// Who does it: `remediation`, or `command:NAME` (`agent:NAME`, `llm:NAME`) of `autopack.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// The files the gap is about, in the order of its evidence: what a remediation starts from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subject_paths: Vec<String>,
    /// Whether some of its files differ from the commit a run would start from.
    #[serde(default)]
    pub needs_commit: bool,
}

impl PlanAction {
    /// The digest that a decision about this action is bound to.
    ///
    /// # Errors
    /// Never for an action that was read from JSON or made by [`propose`].
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        Digest::of_json(self)
    }
}

/// Counts and sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSummary {
    /// All actions.
    pub total_actions: u64,
    /// Forecast to need nobody.
    pub auto_approved_actions: u64,
    /// Forecast to be asked about.
    pub requires_approval_actions: u64,
    /// Not to be run.
    pub blocked_actions: u64,
    /// Sum of the estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_estimated_tokens: Option<u64>,
    /// Sum of the estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_estimated_time_seconds: Option<u64>,
}

/// Whether a path is protected, for one action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectedPathCheck {
    /// The path.
    pub path: String,
    /// Whether a change to it needs somebody.
    pub is_protected: bool,
    /// The action that touches it.
    pub action_id: String,
}

/// How the estimates compare with the anchor's caps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetCompliance {
    /// All actions together.
    pub within_global_cap: bool,
    /// Each action.
    pub within_per_call_cap: bool,
    /// Tokens against the global cap, in per cent, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub estimated_usage_pct: Option<f64>,
}

/// What was checked on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GovernanceChecks {
    /// Always true.
    pub default_deny_applied: bool,
    /// Targets on the never list: `action: path`.
    #[serde(default)]
    pub never_auto_approve_violations: Vec<String>,
    /// The first 20 targets.
    #[serde(default)]
    pub protected_path_checks: Vec<ProtectedPathCheck>,
    /// The budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_compliance: Option<BudgetCompliance>,
}

/// About the proposal itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanMetadata {
    /// Which proposer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposer_version: Option<String>,
    /// How long it took; left out by ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_duration_ms: Option<u64>,
}

/// What to do about the gaps of one report, under one anchor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanProposalV1 {
    /// The tag every JSON output carries.
    #[serde(default)]
    pub format: PlanFormat,
    /// Always `v1`.
    pub format_version: FormatVersion,
    /// Which project.
    #[schemars(length(min = 1))]
    pub project_id: String,
    /// Which run.
    #[schemars(length(min = 1))]
    pub run_id: String,
    /// When.
    #[schemars(with = "jiff::Timestamp")]
    pub generated_at: Timestamp,
    /// `anchor-` and the full digest of the anchor.
    pub anchor_id: String,
    /// `gap-report-` and the full digest of the workspace it describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_report_id: Option<String>,
    /// One a gap, in the order of the report.
    #[serde(default)]
    pub actions: Vec<PlanAction>,
    /// Counts and sums.
    pub summary: PlanSummary,
    /// What was checked.
    pub governance_checks: GovernanceChecks,
    /// About the proposal.
    #[serde(default)]
    pub metadata: PlanMetadata,
}

impl PlanProposalV1 {
    /// The digest of what is planned: the time and the tool do not count.
    ///
    /// # Errors
    /// Never for a plan that was read from JSON or made by [`propose`].
    pub fn digest(&self) -> Result<Digest, serde_json::Error> {
        let plan = Self { generated_at: Timestamp::from_millis(0), metadata: PlanMetadata::default(), ..self.clone() };
        Digest::of_json(&plan)
    }

    /// `plan-` and the full digest.
    #[must_use]
    pub fn id(&self) -> String {
        self.digest().map_or_else(|_| "plan-".to_owned(), |digest| format!("plan-{}", digest.to_hex()))
    }

    /// The actions that may run: what is blocked does not stop the others.
    pub fn runnable(&self) -> impl Iterator<Item = &PlanAction> {
        self.actions.iter().filter(|action| action.approval_status != ApprovalStatus::Blocked)
    }
}

#[cfg(test)]
mod tests;

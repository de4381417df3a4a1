//! The pivots of an anchor, field by field as the predecessor writes them. Every pivot refuses unknown keys.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::run_data::RunDataModel;

/// The nine pivots; each may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pivots {
    /// What the project is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub north_star: Option<NorthStar>,
    /// What must never happen and how much risk is fine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_risk: Option<SafetyRisk>,
    /// What proves that work is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence_verification: Option<EvidenceVerification>,
    /// Where work may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope_boundaries: Option<ScopeBoundaries>,
    /// What work may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_cost: Option<BudgetCost>,
    /// What is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_continuity: Option<MemoryContinuity>,
    /// Who is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governance_review: Option<GovernanceReview>,
    /// Whether runs may go side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism_isolation: Option<ParallelismIsolation>,
    /// Where the result runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
}

/// What the project is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NorthStar {
    /// What should be true when it is done.
    #[serde(default)]
    pub desired_outcomes: Vec<String>,
    /// How one would notice.
    #[serde(default)]
    pub success_signals: Vec<String>,
    /// What it is not about.
    #[serde(default)]
    pub non_goals: Vec<String>,
}

/// How much risk the owner accepts; decides the profile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RiskTolerance {
    /// Strict.
    Minimal,
    /// Strict; the default.
    #[default]
    Low,
    /// Normal.
    Moderate,
    /// Normal.
    High,
}

/// What must never happen and how much risk is fine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SafetyRisk {
    /// Predicates `path:GLOB` on changed paths; nobody can approve such a change.
    #[serde(default)]
    pub never_allow: Vec<String>,
    /// What the owner wants to be asked about.
    #[serde(default)]
    pub requires_approval: Vec<String>,
    /// How much risk is fine.
    #[serde(default)]
    pub risk_tolerance: RiskTolerance,
}

/// What proves that work is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceVerification {
    /// What stops work at once.
    #[serde(default)]
    pub hard_blocks: Vec<String>,
    /// What has to be shown.
    #[serde(default)]
    pub required_proofs: Vec<String>,
    /// Checks by name.
    #[serde(default)]
    pub verification_gates: Vec<String>,
}

/// Where work may write.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeBoundaries {
    /// Adds paths that no list names to those a change may touch unasked.
    #[serde(default)]
    pub allowed_write_roots: Vec<String>,
    /// Paths that always need approval.
    #[serde(default)]
    pub protected_paths: Vec<String>,
    /// Hosts a builder may reach.
    #[serde(default)]
    pub network_allowlist: Vec<String>,
}

/// What happens when a budget runs out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CostEscalation {
    /// Work stops.
    Block,
    /// Work goes on with a warning.
    Warn,
    /// A person is asked; the default.
    #[default]
    RequestApproval,
}

/// What work may cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetCost {
    /// Tokens over all calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_cap_global: Option<u64>,
    /// Tokens of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_cap_per_call: Option<u64>,
    /// Seconds of work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_cap_seconds: Option<u64>,
    /// What happens when a cap is reached.
    #[serde(default)]
    pub cost_escalation_policy: CostEscalation,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryContinuity {
    /// What goes into the project's own records.
    #[serde(default)]
    pub persist_to_sot: Vec<String>,
    /// What is made from them.
    #[serde(default)]
    pub derived_indexes: Vec<String>,
    /// How long each kind is kept.
    #[serde(default)]
    pub retention_rules: BTreeMap<String, String>,
}

/// What the owner would like to be the case where no rule speaks. `allow` is recorded and ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DefaultPolicy {
    /// Ask; the default.
    #[default]
    Deny,
    /// Go on.
    Allow,
}

/// When an action of a plan is automatic. The change it leads to is judged by the policy all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutoApproveRule {
    /// Names the rule.
    pub rule_id: String,
    /// Says what it is for.
    pub description: String,
    /// When it holds: all of `path:GLOB`, `action:TYPE`, `gap:TYPE`, `risk<NUMBER` that are named.
    pub conditions: Vec<String>,
}

/// Who is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GovernanceReview {
    /// What holds where no rule speaks.
    #[serde(default)]
    pub default_policy: DefaultPolicy,
    /// When actions of a plan are automatic.
    #[serde(default)]
    pub auto_approve_rules: Vec<AutoApproveRule>,
    /// Where requests are shown.
    #[serde(default)]
    pub approval_channels: Vec<String>,
}

/// How runs are kept apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IsolationModel {
    /// Work tree, lease, lock and database of its own for each run.
    FourLayer,
    /// Not kept apart; the default.
    #[default]
    None,
}

const fn one() -> u32 {
    1
}

/// Whether runs may go side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelismIsolation {
    /// Whether more than one run may be active.
    #[serde(default)]
    pub allowed: bool,
    /// How runs are kept apart.
    #[serde(default)]
    pub isolation_model: IsolationModel,
    /// How many runs may be active at once; at least 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub max_concurrent_runs: u32,
    /// Where a run's processes keep their data. Without it: a schema of the run's own where the cluster has a server
    /// for runs, else an SQLite file. What is asked for and not there is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_data: Option<RunDataModel>,
}

impl Default for ParallelismIsolation {
    fn default() -> Self {
        Self { allowed: false, isolation_model: IsolationModel::None, max_concurrent_runs: one(), run_data: None }
    }
}

/// Where the result runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// What the host must offer.
    #[serde(default)]
    pub hosting_requirements: Vec<String>,
    /// Environment of the deployed program.
    #[serde(default)]
    pub env_vars: BTreeMap<String, String>,
    /// Where its secrets come from.
    #[serde(default)]
    pub secrets_config: BTreeMap<String, serde_json::Value>,
}

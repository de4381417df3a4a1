//! One session of autopilot, in the predecessor's `AutopilotSessionV1` form with the states made honest: a session
//! that executed nothing never calls itself completed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::gap::FormatVersion;
use crate::domain::ids::{Digest, Timestamp};
use crate::domain::plan::ApprovalStatus;

mod life;

/// `metadata.autopilot_version` of this build.
pub const AUTOPILOT_VERSION: &str = "1.0.0";

/// The `format` tag of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum SessionFormat {
    /// `autopilot_session/1`.
    #[default]
    #[serde(rename = "autopilot_session/1")]
    V1,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionStatus {
    /// The plan is stored; nothing has begun.
    Planned,
    /// Shown only; nothing was or will be executed.
    DryRun,
    /// Actions are being executed.
    Running,
    /// A person has to decide before it goes on. Also what the predecessor called `blocked_approval_required`.
    #[serde(alias = "blocked_approval_required")]
    AwaitingApproval,
    /// A gap that blocks autopilot has to be dealt with first.
    BlockedGap,
    /// Too many failures in a row.
    BlockedCircuitBreaker,
    /// Every action that could run was executed.
    Completed,
    /// There was no action to run.
    NothingToDo,
    /// It broke.
    Failed,
    /// A person stopped it.
    Aborted,
}

impl SessionStatus {
    /// Every state.
    pub const ALL: [Self; 10] = [
        Self::Planned,
        Self::DryRun,
        Self::Running,
        Self::AwaitingApproval,
        Self::BlockedGap,
        Self::BlockedCircuitBreaker,
        Self::Completed,
        Self::NothingToDo,
        Self::Failed,
        Self::Aborted,
    ];

    /// Whether the session can still move.
    #[must_use]
    pub const fn is_open(self) -> bool {
        match self {
            Self::Planned | Self::Running | Self::AwaitingApproval | Self::BlockedGap | Self::BlockedCircuitBreaker => {
                true
            }
            Self::DryRun | Self::Completed | Self::NothingToDo | Self::Failed | Self::Aborted => false,
        }
    }

    /// Whether a session may go from this state to `next`.
    #[must_use]
    pub const fn allows(self, next: Self) -> bool {
        match self {
            Self::Planned => !matches!(next, Self::Planned | Self::Completed),
            Self::Running => !matches!(next, Self::Planned | Self::DryRun | Self::Running),
            Self::AwaitingApproval | Self::BlockedGap | Self::BlockedCircuitBreaker => {
                matches!(next, Self::Running | Self::Completed | Self::Failed | Self::Aborted)
            }
            Self::DryRun | Self::Completed | Self::NothingToDo | Self::Failed | Self::Aborted => false,
        }
    }
}

/// A move that [`SessionStatus::allows`] refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session that is {from:?} cannot become {to:?}")]
pub struct IllegalSessionMove {
    /// From where.
    pub from: SessionStatus,
    /// To where.
    pub to: SessionStatus,
}

/// Counts of what happened to the plan's actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecutionSummary {
    /// In the plan.
    pub total_actions: u64,
    /// Forecast to need no person.
    #[serde(default)]
    pub auto_approved_actions: u64,
    /// Begun and ended, either way.
    #[serde(default)]
    pub executed_actions: u64,
    /// Ended well.
    #[serde(default)]
    pub successful_actions: u64,
    /// Ended badly.
    #[serde(default)]
    pub failed_actions: u64,
    /// Never begun.
    #[serde(default)]
    pub blocked_actions: u64,
}

/// An action that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionApproval {
    /// Which action.
    pub action_id: String,
    /// Its forecast; never `auto_approved`.
    pub approval_status: ApprovalStatus,
    /// Why it waits.
    #[serde(default)]
    pub reason: String,
    /// The digest of the action as it was planned: a decision holds for exactly this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub action_digest: Option<Digest>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionError {
    /// When.
    #[schemars(with = "jiff::Timestamp")]
    pub timestamp: Timestamp,
    /// In which action, if in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<String>,
    /// A stable reason code.
    pub error_type: String,
    /// In words.
    pub error_message: String,
}

/// About the session itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionMetadata {
    /// Which autopilot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autopilot_version: Option<String>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_duration_ms: Option<u64>,
    /// Whether `--enable` was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_explicitly: Option<bool>,
}

/// A session: which plan, under which anchor, on which commit, and how far it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AutopilotSessionV1 {
    /// The tag every JSON output carries.
    #[serde(default)]
    pub format: SessionFormat,
    /// Always `v1`.
    pub format_version: FormatVersion,
    /// Which project.
    #[schemars(length(min = 1))]
    pub project_id: String,
    /// Which run.
    #[schemars(length(min = 1))]
    pub run_id: String,
    /// `autopilot-...`.
    pub session_id: String,
    /// When it began.
    #[schemars(with = "jiff::Timestamp")]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<jiff::Timestamp>")]
    pub completed_at: Option<Timestamp>,
    /// Where it stands.
    pub status: SessionStatus,
    /// `anchor-` and the full digest of the anchor.
    pub anchor_id: String,
    /// `gap-report-` and the full digest of the workspace it describes.
    pub gap_report_id: String,
    /// `plan-` and the full digest of the plan.
    pub plan_proposal_id: String,
    /// The commit everything started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_commit: Option<String>,
    /// Counts.
    #[serde(default)]
    pub execution_summary: ExecutionSummary,
    /// Actions that were begun, in order.
    #[serde(default)]
    pub executed_action_ids: Vec<String>,
    /// Why it does not go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_reason: Option<String>,
    /// Actions that wait for a person.
    #[serde(default)]
    pub approval_requests: Vec<ActionApproval>,
    /// What went wrong.
    #[serde(default)]
    pub error_log: Vec<SessionError>,
    /// About the session.
    #[serde(default)]
    pub metadata: SessionMetadata,
}

#[cfg(test)]
mod tests;

//! How a session begins and moves.

use crate::domain::gap::FormatVersion;
use crate::domain::ids::Timestamp;
use crate::domain::plan::{ApprovalStatus, PlanProposalV1};
use crate::domain::session::{
    AUTOPILOT_VERSION, ActionApproval, AutopilotSessionV1, ExecutionSummary, IllegalSessionMove, SessionError,
    SessionFormat, SessionMetadata, SessionStatus,
};

impl AutopilotSessionV1 {
    /// A session over a stored plan: `planned` with `enabled`, else a `dry_run` that is over at once. A plan with no
    /// actions gives `nothing_to_do` in either case.
    #[must_use]
    pub fn begin(session_id: String, plan: &PlanProposalV1, enabled: bool, now: Timestamp) -> Self {
        let status = match (plan.actions.is_empty(), enabled) {
            (true, _) => SessionStatus::NothingToDo,
            (false, true) => SessionStatus::Planned,
            (false, false) => SessionStatus::DryRun,
        };
        let waiting = |a: &&crate::domain::plan::PlanAction| a.approval_status != ApprovalStatus::AutoApproved;
        let approvals = plan.actions.iter().filter(waiting).map(|action| ActionApproval {
            action_id: action.action_id.clone(),
            approval_status: action.approval_status,
            reason: action.approval_reason.clone().unwrap_or_default(),
            action_digest: action.digest().ok(),
        });
        Self {
            format: SessionFormat::V1,
            format_version: FormatVersion::V1,
            project_id: plan.project_id.clone(),
            run_id: plan.run_id.clone(),
            session_id,
            started_at: now,
            completed_at: (!status.is_open()).then_some(now),
            status,
            anchor_id: plan.anchor_id.clone(),
            gap_report_id: plan.gap_report_id.clone().unwrap_or_default(),
            plan_proposal_id: plan.id(),
            base_commit: None,
            execution_summary: ExecutionSummary {
                total_actions: plan.summary.total_actions,
                auto_approved_actions: plan.summary.auto_approved_actions,
                blocked_actions: plan.summary.blocked_actions,
                ..ExecutionSummary::default()
            },
            executed_action_ids: Vec::new(),
            blocked_reason: None,
            approval_requests: approvals.collect(),
            error_log: Vec::new(),
            metadata: SessionMetadata {
                autopilot_version: Some(AUTOPILOT_VERSION.to_owned()),
                session_duration_ms: None,
                enabled_explicitly: Some(enabled),
            },
        }
    }

    /// Moves the session; `reason` is kept while it does not go on.
    ///
    /// # Errors
    /// [`IllegalSessionMove`] where the table has no such move.
    pub fn go(&mut self, to: SessionStatus, reason: Option<String>, now: Timestamp) -> Result<(), IllegalSessionMove> {
        if !self.status.allows(to) {
            return Err(IllegalSessionMove { from: self.status, to });
        }
        self.status = to;
        self.blocked_reason = reason;
        if !to.is_open() {
            self.completed_at = Some(now);
            let took = now.millis_since(self.started_at);
            self.metadata.session_duration_ms = u64::try_from(took).ok();
        }
        Ok(())
    }

    /// Records that an action was executed, and how it ended.
    pub fn record(&mut self, action_id: &str, outcome: Result<(), SessionError>) {
        self.executed_action_ids.push(action_id.to_owned());
        let sum = &mut self.execution_summary;
        sum.executed_actions += 1;
        match outcome {
            Ok(()) => sum.successful_actions += 1,
            Err(error) => {
                sum.failed_actions += 1;
                self.error_log.push(error);
            }
        }
    }
}

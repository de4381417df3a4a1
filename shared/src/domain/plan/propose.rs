//! Puts a plan together: the action a gap asks for, who can do it, what it costs, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::anchor::{BudgetCost, CostEscalation, IntentionAnchorV2};
use crate::domain::evaluate::Verdict;
use crate::domain::gap::{FormatVersion, Gap, GapReportV1, GapType};
use crate::domain::ids::{Digest, Timestamp};
use crate::domain::plan::classify::{Candidate, Finding, classify, judge};
use crate::domain::plan::{
    ActionType, ApprovalStatus, BudgetCompliance, EstimatedCost, GovernanceChecks, PROPOSER_VERSION, PlanAction,
    PlanFormat, PlanMetadata, PlanProposalV1, PlanSummary, ProtectedPathCheck,
};
use crate::domain::policy::Policy;
use crate::domain::project::{BuilderConfig, BuilderKind};
use crate::domain::reason::ReasonCode;

/// What a plan depends on besides gaps, anchor and policy.
#[derive(Debug, Clone, Copy)]
pub struct ProposeOptions<'a> {
    /// The time the plan carries.
    pub now: Timestamp,
    /// `[builders.*]` of `autopack.toml`: they take gaps that no built-in remediation mends.
    pub builders: &'a BTreeMap<String, BuilderConfig>,
    /// Whether the project is being set up: then nothing is automatic.
    pub first_build: bool,
}

/// The plan for a report.
#[must_use]
pub fn propose(
    report: &GapReportV1,
    anchor: &IntentionAnchorV2,
    policy: &Policy,
    options: &ProposeOptions<'_>,
) -> PlanProposalV1 {
    let mut budget = Budget::new(anchor.pivot_intentions.budget_cost.as_ref());
    let mut checks = GovernanceChecks {
        default_deny_applied: true,
        never_auto_approve_violations: Vec::new(),
        protected_path_checks: Vec::new(),
        budget_compliance: None,
    };
    let blocked = report.gaps.iter().any(|gap| gap.blocks_autopilot);
    let in_doubt = report.gaps.iter().any(casts_doubt);
    let mut actions: Vec<PlanAction> = Vec::new();
    for gap in &report.gaps {
        let mut action = draft(gap, options);
        let verdict = judge(&action.target_paths, policy, anchor);
        let candidate = Candidate {
            gap,
            action: action.action_type,
            risk: action.risk_score,
            targets: &action.target_paths,
            supported: action.builder.is_some(),
            first_build: options.first_build,
            in_doubt,
            blocked,
            budget: budget.spend(action.estimated_cost),
        };
        let findings = classify(&candidate, anchor, verdict.as_ref());
        record(&mut checks, &action, verdict.as_ref());
        settle(&mut action, &findings);
        action.dependencies = before(&actions, &action);
        actions.push(action);
    }
    checks.budget_compliance = Some(budget.compliance());
    PlanProposalV1 {
        format: PlanFormat::V1,
        format_version: FormatVersion::V1,
        project_id: report.project_id.clone(),
        run_id: report.run_id.clone(),
        generated_at: options.now,
        anchor_id: format!("anchor-{}", anchor.digest().to_hex()),
        gap_report_id: Some(report_id(report)),
        summary: summary(&actions),
        actions,
        governance_checks: checks,
        metadata: PlanMetadata { proposer_version: Some(PROPOSER_VERSION.to_owned()), generation_duration_ms: None },
    }
}

fn report_id(report: &GapReportV1) -> String {
    let digest = report.workspace_state_digest.as_ref().map(|digest| digest.as_str().to_owned());
    // Without a digest of the workspace the gaps themselves are the identity.
    let digest = digest.or_else(|| Digest::of_json(&report.gaps).ok().map(|d| d.to_hex()));
    format!("gap-report-{}", digest.unwrap_or_default())
}

/// The predecessor's table: kind of action, risk, tokens and seconds.
const fn template(kind: GapType) -> (ActionType, f64, Option<(u64, u64)>) {
    match kind {
        GapType::DocDrift => (ActionType::DocUpdate, 0.3, Some((500, 10))),
        GapType::RootClutter => (ActionType::FileMove, 0.2, Some((200, 5))),
        GapType::SotDuplicate => (ActionType::FileDelete, 0.4, Some((100, 2))),
        GapType::TestInfraDrift => (ActionType::TestFix, 0.5, Some((2000, 60))),
        GapType::MemoryBudgetCapIssue => (ActionType::DocUpdate, 0.4, Some((1000, 30))),
        GapType::WindowsEncodingIssue => (ActionType::Custom, 0.6, Some((500, 15))),
        GapType::BaselinePolicyDrift => (ActionType::ConfigUpdate, 0.5, Some((300, 10))),
        GapType::ProtectedPathViolation => (ActionType::DocUpdate, 0.8, Some((200, 5))),
        GapType::DbLockContention => (ActionType::FileDelete, 0.7, Some((50, 1))),
        GapType::GitStateCorruption => (ActionType::GitOperation, 0.9, Some((100, 10))),
        GapType::Unknown => (ActionType::Custom, 1.0, None),
    }
}

/// What the risk rests on.
const fn risk_factor(kind: GapType) -> &'static str {
    match kind {
        GapType::DocDrift => "documents are edited",
        GapType::RootClutter => "files get other paths",
        GapType::SotDuplicate => "files are deleted",
        GapType::TestInfraDrift => "tests or code are edited",
        GapType::MemoryBudgetCapIssue => "documents are split",
        GapType::WindowsEncodingIssue => "every byte of a file may change",
        GapType::BaselinePolicyDrift => "policy is written",
        GapType::ProtectedPathViolation => "protected paths are touched",
        GapType::DbLockContention => "a lock may be in use",
        GapType::GitStateCorruption => "history may be lost",
        GapType::Unknown => "nobody knows what it takes",
    }
}

fn draft(gap: &Gap, options: &ProposeOptions<'_>) -> PlanAction {
    let (action_type, risk_score, cost) = template(gap.gap_type);
    let own = (!gap.has_remediation()).then(|| taker(gap.gap_type, options.builders)).flatten();
    let builder = match own {
        Some((name, config)) => Some(format!("{}:{name}", prefix(config.kind))),
        None => gap.has_remediation().then(|| "remediation".to_owned()),
    };
    let remedy = &gap.safe_remediation;
    let targets = remedy.target_paths.as_ref().unwrap_or(&gap.evidence.file_paths);
    let id = Digest::of(format!("{}:{}", gap.gap_id, action_type.as_str()).as_bytes()).to_hex();
    let first: Vec<&str> = targets.iter().take(5).map(String::as_str).collect();
    let undo = format!("autopack rollback, or git restore --source=BASE -- {}", first.join(" "));
    PlanAction {
        action_id: format!("action-{}", &id[..12]),
        action_type,
        title: gap.title.clone(),
        description: remedy.approach.clone(),
        target_gap_ids: vec![gap.gap_id.clone()],
        risk_score,
        risk_factors: vec![risk_factor(gap.gap_type).to_owned()],
        approval_status: ApprovalStatus::RequiresApproval,
        approval_reason: None,
        rule: None,
        target_paths: targets.clone(),
        command: own.filter(|(_, b)| !b.argv.is_empty()).map(|(_, b)| b.argv.join(" ")),
        estimated_cost: cost.map(|(tokens, seconds)| EstimatedCost {
            tokens: Some(tokens),
            time_seconds: Some(seconds),
            api_calls: None,
        }),
        dependencies: Vec::new(),
        rollback_strategy: (!first.is_empty()).then_some(undo),
        gap_type: Some(gap.gap_type),
        builder,
        subject_paths: gap.evidence.file_paths.clone(),
        needs_commit: !remedy.uncommitted_paths.is_empty(),
    }
}

/// The first builder of the project, by name, that takes gaps of this kind.
fn taker(kind: GapType, builders: &BTreeMap<String, BuilderConfig>) -> Option<(&String, &BuilderConfig)> {
    builders.iter().find(|(_, builder)| {
        let can = match builder.kind {
            BuilderKind::Command | BuilderKind::Agent | BuilderKind::Llm => true,
            BuilderKind::Patch | BuilderKind::Remediation => false,
        };
        can && builder.gaps.iter().any(|taken| taken == kind.as_str())
    })
}

const fn prefix(kind: BuilderKind) -> &'static str {
    match kind {
        BuilderKind::Command => "command",
        BuilderKind::Agent => "agent",
        BuilderKind::Llm => "llm",
        BuilderKind::Patch => "patch",
        BuilderKind::Remediation => "remediation",
    }
}

fn settle(action: &mut PlanAction, findings: &[Finding]) {
    if let Some(first) = findings.first() {
        action.approval_status = first.status;
        action.rule = Some(first.rule.clone());
    }
    let words: Vec<&str> = findings.iter().map(|f| f.why.as_str()).collect();
    action.approval_reason = Some(words.join("; "));
}

fn record(checks: &mut GovernanceChecks, action: &PlanAction, verdict: Option<&Verdict>) {
    let Some(verdict) = verdict else { return };
    let never = verdict.reasons.iter().filter(|r| r.code == ReasonCode::PathNever).flat_map(|r| &r.paths);
    let never = never.map(|path| format!("{}: {path}", action.action_id));
    checks.never_auto_approve_violations.extend(never);
    let named: BTreeSet<&String> = verdict.reasons.iter().flat_map(|r| &r.paths).collect();
    let room = 20_usize.saturating_sub(checks.protected_path_checks.len());
    let told = action.target_paths.iter().take(room).map(|path| ProtectedPathCheck {
        path: path.clone(),
        is_protected: named.contains(path),
        action_id: action.action_id.clone(),
    });
    checks.protected_path_checks.extend(told);
}

/// Earlier actions that touch a path of this one. What is blocked will not run and is not waited for.
fn before(earlier: &[PlanAction], action: &PlanAction) -> Vec<String> {
    let own: BTreeSet<&String> = action.target_paths.iter().collect();
    earlier
        .iter()
        .filter(|other| other.approval_status != ApprovalStatus::Blocked)
        .filter(|other| other.target_paths.iter().any(|path| own.contains(path)))
        .map(|other| other.action_id.clone())
        .collect()
}

fn summary(actions: &[PlanAction]) -> PlanSummary {
    let count = |status| actions.iter().filter(|a| a.approval_status == status).count() as u64;
    let costs = || actions.iter().filter_map(|a| a.estimated_cost);
    PlanSummary {
        total_actions: actions.len() as u64,
        auto_approved_actions: count(ApprovalStatus::AutoApproved),
        requires_approval_actions: count(ApprovalStatus::RequiresApproval),
        blocked_actions: count(ApprovalStatus::Blocked),
        total_estimated_tokens: Some(costs().filter_map(|c| c.tokens).sum()),
        total_estimated_time_seconds: Some(costs().filter_map(|c| c.time_seconds).sum()),
    }
}

/// What is left of the anchor's caps. A cap of 0 is a cap.
struct Budget {
    caps: BudgetCost,
    tokens: u64,
    seconds: u64,
    per_call_kept: bool,
}

impl Budget {
    fn new(caps: Option<&BudgetCost>) -> Self {
        let caps = caps.cloned().unwrap_or_default();
        Self { caps, tokens: 0, seconds: 0, per_call_kept: true }
    }

    /// Counts an action, and says what its cost leads to if it breaks a cap.
    fn spend(&mut self, cost: Option<EstimatedCost>) -> Option<Finding> {
        let tokens = cost.and_then(|c| c.tokens).unwrap_or(0);
        self.tokens = self.tokens.saturating_add(tokens);
        self.seconds = self.seconds.saturating_add(cost.and_then(|c| c.time_seconds).unwrap_or(0));
        let over = |spent: u64, cap: Option<u64>| cap.filter(|cap| spent > *cap);
        let mut broken = Vec::new();
        if let Some(cap) = over(tokens, self.caps.token_cap_per_call) {
            self.per_call_kept = false;
            broken.push(format!("{tokens} tokens are above the cap per call of {cap}"));
        }
        if let Some(cap) = over(self.tokens, self.caps.token_cap_global) {
            broken.push(format!("the plan up to here takes {} tokens, above the cap of {cap}", self.tokens));
        }
        if let Some(cap) = over(self.seconds, self.caps.time_cap_seconds) {
            broken.push(format!("the plan up to here takes {} s, above the cap of {cap} s", self.seconds));
        }
        let why = (!broken.is_empty()).then(|| broken.join(", "))?;
        Some(match self.caps.cost_escalation_policy {
            CostEscalation::Block => Finding::blocked("budget_block", why),
            CostEscalation::RequestApproval => Finding::asks("budget_approval", why),
            CostEscalation::Warn => {
                Finding { status: ApprovalStatus::AutoApproved, rule: "budget_warn".to_owned(), why }
            }
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a share of a budget in per cent")]
    fn compliance(&self) -> BudgetCompliance {
        let share = |cap: u64| match cap {
            0 if self.tokens == 0 => 0.0,
            0 => 100.0,
            cap => (self.tokens as f64 * 100.0 / cap as f64).min(100.0),
        };
        BudgetCompliance {
            within_global_cap: self.caps.token_cap_global.is_none_or(|cap| self.tokens <= cap)
                && self.caps.time_cap_seconds.is_none_or(|cap| self.seconds <= cap),
            within_per_call_cap: self.per_call_kept,
            estimated_usage_pct: self.caps.token_cap_global.map(share),
        }
    }
}

/// A gap after which nothing is done unasked: git's state is broken, or a detector could not look.
fn casts_doubt(gap: &Gap) -> bool {
    gap.gap_type == GapType::GitStateCorruption
        || gap.detection_signals.iter().any(|signal| signal.starts_with("detector_failed"))
}

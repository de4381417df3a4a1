//! A plan as a run file: one phase an action that may run, in the order of the plan.

use std::collections::BTreeMap;

use crate::domain::ids::{PhaseId, RunId};
use crate::domain::path::PathRoots;
use crate::domain::plan::{ActionType, ApprovalStatus, PlanAction, PlanProposalV1};
use crate::domain::run_file::{BuilderSpec, ClaimedRisk, MAX_PHASES, PhaseSpec, RunFile, RunLimits, ScopeSpec};

/// Attempts of a remediation: it does the same each time, so a second one only helps where the base moved.
const REMEDIATION_ATTEMPTS: u32 = 2;

/// Seconds of a remediation.
const REMEDIATION_TIMEOUT: u64 = 1800;

/// Seconds of a program of the operator's: the most there are, for its entry in the fork commit's `autopack.toml` is
/// what bounds it.
const COMMAND_TIMEOUT: u64 = 86_400;

/// What a plan becomes.
#[derive(Debug)]
pub struct Work {
    /// The run; none where no action may run.
    pub file: Option<RunFile>,
    /// Which phase carries out which action.
    pub actions: BTreeMap<String, String>,
    /// Actions that do not run, and why.
    pub left: Vec<(String, String)>,
}

impl Work {
    /// Of a run that no plan is known of.
    #[must_use]
    pub const fn none() -> Self {
        Self { file: None, actions: BTreeMap::new(), left: Vec::new() }
    }
}

/// Makes a run of a plan.
#[must_use]
pub fn work_of(run: &RunId, plan: &PlanProposalV1, limits: RunLimits) -> Work {
    let mut phases: Vec<PhaseSpec> = Vec::new();
    let mut by_action: BTreeMap<&str, PhaseId> = BTreeMap::new();
    let mut left = Vec::new();
    for action in &plan.actions {
        let number = phases.len() + 1;
        match phase_of(number, action, &by_action) {
            Ok(phase) => {
                by_action.insert(&action.action_id, phase.id.clone());
                phases.push(phase);
            }
            Err(why) => left.push((action.action_id.clone(), why)),
        }
    }
    let actions = by_action.iter().map(|(action, phase)| (phase.to_string(), (*action).to_owned())).collect();
    let file = (!phases.is_empty()).then(|| RunFile {
        run_id: Some(run.clone()),
        project: None,
        anchor: None,
        target_ref: None,
        phases,
        limits,
    });
    Work { file, actions, left }
}

fn phase_of(number: usize, action: &PlanAction, earlier: &BTreeMap<&str, PhaseId>) -> Result<PhaseSpec, String> {
    if action.approval_status == ApprovalStatus::Blocked {
        return Err(action.approval_reason.clone().unwrap_or_else(|| "blocked".to_owned()));
    }
    if number > MAX_PHASES {
        return Err(format!("a run has at most {MAX_PHASES} phases; the next run takes it"));
    }
    if action.needs_commit {
        return Err("some of its files are not committed, and a run works on the commit: commit them first".to_owned());
    }
    // A scope is a list of patterns: a path that reads as one would promise more, or less, than the action.
    PathRoots::new(action.target_paths.clone()).map_err(|error| error.to_string())?;
    let kind = action.gap_type.map_or("action", |kind| kind.as_str()).replace('_', "-");
    let id = PhaseId::new(format!("p{number:02}-{kind}")).map_err(|error| error.to_string())?;
    let builder = builder_of(action)?;
    let remediation = matches!(builder, BuilderSpec::Remediation { .. });
    let title = action.title.as_deref().unwrap_or(action.action_type.as_str());
    let goal = [Some(title), action.description.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("\n");
    Ok(PhaseSpec {
        id,
        goal,
        scope: ScopeSpec { paths: action.target_paths.clone(), read_only_context: Vec::new() },
        deliverables: Vec::new(),
        symbols: Vec::new(),
        category: Some(category_of(action.action_type).to_owned()),
        claimed_risk: (action.approval_status == ApprovalStatus::RequiresApproval).then_some(ClaimedRisk::High),
        depends_on: action.dependencies.iter().filter_map(|on| earlier.get(on.as_str()).cloned()).collect(),
        builder,
        gate: Vec::new(),
        max_attempts: if remediation { REMEDIATION_ATTEMPTS } else { 5 },
        timeout: if remediation { REMEDIATION_TIMEOUT } else { COMMAND_TIMEOUT },
        // A remediation that changes nothing found its gap gone; a program that does has not mended it.
        must_change: !remediation,
    })
}

fn builder_of(action: &PlanAction) -> Result<BuilderSpec, String> {
    let gap_type = action.gap_type.map(|kind| kind.as_str().to_owned()).unwrap_or_default();
    match action.builder.as_deref().and_then(|by| by.split_once(':')).or(action.builder.as_deref().map(|by| (by, ""))) {
        Some(("remediation", _)) => Ok(BuilderSpec::Remediation {
            gap_type,
            gap_id: action.target_gap_ids.first().cloned().unwrap_or_default(),
            paths: action.subject_paths.clone(),
            facts: BTreeMap::new(),
        }),
        Some(("command", name)) => Ok(BuilderSpec::Command { name: Some(name.to_owned()), argv: Vec::new() }),
        Some((other, _)) => Err(format!("unsupported: this version has no {other} builder")),
        None => Err("unsupported: nobody takes this kind of gap".to_owned()),
    }
}

/// The category that the policy knows; none of these is of high risk, the paths decide that.
const fn category_of(action: ActionType) -> &'static str {
    match action {
        ActionType::DocUpdate => "docs",
        ActionType::TestFix => "tests",
        ActionType::ConfigUpdate | ActionType::BaselineRefresh => "configuration",
        ActionType::DependencyInstall | ActionType::GitOperation => "infrastructure",
        ActionType::TidyApply | ActionType::FileMove | ActionType::FileDelete | ActionType::Custom => "maintenance",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn action(id: &str, status: &str, more: Value) -> Value {
        let mut action = json!({
            "action_id": id, "action_type": "file_move", "title": format!("do {id}"), "target_gap_ids": ["g"],
            "risk_score": 0.2, "approval_status": status, "target_paths": ["NOTES.md", "docs/notes/NOTES.md"],
            "gap_type": "root_clutter", "builder": "remediation", "subject_paths": ["NOTES.md"],
        });
        for (key, value) in more.as_object().unwrap() {
            action[key] = value.clone();
        }
        action
    }

    fn work(actions: &[Value]) -> Work {
        let plan = json!({
            "format_version": "v1", "project_id": "p", "run_id": "r", "generated_at": "2026-01-01T00:00:00Z", "anchor_id": "a",
            "actions": actions, "governance_checks": { "default_deny_applied": true },
            "summary": { "total_actions": 0, "auto_approved_actions": 0, "requires_approval_actions": 0, "blocked_actions": 0 },
        });
        let plan: PlanProposalV1 = serde_json::from_value(plan).unwrap();
        work_of(&RunId::new("r").unwrap(), &plan, RunLimits::default())
    }

    #[test]
    fn what_may_run_becomes_phases_in_plan_order() {
        let work = work(&[
            action("a1", "auto_approved", json!({})),
            action("a2", "blocked", json!({ "approval_reason": "never" })),
            action("a3", "requires_approval", json!({ "builder": "command:mend", "dependencies": ["a1", "a2"] })),
        ]);
        let file = work.file.unwrap();
        file.validate().unwrap();
        let ids: Vec<&str> = file.phases.iter().map(|phase| phase.id.as_str()).collect();
        assert_eq!(ids, ["p01-root-clutter", "p02-root-clutter"]);
        assert_eq!((file.phases[0].claimed_risk, file.phases[1].claimed_risk), (None, Some(ClaimedRisk::High)));
        assert_eq!(file.phases[1].depends_on, [file.phases[0].id.clone()], "a blocked action holds nobody up");
        assert_eq!((file.phases[0].must_change, file.phases[1].must_change), (false, true));
        assert!(matches!(&file.phases[1].builder, BuilderSpec::Command { name: Some(name), .. } if name == "mend"));
        assert_eq!(work.left, [("a2".to_owned(), "never".to_owned())]);
        assert_eq!(work.actions["p02-root-clutter"], "a3");
    }

    #[test]
    fn what_cannot_run_is_named_with_its_reason() {
        let work = work(&[
            action("a1", "auto_approved", json!({ "needs_commit": true })),
            action("a2", "auto_approved", json!({ "builder": "llm:big" })),
            action("a3", "auto_approved", json!({ "builder": null })),
        ]);
        assert!(work.file.is_none());
        let reasons: Vec<&str> = work.left.iter().map(|(_, why)| why.as_str()).collect();
        assert!(
            reasons[0].contains("commit them first")
                && reasons[1].contains("no llm builder")
                && reasons[2].contains("nobody")
        );
    }
}

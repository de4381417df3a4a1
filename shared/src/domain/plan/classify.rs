//! The forecast: every rule is asked, and the most restrictive answer holds. What a path needs is asked of the same
//! function that will judge the patch, so that the forecast cannot drift from the verdict.

use std::cmp::Reverse;

use crate::domain::anchor::{IntentionAnchorV2, Profile};
use crate::domain::change::{ChangeFacts, Entry, EntryPath, FileMode};
use crate::domain::evaluate::{Decision, PhaseScope, Verdict, Window, evaluate};
use crate::domain::gap::Gap;
use crate::domain::path::{MatchKey, PathSet};
use crate::domain::plan::{ActionType, ApprovalStatus};
use crate::domain::policy::Policy;

/// From which risk on actions are blocked, and below which they may be automatic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Blocked at or above.
    pub block: f64,
    /// Automatic below.
    pub auto: f64,
}

impl Thresholds {
    /// The thresholds of a profile.
    #[must_use]
    pub const fn of(profile: Profile) -> Self {
        match profile {
            Profile::Strict => Self { block: 0.5, auto: 0.2 },
            Profile::Normal => Self { block: 0.8, auto: 0.3 },
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) status: ApprovalStatus,
    /// A stable code.
    pub(super) rule: String,
    pub(super) why: String,
}

impl Finding {
    fn new(status: ApprovalStatus, rule: &str, why: impl Into<String>) -> Self {
        Self { status, rule: rule.to_owned(), why: why.into() }
    }

    pub(super) fn blocked(rule: &str, why: impl Into<String>) -> Self {
        Self::new(ApprovalStatus::Blocked, rule, why)
    }

    pub(super) fn asks(rule: &str, why: impl Into<String>) -> Self {
        Self::new(ApprovalStatus::RequiresApproval, rule, why)
    }
}

/// What is known of an action before it is classified.
pub(super) struct Candidate<'a> {
    pub(super) gap: &'a Gap,
    pub(super) action: ActionType,
    pub(super) risk: f64,
    pub(super) targets: &'a [String],
    /// Whether anybody can do it.
    pub(super) supported: bool,
    pub(super) first_build: bool,
    /// Whether the report says that the repository itself, or the scan of it, cannot be trusted.
    pub(super) in_doubt: bool,
    /// Some gap of the repository blocks automatic work: then none is (`predecessor.md` C-49).
    pub(super) blocked: bool,
    /// What the budget says.
    pub(super) budget: Option<Finding>,
}

/// Everything that holds for an action, worst first; never empty. The first decides.
pub(super) fn classify(
    candidate: &Candidate<'_>,
    anchor: &IntentionAnchorV2,
    verdict: Option<&Verdict>,
) -> Vec<Finding> {
    let thresholds = Thresholds::of(anchor.profile());
    let mut findings = Vec::new();
    if !candidate.supported {
        let why = format!("no builder takes gaps of type {}", candidate.gap.gap_type);
        findings.push(Finding::blocked("unsupported", why));
    }
    if candidate.risk >= thresholds.block {
        let why = format!("the risk {} is at or above {}", candidate.risk, thresholds.block);
        findings.push(Finding::blocked("risk_block", why));
    }
    findings.extend(verdict.into_iter().flat_map(of_verdict));
    findings.extend(of_gap(candidate));
    findings.extend(of_anchor(candidate, anchor));
    findings.extend(candidate.budget.clone());
    let restricts = |f: &Finding| f.status > ApprovalStatus::AutoApproved;
    if !findings.iter().any(restricts) {
        findings.insert(0, automatic(candidate, anchor, thresholds));
    }
    findings.sort_by_key(|finding| Reverse(finding.status));
    findings
}

/// What the paths need, as a patch of exactly these paths would be judged.
pub(super) fn judge(targets: &[String], policy: &Policy, anchor: &IntentionAnchorV2) -> Option<Verdict> {
    let entry = |path: &String| Entry::new(EntryPath::of(path.as_bytes()), FileMode::FILE, FileMode::FILE);
    let facts = ChangeFacts::from_entries(targets.iter().map(entry).collect());
    let (scope, window) = (PhaseScope::default(), Window::default());
    (!targets.is_empty()).then(|| evaluate(&facts, policy, Some(anchor), &scope, &window))
}

fn of_verdict(verdict: &Verdict) -> Vec<Finding> {
    let status = match verdict.verdict {
        Decision::Rejected | Decision::Blocked => ApprovalStatus::Blocked,
        Decision::ApprovalRequired | Decision::Conflict => ApprovalStatus::RequiresApproval,
        Decision::AutoApproved | Decision::NotifyAndProceed | Decision::NoChange => return vec![],
    };
    let alone = |reason: &crate::domain::reason::Reason| {
        let paths = reason.paths.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let numbers = reason.value.map(|value| match reason.limit {
            Some(limit) => format!("{value} is over {limit}"),
            None => value.to_string(),
        });
        let what = if paths.is_empty() { numbers.unwrap_or_default() } else { paths };
        let colon = if what.is_empty() { "" } else { ": " };
        let rule = reason.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
        let code = reason.code.as_str();
        Finding::new(status, code, format!("{code}{rule}{colon}{what}"))
    };
    verdict.reasons.iter().map(alone).collect()
}

fn of_gap(candidate: &Candidate<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if candidate.targets.is_empty() && candidate.supported {
        findings.push(Finding::asks("no_target_paths", "nobody can tell which paths it will change"));
    }
    let omitted = candidate.gap.evidence.omitted_paths;
    if omitted > 0 {
        findings.push(Finding::asks("more_targets", format!("{omitted} more files have the same fault")));
    }
    if candidate.gap.blocks_autopilot {
        findings.push(Finding::asks("gap_blocks_autopilot", "the gap blocks automatic work"));
    }
    if candidate.blocked && !candidate.in_doubt && !candidate.gap.blocks_autopilot {
        findings.push(Finding::asks("blocking_gap", "another gap of the repository blocks automatic work"));
    }
    if candidate.in_doubt {
        let why = "a detector failed or git's state is broken, so nothing is automatic";
        findings.push(Finding::asks("repository_in_doubt", why));
    }
    if candidate.first_build {
        findings.push(Finding::asks("first_build", "nothing is automatic in a first build"));
    }
    findings
}

fn of_anchor(candidate: &Candidate<'_>, anchor: &IntentionAnchorV2) -> Vec<Finding> {
    let pivot = anchor.pivot_intentions.safety_risk.as_ref();
    let entries = pivot.map_or(&[][..], |pivot| &pivot.requires_approval);
    let mut findings = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let rule = format!("anchor:safety_risk.requires_approval[{index}]");
        match holds(entry, candidate, Quantity::Any) {
            Some(true) => findings.push(Finding::asks("anchor_requires_approval", format!("{rule}: {entry}"))),
            Some(false) => {}
            // A control that nobody can check holds for everything.
            None => findings.push(Finding::asks(
                "anchor_requires_approval",
                format!("{rule} is no known predicate and so holds for every action: {entry}"),
            )),
        }
    }
    findings
}

/// How an action that nothing restricts becomes automatic, or why it does not.
fn automatic(candidate: &Candidate<'_>, anchor: &IntentionAnchorV2, thresholds: Thresholds) -> Finding {
    let review = anchor.pivot_intentions.governance_review.as_ref();
    let rules = review.map_or(&[][..], |review| &review.auto_approve_rules);
    let all = |conditions: &[String]| {
        !conditions.is_empty() && conditions.iter().all(|c| holds(c, candidate, Quantity::All) == Some(true))
    };
    if let Some(rule) = rules.iter().find(|rule| all(&rule.conditions)) {
        let why = format!("the anchor's rule {} allows it", rule.rule_id);
        return Finding::new(ApprovalStatus::AutoApproved, "auto_rule", why);
    }
    let harmless = matches!(candidate.action, ActionType::FileMove | ActionType::DocUpdate | ActionType::TidyApply);
    if candidate.risk < thresholds.auto && harmless {
        let why = format!("the risk {} is below {}", candidate.risk, thresholds.auto);
        return Finding::new(ApprovalStatus::AutoApproved, "auto_low_risk", why);
    }
    Finding::asks("default_deny", "no rule allows it")
}

/// Whether a predicate has to hold for all target paths or for one of them.
#[derive(Clone, Copy)]
enum Quantity {
    All,
    Any,
}

/// Whether a typed predicate holds: `path:GLOB`, `action:TYPE`, `gap:TYPE`, `risk<NUMBER`; none for anything else.
fn holds(predicate: &str, candidate: &Candidate<'_>, quantity: Quantity) -> Option<bool> {
    let predicate = predicate.trim();
    if let Some(number) = predicate.strip_prefix("risk<") {
        return number.trim().parse::<f64>().ok().map(|number| candidate.risk < number);
    }
    let (kind, value) = predicate.split_once(':')?;
    let value = value.trim();
    match kind {
        "action" => Some(candidate.action.as_str() == value),
        "gap" => Some(candidate.gap.gap_type.as_str() == value),
        "path" => {
            let set = PathSet::compile([value]).ok()?;
            let hit = |path: &String| set.find(&MatchKey::of(path).parts()).is_some();
            Some(match quantity {
                Quantity::All => !candidate.targets.is_empty() && candidate.targets.iter().all(hit),
                Quantity::Any => candidate.targets.iter().any(hit),
            })
        }
        _ => None,
    }
}

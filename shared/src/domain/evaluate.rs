//! The decision: a pure function of immutable inputs. It takes the maximum of everything that speaks against a change
//! and reports all of it.

mod findings;
mod link;
mod paths;
mod verdict;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anchor::{IntentionAnchorV2, Profile};
use super::change::{ChangeFacts, Entry, MAX_BINARY_BYTES, MAX_LINE_CHARS};
use super::path::{GlobError, PathRoots};
use super::policy::{PathClass, Policy};
use super::reason::{Reason, ReasonCode};
use super::score::{CategoryRisk, ScoreInput, Severity, score};

use findings::{Findings, Level};
use paths::PathRules;

pub use verdict::{Decision, FORMAT, Subject, Verdict};

/// Lines of one path class within the window above which a change no longer passes unseen.
pub const WINDOW_LIMIT: u64 = 1_000;

/// What a phase may do and what was said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhaseScope {
    /// The paths it may change; empty restricts nothing.
    pub paths: PathRoots,
    /// Its category (`feature`, `security`, ...).
    pub category: String,
    /// What it is about, in words.
    pub description: String,
    /// The risk its author claims; can only raise.
    pub claimed_risk: Option<Severity>,
    /// Whether it was built in the sandbox that was required; true where none was.
    pub sandboxed: bool,
}

impl Default for PhaseScope {
    fn default() -> Self {
        Self {
            paths: PathRoots::default(),
            category: "feature".to_owned(),
            description: String::new(),
            claimed_risk: None,
            sandboxed: true,
        }
    }
}

impl PhaseScope {
    /// The default scope, restricted to entries (`src/`, `docs/*.md`).
    ///
    /// # Errors
    /// [`GlobError`] for an entry that cannot be read.
    pub fn of_paths(entries: Vec<String>) -> Result<Self, GlobError> {
        Ok(Self { paths: PathRoots::new(entries)?, ..Self::default() })
    }
}

/// Lines that were already counted in one path class before this change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spent {
    /// In this run.
    pub run_size: u64,
    /// In this project over 24 hours.
    pub project_24h_size: u64,
}

/// What was already spent, by path class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Window(pub BTreeMap<PathClass, Spent>);

/// Decides about a change.
#[must_use]
pub fn evaluate(
    facts: &ChangeFacts,
    policy: &Policy,
    anchor: Option<&IntentionAnchorV2>,
    scope: &PhaseScope,
    window: &Window,
) -> Verdict {
    let digests = (policy.digest(), anchor.map(IntentionAnchorV2::digest));
    if facts.is_empty() {
        return Verdict::no_change(digests);
    }
    let mut findings = Findings::default();
    let rules = PathRules::new(policy, anchor, &scope.paths);
    let class_sizes = judge_entries(facts, &rules, &mut findings);
    judge_sums(facts, &mut findings);

    let category = CategoryRisk::of(&scope.category, &scope.description);
    let score = score(&ScoreInput {
        size: facts.size,
        removed: facts.removed,
        files: facts.files,
        dirs: facts.dirs,
        class: class_sizes.keys().next_back().copied().unwrap_or(PathClass::Allowed),
        odd_entry: facts.entries.iter().any(is_odd),
        category,
    });
    judge_score(score, category, &mut findings);
    if !scope.sandboxed {
        findings.add_flag(ReasonCode::Unsandboxed, None);
    }
    judge_window(&class_sizes, window, &mut findings);
    if Profile::of(anchor) == Profile::Strict && findings.has(Level::Notify) {
        findings.add_flag(ReasonCode::StrictProfile, None);
    }
    let severity = severity(&findings, facts, score);
    if let Some(claimed) = scope.claimed_risk.filter(|claimed| *claimed > severity) {
        let rule = format!("claimed {claimed}, computed {severity}");
        findings.add_flag(ReasonCode::ClaimedRisk, Some(rule));
    }
    Verdict::of(findings, facts.clone(), score, severity, class_sizes, digests)
}

/// Judges every entry, and what they collide in or exceed; returns the changed lines by class.
fn judge_entries(facts: &ChangeFacts, rules: &PathRules<'_>, findings: &mut Findings) -> BTreeMap<PathClass, u64> {
    let mut sizes = BTreeMap::new();
    for entry in &facts.entries {
        let class = rules.judge(entry, facts, findings);
        judge_content(entry, findings);
        *sizes.entry(class).or_insert(0) += entry.added + entry.removed;
    }
    for group in &facts.collisions {
        findings.add_paths(Level::Rejected, ReasonCode::CaseCollision, group.clone(), None);
    }
    for excess in &facts.excess {
        findings.add_number(Level::Rejected, ReasonCode::TooLarge, excess.value, excess.limit);
    }
    sizes
}

/// What the content and the mode of one entry say.
fn judge_content(entry: &Entry, findings: &mut Findings) {
    let path = || entry.path.shown().to_owned();
    let exists = entry.new_mode.0 != 0;
    if exists && (!entry.new_mode.is_valid() || entry.odd_mode) {
        findings.add_path(Level::Rejected, ReasonCode::ModeInvalid, path(), None);
    } else if entry.changes_mode() {
        findings.add_path(Level::Approval, ReasonCode::ModeChange, path(), None);
    }
    if entry.is_gitlink() {
        findings.add_path(Level::Blocked, ReasonCode::Gitlink, path(), None);
    }
    if entry.binary {
        findings.add_path(Level::Approval, ReasonCode::Binary, path(), None);
    }
    if entry.new_binary && entry.bytes > MAX_BINARY_BYTES {
        let reason =
            Reason { paths: vec![path()], ..Reason::of_number(ReasonCode::Binary, entry.bytes, MAX_BINARY_BYTES) };
        findings.add(Level::Rejected, reason);
    }
    if entry.longest_line > MAX_LINE_CHARS {
        let reason = Reason {
            paths: vec![path()],
            ..Reason::of_number(ReasonCode::LongLine, entry.longest_line, MAX_LINE_CHARS)
        };
        findings.add(Level::Approval, reason);
    }
    for hit in &entry.secrets {
        let rule = Some(format!("{} in line {}: {}", hit.rule, hit.line, hit.redacted));
        findings.add_path(Level::Blocked, ReasonCode::SecretDetected, path(), rule);
    }
}

fn is_odd(entry: &Entry) -> bool {
    entry.binary || entry.is_new_symlink() || entry.changes_mode()
}

/// The ladders: of each only the highest rung is reported.
fn judge_sums(facts: &ChangeFacts, findings: &mut Findings) {
    use ReasonCode::{DirsOver3, FilesOver5, FilesOver20, RemovedOver50, RemovedOver200, SizeOver100, SizeOver200};
    type Rung = (u64, Level, ReasonCode);
    let ladders: [(u64, &[Rung]); 4] = [
        (facts.size, &[(200, Level::Approval, SizeOver200), (100, Level::Notify, SizeOver100)]),
        (facts.removed, &[(200, Level::Approval, RemovedOver200), (50, Level::Approval, RemovedOver50)]),
        (facts.files, &[(20, Level::Approval, FilesOver20), (5, Level::Notify, FilesOver5)]),
        (facts.dirs, &[(3, Level::Notify, DirsOver3)]),
    ];
    for (value, rungs) in ladders {
        if let Some((limit, level, code)) = rungs.iter().find(|(limit, _, _)| value > *limit) {
            findings.add_number(*level, *code, value, *limit);
        }
    }
}

fn judge_score(score: u8, category: CategoryRisk, findings: &mut Findings) {
    match score {
        0..=29 => {}
        30..=49 => findings.add_number(Level::Notify, ReasonCode::ScoreMedium, u64::from(score), 29),
        50.. => findings.add_number(Level::Approval, ReasonCode::ScoreHigh, u64::from(score), 49),
    }
    match category {
        CategoryRisk::High => findings.add_flag(ReasonCode::CategoryHigh, None),
        CategoryRisk::Medium | CategoryRisk::None => {}
    }
}

/// Many small changes in a row: what would pass is told, what would be told is asked.
fn judge_window(sizes: &BTreeMap<PathClass, u64>, window: &Window, findings: &mut Findings) {
    let sum = |(class, size): (&PathClass, &u64)| {
        let spent = window.0.get(class).copied().unwrap_or_default();
        size.saturating_add(spent.run_size.max(spent.project_24h_size))
    };
    let Some(total) = sizes.iter().map(sum).max().filter(|total| *total > WINDOW_LIMIT) else {
        return;
    };
    let level = if findings.has(Level::Notify) { Level::Approval } else { Level::Notify };
    findings.add_number(level, ReasonCode::BudgetWindow, total, WINDOW_LIMIT);
}

fn severity(findings: &Findings, facts: &ChangeFacts, score: u8) -> Severity {
    if findings.level() == Level::Blocked || facts.removed > 200 {
        Severity::Critical
    } else {
        Severity::of_score(score)
    }
}

#[cfg(test)]
mod tests;

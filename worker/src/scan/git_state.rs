//! `git_state_corruption`: references, the tree of HEAD or the index do not resolve, or an operation is half done.

use autopack_shared::domain::gap::{Excerpt, Gap, GapType, RiskClass};
use autopack_shared::repo::status::ChangeKind;

use super::detector::{DetectorError, list};
use super::facts::Facts;
use super::listing::escape;

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let mut gaps = Vec::new();
    let problems = facts.problems.as_ref().map_err(|why| DetectorError(why.clone()))?;
    if !problems.is_empty() {
        gaps.push(broken(problems));
    }
    if let Some(operation) = facts.checkout.operation {
        gaps.push(half_done(facts, operation));
    }
    Ok(gaps)
}

fn broken(problems: &[String]) -> Gap {
    let mut gap = Gap::new(GapType::GitStateCorruption, RiskClass::Critical, problems);
    gap.title = Some(format!("The repository is not whole: {} problem(s)", problems.len()));
    gap.description = Some("Objects that are named are missing or damaged. Work built on them can be lost.".to_owned());
    gap.detection_signals = problems.iter().take(10).cloned().collect();
    gap.evidence.excerpts = problems.iter().take(10).map(|p| Excerpt::new(".git", p)).collect();
    gap.safe_remediation.approach =
        Some("Run `git fsck --full`, then fetch the missing objects from another clone.".to_owned());
    gap
}

fn half_done(facts: &Facts<'_>, operation: &str) -> Gap {
    let mut gap = Gap::new(GapType::GitStateCorruption, RiskClass::High, &[format!("in_progress:{operation}")]);
    gap.title = Some(format!("A {operation} is in progress"));
    gap.description = Some("The work tree is between two states; what it holds now is nobody's intention.".to_owned());
    gap.detection_signals = vec![format!("in_progress: {operation}")];
    let conflicted = facts.changes.iter().flatten().filter(|c| c.kind == ChangeKind::Conflicted);
    list(&mut gap, conflicted.map(|c| escape(&c.path)).collect(), facts.options.limits.evidence);
    gap.safe_remediation.approach = Some(match operation {
        "bisect" => "Finish it with `git bisect reset`.".to_owned(),
        other => format!("Finish it with `git {other} --continue`, or undo it with `git {other} --abort`."),
    });
    gap
}

//! The detectors and how they are run: each looks at the same facts, and one that fails is a gap itself. Silence
//! always means that somebody looked.

use std::panic::{AssertUnwindSafe, catch_unwind};

use autopack_shared::domain::gap::{Excerpt, Gap, GapType, RiskClass};

use super::facts::{Facts, panic_text};
use super::{
    baseline, conflicts, db_lock, doc_drift, encoding, git_state, memory_budget, protected, root_clutter,
    sot_duplicate, test_infra,
};

/// Why a detector could not look.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DetectorError(pub(super) String);

type Detect = fn(&Facts<'_>) -> Result<Vec<Gap>, DetectorError>;

/// Every detector with its name, which is part of the ids of its failures.
const ALL: [(&str, Detect); 12] = [
    ("git_state", git_state::detect),
    ("doc_drift", doc_drift::detect),
    ("root_clutter", root_clutter::detect),
    ("sot_duplicate", sot_duplicate::detect),
    ("encoding", encoding::detect),
    ("baseline_policy", baseline::detect),
    ("test_infra", test_infra::detect),
    ("memory_budget", memory_budget::detect),
    ("protected_path", protected::detect),
    ("db_lock", db_lock::detect),
    ("conflict_marks", conflicts::detect),
    ("read_text", unreadable),
];

/// Runs every detector.
pub(super) fn run_all(facts: &Facts<'_>) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = ALL.iter().flat_map(|(name, detect)| run(name, *detect, facts)).collect();
    if let Err(why) = &facts.digest {
        gaps.push(failure("workspace_digest", why));
    }
    gaps
}

fn run(name: &str, detect: Detect, facts: &Facts<'_>) -> Vec<Gap> {
    let result = catch_unwind(AssertUnwindSafe(|| detect(facts)));
    let result = result.unwrap_or_else(|panic| Err(DetectorError(panic_text(&*panic))));
    result.unwrap_or_else(|error| vec![failure(name, &error.0)])
}

/// The gap that a detector's failure is.
fn failure(name: &str, why: &str) -> Gap {
    let mut gap = Gap::new(GapType::Unknown, RiskClass::High, &[format!("detector_failed:{name}")]);
    gap.title = Some(format!("The detector {name} failed"));
    gap.description = Some("Nobody can say whether the tree has gaps of this kind until it works.".to_owned());
    gap.detection_signals = vec![format!("detector_failed: {name}")];
    gap.evidence.excerpts = vec![Excerpt::new(name, why)];
    gap
}

/// Files whose text no detector has seen.
fn unreadable(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    if facts.unreadable.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = facts.unreadable.keys().cloned().collect();
    let mut gap = failure("read_text", "some files cannot be read");
    gap.gap_id = Gap::new(GapType::Unknown, RiskClass::High, &names).gap_id;
    gap.title = Some(format!("{} text file(s) cannot be read", names.len()));
    gap.evidence.excerpts = facts.unreadable.iter().take(10).map(|(name, why)| Excerpt::new(name, why)).collect();
    list(&mut gap, names, facts.options.limits.evidence);
    Ok(vec![gap])
}

/// Puts files into the evidence, at most `most`; the rest is counted and said.
pub(super) fn list(gap: &mut Gap, mut names: Vec<String>, most: usize) {
    let all = names.len();
    names.truncate(most);
    gap.evidence.omitted_paths = (all - names.len()) as u64;
    if all > names.len() {
        gap.detection_signals.push(format!("truncated: {} of {all} are listed", names.len()));
    }
    gap.evidence.file_paths = names;
}

/// Sorted, each once.
pub(super) fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names.dedup();
    names
}

//! `db_lock_contention`: the lock file of a database lies around.

use autopack_shared::domain::gap::{Gap, GapType, RiskClass};

use super::detector::{DetectorError, list, sorted};
use super::facts::Facts;

/// Where the predecessor keeps its locks; ignored files, so they are looked for by name.
const PLACES: [&str; 3] = ["autopack.db-lock", ".autopack/autopack.db-lock", ".autonomous_runs/autopack.db-lock"];

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let listed = facts.listing()?.entries().iter().map(|e| &e.name).filter(|n| n.ends_with(".db-lock"));
    let ignored = PLACES.iter().filter(|path| facts.tree.exists(path)).map(|path| (*path).to_owned());
    let locks = sorted(listed.cloned().chain(ignored).collect());
    if locks.is_empty() {
        return Ok(Vec::new());
    }
    let mut gap = Gap::new(GapType::DbLockContention, RiskClass::High, &locks);
    gap.title = Some(format!("{} database lock file(s) exist", locks.len()));
    gap.detection_signals = locks.iter().take(10).map(|lock| format!("lock_file: {lock}")).collect();
    gap.safe_remediation.approach =
        Some("Make sure that no process uses the database, then remove the lock.".to_owned());
    gap.safe_remediation.estimated_actions = Some(1);
    list(&mut gap, locks, facts.options.limits.evidence);
    Ok(vec![gap])
}

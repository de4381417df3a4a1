//! `unknown`: marks of an unresolved conflict in text files. What no other kind describes ends up here.

use autopack_shared::domain::gap::{Excerpt, Gap, GapType, RiskClass};

use super::detector::{DetectorError, list};
use super::facts::Facts;
use super::names;

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    facts.listing()?;
    let hits: Vec<(&String, usize)> = facts
        .contents
        .iter()
        .filter_map(|(name, content)| Some((name, content.conflict?)))
        .filter(|(name, _)| !names::is_specimen(name) && facts.concerns(name))
        .collect();
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = hits.iter().map(|(name, _)| (*name).clone()).collect();
    let mut gap = Gap::new(GapType::Unknown, RiskClass::High, &names);
    gap.title = Some(format!("{} file(s) hold marks of an unresolved conflict", hits.len()));
    gap.detection_signals = vec![format!("conflict_marks: {}", hits.len())];
    let told = hits.iter().take(10);
    gap.evidence.excerpts =
        told.map(|(name, line)| Excerpt::new(format!("{name}:{line}"), "<<<<<<< ======= >>>>>>>")).collect();
    gap.safe_remediation.approach = Some("Resolve the conflicts.".to_owned());
    list(&mut gap, names, facts.options.limits.evidence);
    Ok(vec![gap])
}

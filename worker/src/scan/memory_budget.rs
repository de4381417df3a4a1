//! `memory_budget_cap_issue`: Markdown too large to be read into a builder's context.

use autopack_shared::domain::gap::{Excerpt, Gap, GapType, RiskClass};

use super::detector::{DetectorError, list};
use super::facts::Facts;
use super::names;

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    facts.listing()?;
    let limits = facts.options.limits;
    let large: Vec<(&String, u64)> = facts
        .contents
        .iter()
        .filter(|(name, c)| c.size > limits.document_bytes && names::is_markdown(name))
        .filter(|(name, _)| !names::is_specimen(name) && facts.concerns(name))
        .map(|(name, c)| (name, c.size))
        .collect();
    if large.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> = large.iter().map(|(name, _)| (*name).clone()).collect();
    let mut gap = Gap::new(GapType::MemoryBudgetCapIssue, RiskClass::Medium, &names);
    gap.title = Some(format!("{} document(s) are larger than {} bytes", large.len(), limits.document_bytes));
    gap.detection_signals = vec![format!("oversized_documents: {}", large.len())];
    gap.evidence.excerpts =
        large.iter().take(10).map(|(name, size)| Excerpt::new(*name, &format!("{size} bytes"))).collect();
    gap.safe_remediation.approach = Some("Split each by its chapters.".to_owned());
    gap.safe_remediation.estimated_actions = Some(large.len() as u64);
    list(&mut gap, names, limits.evidence);
    Ok(vec![gap])
}

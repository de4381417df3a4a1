//! `doc_drift`: relative links in Markdown that lead to nothing in the tree. Links whose target is the only file of
//! that name elsewhere are one gap, which can be repaired; the others are a second one, which needs a decision.

use autopack_shared::domain::gap::{Excerpt, Gap, GapType, RiskClass};

use super::detector::{DetectorError, list, sorted};
use super::facts::Facts;
use super::names;

struct Broken<'a> {
    file: &'a str,
    line: usize,
    target: &'a str,
    meant: Option<&'a str>,
}

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let listing = facts.listing()?;
    let mut broken = Vec::new();
    for (file, content) in &facts.contents {
        if content.links.is_empty() || names::is_specimen(file) {
            continue;
        }
        for link in content.links.iter().filter(|link| listing.find(&link.target).is_none()) {
            if !facts.concerns(file) && !facts.concerns(&link.target) {
                continue;
            }
            let namesake = listing.only_namesake(file, &link.target);
            let meant = namesake.filter(|_| !link.folder);
            broken.push(Broken { file, line: link.line, target: &link.target, meant });
        }
    }
    let (sure, unsure): (Vec<_>, Vec<_>) = broken.into_iter().partition(|b| b.meant.is_some());
    let mut gaps = Vec::new();
    if !sure.is_empty() {
        gaps.push(repairable(facts, &sure));
    }
    if !unsure.is_empty() {
        gaps.push(undecided(facts, &unsure));
    }
    Ok(gaps)
}

fn repairable(facts: &Facts<'_>, broken: &[Broken<'_>]) -> Gap {
    let mut gap = gap_of(broken, facts.options.limits.targets);
    gap.title = Some(format!("{} broken link(s) in documents can be repaired", broken.len()));
    gap.detection_signals.insert(0, format!("broken_links: {}", broken.len()));
    gap.safe_remediation.approach = Some("Point each link to the only file of that name in the tree.".to_owned());
    gap.safe_remediation.estimated_actions = Some(broken.len() as u64);
    gap.safe_remediation.target_paths = Some(gap.evidence.file_paths.clone());
    gap
}

fn undecided(facts: &Facts<'_>, broken: &[Broken<'_>]) -> Gap {
    let mut gap = gap_of(broken, facts.options.limits.evidence);
    gap.title = Some(format!("{} broken link(s) in documents have no certain target", broken.len()));
    gap.detection_signals.insert(0, format!("broken_links_undecided: {}", broken.len()));
    gap.safe_remediation.approach = Some("Write the missing document, or correct or drop the link.".to_owned());
    gap.safe_remediation.estimated_actions = Some(broken.len() as u64);
    gap
}

fn gap_of(broken: &[Broken<'_>], most: usize) -> Gap {
    let inputs: Vec<String> = broken.iter().map(|b| format!("{} -> {}", b.file, b.target)).collect();
    let mut gap = Gap::new(GapType::DocDrift, RiskClass::Medium, &sorted(inputs));
    list(&mut gap, sorted(broken.iter().map(|b| b.file.to_owned()).collect()), most);
    let told = broken.iter().filter(|b| gap.evidence.file_paths.iter().any(|f| f == b.file));
    gap.evidence.excerpts = told
        .take(10)
        .map(|b| {
            let meant = b.meant.map_or_else(|| "?".to_owned(), str::to_owned);
            Excerpt::new(format!("{}:{}", b.file, b.line), &format!("{} -> {meant}", b.target))
        })
        .collect();
    gap
}

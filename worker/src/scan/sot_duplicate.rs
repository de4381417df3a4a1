//! `sot_duplicate`: one document kept twice, byte for byte. One gap a set of copies; the first file of its evidence
//! is the one to keep.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use autopack_shared::domain::gap::{Gap, GapType, RiskClass};

use super::detector::{DetectorError, list, sorted};
use super::facts::Facts;
use super::listing::{Found, Listing};
use super::{names, root_clutter};

/// Shorter documents are equal by chance.
const SHORTEST: u64 = 64;

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let listing = facts.listing()?;
    let mut sets = copies(facts, listing);
    sets.retain(|set| set.iter().any(|name| facts.concerns(name)));
    Ok(sets.into_iter().map(|set| gap(facts, listing, &set)).collect())
}

/// The copies that are to be removed.
pub(super) fn surplus<'a>(facts: &'a Facts<'_>, listing: &Listing) -> BTreeSet<&'a str> {
    copies(facts, listing).into_iter().flat_map(|set| set.into_iter().skip(1)).collect()
}

/// Sets of equal documents, the one to keep first: in `docs/`, else the one most links lead to.
fn copies<'a>(facts: &'a Facts<'_>, listing: &Listing) -> Vec<Vec<&'a str>> {
    let mut sets: HashMap<[u8; 32], Vec<&str>> = HashMap::new();
    for (name, content) in &facts.contents {
        if let Some(hash) = content.sha256.filter(|_| content.size >= SHORTEST) {
            sets.entry(hash).or_default().push(name);
        }
    }
    // Most documents have no equal: names are looked at where one has.
    sets.retain(|_, set| set.len() > 1);
    let removable =
        |name: &&str| names::is_removable_copy(name) && listing.entry(name).is_some_and(|e| e.raw.is_none());
    for set in sets.values_mut() {
        set.retain(removable);
    }
    sets.retain(|_, set| set.len() > 1);
    if sets.is_empty() {
        return Vec::new();
    }
    let linked = inbound(facts, listing);
    let mut sets: Vec<Vec<&str>> = sets.into_values().collect();
    for set in &mut sets {
        set.sort_by_key(|name| {
            let in_docs = name.to_ascii_lowercase().starts_with("docs/");
            let links = linked.get(name).copied().unwrap_or(0);
            (Reverse(in_docs), Reverse(links), name.matches('/').count(), *name)
        });
    }
    sets.sort();
    sets
}

fn gap(facts: &Facts<'_>, listing: &Listing, set: &[&str]) -> Gap {
    let names: Vec<String> = set.iter().map(|name| (*name).to_owned()).collect();
    let mut gap = Gap::new(GapType::SotDuplicate, RiskClass::Medium, &names);
    gap.title = Some(format!("{} is kept {} times", names[0], names.len()));
    gap.detection_signals = vec![format!("identical_copies: {}", names.len()), format!("keep: {}", names[0])];
    list(&mut gap, names, facts.options.limits.targets);
    let kept = gap.evidence.file_paths[0].clone();
    let removed = gap.evidence.file_paths[1..].to_vec();
    let mut targets = root_clutter::linking(facts, listing, &removed);
    targets.retain(|name| !removed.contains(name));
    gap.safe_remediation.approach = Some(format!("Keep {kept}, remove the copies and point links to them to it."));
    gap.safe_remediation.estimated_actions = Some(removed.len() as u64);
    targets.extend(removed);
    gap.safe_remediation.target_paths = Some(sorted(targets));
    gap
}

/// How many links lead to each file.
fn inbound<'a>(facts: &Facts<'_>, listing: &'a Listing) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for link in facts.contents.values().flat_map(|c| &c.links) {
        if let Some(Found::File(name)) = listing.find(&link.target) {
            *counts.entry(name).or_default() += 1;
        }
    }
    counts
}

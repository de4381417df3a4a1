//! `windows_encoding_issue`: text that is not UTF-8. What can be converted without a doubt is one gap, the rest a
//! second one; names that are not UTF-8 are a third, because no change to such a file can ever be accepted.

use autopack_shared::domain::gap::{Excerpt, Gap, GapType, RiskClass};

use super::charset::Charset;
use super::detector::{DetectorError, list};
use super::facts::Facts;
use super::names;

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let listing = facts.listing()?;
    let (mut sure, mut unsure) = (Vec::new(), Vec::new());
    for (name, content) in &facts.contents {
        if content.charset == Charset::Utf8 || names::is_specimen(name) || !facts.concerns(name) {
            continue;
        }
        match content.charset {
            Charset::Utf8 | Charset::Declared => {}
            Charset::Convertible(from) => sure.push((name.clone(), from)),
            Charset::Unclear(why) => unsure.push((name.clone(), why)),
        }
    }
    // A file whose name no change may touch cannot be converted either.
    let odd = |name: &str| listing.entries().iter().any(|e| e.raw.is_some() && e.name == name);
    let (odd_names, sure): (Vec<_>, Vec<_>) = sure.into_iter().partition(|(name, _)| odd(name));
    unsure.extend(odd_names.into_iter().map(|(name, _)| (name, "the name is not UTF-8 either")));
    unsure.sort();
    let mut gaps = Vec::new();
    if !sure.is_empty() {
        let mut gap = gap(&sure, facts.options.limits.targets);
        gap.title = Some(format!("{} text file(s) are not UTF-8", sure.len()));
        gap.safe_remediation.approach = Some("Write the same text as UTF-8.".to_owned());
        gap.safe_remediation.target_paths = Some(gap.evidence.file_paths.clone());
        gaps.push(gap);
    }
    if !unsure.is_empty() {
        let mut gap = gap(&unsure, facts.options.limits.evidence);
        gap.title = Some(format!("{} text file(s) are neither UTF-8 nor certain to convert", unsure.len()));
        gap.safe_remediation.approach = Some("Find out the encoding and convert them by hand.".to_owned());
        gaps.push(gap);
    }
    gaps.extend(names_gap(facts)?);
    Ok(gaps)
}

fn gap(files: &[(String, &str)], most: usize) -> Gap {
    let names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    let mut gap = Gap::new(GapType::WindowsEncodingIssue, RiskClass::High, &names);
    gap.detection_signals = vec![format!("not_utf8: {}", names.len())];
    list(&mut gap, names, most);
    gap.evidence.excerpts = files.iter().take(10).map(|(name, what)| Excerpt::new(name, what)).collect();
    gap.safe_remediation.estimated_actions = Some(gap.evidence.file_paths.len() as u64);
    gap
}

fn names_gap(facts: &Facts<'_>) -> Result<Option<Gap>, DetectorError> {
    let odd = facts.listing()?.entries().iter().filter(|e| e.raw.is_some() && facts.concerns(&e.name));
    let odd: Vec<String> = odd.map(|e| e.name.clone()).collect();
    if odd.is_empty() {
        return Ok(None);
    }
    let inputs: Vec<String> = odd.iter().map(|name| format!("name:{name}")).collect();
    let mut gap = Gap::new(GapType::WindowsEncodingIssue, RiskClass::Medium, &inputs);
    gap.title = Some(format!("{} file name(s) are not UTF-8", odd.len()));
    gap.description = Some("Changes to files with such names are always refused.".to_owned());
    gap.detection_signals = vec![format!("name_not_utf8: {}", odd.len())];
    gap.safe_remediation.approach = Some("Rename them by hand.".to_owned());
    list(&mut gap, odd, facts.options.limits.evidence);
    Ok(Some(gap))
}

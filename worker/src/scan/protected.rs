//! `protected_path_violation`: uncommitted changes where changes need somebody's consent.

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::gap::{Gap, GapType, RiskClass};

use super::detector::{DetectorError, list};
use super::facts::Facts;
use super::listing::escape;

/// The predecessor's protected folders.
pub(super) fn by_default(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    path.contains('/')
        && ["docs", "config", ".github"]
            .iter()
            .any(|p| first.eq_ignore_ascii_case(p))
}

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let changes = facts
        .changes
        .as_ref()
        .map_err(|why| DetectorError(why.clone()))?;
    let paths = changes.iter().map(|c| escape(&c.path));
    let paths: Vec<String> = paths
        .filter(|path| (facts.options.protected)(path))
        .collect();
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let mut gap = Gap::new(GapType::ProtectedPathViolation, RiskClass::High, &paths);
    gap.title = Some(format!(
        "{} uncommitted change(s) under protected paths",
        paths.len()
    ));
    gap.detection_signals = vec![format!("uncommitted_protected: {}", paths.len())];
    gap.safe_remediation.approach = Some("Review them, then commit or undo them.".to_owned());
    gap.safe_remediation.estimated_actions = Some(paths.len() as u64);
    list(&mut gap, paths, facts.options.limits.evidence);
    Ok(vec![gap])
}

/// The anchor's protected paths.
pub(super) fn by_anchor(anchor: &IntentionAnchorV2) -> impl Fn(&str) -> bool + '_ {
    let roots = anchor.protected_paths().iter().map(|p| {
        p.trim_end_matches("**")
            .trim_end_matches('/')
            .to_lowercase()
    });
    let roots: Vec<String> = roots.collect();
    move |path| {
        let path = path.to_lowercase();
        roots.iter().any(|root| {
            path.strip_prefix(root.as_str())
                .is_some_and(|r| r.is_empty() || r.starts_with('/'))
        })
    }
}

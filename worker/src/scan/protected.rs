//! `protected_path_violation`: uncommitted changes where changes need somebody's consent.

use std::sync::Arc;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::gap::{Gap, GapType, RiskClass};
use autopack_shared::domain::path::{MatchKey, PathRoots};
use autopack_shared::domain::policy::{PathClass, Policy};

use super::IsProtected;
use super::detector::{DetectorError, list};
use super::facts::Facts;
use super::listing::escape;

/// The predecessor's protected folders.
pub(super) fn by_default(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    path.contains('/') && ["docs", "config", ".github"].iter().any(|p| first.eq_ignore_ascii_case(p))
}

pub(super) fn detect(facts: &Facts<'_>) -> Result<Vec<Gap>, DetectorError> {
    let changes = facts.changes.as_ref().map_err(|why| DetectorError(why.clone()))?;
    let paths = changes.iter().map(|c| escape(&c.path));
    let paths: Vec<String> = paths.filter(|path| (facts.options.protected)(path)).collect();
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let mut gap = Gap::new(GapType::ProtectedPathViolation, RiskClass::High, &paths);
    gap.title = Some(format!("{} uncommitted change(s) under protected paths", paths.len()));
    gap.detection_signals = vec![format!("uncommitted_protected: {}", paths.len())];
    gap.safe_remediation.approach = Some("Review them, then commit or undo them.".to_owned());
    gap.safe_remediation.estimated_actions = Some(paths.len() as u64);
    list(&mut gap, paths, facts.options.limits.evidence);
    Ok(vec![gap])
}

/// Protected as a policy and an anchor list it. What no list names is not: a new file is nobody's violation.
#[must_use]
pub fn protected_by(policy: Policy, anchor: Option<&IntentionAnchorV2>) -> IsProtected {
    let guards = guards(anchor);
    Arc::new(move |path| {
        let key = MatchKey::of(path);
        let listed = match policy.classify(&key.parts()).0 {
            PathClass::Protected | PathClass::Never | PathClass::Forbidden => true,
            PathClass::Allowed | PathClass::Unlisted => false,
        };
        listed || guards.find_guard(&key.parts()).is_some()
    })
}

/// The anchor's protected paths.
pub(super) fn by_anchor(anchor: &IntentionAnchorV2) -> impl Fn(&str) -> bool {
    let guards = guards(Some(anchor));
    move |path| guards.find_guard(&MatchKey::of(path).parts()).is_some()
}

fn guards(anchor: Option<&IntentionAnchorV2>) -> PathRoots {
    let entries = anchor.map_or(&[][..], IntentionAnchorV2::protected_paths);
    // An anchor's entries were checked when it was read.
    PathRoots::new(entries.to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_protect_and_silence_does_not() {
        let protected = protected_by(Policy::builtin(), None);
        for path in ["docs/a.md", "Docs/a.md", "tests/x.py", ".env", "sub/Cargo.toml"] {
            assert!(protected(path), "{path}");
        }
        for path in ["src/lib.rs", "NOTES.md", "examples/a.md"] {
            assert!(!protected(path), "{path}");
        }
    }
}

//! What the paths of an entry say: its own, those it was copied from, and where it leads if it is a link.

use crate::domain::anchor::IntentionAnchorV2;
use crate::domain::change::{ChangeFacts, Entry, EntryPath, FileMode};
use crate::domain::path::{MatchKey, PathRoots, PathSet, RepoPath};
use crate::domain::policy::{PathClass, Policy};
use crate::domain::reason::ReasonCode;

use super::findings::{Findings, Level};

/// The lists that hold for one evaluation.
pub(super) struct PathRules<'a> {
    pub(super) policy: &'a Policy,
    scope: &'a PathRoots,
    write_roots: PathRoots,
    pub(super) protected: PathRoots,
    never_allow: PathSet,
}

/// What the lists say about one path.
pub(super) struct Classified {
    pub(super) class: PathClass,
    /// The reasons, worst first, each with its rule. Empty for an allowed path.
    pub(super) reasons: Vec<(ReasonCode, Option<String>)>,
}

impl<'a> PathRules<'a> {
    /// Compiles the lists of the anchor. They were checked when it was read; should one be broken all the same, it
    /// protects everything and opens nothing.
    pub(super) fn new(policy: &'a Policy, anchor: Option<&IntentionAnchorV2>, scope: &'a PathRoots) -> Self {
        let roots = |entries: &[String]| PathRoots::new(entries.to_vec());
        let everything = || roots(&[".".to_owned()]).unwrap_or_default();
        let never_allow = anchor.map_or(&[][..], IntentionAnchorV2::never_allow);
        let never_allow = never_allow.iter().map(|rule| rule.strip_prefix("path:").unwrap_or(rule));
        Self {
            policy,
            scope,
            write_roots: roots(anchor.map_or(&[], IntentionAnchorV2::allowed_write_roots)).unwrap_or_default(),
            protected: roots(anchor.map_or(&[], IntentionAnchorV2::protected_paths)).unwrap_or_else(|_| everything()),
            never_allow: PathSet::compile(never_allow).or_else(|_| PathSet::compile(["**"])).unwrap_or_default(),
        }
    }

    /// Classifies a folded path. Deny wins over allow, and the anchor's write roots open only what no list names.
    pub(super) fn classify(&self, parts: &[&str]) -> Classified {
        let (listed, rule) = self.policy.classify(parts);
        let origin = rule.map(|rule| rule.origin.clone());
        let guard = self.protected.find_guard(parts);
        let mut reasons = Vec::new();
        match listed {
            PathClass::Forbidden | PathClass::Never => reasons.push((ReasonCode::PathNever, origin)),
            PathClass::Protected => reasons.push((ReasonCode::PathProtected, origin)),
            PathClass::Unlisted | PathClass::Allowed => {}
        }
        if let Some(index) = guard {
            reasons.push((ReasonCode::AnchorProtected, Some(protected_origin(index))));
        }
        let class = match listed {
            PathClass::Unlisted if guard.is_none() => {
                if self.write_roots.find(parts).is_some() {
                    PathClass::Allowed
                } else {
                    reasons.push((ReasonCode::PathDefaultDeny, None));
                    PathClass::Unlisted
                }
            }
            PathClass::Unlisted | PathClass::Allowed if guard.is_some() => PathClass::Protected,
            PathClass::Unlisted
            | PathClass::Allowed
            | PathClass::Protected
            | PathClass::Never
            | PathClass::Forbidden => listed,
        };
        Classified { class, reasons }
    }

    /// Judges one entry by its paths and returns the most severe class among them.
    pub(super) fn judge(&self, entry: &Entry, facts: &ChangeFacts, findings: &mut Findings) -> PathClass {
        let shown = || entry.path.shown().to_owned();
        if entry.below_symlink {
            findings.add_path(Level::Rejected, ReasonCode::SymlinkTraversal, shown(), None);
        }
        if entry.below_gitlink {
            findings.add_path(Level::Rejected, ReasonCode::Gitlink, shown(), None);
        }
        let own = match &entry.path {
            EntryPath::Safe(path) => self.judge_safe(path, findings),
            EntryPath::Refused { unsafe_because, git_internal, .. } => {
                if let Some(why) = unsafe_because {
                    findings.add_path(Level::Rejected, ReasonCode::UnsafePath, shown(), Some((*why).to_owned()));
                }
                if *git_internal {
                    findings.add_path(Level::Rejected, ReasonCode::GitInternal, shown(), None);
                }
                PathClass::Forbidden
            }
        };
        let submodule = if entry.is_gitlink() { PathClass::Never } else { PathClass::Allowed };
        let copied = self.judge_origins(entry, facts, findings);
        let linked = self.judge_link(entry, findings);
        own.max(submodule).max(copied).max(linked)
    }

    fn judge_safe(&self, path: &RepoPath, findings: &mut Findings) -> PathClass {
        let key = path.key();
        let parts = key.parts();
        if let Some(index) = self.never_allow.find(&parts) {
            let rule = Some(format!("anchor:safety_risk.never_allow[{index}]"));
            findings.add_path(Level::Rejected, ReasonCode::NeverAllow, path.to_string(), rule);
        }
        if !self.scope.is_empty() && self.scope.find(&parts).is_none() {
            findings.add_path(Level::Blocked, ReasonCode::OutOfScope, path.to_string(), None);
        }
        let classified = self.classify(&parts);
        for (code, rule) in classified.reasons {
            findings.add_path(level_of(code), code, path.to_string(), rule);
        }
        classified.class
    }

    /// New content that the base already has under a listed path is judged by that path too.
    fn judge_origins(&self, entry: &Entry, facts: &ChangeFacts, findings: &mut Findings) -> PathClass {
        let origins =
            entry.new_id.filter(|_| entry.new_mode != FileMode::GITLINK).and_then(|id| facts.origins.get(&id));
        let mut worst = PathClass::Allowed;
        for origin in origins.into_iter().flatten() {
            let key = origin.key();
            let classified = self.classify(&key.parts());
            let is_listed = |code: &ReasonCode| *code != ReasonCode::PathDefaultDeny;
            for (code, rule) in classified.reasons.into_iter().filter(|(code, _)| is_listed(code)) {
                findings.add_path(level_of(code), code, entry.path.shown().to_owned(), rule);
                worst = worst.max(classified.class);
            }
        }
        worst
    }

    /// Whether something below a folder is, or would be, on a list; and why.
    pub(super) fn guarded_below(&self, folder: &str) -> Option<(ReasonCode, Option<String>)> {
        let key = MatchKey::of(folder);
        let parts = key.parts();
        let never = self.policy.never().find_rooted_below(&parts);
        let protected = self.policy.protected().find_rooted_below(&parts);
        never
            .map(|rule| (ReasonCode::PathNever, Some(rule.origin.clone())))
            .or_else(|| protected.map(|rule| (ReasonCode::PathProtected, Some(rule.origin.clone()))))
            .or_else(|| {
                self.protected
                    .find_rooted_below(&parts)
                    .map(|index| (ReasonCode::AnchorProtected, Some(protected_origin(index))))
            })
    }
}

fn protected_origin(index: usize) -> String {
    format!("anchor:scope_boundaries.protected_paths[{index}]")
}

/// What a path reason leads to by itself.
pub(super) const fn level_of(code: ReasonCode) -> Level {
    if matches!(code, ReasonCode::PathNever) { Level::Blocked } else { Level::Approval }
}

//! What a new symlink leads to. Who can write through a link can write to its target, so the target counts like a path
//! of the change.

use crate::domain::change::{Entry, EntryPath, LinkEnd};
use crate::domain::path::{MatchKey, RepoPath};
use crate::domain::policy::PathClass;
use crate::domain::reason::ReasonCode;

use super::findings::{Findings, Level};
use super::paths::PathRules;

impl PathRules<'_> {
    /// Judges a link and returns the class of its target.
    pub(super) fn judge_link(&self, entry: &Entry, findings: &mut Findings) -> PathClass {
        if !entry.is_new_symlink() {
            return PathClass::Allowed;
        }
        let shown = || entry.path.shown().to_owned();
        findings.add_path(Level::Approval, ReasonCode::SymlinkNew, shown(), None);
        if MatchKey::of(entry.path.shown()).as_str().rsplit('/').next() == Some(".gitmodules") {
            findings.add_path(Level::Rejected, ReasonCode::GitmodulesSymlink, shown(), None);
        }
        let Some(link) = &entry.link else {
            return PathClass::Allowed;
        };
        match &link.end {
            LinkEnd::Outside { why } => {
                findings.add_path(Level::Rejected, ReasonCode::SymlinkEscape, shown(), Some(why.clone()));
                PathClass::Forbidden
            }
            LinkEnd::Root => {
                findings.add_path(
                    Level::Blocked,
                    ReasonCode::PathNever,
                    shown(),
                    Some("the whole repository".to_owned()),
                );
                PathClass::Never
            }
            LinkEnd::Inside { hops, contents, more } => {
                let shown = shown();
                let targets = hops.iter().map(|hop| self.judge_target(&shown, hop, findings));
                let worst = targets.max().unwrap_or(PathClass::Allowed);
                worst.max(self.judge_folder(&shown, contents, *more, findings))
            }
        }
    }

    /// Judges what lies in the folder that a link leads to.
    fn judge_folder(&self, shown: &str, contents: &[RepoPath], more: bool, findings: &mut Findings) -> PathClass {
        let mut worst = PathClass::Allowed;
        for inside in contents {
            let key = inside.key();
            let classified = self.classify(&key.parts());
            for (code, rule) in classified.reasons {
                if code != ReasonCode::PathDefaultDeny {
                    findings.add_path(Level::Blocked, code, shown.to_owned(), rule);
                    worst = worst.max(classified.class);
                }
            }
        }
        if more {
            let rule = Some("a folder of too many files to look at".to_owned());
            findings.add_path(Level::Blocked, ReasonCode::PathProtected, shown.to_owned(), rule);
            worst = worst.max(PathClass::Protected);
        }
        worst
    }

    fn judge_target(&self, shown: &str, hop: &EntryPath, findings: &mut Findings) -> PathClass {
        match hop {
            EntryPath::Safe(target) => {
                let key = target.key();
                let classified = self.classify(&key.parts());
                for (code, rule) in classified.reasons {
                    findings.add_path(Level::Blocked, code, shown.to_owned(), rule);
                }
                let Some((code, rule)) = self.guarded_below(target.as_str()) else {
                    return classified.class;
                };
                findings.add_path(Level::Blocked, code, shown.to_owned(), rule);
                classified.class.max(PathClass::Protected)
            }
            EntryPath::Refused { unsafe_because, git_internal, .. } => {
                if *git_internal {
                    findings.add_path(Level::Rejected, ReasonCode::GitInternal, shown.to_owned(), None);
                }
                if let Some(why) = unsafe_because {
                    let rule = Some(format!("its target: {why}"));
                    findings.add_path(Level::Rejected, ReasonCode::UnsafePath, shown.to_owned(), rule);
                }
                PathClass::Forbidden
            }
        }
    }
}

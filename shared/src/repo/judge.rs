//! A verdict on paper: `policy eval` and its kin. Opens a repository, takes two revisions or a patch text, and asks the
//! same functions as the supervisor does. Nothing is written; objects of an imported patch stay in memory.

use std::path::Path;

use git2::Repository;

use crate::domain::anchor::IntentionAnchorV2;
use crate::domain::evaluate::{PhaseScope, Subject, Verdict, Window, evaluate};
use crate::domain::ids::Oid;
use crate::domain::path::RepoPath;
use crate::domain::policy::Policy;
use crate::domain::project::{ConfigError, FILE_NAME, ProjectConfig};

use super::facts::{FactsError, Limits, change_facts};
use super::import::{self, ImportError};
use super::open::{self, OpenError, from_git};
use super::raw::{self, RawError};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A revision names no commit.
    #[error("{revision:?} names no commit of this repository")]
    Revision {
        /// The revision as given.
        revision: String,
    },
    /// An object cannot be read.
    #[error(transparent)]
    Object(#[from] RawError),
    /// The difference cannot be read.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The patch cannot be imported, for a reason that is not the patch.
    #[error(transparent)]
    Import(#[from] ImportError),
}

/// What is to be judged, on top of a base commit.
#[derive(Debug, Clone, Copy)]
pub enum Proposal<'a> {
    /// The tree of another commit.
    Commit(Oid),
    /// A unified diff.
    Patch(&'a [u8]),
}

/// What it is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The policy in force.
    pub policy: &'a Policy,
    /// The anchor in force, if there is one.
    pub anchor: Option<&'a IntentionAnchorV2>,
    /// What the phase may do.
    pub scope: &'a PhaseScope,
    /// What was already spent.
    pub window: &'a Window,
}

/// A repository to ask.
pub struct Paper {
    repo: Repository,
}

impl Paper {
    /// Opens the repository at exactly this path.
    ///
    /// # Errors
    /// [`JudgeError::Open`] says why not.
    pub fn open(path: &Path) -> Result<Self, JudgeError> {
        Ok(Self { repo: open::open(path)? })
    }

    /// The commit that a revision names (`HEAD~1`, a branch, a tag, an id).
    ///
    /// # Errors
    /// [`JudgeError::Revision`] when it names none.
    pub fn commit(&self, revision: &str) -> Result<Oid, JudgeError> {
        let found = self.repo.revparse_single(revision).and_then(|object| object.peel_to_commit());
        match found {
            Ok(commit) => Ok(from_git(commit.id())),
            Err(_) => Err(JudgeError::Revision { revision: revision.to_owned() }),
        }
    }

    /// The bytes of a file of a commit; nothing where there is no such file.
    ///
    /// # Errors
    /// [`JudgeError::Object`] when the tree or the file cannot be read.
    pub fn read(&self, commit: Oid, path: &RepoPath) -> Result<Option<Vec<u8>>, JudgeError> {
        let tree = raw::tree_of_commit(&self.repo, commit)?;
        let odb = self.repo.odb().map_err(|source| RawError::Object { id: tree, source })?;
        let parts: Vec<&[u8]> = path.components().map(str::as_bytes).collect();
        match raw::lookup(&odb, tree, &parts)?.filter(|entry| entry.mode.is_regular()) {
            Some(entry) => Ok(Some(raw::read_blob(&odb, entry.id)?.data().to_vec())),
            None => Ok(None),
        }
    }

    /// The project file of a commit: absent (the built-in policy holds), read, or refused.
    ///
    /// # Errors
    /// [`JudgeError::Object`] when the tree or the file cannot be read.
    pub fn config_at(&self, commit: Oid) -> Result<Option<Result<ProjectConfig, ConfigError>>, JudgeError> {
        let Ok(path) = RepoPath::parse(FILE_NAME) else {
            return Ok(None);
        };
        let Some(bytes) = self.read(commit, &path)? else {
            return Ok(None);
        };
        Ok(Some(ProjectConfig::parse(&String::from_utf8_lossy(&bytes), FILE_NAME)))
    }

    /// Judges a proposal. What cannot be read as a patch, or does not fit, is a verdict as well.
    ///
    /// # Errors
    /// [`JudgeError`] when an object is missing or damaged.
    pub fn judge(&self, base: Oid, proposal: Proposal<'_>, terms: Terms<'_>) -> Result<Verdict, JudgeError> {
        let digests = (terms.policy.digest(), terms.anchor.map(IntentionAnchorV2::digest));
        let result = match proposal {
            Proposal::Commit(commit) => raw::tree_of_commit(&self.repo, commit)?,
            Proposal::Patch(text) => {
                import::in_memory(&self.repo).map_err(ImportError::Write)?;
                match import::import_patch(&self.repo, base, text) {
                    Ok(tree) => tree,
                    Err(error) => return Ok(error.into_verdict(digests)?),
                }
            }
        };
        let facts = change_facts(&self.repo, base, result, &Limits::default())?;
        let verdict = evaluate(&facts, terms.policy, terms.anchor, terms.scope, terms.window);
        let (policy, anchor) = digests;
        Ok(verdict.bind(&Subject {
            repository: self.repo.path().to_string_lossy().into_owned(),
            target_ref: self.head(),
            base,
            result_tree: result,
            policy,
            anchor,
            run: None,
            phase: None,
            attempt: None,
        }))
    }

    /// The branch that is checked out, or `HEAD` where there is none.
    fn head(&self) -> String {
        let head = self.repo.find_reference("HEAD").ok();
        let target = head.as_ref().and_then(|head| head.symbolic_target().ok().flatten());
        target.unwrap_or("HEAD").to_owned()
    }
}

#[cfg(test)]
mod tests {
    use git2::{Signature, Time};

    use super::*;
    use crate::domain::evaluate::Decision;

    /// Two commits that differ in one line.
    fn repository(dir: &Path) -> Oid {
        let repo = Repository::init_bare(dir).unwrap();
        let commit = |text: &[u8], parents: &[&git2::Commit<'_>]| {
            let mut inner = repo.treebuilder(None).unwrap();
            inner.insert("a", repo.blob(text).unwrap(), 0o100_644).unwrap();
            let mut root = repo.treebuilder(None).unwrap();
            root.insert("examples", inner.write().unwrap(), 0o040_000).unwrap();
            let tree = repo.find_tree(root.write().unwrap()).unwrap();
            let author = Signature::new("t", "t@example.invalid", &Time::new(0, 0)).unwrap();
            repo.commit(Some("refs/heads/main"), &author, &author, "c", &tree, parents).unwrap()
        };
        let first = commit(b"1\n", &[]);
        from_git(commit(b"2\n", &[&repo.find_commit(first).unwrap()]))
    }

    const PATCH: &[u8] = b"diff --git a/examples/a b/examples/a\nindex d00491f..0cfbf08 100644\n--- a/examples/a\n\
        +++ b/examples/a\n@@ -1 +1 @@\n-1\n+2\n";

    #[test]
    fn a_range_and_a_patch_are_judged_alike() {
        let dir = tempfile::tempdir().unwrap();
        let second = repository(dir.path());
        let paper = Paper::open(dir.path()).unwrap();
        let base = paper.commit("refs/heads/main~1").unwrap();
        let (policy, window, scope) = (Policy::builtin(), Window::default(), PhaseScope::default());
        let terms = Terms { policy: &policy, anchor: None, scope: &scope, window: &window };
        let range = paper.judge(base, Proposal::Commit(second), terms).unwrap();
        let patch = paper.judge(base, Proposal::Patch(PATCH), terms).unwrap();
        assert_eq!(range, patch);
        assert_eq!((range.verdict, range.facts.size), (Decision::AutoApproved, 2));
        let broken = paper.judge(base, Proposal::Patch(b"hello\n"), terms).unwrap();
        assert_eq!((broken.verdict, broken.subject_digest), (Decision::Rejected, None));
    }

    #[test]
    fn revisions_and_files_are_found_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let second = repository(dir.path());
        let paper = Paper::open(dir.path()).unwrap();
        assert_eq!(paper.commit("refs/heads/main").unwrap(), second);
        assert!(matches!(paper.commit("nowhere"), Err(JudgeError::Revision { .. })));
        assert!(paper.config_at(second).unwrap().is_none());
        let path = RepoPath::parse("examples/a").unwrap();
        assert_eq!(paper.read(second, &path).unwrap().unwrap(), b"2\n");
    }
}

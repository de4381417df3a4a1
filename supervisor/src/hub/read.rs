//! What is read from a hub without moving anything: files at a commit, ancestry, merges as objects, and which work
//! tree has a branch checked out.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Repository};

use autopack_shared::domain::ids::{Oid, RunId};
use autopack_shared::repo::facts::{Limits, change_facts};
use autopack_shared::repo::merge::{self, Merged};
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::tree::{self, TreeError};

use super::local::LocalHub;
use super::names::RUNS;
use super::{Hub, HubError, RefName};

/// Who makes commits here.
pub(super) const COMMITTER: &str = "apply@cluster";

/// Reading verbs, the same for every [`Hub`].
pub trait HubRead: Hub {
    /// Whether an object is there.
    fn has(&self, object: Oid) -> Result<bool, HubError> {
        Ok(self.repository(&[object])?.odb()?.exists(to_git(object)))
    }

    /// The commit that a revision names: a branch, a tag, a commit, `main~3`; `None` when there is none. Branches are
    /// asked of the hub itself; tags and short ids are those that the repository for reading knows.
    fn revision(&self, name: &str) -> Result<Option<Oid>, HubError> {
        // What searches the history, or the reflog, is no name.
        let odd = name.is_empty() || name.len() > 256 || name.contains([':', '{', '}', '@', '\n']);
        if odd {
            return Ok(None);
        }
        let (from, back) = name.split_at(name.find(['~', '^']).unwrap_or(name.len()));
        let branch = from.strip_prefix("refs/heads/").unwrap_or(from);
        let tip = match RefName::target(&format!("refs/heads/{branch}")) {
            Ok(branch) => self.tip(&branch)?,
            // It can be no branch's name.
            Err(_) => None,
        };
        let tip = tip.or_else(|| from.parse().ok());
        let spec = tip.map_or_else(|| name.to_owned(), |tip| format!("{tip}{back}"));
        let repo = self.repository(tip.as_slice())?;
        let found = repo.revparse_single(&spec).and_then(|object| object.peel_to_commit());
        Ok(found.ok().map(|commit| from_git(commit.id())))
    }

    /// The tree of a commit.
    fn tree_of(&self, commit: Oid) -> Result<Oid, HubError> {
        Ok(tree::tree_of(&self.repository(&[commit])?, commit)?)
    }

    /// A regular file at a commit; `None` when there is none. Links are not followed.
    fn read_file_at(&self, commit: Oid, path: &str, limit: usize) -> Result<Option<Vec<u8>>, HubError> {
        let repo = self.repository(&[commit])?;
        let odb = repo.odb()?;
        let mut folder = tree::tree_of(&repo, commit)?;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let Some(entry) = tree::read(&odb, folder)?.into_iter().find(|entry| entry.name == part.as_bytes()) else {
                return Ok(None);
            };
            if parts.peek().is_some() && entry.is_tree() {
                folder = entry.oid;
            } else if parts.peek().is_none() && entry.is_file() {
                let (size, _) =
                    odb.read_header(to_git(entry.oid)).map_err(|error| TreeError::reading(error, entry.oid))?;
                if size > limit {
                    return Err(HubError::TooLarge { path: path.to_owned(), limit });
                }
                return Ok(Some(odb.read(to_git(entry.oid))?.data().to_vec()));
            } else {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Whether `ancestor` is `commit` or one of its ancestors.
    fn is_ancestor(&self, ancestor: Oid, commit: Oid) -> Result<bool, HubError> {
        Ok(ancestor == commit || descends(&self.repository(&[ancestor, commit])?, commit, ancestor)?)
    }

    /// The best common ancestor, if there is one.
    fn merge_base(&self, one: Oid, other: Oid) -> Result<Option<Oid>, HubError> {
        match self.repository(&[one, other])?.merge_base(to_git(one), to_git(other)) {
            Ok(base) => Ok(Some(from_git(base))),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The commits of a branch that are none of those that are known, newest first: id, first line, and whether it was
    /// made here. First parents only, and no more than `limit`.
    fn unknown(&self, tip: Oid, known: &HashSet<Oid>, limit: usize) -> Result<Vec<(Oid, String, bool)>, HubError> {
        let repo = self.repository(&[tip])?;
        let (mut found, mut at) = (Vec::new(), Some(repo.find_commit(to_git(tip))?));
        while let Some(commit) =
            at.take().filter(|commit| !known.contains(&from_git(commit.id())) && found.len() < limit)
        {
            let text = String::from_utf8_lossy(commit.summary_bytes().unwrap_or_default()).into_owned();
            let ours = commit.committer().email_bytes() == COMMITTER.as_bytes();
            found.push((from_git(commit.id()), text, ours));
            at = match commit.parent(0) {
                Ok(parent) => Some(parent),
                Err(error) if error.code() == ErrorCode::NotFound => None,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(found)
    }

    /// Whether everything that a tree changes over a commit is there and readable: nothing is moved to what cannot be read.
    fn verify_change(&self, base: Oid, tree: Oid) -> Result<(), HubError> {
        change_facts(&self.repository(&[base, tree])?, base, tree, &Limits::default())?;
        Ok(())
    }

    /// Whether every object that a commit's tree needs is there and readable as what it should be.
    fn verify(&self, commit: Oid) -> Result<(), HubError> {
        let repo = self.repository(&[commit])?;
        tree::closure(&repo.odb()?, tree::tree_of(&repo, commit)?, &std::collections::HashSet::new())?;
        Ok(())
    }

    /// See [`merge::rebase_tree`].
    fn rebase_tree(&self, base_commit: Oid, result_tree: Oid, onto_commit: Oid) -> Result<Merged, HubError> {
        let repo = self.repository(&[base_commit, result_tree, onto_commit])?;
        Ok(merge::rebase_tree(&repo, base_commit, result_tree, onto_commit)?)
    }

    /// See [`merge::revert_tree`].
    fn revert_tree(&self, save_tree: Oid, applied_tree: Oid, tip_tree: Oid) -> Result<Merged, HubError> {
        let repo = self.repository(&[save_tree, applied_tree, tip_tree])?;
        Ok(merge::revert_tree(&repo, save_tree, applied_tree, tip_tree)?)
    }

    /// See [`merge::merge_commits_tree`].
    fn merge_commits_tree(&self, ours: Oid, theirs: Oid) -> Result<Merged, HubError> {
        Ok(merge::merge_commits_tree(&self.repository(&[ours, theirs])?, ours, theirs)?)
    }

    /// See [`merge::same_entries`].
    fn same_change(&self, first: (Oid, Oid), second: (Oid, Oid)) -> Result<bool, HubError> {
        let repo = self.repository(&[first.0, first.1, second.0, second.1])?;
        Ok(merge::same_entries(&repo, first, second)?)
    }
}

impl<H: Hub + ?Sized> HubRead for H {}

impl LocalHub {
    /// The branches of runs.
    pub(super) fn branches_of_runs(&self) -> Result<Vec<(String, Oid)>, HubError> {
        let repo = self.bare()?;
        let mut found = Vec::new();
        for reference in repo.references_glob(&format!("{RUNS}*"))? {
            let reference = reference?;
            if let Some(tip) = reference.target() {
                found.push((reference.name()?.to_owned(), from_git(tip)));
            }
        }
        Ok(found)
    }

    /// The names of the refs that keep a run's pending results alive.
    pub(super) fn pending_of(&self, run: &RunId) -> Result<Vec<RefName>, HubError> {
        let repo = self.bare()?;
        let mut names = Vec::new();
        for reference in repo.references_glob(&format!("refs/autopack/q/{run}/*"))? {
            names.push(RefName::listed(reference?.name()?)?);
        }
        Ok(names)
    }
}

/// Whether `commit` is on top of `ancestor`. A shallow clone's history ends at commits whose parents it names and does
/// not have; libgit2's own walk fails there.
pub(super) fn descends(repo: &Repository, commit: Oid, ancestor: Oid) -> Result<bool, git2::Error> {
    let (commit, ancestor) = (to_git(commit), to_git(ancestor));
    // Nearly every question is about a commit that was just made.
    if repo.find_commit(commit)?.parent_ids().any(|parent| parent == ancestor) {
        return Ok(true);
    }
    match repo.graph_descendant_of(commit, ancestor) {
        Err(error) if error.code() == ErrorCode::NotFound && repo.is_shallow() => {}
        answer => return answer,
    }
    let (mut seen, mut next) = (HashSet::from([commit]), vec![commit]);
    while let Some(at) = next.pop() {
        match repo.find_commit(at) {
            Ok(found) => next.extend(found.parent_ids().filter(|parent| seen.insert(*parent))),
            Err(error) if error.code() == ErrorCode::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ancestor != commit && seen.contains(&ancestor))
}

/// The work tree that has `branch` checked out, or that is rebasing or bisecting it.
pub(super) fn checked_out(common: &Path, branch: &RefName) -> Result<Option<PathBuf>, HubError> {
    if let Some(main) = main_work_tree(common)
        && busy_with(common, branch)
    {
        return Ok(Some(main));
    }
    for entry in fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten() {
        let admin = entry.path();
        if busy_with(&admin, branch) {
            let link = fs::read_to_string(admin.join("gitdir")).unwrap_or_default();
            // A work tree that was deleted by hand holds nothing.
            if let Some(path) = Path::new(link.trim_end()).parent().filter(|path| path.exists()) {
                return Ok(Some(path.to_path_buf()));
            }
        }
    }
    Ok(None)
}

/// The main work tree; a bare repository's `HEAD` checks nothing out.
fn main_work_tree(common: &Path) -> Option<PathBuf> {
    let config = git2::Config::open(&common.join("config")).ok()?;
    if config.get_bool("core.bare").unwrap_or(false) {
        return None;
    }
    let configured = config.get_string("core.worktree").ok().map(|path| common.join(path));
    configured.or_else(|| common.parent().map(Path::to_path_buf))
}

fn busy_with(admin: &Path, branch: &RefName) -> bool {
    let says =
        |file: &str, text: &str| fs::read_to_string(admin.join(file)).is_ok_and(|found| found.trim_end() == text);
    let short = branch.as_str().trim_start_matches("refs/heads/");
    says("HEAD", &format!("ref: {branch}"))
        || says("rebase-merge/head-name", branch.as_str())
        || says("rebase-apply/head-name", branch.as_str())
        || says("BISECT_START", short)
}

//! A workspace's entry in the mirror: a linked worktree that git itself would list, on a branch of its own.

use std::fs;

use git2::{ObjectType, Repository, Signature, Time, WorktreeAddOptions, WorktreePruneOptions};

use super::super::commit;
use super::super::open::to_git;
use super::super::tree;
use super::{Mirror, MirrorError, WorkspaceKey, io_error};
use crate::domain::ids::Oid;

impl Mirror {
    /// Makes the linked worktree: on an empty commit, so that libgit2 itself checks nothing out.
    pub(super) fn register(&self, repo: &Repository, key: &WorkspaceKey, base: Oid) -> Result<Vec<u8>, MirrorError> {
        let _writing = self.write()?;
        let path = self.path_of(key);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(io_error(parent))?;
        self.unregister(repo, key)?;
        let mut branch = repo.reference(&key.branch(), to_git(empty_commit(repo)?), true, "workspace")?;
        let mut options = WorktreeAddOptions::new();
        options.reference(Some(&branch));
        repo.worktree(&key.name(), &path, Some(&options))?;
        if repo.find_object(to_git(base), Some(ObjectType::Commit)).is_ok() {
            branch = branch.set_target(to_git(base), "workspace")?;
        }
        drop(branch);
        let link = path.join(".git");
        let said = fs::read(&link).map_err(io_error(&link))?;
        fs::remove_file(&link).map_err(io_error(&link))?;
        Ok(said)
    }

    /// Takes a workspace's entry and branch out of the mirror; fine when there is none.
    pub(super) fn unregister(&self, repo: &Repository, key: &WorkspaceKey) -> Result<(), MirrorError> {
        if let Ok(worktree) = repo.find_worktree(&key.name()) {
            worktree.prune(Some(WorktreePruneOptions::new().valid(true).locked(true).working_tree(false)))?;
        }
        if let Ok(mut branch) = repo.find_reference(&key.branch()) {
            branch.delete()?;
        }
        Ok(())
    }
}

/// A commit of nothing, the same in every mirror.
fn empty_commit(repo: &Repository) -> Result<Oid, MirrorError> {
    let tree = tree::write(&repo.odb()?, Vec::new())?;
    let who = Signature::new("autopack", "workspace@worker", &Time::new(0, 0))?;
    Ok(commit::write(repo, &who, "workspace\n", tree, &[])?)
}

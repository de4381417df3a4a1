//! What earlier lives of a worker left: workspaces, half-done removals, entries and branches of the mirror. A leftover
//! that resists (a mount, files of another user, a process that still writes) costs room and nothing else: it is told,
//! tried again at the next start, and keeps nobody from working.

use std::fmt;
use std::path::Path;

use git2::Repository;

use super::{Mirror, MirrorError, WorkspaceKey, folders, io_error, warm};
use crate::domain::ids::RunId;

impl Mirror {
    /// Removes a workspace with its entry in the mirror; fine when there is none. Once it is moved away its place is
    /// free; a part of it that cannot be deleted then is left to the next [`Mirror::cleanup`].
    ///
    /// # Errors
    /// When it cannot be moved away.
    pub fn remove(&self, key: &WorkspaceKey) -> Result<(), MirrorError> {
        let writing = self.write()?;
        let trashed = folders::trash(&self.root, &self.path_of(key), &key.name())?;
        self.unregister(&self.repository()?, key)?;
        folders::remove_empty_parents(&self.root, &self.path_of(key));
        drop(writing);
        if let Some(path) = trashed
            && let Err(error) = folders::delete(&path)
        {
            stays(&path, &error);
        }
        Ok(())
    }

    /// Removes every workspace whose run and epoch is not in `keep`, leftovers of half-done removals too. Returns the
    /// workspaces that were removed.
    ///
    /// # Errors
    /// When the worker's folder or its mirror cannot be read.
    pub fn cleanup(&self, keep: &[(RunId, u64)]) -> Result<Vec<WorkspaceKey>, MirrorError> {
        let kept = |key: &WorkspaceKey| keep.iter().any(|(run, epoch)| *run == key.run && *epoch == key.epoch);
        let mut removed = self.list()?;
        removed.retain(|key| !kept(key));
        removed.retain(|key| match self.remove(key) {
            Ok(()) => true,
            Err(error) => {
                stays(&self.path_of(key), &error);
                false
            }
        });
        let writing = self.write()?;
        let repo = self.repository()?;
        for (key, entry) in folders::registered(&self.git_dir()).map_err(io_error(&self.git_dir()))? {
            if !kept(&key) {
                // One that was only half made is none to libgit2.
                let gone =
                    self.unregister(&repo, &key).and_then(|()| folders::delete(&entry).map_err(io_error(&entry)));
                if let Err(error) = gone {
                    stays(&entry, &error);
                }
            }
        }
        remove_branches(&repo, |name| folders::parse_branch(name).is_some_and(|key| kept(&key)))?;
        if let Err(error) = folders::sweep_empty(&self.root) {
            stays(&self.root, &error);
        }
        drop(writing);
        // Nothing knows any more what those hold.
        let pool = self.root.join(warm::POOL);
        if let Err(error) = folders::delete(&pool) {
            stays(&pool, &error);
        }
        for (path, error) in folders::empty_trash(&self.root).map_err(io_error(&self.root))? {
            stays(&path, &error);
        }
        Ok(removed)
    }
}

/// Deletes the branches of workspaces: one whose entry is gone is named by nothing else.
fn remove_branches(repo: &Repository, kept: impl Fn(&str) -> bool) -> Result<(), MirrorError> {
    let branches: Vec<_> = repo.references_glob("refs/heads/wt/**")?.collect::<Result<_, _>>()?;
    for mut branch in branches {
        if !branch.name().is_ok_and(&kept) {
            branch.delete()?;
        }
    }
    Ok(())
}

fn stays(path: &Path, error: &dyn fmt::Display) {
    tracing::warn!(path = %path.display(), %error, "a leftover cannot be removed; the next start tries again");
}

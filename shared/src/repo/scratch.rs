//! A scratch clone to try things in, and commits on it. Nothing of the source is written.

use std::path::Path;

use git2::build::RepoBuilder;
use git2::{IndexAddOption, Signature, Time};

use super::commit;
use super::open::{OpenError, from_git, isolate, open, to_git};
use crate::domain::ids::Oid;

/// Why there is no scratch clone.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The source or the clone cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// libgit2 failed.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// Clones a local repository with its checked-out branch into `into`.
///
/// # Errors
/// When the source is no repository or the clone cannot be written.
pub fn clone(source: &Path, into: &Path) -> Result<(), ScratchError> {
    isolate()?;
    open(source)?;
    RepoBuilder::new().clone(&source.display().to_string(), into)?;
    Ok(())
}

/// Commits everything in the work tree of a scratch clone.
///
/// # Errors
/// When the clone cannot be read or written.
pub fn commit_all(path: &Path, message: &str, seconds: i64) -> Result<Oid, ScratchError> {
    let repo = open(path)?;
    let mut index = repo.index()?;
    index.add_all(["*"], IndexAddOption::DEFAULT, None)?;
    index.write()?;
    let tree = from_git(index.write_tree()?);
    let who = Signature::new("autopack demo", "demo@autopack", &Time::new(seconds, 0))?;
    let mut branch = repo.head()?;
    let made = commit::write(&repo, &who, message, tree, &[from_git(branch.peel_to_commit()?.id())])?;
    branch.set_target(to_git(made), "commit")?;
    Ok(made)
}

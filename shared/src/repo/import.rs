//! Reads a unified diff of git into a result tree, or refuses it. Strict on purpose: what a person reads in the text and
//! what lands must be the same, so nothing is repaired, moved or guessed. A patch is parsed whole, its paths are judged,
//! and only then is it asked whether it fits. Only objects are written, never a ref, an index or a file.

mod apply;
mod build;
mod name;
mod parse;

use git2::Repository;

use crate::domain::change::FileMode;
use crate::domain::evaluate::{Decision, Verdict};
use crate::domain::ids::{Digest, Oid};
use crate::domain::path::RepoPath;
use crate::domain::reason::{Reason, ReasonCode};

use super::raw::{self, RawError};
use parse::FilePatch;

/// A longer text is refused unread.
pub const MAX_PATCH_BYTES: usize = 50 * 1024 * 1024;

/// Why a patch text was not imported. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It does not parse whole.
    #[error("line {line}: {why}")]
    Malformed {
        /// Line of the text, from 1.
        line: usize,
        /// What is wrong there.
        why: &'static str,
    },
    /// It names something that no change may touch.
    #[error("the patch is refused: {}", reasons.first().map_or("", |reason| reason.code.as_str()))]
    Refused {
        /// All of it.
        reasons: Vec<Reason>,
    },
    /// It does not fit the base.
    #[error("{path}: {why}")]
    Conflict {
        /// The file.
        path: String,
        /// Why it does not fit.
        why: &'static str,
    },
    /// An object of the base cannot be read.
    #[error(transparent)]
    Object(#[from] RawError),
    /// An object cannot be written.
    #[error("an object cannot be written")]
    Write(#[source] git2::Error),
}

impl ImportError {
    /// The verdict that a refusal amounts to.
    ///
    /// # Errors
    /// The error itself, where it is a failure to read or write and no statement about the patch.
    pub fn into_verdict(self, digests: (Digest, Option<Digest>)) -> Result<Verdict, Self> {
        match self {
            Self::Malformed { line, why } => Ok(Verdict::malformed_patch(format!("line {line}: {why}"), digests)),
            Self::Refused { reasons } => Ok(Verdict::without_tier(Decision::Rejected, reasons, digests)),
            Self::Conflict { path, why } => Ok(Verdict::conflict(path, why.to_owned(), digests)),
            other @ (Self::Object(_) | Self::Write(_)) => Err(other),
        }
    }
}

/// Imports a patch text on top of a commit and returns the result tree. An empty text is no change.
///
/// Objects are written to the object database of the repository; [`in_memory`] keeps them off the disk.
///
/// # Errors
/// [`ImportError`] says whether the text, its paths or its fit to the base is to blame.
pub fn import_patch(repo: &Repository, base_commit: Oid, text: &[u8]) -> Result<Oid, ImportError> {
    if text.len() > MAX_PATCH_BYTES {
        let reason = Reason::of_number(ReasonCode::TooLarge, text.len() as u64, MAX_PATCH_BYTES as u64);
        return Err(ImportError::Refused { reasons: vec![reason] });
    }
    let patches = parse::parse(text)?;
    let patches = judge_names(patches)?;
    let base = raw::tree_of_commit(repo, base_commit)?;
    let odb = repo.odb().map_err(ImportError::Write)?;
    let edits = apply::apply(&odb, base, &patches)?;
    build::build(&odb, base, &edits)
}

/// From now on, what is written through this handle of a repository stays in memory and is gone with it.
///
/// # Errors
/// What libgit2 says.
pub fn in_memory(repo: &Repository) -> Result<(), git2::Error> {
    // Above the priorities of the loose and the packed backend, so that every write goes here first.
    repo.odb()?.add_new_mempack_backend(1_000).map(|_| ())
}

/// A file of a patch whose names and modes are sound.
struct SoundPatch<'a> {
    old: Option<RepoPath>,
    new: Option<RepoPath>,
    patch: FilePatch<'a>,
}

/// Judges every name and mode before anything is looked up; all refusals are reported.
fn judge_names(patches: Vec<FilePatch<'_>>) -> Result<Vec<SoundPatch<'_>>, ImportError> {
    let mut reasons: Vec<Reason> = Vec::new();
    let mut refuse = |code, path: &str, rule: Option<String>| {
        let reason = Reason::of_paths(code, vec![path.to_owned()], rule);
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    let mut sound = Vec::with_capacity(patches.len());
    for patch in patches {
        let mut inspect = |name: Option<&[u8]>| {
            let refused = match RepoPath::inspect(name?) {
                Ok(path) => return Some(path),
                Err(refused) => refused,
            };
            if let Some(why) = refused.unsafe_because {
                refuse(ReasonCode::UnsafePath, &refused.shown, Some(why.to_owned()));
            }
            if refused.git_internal {
                refuse(ReasonCode::GitInternal, &refused.shown, None);
            }
            None
        };
        let (old, new) = (inspect(patch.old_name()), inspect(patch.new_name()));
        let invalid = patch.new_mode().filter(|mode: &FileMode| !mode.is_valid());
        if let (Some(mode), Some(path)) = (invalid, &new) {
            refuse(ReasonCode::ModeInvalid, path.as_str(), Some(mode.to_string()));
        }
        sound.push(SoundPatch { old, new, patch });
    }
    if reasons.is_empty() { Ok(sound) } else { Err(ImportError::Refused { reasons }) }
}

#[cfg(test)]
mod tests;

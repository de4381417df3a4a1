//! Whether a patch fits the base, and what every path becomes. Places are exact: a hunk that would fit elsewhere does
//! not fit.

use std::collections::BTreeMap;

use git2::{ObjectType, Odb};

use crate::domain::change::FileMode;
use crate::domain::ids::Oid;
use crate::domain::path::RepoPath;
use crate::domain::reason::{Reason, ReasonCode};
use crate::repo::open::from_git;
use crate::repo::raw::{self, RawEntry, RawError};

use super::parse::{Hunk, LineKind};
use super::{ImportError, SoundPatch};

/// What becomes of a path: an entry, or nothing.
pub(super) type Edits = BTreeMap<RepoPath, Option<RawEntry>>;

/// The text that git shows for a submodule.
const SUBMODULE: &str = "Subproject commit ";

pub(super) fn apply(odb: &Odb<'_>, tree: Oid, patches: &[SoundPatch<'_>]) -> Result<Edits, ImportError> {
    let base = Base { odb, tree };
    base.refuse_parents(patches)?;
    let mut edits = Edits::new();
    for sound in patches {
        let old = base.old_side(sound)?;
        let before = old.as_ref().map_or(&[][..], |(_, text)| text);
        let Some(path) = sound.new.as_ref().or(sound.old.as_ref()) else {
            continue;
        };
        let after = rewrite(before, &sound.patch.hunks).map_err(|why| conflict(path, why))?;
        if let Some(old_path) = sound.old.as_ref().filter(|_| sound.patch.removes_old()) {
            edits.insert(old_path.clone(), None);
        }
        if let Some(new_path) = &sound.new {
            if sound.patch.makes_new() && base.entry(new_path)?.is_some_and(|entry| !entry.is_tree()) {
                return Err(conflict(new_path, "the base already has this file"));
            }
            let entry = base.write(new_path, old.map(|(entry, _)| entry), sound, &after)?;
            edits.insert(new_path.clone(), Some(entry));
        } else if !after.is_empty() {
            return Err(conflict(path, "the file has more lines than the patch deletes"));
        }
    }
    Ok(edits)
}

struct Base<'a> {
    odb: &'a Odb<'a>,
    tree: Oid,
}

impl Base<'_> {
    fn entry(&self, path: &RepoPath) -> Result<Option<RawEntry>, RawError> {
        let parts: Vec<&[u8]> = path.components().map(str::as_bytes).collect();
        raw::lookup(self.odb, self.tree, &parts)
    }

    /// Refuses paths below a symlink or a submodule of the base, before anything is compared.
    fn refuse_parents(&self, patches: &[SoundPatch<'_>]) -> Result<(), ImportError> {
        let mut reasons = Vec::new();
        for path in patches.iter().flat_map(|sound| [&sound.old, &sound.new]).flatten() {
            let parts: Vec<&[u8]> = path.components().map(str::as_bytes).collect();
            for length in 1..parts.len() {
                let found = raw::lookup(self.odb, self.tree, &parts[..length])?;
                let code = match found.map(|entry| entry.mode) {
                    Some(FileMode::SYMLINK) => ReasonCode::SymlinkTraversal,
                    Some(FileMode::GITLINK) => ReasonCode::Gitlink,
                    Some(_) | None => continue,
                };
                let reason = Reason::of_paths(code, vec![path.to_string()], None);
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(ImportError::Refused { reasons }) }
    }

    /// The file that a patch starts from: there, a leaf, and of the mode the patch says.
    fn old_side(&self, sound: &SoundPatch<'_>) -> Result<Option<(RawEntry, Vec<u8>)>, ImportError> {
        let Some(path) = &sound.old else {
            return Ok(None);
        };
        let found = self.entry(path)?.filter(|entry| !entry.is_tree());
        let entry = found.ok_or_else(|| conflict(path, "the base has no such file"))?;
        // A patch that says nothing about the mode speaks of a plain file; it must not turn a link around.
        let fits = sound.patch.old_mode().map_or_else(|| entry.mode.is_regular(), |mode| mode == entry.mode);
        if !fits {
            return Err(conflict(path, "the mode of the file is another"));
        }
        let text = if entry.mode == FileMode::GITLINK {
            format!("{SUBMODULE}{}\n", entry.id).into_bytes()
        } else {
            raw::read_blob(self.odb, entry.id)?.data().to_vec()
        };
        Ok(Some((entry, text)))
    }

    /// Writes the content of a path, if it is new, and returns the entry.
    fn write(
        &self,
        path: &RepoPath,
        old: Option<RawEntry>,
        sound: &SoundPatch<'_>,
        after: &[u8],
    ) -> Result<RawEntry, ImportError> {
        let mode = sound.patch.new_mode().or(old.map(|entry| entry.mode)).unwrap_or(FileMode::FILE);
        let id = match old {
            Some(entry) if sound.patch.hunks.is_empty() => entry.id,
            Some(_) | None if mode == FileMode::GITLINK => {
                submodule_id(after).ok_or_else(|| conflict(path, "the patch names no commit for the submodule"))?
            }
            Some(_) | None => self.odb.write(ObjectType::Blob, after).map(from_git).map_err(ImportError::Write)?,
        };
        Ok(RawEntry { mode, padded: false, id })
    }
}

fn submodule_id(text: &[u8]) -> Option<Oid> {
    std::str::from_utf8(text).ok()?.strip_prefix(SUBMODULE)?.strip_suffix('\n')?.parse().ok()
}

fn conflict(path: &RepoPath, why: &'static str) -> ImportError {
    ImportError::Conflict { path: path.to_string(), why }
}

/// Applies hunks at exactly their places.
fn rewrite(before: &[u8], hunks: &[Hunk<'_>]) -> Result<Vec<u8>, &'static str> {
    let old: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
    let mut after = Vec::with_capacity(before.len());
    let mut at = 0;
    for hunk in hunks {
        let kept = old.get(at..hunk.old_at).ok_or("a hunk starts behind the end of the file")?;
        kept.iter().for_each(|line| after.extend_from_slice(line));
        at = hunk.old_at;
        for line in &hunk.lines {
            let text = if line.ends { [line.text, b"\n"].concat() } else { line.text.to_vec() };
            match line.kind {
                LineKind::Context | LineKind::Removed => {
                    if old.get(at) != Some(&text.as_slice()) {
                        return Err("a line of the patch differs from the file");
                    }
                    at += 1;
                }
                LineKind::Added => {}
            }
            match line.kind {
                LineKind::Context | LineKind::Added => {
                    if after.last().is_some_and(|byte| *byte != b'\n') {
                        return Err("a line without a line feed is not the last one");
                    }
                    after.extend_from_slice(&text);
                }
                LineKind::Removed => {}
            }
        }
    }
    let rest = old.get(at..).unwrap_or_default();
    if !rest.is_empty() && after.last().is_some_and(|byte| *byte != b'\n') {
        return Err("a line without a line feed is not the last one");
    }
    rest.iter().for_each(|line| after.extend_from_slice(line));
    Ok(after)
}

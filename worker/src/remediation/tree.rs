//! The files of a worktree as a remediation sees them: all of them are tracked, for the worktree is a fresh checkout.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Draft, Edit, RemediationError};
use crate::scan::beneath::Beneath;
use crate::scan::links::{self, Meaning};
use crate::scan::listing::{Found, Listing};
use crate::scan::names;

/// Larger documents are not read; the scan does not follow their links either.
const MOST: u64 = 4 << 20;

/// The worktree, listed once.
pub(super) struct Tree {
    root: Beneath,
    listing: Listing,
}

impl Tree {
    pub(super) fn open(path: &Path) -> Result<Self, RemediationError> {
        let error = |source| RemediationError::Io { path: ".".to_owned(), source };
        let root = Beneath::open(path).map_err(error)?;
        let mut found = Files::default();
        found.walk(path, &[]).map_err(error)?;
        Ok(Self { root, listing: Listing::of_files(&found.files, &found.empty) })
    }

    pub(super) const fn root(&self) -> &Beneath {
        &self.root
    }

    pub(super) const fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Whether a regular file of that name is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.listing.entry(name).is_some_and(|e| e.regular && e.raw.is_none())
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, RemediationError> {
        self.root.read(name, MOST).map_err(|source| RemediationError::Io { path: name.to_owned(), source })
    }

    /// The file a link reaches.
    pub(super) fn reached(&self, meaning: &Meaning) -> Option<&str> {
        match self.listing.find(&meaning.path)? {
            Found::File(name) => Some(name),
            Found::Other => None,
        }
    }

    /// Rewrites the links of every Markdown file that is there afterwards. `place` gives the place a file will have,
    /// none where it will be gone; `moved` what a link is to mean from now on.
    pub(super) fn relink_all(
        &self,
        draft: &mut Draft,
        place: &dyn Fn(&str) -> Option<String>,
        moved: &dyn Fn(&Meaning) -> Option<String>,
    ) -> Result<(), RemediationError> {
        for entry in self.listing.entries() {
            let readable = entry.regular && entry.raw.is_none() && names::is_markdown(&entry.name);
            let Some(to) = place(&entry.name).filter(|_| readable) else {
                continue;
            };
            let bytes = match self.root.read(&entry.name, MOST) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                    draft.note(&entry.name, "too large to follow its links");
                    continue;
                }
                Err(source) => {
                    return Err(RemediationError::Io { path: entry.name.clone(), source });
                }
            };
            let Ok(text) = std::str::from_utf8(&bytes) else {
                continue;
            };
            if let Some(new) = links::relink(text, &entry.name, &to, moved) {
                draft.edits.push(Edit::Write { path: to, bytes: new.into_bytes() });
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Files {
    /// Path, and whether it is a regular file.
    files: Vec<(Vec<u8>, bool)>,
    /// Empty folders: where submodules would be.
    empty: Vec<Vec<u8>>,
}

impl Files {
    fn walk(&mut self, folder: &Path, prefix: &[u8]) -> io::Result<()> {
        let before = self.files.len();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if prefix.is_empty() && name == ".git" {
                continue;
            }
            let path = [prefix, name.as_bytes()].concat();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.walk(&entry.path(), &[&path[..], b"/"].concat())?;
            } else {
                self.files.push((path, kind.is_file()));
            }
        }
        if self.files.len() == before
            && let Some(folder) = prefix.strip_suffix(b"/")
        {
            self.empty.push(folder.to_owned());
        }
        Ok(())
    }
}

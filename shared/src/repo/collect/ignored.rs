//! The `.gitignore` files of the base commit, one a folder on the way down. Those in the workspace do not count: a
//! builder that could write one could hide what it did.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use git2::Odb;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::super::open::to_git;
use super::super::tree::{Entry, TreeError};

/// The patterns in force in the current folder, the outermost first.
#[derive(Debug, Default)]
pub(in crate::repo) struct Ignores {
    folders: Vec<Option<Gitignore>>,
}

impl Ignores {
    /// Goes into a folder, whose `.gitignore` in the base is `entry`.
    pub(in crate::repo) fn enter(
        &mut self,
        odb: &Odb<'_>,
        folder: &[u8],
        entry: Option<&Entry>,
    ) -> Result<(), TreeError> {
        let Some(entry) = entry.filter(|entry| entry.is_file()) else {
            self.folders.push(None);
            return Ok(());
        };
        let blob = odb.read(to_git(entry.oid)).map_err(|error| TreeError::reading(error, entry.oid))?;
        let text = String::from_utf8_lossy(blob.data());
        let mut builder = GitignoreBuilder::new(rooted(folder));
        for line in text.trim_start_matches('\u{feff}').lines() {
            // A line that is no pattern ignores nothing, as in git.
            drop(builder.add_line(None, line));
        }
        self.folders.push(builder.build().ok());
        Ok(())
    }

    /// Goes back out.
    pub(in crate::repo) fn leave(&mut self) {
        self.folders.pop();
    }

    /// Whether a path in the current folder is ignored: the innermost file with an opinion decides.
    pub(in crate::repo) fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        let path = rooted(path);
        let opinions = self.folders.iter().rev().flatten().map(|folder| folder.matched(&path, is_folder));
        opinions.into_iter().find(|opinion| !opinion.is_none()).is_some_and(|opinion| opinion.is_ignore())
    }
}

/// A path from the root as an absolute one, which is how the matcher tells a folder's own paths.
fn rooted(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

//! Repository paths: the one validator, the key under which paths are compared, and globs over that key.
//!
//! A path that could mean something else to another file system, to git or to a reader is refused here, so that the
//! classes further up never have to think about spelling.

mod check;
mod glob;
mod key;
mod root;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use check::{MAX_DEPTH, PathError, RefusedPath};
pub use glob::{Glob, GlobError, PathSet};
pub use key::MatchKey;
pub use root::{PathRoot, PathRoots};

/// Whether the bytes of a tree entry's name are `.git` in some spelling: no tree may hold such an entry.
#[must_use]
pub fn names_git(name: &[u8]) -> bool {
    check::names_git(&String::from_utf8_lossy(name))
}

/// A path inside the repository in its one canonical spelling: `a/b.txt`, never `./a`, `/a`, `a//b` or `.git/x`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct RepoPath(String);

impl RepoPath {
    /// Checks a path.
    ///
    /// # Errors
    /// [`PathError`] says which rule it breaks; an unsafe spelling is named before git's own directory.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        Self::inspect(text.as_bytes()).map_err(|refused| refused.error())
    }

    /// Checks the bytes of a path as a tree holds them, and reports everything that is wrong with it.
    ///
    /// # Errors
    /// [`RefusedPath`] carries a printable form of the bytes.
    pub fn inspect(bytes: &[u8]) -> Result<Self, RefusedPath> {
        check::inspect(bytes).map(Self)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The directory that holds it, empty for the root.
    #[must_use]
    pub fn parent(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// The form under which paths are compared.
    #[must_use]
    pub fn key(&self) -> MatchKey {
        MatchKey::of(&self.0)
    }
}

impl TryFrom<String> for RepoPath {
    type Error = PathError;
    fn try_from(value: String) -> Result<Self, PathError> {
        Self::parse(&value)
    }
}

impl std::str::FromStr for RepoPath {
    type Err = PathError;
    fn from_str(value: &str) -> Result<Self, PathError> {
        Self::parse(value)
    }
}

impl From<RepoPath> for String {
    fn from(value: RepoPath) -> Self {
        value.0
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;

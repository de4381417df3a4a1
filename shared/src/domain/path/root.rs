//! Entries that people write as directories or files (`src/`, `./lib/a.rs`, `docs/*.md`): scopes of phases, and the
//! write roots and protected paths of an anchor.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::glob::{Glob, GlobError};
use super::key::fold;

/// One entry, normalised: backslashes turned, blanks and leading `./` dropped, `.` and `..` resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRoot {
    /// The folded components before the first wildcard.
    literal: Vec<String>,
    /// The compiled globs; empty for an entry without wildcards.
    globs: Vec<Glob>,
    bare: bool,
}

impl PathRoot {
    /// Reads an entry. `.` and `/` mean the whole repository.
    ///
    /// # Errors
    /// [`GlobError`] for an empty entry, one that leaves the repository, or a glob that cannot be read.
    pub fn parse(entry: &str) -> Result<Self, GlobError> {
        let refuse = |why| GlobError { pattern: entry.chars().take(200).collect(), why };
        let text = entry.trim().replace('\\', "/");
        if text.is_empty() {
            return Err(refuse("it is empty; write `.` for the whole repository"));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(|| refuse("it leaves the repository"))?;
                }
                name => parts.push(name),
            }
        }
        let bare = parts.len() == 1 && !text.contains('/');
        let is_wild = |part: &&str| part.contains(['*', '?', '[', '{']);
        if !parts.iter().any(is_wild) {
            let literal = parts.into_iter().map(fold).collect();
            return Ok(Self { literal, globs: Vec::new(), bare });
        }
        let literal = parts.iter().take_while(|part| !is_wild(part)).map(|part| fold(part)).collect();
        let joined = parts.join("/");
        let globs = Glob::parse(&if bare { joined } else { format!("/{joined}") })?;
        Ok(Self { literal, globs, bare })
    }

    /// Whether a folded path lies in the entry: the file or anything below the directory, or a match of the glob.
    #[must_use]
    pub fn contains(&self, parts: &[&str]) -> bool {
        if self.globs.is_empty() {
            return starts_with(parts, &self.literal);
        }
        self.globs.iter().any(|glob| glob.matches(parts))
    }

    /// Whether the entry protects a folded path: as [`Self::contains`], and also whatever lies below a match, and a
    /// bare name at any depth.
    #[must_use]
    pub fn guards(&self, parts: &[&str]) -> bool {
        if self.globs.is_empty() && self.bare {
            return parts.iter().any(|part| self.literal.iter().any(|name| name == part));
        }
        self.contains(parts)
            || (!self.globs.is_empty() && (1..parts.len()).any(|length| self.contains(&parts[..length])))
    }

    /// Whether the entry protects something that lies below a folded directory, whatever exists there.
    #[must_use]
    pub fn rooted_below(&self, directory: &[&str]) -> bool {
        !self.bare
            && self.literal.len() >= directory.len()
            && self.literal.iter().zip(directory).all(|(own, other)| own == other)
    }

    /// Whether two entries may name the same file; globs stand for the directory they start from.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.literal.iter().zip(&other.literal).all(|(own, other)| own == other)
    }
}

fn starts_with(parts: &[&str], prefix: &[String]) -> bool {
    parts.len() >= prefix.len() && parts.iter().zip(prefix).all(|(part, own)| part == own)
}

/// A list of entries, kept as written and compiled once. An empty list restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
#[schemars(with = "Vec<String>")]
pub struct PathRoots {
    entries: Vec<String>,
    roots: Vec<PathRoot>,
}

impl PathRoots {
    /// Reads entries.
    ///
    /// # Errors
    /// [`GlobError`] for the first that cannot be read.
    pub fn new(entries: Vec<String>) -> Result<Self, GlobError> {
        let roots = entries.iter().map(|entry| PathRoot::parse(entry)).collect::<Result<_, _>>()?;
        Ok(Self { entries, roots })
    }

    /// The entries as written.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Whether there is no entry at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The index of the first entry that contains a folded path.
    #[must_use]
    pub fn find(&self, parts: &[&str]) -> Option<usize> {
        self.roots.iter().position(|root| root.contains(parts))
    }

    /// The index of the first entry that protects a folded path.
    #[must_use]
    pub fn find_guard(&self, parts: &[&str]) -> Option<usize> {
        self.roots.iter().position(|root| root.guards(parts))
    }

    /// The index of the first entry that protects something below a folded directory.
    #[must_use]
    pub fn find_rooted_below(&self, directory: &[&str]) -> Option<usize> {
        self.roots.iter().position(|root| root.rooted_below(directory))
    }
}

impl TryFrom<Vec<String>> for PathRoots {
    type Error = GlobError;
    fn try_from(entries: Vec<String>) -> Result<Self, GlobError> {
        Self::new(entries)
    }
}

impl From<PathRoots> for Vec<String> {
    fn from(value: PathRoots) -> Self {
        value.entries
    }
}

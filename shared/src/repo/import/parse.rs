//! The grammar of a patch text: files, their headers, their hunks. Counts must fit, every line must belong somewhere.

mod header;
mod hunk;

use std::collections::BTreeSet;

use crate::domain::change::FileMode;

use super::ImportError;

pub(super) use hunk::{Hunk, LineKind};

/// What a file of a patch does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Create { path: Vec<u8>, mode: FileMode },
    Delete { path: Vec<u8>, mode: FileMode },
    Modify { path: Vec<u8>, old_mode: Option<FileMode>, new_mode: Option<FileMode> },
    Rename { from: Vec<u8>, to: Vec<u8>, old_mode: Option<FileMode>, new_mode: Option<FileMode> },
    Copy { from: Vec<u8>, to: Vec<u8>, old_mode: Option<FileMode>, new_mode: Option<FileMode> },
}

/// One file of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePatch<'a> {
    pub(super) action: Action,
    pub(super) hunks: Vec<Hunk<'a>>,
}

impl FilePatch<'_> {
    /// The path it reads.
    pub(super) fn old_name(&self) -> Option<&[u8]> {
        match &self.action {
            Action::Create { .. } => None,
            Action::Delete { path, .. } | Action::Modify { path, .. } => Some(path),
            Action::Rename { from, .. } | Action::Copy { from, .. } => Some(from),
        }
    }

    /// The path it writes.
    pub(super) fn new_name(&self) -> Option<&[u8]> {
        match &self.action {
            Action::Delete { .. } => None,
            Action::Create { path, .. } | Action::Modify { path, .. } => Some(path),
            Action::Rename { to, .. } | Action::Copy { to, .. } => Some(to),
        }
    }

    /// The mode it sets, where it says one.
    pub(super) const fn new_mode(&self) -> Option<FileMode> {
        match &self.action {
            Action::Create { mode, .. } => Some(*mode),
            Action::Delete { .. } => None,
            Action::Modify { new_mode, .. } | Action::Rename { new_mode, .. } | Action::Copy { new_mode, .. } => {
                *new_mode
            }
        }
    }

    /// Whether the path it reads is gone afterwards.
    pub(super) const fn removes_old(&self) -> bool {
        match &self.action {
            Action::Delete { .. } | Action::Rename { .. } => true,
            Action::Create { .. } | Action::Modify { .. } | Action::Copy { .. } => false,
        }
    }

    /// Whether the path it writes must be new.
    pub(super) const fn makes_new(&self) -> bool {
        match &self.action {
            Action::Create { .. } | Action::Rename { .. } | Action::Copy { .. } => true,
            Action::Delete { .. } | Action::Modify { .. } => false,
        }
    }

    /// The mode it says the old file has.
    pub(super) const fn old_mode(&self) -> Option<FileMode> {
        match &self.action {
            Action::Create { .. } => None,
            Action::Delete { mode, .. } => Some(*mode),
            Action::Modify { old_mode, .. } | Action::Rename { old_mode, .. } | Action::Copy { old_mode, .. } => {
                *old_mode
            }
        }
    }

    /// The paths it takes for itself: no other file of the patch may name them.
    fn owned_names(&self) -> impl Iterator<Item = &[u8]> {
        self.old_name().filter(|_| self.removes_old()).into_iter().chain(self.new_name())
    }
}

/// The lines of a patch text, one to look at.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) const fn malformed(&self, why: &'static str) -> ImportError {
        ImportError::Malformed { line: self.number + 1, why }
    }

    /// The next line without its line feed; nothing at the end.
    fn peek(&self) -> Result<Option<&'a [u8]>, ImportError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n');
        let end = end.ok_or_else(|| self.malformed("the last line is cut off"))?;
        Ok(Some(&self.rest[..end]))
    }

    /// The next line if it starts with a word, without it.
    fn peek_after(&self, word: &str) -> Result<Option<&'a [u8]>, ImportError> {
        Ok(self.peek()?.and_then(|line| line.strip_prefix(word.as_bytes())))
    }

    fn next(&mut self) -> Result<Option<&'a [u8]>, ImportError> {
        let line = self.peek()?;
        if let Some(line) = line {
            self.rest = &self.rest[line.len() + 1..];
            self.number += 1;
        }
        Ok(line)
    }

    /// Takes the next line if it starts with a word, and returns what follows the word.
    fn take_after(&mut self, word: &str) -> Result<Option<&'a [u8]>, ImportError> {
        let rest = self.peek_after(word)?;
        if rest.is_some() {
            self.next()?;
        }
        Ok(rest)
    }
}

/// Parses a whole patch text.
pub(super) fn parse(text: &[u8]) -> Result<Vec<FilePatch<'_>>, ImportError> {
    let mut lines = Lines { rest: text, number: 0 };
    let mut patches: Vec<FilePatch<'_>> = Vec::new();
    let mut owned: BTreeSet<Vec<u8>> = BTreeSet::new();
    while lines.peek()?.is_some() {
        let at = lines.number + 1;
        let patch = parse_file(&mut lines)?;
        for name in patch.owned_names() {
            if !owned.insert(name.to_vec()) {
                return Err(ImportError::Malformed { line: at, why: "a path is changed twice" });
            }
        }
        patches.push(patch);
    }
    Ok(patches)
}

fn parse_file<'a>(lines: &mut Lines<'a>) -> Result<FilePatch<'a>, ImportError> {
    let header = header::parse(lines)?;
    let mut hunks = Vec::new();
    if lines.peek_after("--- ")?.is_some() {
        header::parse_file_lines(lines, &header.action)?;
        // libgit2 names the sides of an empty file too; git does not.
        let may_be_empty = match &header.action {
            Action::Create { .. } | Action::Delete { .. } => true,
            Action::Modify { .. } | Action::Rename { .. } | Action::Copy { .. } => false,
        };
        if !may_be_empty || lines.peek_after("@@ ")?.is_some() {
            hunks = hunk::parse_all(lines)?;
        }
    }
    if lines.peek()?.is_some_and(|line| line.starts_with(b"GIT binary patch") || line.starts_with(b"Binary files ")) {
        return Err(lines.malformed("binary content cannot be imported from a text"));
    }
    header.check_against(&hunks, lines)?;
    Ok(FilePatch { action: header.action, hunks })
}

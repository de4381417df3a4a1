//! The result tree: the base's trees with some entries changed, everything else byte for byte as it was.

use std::collections::BTreeMap;

use git2::Odb;

use crate::domain::change::FileMode;
use crate::domain::ids::Oid;
use crate::domain::path::RepoPath;
use crate::repo::raw::{self, RawEntry};

use super::ImportError;
use super::apply::Edits;

/// What happens in one directory.
#[derive(Default)]
struct Directory<'a> {
    leaves: BTreeMap<&'a str, (&'a RepoPath, Option<RawEntry>)>,
    below: BTreeMap<&'a str, Self>,
}

/// Writes the trees and returns the root.
pub(super) fn build(odb: &Odb<'_>, base: Oid, edits: &Edits) -> Result<Oid, ImportError> {
    let mut root = Directory::default();
    for (path, entry) in edits {
        let mut directory = &mut root;
        let mut parts: Vec<&str> = path.components().collect();
        let Some(name) = parts.pop() else { continue };
        for part in parts {
            directory = directory.below.entry(part).or_default();
        }
        directory.leaves.insert(name, (path, *entry));
    }
    match root.write(odb, Some(base))? {
        Some(tree) => Ok(tree),
        None => raw::write_tree(odb, Vec::new()).map_err(ImportError::Write),
    }
}

impl Directory<'_> {
    /// Writes the directory on top of what the base has; nothing where it becomes empty.
    fn write(&self, odb: &Odb<'_>, base: Option<Oid>) -> Result<Option<Oid>, ImportError> {
        let mut tree = match base {
            Some(id) => raw::read_tree(odb, id)?,
            None => Vec::new(),
        };
        for (name, (_, entry)) in &self.leaves {
            if entry.is_none() {
                tree.retain(|(own, old)| own != name.as_bytes() || old.is_tree());
            }
        }
        for (name, directory) in &self.below {
            let at = tree.iter().position(|(own, _)| own == name.as_bytes());
            let old = at.map(|index| tree.remove(index).1);
            if old.is_some_and(|entry| !entry.is_tree()) {
                return Err(directory.conflict("a file stands where the patch needs a directory"));
            }
            if let Some(id) = directory.write(odb, old.map(|entry| entry.id))? {
                tree.push((name.as_bytes().to_vec(), RawEntry { mode: FileMode::TREE, padded: false, id }));
            }
        }
        for (name, (path, entry)) in &self.leaves {
            let Some(entry) = entry else { continue };
            if tree.iter().any(|(own, old)| own == name.as_bytes() && old.is_tree()) {
                let why = "a directory stands where the patch needs a file";
                return Err(ImportError::Conflict { path: path.to_string(), why });
            }
            tree.retain(|(own, _)| own != name.as_bytes());
            tree.push((name.as_bytes().to_vec(), *entry));
        }
        if tree.is_empty() { Ok(None) } else { raw::write_tree(odb, tree).map(Some).map_err(ImportError::Write) }
    }

    fn conflict(&self, why: &'static str) -> ImportError {
        ImportError::Conflict { path: self.any_path().unwrap_or_default(), why }
    }

    fn any_path(&self) -> Option<String> {
        let own = self.leaves.values().next().map(|(path, _)| path.to_string());
        own.or_else(|| self.below.values().find_map(Self::any_path))
    }
}

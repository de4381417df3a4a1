//! A change as text for people. Only shown, never applied: what is judged and applied are objects.

use git2::{DiffFormat, DiffOptions, Repository};

use super::open::to_git;
use super::tree::{TreeError, tree_of};
use crate::domain::gate::{SymbolRef, has_symbol};
use crate::domain::ids::Oid;

/// The diff from a commit to a tree in git format, without rename detection, cut after `limit` bytes; whether it was
/// cut. Binary files are named, not shown.
///
/// # Errors
/// [`TreeError`] when an object cannot be read.
pub fn unified_diff(
    repo: &Repository,
    base_commit: Oid,
    result_tree: Oid,
    limit: usize,
) -> Result<(Vec<u8>, bool), TreeError> {
    let old = repo.find_tree(to_git(tree_of(repo, base_commit)?))?;
    let new = repo.find_tree(to_git(result_tree))?;
    let mut options = DiffOptions::new();
    options.id_abbrev(40).context_lines(3).ignore_submodules(false).include_typechange(true);
    let diff = repo.diff_tree_to_tree(Some(&old), Some(&new), Some(&mut options))?;
    let mut text = Vec::new();
    let mut cut = false;
    let printed = diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), '+' | '-' | ' ') {
            text.push(u8::try_from(line.origin()).unwrap_or(b' '));
        }
        text.extend_from_slice(line.content());
        cut = text.len() > limit;
        !cut
    });
    match printed {
        Ok(()) => {}
        // Our own stop comes back as an error of the callback.
        Err(_) if cut => text.truncate(limit),
        Err(error) => return Err(error.into()),
    }
    Ok((text, cut))
}

/// The wanted paths that a tree lacks; one that ends in `/` wants a file below it.
///
/// # Errors
/// [`TreeError`] when an object cannot be read.
pub fn missing_paths(repo: &Repository, tree: Oid, wanted: &[String]) -> Result<Vec<String>, TreeError> {
    let tree = repo.find_tree(to_git(tree))?;
    let mut missing = Vec::new();
    for path in wanted {
        let found = match tree.get_path(std::path::Path::new(path.trim_end_matches('/'))) {
            Ok(entry) => !path.ends_with('/') || entry.kind() == Some(git2::ObjectType::Tree),
            Err(error) if error.code() == git2::ErrorCode::NotFound => false,
            Err(error) => return Err(error.into()),
        };
        if !found {
            missing.push(path.clone());
        }
    }
    Ok(missing)
}

/// Bytes of a file that is searched for a symbol; a larger one has none.
const MAX_SOURCE: usize = 4 * 1024 * 1024;

/// Symbols (`path::name`) that the files of a tree lack. A link is no file.
///
/// # Errors
/// When an object cannot be read.
pub fn missing_symbols(repo: &Repository, tree: Oid, wanted: &[String]) -> Result<Vec<String>, TreeError> {
    let tree = repo.find_tree(to_git(tree))?;
    let mut missing = Vec::new();
    for symbol in wanted {
        let there = match SymbolRef::parse(symbol) {
            Err(_) => false,
            Ok(wanted) => match tree.get_path(std::path::Path::new(&wanted.path.to_string())) {
                Ok(entry) if entry.filemode() & 0o170_000 == 0o100_000 => {
                    let size = repo.odb()?.read_header(entry.id())?.0;
                    size <= MAX_SOURCE
                        && has_symbol(&String::from_utf8_lossy(repo.find_blob(entry.id())?.content()), &wanted.name)
                }
                Ok(_) => false,
                Err(error) if error.code() == git2::ErrorCode::NotFound => false,
                Err(error) => return Err(error.into()),
            },
        };
        if !there {
            missing.push(symbol.clone());
        }
    }
    Ok(missing)
}

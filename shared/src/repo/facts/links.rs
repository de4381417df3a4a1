//! Where the symlinks of a change lead, read from the result tree alone. Nothing is resolved on a disk.

use git2::Odb;

use crate::domain::change::{Entry, EntryPath, FileMode, LinkEnd, LinkTarget};
use crate::domain::ids::Oid;
use crate::domain::path::{MAX_DEPTH, RepoPath};
use crate::repo::raw::{self, RawEntry, RawError};

use super::Limits;
use super::walk::join;

/// A longer text is no path.
const MAX_TARGET_BYTES: u64 = 4096;
/// Links that lead to links, to follow.
const MAX_HOPS: usize = 8;

/// Fills in the targets of all links of a change.
pub(super) fn resolve(odb: &Odb<'_>, result: Oid, entries: &mut [Entry], limits: &Limits) -> Result<(), RawError> {
    let mut left = limits.link_contents;
    for entry in entries.iter_mut().filter(|entry| entry.is_new_symlink()) {
        let (EntryPath::Safe(path), Some(id)) = (&entry.path, entry.new_id) else {
            continue;
        };
        let text = if entry.bytes > MAX_TARGET_BYTES { Vec::new() } else { raw::read_blob(odb, id)?.data().to_vec() };
        let end = Resolver { odb, result }.follow(path, &text, &mut left)?;
        entry.link = Some(LinkTarget { text: EntryPath::of(&text).shown().to_owned(), end });
    }
    Ok(())
}

struct Resolver<'a> {
    odb: &'a Odb<'a>,
    result: Oid,
}

/// What the text of a link names.
enum Named {
    Outside(&'static str),
    Path(Vec<Vec<u8>>),
}

impl Resolver<'_> {
    /// Follows a link, and where it leads to a link, that one too.
    fn follow(&self, link: &RepoPath, text: &[u8], left: &mut usize) -> Result<LinkEnd, RawError> {
        let mut directory: Vec<Vec<u8>> = link.components().map(|part| part.as_bytes().to_vec()).collect();
        directory.pop();
        let mut text = text.to_vec();
        let mut hops = Vec::new();
        for _ in 0..MAX_HOPS {
            let path = match self.name(&directory, &text)? {
                Named::Outside(why) => {
                    return Ok(LinkEnd::Outside { why: why.to_owned() });
                }
                Named::Path(path) if path.is_empty() => return Ok(LinkEnd::Root),
                Named::Path(path) => path,
            };
            let bytes = path.iter().fold(Vec::new(), |prefix, part| join(&prefix, part));
            hops.push(EntryPath::of(&bytes));
            match self.find(&path)? {
                Some(entry) if entry.mode == FileMode::SYMLINK => {
                    if raw::blob_size(self.odb, entry.id)? > MAX_TARGET_BYTES {
                        return Ok(LinkEnd::Outside { why: "it leads to a link that is no path".to_owned() });
                    }
                    directory = path;
                    directory.pop();
                    text = raw::read_blob(self.odb, entry.id)?.data().to_vec();
                }
                Some(entry) if entry.is_tree() => {
                    let mut contents = Vec::new();
                    let more = self.list(&bytes, entry.id, path.len(), left, &mut contents)?;
                    return Ok(LinkEnd::Inside { hops, contents, more });
                }
                Some(_) | None => {
                    return Ok(LinkEnd::Inside { hops, contents: Vec::new(), more: false });
                }
            }
        }
        Ok(LinkEnd::Outside { why: "it leads through too many links".to_owned() })
    }

    /// Resolves the text of a link by its components. A link or a submodule on the way makes `..` mean something else,
    /// so it is not followed.
    fn name(&self, directory: &[Vec<u8>], text: &[u8]) -> Result<Named, RawError> {
        if text.is_empty() || text.contains(&0) {
            return Ok(Named::Outside("its target is no path"));
        }
        if text.starts_with(b"/") {
            return Ok(Named::Outside("its target is absolute"));
        }
        let mut path = directory.to_vec();
        let parts: Vec<&[u8]> = text.split(|byte| *byte == b'/').collect();
        for (index, part) in parts.iter().enumerate() {
            match *part {
                b"" | b"." => {}
                b".." => {
                    if path.pop().is_none() {
                        return Ok(Named::Outside("its target leaves the repository"));
                    }
                }
                name => {
                    path.push(name.to_vec());
                    let last = index + 1 == parts.len();
                    let found = if last { None } else { self.find(&path)? };
                    if found.is_some_and(|entry| [FileMode::SYMLINK, FileMode::GITLINK].contains(&entry.mode)) {
                        return Ok(Named::Outside("its target leads through another link or a submodule"));
                    }
                }
            }
        }
        Ok(Named::Path(path))
    }

    fn find(&self, path: &[Vec<u8>]) -> Result<Option<RawEntry>, RawError> {
        let parts: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        raw::lookup(self.odb, self.result, &parts)
    }

    /// Lists the files below a folder, and says whether there are more than may be listed.
    fn list(
        &self,
        prefix: &[u8],
        tree: Oid,
        depth: usize,
        left: &mut usize,
        contents: &mut Vec<RepoPath>,
    ) -> Result<bool, RawError> {
        for (name, entry) in raw::read_tree(self.odb, tree)? {
            let path = join(prefix, &name);
            if entry.is_tree() {
                if depth + 1 >= MAX_DEPTH || self.list(&path, entry.id, depth + 1, left, contents)? {
                    return Ok(true);
                }
                continue;
            }
            let Some(rest) = left.checked_sub(1) else {
                return Ok(true);
            };
            *left = rest;
            match RepoPath::inspect(&path) {
                Ok(path) => contents.push(path),
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }
}

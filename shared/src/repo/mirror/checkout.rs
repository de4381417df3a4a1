//! Writes a tree into a fresh folder, byte for byte. Every step is relative to an open folder and follows no link, and
//! the whole tree is looked through first, so a hostile commit is refused before anything of it is on disk.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use git2::Odb;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};

use super::super::open::to_git;
use super::super::tree::{self, Entry, TreeError};
use super::{MirrorError, io_error};
use crate::domain::ids::Oid;
use crate::domain::path::names_git;

/// Looks through all names and link targets of a tree.
pub(super) fn refuse_unsafe_paths(odb: &Odb<'_>, root: Oid) -> Result<(), MirrorError> {
    let mut open = vec![(root, String::new(), 0)];
    while let Some((folder, path, depth)) = open.pop() {
        tree::deep(depth)?;
        for entry in tree::read(odb, folder)? {
            let path = format!("{path}{}", String::from_utf8_lossy(&entry.name));
            let known = entry.is_tree() || entry.is_file() || entry.is_link() || entry.is_gitlink();
            if !known || unsafe_name(&entry.name) {
                return Err(MirrorError::UnsafePath { path });
            }
            if entry.is_tree() {
                open.push((entry.oid, format!("{path}/"), depth + 1));
            }
        }
    }
    Ok(())
}

/// Names that mean another folder, or the git folder in any spelling. `tree::read` has refused empty ones and slashes.
fn unsafe_name(name: &[u8]) -> bool {
    matches!(name, b"." | b"..") || names_git(name)
}

/// Opens a folder that must not be a link.
pub(super) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, folder_flags(), Mode::empty())?)
}

/// Writes a tree that [`refuse_unsafe_paths`] has passed into an empty folder; `shown` is only for errors.
pub(super) fn write_tree(odb: &Odb<'_>, root: Oid, dir: BorrowedFd<'_>, shown: &Path) -> Result<(), MirrorError> {
    for entry in tree::read(odb, root)? {
        let path = shown.join(String::from_utf8_lossy(&entry.name).as_ref());
        if entry.is_file() || entry.is_link() {
            let blob = odb.read(to_git(entry.oid)).map_err(|error| TreeError::reading(error, entry.oid))?;
            if blob.kind() != git2::ObjectType::Blob {
                return Err(TreeError::WrongKind { oid: entry.oid, wanted: "blob" }.into());
            }
            write_leaf(&entry, blob.data(), dir).map_err(io_error(&path))?;
        } else {
            // A submodule is an empty folder: it is never initialised.
            mkdirat(dir, entry.name.as_slice(), Mode::from_raw_mode(0o755))
                .map_err(|error| io_error(&path)(error.into()))?;
            if entry.is_tree() {
                let child = openat(dir, entry.name.as_slice(), folder_flags(), Mode::empty());
                let child = child.map_err(|error| io_error(&path)(error.into()))?;
                write_tree(odb, entry.oid, child.as_fd(), &path)?;
            }
        }
    }
    Ok(())
}

fn write_leaf(entry: &Entry, bytes: &[u8], dir: BorrowedFd<'_>) -> io::Result<()> {
    if entry.is_link() {
        return Ok(symlinkat(bytes, dir, entry.name.as_slice())?);
    }
    let mode = Mode::from_raw_mode(if entry.mode & 0o111 == 0 { 0o644 } else { 0o755 });
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(dir, entry.name.as_slice(), flags, mode)?;
    File::from(file).write_all(bytes)
}

const fn folder_flags() -> OFlags {
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_the_git_folder_is_unsafe() {
        for bad in [
            ".",
            "..",
            ".git",
            ".GIT",
            ".git.",
            ".git ",
            ".g\u{200c}it",
            "git~1",
            "GIT~2",
            ".git::$INDEX_ALLOCATION",
            ".git...:x",
        ] {
            assert!(unsafe_name(bad.as_bytes()), "{bad}");
        }
        for good in [".gitignore", "git", "a.git", "git~", "git~x", "...", "a:b", "CON", "\u{e9}", "-x"] {
            assert!(!unsafe_name(good.as_bytes()), "{good}");
        }
    }
}

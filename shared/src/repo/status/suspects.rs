//! A first look at a checkout: which paths can differ from HEAD at all. What is left out is certain to be the same, by
//! the rules by which git itself leaves a file unread; what is named is for libgit2 to judge. In a clean checkout of
//! 50,000 files this takes a third of the time of asking about all of them.

use std::collections::HashMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;

use git2::{IndexEntry, ObjectType, Repository};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

/// More suspects than this, and everything is looked at.
const MOST: usize = 1_000;

/// Seconds and nanoseconds.
pub(super) type Written = (i64, i64);

/// When the index was written, looked at before it is read: a file as young as that may have changed unseen.
pub(super) fn written(repo: &Repository) -> Option<Written> {
    let found = rustix::fs::stat(repo.path().join("index")).ok()?;
    Some((found.st_mtime, i64::try_from(found.st_mtime_nsec).ok()?))
}

/// The paths that may differ, in order; nothing where that cannot be said, and everything has to be looked at.
pub(super) fn suspects(repo: &Repository, root: &Path, written: Option<Written>) -> Option<Vec<Vec<u8>>> {
    let entries: Vec<IndexEntry> = repo.index().ok()?.iter().collect();
    let mut look = Look { entries: &entries, written: written?, found: Vec::new() };
    let everything = 0..entries.len();
    look.folder(open(CWD, root.as_os_str().as_encoded_bytes())?, &mut Vec::new(), everything)?;
    let head = repo.head().and_then(|head| head.peel_to_tree()).ok()?;
    let mut at = 0;
    look.tree(repo, &head, &mut Vec::new(), &mut at)?;
    for entry in entries.get(at..)? {
        look.suspect(&entry.path)?;
    }
    let mut found = look.found;
    found.sort();
    found.dedup();
    Some(found)
}

struct Look<'a> {
    entries: &'a [IndexEntry],
    written: Written,
    found: Vec<Vec<u8>>,
}

/// What the index has under one name of a folder.
enum Known {
    /// One file; by its number.
    File(usize),
    /// Files further down; by their numbers.
    Folder(Range<usize>),
}

impl<'a> Look<'a> {
    fn suspect(&mut self, path: &[u8]) -> Option<()> {
        self.found.push(path.to_vec());
        (self.found.len() <= MOST).then_some(())
    }

    /// Compares a folder with what the index has below it; `prefix` is its path with a slash.
    fn folder(&mut self, folder: OwnedFd, prefix: &mut Vec<u8>, below: Range<usize>) -> Option<()> {
        let (entries, length) = (self.entries, prefix.len());
        let mut known = self.known(length, below)?;
        let mut dir = Dir::new(folder).ok()?;
        let mut folders = Vec::new();
        while let Some(entry) = dir.next() {
            let entry = entry.ok()?;
            let name = entry.file_name().to_bytes();
            match name {
                b"." | b".." => continue,
                b".git" if length == 0 => continue,
                // A repository of its own: libgit2 knows what that means.
                b".git" => return None,
                _ => {}
            }
            prefix.truncate(length);
            prefix.extend_from_slice(name);
            match known.remove(name) {
                Some(Known::File(at)) if entries[at].mode == 0o160_000 => {}
                Some(Known::File(at)) => {
                    let found = statat(dir.fd().ok()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
                    if !self.unchanged(&entries[at], &found) {
                        self.suspect(prefix)?;
                    }
                }
                Some(Known::Folder(range)) if entry.file_type() == FileType::Directory => {
                    folders.push((name.to_vec(), range));
                }
                Some(Known::Folder(_)) => return None,
                None => self.suspect(prefix)?,
            }
        }
        for at in known.into_values() {
            match at {
                Known::File(at) if entries[at].mode == 0o160_000 => {}
                Known::File(at) => self.suspect(&entries[at].path)?,
                Known::Folder(_) => return None,
            }
        }
        for (name, range) in folders {
            prefix.truncate(length);
            prefix.extend_from_slice(&name);
            let inner = open(dir.fd().ok()?, &name)?;
            prefix.push(b'/');
            self.folder(inner, prefix, range)?;
        }
        Some(())
    }

    /// What the index has in a folder, by name. Its order keeps what is below one name together.
    fn known(&mut self, prefix: usize, below: Range<usize>) -> Option<HashMap<&'a [u8], Known>> {
        let entries = self.entries;
        let mut known = HashMap::with_capacity(below.len().min(256));
        let mut at = below.start;
        while at < below.end {
            let rest = entries[at].path.get(prefix..)?;
            let Some(slash) = rest.iter().position(|b| *b == b'/') else {
                if known.insert(rest, Known::File(at)).is_some() {
                    // The sides of a conflict.
                    self.suspect(&entries[at].path)?;
                }
                at += 1;
                continue;
            };
            let inside = |entry: &IndexEntry| entry.path.get(prefix..).is_some_and(|p| p.starts_with(&rest[..=slash]));
            let end = at + entries[at..below.end].partition_point(inside);
            known.insert(&rest[..slash], Known::Folder(at..end));
            at = end;
        }
        Some(known)
    }

    /// Whether git would leave the file unread: everything the index remembers of it is as it was, and it is older than
    /// the index.
    fn unchanged(&self, entry: &IndexEntry, found: &Stat) -> bool {
        let kind = FileType::from_raw_mode(found.st_mode);
        let mode = match (kind == FileType::Symlink, found.st_mode & 0o100 != 0) {
            (true, _) => 0o120_000,
            (false, true) => 0o100_755,
            (false, false) => 0o100_644,
        };
        let low = |wide: u64| wide as u32;
        let nanos = |nanos| u32::try_from(nanos).ok();
        matches!(kind, FileType::Symlink | FileType::RegularFile)
            && entry.mode == mode
            && entry.mtime.seconds() == found.st_mtime as i32
            && Some(entry.mtime.nanoseconds()) == nanos(found.st_mtime_nsec)
            && entry.ctime.seconds() == found.st_ctime as i32
            && Some(entry.ctime.nanoseconds()) == nanos(found.st_ctime_nsec)
            && entry.file_size == low(found.st_size as u64)
            && entry.ino == low(found.st_ino)
            && (entry.uid, entry.gid) == (found.st_uid, found.st_gid)
            && i64::try_from(found.st_mtime_nsec).is_ok_and(|nanos| (found.st_mtime, nanos) < self.written)
    }

    /// Compares a tree of HEAD with the entries of the index from `at` on; both are in the same order.
    fn tree(&mut self, repo: &Repository, tree: &git2::Tree<'_>, prefix: &mut Vec<u8>, at: &mut usize) -> Option<()> {
        let length = prefix.len();
        for entry in tree {
            prefix.truncate(length);
            prefix.extend_from_slice(entry.name_bytes());
            if entry.kind() == Some(ObjectType::Tree) {
                prefix.push(b'/');
                self.tree(repo, &repo.find_tree(entry.id()).ok()?, prefix, at)?;
                continue;
            }
            while let Some(other) = self.entries.get(*at).filter(|other| other.path < *prefix) {
                self.suspect(&other.path)?;
                *at += 1;
            }
            let same = |other: &&IndexEntry| {
                let stage = other.flags >> 12 & 3;
                stage == 0 && other.id == entry.id() && i64::from(other.mode) == i64::from(entry.filemode_raw())
            };
            match self.entries.get(*at).filter(|other| other.path == *prefix) {
                Some(other) if same(&other) => *at += 1,
                Some(_) | None => self.suspect(prefix)?,
            }
        }
        Some(())
    }
}

fn open(at: impl std::os::fd::AsFd, name: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty()).ok()
}

#[cfg(test)]
mod tests;

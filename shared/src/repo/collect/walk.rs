//! The walk over a workspace, folder by folder, each opened from the one above it and never through a link or a mount.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use git2::Odb;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, openat2, statat, statx};
use rustix::io::Errno;

use super::super::marks::Believed;
use super::super::open::to_git;
use super::super::tree::{self, Entry};
use super::ignored::Ignores;
use super::{CollectError, CollectLimits, Skipped, SkippedKind};
use crate::domain::ids::Oid;
use crate::domain::path::names_git;

/// What the walk notes besides the tree.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) root_git: bool,
    pub(super) nested_git: Vec<Vec<u8>>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) ignored: usize,
}

pub(super) struct Walk<'a, 'repo> {
    pub(super) odb: &'a Odb<'repo>,
    pub(super) limits: CollectLimits,
    pub(super) found: Found,
    pub(super) path: Vec<u8>,
    pub(super) bytes_left: u64,
    entries: usize,
    ignores: Ignores,
    marks: Option<Believed<'a>>,
}

impl<'a, 'repo> Walk<'a, 'repo> {
    pub(super) fn new(odb: &'a Odb<'repo>, limits: CollectLimits, marks: Option<Believed<'a>>) -> Self {
        let (found, path, ignores) = (Found::default(), Vec::new(), Ignores::default());
        Self { odb, limits, found, path, bytes_left: limits.total_bytes, entries: 0, ignores, marks }
    }

    /// Collects one folder; `None` when nothing in it is for git. `ignored` says that untracked files here are not.
    pub(super) fn folder(
        &mut self,
        dir: BorrowedFd<'_>,
        base: Option<Oid>,
        ignored: bool,
        depth: usize,
    ) -> Result<Option<Oid>, CollectError> {
        if depth > self.limits.depth {
            return Err(CollectError::TooComplex { limit: self.limits.depth, unit: "levels" });
        }
        let mut before = tree::by_name(self.odb, base)?;
        let unchanged = before.clone();
        self.ignores.enter(self.odb, &self.path, before.get(b".gitignore".as_slice()))?;
        let mut now = BTreeMap::new();
        for name in self.names(dir)? {
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if let Some(entry) = self.entry(dir, &name, before.remove(&name), ignored, depth)? {
                now.insert(name, entry);
            }
            self.path.truncate(length);
        }
        self.ignores.leave();
        if now.is_empty() {
            return Ok(None);
        }
        if now == unchanged {
            return Ok(base);
        }
        Ok(Some(tree::write(self.odb, now.into_values().collect())?))
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        before: Option<Entry>,
        ignored: bool,
        depth: usize,
    ) -> Result<Option<Entry>, CollectError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(CollectError::TooComplex { limit: self.limits.entries, unit: "entries" });
        }
        if names_git(name) {
            self.git(name, depth);
            return Ok(None);
        }
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| self.failed(error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::RegularFile
            && let Some(entry) = self.untouched(before.as_ref(), &stat)
        {
            return Ok(Some(entry));
        }
        let ignored = ignored || self.ignores.matches(&self.path, kind == FileType::Directory);
        let untracked =
            before.as_ref().is_none_or(|entry| kind == FileType::Directory && !entry.is_tree() && !entry.is_gitlink());
        if ignored && untracked {
            self.found.ignored += 1;
            return Ok(None);
        }
        let entry = |mode, oid| Some(Entry { mode, name: name.to_vec(), oid });
        if kind == FileType::Directory {
            return Ok(self.child(dir, name, before, ignored, depth)?.and_then(|(mode, oid)| entry(mode, oid)));
        }
        if kind == FileType::RegularFile || kind == FileType::Symlink {
            let before = before.as_ref();
            let leaf = if kind == FileType::Symlink {
                self.link(dir, name, before, &stat)?
            } else {
                self.file(dir, name, before)?
            };
            return Ok(entry(leaf.mode, leaf.oid));
        }
        let kind = match () {
            () if kind == FileType::Fifo => SkippedKind::Fifo,
            () if kind == FileType::Socket => SkippedKind::Socket,
            () if kind == FileType::BlockDevice || kind == FileType::CharacterDevice => SkippedKind::Device,
            () => SkippedKind::Unknown,
        };
        self.found.skipped.push(Skipped { path: self.path.clone(), kind });
        Ok(None)
    }

    /// The base's own entry, where the file that it was written to is as it was.
    fn untouched(&self, before: Option<&Entry>, stat: &Stat) -> Option<Entry> {
        let before = before?;
        let leaf = self.marks?.untouched(&self.path, stat)?;
        (leaf == before.leaf()).then(|| before.clone())
    }

    fn child(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        before: Option<Entry>,
        ignored: bool,
        depth: usize,
    ) -> Result<Option<(u32, Oid)>, CollectError> {
        let child = self.open(dir, name, OFlags::DIRECTORY)?;
        if let Some(submodule) = before.as_ref().filter(|entry| entry.is_gitlink())
            && self.names(child.as_fd())?.is_empty()
        {
            return Ok(Some((submodule.mode, submodule.oid)));
        }
        let before = before.filter(Entry::is_tree);
        let tree = self.folder(child.as_fd(), before.as_ref().map(|entry| entry.oid), ignored, depth + 1)?;
        Ok(tree.map(|oid| (before.map_or(0o040_000, |entry| entry.mode), oid)))
    }

    /// Whatever is called so is left out and never entered: git refuses a tree that holds it.
    fn git(&mut self, name: &[u8], depth: usize) {
        if depth == 0 && name == b".git" {
            self.found.root_git = true;
        } else {
            self.found.nested_git.push(self.path.clone());
        }
    }

    fn names(&self, dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, CollectError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).map_err(|error| self.failed(error))? {
            let entry = entry.map_err(|error| self.failed(error))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
            if names.len() > self.limits.entries {
                return Err(CollectError::TooComplex { limit: self.limits.entries, unit: "entries" });
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens an entry of a folder: not through a link, not across a mount, never waiting for a pipe's other end.
    pub(super) fn open(&self, dir: BorrowedFd<'_>, name: &[u8], kind: OFlags) -> Result<OwnedFd, CollectError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | kind;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(dir, name, flags, Mode::empty(), resolve).map_err(|error| {
            // Also said of what was moved out of the folder while it was looked up.
            let moved = error == Errno::XDEV && !is_mount(dir, name);
            self.failed(if moved { Errno::AGAIN } else { error })
        })
    }

    pub(super) fn failed(&self, error: Errno) -> CollectError {
        let path = self.shown();
        match error {
            Errno::XDEV => CollectError::Mount { path },
            Errno::ACCESS | Errno::PERM => CollectError::Unreadable { path },
            Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::AGAIN | Errno::STALE => {
                CollectError::Unstable { path }
            }
            other => CollectError::Io { path, source: other.into() },
        }
    }

    pub(super) fn shown(&self) -> String {
        if self.path.is_empty() { ".".to_owned() } else { String::from_utf8_lossy(&self.path).into_owned() }
    }

    /// The size of a blob of the base; 0 when it is not there to compare with.
    pub(super) fn base_size(&self, before: Option<&Entry>) -> u64 {
        let size =
            before.filter(|entry| entry.is_file()).and_then(|entry| self.odb.read_header(to_git(entry.oid)).ok());
        size.map_or(0, |(size, _)| size as u64)
    }
}

/// Whether an entry of a folder is on another mount; also where that cannot be said. What is gone is on none.
fn is_mount(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let mount = |name: &[u8], flags: AtFlags| {
        let stat = statx(dir, name, flags, StatxFlags::MNT_ID)?;
        Ok::<_, Errno>((stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id))
    };
    match (mount(b"", AtFlags::EMPTY_PATH), mount(name, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(Some(own)), Ok(Some(its))) => own != its,
        (_, Err(error)) => error != Errno::NOENT,
        (Ok(_) | Err(_), Ok(_)) => true,
    }
}

//! Writes a tree into a fresh folder, byte for byte, with as many threads as there are to spare. Every step is relative
//! to an open folder and follows no link, and the whole tree is looked through first, so a hostile commit is refused
//! before anything of it is on disk.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use git2::{Odb, Repository};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, symlinkat};

use super::super::marks::Written;
use super::super::open::{self, to_git};
use super::super::tree::{self, Entry, TreeError};
use super::{MirrorError, io_error};
use crate::domain::ids::Oid;
use crate::domain::path::names_git;

/// Files, links and folders of a tree that is checked out.
const MOST_ENTRIES: usize = 2_000_000;

/// Files that a thread takes at a time.
const HANDFUL: usize = 128;

/// A tree that was looked through: nothing in it leads outside.
#[derive(Debug)]
pub(super) struct Plan {
    folders: Vec<Folder>,
}

/// One folder of it. Those above it stand before it.
#[derive(Debug)]
struct Folder {
    path: Vec<u8>,
    leaves: Vec<Entry>,
}

impl Plan {
    /// Looks through all names of a tree.
    pub(super) fn of(odb: &Odb<'_>, root: Oid) -> Result<Self, MirrorError> {
        let (mut folders, mut entries) = (Vec::new(), 0);
        let mut open = vec![(root, Vec::new(), 0)];
        while let Some((folder, path, depth)) = open.pop() {
            tree::deep(depth)?;
            let mut leaves = Vec::new();
            for entry in tree::read(odb, folder)? {
                let path = join(&path, &entry.name);
                entries += 1;
                if entries > MOST_ENTRIES {
                    return Err(TreeError::TooComplex { limit: MOST_ENTRIES, unit: "entries" }.into());
                }
                refuse_unsafe(&entry, &path)?;
                if entry.is_tree() {
                    open.push((entry.oid, path, depth + 1));
                } else if entry.is_gitlink() {
                    // A submodule is an empty folder: it is never initialised.
                    folders.push(Folder { path, leaves: Vec::new() });
                } else {
                    leaves.push(entry);
                }
            }
            folders.push(Folder { path, leaves });
        }
        // The shorter path first: a folder is made before what is in it.
        folders.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { folders })
    }
}

/// Refuses an entry that would be written outside, or that git would take for its own.
pub(super) fn refuse_unsafe(entry: &Entry, path: &[u8]) -> Result<(), MirrorError> {
    let known = entry.is_tree() || entry.is_file() || entry.is_link() || entry.is_gitlink();
    if !known || unsafe_name(&entry.name) {
        return Err(MirrorError::UnsafePath { path: String::from_utf8_lossy(path).into_owned() });
    }
    Ok(())
}

/// Names that mean another folder, or the git folder in any spelling. `tree::read` has refused empty ones and slashes.
fn unsafe_name(name: &[u8]) -> bool {
    matches!(name, b"." | b"..") || names_git(name)
}

/// A path below another.
pub(super) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if folder.is_empty() { b"" } else { b"/" };
    [folder, slash, name].concat()
}

/// Opens a folder that must not be a link.
pub(super) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, folder_flags(), Mode::empty())?)
}

/// Opens a folder below another, by no link and over no mount.
pub(in crate::repo) fn open_below(dir: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b".".as_slice() } else { path };
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(openat2(dir, path, folder_flags(), Mode::empty(), resolve)?)
}

/// Makes a folder in another.
pub(super) fn make_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(mkdirat(dir, name, Mode::from_raw_mode(0o755))?)
}

/// How a tree is written.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    /// The mirror's git folder; each thread opens it for itself.
    pub(super) git: &'a Path,
    /// The folder, for errors.
    pub(super) shown: &'a Path,
    /// Threads, the caller's among them.
    pub(super) threads: usize,
    /// Bytes that may be written.
    pub(super) most_bytes: u64,
    /// Whether it is still wanted; asked every few files.
    pub(super) wanted: &'a (dyn Fn() -> bool + Sync),
}

/// What several threads share.
struct Work<'a> {
    how: How<'a>,
    dir: BorrowedFd<'a>,
    /// A folder and some of its files.
    handfuls: Vec<(&'a [u8], &'a [Entry])>,
    next: AtomicUsize,
    bytes: AtomicU64,
    failed: AtomicBool,
}

/// Writes a tree into an empty folder. Says what was written, and how many bytes that are.
pub(super) fn write(plan: &Plan, dir: BorrowedFd<'_>, how: How<'_>) -> Result<(Vec<Written>, u64), MirrorError> {
    for folder in plan.folders.iter().filter(|folder| !folder.path.is_empty()) {
        let shown = || how.shown.join(String::from_utf8_lossy(&folder.path).as_ref());
        let (above, name) = match folder.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&folder.path[..slash], &folder.path[slash + 1..]),
            None => (b"".as_slice(), folder.path.as_slice()),
        };
        let above = open_below(dir, above).map_err(|error| io_error(&shown())(error))?;
        make_dir(above.as_fd(), name).map_err(|error| io_error(&shown())(error))?;
    }
    let handfuls: Vec<_> = plan
        .folders
        .iter()
        .flat_map(|folder| folder.leaves.chunks(HANDFUL).map(|some| (folder.path.as_slice(), some)))
        .collect();
    let threads = how.threads.clamp(1, handfuls.len().max(1));
    let (next, bytes, failed) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let work = Work { how, dir, handfuls, next, bytes, failed };
    let mut written = Vec::new();
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work.until_done())).collect();
        let mut done = vec![work.until_done()];
        // A panic of another thread is this one's.
        done.extend(others.into_iter().map(|other| match other.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }));
        done.into_iter().try_for_each(|some| some.map(|some| written.extend(some)))
    })?;
    Ok((written, work.bytes.into_inner()))
}

impl Work<'_> {
    /// Takes one handful after the other; stops where another thread has failed.
    fn until_done(&self) -> Result<Vec<Written>, MirrorError> {
        let mut written = Vec::new();
        let done = open::open_bare(self.how.git).map_err(MirrorError::from).and_then(|repo| {
            while !self.failed.load(Ordering::Relaxed) {
                let Some((folder, leaves)) = self.handfuls.get(self.next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                if !(self.how.wanted)() {
                    return Err(MirrorError::Unwanted);
                }
                self.handful(&repo, folder, leaves, &mut written)?;
            }
            Ok(())
        });
        if done.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        done.map(|()| written)
    }

    fn handful(
        &self,
        repo: &Repository,
        folder: &[u8],
        leaves: &[Entry],
        written: &mut Vec<Written>,
    ) -> Result<(), MirrorError> {
        let shown = |path: &[u8]| self.how.shown.join(String::from_utf8_lossy(path).as_ref());
        let odb = repo.odb()?;
        let dir = open_below(self.dir, folder).map_err(|error| io_error(&shown(folder))(error))?;
        for entry in leaves {
            let path = join(folder, &entry.name);
            let size = leaf(&odb, entry, dir.as_fd(), &path, &shown(&path), written)?;
            if self.bytes.fetch_add(size, Ordering::Relaxed) + size > self.how.most_bytes {
                return Err(MirrorError::TooMuch { limit: self.how.most_bytes });
            }
        }
        Ok(())
    }
}

/// Writes one file or link; says how many bytes it has.
pub(super) fn leaf(
    odb: &Odb<'_>,
    entry: &Entry,
    dir: BorrowedFd<'_>,
    path: &[u8],
    shown: &Path,
    written: &mut Vec<Written>,
) -> Result<u64, MirrorError> {
    let blob = odb.read(to_git(entry.oid)).map_err(|error| TreeError::reading(error, entry.oid))?;
    if blob.kind() != git2::ObjectType::Blob {
        return Err(TreeError::WrongKind { oid: entry.oid, wanted: "blob" }.into());
    }
    if entry.is_link() {
        symlinkat(blob.data(), dir, entry.name.as_slice()).map_err(|error| io_error(shown)(error.into()))?;
    } else {
        let stat = write_file(entry, blob.data(), dir).map_err(io_error(shown))?;
        written.push(Written::of(path.to_vec(), entry.leaf(), &stat));
    }
    Ok(blob.data().len() as u64)
}

fn write_file(entry: &Entry, bytes: &[u8], dir: BorrowedFd<'_>) -> io::Result<rustix::fs::Stat> {
    let mode = Mode::from_raw_mode(if entry.mode & 0o111 == 0 { 0o644 } else { 0o755 });
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(dir, entry.name.as_slice(), flags, mode)?);
    file.write_all(bytes)?;
    Ok(fstat(&file)?)
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

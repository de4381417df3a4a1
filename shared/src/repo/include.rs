//! Ignored files that a project needs and its commit does not hold (`.env`, a local configuration): listed in the
//! `.worktreeinclude` of the trusted base, in the words of a `.gitignore`, and copied from one folder. A file is brought
//! only if the trusted base and the worktree's commit both ignore it and do not track it: a change has no say in what it
//! is given, and no collection ever takes it back. Folders that are ignored as a whole are looked into only where the
//! list names them, or leads into them with a path.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use git2::Repository;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, mkdirat, openat, statat};
use rustix::io::Errno;

use super::collect::Ignores;
use super::mirror::open_below;
use super::open::{OpenError, to_git};
use super::tree::{self, Entry, TreeError};
use crate::domain::ids::Oid;
use crate::domain::path::{RepoPath, names_git};

mod ways;

use ways::Ways;

/// The list in the root of a commit.
pub const LIST: &str = ".worktreeinclude";

/// Where runs keep what they leave unless it is set otherwise: what is in there is of other runs.
const DATA: &str = ".autonomous_runs";

/// How much may be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IncludeLimits {
    /// Files that are brought.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Entries of the folder that are looked at.
    pub entries: usize,
}

impl Default for IncludeLimits {
    fn default() -> Self {
        Self { files: 1_000, bytes: 50 << 20, entries: 200_000 }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Included {
    /// The files that were brought.
    pub files: Vec<String>,
    /// Those that are listed and were not, with the reason.
    pub left_out: Vec<(String, &'static str)>,
}

/// Why nothing more is brought.
#[derive(Debug, thiserror::Error)]
pub enum IncludeError {
    /// More than may be brought, or looked at.
    #[error("the files that {LIST} names go past the limit of {limit} {unit}")]
    TooMuch {
        /// The limit.
        limit: u64,
        /// What was counted.
        unit: &'static str,
    },
    /// A file or folder.
    #[error("cannot bring {path}")]
    Io {
        /// The path.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The base cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The mirror cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// libgit2 failed otherwise.
    #[error(transparent)]
    Git(#[from] git2::Error),
}

/// Copies what `trusted` lists from `source` into the worktree `dir` of `base`, which no builder has had yet.
///
/// # Errors
/// [`IncludeError`]; the worktree is then not to be used.
pub fn include(
    repo: &Repository,
    (trusted, base): (Oid, Oid),
    source: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    limits: &IncludeLimits,
) -> Result<Included, IncludeError> {
    let odb = repo.odb()?;
    let trusted = tree::tree_of(repo, trusted)?;
    let mut listed = Ignores::default();
    let root = tree::read(&odb, trusted)?;
    let Some(list) = root.iter().find(|entry| entry.name == LIST.as_bytes() && entry.is_file()) else {
        return Ok(Included::default());
    };
    listed.enter(&odb, b"", Some(list))?;
    let text = odb.read(to_git(list.oid)).map_err(|error| TreeError::reading(error, list.oid))?;
    let ways = Ways::read(text.data());
    let (ignored, left) = ([Ignores::default(), Ignores::default()], *limits);
    let mut walk = Walk { odb: &odb, listed, ways, ignored, dir, limits: *limits, left, found: Included::default() };
    let trees = [Some(trusted), Some(tree::tree_of(repo, base)?)];
    walk.folder(source, trees, b"", State::default(), 0)?;
    Ok(walk.found)
}

/// What holds for everything in a folder.
#[derive(Clone, Copy, Default)]
struct State {
    listed: bool,
    /// By the trusted base, and by the worktree's commit.
    ignored: [bool; 2],
}

struct Walk<'a, 'repo> {
    odb: &'a git2::Odb<'repo>,
    listed: Ignores,
    ways: Ways,
    ignored: [Ignores; 2],
    dir: BorrowedFd<'a>,
    limits: IncludeLimits,
    left: IncludeLimits,
    found: Included,
}

impl Walk<'_, '_> {
    fn folder(
        &mut self,
        source: BorrowedFd<'_>,
        trees: [Option<Oid>; 2],
        path: &[u8],
        above: State,
        depth: usize,
    ) -> Result<(), IncludeError> {
        if depth > crate::domain::path::MAX_DEPTH {
            return Ok(());
        }
        let before = [tree::by_name(self.odb, trees[0])?, tree::by_name(self.odb, trees[1])?];
        for (ignored, before) in self.ignored.iter_mut().zip(&before) {
            ignored.enter(self.odb, path, before.get(b".gitignore".as_slice()))?;
        }
        for name in self.names(source, path)? {
            let path = if path.is_empty() { name.clone() } else { [path, b"/", &name].concat() };
            if !names_git(&name) && path != DATA.as_bytes() {
                let before = [before[0].get(&name), before[1].get(&name)];
                self.entry(source, &name, before, &path, above, depth)?;
            }
        }
        self.ignored.iter_mut().for_each(Ignores::leave);
        Ok(())
    }

    fn entry(
        &mut self,
        source: BorrowedFd<'_>,
        name: &[u8],
        before: [Option<&Entry>; 2],
        path: &[u8],
        above: State,
        depth: usize,
    ) -> Result<(), IncludeError> {
        let kind = match statat(source, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            // It went away just now.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(path, error.into())),
        };
        let folder = kind == FileType::Directory;
        let ignored = |at: usize| above.ignored[at] || self.ignored[at].matches(path, folder);
        let here =
            State { listed: above.listed || self.listed.matches(path, folder), ignored: [ignored(0), ignored(1)] };
        if folder {
            // A build's output may hold millions of files.
            if here.ignored[0] && !here.listed && !self.ways.lead_into(path) {
                return Ok(());
            }
            let trees = before.map(|entry| entry.filter(|entry| entry.is_tree()).map(|entry| entry.oid));
            return match open_below(source, name) {
                Ok(child) => self.folder(child.as_fd(), trees, path, here, depth + 1),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                    if here.listed {
                        self.leave_out(path, "it is on another file system");
                    }
                    Ok(())
                }
                Err(error) => Err(failed(path, error)),
            };
        }
        // What is tracked comes from the commit.
        if !here.listed || before.iter().any(Option::is_some) {
            return Ok(());
        }
        let refused = match () {
            () if RepoPath::inspect(path).is_err() => Some("its name is not safe"),
            () if here.ignored != [true; 2] => Some("the commit does not ignore it"),
            () if kind != FileType::RegularFile => Some("it is no regular file"),
            () => None,
        };
        if let Some(why) = refused {
            self.leave_out(path, why);
            return Ok(());
        }
        self.copy(source, name, path).map(|()| self.found.files.push(shown(path)))
    }

    fn leave_out(&mut self, path: &[u8], why: &'static str) {
        self.found.left_out.push((shown(path), why));
    }

    fn copy(&mut self, source: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), IncludeError> {
        let io = |error: Errno| failed(path, error.into());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let from = File::from(openat(source, name, flags, Mode::empty()).map_err(io)?);
        let stat = fstat(&from).map_err(io)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io(Errno::INVAL));
        }
        let too_much = |limit, unit| IncludeError::TooMuch { limit, unit };
        let files = self.left.files.checked_sub(1);
        self.left.files = files.ok_or_else(|| too_much(self.limits.files as u64, "files"))?;
        let mut bytes = Vec::new();
        from.take(self.left.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| failed(path, error))?;
        let left = self.left.bytes.checked_sub(bytes.len() as u64);
        self.left.bytes = left.ok_or_else(|| too_much(self.limits.bytes, "bytes"))?;
        let into = self.place(path).map_err(|error| failed(path, error))?;
        let mode = Mode::from_raw_mode(if stat.st_mode & 0o100 == 0 { 0o644 } else { 0o755 });
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&into, name, flags, mode).map_err(io)?);
        file.write_all(&bytes).map_err(|error| failed(path, error))
    }

    /// The folder of a path in the worktree, made where it is missing; never through a link.
    fn place(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let mut folder = open_below(self.dir, b"")?;
        let mut parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        parts.pop();
        for part in parts {
            match mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = open_below(folder.as_fd(), part)?;
        }
        Ok(folder)
    }

    fn names(&mut self, source: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>, IncludeError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(source).map_err(|error| failed(path, error.into()))? {
            let entry = entry.map_err(|error| failed(path, error.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
            let too_much = IncludeError::TooMuch { limit: self.limits.entries as u64, unit: "entries" };
            self.left.entries = self.left.entries.checked_sub(1).ok_or(too_much)?;
        }
        names.sort();
        Ok(names)
    }
}

fn failed(path: &[u8], source: io::Error) -> IncludeError {
    IncludeError::Io { path: shown(path), source }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[cfg(test)]
mod tests;

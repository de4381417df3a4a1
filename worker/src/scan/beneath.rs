//! Files below one folder, opened so that neither a symlink nor `..` can lead out of it. The tree is untrusted: a
//! name in it may be swapped for a link to anything at any time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// A folder and what is below it.
#[derive(Debug)]
pub(crate) struct Beneath {
    root: OwnedFd,
}

/// How a file is opened for reading: no link is followed, and a pipe does not block.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Keeps the folder of the last file open: looking up every path from the top is what reading many small files costs.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    tree: &'a Beneath,
    folder: Option<(Vec<u8>, OwnedFd)>,
}

impl Files<'_> {
    /// As [`Beneath::file`].
    pub(crate) fn open(&mut self, path: &[u8]) -> io::Result<(File, u64)> {
        let Some(slash) = path.iter().rposition(|b| *b == b'/') else {
            return self.tree.file(path);
        };
        let (folder, name) = (&path[..slash], &path[slash + 1..]);
        let (known, fd) = match self.folder.take().filter(|(known, _)| known == folder) {
            Some(same) => same,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                (folder.to_vec(), self.tree.lookup(Path::new(OsStr::from_bytes(folder)), flags)?)
            }
        };
        let file = rustix::fs::openat(&fd, name, FILE, Mode::empty());
        self.folder = Some((known, fd));
        regular(file?)
    }
}

/// A file with its size, where it is a regular one.
fn regular(fd: OwnedFd) -> io::Result<(File, u64)> {
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((File::from(fd), u64::try_from(stat.st_size).unwrap_or(0)))
}

/// How often a lookup that lost a race against a rename is tried again.
const TRIES: usize = 8;

impl Beneath {
    /// Opens the folder itself.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::openat(CWD, root, flags, Mode::empty())? })
    }

    /// Opens a regular file for reading, with its size. Anything else at that place is an error, and never blocks.
    pub(crate) fn file(&self, path: &[u8]) -> io::Result<(File, u64)> {
        regular(self.lookup(Path::new(OsStr::from_bytes(path)), FILE)?)
    }

    /// Opens files one after the other, most of them beside the one before.
    pub(crate) fn files(&self) -> Files<'_> {
        Files { tree: self, folder: None }
    }

    fn lookup(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(fd),
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS | Errno::PERM) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let (parent, name) = self.parent(path, false)?;
        Ok(rustix::fs::openat(&parent, name, flags, Mode::empty())?)
    }

    /// Walks to the folder a path is in, one component at a time, making folders on the way if asked to.
    fn parent(&self, path: &Path, make: bool) -> io::Result<(OwnedFd, OsString)> {
        let bad = || io::Error::new(io::ErrorKind::InvalidInput, "not a plain relative path");
        let mut names = Vec::new();
        for part in path.components() {
            let Component::Normal(name) = part else {
                return Err(bad());
            };
            names.push(name);
        }
        let last = names.pop().ok_or_else(bad)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = self.root.as_fd().try_clone_to_owned()?;
        for name in names {
            if make {
                match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            folder = rustix::fs::openat(&folder, name, flags, Mode::empty())?;
        }
        Ok((folder, last.to_owned()))
    }

    /// Reads a whole regular file, refusing one that is larger than `most`.
    pub(crate) fn read(&self, path: &str, most: u64) -> io::Result<Vec<u8>> {
        let (file, size) = self.file(path.as_bytes())?;
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(most)).unwrap_or(0));
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is too large"));
        }
        Ok(bytes)
    }

    /// Whether anything, also a dangling link, stands at that place.
    pub(crate) fn exists(&self, path: &str) -> bool {
        let Ok((parent, name)) = self.parent(Path::new(path), false) else {
            return false;
        };
        rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Replaces or creates a file: written beside it, flushed, then renamed over it. An existing file keeps its mode.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(Path::new(path), true)?;
        let mode = match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Mode::from_raw_mode(stat.st_mode)
            }
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            Err(Errno::NOENT) => Mode::from_raw_mode(0o644),
            Err(error) => return Err(error.into()),
        };
        let temporary = OsString::from(".autopack-remediation.tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, &temporary, flags, Mode::from_raw_mode(0o600))?;
        let mut file = File::from(fd);
        let done = file
            .write_all(bytes)
            .and_then(|()| rustix::fs::fchmod(&file, mode).map_err(io::Error::from))
            .and_then(|()| file.sync_all())
            .and_then(|()| Ok(rustix::fs::renameat(&parent, &temporary, &parent, &name)?));
        if done.is_err() {
            // The file is ours alone: a failure to remove it changes nothing about the first failure.
            let _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty());
        }
        done
    }

    /// Gives a file another place that nothing has yet, and removes folders that became empty.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (old_parent, old_name) = self.parent(Path::new(from), false)?;
        let (new_parent, new_name) = self.parent(Path::new(to), true)?;
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(&old_parent, old_name, &new_parent, new_name, flags)?;
        self.prune(from)
    }

    /// Removes a file, then the folders above it that became empty.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        let (parent, name) = self.parent(Path::new(path), false)?;
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
        self.prune(path)
    }

    fn prune(&self, path: &str) -> io::Result<()> {
        let mut above = Path::new(path).parent();
        while let Some(folder) = above.filter(|p| !p.as_os_str().is_empty()) {
            let (parent, name) = self.parent(folder, false)?;
            if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
            above = folder.parent();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let root = dir.path().join("root");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(outside.join("secret"), "s").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        symlink(outside.join("secret"), root.join("file")).unwrap();
        let tree = Beneath::open(&root).unwrap();
        for path in ["link/secret", "file", "../outside/secret", "/etc/passwd"] {
            assert!(tree.file(path.as_bytes()).is_err(), "{path}");
            assert!(tree.write(path, b"x").is_err(), "{path}");
        }
        assert!(tree.remove("link/secret").is_err());
        assert!(tree.write("link/new", b"x").is_err());
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"s");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn writing_keeps_the_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.sh");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let tree = Beneath::open(dir.path()).unwrap();
        tree.write("run.sh", b"new").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        tree.write("a/b/c", b"x").unwrap();
        assert!(tree.exists("a/b/c"));
        tree.remove("a/b/c").unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["run.sh"]);
    }

    #[test]
    fn a_pipe_is_refused_and_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let tree = Beneath::open(dir.path()).unwrap();
        assert!(tree.file(b"pipe").is_err());
    }
}

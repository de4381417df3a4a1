//! One lock file: opened, locked without waiting, and checked to still be the file at its path. It is never unlinked,
//! since whoever opened it just before would then hold a lock that nobody else can see.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::folders::unusable;
use crate::coordination::CoordinationError;

/// A held lock; given back when dropped.
pub(super) struct LockFile {
    file: File,
    path: PathBuf,
}

impl LockFile {
    /// Takes the lock, or says at once that somebody has it.
    pub(super) fn try_lock(path: &Path) -> Result<Option<Self>, CoordinationError> {
        Self::try_lock_opened(open(path)?, path)
    }

    /// Locks an open file; the path may have been given to another in the meantime.
    fn try_lock_opened(file: File, path: &Path) -> Result<Option<Self>, CoordinationError> {
        // Fully qualified: `File` has a method of the same name.
        match fs2::FileExt::try_lock_exclusive(&file) {
            Ok(()) => {}
            Err(e) if e.kind() == fs2::lock_contended_error().kind() => return Ok(None),
            Err(e) => return Err(unusable(path)(e)),
        }
        let lock = Self { file, path: path.to_owned() };
        lock.check()?;
        Ok(Some(lock))
    }

    /// Refuses when the path has come to lead to another file than the locked one.
    pub(super) fn check(&self) -> Result<(), CoordinationError> {
        let held = self.file.metadata().map_err(unusable(&self.path))?;
        // Not following links: one in the place of the file is a replacement, too.
        match fs::symlink_metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (held.dev(), held.ino()) => Ok(()),
            Ok(_) => Err(CoordinationError::LockReplaced { path: self.path.display().to_string() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(CoordinationError::LockReplaced { path: self.path.display().to_string() })
            }
            Err(e) => Err(unusable(&self.path)(e)),
        }
    }

    /// Says who holds it; only the holder ever changes what the file says.
    pub(super) fn write(&self, text: &str) -> Result<(), CoordinationError> {
        let write = || {
            let mut file = &self.file;
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())
        };
        write().map_err(unusable(&self.path))
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Closing alone would leave it to a child that was started this instant and has not yet let go of its copy.
        if let Err(error) = fs2::FileExt::unlock(&self.file) {
            tracing::warn!(path = %self.path.display(), %error, "a lock could not be given back");
        }
    }
}

/// Opens a lock file, making it if need be. Rust opens it close-on-exec: a child must not keep the lock alive.
fn open(path: &Path) -> Result<File, CoordinationError> {
    let no_links = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_links);
    options.open(path).map_err(unusable(path))
}

/// What the holder of a lock says about itself.
pub(super) fn holder_of(path: &Path) -> Option<String> {
    let mut text = String::new();
    // A lock file says one line; anything longer is not ours.
    File::open(path).ok()?.take(512).read_to_string(&mut text).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.chars().filter(|c| !c.is_control()).collect())
}

/// Takes away what others may do with a file or folder.
pub(super) fn close_to_others(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaced_between_opening_and_locking_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.lock");
        let opened = open(&path).unwrap();
        fs::rename(&path, folder.path().join("aside")).unwrap();
        let _other = open(&path).unwrap();
        let answer = LockFile::try_lock_opened(opened, &path);
        assert!(matches!(answer, Err(CoordinationError::LockReplaced { .. })));
    }
}

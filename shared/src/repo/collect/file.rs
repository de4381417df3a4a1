//! One file or link of a workspace: opened once, looked at before and after it is read, hashed as raw bytes.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;

use git2::ObjectType;
use rustix::fs::{AtFlags, FileType, OFlags, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;

use super::super::open::from_git;
use super::super::tree::{Entry, Leaf};
use super::CollectError;
use super::walk::Walk;

impl Walk<'_, '_> {
    pub(super) fn file(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        before: Option<&Entry>,
    ) -> Result<Leaf, CollectError> {
        let file = File::from(self.open(dir, name, OFlags::empty())?);
        let stat = fstat(&file).map_err(|error| self.failed(error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(CollectError::Unstable { path: self.shown() });
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        // A large file is read only where the base has one of the same size, which it may well still be.
        if size > self.limits.file_bytes && size != self.base_size(before) {
            return Err(CollectError::TooLarge { path: self.shown(), limit: self.limits.file_bytes });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        (&file)
            .take(size.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| CollectError::Io { path: self.shown(), source })?;
        let after = fstat(&file).map_err(|error| self.failed(error))?;
        if bytes.len() as u64 != size || drifted(&stat, &after) {
            return Err(CollectError::Unstable { path: self.shown() });
        }
        // The owner's bit is the one that git looks at.
        let executable = stat.st_mode & 0o100 != 0;
        let mode = if executable { 0o100_755 } else { 0o100_644 };
        self.blob(&bytes, mode, before)
    }

    pub(super) fn link(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        before: Option<&Entry>,
        stat: &Stat,
    ) -> Result<Leaf, CollectError> {
        let target = readlinkat(dir, name, Vec::new()).map_err(|error| match error {
            // It was a link a moment ago.
            Errno::INVAL => CollectError::Unstable { path: self.shown() },
            other => self.failed(other),
        })?;
        let after = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| self.failed(error))?;
        if drifted(stat, &after) {
            return Err(CollectError::Unstable { path: self.shown() });
        }
        self.blob(target.as_bytes(), 0o120_000, before)
    }

    /// Writes a blob, unless the base has it at this path. A stored mode that means the same is kept as it is.
    fn blob(&mut self, bytes: &[u8], mode: u32, before: Option<&Entry>) -> Result<Leaf, CollectError> {
        let oid = from_git(git2::Oid::hash_object(ObjectType::Blob, bytes)?);
        let same_kind = |entry: &&Entry| {
            entry.mode & 0o170_000 == mode & 0o170_000 && (entry.mode & 0o111 == 0) == (mode & 0o111 == 0)
        };
        let mode = before.filter(same_kind).map_or(mode, |entry| entry.mode);
        if before.is_some_and(|entry| (entry.is_file() || entry.is_link()) && entry.oid == oid) {
            return Ok(Leaf { mode, oid });
        }
        let size = bytes.len() as u64;
        if size > self.limits.file_bytes {
            return Err(CollectError::TooLarge { path: self.shown(), limit: self.limits.file_bytes });
        }
        let too_large = CollectError::TooLarge { path: self.shown(), limit: self.limits.total_bytes };
        self.bytes_left = self.bytes_left.checked_sub(size).ok_or(too_large)?;
        Ok(Leaf { mode, oid: from_git(self.odb.write(ObjectType::Blob, bytes)?) })
    }
}

/// Whether a file is another one, or was written to, since it was first looked at.
pub(super) fn drifted(before: &Stat, after: &Stat) -> bool {
    let look = |stat: &Stat| {
        let times = (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec);
        (stat.st_dev, stat.st_ino, stat.st_mode, stat.st_size, times)
    };
    look(before) != look(after)
}

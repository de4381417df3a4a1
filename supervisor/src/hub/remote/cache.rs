//! The cache: a bare repository of this supervisor's own with the server's objects in it. It may be thrown away while
//! the supervisor is stopped: what is not there is fetched.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use git2::Repository;

use autopack_shared::domain::ids::Oid;
use autopack_shared::repo::open::{self, to_git};

use crate::hub::HubError;
use crate::hub::journal::locks_below;
use crate::hub::local::io_error;

/// The file whose lock is the right to change the packs; never unlinked.
const TURN: &str = "autopack.flock";

/// The file with the size that the cache had when it was made smaller.
const KEPT: &str = "autopack.kept";

/// How git and libgit2 begin the names of packs that are not whole yet.
const UNFINISHED: [&str; 3] = ["tmp_", "pack_git2_", ".tmp-"];

/// What is fetched: every branch, so that what runs start from is there, and the places of ours.
pub(super) const FETCHED: [&str; 3] = [
    "+refs/heads/*:refs/heads/*",
    "+refs/autopack/*:refs/autopack/*",
    "+refs/tags/save-before-*:refs/tags/save-before-*",
];

/// A bare repository that only this process uses.
pub(super) struct Cache {
    path: PathBuf,
}

impl Cache {
    /// Makes it, or opens what an earlier life left.
    pub(super) fn open(path: &Path) -> Result<Self, HubError> {
        let mut config = open::init_bare(path)?.config()?.open_level(git2::ConfigLevel::Local)?;
        config.set_str("core.hooksPath", "/dev/null")?;
        config.set_i32("gc.auto", 0)?;
        let path = path.canonicalize().map_err(io_error(path))?;
        let cache = Self { path };
        let (turn, file) = cache.turn()?;
        match file.try_lock() {
            Ok(()) => cache.clear()?,
            // Somebody of ours is at it.
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(io_error(&turn)(error)),
        }
        Ok(cache)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    pub(super) fn repository(&self) -> Result<Repository, HubError> {
        Ok(open::open_bare(&self.path)?)
    }

    /// Whether all these objects are there.
    pub(super) fn has(&self, objects: &[Oid]) -> Result<bool, HubError> {
        let repo = self.repository()?;
        let odb = repo.odb()?;
        Ok(objects.iter().all(|oid| odb.exists(to_git(*oid))))
    }

    /// The right to put packs into the cache and to remove what is left of some.
    pub(super) fn alone(&self) -> Result<File, HubError> {
        let (path, file) = self.turn()?;
        // Whoever has it fetches, and that has a deadline.
        file.lock().map_err(io_error(&path))?;
        Ok(file)
    }

    fn turn(&self) -> Result<(PathBuf, File), HubError> {
        let path = self.path.join(TURN);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        Ok((path.clone(), file.map_err(io_error(&path))?))
    }

    /// How many packs there are.
    pub(super) fn packs(&self) -> usize {
        let entries = fs::read_dir(self.objects().join("pack")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "pack")).count()
    }

    /// Bytes of its objects.
    pub(super) fn bytes(&self) -> u64 {
        let folders = fs::read_dir(self.objects()).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// How many there were when what is not needed was dropped the last time.
    pub(super) fn kept(&self) -> Option<u64> {
        fs::read_to_string(self.path.join(KEPT)).ok()?.trim().parse().ok()
    }

    /// Remembers it. Where that cannot be written, it is dropped too early once.
    pub(super) fn keep(&self, bytes: u64) {
        if let Err(error) = fs::write(self.path.join(KEPT), format!("{bytes}\n")) {
            tracing::warn!(%error, "the size of a cache cannot be written down");
        }
    }

    /// Removes the locks that a git of ours left when it was ended; none may be running: see [`Cache::alone`].
    pub(super) fn unlock(&self) -> Result<(), HubError> {
        let mut locks: Vec<PathBuf> = ["packed-refs", "HEAD", "config", "shallow"]
            .iter()
            .map(|name| self.path.join(format!("{name}.lock")))
            .filter(|lock| lock.exists())
            .collect();
        locks_below(&self.path.join("refs"), &mut locks);
        locks.iter().try_for_each(|lock| fs::remove_file(lock).map_err(io_error(lock)))
    }

    /// Removes what an earlier life left unfinished.
    fn clear(&self) -> Result<(), HubError> {
        self.unlock()?;
        let packs = self.objects().join("pack");
        for entry in fs::read_dir(&packs).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| UNFINISHED.iter().any(|start| name.starts_with(start))) {
                fs::remove_file(entry.path()).map_err(io_error(&entry.path()))?;
            }
        }
        Ok(())
    }
}

//! Packs on their way into the hub's objects. libgit2 makes them under names of its own beside the others; a process that
//! is killed meanwhile leaves such a file in the user's repository, where nothing would ever remove it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How libgit2 begins the name of a pack that is not whole yet.
const UNFINISHED: &str = "pack_git2_";

/// File systems keep times less finely than clocks tell them.
const GRAIN: Duration = Duration::from_secs(2);

/// Says, as long as it is there, that this hub's owner is storing a pack.
pub(super) struct Packing {
    mark: PathBuf,
}

impl Packing {
    /// Before a pack is stored.
    pub(super) fn begin(mark: &Path) -> io::Result<Self> {
        File::create(mark)?;
        Ok(Self { mark: mark.to_path_buf() })
    }
}

impl Drop for Packing {
    fn drop(&mut self) {
        // One that stays only makes the next start look for leftovers.
        let _gone = fs::remove_file(&self.mark);
    }
}

/// Removes what an owner left that was killed while it stored a pack. Files from before it began are not its own.
pub(super) fn sweep(mark: &Path, objects: &Path) -> io::Result<()> {
    let began = match fs::metadata(mark) {
        Ok(found) => found.modified()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let since = began.checked_sub(GRAIN).unwrap_or(SystemTime::UNIX_EPOCH);
    let entries = match fs::read_dir(objects.join("pack")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return fs::remove_file(mark),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let unfinished = entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED));
        if unfinished && entry.metadata()?.modified()? >= since {
            fs::remove_file(entry.path())?;
            tracing::info!(file = %entry.path().display(), "removed a pack that an earlier life left unfinished");
        }
    }
    fs::remove_file(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_left_while_a_pack_was_stored_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, pack) = (dir.path().join("mark"), dir.path().join("pack"));
        fs::create_dir(&pack).unwrap();
        let old = pack.join("pack_git2_old");
        File::create(&old).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let (left, whole) = (pack.join("pack_git2_1idx.lock"), pack.join("pack-1.idx"));
        File::create(&left).unwrap();
        File::create(&whole).unwrap();
        sweep(&mark, dir.path()).unwrap();
        assert!(left.exists(), "nobody was storing anything");
        std::mem::forget(Packing::begin(&mark).unwrap());
        sweep(&mark, dir.path()).unwrap();
        assert!(!left.exists() && old.exists() && whole.exists() && !mark.exists());
        drop(Packing::begin(&mark).unwrap());
        assert!(!mark.exists(), "an end in order leaves no mark");
    }
}

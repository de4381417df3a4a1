//! Which lock files this process is about to take. After a crash the names tell its own stale locks from those that
//! the user's git is holding right now.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A small file beside the data; one ref name a line.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Opens the journal, keeping what an earlier life wrote.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
        Ok(Self { path: path.to_path_buf(), file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the names durably, before their locks are taken. Returns where to cut the file when they are released.
    pub(super) fn begin(&mut self, names: &[&str]) -> io::Result<u64> {
        let mark = self.file.seek(SeekFrom::End(0))?;
        // One write, starting and ending a line: a torn note of an earlier life cannot swallow it.
        self.file.write_all(format!("\n{}\n", names.join("\n")).as_bytes())?;
        self.file.sync_data()?;
        Ok(mark)
    }

    /// Forgets what was noted since `mark`: the locks are gone.
    pub(super) fn end(&mut self, mark: u64) -> io::Result<()> {
        self.file.set_len(mark)
    }

    /// All names that were noted and not forgotten.
    pub(super) fn names(&mut self) -> io::Result<Vec<String>> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_string(&mut text)?;
        Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// Forgets everything, durably.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.sync_data()
    }
}

/// Whether a lock is still there after `wait`.
pub(super) fn stays(file: &Path, wait: Duration) -> bool {
    const PAUSE: Duration = Duration::from_millis(20);
    for _ in 0..wait.as_millis() / PAUSE.as_millis() {
        if !file.exists() {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    file.exists()
}

/// Every lock file below a folder.
pub(super) fn locks_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            locks_below(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "lock") {
            found.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_until_they_are_ended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/hub.locks");
        let mut journal = Journal::open(&path).unwrap();
        let mark = journal.begin(&["refs/autopack/fence", "refs/heads/autopack/r"]).unwrap();
        drop(journal);
        let mut again = Journal::open(&path).unwrap();
        assert_eq!(again.names().unwrap(), ["refs/autopack/fence", "refs/heads/autopack/r"]);
        let second = again.begin(&["refs/autopack/fence"]).unwrap();
        again.end(second).unwrap();
        assert_eq!(again.names().unwrap().len(), 2, "the earlier life's notes are still there");
        again.end(mark).unwrap();
        assert!(again.names().unwrap().is_empty());
    }
}

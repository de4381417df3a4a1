//! The files that runs leave under the data directory: written beside their place, flushed, and renamed into it, so
//! that a reader sees the old or the new one and never half of one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use autopack_shared::domain::ids::RunId;

use crate::exit::{CliError, During as _};

/// The folder of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    dir: PathBuf,
}

impl RunDir {
    /// The folder of a run below a data directory; nothing is made yet.
    pub(crate) fn new(data_dir: &Path, run: &RunId) -> Self {
        Self { dir: data_dir.join(run.as_str()) }
    }

    /// Where a file of the run is.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a document; folders are made.
    pub(crate) fn write_json<T: Serialize>(&self, name: &str, document: &T) -> Result<PathBuf, CliError> {
        let path = self.path(name);
        let mut bytes = serde_json::to_vec_pretty(document).map_err(io::Error::from).during(format!("write {name}"))?;
        bytes.push(b'\n');
        self.write(name, &bytes)?;
        Ok(path)
    }

    /// Writes a file; folders are made.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CliError> {
        let path = self.path(name);
        let data_dir = self.dir.parent().unwrap_or(&self.dir);
        prepare(data_dir).and_then(|()| replace(&path, bytes)).during(format!("write {}", path.display()))
    }

    /// Reads a document; none where there is no such file, or it is of another form.
    pub(crate) fn read_json<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_slice(&fs::read(self.path(name)).ok()?).ok()
    }

    /// The names of the files in a folder of the run, sorted.
    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }
}

/// Makes the data directory: private, and invisible to the user's git.
pub(crate) fn prepare(data_dir: &Path) -> io::Result<()> {
    if !data_dir.is_dir() {
        fs::create_dir_all(data_dir)?;
        fs::set_permissions(data_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    }
    let ignore = data_dir.join(".gitignore");
    if ignore.exists() { Ok(()) } else { replace(&ignore, b"*\n") }
}

/// Makes the data directory, and sees that it can be written: a full or read-only disk shows here.
pub(crate) fn probe(data_dir: &Path) -> io::Result<()> {
    prepare(data_dir)?;
    let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
    file.write_all(b"probe")?;
    file.flush()
}

/// The folder a file is in; that of a bare name is the current one.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// Puts a file in place at once.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// Makes a file that must not be there yet.
pub(crate) fn create_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_written_whole_and_the_folder_hides_itself() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let run = RunDir::new(&data, &RunId::new("r1").unwrap());
        run.write_json("gaps/a.json", &1).unwrap();
        run.write_json("gaps/a.json", &2).unwrap();
        assert_eq!(run.read_json::<u8>("gaps/a.json"), Some(2));
        assert_eq!(run.list("gaps"), ["a.json"], "no temporary file is left");
        assert_eq!(fs::read_to_string(data.join(".gitignore")).unwrap(), "*\n");
        assert_eq!(run.read_json::<u8>("gaps/none.json"), None);
    }

    #[test]
    fn a_bare_name_is_in_the_current_folder() {
        assert_eq!(folder_of(Path::new("s.sarif")), Path::new("."));
        assert_eq!(folder_of(Path::new("a/s.sarif")), Path::new("a"));
    }

    #[test]
    fn a_file_that_is_there_is_never_replaced_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x/y.toml");
        create_new(&path, b"1").unwrap();
        let error = create_new(&path, b"2").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"1");
    }
}

//! The one data directory of a repository. Two stores over one repository would fence each other off for good.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::CoordinationError;

/// The record of the data directory that has a repository's runs, beside its lock.
const HOME: &str = "data_dir";
/// What a data directory has once there were runs.
const STORE: &str = "autopack.db";

/// Refuses a data directory while another one has the repository's runs. Called under the repository's lock.
pub(super) fn only(data: &Path, worker_root: &Path) -> Result<(), CoordinationError> {
    let record = worker_root.join(HOME);
    let failed = |error: &io::Error| CoordinationError::of(&record, error);
    let own = data.canonicalize().map_err(|error| failed(&error))?;
    let known = match fs::read(&record) {
        Ok(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => PathBuf::new(),
        Err(error) => return Err(failed(&error)),
    };
    if known == own {
        return Ok(());
    }
    if !known.as_os_str().is_empty() && known.join(STORE).exists() {
        let (path, other) = (own.display().to_string(), known.display().to_string());
        return Err(CoordinationError::OtherDataDir { path, other });
    }
    let write = || {
        let mut file = NamedTempFile::new_in(worker_root)?;
        file.write_all(own.as_os_str().as_bytes())?;
        file.persist(&record)?;
        Ok(())
    };
    write().map_err(|error: io::Error| failed(&error))
}

/// This machine's name; only ever shown.
pub(super) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "this machine".to_owned() } else { name.trim().to_owned() }
}

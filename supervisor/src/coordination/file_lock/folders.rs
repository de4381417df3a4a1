//! The folders that locks are in: for their owner alone, and out of the way of their repository.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use tempfile::NamedTempFile;

use super::file::close_to_others;
use crate::coordination::CoordinationError;

pub(super) fn unusable(path: &Path) -> impl FnOnce(io::Error) -> CoordinationError + '_ {
    move |error| CoordinationError::of(path, &error)
}

/// Makes a folder that only its owner may enter, and closes an existing one to others.
pub(super) fn private_folder(path: &Path) -> Result<(), CoordinationError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable(path))?;
    close_to_others(path, 0o700).map_err(unusable(path))
}

/// Keeps the data directory out of the user's repository, without a word in their own files.
pub(super) fn ignore_everything(data: &Path) -> Result<(), CoordinationError> {
    let path = data.join(".gitignore");
    if fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    // Whole or not at all: an empty one would hide nothing. Who comes second writes the same.
    let write = || {
        let mut file = NamedTempFile::new_in(data)?;
        file.write_all(b"*\n")?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(unusable(&path))
}

//! Users for sandboxes, where the worker is root: one for each, so that none can reach what is another's. A file lock
//! of the host says which are taken.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use fs2::FileExt as _;

/// The first of these users; nobody has a password entry for them.
pub(crate) const FIRST: u32 = 210_000;

/// How many there are.
const MANY: u32 = 1000;

/// Where the locks are.
const LOCKS: &str = "/run/autopack-slots";

/// One user, as long as it is held.
#[derive(Debug)]
pub(crate) struct Slot {
    user: u32,
    _lock: File,
}

impl Slot {
    /// Takes one that nobody holds.
    ///
    /// # Errors
    /// When the locks cannot be made, or all are held.
    pub(crate) fn take() -> io::Result<Self> {
        let folder = Path::new(LOCKS);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for number in 0..MANY {
            let name = folder.join(number.to_string());
            let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(name)?;
            if lock.try_lock_exclusive().is_ok() {
                return Ok(Self { user: FIRST + number, _lock: lock });
            }
        }
        Err(io::Error::other("every user for sandboxes is taken"))
    }

    /// The user, and its group.
    pub(crate) const fn user(&self) -> u32 {
        self.user
    }
}

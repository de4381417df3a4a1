//! The turn to change a mirror, within this process and among all: libgit2 and git fail, rather than wait, on a shared
//! lock. Waiting ends: whoever holds the turn may hang in the system.

use std::fs::{File, TryLockError};
use std::sync::{MutexGuard, TryLockError as Taken};
use std::time::Duration;

use super::{Mirror, MirrorError, io_error};

/// How long the turn is waited for.
pub(super) const WAIT: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(10);

/// The turn.
pub(super) struct Writing<'a>(MutexGuard<'a, File>);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        // Closing the file would release it too; an error leaves it locked until then.
        let _ = self.0.unlock();
    }
}

impl Mirror {
    /// Waits for the turn.
    pub(super) fn write(&self) -> Result<Writing<'_>, MirrorError> {
        let path = self.root.join("mirror.lock");
        for _ in 0..=self.turn_wait.as_millis() / PAUSE.as_millis() {
            // The guarded file has no state of its own, so a panic elsewhere cannot have broken it.
            let file = match self.writer.try_lock() {
                Ok(file) => Some(file),
                Err(Taken::Poisoned(broken)) => Some(broken.into_inner()),
                Err(Taken::WouldBlock) => None,
            };
            if let Some(file) = file {
                match file.try_lock() {
                    Ok(()) => return Ok(Writing(file)),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(io_error(&path)(error)),
                }
            }
            std::thread::sleep(PAUSE);
        }
        Err(MirrorError::Busy { path })
    }
}

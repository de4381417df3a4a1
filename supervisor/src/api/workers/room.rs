//! How much of transfers is in memory at once: a pack is there whole, so there is room for some, and then a wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::Error;

/// Bytes that one permit stands for.
const UNIT: u64 = 64 * 1024;

/// How long a transfer waits for its turn, before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of packs that workers send.
const UPLOADS: u64 = 512 * 1024 * 1024;

/// Bytes of packs that workers fetch; the largest one that is sent at all.
const FETCHES: u64 = 2 * 1024 * 1024 * 1024;

/// Packs that are made at once: how large one gets is known at its end.
const MAKING: usize = 2;

/// Room for the bytes of transfers.
#[derive(Debug, Clone)]
pub struct Room {
    uploads: Pool,
    fetches: Pool,
    making: Arc<Semaphore>,
    patience: Duration,
}

#[derive(Debug, Clone)]
struct Pool {
    size: u64,
    free: Arc<Semaphore>,
}

impl Pool {
    fn of(size: u64) -> Self {
        Self { size, free: Arc::new(Semaphore::new(usize::try_from(size / UNIT).unwrap_or(0))) }
    }

    async fn take(&self, what: &'static str, bytes: u64, patience: Duration) -> Result<OwnedSemaphorePermit, Error> {
        if bytes > self.size {
            let why = format!("a pack of {bytes} bytes; {} are the most", self.size);
            return Err(Error::Upload { reason: "too_large", why });
        }
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        turn(timeout(patience, self.free.clone().acquire_many_owned(units)).await.ok(), what)
    }
}

fn turn(
    taken: Option<Result<OwnedSemaphorePermit, tokio::sync::AcquireError>>,
    what: &'static str,
) -> Result<OwnedSemaphorePermit, Error> {
    taken.and_then(Result::ok).ok_or(Error::Busy { what })
}

impl Default for Room {
    fn default() -> Self {
        Self::of(UPLOADS, FETCHES, PATIENCE)
    }
}

impl Room {
    fn of(uploads: u64, fetches: u64, patience: Duration) -> Self {
        let (uploads, fetches) = (Pool::of(uploads), Pool::of(fetches));
        Self { uploads, fetches, making: Arc::new(Semaphore::new(MAKING)), patience }
    }

    /// Room for a pack that a worker sends.
    ///
    /// # Errors
    /// `too_large`, or `full` when others need it all for too long.
    pub(super) async fn upload(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        self.uploads.take("uploads", bytes, self.patience).await
    }

    /// The right to make a pack for a worker.
    ///
    /// # Errors
    /// `full` when others make theirs for too long.
    pub(super) async fn make(&self) -> Result<OwnedSemaphorePermit, Error> {
        turn(timeout(self.patience, self.making.clone().acquire_owned()).await.ok(), "packs being made")
    }

    /// Room for a pack that was made.
    ///
    /// # Errors
    /// As [`Room::upload`].
    pub(super) async fn fetch(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Error> {
        self.fetches.take("fetches", bytes, self.patience).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word<T>(taken: Result<T, Error>) -> &'static str {
        taken.err().map_or("", |error| error.reason().0)
    }

    #[tokio::test]
    async fn what_does_not_fit_waits_and_what_never_fits_is_refused() {
        let room = Room::of(4 * UNIT, 2 * UNIT, Duration::from_millis(20));
        assert_eq!(word(room.upload(4 * UNIT + 1).await), "too_large");
        let one = room.upload(3 * UNIT).await.unwrap();
        let small = room.upload(1).await.unwrap();
        assert_eq!(word(room.upload(1).await), "full");
        drop(small);
        assert_eq!(word(room.upload(2 * UNIT).await), "full");
        drop(one);
        drop(room.upload(4 * UNIT).await.unwrap());
        assert_eq!(word(room.fetch(3 * UNIT).await), "too_large");
        let (_a, _b) = (room.make().await.unwrap(), room.make().await.unwrap());
        assert_eq!(word(room.make().await), "full");
        assert_eq!(word(room.upload(0).await), "");
    }
}

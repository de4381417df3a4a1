//! How much of transfers is in memory at once: a pack is there whole, so there is room for some, and then a wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::timeout;

use autopack_shared::repo::pack::PackError;

use crate::director::run_blocking;
use crate::error::Error;

/// Bytes that one permit stands for.
const UNIT: u64 = 64 * 1024;

/// How long a transfer waits for its turn, before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packs that are made at once: that is what the processor is for.
const MAKING: usize = 2;

/// Between two looks of a pack in the making whether there is room for more of it.
const LOOK: Duration = Duration::from_millis(50);

/// How many bytes of packs are in memory at once; a single larger one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfers {
    /// Of those that workers send.
    pub uploads: u64,
    /// Of those that workers fetch.
    pub fetches: u64,
}

impl Default for Transfers {
    fn default() -> Self {
        Self { uploads: 512 << 20, fetches: 2 << 30 }
    }
}

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

/// The room of a pack that is being made: it grows with it, up to all there is.
#[derive(Debug)]
pub(super) struct Growing {
    pool: Pool,
    held: Option<OwnedSemaphorePermit>,
    patience: Duration,
}

impl Growing {
    /// Room for so many bytes in all. Waits for it, blocking: other packs make room when they are sent.
    pub(super) fn to(&mut self, bytes: u64) -> Result<(), PackError> {
        if bytes > self.pool.size {
            return Err(PackError::TooLarge { limit: self.pool.size, unit: "bytes" });
        }
        let held = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wanted = usize::try_from(bytes.div_ceil(UNIT)).unwrap_or(usize::MAX);
        let Ok(more @ 1..) = u32::try_from(wanted.saturating_sub(held)) else { return Ok(()) };
        let looks = self.patience.as_millis() / LOOK.as_millis();
        for look in 0..=looks {
            match self.pool.free.clone().try_acquire_many_owned(more) {
                Ok(permit) => {
                    match &mut self.held {
                        Some(held) => held.merge(permit),
                        None => self.held = Some(permit),
                    }
                    return Ok(());
                }
                Err(TryAcquireError::NoPermits) if look < looks => std::thread::sleep(LOOK),
                Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {}
            }
        }
        Err(PackError::NoRoom { bytes })
    }
}

/// Blocking work that keeps its room until it ends, also where its caller has left: it goes on all the same.
pub(super) async fn within<T, E, F>(room: OwnedSemaphorePermit, work: F) -> Result<(T, OwnedSemaphorePermit), Error>
where
    T: Send + 'static,
    E: Into<Error> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    run_blocking(move || work().map(|done| (done, room))).await
}

fn turn(
    taken: Option<Result<OwnedSemaphorePermit, tokio::sync::AcquireError>>,
    what: &'static str,
) -> Result<OwnedSemaphorePermit, Error> {
    taken.and_then(Result::ok).ok_or(Error::Busy { what })
}

impl Default for Room {
    fn default() -> Self {
        Self::with(Transfers::default())
    }
}

impl Room {
    /// So much of it.
    #[must_use]
    pub fn with(limits: Transfers) -> Self {
        Self::of(limits.uploads, limits.fetches, PATIENCE)
    }

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

    /// Room for a pack that is going to be made.
    pub(super) fn growing(&self) -> Growing {
        Growing { pool: self.fetches.clone(), held: None, patience: self.patience }
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
        let (mut one, mut other) = (room.growing(), room.growing());
        one.to(1).unwrap();
        one.to(UNIT).unwrap();
        other.to(1).unwrap();
        assert!(matches!(one.to(UNIT + 1), Err(PackError::NoRoom { .. })), "the other has it");
        drop(other);
        one.to(2 * UNIT).unwrap();
        assert!(matches!(one.to(2 * UNIT + 1), Err(PackError::TooLarge { .. })));
        assert!(matches!(room.growing().to(1), Err(PackError::NoRoom { .. })));
        drop(one);
        room.growing().to(2 * UNIT).unwrap();
        let (_a, _b) = (room.make().await.unwrap(), room.make().await.unwrap());
        assert_eq!(word(room.make().await), "full");
        assert_eq!(word(room.upload(0).await), "");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_room() {
        let room = Room::of(UNIT, UNIT, Duration::from_millis(20));
        let permit = room.upload(1).await.unwrap();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let work = within(permit, move || Ok::<_, Error>(wait.recv().is_ok()));
        assert!(timeout(Duration::from_millis(20), work).await.is_err(), "its caller leaves");
        assert_eq!(word(room.upload(1).await), "full");
        go_on.send(()).unwrap();
        let patient = Room { patience: Duration::from_secs(30), ..room };
        assert_eq!(word(patient.upload(1).await), "");
    }
}

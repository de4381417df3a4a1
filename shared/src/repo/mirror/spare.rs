//! Threads that help to write trees: as many as there are processors to spare, however many trees are written at once.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads of one mirror that help, at most.
const MOST: usize = 4;

/// What is to spare.
#[derive(Debug)]
pub(super) struct Helpers(AtomicUsize);

/// Threads that were taken; given back at the end.
pub(super) struct Taken<'a> {
    of: &'a Helpers,
    count: usize,
}

impl Taken<'_> {
    pub(super) const fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.of.0.fetch_add(self.count, Ordering::SeqCst);
    }
}

impl Helpers {
    /// One for each processor but the first.
    pub(super) fn of_machine() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self(AtomicUsize::new(processors.saturating_sub(1).min(MOST)))
    }

    /// Takes what is there, if it is wanted; never waits.
    pub(super) fn take(&self, wanted: bool) -> Taken<'_> {
        let count = if wanted { self.0.swap(0, Ordering::SeqCst) } else { 0 };
        Taken { of: self, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back() {
        let helpers = Helpers(AtomicUsize::new(3));
        let (first, second) = (helpers.take(true), helpers.take(true));
        assert_eq!((first.count(), second.count(), helpers.take(false).count()), (3, 0, 0));
        drop((first, second));
        assert_eq!(helpers.take(true).count(), 3);
    }
}

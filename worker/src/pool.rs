//! Worktrees of one mirror that are made before a lease asks for one. They are a help and never needed: whatever goes
//! wrong here, a lease makes its own.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::Oid;
use autopack_shared::repo::disk;
use autopack_shared::repo::mirror::{Mirror, MirrorError, Prepared};

/// Bytes that stay free on the disk: below, nothing is prepared and what is there is thrown away.
const LEAST_FREE: u64 = 1 << 30;

/// How long nothing is prepared after it went wrong.
const REST: Duration = Duration::from_secs(60);

/// How much is kept ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WarmLimits {
    /// Worktrees of one project; 0: none is ever prepared.
    pub count: usize,
    /// Bytes of all worktrees of this worker.
    pub bytes: u64,
    /// How long one is kept that nobody takes, and how long a project counts as in use after its last lease.
    pub age: Duration,
}

impl Default for WarmLimits {
    fn default() -> Self {
        Self { count: 2, bytes: 4 << 30, age: Duration::from_secs(3600) }
    }
}

/// What is ready of one project.
#[derive(Debug)]
pub(crate) struct Pool {
    mirror: Arc<Mirror>,
    root: PathBuf,
    limits: WarmLimits,
    state: Mutex<State>,
    /// Told when there is something to do.
    wish: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    ready: VecDeque<(Instant, Prepared)>,
    /// The commit of the last lease, and when that was.
    target: Option<(Oid, Instant)>,
    rests_until: Option<Instant>,
    closed: bool,
}

/// What one pool holds, and whether it wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) bytes: u64,
    pub(crate) more: bool,
}

impl Pool {
    pub(crate) fn new(mirror: Arc<Mirror>, root: PathBuf, limits: WarmLimits, wish: Arc<Notify>) -> Self {
        Self { mirror, root, limits, state: Mutex::default(), wish }
    }

    // Nothing in it can be half done, so a panic elsewhere has not broken it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one, of this commit if there is one, and else the last that was made.
    pub(crate) fn take(&self, base: Oid) -> Option<Prepared> {
        let mut state = self.state();
        let same = state.ready.iter().position(|(_, one)| one.base() == base);
        let at = same.or_else(|| state.ready.len().checked_sub(1))?;
        state.ready.remove(at).map(|(_, one)| one)
    }

    /// A lease of this commit was served: the next one is likely to be near it.
    pub(crate) fn served(&self, base: Oid) {
        if self.limits.count > 0 {
            self.state().target = Some((base, Instant::now()));
            self.wish.notify_one();
        }
    }

    /// When the last lease was.
    pub(crate) fn last_lease(&self) -> Option<Instant> {
        self.state().target.map(|(_, at)| at)
    }

    /// Gives all room back, and rests.
    pub(crate) fn make_room(&self) {
        self.state().rests_until = Some(Instant::now() + REST);
        self.shrink(0, 0);
    }

    /// Throws everything away for good.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.shrink(0, 0);
    }

    /// Does the next thing that is to do, within `bytes`: throws away what is too old or too much, or prepares one.
    pub(crate) fn step(&self, bytes: u64, stop: &CancellationToken) -> Step {
        let now = Instant::now();
        let fresh = |state: &State| state.target.filter(|(_, at)| now.duration_since(*at) < self.limits.age);
        let target = fresh(&self.state());
        let room = self.has_room();
        let held = if target.is_some() && room { self.shrink(self.limits.count, bytes) } else { self.shrink(0, 0) };
        let (missing, rests) = {
            let state = self.state();
            let rests = state.closed || state.rests_until.is_some_and(|until| now < until);
            (state.ready.len() < self.limits.count, rests)
        };
        let Some((base, _)) = target.filter(|_| missing && room && !rests && !stop.is_cancelled()) else {
            return Step { bytes: held, more: false };
        };
        match self.mirror.prepare(base, bytes.saturating_sub(held), &|| !stop.is_cancelled()) {
            Ok(prepared) => self.keep(prepared, held),
            Err(error) => {
                self.failed(base, &error);
                Step { bytes: held, more: false }
            }
        }
    }

    fn keep(&self, prepared: Prepared, held: u64) -> Step {
        let mut state = self.state();
        if state.closed {
            drop(state);
            self.mirror.discard(prepared);
            return Step { bytes: 0, more: false };
        }
        let bytes = held + prepared.bytes();
        state.ready.push_back((Instant::now(), prepared));
        Step { bytes, more: state.ready.len() < self.limits.count }
    }

    fn failed(&self, base: Oid, error: &MirrorError) {
        if matches!(error, MirrorError::Unwanted) {
            return;
        }
        if disk::is_full(error) {
            tracing::warn!(%error, "no room to prepare worktrees; what was prepared is thrown away");
            self.make_room();
            return;
        }
        tracing::info!(%base, %error, "no worktree is prepared");
        self.state().rests_until = Some(Instant::now() + REST);
    }

    /// Throws away what is too old, and the oldest of what is too much. Says how many bytes stay.
    fn shrink(&self, count: usize, bytes: u64) -> u64 {
        let now = Instant::now();
        let mut gone = Vec::new();
        let held = {
            let mut state = self.state();
            let held = |state: &State| state.ready.iter().map(|(_, one)| one.bytes()).sum::<u64>();
            while state.ready.front().is_some_and(|(made, _)| {
                state.ready.len() > count || held(&state) > bytes || now.duration_since(*made) > self.limits.age
            }) {
                gone.extend(state.ready.pop_front());
            }
            held(&state)
        };
        // Deleting takes long, and takers must not wait for it.
        for (_, one) in gone {
            self.mirror.discard(one);
        }
        held
    }

    fn has_room(&self) -> bool {
        rustix::fs::statvfs(&self.root).is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= LEAST_FREE)
    }
}

/// Keeps pools filled, the one that was used last first, until stopped; then throws all away.
pub(crate) async fn keep_warm<F>(
    pools: impl Fn() -> F,
    limits: WarmLimits,
    wish: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), std::convert::Infallible>
where
    F: Future<Output = Vec<Arc<Pool>>>,
{
    while !stop.is_cancelled() {
        let (mut left, mut more) = (limits.bytes, false);
        let mut by_use = pools().await;
        by_use.sort_by_key(|pool| std::cmp::Reverse(pool.last_lease()));
        for pool in by_use {
            let stop = stop.clone();
            let step = tokio::task::spawn_blocking(move || pool.step(left, &stop)).await;
            // One that panicked is not tried again before its next lease.
            if let Ok(step) = step {
                left = left.saturating_sub(step.bytes);
                more |= step.more;
            }
        }
        if more {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = wish.notified() => {}
            () = tokio::time::sleep(REST) => {}
        }
    }
    let all = pools().await;
    let closed = tokio::task::spawn_blocking(move || all.iter().for_each(|pool| pool.close())).await;
    if let Err(error) = closed {
        tracing::warn!(%error, "prepared worktrees stay until the next start");
    }
    Ok(())
}

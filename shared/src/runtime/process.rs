//! Owned tasks: every background task has a name, is cancelled on shutdown and awaited within a grace period.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How soon what panicked begins anew.
const ANEW: Duration = Duration::from_secs(1);

/// Span and field names, in one place.
pub mod field {
    /// A run id.
    pub const RUN: &str = "run";
    /// A phase id.
    pub const PHASE: &str = "phase";
    /// A worker id.
    pub const WORKER: &str = "worker";
    /// An approval request id.
    pub const APPROVAL: &str = "approval";
    /// A fencing token.
    pub const TOKEN: &str = "token";
}

/// What a task's failure does to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is logged.
    Log,
    /// It is logged, and everything stops.
    Stop,
}

/// Does something, and says that it panicked, where it did; nothing of it is used afterwards.
///
/// # Errors
/// What the panic said.
pub async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(format!("it panicked: {}", said(panic.as_ref())))),
    })
    .await
}

/// Does something for as long as it does not end by itself: where it panics, anew after a moment.
pub async fn kept_up<F: Future<Output = ()>>(name: &'static str, mut work: impl FnMut() -> F) {
    while let Err(panic) = caught(work()).await {
        tracing::error!(task = name, error = panic, "task failed and begins anew");
        tokio::time::sleep(ANEW).await;
    }
}

/// The words of a panic, where it has any.
fn said(panic: &(dyn Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    panic.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("it does not say why")
}

/// The tasks of one engine or daemon.
#[derive(Debug, Clone)]
pub struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
    stop: CancellationToken,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self { set: Arc::new(Mutex::new(JoinSet::new())), stop: CancellationToken::new() }
    }

    /// The token that shutdown cancels.
    #[must_use]
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task. It must end soon after [`Tasks::stop`] is cancelled.
    pub fn spawn<E, F>(&self, name: &'static str, on_error: OnError, future: F)
    where
        E: std::fmt::Display,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let stop = self.stop.clone();
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended tasks are taken out here, so that the set stays as small as what runs.
        while set.try_join_next().is_some() {}
        set.spawn(async move {
            let failed = match caught(future).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic,
            };
            tracing::error!(task = name, error = failed, "task failed");
            if on_error == OnError::Stop {
                stop.cancel();
            }
        });
    }

    /// Cancels every task and waits for them; those still running after `grace` are aborted.
    pub async fn shutdown(&self, grace: Duration) {
        self.stop.cancel();
        let mut set = std::mem::take(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while set.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!(seconds = grace.as_secs(), "tasks did not end in time and are aborted");
            // A task inside a call of the system that does not return cannot be aborted: it is left to the process's end.
            if tokio::time::timeout(Duration::from_secs(1), set.shutdown()).await.is_err() {
                tracing::warn!("a task is stuck in the system and is left behind");
                set.detach_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn a_panic_stops_what_a_failure_would_stop() {
        let stops = |on_error| async move {
            let tasks = Tasks::new();
            let words = "for a test".to_owned();
            tasks.spawn("panics", on_error, async move {
                if words.len() > 1 {
                    tokio::task::yield_now().await;
                    panic!("{words}");
                }
                Ok::<_, Infallible>(())
            });
            let stopped = tokio::time::timeout(Duration::from_secs(2), tasks.stop().cancelled()).await.is_ok();
            tasks.shutdown(Duration::from_secs(1)).await;
            stopped
        };
        assert!(stops(OnError::Stop).await);
        assert!(!stops(OnError::Log).await);
    }

    #[tokio::test]
    async fn what_is_kept_up_begins_anew_after_a_panic() {
        let mut begun = 0;
        let work = || {
            begun += 1;
            let last = begun == 3;
            async move { assert!(last, "not yet") }
        };
        kept_up("tries", work).await;
        assert_eq!(begun, 3);
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let told = caught(async { panic!("{}", "in words") }).await.map(|()| 0);
        assert_eq!(told, Err("it panicked: in words".to_owned()));
    }
}

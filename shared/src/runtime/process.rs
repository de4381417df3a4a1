//! Owned tasks: every background task has a name, is cancelled on shutdown and awaited within a grace period.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
            if let Err(error) = future.await {
                tracing::error!(task = name, %error, "task failed");
                if on_error == OnError::Stop {
                    stop.cancel();
                }
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

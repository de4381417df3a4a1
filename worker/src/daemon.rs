//! One worker: opens its mirror, clears what an earlier life left, and serves sessions until stopped.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tonic::transport::Channel;

use autopack_shared::repo::mirror::MirrorError;
use autopack_shared::runtime::process::Tasks;

use crate::builder::{BuildError, DISK_FULL};
use crate::link::{self, Identity};
use crate::phase::Runner;
use crate::process;
use crate::workspace::Workspaces;

/// What a worker is made of.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Who it is.
    pub identity: Identity,
    /// Where its mirror and worktrees are.
    pub root: PathBuf,
    /// The objects its mirror borrows.
    pub objects: PathBuf,
    /// Where each run has a folder for its own database; none where runs have none.
    pub run_data: Option<PathBuf>,
    /// What processes of a job find in their environment.
    pub env: Vec<(String, String)>,
    /// Bytes of output that are kept of one process.
    pub log_budget: u64,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its mirror.
    #[error("the worker's mirror cannot be opened")]
    Mirror(#[from] MirrorError),
    /// A task that panicked.
    #[error("the worker could not start: {0}")]
    Start(String),
}

impl From<DaemonError> for io::Error {
    /// With all its causes on one line, and a full disk as what it is.
    fn from(error: DaemonError) -> Self {
        let BuildError { reason, message } = BuildError::of("unavailable", &error);
        let kind = if reason == DISK_FULL { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        Self::new(kind, message)
    }
}

/// One worker that can serve: its mirror is open, and what an earlier life left is cleared away.
pub struct Worker {
    identity: Identity,
    channel: Channel,
    runner: Arc<Runner>,
}

impl Worker {
    /// Opens the mirror and clears what an earlier life left.
    ///
    /// # Errors
    /// When the mirror cannot be opened.
    pub async fn open(config: WorkerConfig, channel: Channel) -> Result<Self, DaemonError> {
        let (root, objects) = (config.root.clone(), config.objects.clone());
        let workspaces = tokio::task::spawn_blocking(move || {
            let killed = process::kill_leftovers(&root.display().to_string());
            if killed > 0 {
                tracing::info!(killed, "ended processes that an earlier worker left");
            }
            Workspaces::open(&root, &objects)
        })
        .await
        .map_err(|e| DaemonError::Start(e.to_string()))??;
        let runner = Arc::new(Runner {
            workspaces: Arc::new(workspaces),
            channel: channel.clone(),
            worker: config.identity.worker.clone(),
            session: config.identity.session.clone(),
            mark: config.root.display().to_string(),
            run_data: config.run_data,
            env: config.env,
            log_budget: config.log_budget,
        });
        Ok(Self { identity: config.identity, channel, runner })
    }

    /// Serves until stopped. A session that breaks is opened again, with a pause that grows to five seconds.
    pub async fn serve(self, tasks: Tasks) {
        let mut pause = Duration::from_millis(100);
        while !tasks.stop().is_cancelled() {
            match link::serve(self.channel.clone(), &self.identity, self.runner.clone(), &tasks).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "session ended"),
            }
            tokio::select! {
                () = tasks.stop().cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(5)),
            }
        }
    }
}

/// Opens a worker and serves until stopped.
///
/// # Errors
/// As [`Worker::open`].
pub async fn run(config: WorkerConfig, channel: Channel, tasks: Tasks) -> Result<(), DaemonError> {
    Worker::open(config, channel).await?.serve(tasks).await;
    Ok(())
}

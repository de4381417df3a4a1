//! One worker: opens its mirror, clears what an earlier life left, and serves sessions until stopped.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use autopack_shared::repo::mirror::MirrorError;
use autopack_shared::runtime::process::{OnError, Tasks};

use crate::builder::{BuildError, DISK_FULL};
use crate::contact::{self, Contact};
use crate::jobs::Jobs;
use crate::line::{Line, Servers, Token};
use crate::link::{self, Held, Identity, Leaving};
use crate::pool::WarmLimits;
use crate::process;
use crate::providers::Providers;
use crate::provision::Provision;
use crate::runners::{Objects, Runners};
use crate::sandbox::{Sandbox, SandboxConfig};
use crate::surveys::Scans;

/// The pause before a session that broke is opened again; it doubles with each try.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A session that lasted so long was a good one.
const LASTED: Duration = Duration::from_secs(10);

/// What a worker is made of.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Who it is.
    pub identity: Identity,
    /// Where its mirror and worktrees are.
    pub root: PathBuf,
    /// Where its mirrors have their objects from.
    pub objects: Objects,
    /// Where each run has a folder for its own database; none where runs have none.
    pub run_data: Option<PathBuf>,
    /// What processes of a job find in their environment.
    pub env: Vec<(String, String)>,
    /// How sandboxes are built; none where there are none.
    pub sandbox: Option<SandboxConfig>,
    /// Bytes of output that are kept of one process.
    pub log_budget: u64,
    /// Bytes of what a builder prints that are kept for people.
    pub transcript_limit: usize,
    /// Bytes that the report of a gate's command may have.
    pub report_limit: u64,
    /// Whom its models are asked of.
    pub providers: Arc<Providers>,
    /// Worktrees that are kept ready.
    pub warm: WarmLimits,
    /// What projects may have besides their commits.
    pub provision: Provision,
    /// Bounds of the way out of its sandboxes.
    pub egress: crate::egress::Limits,
}

/// Asks a worker to take no more work, and to leave when it has none.
#[derive(Debug, Clone, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// Asks; there is no way back.
    pub fn ask(&self) {
        self.0.cancel();
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its mirror.
    #[error("the worker's mirror cannot be opened")]
    Mirror(#[from] MirrorError),
    /// What its sandboxes need.
    #[error("the sandbox cannot be prepared")]
    Sandbox(#[source] io::Error),
    /// A task that panicked.
    #[error("the worker could not start: {0}")]
    Start(String),
    /// The supervisor speaks another version of the protocol.
    #[error("{0}")]
    Version(String),
}

impl From<DaemonError> for io::Error {
    /// With all its causes on one line, and a full disk as what it is.
    fn from(error: DaemonError) -> Self {
        let BuildError { reason, message, .. } = BuildError::of("unavailable", &error);
        let kind = if reason == DISK_FULL { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
        Self::new(kind, message)
    }
}

/// One worker that can serve: its mirrors are open, and what an earlier life left is cleared away.
pub struct Worker {
    identity: Identity,
    line: Arc<Line>,
    runners: Arc<Runners>,
}

/// The sandboxes of a worker, and how far they hold: that is what it tells the supervisor, whatever was said before.
async fn measured(config: Option<SandboxConfig>, who: &mut Identity) -> Result<Option<Arc<Sandbox>>, DaemonError> {
    let Some(config) = config else { return Ok(None) };
    let opened = tokio::task::spawn_blocking(move || Sandbox::open(config)).await;
    let sandbox = opened.map_err(io::Error::other).flatten().map_err(DaemonError::Sandbox)?;
    let sandbox = Arc::new(sandbox);
    let standing = sandbox.level().await;
    let report = &standing.report;
    who.sandbox_level = report.level.to_string();
    let (denied, attempts) = (report.denied(), report.attempts.len());
    tracing::info!(level = %report.level, means = report.means, denied, attempts, trouble = report.trouble, "sandbox measured");
    Ok(Some(sandbox))
}

impl Worker {
    /// Opens the mirrors and clears what an earlier life left.
    ///
    /// # Errors
    /// When a mirror cannot be opened.
    pub async fn open(config: WorkerConfig, servers: Servers, token: Token) -> Result<Self, DaemonError> {
        let root = config.root.clone();
        let killed = tokio::task::spawn_blocking(move || process::kill_leftovers(&root.display().to_string()))
            .await
            .map_err(|e| DaemonError::Start(e.to_string()))?;
        if killed > 0 {
            tracing::info!(killed, "ended processes that an earlier worker left");
        }
        let mut identity = config.identity;
        let sandbox = measured(config.sandbox, &mut identity).await?;
        let line = Arc::new(Line::new(servers, token));
        let runners = Arc::new(Runners {
            line: line.clone(),
            worker: identity.worker.clone(),
            session: identity.session.clone(),
            root: config.root,
            objects: config.objects,
            run_data: config.run_data,
            env: config.env,
            sandbox,
            log_budget: config.log_budget,
            transcript_limit: config.transcript_limit,
            report_limit: config.report_limit,
            providers: config.providers,
            warm: config.warm,
            provision: Arc::new(config.provision),
            egress: config.egress,
            wish: Arc::default(),
            frozen: watch::Sender::new(false),
            open: tokio::sync::Mutex::default(),
        });
        runners.sweep().await?;
        Ok(Self { identity, line, runners })
    }

    /// Measures again how far sandboxes hold, whenever that is due.
    fn watch_sandboxes(&self, tasks: &Tasks) {
        let Some(sandbox) = self.runners.sandbox.clone() else { return };
        let measuring = sandbox.keep_measured(tasks.stop().clone());
        tasks.spawn("sandbox-selftest", OnError::Log, async move {
            measuring.await;
            Ok::<(), Infallible>(())
        });
    }

    /// Serves until stopped, or until it is drained: `drain` asks for that, or an operator. A session that breaks is
    /// opened again, with a pause that grows to five seconds; builders go on meanwhile, as long as their supervisor may still take them for alive.
    ///
    /// # Errors
    /// [`DaemonError::Version`] when a supervisor will never take it.
    pub async fn serve(self, tasks: Tasks, drain: Drain) -> Result<(), DaemonError> {
        tasks.spawn("warm-worktrees", OnError::Log, self.runners.clone().keep_warm(tasks.stop().clone()));
        self.watch_sandboxes(&tasks);
        let mut leaving = Leaving::new(drain.0);
        let mut pause = FIRST_PAUSE;
        let mut jobs = Jobs::new();
        let mut scans = Scans::new();
        let mut contact = Contact::new();
        let freezing = contact::freeze(contact.soft(), jobs.full(), self.runners.frozen.clone(), tasks.stop().clone());
        tasks.spawn("freeze", OnError::Log, async move {
            freezing.await;
            Ok::<(), Infallible>(())
        });
        while !(tasks.stop().is_cancelled() || leaving.wished() && jobs.is_idle()) {
            let connected = tokio::select! {
                connected = self.line.connect() => connected,
                () = contact::at(contact.deadline().filter(|_| !jobs.is_idle())) => {
                    jobs.stop_all(link::STOP_GRACE).await;
                    Err("nothing was heard of a supervisor in time: everything is stopped".to_owned())
                }
                () = tasks.stop().cancelled() => break,
                never = jobs.gather() => match never {},
            };
            match connected {
                Ok(client) => {
                    let began = tokio::time::Instant::now();
                    let held =
                        Held { jobs: &mut jobs, scans: &mut scans, contact: &mut contact, leaving: &mut leaving };
                    let served = link::serve(client, &self.identity, held, &self.runners, &tasks).await;
                    match served {
                        Ok(()) => return Ok(()),
                        Err(error) if error.is_final() => {
                            jobs.stop_all(link::STOP_GRACE).await;
                            return Err(DaemonError::Version(error.to_string()));
                        }
                        Err(error) => tracing::warn!(%error, "session ended"),
                    }
                    if began.elapsed() > LASTED {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(error) => tracing::warn!(%error, "no supervisor could be reached"),
            }
            if !contact.lingers() {
                jobs.stop_all(link::STOP_GRACE).await;
            }
            tokio::select! {
                () = tasks.stop().cancelled() => break,
                () = contact::at(contact.deadline().filter(|_| !jobs.is_idle())) => {
                    tracing::warn!("nothing was heard of a supervisor in time: everything is stopped");
                    jobs.stop_all(link::STOP_GRACE).await;
                }
                never = jobs.gather() => match never {},
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
        jobs.stop_all(link::STOP_GRACE).await;
        Ok(())
    }
}

/// Opens a worker beside a supervisor in this process and serves until stopped.
///
/// # Errors
/// As [`Worker::open`].
pub async fn run(config: WorkerConfig, channel: Channel, tasks: Tasks) -> Result<(), DaemonError> {
    Worker::open(config, Servers::Here(channel), Token::default()).await?.serve(tasks, Drain::default()).await
}

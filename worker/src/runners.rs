//! One runner a project, made when the first lease of it comes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::ProjectId;
use autopack_shared::repo::mirror::MirrorError;

use crate::builder::BuildError;
use crate::daemon::DaemonError;
use crate::line::Line;
use crate::phase::{Job, JobOutput, Runner};
use crate::pool::{self, WarmLimits};
use crate::providers::Providers;
use crate::provision::Provision;
use crate::sandbox::Sandbox;
use crate::workspace::Workspaces;

/// Where a mirror has its objects from.
#[derive(Debug, Clone)]
pub enum Objects {
    /// From the repository on this machine that it borrows them of; for one project only.
    Borrowed(PathBuf),
    /// From the supervisor.
    Fetched,
}

/// What every runner is made of.
pub(crate) struct Runners {
    pub(crate) line: Arc<Line>,
    pub(crate) worker: String,
    pub(crate) session: String,
    pub(crate) root: PathBuf,
    pub(crate) objects: Objects,
    pub(crate) run_data: Option<PathBuf>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) sandbox: Option<Arc<Sandbox>>,
    pub(crate) log_budget: u64,
    pub(crate) transcript_limit: usize,
    pub(crate) report_limit: u64,
    pub(crate) providers: Arc<Providers>,
    pub(crate) warm: WarmLimits,
    pub(crate) provision: Arc<Provision>,
    pub(crate) egress: crate::egress::Limits,
    /// Told when worktrees could be prepared.
    pub(crate) wish: Arc<Notify>,
    /// Whether builders stand still.
    pub(crate) frozen: watch::Sender<bool>,
    // Held while a mirror is opened, which happens once a project.
    pub(crate) open: Mutex<BTreeMap<ProjectId, Arc<Runner>>>,
}

impl Runners {
    /// Opens the mirrors that are there, so that what an earlier life left is cleared before anything new is made.
    pub(crate) async fn sweep(&self) -> Result<(), DaemonError> {
        if let Objects::Borrowed(_) = self.objects {
            self.of(&self.borrowed()?).await?;
            return Ok(());
        }
        let root = self.root.clone();
        let names = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&root)?;
            let entries = std::fs::read_dir(&root)?.collect::<Result<Vec<_>, _>>()?;
            Ok::<_, std::io::Error>(entries.into_iter().filter_map(|e| e.file_name().into_string().ok()).collect())
        })
        .await
        .map_err(|e| DaemonError::Start(e.to_string()))?;
        let names: Vec<String> = names.map_err(|source| MirrorError::Io { path: self.root.clone(), source })?;
        for project in names.into_iter().filter_map(|name| ProjectId::new(name).ok()) {
            self.of(&project).await?;
        }
        Ok(())
    }

    /// The one project of a mirror that borrows; its name does not matter.
    fn borrowed(&self) -> Result<ProjectId, DaemonError> {
        ProjectId::new("here").map_err(|e| DaemonError::Start(e.to_string()))
    }

    /// The runner of a project.
    pub(crate) async fn of(&self, project: &ProjectId) -> Result<Arc<Runner>, DaemonError> {
        let (key, root, objects) = match &self.objects {
            Objects::Borrowed(objects) => (self.borrowed()?, self.root.clone(), Some(objects.clone())),
            Objects::Fetched => (project.clone(), self.root.join(project.as_str()), None),
        };
        // Held across the opening: two jobs of a new project must not both sweep its mirror.
        let mut open = self.open.lock().await;
        if let Some(runner) = open.get(&key) {
            return Ok(runner.clone());
        }
        let fetches = objects.is_none();
        let (warm, wish) = (self.warm, self.wish.clone());
        let workspaces = tokio::task::spawn_blocking(move || Workspaces::open(&root, objects.as_deref(), warm, wish))
            .await
            .map_err(|e| DaemonError::Start(e.to_string()))??;
        let runner = Arc::new(Runner {
            workspaces: Arc::new(workspaces),
            line: self.line.clone(),
            fetches,
            worker: self.worker.clone(),
            session: self.session.clone(),
            mark: self.root.display().to_string(),
            run_data: self.run_data.clone(),
            env: self.env.clone(),
            sandbox: self.sandbox.clone(),
            log_budget: self.log_budget,
            transcript_limit: self.transcript_limit,
            report_limit: self.report_limit,
            providers: self.providers.clone(),
            provision: self.provision.clone(),
            egress: self.egress,
            frozen: self.frozen.subscribe(),
        });
        open.insert(key, runner.clone());
        Ok(runner)
    }

    /// Keeps worktrees ready for the leases to come, until stopped.
    pub(crate) async fn keep_warm(self: Arc<Self>, stop: CancellationToken) -> Result<(), std::convert::Infallible> {
        let pools =
            || async { self.open.lock().await.values().map(|runner| runner.workspaces.pool()).collect::<Vec<_>>() };
        pool::keep_warm(pools, self.warm, self.wish.clone(), stop).await
    }

    /// Runs a job of any project.
    pub(crate) async fn run(&self, job: Job, out: mpsc::Sender<JobOutput>, cancel: CancellationToken) {
        match self.of(&job.project).await {
            Ok(runner) => runner.run(job, out, cancel).await,
            Err(error) => {
                let failed = JobOutput::failed(&job, BuildError::of("workspace", &error));
                let _gone = out.send(failed).await;
            }
        }
    }
}

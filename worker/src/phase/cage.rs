//! How the processes of a job are confined, and what they find in their environment.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::Span;

use autopack_shared::domain::gate::{BaseData, Setting};
use autopack_shared::domain::record::LeasePurpose;
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::sandbox::{SandboxLevel, SandboxProfile};

use super::data::{Data, JobData};
use super::{Job, Runner};
use crate::builder::BuildError;
use crate::process::Cage;
use crate::process::output::Output;
use crate::sandbox::{DatabaseDoor, Place};
use crate::workspace::Workspace;

/// Whether a builder starts processes.
pub(super) const fn starts_processes(spec: &BuilderSpec) -> bool {
    match spec {
        BuilderSpec::Command { .. } | BuilderSpec::Agent { .. } => true,
        BuilderSpec::Llm { .. }
        | BuilderSpec::Patch { .. }
        | BuilderSpec::Landing { .. }
        | BuilderSpec::Remediation { .. } => false,
    }
}

/// The weakest sandbox that a grant lets its processes run in.
pub(super) fn asked(level: &str) -> Result<SandboxLevel, String> {
    if level.is_empty() { Ok(SandboxLevel::default()) } else { level.parse().map_err(|e| format!("min_sandbox: {e}")) }
}

/// How much its sandbox lets through.
pub(super) fn profile(name: &str) -> Result<SandboxProfile, String> {
    if name.is_empty() {
        Ok(SandboxProfile::default())
    } else {
        name.parse().map_err(|e| format!("sandbox_profile: {e}"))
    }
}

impl Runner {
    /// Marks the processes of a job.
    pub(super) fn mark(&self, job: &Job) -> String {
        format!("{}|{}", self.mark, job.lease)
    }

    /// Where a gate's commands run, as far as it decides what they show.
    pub(super) async fn setting(&self, job: &Job) -> Setting {
        let sandbox = match &self.sandbox {
            Some(sandbox) if !job.insecure_no_sandbox => Some(sandbox.level().await.report.level),
            Some(_) | None => None,
        };
        let data = match (&job.data, &self.run_data) {
            (JobData::Server(_), _) => BaseData::OfTheRun,
            (JobData::File, Some(_)) => BaseData::Own,
            (JobData::File, None) | (JobData::None, _) => BaseData::None,
        };
        Setting {
            sandbox,
            secrets: job.secrets.iter().cloned().collect(),
            withheld: job.secrets_withheld,
            data,
            lists: job.fork.filter(|fork| Some(*fork) != job.gate_base),
        }
    }

    /// The folder of the run's database. On the base it is an empty one, which goes with its worktree: what builders
    /// have put into the run's own would say what the base is like.
    fn data_folder(&self, space: &Workspace) -> io::Result<Option<PathBuf>> {
        let Some(folder) = self.run_data.clone() else { return Ok(None) };
        if !space.is_baseline() {
            return Ok(Some(folder));
        }
        let own = space.scratch().join("data");
        match std::fs::remove_dir_all(&own) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(Some(own)),
        }
    }

    /// The sandbox for a job's processes, and their environment in the host's paths.
    ///
    /// # Errors
    /// `sandbox_required` where there is none, `sandbox_too_weak` where it does not hold as far as it must,
    /// `egress_refused` for a host that the project may not have.
    pub(super) async fn confine(
        &self,
        job: &Job,
        space: &Workspace,
        span: &Span,
        (starts, output): (bool, &Output),
    ) -> Result<(Cage, Vec<(String, String)>), BuildError> {
        let mut env = self.env.clone();
        env.extend(job.variables(span));
        env.extend(Self::secrets_variable(job, space));
        // A stray `git` of a builder must not find a repository above the tree.
        env.push(("GIT_CEILING_DIRECTORIES".to_owned(), space.ceiling()));
        let folder = self.data_folder(space).map_err(|e| BuildError::of("workspace", &e))?;
        if !starts || job.insecure_no_sandbox {
            let data = job.data.bare(folder.as_deref(), &job.run);
            env.extend(data.map_err(|e| BuildError::of("workspace", &e))?);
            return Ok((Cage::None, env));
        }
        let Some(sandbox) = &self.sandbox else {
            let text = "it needs a sandbox, and this worker has none; --insecure-no-sandbox runs builders as you";
            return Err(BuildError::new("sandbox_required", text));
        };
        let standing = sandbox.level().await;
        if let Some(why) = standing.quarantine() {
            return Err(BuildError::new("sandbox_too_weak", format!("this worker is quarantined: {why}")));
        }
        let report = &standing.report;
        if report.level < job.min_sandbox {
            let why = report.trouble.as_deref().unwrap_or("autopack sandbox selftest says what is missing");
            let text =
                format!("it needs a sandbox of level {}, and here it is {}: {why}", job.min_sandbox, report.level);
            return Err(BuildError::new("sandbox_too_weak", text));
        }
        let mut place =
            Place { tree: space.tree().to_path_buf(), scratch: space.scratch().to_path_buf(), ..Place::default() };
        // An agent keeps its home and its own logs there.
        place.reports = job.purpose == LeasePurpose::Verify || matches!(job.spec.builder, BuilderSpec::Agent { .. });
        place.egress = self.way_out(job, sandbox, output).await?.map(Arc::new);
        place.profile = job.sandbox_profile;
        match job.data.confined(folder.as_deref(), &job.run).map_err(|e| BuildError::of("workspace", &e))? {
            Data::None => {}
            Data::Folder { folder, variable } => {
                place.data = Some(folder);
                env.push(variable);
            }
            Data::Server { name, url } => {
                let door = DatabaseDoor::open(sandbox, &url).map_err(|e| BuildError::of("sandbox_failed", &e))?;
                env.push((name, door.url().to_owned()));
                place.door = Some(Arc::new(door));
            }
        }
        Ok((Cage::Sandboxed(sandbox.clone(), Box::new(place)), env))
    }
}

//! Where the processes of a job keep the run's data, and how they are told.

use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use tracing::Span;

use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::run_data::RunDataModel;
use autopack_shared::wire::pb;

use super::{Job, Runner};
use crate::builder::BuildError;
use crate::workspace::Workspace;

/// The variable that names a process's database.
const VARIABLE: &str = "DATABASE_URL";

/// Where a job's processes keep the run's data. Shown without the URL, which holds a password.
#[derive(Clone, PartialEq, Eq)]
pub enum JobData {
    /// It starts no processes.
    None,
    /// In a file of the run's own on this worker.
    File,
    /// On the cluster's server for runs.
    Server(String),
}

impl fmt::Debug for JobData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::File => "File",
            Self::Server(_) => "Server(..)",
        })
    }
}

impl JobData {
    /// Reads what a grant says; one that says nothing is of a supervisor without a server.
    pub(super) fn read(said: Option<&pb::RunData>) -> Result<Self, String> {
        let Some(said) = said else { return Ok(Self::File) };
        let models = [RunDataModel::Schema, RunDataModel::Database].map(RunDataModel::as_str);
        match said.kind.as_str() {
            "none" => Ok(Self::None),
            kind if kind == RunDataModel::Sqlite.as_str() => Ok(Self::File),
            kind if models.contains(&kind) && !said.url.is_empty() => Ok(Self::Server(said.url.clone())),
            // Never something else in its place.
            other => Err(format!("run_data: this worker cannot give {other:?}")),
        }
    }

    /// The variable for a process of a run, whose folder is below `folder` where it is a file.
    pub(super) fn variable(&self, folder: Option<&Path>, run: &RunId) -> io::Result<Option<(String, String)>> {
        let url = match (self, folder) {
            (Self::None, _) | (Self::File, None) => return Ok(None),
            (Self::Server(url), _) => url.clone(),
            (Self::File, Some(folder)) => {
                let file = folder.join(run.as_str()).join(format!("{run}.db"));
                private_file(&file)?;
                format!("sqlite://{}?mode=rwc", file.display())
            }
        };
        Ok(Some((VARIABLE.to_owned(), url)))
    }
}

impl Runner {
    /// The environment of a job's processes.
    pub(super) fn job_env(
        &self,
        job: &Job,
        space: &Workspace,
        span: &Span,
    ) -> Result<Vec<(String, String)>, BuildError> {
        let mut env = self.env.clone();
        env.extend(job.variables(span));
        env.extend(Self::secrets_variable(job, space));
        // A stray `git` of a builder must not find a repository above the tree.
        env.push(("GIT_CEILING_DIRECTORIES".to_owned(), space.ceiling()));
        env.extend(job.data.variable(self.run_data.as_deref(), &job.run).map_err(|e| BuildError::of("workspace", &e))?);
        Ok(env)
    }
}

/// Makes a file that only its owner reads, where there is none: what a job's own program would make, others could read.
fn private_file(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: &str, url: &str) -> Result<JobData, String> {
        JobData::read(Some(&pb::RunData { kind: kind.to_owned(), url: url.to_owned() }))
    }

    #[test]
    fn a_job_gets_what_was_said_or_does_not_begin() {
        assert_eq!(JobData::read(None), Ok(JobData::File));
        assert_eq!(said("none", ""), Ok(JobData::None));
        assert_eq!(said("sqlite", ""), Ok(JobData::File));
        for kind in ["schema", "database"] {
            assert_eq!(said(kind, "postgres://x"), Ok(JobData::Server("postgres://x".to_owned())));
            assert!(said(kind, "").is_err(), "{kind}");
        }
        assert!(said("mysql", "mysql://x").is_err() && said("", "").is_err());
    }

    #[test]
    fn processes_are_told_of_it_and_nobody_else_is() {
        let (folder, run) = (tempfile::tempdir().unwrap(), RunId::new("r").unwrap());
        let server = JobData::Server("postgres://ap:s3cret@db/runs".to_owned());
        let told = server.variable(Some(folder.path()), &run).unwrap().unwrap();
        assert_eq!(told, ("DATABASE_URL".to_owned(), "postgres://ap:s3cret@db/runs".to_owned()));
        assert!(!folder.path().join("r").exists(), "no file beside it");
        assert!(!format!("{server:?}").contains("s3cret"));
        assert_eq!(JobData::None.variable(Some(folder.path()), &run).unwrap(), None);
        let (_, file) = JobData::File.variable(Some(folder.path()), &run).unwrap().unwrap();
        assert!(file.starts_with("sqlite:///") && folder.path().join("r/r.db").exists(), "{file}");
    }
}

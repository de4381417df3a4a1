//! What a job gets besides its commit, right before anything of it runs.

use super::{EventSink, Job, Runner};
use crate::builder::BuildError;
use crate::fetch::Cause;
use crate::provision::{self, VARIABLE};
use crate::workspace::Workspace;

impl Runner {
    /// Brings the ignored files that the project lists and the secrets that it may have.
    pub(super) async fn provide(&self, job: &Job, space: &Workspace, sink: &EventSink) -> Result<(), BuildError> {
        if let Some(folder) = self.provision.include(&job.project) {
            // The change must have no say in what its gate, or a later builder, is given.
            let Some(fork) = job.fork else {
                return Err(BuildError::new(
                    "include",
                    "the supervisor names no trusted base; it is older than this worker",
                ));
            };
            self.fetch(Cause::Lease { run: job.run.clone(), epoch: job.epoch }, fork).await?;
            let brought = self.workspaces.include(space, fork, folder).await?;
            for (path, why) in brought.left_out.iter().take(20) {
                sink.send("workspace.note", format!("{path} is listed and was not brought: {why}")).await;
            }
            if !brought.files.is_empty() {
                sink.send("workspace.note", format!("{} ignored files were brought", brought.files.len())).await;
            }
        }
        self.provision.place(&job.project, &job.secrets, space.scratch(), &sink.hidden)
    }

    /// Where its processes find the secrets.
    pub(super) fn secrets_variable(job: &Job, space: &Workspace) -> Option<(String, String)> {
        let folder = provision::folder(space.scratch());
        (!job.secrets.is_empty()).then(|| (VARIABLE.to_owned(), folder.display().to_string()))
    }
}

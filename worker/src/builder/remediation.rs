//! The `remediation` builder: the built-in repairs of gaps. They run in this process and need no sandbox: they read
//! and write plain files below the tree and start nothing.

use std::path::Path;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::gap::GapType;
use autopack_shared::domain::run_file::BuilderSpec;

use super::{BuildError, BuildReport, Builder, Task};
use crate::remediation::{RemediationError, RemediationTask, remediate};

/// Repairs the gap that its phase names.
#[derive(Debug)]
pub struct RemediationBuilder;

#[async_trait]
impl Builder for RemediationBuilder {
    async fn build(&self, task: &Task, tree: &Path, _cancel: &CancellationToken) -> Result<BuildReport, BuildError> {
        let BuilderSpec::Remediation { gap_type, gap_id, paths, .. } = &task.phase.builder else {
            return Err(BuildError::new("unsupported", "this phase names no remediation"));
        };
        let gap_type: GapType = serde_json::from_value(serde_json::Value::String(gap_type.clone())).map_err(|_| {
            BuildError::new("unsupported", format!("{gap_type:?} is no kind of gap that this version knows"))
        })?;
        let work = RemediationTask {
            gap_type,
            gap_id: gap_id.clone(),
            subjects: paths.clone(),
            scope: task.phase.scope.paths.clone(),
        };
        let tree = tree.to_path_buf();
        let done = tokio::task::spawn_blocking(move || remediate(&tree, &work))
            .await
            .map_err(|e| BuildError::new("builder_failed", format!("the remediation panicked: {e}")))?;
        match done {
            Ok(report) => Ok(BuildReport { notes: report.notes, ..BuildReport::default() }),
            Err(error) => Err(refused(&error)),
        }
    }
}

fn refused(error: &RemediationError) -> BuildError {
    BuildError::of(error.reason(), error)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::DISK_FULL;
    use super::*;

    #[test]
    fn a_full_disk_is_no_fault_of_the_repair() {
        let error = |source| RemediationError::Io { path: "docs/a.md".to_owned(), source };
        assert_eq!(refused(&error(io::Error::from_raw_os_error(28))).reason, DISK_FULL);
        let other = refused(&error(io::Error::from_raw_os_error(13)));
        assert_eq!(other.reason, "io");
        assert!(other.message.starts_with("cannot change docs/a.md: "), "{other}");
    }
}

//! The `remediation` builder: the built-in repairs of gaps. They run in this process and need no sandbox: they read
//! and write plain files below the tree and start nothing.

use std::path::Path;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::gap::GapType;
use autopack_shared::domain::run_file::BuilderSpec;

use super::{BuildError, BuildReport, Builder, Task};
use crate::remediation::{RemediationTask, remediate};

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
            Ok(report) => Ok(BuildReport { notes: report.notes }),
            Err(error) => Err(BuildError::of(error.reason(), &error)),
        }
    }
}

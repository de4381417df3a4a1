//! What a builder made, as a tree.

use tracing::{Instrument as _, info_span};

use autopack_shared::domain::ids::Oid;

use super::{Job, Runner};
use crate::builder::BuildError;
use crate::workspace::Workspace;

impl Runner {
    /// The tree that a builder made, with what was noticed: from the files it left, or from the patch it wrote.
    pub(super) async fn made(
        &self,
        job: &Job,
        space: &Workspace,
        patch: Option<String>,
    ) -> Result<(Oid, Vec<String>), BuildError> {
        if let Some(diff) = patch {
            let tree = self.workspaces.import(job.base, diff).instrument(info_span!("import")).await?;
            return Ok((tree, Vec::new()));
        }
        let collected = self.workspaces.collect(space).instrument(info_span!("collect")).await?;
        Ok((collected.tree, collected.notices))
    }
}

//! What a builder made, as a tree.

use tracing::{Instrument as _, info_span};

use autopack_shared::domain::ids::Oid;

use super::{Job, Runner};
use crate::builder::BuildError;
use crate::gate;
use crate::workspace::Workspace;

impl Runner {
    /// The tree that a builder made, with what was noticed: from the files it left, or from the patch it wrote.
    pub(super) async fn made(
        &self,
        job: &Job,
        space: &Workspace,
        patch: Option<String>,
    ) -> Result<(Oid, Vec<String>), BuildError> {
        let wanted = &job.spec.deliverables;
        let symbols = &job.spec.symbols;
        let (tree, notices, missing, lacking) = match patch {
            Some(diff) => {
                let tree = self.workspaces.import(job.base, diff).instrument(info_span!("import")).await?;
                let missing = self.workspaces.missing(tree, wanted).await?;
                (tree, Vec::new(), missing, self.workspaces.missing_symbols(tree, symbols).await?)
            }
            None => {
                let missing = gate::missing_deliverables(space.tree(), wanted);
                let lacking = gate::missing_symbols(space.tree(), symbols);
                let collected = self.workspaces.collect(space).instrument(info_span!("collect")).await?;
                (collected.tree, collected.notices, missing, lacking)
            }
        };
        for (reason, missing) in [("deliverables_missing", missing), ("symbols_missing", lacking)] {
            if !missing.is_empty() {
                return Err(BuildError::new(reason, format!("not there afterwards: {}", missing.join(", "))));
            }
        }
        Ok((tree, notices))
    }
}

//! The files a run may change: which it has changed, and why it may not change more.

use std::collections::BTreeSet;

use autopack_shared::domain::change::ChangeFacts;
use autopack_shared::domain::feedback::{FeedbackKind, Told};
use autopack_shared::domain::record::{ApplyKind, Phase, Run};
use autopack_shared::domain::state::ApplyState;

use super::Director;
use super::budget::{caps_of, count_files};
use super::view::RunView;
use crate::error::Error;
use crate::store::Tx;

impl Director {
    /// Why a change may not be applied, if with it the run, its phase, its project or the day had too many files.
    pub(super) async fn too_many_files(
        &self,
        tx: &mut dyn Tx,
        view: &RunView,
        phase: &Phase,
        facts: &Result<ChangeFacts, String>,
    ) -> Result<Option<(String, Told)>, Error> {
        let reason = match too_many_files(tx, &view.run, facts).await? {
            Some(reason) => Some(reason),
            None => count_files(tx, &view.run, phase, facts, &self.config.governing.budgets).await?,
        };
        Ok(reason.map(|reason| {
            let told = Told::new(FeedbackKind::Policy, phase.attempt, "limit_files", &reason, Vec::new());
            (reason, told)
        }))
    }
}

/// Why a change may not be applied, if with it the run would have touched more files than it may.
async fn too_many_files(
    tx: &mut dyn Tx,
    run: &Run,
    facts: &Result<ChangeFacts, String>,
) -> Result<Option<String>, Error> {
    let (Some(limit), Ok(facts)) = (caps_of(run).files, facts) else { return Ok(None) };
    let mut touched: BTreeSet<String> = facts.entries.iter().map(|e| e.path.shown().to_owned()).collect();
    for apply in tx.applies(&run.id).await? {
        if apply.kind != ApplyKind::Patch || apply.state != ApplyState::Committed {
            continue;
        }
        let decision = match &apply.decision {
            Some(id) => tx.decision(id).await?,
            None => None,
        };
        let entries = decision.as_ref().and_then(|d| d.document["facts"]["entries"].as_array());
        touched.extend(entries.into_iter().flatten().filter_map(|e| e["path"].as_str().map(str::to_owned)));
    }
    let count = u64::try_from(touched.len()).unwrap_or(u64::MAX).max(facts.files);
    Ok((count > limit).then(|| format!("limit_files: the run would have changed {count} files of {limit}")))
}

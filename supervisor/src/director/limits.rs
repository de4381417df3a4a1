//! The bounds a run brings along (`limits` of its file): what it has spent, and why it may not spend more.

use std::collections::BTreeSet;

use autopack_shared::domain::change::ChangeFacts;
use autopack_shared::domain::record::{ApplyKind, Run};
use autopack_shared::domain::state::ApplyState;

use super::Director;
use super::view::RunView;
use crate::error::Error;
use crate::store::Tx;

impl Director {
    /// Why no further builder may start, if the run's builder seconds are spent.
    pub(super) async fn out_of_seconds(&self, view: &RunView) -> Result<Option<String>, Error> {
        let Some(limit) = view.run.file.limits.seconds else { return Ok(None) };
        let spent = self.builder_seconds(view).await?;
        Ok((spent >= limit).then(|| format!("limit_seconds: builders took {spent} of {limit} s")))
    }

    /// Wall seconds of all attempts of a run that have ended.
    async fn builder_seconds(&self, view: &RunView) -> Result<u64, Error> {
        let mut tx = self.store.read().await?;
        let mut millis = 0_i64;
        for phase in &view.phases {
            for attempt in tx.attempts(&view.run.id, &phase.id).await? {
                millis += attempt.ended_at.map_or(0, |end| end.millis_since(attempt.started_at).max(0));
            }
        }
        Ok(u64::try_from(millis / 1000).unwrap_or(0))
    }
}

/// Why a change may not be applied, if with it the run would have touched more files than it may.
pub(super) async fn too_many_files(
    tx: &mut dyn Tx,
    run: &Run,
    facts: &Result<ChangeFacts, String>,
) -> Result<Option<String>, Error> {
    let (Some(limit), Ok(facts)) = (run.file.limits.files, facts) else { return Ok(None) };
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

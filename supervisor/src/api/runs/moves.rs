//! The runs of a project as they move, for whoever keeps something up to date with them.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tonic::Status;

use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::state::RunState;
use autopack_shared::wire::pb;

use crate::api::Core;
use crate::error::Error;
use crate::store::RunFilter;

impl Core {
    /// Sends every run that is on its way, then each whose state changed, until nobody listens.
    pub(super) async fn stream_moves(&self, out: mpsc::Sender<Result<pb::Run, Status>>) -> Result<(), Error> {
        let mut changes = self.store.changes();
        let mut seen = BTreeMap::new();
        loop {
            changes.mark_unchanged();
            for run in self.moved(&mut seen).await? {
                if out.send(Ok(self.show_run(run.as_str()).await?)).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                () = out.closed() => return Ok(()),
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    /// The runs whose state is not the one seen last. One that ended is forgotten.
    async fn moved(&self, seen: &mut BTreeMap<RunId, RunState>) -> Result<Vec<RunId>, Error> {
        let states = RunState::ALL.iter().copied().filter(|state| !state.is_terminal()).collect();
        let filter = RunFilter { project: Some(self.project.clone()), states, limit: 0 };
        let mut tx = self.store.read().await?;
        let open: BTreeMap<RunId, RunState> =
            tx.runs(&filter).await?.into_iter().map(|run| (run.id, run.state)).collect();
        let ended = seen.keys().filter(|run| !open.contains_key(*run)).cloned();
        let moved = open.iter().filter(|(run, state)| seen.get(*run) != Some(*state)).map(|(run, _)| run.clone());
        let all = ended.chain(moved).collect();
        *seen = open;
        Ok(all)
    }
}

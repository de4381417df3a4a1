//! Rollback: a new commit whose tree is the save point's, or the three-way revert when later work landed.

use autopack_shared::domain::ids::{Oid, PhaseId};
use autopack_shared::domain::record::{Apply, ApplyKind};
use autopack_shared::domain::state::{ApplyState, AttemptEvent, PhaseEvent};
use autopack_shared::repo::merge::Merged;

use super::apply::{apply_id, insert, revert_message};
use super::attempts::rolled_back;
use super::grant::reread_phase;
use super::view::RunView;
use super::{Denial, Director, budget, moves, ref_of, system};
use crate::error::Error;
use crate::hub::{CommitSpec, HubRead as _};

/// Paths for people.
pub(crate) fn shown(paths: &[Vec<u8>]) -> String {
    paths.iter().take(10).map(|p| String::from_utf8_lossy(p).into_owned()).collect::<Vec<_>>().join(", ")
}

impl Director {
    /// Prepares the revert of a phase; false when it conflicts with later work and a person has to see to it.
    pub(super) async fn prepare_revert(&self, view: &RunView, id: &PhaseId) -> Result<bool, Error> {
        let Some(phase) = view.phase(id) else { return Ok(true) };
        let Some(undone) = self.undone(view, id).await? else {
            return Err(Error::Bug(format!("{id} is rolled back but nothing of it was applied")));
        };
        if !phase.rollback_ordered && !self.is_on_branch(view, undone.new).await? {
            return self.gone(view, id).await.map(|()| true);
        }
        let Some((tip, tree)) = self.reverted(view, id, &undone).await? else { return Ok(false) };
        let at = phase.updated_at;
        let message = revert_message(&view.run, phase, &undone, at, tip);
        let spec = CommitSpec { tree, parents: vec![tip], message, seconds: at.as_seconds() };
        let hub = self.hub.clone();
        let new = self.blocking(move || hub.commit(&spec)).await?;
        let mut tx = self.fenced(&[]).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        let apply = Apply {
            id: apply_id(&format!("revert|{}|{tip}", undone.id))?,
            run: view.run.id.clone(),
            phase: phase.id.clone(),
            attempt: undone.attempt,
            kind: ApplyKind::Revert,
            target_ref: ref_of(&view.run).to_string(),
            old: tip,
            new,
            tree,
            decision: undone.decision.clone(),
            request: None,
            state: ApplyState::Prepared,
            version: 0,
            decided_at: at,
            prepared_at: tx.now(),
            finished_at: None,
            reason: None,
        };
        insert(tx.as_mut(), &apply).await?;
        phase.apply = Some(apply.id);
        moves::update_phase(tx.as_mut(), &mut phase, "its revert is prepared").await?;
        tx.commit().await?;
        self.allow(&view.run.id);
        Ok(true)
    }

    /// The branch was moved or deleted under a change that the gate did not pass: there is nothing to take back.
    async fn gone(&self, view: &RunView, id: &PhaseId) -> Result<(), Error> {
        let mut tx = self.turn(&view.run.id, Some(id)).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        moves::end_attempt(tx.as_mut(), &phase, AttemptEvent::Fail, Some(rolled_back(&phase))).await?;
        budget::forget_files(tx.as_mut(), &phase, None).await?;
        let reason = Some(format!("{} no longer has it; nothing was left to revert", view.run.branch));
        moves::phase(tx.as_mut(), &mut phase, PhaseEvent::RolledBack, reason, &system()).await?;
        Ok(tx.commit().await?)
    }

    /// The apply that a rollback of a phase takes back.
    pub(super) async fn undone(&self, view: &RunView, id: &PhaseId) -> Result<Option<Apply>, Error> {
        let mut tx = self.store.read().await?;
        let applies = tx.applies(&view.run.id).await?;
        Ok(applies
            .into_iter()
            .rev()
            .find(|a| a.phase == *id && a.kind == ApplyKind::Patch && a.state == ApplyState::Committed))
    }

    /// The branch's tip and the tree that takes a change back there; none where a person has to see to it.
    async fn reverted(&self, view: &RunView, id: &PhaseId, undone: &Apply) -> Result<Option<(Oid, Oid)>, Error> {
        let branch = ref_of(&view.run);
        let (hub, name, job) = (self.hub.clone(), branch.clone(), undone.clone());
        let merged = self
            .blocking(move || {
                let Some(tip) = hub.tip(&name)? else { return Ok(None) };
                let save = hub.tree_of(job.old)?;
                if tip == job.new {
                    return Ok(Some((tip, Merged::Clean(save))));
                }
                let (applied, now) = (hub.tree_of(job.new)?, hub.tree_of(tip)?);
                Ok(Some((tip, hub.revert_tree(save, applied, now)?)))
            })
            .await?;
        let Some((tip, merged)) = merged else {
            let what = format!("{branch} was deleted, so there is nothing to roll back on");
            self.deny(&view.run.id, Denial::new("branch_deleted", &what, "making the branch again"));
            return Ok(None);
        };
        match merged {
            Merged::Clean(tree) => Ok(Some((tip, tree))),
            Merged::Conflict(paths) => {
                let what = format!("rolling back {id} conflicts with later work in {}", shown(&paths));
                self.deny(&view.run.id, Denial::new("rollback_conflict", &what, "rolling back the later phases first"));
                Ok(None)
            }
        }
    }
}

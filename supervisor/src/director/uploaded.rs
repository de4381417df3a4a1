//! Whether the tree that is to be judged is the one that its attempt has uploaded. A result that came while the hub was
//! away was taken at its word; nothing is judged at its word.

use autopack_shared::domain::ids::{Oid, PhaseId};
use autopack_shared::domain::record::Phase;
use autopack_shared::domain::state::{PhaseEvent, PhaseState};

use super::grant::reread_phase;
use super::judge::refuse;
use super::view::RunView;
use super::{Director, moves, system};
use crate::error::Error;
use crate::hub::{AttemptKey, RefName};

/// Why a result's tree is not the one that was uploaded, where it is not.
pub(crate) fn mismatch(kept: Option<Oid>, tree: Oid) -> Option<String> {
    let uploaded = || kept.map_or_else(|| "nothing".to_owned(), |kept| kept.short());
    (kept != Some(tree)).then(|| format!("the result is {}, and {} was uploaded", tree.short(), uploaded()))
}

impl Director {
    /// Why a phase's tree cannot be judged, where it was not uploaded. What the director itself put on another base was
    /// judged as it came.
    pub(super) async fn not_uploaded(&self, phase: &Phase, base: Oid, tree: Oid) -> Result<Option<String>, Error> {
        let attempt = self.store.read().await?.attempt(&phase.run, &phase.id, phase.attempt).await?;
        let Some(attempt) = attempt.filter(|one| one.base == base && one.result_tree == Some(tree)) else {
            return Ok(None);
        };
        let (run, phase) = (attempt.run, attempt.phase);
        let name = RefName::pending(&AttemptKey { run, epoch: attempt.epoch, phase, attempt: attempt.number });
        let hub = self.hub.clone();
        let kept = self.blocking(move || hub.tip(&name)).await?;
        Ok(mismatch(kept, tree).map(|why| format!("tree_mismatch: {why}")))
    }

    /// Refuses a tree before anything of it is looked at: an attempt that counts.
    pub(super) async fn refuse_unjudged(&self, view: &RunView, id: &PhaseId, why: String) -> Result<(), Error> {
        let mut tx = self.fenced(&[]).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        if phase.state != PhaseState::Governance {
            moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Judge, None, &system()).await?;
        }
        refuse(tx.as_mut(), view, &mut phase, why).await?;
        Ok(tx.commit().await?)
    }
}

//! Putting a change on a branch that moved on, and the policy of where it is to land.

use autopack_shared::domain::feedback::{self, FeedbackKind, Told};
use autopack_shared::domain::ids::{PhaseId, RequestId};
use autopack_shared::domain::record::{Phase, Run, RunKind};
use autopack_shared::domain::state::{AttemptEvent, PhaseEvent, RequestEvent, RequestState};
use autopack_shared::repo::merge::Merged;

use super::grant::reread_phase;
use super::moves::{self};
use super::revert::shown;
use super::view::RunView;
use super::{Director, ref_of, system};
use crate::error::Error;
use crate::hub::{AttemptKey, HubError, HubRead as _, RefName};
use crate::policy::PolicyInForce;
use crate::store::Tx;

impl Director {
    /// Puts a change on the branch's new tip. The same change keeps its approval; another one is judged and asked
    /// about anew; a conflict goes back to the builder and does not count as an attempt.
    pub(super) async fn rebase(&self, view: &RunView, id: &PhaseId) -> Result<(), Error> {
        let Some(phase) = view.phase(id) else { return Ok(()) };
        let (Some(base), Some(tree)) = (phase.base, phase.tree) else {
            return Err(Error::Bug(format!("{id} has no tree")));
        };
        let branch = ref_of(&view.run);
        let (hub, token) = (self.hub.clone(), self.token);
        let key = AttemptKey { run: view.run.id.clone(), epoch: 0, phase: id.clone(), attempt: phase.attempt };
        let found = self
            .blocking(move || {
                let Some(tip) = hub.tip(&branch)? else { return Ok(None) };
                if tip == base {
                    return Ok(Some((tip, Merged::Clean(tree), true)));
                }
                let merged = hub.rebase_tree(base, tree, tip)?;
                let same = match &merged {
                    Merged::Clean(new) => {
                        hub.keep_alive(token, &key, *new)?;
                        hub.same_change((base, tree), (tip, *new))?
                    }
                    Merged::Conflict(_) => false,
                };
                Ok::<_, HubError>(Some((tip, merged, same)))
            })
            .await?;
        let Some((tip, merged, same)) = found else {
            let reason = Some(format!("its branch {} was deleted", view.run.branch));
            return self.move_phase(view, id, PhaseEvent::Exhaust, reason).await;
        };
        let mut tx = self.fenced(&[]).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        let approved = self.supersede(tx.as_mut(), &phase).await?;
        match merged {
            Merged::Clean(new) => {
                phase.base = Some(tip);
                phase.tree = Some(new);
                phase.carry = approved.filter(|_| same);
                let reason = Some(format!("rebased onto {}", tip.short()));
                moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Rebased, reason, &system()).await?;
            }
            Merged::Conflict(paths) => {
                let reason = format!("CONFLICT: the branch moved to {} and differs in {}", tip.short(), shown(&paths));
                phase.carry = None;
                moves::end_attempt(tx.as_mut(), &phase, AttemptEvent::Fail, Some(reason.clone())).await?;
                let told = Told::new(FeedbackKind::Conflict, phase.attempt, "conflict", &reason, Vec::new());
                feedback::add(&mut phase.feedback, told);
                let event = if view.run.kind == RunKind::Patch { PhaseEvent::Retry } else { PhaseEvent::Exhaust };
                moves::phase(tx.as_mut(), &mut phase, event, Some(reason), &system()).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// Ends the request of a change that is rebased; its id, if it was approved.
    async fn supersede(&self, tx: &mut dyn Tx, phase: &Phase) -> Result<Option<RequestId>, Error> {
        let Some(id) = &phase.request else { return Ok(None) };
        let Some(mut request) = tx.request(id).await? else { return Ok(None) };
        let approved = matches!(request.state, RequestState::Approved | RequestState::Consumed);
        if request.state.next(RequestEvent::Supersede).is_ok() {
            if request.decided_at.is_none() {
                request.decided_at = Some(tx.now());
            }
            moves::request(
                tx,
                &mut request,
                RequestEvent::Supersede,
                Some("its base or policy moved".to_owned()),
                &system(),
            )
            .await?;
        }
        Ok(approved.then(|| request.id.clone()))
    }

    /// The policy of the target's tip, where the run has a target and its policy can be read.
    pub(super) async fn policy_of_target(&self, run: &Run) -> Result<Option<std::sync::Arc<PolicyInForce>>, Error> {
        let Some(target) = &run.target_ref else { return Ok(None) };
        let name = RefName::target(target)?;
        let hub = self.hub.clone();
        match self.blocking(move || hub.tip(&name)).await? {
            Some(tip) => Ok(Some(self.book.at(tip, run.file.anchor.as_deref()).await?)),
            None => Ok(None),
        }
    }
}

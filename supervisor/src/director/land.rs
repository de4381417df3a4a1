//! The last step of a landing: the target moves to the merge that was judged, approved and verified.

use autopack_shared::domain::ids::Oid;
use autopack_shared::domain::record::Checkout;
use autopack_shared::domain::state::{RunEvent, RunState};

use super::grant::reread_run;
use super::view::RunView;
use super::{Denial, Director, moves, ref_of, system};
use crate::error::Error;
use crate::hub::{CasOutcome, HubError, HubRead as _, RefName};

enum Landed {
    Yes(Oid),
    Moved,
    CheckedOut(String),
}

impl Director {
    /// Says what a landing waits for now that its decisions are there.
    async fn tell_waiting(&self, view: &RunView, told: String, checkout: Checkout) -> Result<(), Error> {
        if view.run.reason.as_ref() == Some(&told) && view.run.checkout.as_ref() == Some(&checkout) {
            return Ok(());
        }
        let mut tx = self.turn(&view.run.id, None).await?;
        let mut run = reread_run(tx.as_mut(), &view.run).await?;
        run.reason = Some(told);
        run.checkout = Some(checkout);
        moves::update_run(tx.as_mut(), &mut run, &system(), "it waits for its target").await?;
        Ok(tx.commit().await?)
    }

    /// Moves the target; false while it is checked out somewhere and the person has to merge by hand.
    pub(super) async fn land_target(&self, view: &RunView) -> Result<bool, Error> {
        let Some(target) = &view.run.target_ref else {
            return Err(Error::Bug(format!("{} has no target", view.run.id)));
        };
        let (name, merge) = (RefName::target(target)?, ref_of(&view.run));
        let (hub, token, fork) = (self.hub.clone(), self.token, view.run.fork_commit);
        let landed = self
            .blocking(move || {
                let (Some(new), Some(tip)) = (hub.tip(&merge)?, hub.tip(&name)?) else { return Ok(Landed::Moved) };
                if hub.is_ancestor(new, tip)? {
                    return Ok(Landed::Yes(new));
                }
                match hub.cas_ref(token, &name, Some(fork), new, "autopack: land") {
                    Ok(CasOutcome::Applied | CasOutcome::Already) => Ok(Landed::Yes(new)),
                    Ok(CasOutcome::Moved { .. }) => Ok(Landed::Moved),
                    Err(HubError::CheckedOut { path, .. }) => Ok(Landed::CheckedOut(path.display().to_string())),
                    Err(error) => Err(error),
                }
            })
            .await?;
        let (event, reason, checkout) = match landed {
            Landed::Yes(new) => (RunEvent::Succeed, format!("{target} is now {}", new.short()), None),
            Landed::Moved => (RunEvent::Fail, format!("{target} moved on since it was judged: land again"), None),
            Landed::CheckedOut(path) => {
                let command = format!("git -C {path} merge --ff-only {}", ref_of(&view.run));
                let what = format!("{target} is checked out at {path}");
                self.deny(&view.run.id, Denial::new("checked_out", &what, &command));
                let told = format!("{what}; run: {command}");
                let checkout = Checkout { branch: target.clone(), path, command };
                if view.run.state == RunState::Waiting {
                    return self.tell_waiting(view, told, checkout).await.map(|()| false);
                }
                (RunEvent::Park, told, Some(checkout))
            }
        };
        let mut tx = self.turn(&view.run.id, None).await?;
        let mut run = reread_run(tx.as_mut(), &view.run).await?;
        run.checkout = checkout;
        moves::run(tx.as_mut(), &mut run, event, Some(reason), &system()).await?;
        tx.commit().await?;
        Ok(event != RunEvent::Park)
    }
}

//! Landing a run's branch on its target. Fast-forward: every commit carries its decision, so only the fenced move.

use autopack_shared::domain::record::Principal;
use autopack_shared::domain::state::RunState;
use autopack_shared::wire::pb;

use crate::api::Core;
use crate::director::run_blocking;
use crate::error::Error;
use crate::hub::{CasOutcome, HubError, HubRead as _, RefName};

enum Landed {
    Already,
    Now,
    CheckedOut(String),
    Diverged,
}

impl Core {
    /// Lands a run, or says what to do instead.
    pub(super) async fn land(&self, call: &pb::LandRequest, principal: &Principal) -> Result<pb::LandResponse, Error> {
        let mut tx = self.store.read().await?;
        let run = self.run(tx.as_mut(), &call.run_id).await?;
        drop(tx);
        if run.state != RunState::Succeeded {
            return Err(Error::State {
                what: "run",
                id: run.id.to_string(),
                state: run.state.as_str().to_uppercase(),
                why: "only a run that succeeded lands".to_owned(),
                reason: "illegal_move",
            });
        }
        let Some(director) = self.director.clone() else {
            return Err(Error::State {
                what: "engine",
                id: self.project.to_string(),
                state: "PASSIVE".to_owned(),
                why: "this process does not drive runs".to_owned(),
                reason: "illegal_move",
            });
        };
        let target = run.target_ref.clone().ok_or_else(|| Error::Invalid {
            field: "target_ref".to_owned(),
            why: "the run has no target branch: HEAD was detached when it was started".to_owned(),
        })?;
        let (hub, token, name, branch) = (self.hub.clone(), director.token, RefName::target(&target)?, RefName::run(&run.id));
        let landed = run_blocking(move || {
            let (Some(tip), Some(at)) = (hub.tip(&branch)?, hub.tip(&name)?) else { return Ok(Landed::Diverged) };
            if hub.is_ancestor(tip, at)? {
                return Ok(Landed::Already);
            }
            if !hub.is_ancestor(at, tip)? {
                return Ok(Landed::Diverged);
            }
            match hub.cas_ref(token, &name, Some(at), tip, "autopack: land") {
                Ok(CasOutcome::Applied | CasOutcome::Already) => Ok(Landed::Now),
                Ok(CasOutcome::Moved { .. }) => Ok(Landed::Diverged),
                Err(HubError::CheckedOut { path, .. }) => Ok(Landed::CheckedOut(path.display().to_string())),
                Err(error) => Err(error),
            }
        })
        .await?;
        let shown = Some(self.show_run(run.id.as_str()).await?);
        Ok(match landed {
            Landed::Already => pb::LandResponse { run: shown, instead: String::new(), landed: true },
            Landed::Now => {
                tracing::info!(run = %run.id, by = principal.id, target, "landed");
                pb::LandResponse { run: shown, instead: String::new(), landed: true }
            }
            Landed::CheckedOut(path) => {
                let short = run.branch.trim_start_matches("refs/heads/");
                pb::LandResponse { run: shown, instead: format!("git -C {path} merge --ff-only {short}"), landed: false }
            }
            Landed::Diverged => {
                return Err(Error::MergeConflict {
                    what: format!("{} into {target}: the target moved on since {}", run.branch, run.fork_commit.short()),
                    paths: "(not merged: landing a diverged run is not supported yet)".to_owned(),
                });
            }
        })
    }
}

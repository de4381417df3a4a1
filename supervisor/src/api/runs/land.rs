//! Landing a run's branch on its target. Fast-forward: every commit carries its decision, so only the fenced move.
//! Otherwise a merge, governed like any change.

use std::collections::BTreeMap;

use autopack_shared::domain::ids::{Oid, PhaseId, RunId};
use autopack_shared::domain::record::{Principal, Run, RunKind};
use autopack_shared::domain::run_file::{BuilderSpec, PhaseSpec, RunFile, ScopeSpec};
use autopack_shared::domain::state::{ApplyState, PhaseState, RunState};
use autopack_shared::repo::merge::Merged;
use autopack_shared::runtime::telemetry::context;
use autopack_shared::wire::pb;

use super::submit;
use crate::api::Core;
use crate::director::moves::{Note, note};
use crate::director::{run_blocking, shown};
use crate::error::Error;
use crate::hub::{AttemptKey, CasOutcome, HubError, HubRead as _, RefName};
use crate::store::RunFilter;

enum Landed {
    Already,
    Now,
    CheckedOut(String),
    Diverged,
}

fn state(what: &'static str, id: String, state: String, why: String) -> Error {
    Error::State { what, id, state, why, reason: "illegal_move" }
}

impl Core {
    /// Lands a run, or says what to do instead.
    pub(super) async fn land(&self, call: &pb::LandRequest, principal: &Principal) -> Result<pb::LandResponse, Error> {
        let (run, newest) = self.landable(&call.run_id).await?;
        let Some(director) = self.director() else {
            let why = "this process does not drive runs".to_owned();
            return Err(state("engine", self.project.to_string(), "PASSIVE".to_owned(), why));
        };
        let target = run.target_ref.clone().ok_or_else(|| Error::Invalid {
            field: "target_ref".to_owned(),
            why: "the run has no target branch: HEAD was detached when it was started".to_owned(),
        })?;
        let (hub, token, name, branch) =
            (self.hub.clone(), director.token, RefName::target(&target)?, RefName::run(&run.id));
        self.note_landing(&run, "landing.started", &target, principal).await?;
        let fork = run.fork_commit;
        let landed = run_blocking(move || {
            let (Some(tip), Some(at)) = (hub.tip(&branch)?, hub.tip(&name)?) else { return Ok(Landed::Diverged) };
            if hub.is_ancestor(tip, at)? {
                return Ok(Landed::Already);
            }
            // Fast-forward only over commits that each carry a decision of this run.
            if at != fork || newest != Some(tip) {
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
                self.note_landing(&run, "landing.done", &target, principal).await?;
                pb::LandResponse { run: shown, instead: String::new(), landed: true }
            }
            Landed::CheckedOut(path) => {
                let short = run.branch.trim_start_matches("refs/heads/");
                pb::LandResponse {
                    run: shown,
                    instead: format!("git -C {path} merge --ff-only {short}"),
                    landed: false,
                }
            }
            Landed::Diverged => return self.land_merge(&run, &target, principal).await,
        })
    }

    /// A run that may land, and the newest commit that it applied.
    async fn landable(&self, id: &str) -> Result<(Run, Option<Oid>), Error> {
        let mut tx = self.store.read().await?;
        let run = self.run(tx.as_mut(), id).await?;
        let phases = tx.phases(&run.id).await?;
        let busy = phases.iter().any(|p| p.state == PhaseState::RollingBack)
            || !tx.open_commands(Some(&run.id)).await?.is_empty();
        let newest =
            tx.applies(&run.id).await?.into_iter().rev().find(|a| a.state == ApplyState::Committed).map(|a| a.new);
        drop(tx);
        if run.state != RunState::Succeeded || busy {
            let why = "only a run that succeeded lands, and not while it is being rolled back".to_owned();
            return Err(state("run", run.id.to_string(), run.state.as_str().to_uppercase(), why));
        }
        Ok((run, newest))
    }

    /// The target moved on: a run of kind `landing` carries the merge through verdict, approval and gate.
    async fn land_merge(&self, run: &Run, target: &str, principal: &Principal) -> Result<pb::LandResponse, Error> {
        let (hub, name, branch) = (self.hub.clone(), RefName::target(target)?, RefName::run(&run.id));
        let merged = run_blocking(move || {
            let (Some(theirs), Some(ours)) = (hub.tip(&branch)?, hub.tip(&name)?) else { return Ok(None) };
            Ok::<_, HubError>(Some((theirs, ours, hub.merge_commits_tree(ours, theirs)?)))
        })
        .await?;
        let (theirs, tip, tree) = match merged {
            None => return Err(Error::NotFound { what: "branch", id: target.to_owned() }),
            Some((_, _, Merged::Conflict(paths))) => {
                let what = format!("{} into {target}", run.branch);
                return Err(Error::MergeConflict { what, paths: shown(&paths) });
            }
            Some((theirs, tip, Merged::Clean(tree))) => (theirs, tip, tree),
        };
        if let Some(open) = self.open_landing(run, tip, theirs).await? {
            return Ok(pb::LandResponse { run: Some(open), instead: String::new(), landed: false });
        }
        let landing = self.landing_run(run, target, tip, theirs, principal).await?;
        if let Some(director) = self.director() {
            // The merge must outlive a gc of the user's while somebody decides about it.
            let hub = self.hub.clone();
            let key = AttemptKey { run: landing.id.clone(), epoch: 0, phase: PhaseId::new("land")?, attempt: 0 };
            run_blocking(move || hub.keep_alive(director.token, &key, tree)).await?;
        }
        let mut tx = self.store.tx(&[]).await?;
        submit::insert_run(tx.as_mut(), &landing, Some((tip, tree))).await?;
        tx.commit().await?;
        Ok(pb::LandResponse {
            run: Some(self.show_run(landing.id.as_str()).await?),
            instead: String::new(),
            landed: false,
        })
    }

    /// A landing of the same two commits that has not ended: landing again goes on with it.
    async fn open_landing(&self, run: &Run, tip: Oid, theirs: Oid) -> Result<Option<pb::Run>, Error> {
        let mut tx = self.store.read().await?;
        let states = RunState::ALL.iter().copied().filter(|s| !s.is_terminal()).collect();
        let live = tx.runs(&RunFilter { project: Some(self.project.clone()), states, limit: 0 }).await?;
        drop(tx);
        let same = live
            .iter()
            .find(|r| r.lands.as_ref() == Some(&run.id) && r.fork_commit == tip && r.lands_tip == Some(theirs));
        match same {
            Some(open) => Ok(Some(self.show_run(open.id.as_str()).await?)),
            None => Ok(None),
        }
    }

    async fn note_landing(&self, run: &Run, op: &str, target: &str, principal: &Principal) -> Result<(), Error> {
        let mut tx = self.store.tx(&[]).await?;
        note(
            tx.as_mut(),
            Note {
                actor: principal,
                run: &run.id,
                phase: None,
                op: op.to_owned(),
                object: "run",
                id: run.id.to_string(),
                moved: None,
                digests: BTreeMap::from([("fork".to_owned(), run.fork_commit.to_string())]),
                reason: target.to_owned(),
                text: Some(format!("{op} on {target} by {}", principal.id)),
            },
        )
        .await?;
        Ok(tx.commit().await?)
    }

    async fn landing_run(
        &self,
        run: &Run,
        target: &str,
        tip: Oid,
        theirs: Oid,
        principal: &Principal,
    ) -> Result<Run, Error> {
        let policy = self.book.at(tip, run.file.anchor.as_deref()).await?;
        let id = RunId::new(format!("land-{}", self.ids.short()))?;
        let phase = PhaseSpec {
            id: PhaseId::new("land")?,
            goal: format!("land {} on {target}", run.id),
            scope: ScopeSpec::default(),
            deliverables: Vec::new(),
            symbols: Vec::new(),
            category: None,
            claimed_risk: None,
            depends_on: Vec::new(),
            builder: BuilderSpec::Landing { run: run.id.clone() },
            gate: Vec::new(),
            max_attempts: 1,
            timeout: 60,
            must_change: false,
        };
        let now = self.clock.wall();
        Ok(Run {
            id: id.clone(),
            kind: RunKind::Landing,
            state: RunState::Created,
            version: 0,
            fork_commit: tip,
            target_ref: Some(target.to_owned()),
            branch: RefName::landing(&id).to_string(),
            policy_digest: policy.policy_digest,
            anchor_digest: policy.anchor_digest,
            anchor: policy.anchor.clone(),
            plan_digest: None,
            registered: self.book.registered().await?,
            lands: Some(run.id.clone()),
            lands_tip: Some(theirs),
            file: RunFile { run_id: Some(id), phases: vec![phase], ..run.file.clone() },
            author: principal.clone(),
            pause_requested: false,
            trace: context::current(),
            reason: None,
            checkout: None,
            created_at: now,
            updated_at: now,
            ..run.clone()
        })
    }
}

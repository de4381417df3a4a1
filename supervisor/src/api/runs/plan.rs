//! Plans and autopilot: the pure functions over what a scan found, and a run made of them.

use autopack_shared::domain::ids::{Digest, RunId};
use autopack_shared::domain::plan::{PlanProposalV1, ProposeOptions, propose, work_of};
use autopack_shared::domain::record::{Principal, Run};
use autopack_shared::domain::run_file::{RunFile, RunLimits};
use autopack_shared::domain::state::RunState;
use autopack_shared::wire::pb;

use super::survey::{Found, json};
use crate::api::Core;
use crate::coordination::Coordinator;
use crate::error::Error;
use crate::store::RunFilter;

impl Core {
    /// What would be done about what is wrong at a commit.
    pub(super) async fn plan(
        &self,
        alive: &dyn Coordinator,
        call: &pb::SurveyRequest,
    ) -> Result<pb::PlanResponse, Error> {
        let found = self.survey(alive, call).await?;
        let plan = self.plan_for(&found, &found.run)?;
        told(found, &plan)
    }

    /// The same as a run.
    pub(super) async fn autopilot(
        &self,
        alive: &dyn Coordinator,
        call: pb::AutopilotRequest,
        principal: &Principal,
    ) -> Result<pb::AutopilotResponse, Error> {
        let mut ask = call.survey.clone().unwrap_or_default();
        let limits: RunLimits = match call.limits_json.as_str() {
            "" => RunLimits::default(),
            text => serde_json::from_str(text)
                .map_err(|e| Error::Invalid { field: "limits".to_owned(), why: e.to_string() })?,
        };
        let known = if call.enable && call.named { self.known(&ask.run_id).await? } else { None };
        if let Some(run) = &known {
            // What it was made of is found again from the commit it was made from.
            ask.at = run.fork_commit.to_string();
        }
        let found = self.survey(alive, &ask).await?;
        let mut plan = self.plan_for(&found, &found.run)?;
        if !call.enable {
            return Ok(pb::AutopilotResponse { plan: Some(told(found, &plan)?), run: None, created: false });
        }
        let going_on = match known {
            Some(run) => is_of(&run, &plan)?.then_some(run),
            None if call.named => None,
            None => self.unfinished(&found).await?,
        };
        if let Some(run) = going_on {
            plan = self.plan_for(&found, &run.id)?;
            let run = Some(self.show_run(run.id.as_str()).await?);
            return Ok(pb::AutopilotResponse { plan: Some(told(found, &plan)?), run, created: false });
        }
        let Some(file) = work_of(&found.run, &plan, limits).file else {
            return Ok(pb::AutopilotResponse { plan: Some(told(found, &plan)?), run: None, created: false });
        };
        let file = RunFile { target_ref: found.target.clone(), ..file };
        let submit = pb::SubmitRequest {
            idempotency_key: call.idempotency_key,
            run_file_json: json(&file)?,
            plan_digest: digest(&plan)?.to_string(),
            insecure_no_sandbox: call.insecure_no_sandbox,
            fork_commit: found.commit.to_string(),
        };
        let made = self.submit(submit, principal).await?;
        Ok(pb::AutopilotResponse { plan: Some(told(found, &plan)?), run: made.run, created: made.created })
    }

    fn plan_for(&self, found: &Found, run: &RunId) -> Result<PlanProposalV1, Error> {
        let anchor = found.anchor.as_ref().ok_or_else(|| Error::Forbidden {
            reason: "anchor_required",
            why: format!("the project {} has no anchor: nobody said what may be changed there", self.project),
        })?;
        let config = &found.policy.config;
        let options = ProposeOptions { now: self.clock.wall(), builders: &config.builders, first_build: false };
        let mut report = found.report.clone();
        report.run_id = run.to_string();
        Ok(propose(&report, anchor, &config.policy, &options))
    }

    /// The run of this project that has a name.
    async fn known(&self, name: &str) -> Result<Option<Run>, Error> {
        let run = self.store.read().await?.run(&RunId::new(name)?).await?;
        Ok(run.filter(|run| run.project == self.project && run.plan_digest.is_some()))
    }

    /// A run that has not ended and whose plan is the same, but for its name.
    async fn unfinished(&self, found: &Found) -> Result<Option<Run>, Error> {
        let states = RunState::ALL.iter().copied().filter(|state| !state.is_terminal()).collect();
        let filter = RunFilter { project: Some(self.project.clone()), states, limit: 0 };
        let runs = self.store.read().await?.runs(&filter).await?;
        for run in runs {
            if run.fork_commit == found.commit && is_of(&run, &self.plan_for(found, &run.id)?)? {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }
}

/// Whether a run was made of a plan.
fn is_of(run: &Run, plan: &PlanProposalV1) -> Result<bool, Error> {
    Ok(run.plan_digest == Some(digest(plan)?))
}

fn digest(plan: &PlanProposalV1) -> Result<Digest, Error> {
    plan.digest().map_err(|e| Error::Bug(e.to_string()))
}

fn told(found: Found, plan: &PlanProposalV1) -> Result<pb::PlanResponse, Error> {
    let mut report = found.report;
    report.run_id.clone_from(&plan.run_id);
    Ok(pb::PlanResponse {
        commit: found.commit.to_string(),
        report_json: json(&report)?,
        plan_json: json(plan)?,
        anchor_json: found.anchor.as_ref().map(json).transpose()?.unwrap_or_default(),
        warnings: found.warnings,
    })
}

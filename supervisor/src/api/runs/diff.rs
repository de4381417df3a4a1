//! What a run changed, as a diff, and the save points it can go back to.

use autopack_shared::domain::ids::{Oid, PhaseId};
use autopack_shared::domain::record::{Apply, ApplyKind, Run};
use autopack_shared::wire::pb;

use crate::api::{Core, show};
use crate::director::run_blocking;
use crate::error::Error;
use crate::hub::{HubRead as _, RefName};
use crate::store::{RunFilter, Tx};

impl Core {
    /// The change that a call asks for.
    pub(super) async fn diff(&self, call: &pb::DiffRequest) -> Result<pb::DiffResponse, Error> {
        let mut tx = self.store.read().await?;
        let run = self.run(tx.as_mut(), &call.run_id).await?;
        let phase = if call.phase_id.is_empty() { None } else { Some(PhaseId::new(call.phase_id.clone())?) };
        if call.from_attempt > 0 || call.to_attempt > 0 {
            let (from, to) = attempts(tx.as_mut(), &run, phase, (call.from_attempt, call.to_attempt)).await?;
            drop(tx);
            let hub = self.hub.clone();
            let (diff, truncated) = run_blocking(move || show::interdiff(hub.as_ref(), from, to)).await?;
            return Ok(pb::DiffResponse { base: from.to_string(), tree: to.to_string(), diff, truncated });
        }
        let (base, tree) = if call.since_save_point {
            let points = self.points_of(tx.as_mut(), &run).await?;
            // A phase that was applied more than once goes back to its newest save point.
            let point = match &phase {
                Some(phase) => points.into_iter().rev().find(|(_, _, apply)| apply.phase == *phase),
                None => points.into_iter().next(),
            };
            let of = phase.as_ref().map_or_else(|| run.id.to_string(), |phase| format!("{}/{phase}", run.id));
            let (commit, ..) = point.ok_or(Error::NotFound { what: "save point of", id: of })?;
            (commit, self.tip_tree(&run).await?)
        } else if let Some(id) = phase {
            let missing = |what| Error::NotFound { what, id: format!("{}/{id}", run.id) };
            let phase = tx.phase(&run.id, &id).await?.ok_or_else(|| missing("phase"))?;
            phase.base.zip(phase.tree).ok_or_else(|| missing("change of phase"))?
        } else {
            (run.fork_commit, self.tip_tree(&run).await?)
        };
        drop(tx);
        let hub = self.hub.clone();
        let (diff, truncated) = run_blocking(move || show::diff(hub.as_ref(), base, tree)).await?;
        Ok(pb::DiffResponse { base: base.to_string(), tree: tree.to_string(), diff, truncated })
    }

    async fn tip_tree(&self, run: &Run) -> Result<Oid, Error> {
        let tip = self.tip(run).await?.unwrap_or(run.fork_commit);
        let hub = self.hub.clone();
        run_blocking(move || hub.tree_of(tip)).await
    }

    /// Save points of one run, or of all.
    pub(super) async fn save_points(&self, run: &str) -> Result<pb::SavePointsResponse, Error> {
        let mut tx = self.store.read().await?;
        let runs = if run.is_empty() {
            tx.runs(&RunFilter { project: Some(self.project.clone()), ..RunFilter::default() }).await?
        } else {
            vec![self.run(tx.as_mut(), run).await?]
        };
        let mut save_points = Vec::new();
        for run in runs {
            for (commit, name, apply) in self.points_of(tx.as_mut(), &run).await? {
                save_points.push(pb::SavePoint {
                    run_id: run.id.to_string(),
                    phase_id: apply.phase.to_string(),
                    attempt: apply.attempt,
                    r#ref: name.to_string(),
                    commit: commit.to_string(),
                });
            }
        }
        Ok(pb::SavePointsResponse { save_points })
    }

    /// A run's save points in the order of their applies.
    async fn points_of(&self, tx: &mut dyn Tx, run: &Run) -> Result<Vec<(Oid, RefName, Apply)>, Error> {
        let mut points = Vec::new();
        for apply in tx.applies(&run.id).await?.into_iter().filter(|a| a.kind == ApplyKind::Patch) {
            let name = RefName::save(&run.id, &apply.phase, apply.attempt);
            let (hub, at) = (self.hub.clone(), name.clone());
            if let Some(commit) = run_blocking(move || hub.tip(&at)).await? {
                points.push((commit, name, apply));
            }
        }
        Ok(points)
    }
}

/// What two attempts of a phase left. Without a phase it is the only one of its run.
async fn attempts(
    tx: &mut dyn Tx,
    run: &Run,
    phase: Option<PhaseId>,
    (from, to): (u32, u32),
) -> Result<(Oid, Oid), Error> {
    let phase = match (phase, tx.phases(&run.id).await?.as_slice()) {
        (Some(phase), _) => phase,
        (None, [only]) => only.id.clone(),
        (None, _) => {
            let why = "name the phase whose attempts are meant".to_owned();
            return Err(Error::Invalid { field: "phase".to_owned(), why });
        }
    };
    let mut trees = [Oid::ZERO; 2];
    for (tree, number) in trees.iter_mut().zip([from, to]) {
        let id = format!("{}/{phase} attempt {number}", run.id);
        let attempt = tx.attempt(&run.id, &phase, number).await?;
        let attempt = attempt.ok_or_else(|| Error::NotFound { what: "attempt", id: id.clone() })?;
        *tree = attempt.result_tree.ok_or(Error::NotFound { what: "result of", id })?;
    }
    Ok((trees[0], trees[1]))
}

//! What a single grant is made of: the commit it starts from, its lease, and what follows when it is held
//! (`coordination.md` 3.5). The worker hears of it from its session, which looks for leases of its own.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::ROW;
use autopack_shared::domain::ids::{Oid, PhaseId, RowId, WorkerId};
use autopack_shared::domain::record::{Attempt, Lease, LeasePurpose, Phase, Principal, Run};
use autopack_shared::domain::state::{AttemptEvent, AttemptState, LeaseEvent, LeaseState, PhaseEvent, RunEvent};

use super::moves::{self, Note, note, pin};
use super::view::RunView;
use super::{Director, ref_of};
use crate::error::Error;
use crate::hub::HubRead as _;
use crate::store::Tx;

impl Director {
    /// The commit that a phase starts from; none when it was moved instead, because it can never start.
    pub(super) async fn startable(
        &self,
        view: &RunView,
        phase: &PhaseId,
        purpose: LeasePurpose,
    ) -> Result<Option<Oid>, Error> {
        let policy = self.policy_of(&view.run).await?;
        let declared = view.phase(phase).map(|p| p.spec.scope.paths.clone()).unwrap_or_default();
        if let (LeasePurpose::Build, Some(paths)) = (purpose, policy.forbidden_scope(&declared)) {
            let reason = format!("its whole scope is never to be changed ({paths}): retry it with another scope");
            self.move_phase(view, phase, PhaseEvent::ScopeForbidden, Some(reason)).await?;
            return Ok(None);
        }
        let (hub, branch) = (self.hub.clone(), ref_of(&view.run));
        if purpose == LeasePurpose::Verify {
            return self.verifiable(view, phase).await;
        }
        let tip = self.blocking(move || hub.tip(&branch)).await?;
        if tip.is_none() {
            let reason = Some(format!("its branch {} was deleted", view.run.branch));
            self.move_phase(view, phase, PhaseEvent::Exhaust, reason).await?;
        }
        Ok(tip)
    }

    /// The commit that was applied: the gate judges it and nothing else. What the branch no longer has cannot pass.
    async fn verifiable(&self, view: &RunView, phase: &PhaseId) -> Result<Option<Oid>, Error> {
        let applied = view.phase(phase).and_then(|p| view.apply_of(p)).map(|apply| apply.new);
        let Some(applied) = applied else { return Err(Error::Bug(format!("{phase} is verified without an apply"))) };
        if self.is_on_branch(view, applied).await? {
            return Ok(Some(applied));
        }
        let reason = Some(format!("{} no longer has its commit {}", view.run.branch, applied.short()));
        self.move_phase(view, phase, PhaseEvent::RollBack, reason).await?;
        Ok(None)
    }

    /// Whether the run's branch still has a commit.
    pub(super) async fn is_on_branch(&self, view: &RunView, commit: Oid) -> Result<bool, Error> {
        let (hub, branch) = (self.hub.clone(), ref_of(&view.run));
        self.blocking(move || match hub.tip(&branch)? {
            Some(tip) => Ok(hub.has(commit)? && hub.is_ancestor(commit, tip)?),
            None => Ok(false),
        })
        .await
    }

    /// A lease that is being granted.
    pub(super) fn lease(
        &self,
        phase: &Phase,
        run: &Run,
        purpose: LeasePurpose,
        (worker, session): (&WorkerId, &str),
        (epoch, ws_epoch): (u64, u64),
    ) -> Result<Lease, Error> {
        Ok(Lease {
            id: RowId::new(self.ids.fresh("lease"))?,
            run: run.id.clone(),
            project: run.project.clone(),
            phase: phase.id.clone(),
            purpose,
            attempt: if purpose == LeasePurpose::Build { phase.attempt + 1 } else { phase.attempt },
            worker: worker.clone(),
            session: session.to_owned(),
            epoch,
            ws_epoch,
            state: LeaseState::Granting,
            version: 0,
            trace: None,
            granted_at: self.clock.wall(),
            ended_at: None,
            reason: None,
        })
    }

    /// Says that a lease is held, and what follows for its run and its phase.
    pub(super) async fn hold(
        &self,
        tx: &mut dyn Tx,
        run: &mut Run,
        phase: &mut Phase,
        lease: &mut Lease,
        base: Oid,
    ) -> Result<(), Error> {
        let system = Principal::system();
        moves::lease(tx, lease, LeaseEvent::Hold, None, &system).await?;
        moves::run(tx, run, RunEvent::Grant, None, &system).await?;
        if lease.purpose == LeasePurpose::Verify {
            return Ok(());
        }
        phase.attempt = lease.attempt;
        phase.base = Some(base);
        phase.tree = None;
        phase.decision = None;
        phase.request = None;
        phase.apply = None;
        phase.carry = None;
        phase.budget.short = None;
        moves::phase(
            tx,
            phase,
            PhaseEvent::Start,
            Some(format!("attempt {} on {}", lease.attempt, lease.worker)),
            &system,
        )
        .await?;
        let mut attempt = Attempt {
            run: run.id.clone(),
            phase: phase.id.clone(),
            number: lease.attempt,
            epoch: lease.epoch,
            state: AttemptState::Created,
            version: 0,
            base,
            result_tree: None,
            notes: Vec::new(),
            transcript: None,
            gate: None,
            reason: None,
            started_at: tx.now(),
            ended_at: None,
        };
        tx.insert_attempt(&attempt).await?;
        moves::attempt(tx, &mut attempt, AttemptEvent::Start, None).await
    }
}

/// Logs a lease that is being granted.
pub(super) async fn note_granting(tx: &mut dyn Tx, lease: &Lease) -> Result<(), Error> {
    note(
        tx,
        Note {
            actor: &Principal::system(),
            run: &lease.run,
            phase: Some(&lease.phase),
            op: "lease.granting".to_owned(),
            object: "lease",
            id: lease.id.to_string(),
            moved: None,
            digests: BTreeMap::from([("epoch".to_owned(), lease.epoch.to_string()), (ROW.to_owned(), pin(lease)?)]),
            reason: format!("{:?} for {}", lease.purpose, lease.worker).to_lowercase(),
            text: None,
        },
    )
    .await
}

/// The run as it is in this transaction, which holds it from here on.
pub(super) async fn reread_run(tx: &mut dyn Tx, run: &Run) -> Result<Run, Error> {
    let found = tx.gather(&[(run.id.clone(), None)]).await?.pop().and_then(|found| found.run);
    found.ok_or_else(|| Error::NotFound { what: "run", id: run.id.to_string() })
}

/// The phase as it is in this transaction, which holds its run from here on.
pub(super) async fn reread_phase(tx: &mut dyn Tx, run: &Run, id: &PhaseId) -> Result<Phase, Error> {
    let found = tx.gather(&[(run.id.clone(), Some(id.clone()))]).await?.pop().and_then(|found| found.phase);
    found.ok_or_else(|| Error::NotFound { what: "phase", id: format!("{}/{id}", run.id) })
}

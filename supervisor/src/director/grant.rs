//! Grants: the gate, the fences and the lease in one transaction; then the locks; then the worker
//! (`coordination.md` 3.5). The worker hears of it from its session, which looks for leases of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::{Instrument as _, Span};

use autopack_shared::domain::audit::ROW;
use autopack_shared::domain::ids::{Fence, Oid, PhaseId, RowId, Scope, WorkerId};
use autopack_shared::domain::parallelism::{self, AnchorState, GateInput, RunsRequest, ScopeOverlap};
use autopack_shared::domain::record::{Attempt, Lease, LeasePurpose, Phase, Principal, Run};
use autopack_shared::domain::state::{AttemptEvent, AttemptState, LeaseEvent, LeaseState, PhaseEvent, RunEvent};
use autopack_shared::runtime::telemetry::context;
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::locks::unlock;
use super::moves::{self, Note, note, pin};
use super::view::RunView;
use super::{Denial, Director, ref_of, trace};
use crate::coordination::SessionEntry;
use crate::error::Error;
use crate::hub::HubRead as _;
use crate::store::Tx;

impl Director {
    /// Finds a worker for a phase; false when the run has to wait, which is remembered for `runs explain`.
    pub(super) async fn grant(&self, view: &RunView, phase: &PhaseId, purpose: LeasePurpose) -> Result<bool, Error> {
        if self.pauses().holds(&view.run.id, self.clock.monotonic()) {
            return Ok(false);
        }
        let began = self.clock.monotonic();
        let Some(base) = self.startable(view, phase, purpose).await? else { return Ok(true) };
        let data = self.needs_data(view, phase, purpose).await?;
        if data && let Some(denial) = self.data_denied(view).await {
            self.deny(&view.run.id, denial);
            return Ok(false);
        }
        let mut tx = self.fenced(&[]).await?;
        tx.lock_gate(&view.run.project).await?;
        let active = tx.active_leases(Some(&view.run.project)).await?;
        if let Some(denial) = self.gate(tx.as_mut(), view, phase, purpose, &active).await? {
            self.deny(&view.run.id, denial);
            return Ok(false);
        }
        let sessions = self.coordinator.sessions().await?;
        let taken = tx.active_leases(None).await?;
        let Some((worker, session)) = with_room(&sessions, &taken) else {
            self.deny(&view.run.id, Denial::new("no_slot", full(&sessions), "a worker that becomes free"));
            return Ok(false);
        };
        let span = trace::grant(view, phase, purpose);
        let given = self.give(tx, view, (phase, purpose, base), (worker, session), data).instrument(span.clone()).await;
        match &given {
            Ok(Some(waited)) => {
                let took = self.clock.monotonic().saturating_sub(began);
                metrics().granted(&format!("{purpose:?}").to_lowercase(), *waited, took);
            }
            Ok(None) => {}
            Err(_) => {
                span.record("otel.status_code", "ERROR");
            }
        }
        Ok(given?.is_some())
    }

    /// Gives a phase to a worker that has room; how long its run waited, or none when it has to go on waiting.
    async fn give(
        &self,
        mut tx: Box<dyn Tx>,
        view: &RunView,
        (phase, purpose, base): (&PhaseId, LeasePurpose, Oid),
        (worker, session): (WorkerId, String),
        data: bool,
    ) -> Result<Option<Duration>, Error> {
        let mut run = reread_run(tx.as_mut(), &view.run).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, phase).await?;
        let queued_at = run.updated_at;
        let epoch = moves::bump(tx.as_mut(), &Scope::Run(run.id.clone()), worker.as_str()).await?;
        let ws_epoch = moves::bump(tx.as_mut(), &Scope::Workspace(run.id.clone()), worker.as_str()).await?;
        let mut lease = self.lease(&phase, &run, purpose, (&worker, &session), (epoch, ws_epoch))?;
        lease.granted_at = tx.now();
        lease.trace = context::current();
        let waited = Duration::from_millis(u64::try_from(lease.granted_at.millis_since(queued_at)).unwrap_or(0));
        Span::current().record("epoch", epoch).record("worker", worker.as_str());
        tx.insert_lease(&lease).await?;
        note_granting(tx.as_mut(), &lease).await?;
        tx.commit().await?;

        let ready = match self.lock(&lease).await {
            Ok(()) if data => self.give_data(&run, epoch).await.map_err(|denial| (denial, true)),
            Ok(()) => Ok(()),
            Err(error) => Err((Denial::new("run_locked", &error.to_string(), "the end of that process"), false)),
        };
        let mut tx = self.fenced(&[Fence { scope: Scope::Run(run.id.clone()), epoch }]).await?;
        if let Err((denial, locked)) = ready {
            let why = Some(denial.what.clone());
            moves::lease(tx.as_mut(), &mut lease, LeaseEvent::Revoke, why, &Principal::system()).await?;
            tx.commit().await?;
            if locked {
                unlock(self.coordinator.as_ref(), &lease).await;
            }
            self.pauses().failed(&run.id, self.clock.monotonic());
            self.deny(&run.id, denial);
            return Ok(None);
        }
        self.hold(tx.as_mut(), &mut run, &mut phase, &mut lease, base).await?;
        tx.commit().await?;
        self.pauses().forget(&run.id);
        self.allow(&run.id);
        tracing::info!(run = %run.id, phase = %phase.id, %worker, epoch, "granted");
        Ok(Some(waited))
    }

    /// The commit that a phase starts from; none when it was moved instead, because it can never start.
    async fn startable(&self, view: &RunView, phase: &PhaseId, purpose: LeasePurpose) -> Result<Option<Oid>, Error> {
        let policy = self.policy_of(&view.run).await?;
        let declared = view.phase(phase).map(|p| p.spec.scope.paths.clone()).unwrap_or_default();
        if let (LeasePurpose::Build, Some(paths)) = (purpose, policy.forbidden_scope(&declared)) {
            let reason = format!("its whole scope is never to be changed ({paths}): retry it with another scope");
            self.move_phase(view, phase, PhaseEvent::ScopeForbidden, Some(reason)).await?;
            return Ok(None);
        }
        if purpose == LeasePurpose::Build
            && let Some(reason) = self.out_of_seconds(view).await?
        {
            self.move_phase(view, phase, PhaseEvent::Exhaust, Some(reason)).await?;
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

    fn lease(
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

    /// The gate, counted inside the grant's transaction, and the scopes of those who work now.
    async fn gate(
        &self,
        tx: &mut dyn Tx,
        view: &RunView,
        phase: &PhaseId,
        purpose: LeasePurpose,
        active: &[Lease],
    ) -> Result<Option<Denial>, Error> {
        let mut anchors = vec![view.run.anchor.clone()];
        let mut others: Vec<(Lease, Phase)> = Vec::new();
        for lease in active {
            if let Some(run) = tx.run(&lease.run).await? {
                anchors.push(run.anchor);
            }
            if let Some(phase) = tx.phase(&lease.run, &lease.phase).await? {
                others.push((lease.clone(), phase));
            }
        }
        // The strictest anchor of all that are active holds: each must allow one more.
        for anchor in &anchors {
            let decision = parallelism::decide(&GateInput {
                anchor: anchor.as_ref().map_or(AnchorState::Absent, AnchorState::Present),
                runs: RunsRequest::Count(1),
                workers: 1,
                active: i64::try_from(active.len()).unwrap_or(i64::MAX),
            });
            if !decision.allow {
                let what = format!(
                    "{}: {} runs of this project would hold a lease",
                    decision.reason.as_str(),
                    decision.effective
                );
                let remedy = "the end of a lease, or an anchor that allows more at once";
                return Ok(Some(Denial::new(decision.reason.as_str(), &what, remedy)));
            }
        }
        if purpose == LeasePurpose::Verify {
            return Ok(None);
        }
        let Some(mine) = view.phase(phase) else { return Ok(None) };
        let mine = super::scope_of(mine);
        for (lease, other) in others.iter().filter(|(lease, _)| lease.purpose == LeasePurpose::Build) {
            let Some(overlap) = parallelism::scopes_overlap(&mine, &super::scope_of(other)) else { continue };
            let what = match overlap {
                ScopeOverlap::NoScope => format!("it or {} declares no scope, which overlaps everything", lease.run),
                ScopeOverlap::Paths { first, second } => format!("its {first} overlaps {second} of {}", lease.run),
            };
            return Ok(Some(Denial::new("scope_overlap", &what, "the end of that lease")));
        }
        Ok(None)
    }

    async fn hold(
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
            reason: None,
            started_at: tx.now(),
            ended_at: None,
        };
        tx.insert_attempt(&attempt).await?;
        moves::attempt(tx, &mut attempt, AttemptEvent::Start, None).await
    }
}

/// The live session with the most free slots.
fn with_room(sessions: &[SessionEntry], active: &[Lease]) -> Option<(WorkerId, String)> {
    let used = |worker: &WorkerId| active.iter().filter(|l| l.worker == *worker).count();
    let free = |s: &SessionEntry| i64::from(s.facts.slots) - i64::try_from(used(&s.worker)).unwrap_or(i64::MAX);
    let roomy = sessions.iter().filter(|s| !s.draining).map(|s| (free(s), s)).filter(|(free, _)| *free > 0);
    roomy.max_by_key(|(free, _)| *free).map(|(_, s)| (s.worker.clone(), s.session.clone()))
}

/// Why nobody has room.
fn full(sessions: &[SessionEntry]) -> &'static str {
    match sessions {
        [] => "no worker is connected",
        all if all.iter().all(|s| s.draining) => "every worker that is connected is draining",
        _ => "every worker slot is taken",
    }
}

async fn note_granting(tx: &mut dyn Tx, lease: &Lease) -> Result<(), Error> {
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

/// The run as it is in this transaction.
pub(super) async fn reread_run(tx: &mut dyn Tx, run: &Run) -> Result<Run, Error> {
    tx.run(&run.id).await?.ok_or_else(|| Error::NotFound { what: "run", id: run.id.to_string() })
}

/// The phase as it is in this transaction.
pub(super) async fn reread_phase(tx: &mut dyn Tx, run: &Run, id: &PhaseId) -> Result<Phase, Error> {
    tx.phase(&run.id, id).await?.ok_or_else(|| Error::NotFound { what: "phase", id: format!("{}/{id}", run.id) })
}

//! Performs one step.

use tracing::Instrument as _;

use autopack_shared::domain::feedback::{self, FeedbackKind, Told};
use autopack_shared::domain::ids::{PhaseId, RequestId};
use autopack_shared::domain::state::{
    AttemptEvent, LeaseEvent, PhaseEvent, PhaseState, RequestEvent, RequestState, RunEvent,
};
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::grant::{reread_phase, reread_run};
use super::next::Step;
use super::view::RunView;
use super::{Director, moves, ref_of, system};
use crate::error::Error;
use crate::hub::{CasOutcome, HubError};
use crate::store::RequestFilter;

impl Director {
    /// Performs a step; false when the run has to wait for something outside.
    pub(super) async fn perform(&self, view: &RunView, step: Step) -> Result<bool, Error> {
        let span = self.span_of(view, &step);
        let done = self.take(view, step).instrument(span.clone()).await;
        if done.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        done
    }

    async fn take(&self, view: &RunView, step: Step) -> Result<bool, Error> {
        match step {
            Step::Obey(command) => self.obey(view, &command).await.map(|()| true),
            Step::Validate => self.validate(view).await.map(|()| true),
            Step::Revoke(reason) => {
                if let Some(lease) = &view.lease {
                    self.revoke(lease, LeaseEvent::Revoke, reason).await?;
                }
                Ok(true)
            }
            Step::Move(phase, event, reason) => self.move_phase(view, &phase, event, reason).await.map(|()| true),
            Step::MoveRun(event, reason) => self.move_run(view, event, reason).await.map(|()| true),
            Step::Judge(phase) => self.judge(view, &phase).await.map(|()| true),
            Step::Rebase(phase) => self.rebase(view, &phase).await.map(|()| true),
            Step::Expire(request) => self.expire(&request).await.map(|()| true),
            Step::Settle(phase) => self.settle(view, &phase).await.map(|()| true),
            Step::Prepare(phase) => self.prepare(view, &phase).await.map(|()| true),
            Step::PrepareRevert(phase) => self.prepare_revert(view, &phase).await,
            Step::Drive(apply) => self.drive(view, &apply).await.map(|()| true),
            Step::Land => self.land_target(view).await,
            // Given together with others, when all have been looked at.
            Step::Grant(..) => Ok(false),
        }
    }

    /// Creates the run's branch at its fork commit and queues it.
    async fn validate(&self, view: &RunView) -> Result<(), Error> {
        let (hub, token, fork) = (self.hub.clone(), self.token, view.run.fork_commit);
        let branch = ref_of(&view.run);
        let made = self.blocking(move || hub.cas_ref(token, &branch, None, fork, "autopack: run created")).await;
        let made = match made {
            Err(Error::Hub(error @ HubError::Collides { .. })) => Err(error.to_string()),
            made => Ok(made?),
        };
        let mut tx = self.turn(&view.run.id, None).await?;
        let mut run = reread_run(tx.as_mut(), &view.run).await?;
        match made {
            Err(why) => moves::run(tx.as_mut(), &mut run, RunEvent::Fail, Some(why), &system()).await?,
            Ok(CasOutcome::Applied | CasOutcome::Already) => {
                moves::run(tx.as_mut(), &mut run, RunEvent::Validate, None, &system()).await?
            }
            Ok(CasOutcome::Moved { tip }) => {
                let tip = tip.map_or_else(String::new, |t| t.short());
                let reason = format!("{} is there already, at {tip}: use another run id", run.branch);
                moves::run(tx.as_mut(), &mut run, RunEvent::Fail, Some(reason), &system()).await?;
            }
        }
        Ok(tx.commit().await?)
    }

    pub(super) async fn move_phase(
        &self,
        view: &RunView,
        id: &PhaseId,
        event: PhaseEvent,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let mut tx = self.turn(&view.run.id, Some(id)).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        match event {
            PhaseEvent::Pass => moves::end_attempt(tx.as_mut(), &phase, AttemptEvent::Succeed, None).await?,
            PhaseEvent::Cancel => {
                moves::end_attempt(tx.as_mut(), &phase, AttemptEvent::Fail, reason.clone()).await?;
                if let Some(id) = &phase.request
                    && let Some(mut request) = tx.request(id).await?
                    && request.state.next(RequestEvent::Cancel).is_ok()
                {
                    request.decided_at = Some(tx.now());
                    moves::request(tx.as_mut(), &mut request, RequestEvent::Cancel, reason.clone(), &system()).await?;
                }
            }
            PhaseEvent::Start
            | PhaseEvent::ScopeForbidden
            | PhaseEvent::DependencyFailed
            | PhaseEvent::Collect
            | PhaseEvent::Retry
            | PhaseEvent::Exhaust
            | PhaseEvent::Judge
            | PhaseEvent::AutoApprove
            | PhaseEvent::Notify
            | PhaseEvent::AskApproval
            | PhaseEvent::Block
            | PhaseEvent::NoChange
            | PhaseEvent::Approve
            | PhaseEvent::Stale
            | PhaseEvent::Rebased
            | PhaseEvent::Prepare
            | PhaseEvent::Commit
            | PhaseEvent::RollBack
            | PhaseEvent::RolledBack => {}
        }
        moves::phase(tx.as_mut(), &mut phase, event, reason, &system()).await?;
        Ok(tx.commit().await?)
    }

    async fn move_run(&self, view: &RunView, event: RunEvent, reason: Option<String>) -> Result<(), Error> {
        let mut tx = self.turn(&view.run.id, None).await?;
        let mut run = reread_run(tx.as_mut(), &view.run).await?;
        moves::run(tx.as_mut(), &mut run, event, reason, &system()).await?;
        tx.commit().await?;
        self.allow(&view.run.id);
        Ok(())
    }

    /// Ends every request whose time is up, whatever its run is doing.
    pub(super) async fn expire_due(&self) -> Result<(), Error> {
        let mut tx = self.store.read().await?;
        let now = tx.now();
        if tx.next_expiry().await?.is_none_or(|at| at > now) {
            return Ok(());
        }
        let states = vec![RequestState::Pending, RequestState::Approved];
        let due = tx.requests(&RequestFilter { states, ..RequestFilter::default() }).await?;
        drop(tx);
        for request in due.iter().filter(|r| r.expires_at <= now) {
            self.expire(&request.id).await?;
        }
        Ok(())
    }

    /// Ends a request whose time is up: always as a rejection.
    async fn expire(&self, id: &RequestId) -> Result<(), Error> {
        let mut tx = self.fenced(&[]).await?;
        let Some(mut request) = tx.request(id).await? else { return Ok(()) };
        if tx.now() < request.expires_at || request.state.is_terminal() {
            return Ok(());
        }
        let why = if request.state == RequestState::Approved {
            "approved, but not used in time"
        } else {
            "nobody decided in time"
        };
        request.decided_at = Some(tx.now());
        moves::request(tx.as_mut(), &mut request, RequestEvent::TimeOut, Some(why.to_owned()), &system()).await?;
        let waited = request.waited();
        tx.commit().await?;
        tracing::info!(run = %request.run, approval = %id, "request timed out");
        metrics().decided(request.tier, "none", "timed_out", waited);
        Ok(())
    }

    /// Takes a request's outcome to its phase.
    async fn settle(&self, view: &RunView, id: &PhaseId) -> Result<(), Error> {
        let mut tx = self.turn(&view.run.id, Some(id)).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        let Some(request) = (match &phase.request {
            Some(id) => tx.request(id).await?,
            None => None,
        }) else {
            return Ok(());
        };
        let word = request.notes.clone().filter(|n| !n.is_empty());
        let (event, reason) = match request.state {
            RequestState::Approved => (PhaseEvent::Approve, Some(format!("{} approved", request.id))),
            RequestState::Rejected if request.tier == 3 => {
                let code = request.reason_code.clone().unwrap_or_else(|| "rejected".to_owned());
                let told = word.clone().unwrap_or_default();
                let mut comments = told.lines().map(str::to_owned);
                let first = comments.next().unwrap_or_default();
                let told = Told::new(FeedbackKind::Review, request.attempt, &code, &first, comments.collect());
                feedback::add(&mut phase.feedback, told);
                phase.failed_attempts += 1;
                phase.retried = false;
                if phase.failed_attempts < phase.spec.max_attempts {
                    (PhaseEvent::Retry, Some(format!("{} rejected, another attempt follows", request.id)))
                } else {
                    (PhaseEvent::Block, Some(format!("{} rejected, no attempt is left", request.id)))
                }
            }
            RequestState::Rejected => (PhaseEvent::Block, Some(format!("{} rejected", request.id))),
            RequestState::TimedOut => (PhaseEvent::Block, Some(format!("{} timed out", request.id))),
            RequestState::Revoked => (PhaseEvent::Block, Some(format!("{} was revoked", request.id))),
            RequestState::Superseded => (PhaseEvent::Stale, Some(format!("{} was superseded", request.id))),
            RequestState::Cancelled => (PhaseEvent::Block, Some(format!("{} was cancelled", request.id))),
            RequestState::Pending | RequestState::Consumed => return Ok(()),
        };
        if event == PhaseEvent::Retry {
            moves::end_attempt(tx.as_mut(), &phase, AttemptEvent::Fail, reason.clone()).await?;
        }
        if phase.state == PhaseState::Blocked && event == PhaseEvent::Block {
            return Ok(());
        }
        moves::phase(tx.as_mut(), &mut phase, event, reason, &system()).await?;
        Ok(tx.commit().await?)
    }
}

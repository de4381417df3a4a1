//! Why a run stands where it stands: which rule, which holder, since when, and what would free it.

use autopack_shared::domain::budget::{BudgetScope, Hit, Unit};
use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::record::{Checkout, Phase, Run};
use autopack_shared::domain::state::{PhaseState, RequestState, RunState};
use autopack_shared::wire::pb;

use crate::api::Core;
use crate::error::Error;
use crate::store::Tx;

impl Core {
    /// What holds a run up.
    pub(super) async fn explain(&self, id: &str) -> Result<pb::ExplainResponse, Error> {
        let shown = self.show_run(id).await?;
        let mut tx = self.store.read().await?;
        let run = self.run(tx.as_mut(), id).await?;
        let mut blockers = Vec::new();
        let fault = self.fault().filter(|_| !run.state.is_terminal());
        blockers.extend(run_blocker(&run, self.director().is_some() || fault.is_some(), self.mode));
        if let Some(lease) = tx.active_leases(Some(&run.project)).await?.into_iter().find(|l| l.run == run.id) {
            let what = format!("{} works on it, epoch {}", lease.worker, lease.epoch);
            let remedy = format!("its end, or autopack runs cancel {id}");
            blockers.push(pb::Blocker {
                phase_id: lease.phase.to_string(),
                kind: "lease".to_owned(),
                what,
                since_ms: lease.granted_at.as_millis(),
                remedy,
                failed: false,
                until_ms: 0,
            });
        }
        let denied = fault.or_else(|| self.director().and_then(|d| d.denial(&run.id)));
        if shown.rests_until_ms > 0 && denied.as_ref().is_none_or(|denial| denial.until.is_none()) {
            blockers.extend(resting(&run, &shown));
        }
        if let Some(denial) = denied
            && !run.state.is_terminal()
        {
            blockers.push(pb::Blocker {
                phase_id: String::new(),
                kind: denial.rule,
                what: denial.what,
                since_ms: denial.since.as_millis(),
                remedy: denial.remedy,
                failed: denial.failed,
                until_ms: denial.until.map(Timestamp::as_millis).unwrap_or_default(),
            });
        }
        for phase in tx.phases(&run.id).await? {
            blockers.extend(phase_blocker(tx.as_mut(), &phase).await?);
        }
        Ok(pb::ExplainResponse { run: Some(shown), blockers })
    }
}

/// What a run waits for that is over by itself, where nobody who directs is here to say so.
fn resting(run: &Run, shown: &pb::Run) -> Option<pb::Blocker> {
    (run.state == RunState::Queued).then(|| pb::Blocker {
        phase_id: String::new(),
        kind: "resting".to_owned(),
        what: shown.rests.clone(),
        since_ms: run.updated_at.as_millis(),
        remedy: "the end of that time".to_owned(),
        failed: false,
        until_ms: shown.rests_until_ms,
    })
}

/// What a supervisor that does not direct can say, and what to do to hear more.
const ELSEWHERE: &str = "another supervisor directs, or is about to: it knows what is tried";
const ASK: &str = "autopack leases list names it; ask it by --server";

/// What the run as a whole waits for.
fn run_blocker(run: &Run, driven: bool, mode: &str) -> Option<pb::Blocker> {
    let blocker = |kind: &str, what: String, remedy: String| {
        let since_ms = run.updated_at.as_millis();
        Some(pb::Blocker {
            phase_id: String::new(),
            kind: kind.to_owned(),
            what,
            since_ms,
            remedy,
            failed: false,
            until_ms: 0,
        })
    };
    let resume = format!("autopack runs resume {}", run.id);
    if let (RunState::Waiting, Some(Checkout { branch, path, command })) = (run.state, &run.checkout) {
        return blocker("checked_out", format!("{branch} is checked out at {path}"), command.clone());
    }
    match run.state {
        RunState::Paused => {
            let (kind, what, remedy) = paused(run);
            blocker(kind, what, remedy)
        }
        RunState::Cancelling => {
            blocker("cancelling", "it is being cancelled".to_owned(), "the end of its lease".to_owned())
        }
        RunState::Succeeded | RunState::Failed | RunState::Cancelled => {
            blocker("ended", run.reason.clone().unwrap_or_default(), String::new())
        }
        RunState::Created
        | RunState::Queued
        | RunState::Leased
        | RunState::Running
        | RunState::Waiting
        | RunState::Blocked => {
            let what = "no engine is running on this data directory".to_owned();
            match (driven, mode) {
                (true, _) => None,
                (false, "cluster") => blocker("elsewhere", ELSEWHERE.to_owned(), ASK.to_owned()),
                (false, _) => blocker("no_engine", what, resume),
            }
        }
    }
}

/// What a paused run waits for, and what lets it go on.
fn paused(run: &Run) -> (&'static str, String, String) {
    let resume = format!("autopack runs resume {}", run.id);
    let Some(hit) = &run.budget.hit else { return ("paused", "an operator paused it".to_owned(), resume) };
    if run.pause_requested {
        return ("paused", format!("an operator paused it; besides, {hit}"), resume);
    }
    let more = match (hit.scope, hit.until, &hit.phase) {
        (_, Some(until), _) => format!("it goes on by itself at {until}"),
        (BudgetScope::Run, None, _) => format!("autopack runs budget {} --{} N", run.id, flag(hit)),
        (BudgetScope::Phase, None, Some(phase)) => {
            format!("autopack runs budget {} --phase {phase} --{} N", run.id, flag(hit))
        }
        (_, None, _) => format!("a larger bound in the supervisor's [limits], then {resume}"),
    };
    ("budget_exhausted", hit.to_string(), more)
}

/// The flag of `runs budget` that raises a bound.
const fn flag(hit: &Hit) -> &'static str {
    match hit.unit {
        Unit::Tokens => "tokens",
        Unit::CostMicros => "cost",
        Unit::Calls => "calls",
        Unit::Seconds => "seconds",
        Unit::Files => "files",
    }
}

async fn phase_blocker(tx: &mut dyn Tx, phase: &Phase) -> Result<Option<pb::Blocker>, Error> {
    let blocker = |kind: &str, what: String, remedy: String| {
        Some(pb::Blocker {
            phase_id: phase.id.to_string(),
            kind: kind.to_owned(),
            what,
            since_ms: phase.updated_at.as_millis(),
            remedy,
            failed: false,
            until_ms: 0,
        })
    };
    let request = match &phase.request {
        Some(id) => tx.request(id).await?,
        None => None,
    };
    let pending = request.filter(|r| r.state == RequestState::Pending);
    Ok(match (phase.state, pending) {
        (PhaseState::ApprovalPending | PhaseState::Blocked, Some(request)) => blocker(
            "approval",
            format!("tier {}: {} ({})", request.tier, request.id, request.risk_factors.join(" ")),
            format!("autopack approvals show {}", request.id),
        ),
        (PhaseState::Blocked, None) => blocker(
            "blocked",
            phase.reason.clone().unwrap_or_default(),
            format!("autopack runs retry {} --phase {}", phase.run, phase.id),
        ),
        (PhaseState::RollingBack, _) => {
            blocker("rollback", phase.reason.clone().unwrap_or_default(), "its revert commit".to_owned())
        }
        (
            PhaseState::Queued
            | PhaseState::Executing
            | PhaseState::Collected
            | PhaseState::Governance
            | PhaseState::AutoApproved
            | PhaseState::Notified
            | PhaseState::ApprovalPending
            | PhaseState::Approved
            | PhaseState::ReapprovalRequired
            | PhaseState::Applying
            | PhaseState::Verifying
            | PhaseState::Applied
            | PhaseState::RolledBack
            | PhaseState::Failed
            | PhaseState::Cancelled,
            _,
        ) => None,
    })
}

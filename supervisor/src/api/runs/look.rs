//! One run as it stands: its phases, their attempts, what they may use, and whether it waits for nothing but time.

use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::record::{ApplyKind, Phase, Run};
use autopack_shared::domain::state::{ApplyState, PhaseState, RunState};
use autopack_shared::wire::pb;

use crate::api::{Core, show};
use crate::director::breaker;
use crate::director::budget::ledgers;
use crate::error::Error;
use crate::hub::HubError;
use crate::store::Tx;

impl Core {
    pub(super) async fn show_run(&self, id: &str) -> Result<pb::Run, Error> {
        let mut tx = self.store.read().await?;
        let run = self.run(tx.as_mut(), id).await?;
        // A hub that is away keeps nobody from looking at what is stored.
        let tip = match self.tip(&run).await {
            Err(Error::Hub(HubError::Away { .. } | HubError::ServerAway { .. })) => None,
            tip => tip?,
        };
        let mut shown = show::run(&run, tip);
        let applies = tx.applies(&run.id).await?;
        let phases = tx.phases(&run.id).await?;
        for phase in &phases {
            let decision = match &phase.decision {
                Some(id) => tx.decision(id).await?,
                None => None,
            };
            let commit = applies
                .iter()
                .rev()
                .find(|a| a.phase == phase.id && a.kind == ApplyKind::Patch && a.state == ApplyState::Committed)
                .map(|a| a.new);
            let attempts = tx.attempts(&run.id, &phase.id).await?;
            let gate = attempts.iter().rev().find_map(|attempt| attempt.gate.as_ref());
            let mut seen = show::phase(phase, decision.as_ref(), commit, gate);
            let newest = attempts.iter().find(|attempt| attempt.number == phase.attempt);
            seen.transcript = newest.and_then(|a| a.transcript).map(|digest| digest.to_string()).unwrap_or_default();
            if phase.state == PhaseState::Blocked
                && let Some(id) = &phase.request
                && let Some(request) = tx.request(id).await?
                && request.state.is_terminal()
            {
                // A blocked phase does not move when its request ends; what is said of it does.
                seen.reason = format!("{id} {}: {}", request.state, request.notes.unwrap_or_default());
            }
            if run.state == RunState::Blocked && phase.state == PhaseState::Blocked {
                shown.reason = format!("{} is blocked: {}", phase.id, seen.reason);
            }
            for attempt in &attempts {
                let spend = tx.spend(&run.id, attempt.epoch).await?;
                seen.attempts.push(show::attempt(attempt, spend.as_ref()));
            }
            shown.phases.push(seen);
        }
        if let Some((until, why)) = rests(tx.as_mut(), &run, &phases).await? {
            (shown.rests_until_ms, shown.rests) = (until.as_millis(), why);
        }
        let now = tx.now();
        shown.budgets = show::budgets(&ledgers(tx.as_mut(), &run, None, &self.governing.budgets, now).await?, now);
        let undone = shown.phases.iter().filter(|phase| phase.state == "ROLLED_BACK").count();
        if run.state == RunState::Succeeded && undone > 0 {
            // The run ended before it was taken back; its row does not change any more.
            shown.reason = format!("{}; {undone} rolled back since", shown.reason);
        }
        Ok(shown)
    }
}

/// Until when a run waits for nothing but time, and why, by what is stored: whoever drives it need not be here.
pub(super) async fn rests(tx: &mut dyn Tx, run: &Run, phases: &[Phase]) -> Result<Option<(Timestamp, String)>, Error> {
    match run.state {
        RunState::Paused => {
            let hit = run.budget.hit.as_ref();
            Ok(hit.and_then(|hit| Some((hit.until?, hit.to_string()))))
        }
        RunState::Queued => match phases.iter().find(|phase| phase.state == PhaseState::Queued) {
            Some(phase) => breaker::rests(tx, &run.project, &phase.spec.builder).await,
            None => Ok(None),
        },
        RunState::Created
        | RunState::Leased
        | RunState::Running
        | RunState::Waiting
        | RunState::Blocked
        | RunState::Cancelling
        | RunState::Succeeded
        | RunState::Failed
        | RunState::Cancelled => Ok(None),
    }
}

//! The rows of one run, compared with what its chain says of them, in both directions.

use serde::Serialize;

use autopack_shared::domain::audit::{AuditBreak, row_digest};
use autopack_shared::domain::ids::{PhaseId, RunId};
use autopack_shared::domain::state::{ApplyState, LeaseState, PhaseState, RequestState, RunState};

use super::replay::{Replay, vote_id};
use super::{PAGE, semantic};
use crate::store::{RequestFilter, StoreError, StoreResult, Tx};

/// Compares all rows of a run.
pub(super) async fn check(view: &mut dyn Tx, run: &RunId, mut replay: Replay) -> StoreResult<Vec<AuditBreak>> {
    let mut found = Vec::new();
    if let Some(row) = view.run(run).await? {
        found.extend(replay.row(RunState::MACHINE, run.to_string(), row.state.as_str()));
        found.extend(replay.origin(&row));
        for spec in &row.file.phases {
            replay.implied(PhaseState::MACHINE, format!("{run}/{}", spec.id), PhaseState::Queued.as_str());
        }
    }
    for phase in view.phases(run).await? {
        found.extend(replay.row(PhaseState::MACHINE, format!("{run}/{}", phase.id), phase.state.as_str()));
        found.extend(attempts(view, run, &phase.id, phase.attempt).await?);
    }
    for lease in view.leases(run).await? {
        found.extend(replay.row(LeaseState::MACHINE, lease.id.to_string(), lease.state.as_str()));
    }
    for decision in view.decisions(run).await? {
        found.extend(replay.recorded("decision", decision.id.to_string(), digest(&decision)?));
    }
    requests(view, run, &mut replay, &mut found).await?;
    for apply in view.applies(run).await? {
        let (id, state) = (apply.id.to_string(), apply.state.as_str());
        found.extend(replay.pinned_row(ApplyState::MACHINE, id, state, digest(&apply)?));
    }
    history(view, run, &mut replay, &mut found).await?;
    found.extend(replay.rest(run.as_str()));
    Ok(found)
}

async fn requests(view: &mut dyn Tx, run: &RunId, replay: &mut Replay, found: &mut Vec<AuditBreak>) -> StoreResult<()> {
    let filter = RequestFilter { run: Some(run.clone()), ..RequestFilter::default() };
    for request in view.requests(&filter).await? {
        let (id, state) = (request.id.to_string(), request.state.as_str());
        found.extend(replay.pinned_row(RequestState::MACHINE, id, state, digest(&request)?));
        for vote in view.votes(&request.id).await? {
            let id = vote_id(request.id.as_str(), &vote.principal.id);
            found.extend(replay.recorded("vote", id, digest(&vote)?));
        }
    }
    Ok(())
}

/// The log has no attempts, but their phase counts them.
async fn attempts(view: &mut dyn Tx, run: &RunId, phase: &PhaseId, count: u32) -> StoreResult<Option<AuditBreak>> {
    let rows = view.attempts(run, phase).await?;
    if rows.iter().map(|row| row.number).eq(1..=count) {
        return Ok(None);
    }
    let why = format!("its phase counts {count} attempts, there are {} rows", rows.len());
    Ok(Some(semantic(format!("attempts of phase {run}/{phase}"), &why)))
}

/// Lines of a run's history are numbered without a gap, and those that go with an entry of the log are pinned there.
async fn history(view: &mut dyn Tx, run: &RunId, replay: &mut Replay, found: &mut Vec<AuditBreak>) -> StoreResult<()> {
    let mut last = 0;
    loop {
        let page = view.events(run, last, PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        for event in page {
            if event.seq != last + 1 {
                let why = format!("line {} follows line {last}", event.seq);
                found.push(semantic(format!("history of {run}"), &why));
            }
            if event.seq <= last {
                // Its document lies about its number: reading on would never end.
                return Ok(());
            }
            last = event.seq;
            replay.event(&digest(&event)?);
        }
    }
}

fn digest<T: Serialize>(row: &T) -> StoreResult<String> {
    row_digest(row).map_err(|e| StoreError::Corrupt(format!("a row that is no JSON: {e}")))
}

//! The rows of one chain, compared with what it says of them, in both directions.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::AuditBreak;
use autopack_shared::domain::ids::{Digest, PhaseId, RowId, RunId};
use autopack_shared::domain::record::{Apply, ApplyKind, Command, Decision, Notice, Project, Run};
use autopack_shared::domain::state::{ApplyState, AttemptState, LeaseState, PhaseState, RequestState, RunState};

use super::replay::{Replay, vote_id};
use super::{PAGE, digest, semantic};
use crate::store::facts::{FenceRow, WindowRow};
use crate::store::transcripts::GoneTranscript;
use crate::store::{RequestFilter, StoreResult, Tx};

/// The rows that are read for all chains at once, of one of them.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) projects: Vec<Project>,
    pub(super) fences: Vec<FenceRow>,
    pub(super) windows: Vec<WindowRow>,
    pub(super) commands: Vec<Command>,
    pub(super) notices: Vec<Notice>,
}

/// Compares all rows that a chain tells of.
pub(super) async fn check(
    view: &mut dyn Tx,
    chain: &str,
    mut side: Side,
    mut replay: Replay,
) -> StoreResult<Vec<AuditBreak>> {
    let mut found = Vec::new();
    for project in &side.projects {
        found.extend(replay.recorded("project", project.id.to_string(), &digest(project)?));
    }
    for fence in &side.fences {
        found.extend(replay.recorded("fence", fence.scope.clone(), &digest(fence)?));
    }
    for command in &side.commands {
        let state = if command.done_at.is_some() { "done" } else { "open" };
        found.extend(replay.row("command", command.id.to_string(), state, &digest(command)?));
    }
    for notice in &side.notices {
        let state = if notice.sent_at.is_some() { "sent" } else { "queued" };
        found.extend(replay.row("notice", notice.id.to_string(), state, &digest(notice)?));
    }
    if let Some(run) = chain.strip_prefix("run/").and_then(|id| id.parse::<RunId>().ok()) {
        of_run(view, &run, std::mem::take(&mut side.windows), &mut replay, &mut found).await?;
    }
    found.extend(replay.rest(chain));
    Ok(found)
}

async fn of_run(
    view: &mut dyn Tx,
    run: &RunId,
    windows: Vec<WindowRow>,
    replay: &mut Replay,
    found: &mut Vec<AuditBreak>,
) -> StoreResult<()> {
    let row = view.run(run).await?;
    if let Some(row) = &row {
        found.extend(replay.row(RunState::MACHINE, run.to_string(), row.state.as_str(), &digest(row)?));
        found.extend(replay.origin(run.as_str(), &digest(&row.origin())?));
    }
    let gone = view.gone_transcripts(run).await?;
    for one in &gone {
        found.extend(replay.row("transcript", format!("{run}/{}", one.digest), "deleted", &digest(one)?));
    }
    for phase in view.phases(run).await? {
        let id = format!("{run}/{}", phase.id);
        found.extend(replay.row(PhaseState::MACHINE, id, phase.state.as_str(), &digest(&phase)?));
        attempts(view, (run, &gone), &phase.id, replay, found).await?;
    }
    for lease in view.leases(run).await? {
        found.extend(replay.row(LeaseState::MACHINE, lease.id.to_string(), lease.state.as_str(), &digest(&lease)?));
    }
    let decisions = view.decisions(run).await?;
    for decision in &decisions {
        found.extend(replay.recorded("decision", decision.id.to_string(), &digest(decision)?));
    }
    requests(view, run, replay, found).await?;
    let applies = view.applies(run).await?;
    for apply in &applies {
        found.extend(replay.row(ApplyState::MACHINE, apply.id.to_string(), apply.state.as_str(), &digest(apply)?));
    }
    if let Some(row) = row
        && windows != filled(&row, &applies, &decisions)
    {
        found.push(semantic(format!("size windows of {run}"), "they are not what its applies fill them with"));
    }
    history(view, run, replay, found).await
}

async fn attempts(
    view: &mut dyn Tx,
    (run, gone): (&RunId, &[GoneTranscript]),
    phase: &PhaseId,
    replay: &mut Replay,
    found: &mut Vec<AuditBreak>,
) -> StoreResult<()> {
    for attempt in view.attempts(run, phase).await? {
        let id = format!("{run}/{phase}/{}", attempt.number);
        let gates = attempt.gate.iter().flat_map(|gate| &gate.commands).filter_map(|command| command.transcript);
        for printed in &attempt.transcript.into_iter().chain(gates).collect::<Vec<_>>() {
            let kept = view.transcript(run, printed).await?;
            // Whether one that has gone went as it should is known from its own row.
            let went = kept.is_none() && gone.iter().any(|one| one.digest == *printed);
            if !went && kept.is_none_or(|kept| Digest::of(&kept) != *printed) {
                found.push(semantic(format!("transcript of {id}"), "it is not the one that was logged"));
            }
        }
        found.extend(replay.row(AttemptState::MACHINE, id, attempt.state.as_str(), &digest(&attempt)?));
    }
    Ok(())
}

async fn requests(view: &mut dyn Tx, run: &RunId, replay: &mut Replay, found: &mut Vec<AuditBreak>) -> StoreResult<()> {
    let filter = RequestFilter { run: Some(run.clone()), ..RequestFilter::default() };
    // They come newest first.
    for request in view.requests(&filter).await?.into_iter().rev() {
        let (id, state) = (request.id.to_string(), request.state.as_str());
        found.extend(replay.row(RequestState::MACHINE, id, state, &digest(&request)?));
        for vote in view.votes(&request.id).await? {
            let id = vote_id(request.id.as_str(), &vote.principal.id);
            found.extend(replay.recorded("vote", id, &digest(&vote)?));
        }
    }
    Ok(())
}

/// What a run's applies put into the size windows: the lines that their decisions counted.
fn filled(run: &Run, applies: &[Apply], decisions: &[Decision]) -> Vec<WindowRow> {
    let sizes: BTreeMap<&RowId, &BTreeMap<String, u64>> = decisions.iter().map(|d| (&d.id, &d.class_sizes)).collect();
    let patches = applies.iter().filter(|apply| apply.kind == ApplyKind::Patch);
    let mut rows: Vec<WindowRow> = patches
        .filter_map(|apply| Some((apply, sizes.get(apply.decision.as_ref()?)?)))
        .flat_map(|(apply, sizes)| {
            sizes.iter().map(|(class, lines)| WindowRow {
                apply: apply.id.clone(),
                class: class.clone(),
                run: run.id.clone(),
                project: run.project.to_string(),
                lines: *lines,
                at: apply.prepared_at,
            })
        })
        .collect();
    rows.sort();
    rows
}

/// Lines of a run's history are numbered without a gap, each names the one before, and those that go with an entry of
/// the log are pinned there.
async fn history(view: &mut dyn Tx, run: &RunId, replay: &mut Replay, found: &mut Vec<AuditBreak>) -> StoreResult<()> {
    let (mut last, mut before) = (0, None);
    loop {
        let page = view.events(run, last, PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        for event in page {
            if event.seq != last + 1 || event.prev.map(|prev| prev.to_string()) != before {
                let why = format!("line {} does not follow line {last}", event.seq);
                found.push(semantic(format!("history of {run}"), &why));
            }
            if event.seq <= last {
                // Its document lies about its number: reading on would never end.
                return Ok(());
            }
            last = event.seq;
            let pin = digest(&event)?;
            replay.event(&pin);
            before = Some(pin);
        }
    }
}

//! `RunService`: survey, submit, look at and steer runs. Submitting and steering only record; the director performs.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as Call, Response, Status};

use autopack_shared::domain::audit::ROW;
use autopack_shared::domain::budget::Caps;
use autopack_shared::domain::ids::{Digest, Oid, PhaseId, RowId, RunId};
use autopack_shared::domain::path::PathRoots;
use autopack_shared::domain::record::{Command, CommandOp, Principal, Run};
use autopack_shared::domain::state::PhaseState;
use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::wire::pb::run_service_server::RunService;
use autopack_shared::wire::pb::{self, SteerOp};

use super::cores::{Cores, caller};
use super::{Core, show};
use crate::coordination::Coordinator;
use crate::director::moves::{Note, note, pin};
use crate::director::{ref_of, run_blocking};
use crate::error::Error;
use crate::store::{RunFilter, Tx};

mod diff;
mod explain;
mod land;
mod look;
mod moves;
mod plan;
mod submit;
mod survey;
mod transcript;

/// Events read at a time.
const PAGE: u32 = 200;

/// The service.
pub struct RunApi {
    /// The projects.
    pub cores: Arc<Cores>,
    /// Liveness.
    pub coordinator: Arc<dyn Coordinator>,
    /// Owned tasks.
    pub tasks: Tasks,
}

type Events = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;
type Runs = Pin<Box<dyn Stream<Item = Result<pb::Run, Status>> + Send>>;

#[tonic::async_trait]
impl RunService for RunApi {
    type WatchStream = Events;
    type MovesStream = Runs;
    type TranscriptStream = transcript::Parts;

    async fn submit(&self, call: Call<pb::SubmitRequest>) -> Result<Response<pb::SubmitResponse>, Status> {
        let (core, principal) = (self.cores.asked(&call).await?, caller(&call));
        Ok(Response::new(core.submit(call.into_inner(), &principal).await?))
    }

    async fn get(&self, call: Call<pb::GetRunRequest>) -> Result<Response<pb::Run>, Status> {
        let id = call.into_inner().run_id;
        Ok(Response::new(self.cores.of_run(&id).await?.show_run(&id).await?))
    }

    async fn list(&self, call: Call<pb::ListRunsRequest>) -> Result<Response<pb::ListRunsResponse>, Status> {
        let core = self.cores.asked(&call).await?;
        Ok(Response::new(pb::ListRunsResponse { runs: core.list_runs(&call.into_inner()).await? }))
    }

    async fn watch(&self, call: Call<pb::WatchRequest>) -> Result<Response<Events>, Status> {
        let call = call.into_inner();
        let core = self.cores.of_run(&call.run_id).await?;
        let mut tx = core.store.read().await.map_err(Error::from)?;
        let run = core.run(tx.as_mut(), &call.run_id).await?;
        drop(tx);
        let (out, stream) = mpsc::channel(256);
        let stop = self.tasks.stop().clone();
        self.tasks.spawn("watch", OnError::Log, async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                done = core.stream_events(run.id, call.after_seq, call.once, out.clone()) => match done {
                    Ok(()) => Ok(()),
                    // The reader must not take a failure for the end.
                    Err(error) => out.send(Err(error.into())).await.map_err(|_| Error::Bug("the watcher left".to_owned())),
                },
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn moves(&self, call: Call<pb::MovesRequest>) -> Result<Response<Runs>, Status> {
        let (out, stream) = mpsc::channel(64);
        let (core, stop) = (self.cores.asked(&call).await?, self.tasks.stop().clone());
        self.tasks.spawn("moves", OnError::Log, async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                done = core.stream_moves(out) => done,
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn diff(&self, call: Call<pb::DiffRequest>) -> Result<Response<pb::DiffResponse>, Status> {
        let call = call.into_inner();
        Ok(Response::new(self.cores.of_run(&call.run_id).await?.diff(&call).await?))
    }

    async fn transcript(&self, call: Call<pb::TranscriptRequest>) -> Result<Response<transcript::Parts>, Status> {
        let call = call.into_inner();
        Ok(Response::new(self.cores.of_run(&call.run_id).await?.transcript(&call).await?))
    }

    async fn steer(&self, call: Call<pb::SteerRequest>) -> Result<Response<pb::SteerResponse>, Status> {
        let principal = caller(&call);
        let call = call.into_inner();
        Ok(Response::new(self.cores.of_run(&call.run_id).await?.steer(call, principal).await?))
    }

    async fn land(&self, call: Call<pb::LandRequest>) -> Result<Response<pb::LandResponse>, Status> {
        let principal = caller(&call);
        let call = call.into_inner();
        Ok(Response::new(self.cores.of_run(&call.run_id).await?.land(&call, &principal).await?))
    }

    async fn explain(&self, call: Call<pb::GetRunRequest>) -> Result<Response<pb::ExplainResponse>, Status> {
        let id = call.into_inner().run_id;
        Ok(Response::new(self.cores.of_run(&id).await?.explain(&id).await?))
    }

    async fn save_points(&self, call: Call<pb::SavePointsRequest>) -> Result<Response<pb::SavePointsResponse>, Status> {
        let core = if call.get_ref().run_id.is_empty() {
            self.cores.asked(&call).await?
        } else {
            self.cores.of_run(&call.get_ref().run_id).await?
        };
        Ok(Response::new(core.save_points(&call.into_inner().run_id).await?))
    }

    async fn gaps(&self, call: Call<pb::SurveyRequest>) -> Result<Response<pb::GapsResponse>, Status> {
        let core = self.cores.asked(&call).await?;
        Ok(Response::new(core.gaps(self.coordinator.as_ref(), &call.into_inner()).await?))
    }

    async fn plan(&self, call: Call<pb::SurveyRequest>) -> Result<Response<pb::PlanResponse>, Status> {
        let core = self.cores.asked(&call).await?;
        Ok(Response::new(core.plan(self.coordinator.as_ref(), &call.into_inner()).await?))
    }

    async fn autopilot(&self, call: Call<pb::AutopilotRequest>) -> Result<Response<pb::AutopilotResponse>, Status> {
        let (core, principal) = (self.cores.asked(&call).await?, caller(&call));
        let driven = Box::pin(core.autopilot(self.coordinator.as_ref(), call.into_inner(), &principal));
        Ok(Response::new(driven.await?))
    }
}

impl Core {
    async fn tip(&self, run: &Run) -> Result<Option<Oid>, Error> {
        let (hub, branch) = (self.hub.clone(), ref_of(run));
        run_blocking(move || hub.tip(&branch)).await
    }

    async fn list_runs(&self, call: &pb::ListRunsRequest) -> Result<Vec<pb::Run>, Error> {
        let mut states = Vec::new();
        for word in &call.states {
            states.push(
                word.to_lowercase()
                    .parse()
                    .map_err(|e| Error::Invalid { field: "states".to_owned(), why: format!("{e}") })?,
            );
        }
        let limit = if call.limit == 0 { 100 } else { call.limit.min(10_000) };
        let mut tx = self.store.read().await?;
        let runs = tx.runs(&RunFilter { project: Some(self.project.clone()), states, limit }).await?;
        Ok(runs.iter().map(|run| show::run(run, None)).collect())
    }

    async fn stream_events(
        &self,
        run: RunId,
        mut after: u64,
        once: bool,
        out: mpsc::Sender<Result<pb::Event, Status>>,
    ) -> Result<(), Error> {
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            let over = loop {
                // One view a page: a slow reader keeps no view open.
                let mut tx = self.store.read().await?;
                let events = tx.events(&run, after, PAGE).await?;
                // In the view that has no more of them: nothing comes after what is over there.
                let Some(last) = events.last() else { break is_over(tx.as_mut(), &run).await? };
                drop(tx);
                after = last.seq;
                for event in &events {
                    if out.send(Ok(show::event(event))).await.is_err() {
                        return Ok(());
                    }
                }
            };
            if once || over {
                return Ok(());
            }
            tokio::select! {
                () = out.closed() => return Ok(()),
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
            }
        }
    }

    async fn steer(&self, call: pb::SteerRequest, principal: Principal) -> Result<pb::SteerResponse, Error> {
        let phase = if call.phase_id.is_empty() { None } else { Some(PhaseId::new(call.phase_id.clone())?) };
        let text: String = call.text.chars().take(2000).collect();
        PathRoots::new(call.scope.clone())
            .map_err(|e| Error::Invalid { field: "scope".to_owned(), why: e.to_string() })?;
        let op = match call.op() {
            SteerOp::Cancel => CommandOp::Cancel,
            SteerOp::Pause => CommandOp::Pause,
            SteerOp::Resume => CommandOp::Resume,
            SteerOp::Retry => {
                CommandOp::Retry { phase, feedback: text, scope: (!call.scope.is_empty()).then_some(call.scope) }
            }
            SteerOp::Rollback => CommandOp::Rollback { phase, reason: text },
            SteerOp::Budget => CommandOp::Budget { phase, caps: caps(&call.caps_json)? },
            SteerOp::Unspecified => {
                return Err(Error::Invalid { field: "op".to_owned(), why: "it is not set".to_owned() });
            }
        };
        let mut tx = self.store.tx(&[]).await?;
        let run = self.run(tx.as_mut(), &call.run_id).await?;
        may_steer(tx.as_mut(), &run, &op).await?;
        let at = tx.now();
        // The key names the command, so that a repeated call finds the row it made before.
        let id = match call.idempotency_key.as_str() {
            "" => self.ids.fresh("cmd"),
            key => format!("cmd-{}", &Digest::of(format!("{key}|{}|{op:?}", run.id).as_bytes()).to_hex()[..24]),
        };
        let command = Command {
            id: RowId::new(id)?,
            run: run.id.clone(),
            op,
            principal,
            created_at: at,
            done_at: None,
            result: None,
        };
        match tx.insert_command(&command).await {
            Ok(()) => {
                record_command(tx.as_mut(), &command).await?;
                tx.commit().await?;
            }
            Err(crate::store::StoreError::Exists { .. }) => drop(tx),
            Err(error) => return Err(error.into()),
        }
        Ok(pb::SteerResponse { command_id: command.id.to_string(), run: Some(self.show_run(run.id.as_str()).await?) })
    }
}

/// The bounds of a call; at least one has to be named.
fn caps(text: &str) -> Result<Caps, Error> {
    let refused = |why: String| Error::Invalid { field: "caps_json".to_owned(), why };
    let caps: Caps = serde_json::from_str(text).map_err(|e| refused(e.to_string()))?;
    if caps == Caps::default() {
        return Err(refused("name at least one bound".to_owned()));
    }
    Ok(caps)
}

/// Refuses at once what the director would refuse later: nobody should wait for what cannot happen.
async fn may_steer(tx: &mut dyn Tx, run: &Run, op: &CommandOp) -> Result<(), Error> {
    let refused = |what, id: String, state: &str, why: &str| Error::State {
        what,
        id,
        state: state.to_uppercase(),
        why: why.to_owned(),
        reason: "illegal_move",
    };
    let (wanted, why) = match op {
        CommandOp::Cancel | CommandOp::Pause | CommandOp::Resume => (None, "it has ended"),
        CommandOp::Retry { phase, .. } => (phase.as_ref(), "it has ended: submit a new run"),
        CommandOp::Rollback { phase, .. } => (phase.as_ref(), ""),
        CommandOp::Budget { phase, .. } => (phase.as_ref(), "it has ended"),
        CommandOp::BreakLease { .. } => (None, "it has ended"),
    };
    if run.state.is_terminal() && !why.is_empty() {
        return Err(refused("run", run.id.to_string(), run.state.as_str(), why));
    }
    let Some(id) = wanted else { return Ok(()) };
    let missing = || Error::NotFound { what: "phase", id: format!("{}/{id}", run.id) };
    let phase = tx.phase(&run.id, id).await?.ok_or_else(missing)?;
    if matches!(op, CommandOp::Retry { .. }) && phase.state != PhaseState::Blocked {
        let id = format!("{}/{id}", run.id);
        return Err(refused("phase", id, phase.state.as_str(), "only a blocked phase can be tried again"));
    }
    Ok(())
}

/// Notes that a wish was recorded.
pub(in crate::api) async fn record_command(tx: &mut dyn Tx, command: &Command) -> Result<(), Error> {
    let word = match &command.op {
        CommandOp::Cancel => "cancel",
        CommandOp::Pause => "pause",
        CommandOp::Resume => "resume",
        CommandOp::Retry { .. } => "retry",
        CommandOp::Rollback { .. } => "rollback",
        CommandOp::BreakLease { .. } => "break of its lease",
        CommandOp::Budget { .. } => "another budget",
    };
    note(
        tx,
        Note {
            actor: &command.principal,
            run: &command.run,
            phase: None,
            op: "command.recorded".to_owned(),
            object: "command",
            id: command.id.to_string(),
            moved: Some((String::new(), "open".to_owned())),
            digests: BTreeMap::from([(ROW.to_owned(), pin(command)?)]),
            reason: word.to_owned(),
            text: Some(format!("{word} asked for by {}", command.principal.id)),
        },
    )
    .await
}

/// Whether nothing more will happen to a run.
async fn is_over(tx: &mut dyn Tx, run: &RunId) -> Result<bool, Error> {
    if !tx.run(run).await?.is_none_or(|found| found.state.is_terminal()) {
        return Ok(false);
    }
    Ok(tx.open_commands(Some(run)).await?.is_empty()
        && !tx.prepared_applies().await?.iter().any(|apply| apply.run == *run)
        && !tx.phases(run).await?.iter().any(|phase| phase.state == PhaseState::RollingBack))
}

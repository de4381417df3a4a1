//! `WorkerService`: sessions in, orders out; packs into quarantine and from there into the hub.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use autopack_shared::domain::ids::{Oid, PhaseId, RunId, Scope, WorkerId};
use autopack_shared::domain::record::Lease;
use autopack_shared::repo::pack::PackBudget;
use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::runtime::telemetry::instruments::metrics;
use autopack_shared::wire::PROTOCOL;
use autopack_shared::wire::pb::worker_service_server::WorkerService;
use autopack_shared::wire::pb::{self, worker_message};

mod account;
mod drain;
mod fetch;
mod forged;
mod gate;
mod missed;
mod orders;
mod place;
mod record;
mod result;
mod room;
mod said;
mod sandbox;
mod seen;
mod session;
mod surveys;
mod transcript;

pub use room::{Room, Transfers};
pub use seen::Lookout;
use session::SessionTask;

use super::cores::Cores;
use crate::coordination::timers::Timers;
use crate::coordination::{CoordinationError, Coordinator, SessionFacts};
use crate::director::Governing;
use crate::door::Pass;
use crate::error::Error;
use crate::hub::{AttemptKey, HubError};
use crate::store::StoreError;
use crate::workers::Workers;

/// Messages that may wait for one worker's stream.
const OUTBOX: usize = 64;

/// Tries to keep an upload alive while directors change.
const FENCE_TRIES: usize = 5;

/// How long etcd may take to let a worker in that has work: its builders have a deadline.
const OPENING: Duration = Duration::from_secs(2);

/// Bytes of one pack, as sent.
const MAX_PACK: u64 = 256 * 1024 * 1024;

/// Wall time of one upload.
const UPLOAD_DEADLINE: Duration = Duration::from_secs(300);

/// What a pack may become.
const BUDGET: PackBudget = PackBudget { inflated: 1024 * 1024 * 1024, objects: 200_000 };

/// The service.
pub struct WorkerApi {
    /// The projects.
    pub cores: Arc<Cores>,
    /// The registry.
    pub workers: Arc<Workers>,
    /// Liveness.
    pub coordinator: Arc<dyn Coordinator>,
    /// Times of sessions.
    pub timers: Timers,
    /// What attempts may use.
    pub governing: Governing,
    /// Whether sessions outlive their streams.
    pub lingers: bool,
    /// Room for transfers.
    pub room: Room,
    /// Leases of all sessions.
    pub lookout: Arc<Lookout>,
    /// Owned tasks.
    pub tasks: Tasks,
}

type Outbound = Pin<Box<dyn Stream<Item = Result<pb::SupervisorMessage, Status>> + Send>>;

#[tonic::async_trait]
impl WorkerService for WorkerApi {
    type SessionStream = Outbound;

    async fn session(&self, request: Request<Streaming<pb::WorkerMessage>>) -> Result<Response<Outbound>, Status> {
        let pass = Pass::of(&request);
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(Duration::from_secs(10), inbound.message()).await;
        let Ok(Ok(Some(pb::WorkerMessage { body: Some(worker_message::Body::Hello(hello)), .. }))) = first else {
            return Err(
                Error::Invalid { field: "hello".to_owned(), why: "a session starts with hello".to_owned() }.into()
            );
        };
        if hello.protocol != PROTOCOL {
            return Err(Error::Version { theirs: hello.protocol, ours: PROTOCOL }.into());
        }
        let worker = WorkerId::new(hello.worker_id.clone()).map_err(Error::from)?;
        pass.check(worker.as_str())?;
        // The stream does not say where it comes from; the worker's id is what people know it by.
        let facts = SessionFacts {
            host: String::new(),
            boot_id: hello.boot_id.clone(),
            slots: hello.slots.clamp(1, 1024),
            sandbox_level: hello.sandbox_level.clone(),
            ..SessionFacts::default()
        };
        let facts = sandbox::told(&facts, hello.sandbox.as_ref());
        let seen = self.let_in(&worker, &hello, &facts).await?;
        let (generation, orders) = self.workers.connect(worker.clone());
        tracing::info!(worker = %worker, slots = hello.slots, sandbox = hello.sandbox_level, "worker connected");
        let (out, outbound) = mpsc::channel(OUTBOX);
        let session = SessionTask {
            cores: self.cores.clone(),
            workers: self.workers.clone(),
            coordinator: self.coordinator.clone(),
            worker,
            session: hello.session,
            facts,
            held: hello.held,
            lingers: self.lingers,
            seen,
            timers: self.timers.clone(),
            governing: self.governing,
            lookout: self.lookout.clone(),
            scan: std::sync::Mutex::default(),
            stays: std::sync::atomic::AtomicBool::default(),
            generation,
            stop: self.tasks.stop().clone(),
        };
        self.tasks.spawn("worker-session", OnError::Log, session.serve(inbound, orders, out));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    type FetchObjectsStream = fetch::Chunks;

    async fn fetch_objects(&self, call: Request<pb::FetchRequest>) -> Result<Response<fetch::Chunks>, Status> {
        Pass::of(&call).check(&call.get_ref().worker_id)?;
        Ok(Response::new(self.send(call.into_inner()).await?))
    }

    async fn upload_transcript(
        &self,
        request: Request<Streaming<pb::TranscriptChunk>>,
    ) -> Result<Response<pb::TranscriptResult>, Status> {
        Ok(Response::new(self.take_transcript(request).await?))
    }

    async fn upload_objects(
        &self,
        request: Request<Streaming<pb::UploadChunk>>,
    ) -> Result<Response<pb::UploadResult>, Status> {
        let pass = Pass::of(&request);
        let mut chunks = request.into_inner();
        let deadline = tokio::time::Instant::now() + UPLOAD_DEADLINE;
        let header = header(&mut chunks, deadline).await?;
        pass.check(&header.worker_id)?;
        if header.size > MAX_PACK {
            return Err(
                Error::Upload { reason: "too_large", why: format!("a pack has at most {MAX_PACK} bytes") }.into()
            );
        }
        // Who has no lease takes no room.
        self.upload_of(&header).await?;
        let room = self.room.upload(header.size).await?;
        let mut pack = Vec::with_capacity(usize::try_from(header.size.min(1 << 20)).unwrap_or(0));
        while let Some(chunk) = tokio::time::timeout_at(deadline, chunks.next()).await.map_err(|_| slow_upload())? {
            if let Some(pb::upload_chunk::Body::Data(data)) = chunk?.body {
                if (pack.len() + data.len()) as u64 > header.size {
                    return Err(
                        Error::Upload { reason: "too_large", why: "more bytes than announced".to_owned() }.into()
                    );
                }
                pack.extend_from_slice(&data);
            }
        }
        if pack.len() as u64 != header.size {
            let why = format!("{} of {} bytes arrived", pack.len(), header.size);
            return Err(Error::Upload { reason: "upload_cut", why }.into());
        }
        Ok(Response::new(self.take(header, pack, room).await?))
    }
}

/// The first message of an upload; it counts in the upload's time like every other.
async fn header(
    chunks: &mut (impl Stream<Item = Result<pb::UploadChunk, Status>> + Unpin),
    deadline: tokio::time::Instant,
) -> Result<pb::UploadHeader, Status> {
    let first = tokio::time::timeout_at(deadline, chunks.next()).await.map_err(|_| slow_upload())?;
    match first.transpose()?.and_then(|chunk| chunk.body) {
        Some(pb::upload_chunk::Body::Header(header)) => Ok(header),
        Some(pb::upload_chunk::Body::Data(_)) | None => {
            let why = "an upload starts with its header".to_owned();
            Err(Error::Invalid { field: "header".to_owned(), why }.into())
        }
    }
}

fn slow_upload() -> Error {
    Error::Upload { reason: "upload_cut", why: format!("it took longer than {} s", UPLOAD_DEADLINE.as_secs()) }
}

fn not_theirs(run: &RunId) -> Error {
    Error::Forbidden { reason: "lease_not_yours", why: format!("no lease of {run} fits this transfer") }
}

impl WorkerApi {
    /// Opens a worker's session; false where etcd does not answer and it comes back to leases that it has: etcd that is
    /// away must not end work (`coordination.md` 3.13).
    async fn let_in(&self, worker: &WorkerId, hello: &pb::Hello, facts: &SessionFacts) -> Result<bool, Error> {
        let opened = self.coordinator.open_session(worker, &hello.session, facts);
        if !self.lingers || hello.held.is_empty() {
            return Ok(opened.await.map(|()| true)?);
        }
        let silent = |_| Err(CoordinationError::Unavailable("no answer in time".to_owned()));
        let away = match tokio::time::timeout(OPENING, opened).await.unwrap_or_else(silent) {
            Ok(()) => return Ok(true),
            Err(away @ CoordinationError::Unavailable(_)) => away,
            Err(error) => return Err(error.into()),
        };
        let mut tx = self.cores.store().read().await?;
        let leases = tx.active_leases(None).await?;
        if leases.iter().any(|lease| lease.worker == *worker && lease.session == hello.session) {
            tracing::warn!(worker = %worker, %away, "it goes on with what it has, without etcd");
            return Ok(false);
        }
        Err(away.into())
    }

    /// The open lease of a run at an epoch, for its holder only.
    async fn lease_of(&self, run: &RunId, epoch: u64, worker: &str, session: &str) -> Result<Lease, Error> {
        let mut tx = self.cores.store().read().await?;
        let current = tx.epoch(&Scope::Run(run.clone())).await?;
        if current != Some(epoch) {
            metrics().fenced("api");
            return Err(StoreError::Fenced { scope: format!("run/{run}"), held: epoch, current }.into());
        }
        let open = tx.leases(run).await?.into_iter().find(|l| !l.state.is_terminal() && l.epoch == epoch);
        open.filter(|l| l.worker.as_str() == worker && l.session == session).ok_or_else(|| not_theirs(run))
    }

    /// The lease that an upload is for, and its place.
    async fn upload_of(&self, header: &pb::UploadHeader) -> Result<(Lease, AttemptKey), Error> {
        let (run, phase) = (RunId::new(header.run_id.clone())?, PhaseId::new(header.phase_id.clone())?);
        let lease = self.lease_of(&run, header.epoch, &header.worker_id, &header.session).await?;
        if lease.phase != phase || lease.attempt != header.attempt {
            return Err(not_theirs(&run));
        }
        Ok((lease, AttemptKey { run, epoch: header.epoch, phase, attempt: header.attempt }))
    }

    /// Checks a pack in quarantine and takes what its tree needs into the hub, kept alive by a ref.
    async fn take(
        &self,
        header: pb::UploadHeader,
        pack: Vec<u8>,
        room: OwnedSemaphorePermit,
    ) -> Result<pb::UploadResult, Error> {
        let (lease, key) = self.upload_of(&header).await?;
        let (base, tree): (Oid, Oid) = (header.base.parse()?, header.result_tree.parse()?);
        let core = self.cores.named(&lease.project).await?;
        let (hub, received) = (core.hub.clone(), pack.len() as u64);
        let ((), room) = room::within(room, move || {
            let quarantine = hub.quarantine(base)?;
            quarantine.ingest(&pack, &BUDGET)?;
            quarantine.verify(base, tree)?;
            hub.promote(&quarantine, base, tree)?;
            // The run's fence in the store was checked; what is kept alive here is named by the run's epoch. So it may
            // rest on whichever director's token is in force, and that may be another one at any moment.
            let keep = || hub.keep_alive(hub.fence()?.ok_or(HubError::BadFence)?, &key, tree);
            let moved = |kept: &Result<(), HubError>| matches!(kept, Err(HubError::Fenced { .. }));
            (0..FENCE_TRIES).map(|_| keep()).find(|kept| !moved(kept)).unwrap_or_else(keep)
        })
        .await?;
        drop(room);
        Ok(pb::UploadResult { result_tree: header.result_tree, received })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_upload_that_never_starts_is_ended() {
        let mut silent = tokio_stream::pending();
        let error = header(&mut silent, tokio::time::Instant::now() + Duration::from_millis(20)).await.unwrap_err();
        assert!(error.message().contains("it took longer than"), "{error}");
        let mut headless = tokio_stream::iter([Ok(pb::UploadChunk::default())]);
        let error = header(&mut headless, tokio::time::Instant::now() + UPLOAD_DEADLINE).await.unwrap_err();
        assert!(error.message().contains("starts with its header"), "{error}");
    }
}

//! What a worker fetches: the commit that its lease starts from or its survey is about, with all that it lacks of it.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use autopack_shared::domain::ids::{Digest, Oid, ProjectId, RowId, RunId, WorkerId};
use autopack_shared::domain::survey::Survey;
use autopack_shared::repo::pack::{pack_history, present};
use autopack_shared::runtime::process::OnError;
use autopack_shared::wire::pb::{self, fetch_chunk};

use super::orders::base_of;
use super::{WorkerApi, gate, room};
use crate::error::Error;
use crate::hub::HubError;

/// Bytes in one chunk.
const CHUNK: usize = 256 * 1024;

/// Chunks that may wait for a slow worker.
const WAITING: usize = 4;

/// Commits that a worker may say it has.
const MAX_HAVE: usize = 256;

/// Wall time of one fetch.
const DEADLINE: Duration = Duration::from_secs(900);

/// The answer to a fetch.
pub(super) type Chunks = Pin<Box<dyn Stream<Item = Result<pb::FetchChunk, Status>> + Send>>;

impl WorkerApi {
    /// The project of a lease that starts from a commit, for its holder.
    async fn leased(&self, call: &pb::FetchRequest, want: Oid) -> Result<ProjectId, Error> {
        let run = RunId::new(call.run_id.clone())?;
        let lease = self.lease_of(&run, call.epoch, &call.worker_id, &call.session).await?;
        let mut tx = self.cores.store().read().await?;
        let bases = match (tx.run(&run).await?, tx.phase(&run, &lease.phase).await?) {
            (Some(run), Some(phase)) => {
                [base_of(tx.as_mut(), &lease, &phase).await?, gate::base_of(&run, &phase, lease.purpose)]
            }
            (None, _) | (_, None) => [None, None],
        };
        drop(tx);
        if !bases.contains(&Some(want)) {
            let why = format!("the lease of {run} does not start from {}", want.short());
            return Err(Error::Forbidden { reason: "lease_not_yours", why });
        }
        Ok(lease.project)
    }

    /// The project of a survey that is about a commit, for the session that has it.
    async fn surveyed(&self, call: &pb::FetchRequest, want: Oid) -> Result<ProjectId, Error> {
        let (id, worker) = (RowId::new(call.survey_id.clone())?, WorkerId::new(call.worker_id.clone())?);
        let mut tx = self.cores.store().read().await?;
        let now = tx.now();
        let survey = tx.survey(&id).await?.filter(|survey| survey.is_with(&worker, &call.session, now));
        drop(tx);
        let about = |survey: &Survey| survey.ask.commit == want || survey.ask.since == Some(want);
        survey.filter(about).map(|survey| survey.ask.project).ok_or_else(|| Error::Forbidden {
            reason: "survey_not_yours",
            why: format!("no survey {id} that is about {} is with this session", want.short()),
        })
    }

    /// Packs the commit and sends it in chunks; only for the holder of a lease that starts from it, or of a survey that
    /// is about it.
    pub(super) async fn send(&self, call: pb::FetchRequest) -> Result<Chunks, Error> {
        let want: Oid = call.commit.parse()?;
        if call.have.len() > MAX_HAVE {
            return Err(Error::Invalid { field: "have".to_owned(), why: format!("more than {MAX_HAVE} commits") });
        }
        let have = call.have.iter().map(|id| id.parse()).collect::<Result<Vec<Oid>, _>>()?;
        let project = if call.survey_id.is_empty() {
            self.leased(&call, want).await?
        } else {
            self.surveyed(&call, want).await?
        };
        let hub = self.cores.named(&project).await?.hub.clone();
        let making = self.room.make().await?;
        let mut room = self.room.growing();
        let ((pack, room), making) = room::within(making, move || {
            let repo = hub.repository(&[want])?;
            let pack = pack_history(&repo, want, &present(&repo, &have)?, |bytes| room.to(bytes))?;
            Ok::<_, HubError>((pack, room))
        })
        .await?;
        let size = pack.len() as u64;
        drop(making);
        let digest = Digest::of(&pack).to_string();
        // A pack of the same objects is not always the same bytes: then it is sent from its beginning.
        let offset = if call.digest == digest { call.offset.min(size) } else { 0 };
        let (out, chunks) = mpsc::channel(WAITING);
        let stop = self.tasks.stop().clone();
        self.tasks.spawn("fetch", OnError::Log, async move {
            let header = fetch_chunk::Body::Header(pb::FetchHeader { digest, size, offset });
            let pack = bytes::Bytes::from(pack);
            let send = async {
                let mut body = header;
                let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
                while out.send(Ok(pb::FetchChunk { body: Some(body) })).await.is_ok() && at < pack.len() {
                    let end = (at + CHUNK).min(pack.len());
                    body = fetch_chunk::Body::Data(pack.slice(at..end).to_vec());
                    at = end;
                }
            };
            tokio::select! {
                _ended = tokio::time::timeout(DEADLINE, send) => {}
                () = stop.cancelled() => {}
            }
            drop(room);
            Ok::<(), Error>(())
        });
        Ok(Box::pin(ReceiverStream::new(chunks)))
    }
}

//! Transcripts of builders on their way in: bounded, checked by their digest, without secrets, kept under the fence of
//! the lease that they are of.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::StreamExt as _;
use tonic::{Request, Status, Streaming};

use autopack_shared::domain::ids::{Digest, Fence, PhaseId, RunId, Scope};
use autopack_shared::domain::secret::redact;
use autopack_shared::wire::pb::{self, transcript_chunk};

use super::{WorkerApi, not_theirs};
use crate::director::run_blocking;
use crate::door::Pass;
use crate::error::Error;

/// The largest transcript that is taken, in bytes; workers send less.
const MAX: u64 = 16 * 1024 * 1024;

/// How long one upload may take in all.
const DEADLINE: Duration = Duration::from_secs(60);

impl WorkerApi {
    /// Takes one in; what it is kept under.
    pub(super) async fn take_transcript(
        &self,
        request: Request<Streaming<pb::TranscriptChunk>>,
    ) -> Result<pb::TranscriptResult, Status> {
        let pass = Pass::of(&request);
        let receive = self.receive(&pass, request.into_inner());
        let received = tokio::time::timeout(DEADLINE, receive).await;
        let (header, body, _room) =
            received.map_err(|_| cut(format!("it took longer than {} s", DEADLINE.as_secs())))??;
        Ok(self.keep(&header, body).await?)
    }

    async fn receive(
        &self,
        pass: &Pass,
        mut chunks: Streaming<pb::TranscriptChunk>,
    ) -> Result<(pb::TranscriptHeader, Vec<u8>, OwnedSemaphorePermit), Status> {
        let first = chunks.next().await.transpose()?.and_then(|chunk| chunk.body);
        let Some(transcript_chunk::Body::Header(header)) = first else {
            let why = "a transcript starts with its header".to_owned();
            return Err(Error::Invalid { field: "header".to_owned(), why }.into());
        };
        // Who may not, or has no lease, takes no room.
        pass.check(&header.worker_id)?;
        self.transcript_of(&header).await?;
        let too_large = |why: String| Error::Upload { reason: "too_large", why };
        if header.size > MAX {
            return Err(too_large(format!("a transcript has at most {MAX} bytes")).into());
        }
        // Held until the caller is done with it.
        let room = self.room.upload(header.size).await?;
        let mut body = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let Some(transcript_chunk::Body::Data(data)) = chunk?.body else { continue };
            if (body.len() + data.len()) as u64 > header.size {
                return Err(too_large("more bytes than announced".to_owned()).into());
            }
            body.extend_from_slice(&data);
        }
        if body.len() as u64 != header.size {
            return Err(cut(format!("{} of {} bytes arrived", body.len(), header.size)).into());
        }
        Ok((header, body, room))
    }

    /// The run that a transcript is of, for the holder of its lease only.
    async fn transcript_of(&self, header: &pb::TranscriptHeader) -> Result<RunId, Error> {
        let (run, phase) = (RunId::new(header.run_id.clone())?, PhaseId::new(header.phase_id.clone())?);
        let lease = self.lease_of(&run, header.epoch, &header.worker_id, &header.session).await?;
        if lease.phase != phase || lease.attempt != header.attempt {
            return Err(not_theirs(&run));
        }
        Ok(run)
    }

    async fn keep(&self, header: &pb::TranscriptHeader, body: Vec<u8>) -> Result<pb::TranscriptResult, Error> {
        let run = self.transcript_of(header).await?;
        let told: Digest = header.digest.parse()?;
        let (digest, body) = run_blocking(move || {
            if Digest::of(&body) != told {
                return Err(cut("its bytes are not those of its digest".to_owned()));
            }
            // Its worker has done so; one that knows fewer kinds of secrets is no reason to keep them.
            let clean = redact(&String::from_utf8_lossy(&body)).into_bytes();
            Ok((Digest::of(&clean), clean))
        })
        .await?;
        let fence = Fence { scope: Scope::Run(run.clone()), epoch: header.epoch };
        let mut tx = self.cores.store().tx(&[fence]).await?;
        tx.keep_transcript(&run, &digest, &body).await?;
        tx.commit().await?;
        Ok(pb::TranscriptResult { digest: digest.to_string() })
    }
}

fn cut(why: String) -> Error {
    Error::Upload { reason: "upload_cut", why }
}

//! Sends a pack to the supervisor in chunks.

use tokio_stream::iter;
use tonic::Code;

use autopack_shared::wire::pb::{
    TranscriptChunk, TranscriptHeader, UploadChunk, UploadHeader, transcript_chunk, upload_chunk,
};

use crate::builder::{BuildError, DISK_FULL};
use crate::line::{Line, passes};

/// Bytes in one chunk.
const CHUNK: usize = 256 * 1024;

/// Sends one pack. A supervisor that goes away in between is asked again, or another one in its place, for as long as the
/// lease has time: taking a pack twice changes nothing.
///
/// # Errors
/// `disk_full`, `upload_refused` with the supervisor's reason, or `upload_cut` after several tries.
pub(crate) async fn send(line: &Line, header: UploadHeader, pack: Vec<u8>) -> Result<(), BuildError> {
    let pack = bytes::Bytes::from(pack);
    let mut pauses = line.pauses();
    let mut last = "no supervisor is connected".to_owned();
    loop {
        if let Some(mut client) = line.client() {
            match client.upload_objects(iter(chunks(header.clone(), &pack))).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == Code::ResourceExhausted => {
                    return Err(BuildError::new(DISK_FULL, status.message().to_owned()));
                }
                Err(status) if passes(&status) => {
                    status.message().clone_into(&mut last);
                    tracing::warn!(run = header.run_id, why = last, "a result could not be uploaded");
                }
                Err(status) => return Err(BuildError::new("upload_refused", status.message().to_owned())),
            }
        }
        if !pauses.next().await {
            return Err(BuildError::new("upload_cut", last));
        }
    }
}

fn chunks(header: UploadHeader, pack: &bytes::Bytes) -> Vec<UploadChunk> {
    let mut chunks = vec![UploadChunk { body: Some(upload_chunk::Body::Header(header)) }];
    let mut at = 0;
    while at < pack.len() {
        let end = (at + CHUNK).min(pack.len());
        chunks.push(UploadChunk { body: Some(upload_chunk::Body::Data(pack.slice(at..end).to_vec())) });
        at = end;
    }
    chunks
}

/// Has a transcript kept; the digest it is kept under. A supervisor that is away is asked again for as long as the caller
/// waits: keeping it twice changes nothing.
///
/// # Errors
/// Why it is not kept, in words.
pub(crate) async fn transcript(line: &Line, header: &TranscriptHeader, body: Vec<u8>) -> Result<String, String> {
    let body = bytes::Bytes::from(body);
    let mut pauses = line.pauses();
    let mut last = "no supervisor is connected".to_owned();
    loop {
        if let Some(mut client) = line.client() {
            let header = TranscriptChunk { body: Some(transcript_chunk::Body::Header(header.clone())) };
            let data = body.chunks(CHUNK).map(|chunk| transcript_chunk::Body::Data(chunk.to_vec()));
            let data = data.map(|data| TranscriptChunk { body: Some(data) });
            let chunks: Vec<TranscriptChunk> = std::iter::once(header).chain(data).collect();
            match client.upload_transcript(iter(chunks)).await {
                Ok(kept) => return Ok(kept.into_inner().digest),
                Err(status) if passes(&status) => status.message().clone_into(&mut last),
                Err(status) => return Err(status.message().to_owned()),
            }
        }
        if !pauses.next().await {
            return Err(last);
        }
    }
}

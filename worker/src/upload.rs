//! Sends a pack to the supervisor in chunks.

use tokio_stream::iter;
use tonic::Code;

use autopack_shared::wire::pb::{UploadChunk, UploadHeader, upload_chunk};

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

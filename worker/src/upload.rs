//! Sends a pack to the supervisor in chunks.

use tokio_stream::iter;
use tonic::Code;
use tonic::transport::Channel;

use autopack_shared::wire::MAX_MESSAGE;
use autopack_shared::wire::pb::worker_service_client::WorkerServiceClient;
use autopack_shared::wire::pb::{UploadChunk, UploadHeader, upload_chunk};

use crate::builder::{BuildError, DISK_FULL};

/// Bytes in one chunk.
const CHUNK: usize = 256 * 1024;

/// Sends one pack.
///
/// # Errors
/// `disk_full`, or `upload_refused` with the supervisor's reason.
pub async fn send(channel: Channel, header: UploadHeader, pack: Vec<u8>) -> Result<(), BuildError> {
    let mut client = WorkerServiceClient::new(channel).max_encoding_message_size(MAX_MESSAGE);
    let mut chunks = vec![UploadChunk { body: Some(upload_chunk::Body::Header(header)) }];
    let pack = bytes::Bytes::from(pack);
    let mut at = 0;
    while at < pack.len() {
        let end = (at + CHUNK).min(pack.len());
        chunks.push(UploadChunk { body: Some(upload_chunk::Body::Data(pack.slice(at..end).to_vec())) });
        at = end;
    }
    client.upload_objects(iter(chunks)).await.map_err(|status| {
        let full = status.code() == Code::ResourceExhausted;
        BuildError::new(if full { DISK_FULL } else { "upload_refused" }, status.message().to_owned())
    })?;
    Ok(())
}

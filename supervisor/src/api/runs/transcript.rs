//! What a builder or a gate command printed, on its way out.

use std::pin::Pin;

use tokio_stream::Stream;
use tonic::Status;

use autopack_shared::domain::ids::{Digest, PhaseId};
use autopack_shared::domain::record::Attempt;
use autopack_shared::wire::pb::{self, transcript_part};

use crate::api::Core;
use crate::error::Error;

/// Bytes in one message.
const CHUNK: usize = 256 * 1024;

/// What is said of one that has gone.
const DELETED: &str =
    "transcript (it was deleted after the time or for the room of limits.transcript_days and limits.transcript_mib) of";

/// A transcript in parts.
pub(super) type Parts = Pin<Box<dyn Stream<Item = Result<pb::TranscriptPart, Status>> + Send>>;

impl Core {
    /// The transcript of an attempt, of the newest that has one when none is named.
    pub(super) async fn transcript(&self, call: &pb::TranscriptRequest) -> Result<Parts, Error> {
        let mut tx = self.store.read().await?;
        let run = self.run(tx.as_mut(), &call.run_id).await?;
        let phase = PhaseId::new(call.phase_id.clone())?;
        let missing = |what| Error::NotFound { what, id: format!("{}/{phase}", run.id) };
        tx.phase(&run.id, &phase).await?.ok_or_else(|| missing("phase"))?;
        let attempts = tx.attempts(&run.id, &phase).await?;
        let wanted = |number: u32| call.attempt == 0 || call.attempt == number;
        let of = |attempt: &Attempt| match call.gate.as_str() {
            "" => attempt.transcript,
            name => {
                let commands = attempt.gate.iter().flat_map(|gate| &gate.commands);
                commands.filter(|command| command.name == name).find_map(|command| command.transcript)
            }
        };
        let mut found = attempts.iter().rev().filter(|attempt| wanted(attempt.number));
        let found = found.find_map(|attempt| Some((attempt.number, of(attempt)?)));
        let (attempt, digest) = found.ok_or_else(|| missing("transcript of"))?;
        let Some(body) = tx.transcript(&run.id, &digest).await? else {
            let gone = tx.gone_transcripts(&run.id).await?.iter().any(|one| one.digest == digest);
            return Err(missing(if gone { DELETED } else { "transcript of" }));
        };
        if Digest::of(&body) != digest {
            let why = format!("the transcript of {}/{phase} is not the one that was kept", run.id);
            return Err(crate::store::StoreError::Corrupt(why).into());
        }
        let head = pb::TranscriptHead { attempt, digest: digest.to_string(), size: body.len() as u64 };
        let part = |body| Ok(pb::TranscriptPart { body: Some(body) });
        let mut parts = vec![part(transcript_part::Body::Head(head))];
        parts.extend(body.chunks(CHUNK).map(|chunk| part(transcript_part::Body::Data(chunk.to_vec()))));
        Ok(Box::pin(tokio_stream::iter(parts)))
    }
}

//! Fetches the commit that a lease starts from or a survey is about, where the worker's mirror does not have it. A stream that is cut goes
//! on where it ended; what arrived is taken only if it is, byte for byte, what was announced.

use std::fmt;
use std::time::Duration;

use autopack_shared::domain::ids::{Digest, Oid, RunId};
use autopack_shared::wire::pb::{FetchRequest, fetch_chunk};

use crate::builder::BuildError;
use crate::line::{Line, passes};

/// Packs that may arrive as something else than was announced.
const TRIES: u32 = 6;

/// How long nothing may arrive.
const SILENCE: Duration = Duration::from_secs(30);

/// Bytes of one pack.
const MAX_PACK: u64 = 4 << 30;

/// What a commit is fetched for.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// A lease that starts from it.
    Lease {
        /// The run.
        run: RunId,
        /// Its epoch.
        epoch: u64,
    },
    /// A survey that is about it.
    Survey(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease { run, epoch } => write!(f, "run {run} at epoch {epoch}"),
            Self::Survey(id) => write!(f, "survey {id}"),
        }
    }
}

/// Who fetches, and what for.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// The worker.
    pub(crate) worker: String,
    /// Its session.
    pub(crate) session: String,
    /// What for.
    pub(crate) cause: Cause,
}

/// What has arrived of a pack.
#[derive(Debug, Default)]
struct Partial {
    digest: String,
    size: u64,
    bytes: Vec<u8>,
}

/// The pack of a commit, without what the commits in `have` bring. A way that is broken is tried again for as long as the
/// lease has time.
///
/// # Errors
/// `fetch_refused` with the supervisor's reason, or `fetch_cut` where again and again something else arrives.
pub(crate) async fn pack(line: &Line, claim: &Claim, commit: Oid, have: &[Oid]) -> Result<Vec<u8>, BuildError> {
    let mut partial = Partial::default();
    let mut pauses = line.pauses();
    let (mut wrong, mut last) = (0, String::new());
    while wrong < TRIES {
        match stream(line, claim, commit, have, &mut partial).await {
            Ok(()) if Digest::of(&partial.bytes).to_string() == partial.digest => return Ok(partial.bytes),
            Ok(()) => {
                wrong += 1;
                "what arrived is not what was announced".clone_into(&mut last);
                partial = Partial::default();
            }
            Err(Cut::Refused(why)) => return Err(BuildError::new("fetch_refused", why)),
            Err(Cut::Broken(why)) => {
                tracing::warn!(cause = %claim.cause, why, "the commit could not be fetched");
                last = why;
            }
        }
        if !pauses.next().await {
            break;
        }
    }
    Err(BuildError::new("fetch_cut", last))
}

/// Why a stream ended early.
enum Cut {
    /// The supervisor does not want it.
    Refused(String),
    /// The way there is broken.
    Broken(String),
}

async fn stream(line: &Line, claim: &Claim, commit: Oid, have: &[Oid], partial: &mut Partial) -> Result<(), Cut> {
    let Some(mut client) = line.client() else { return Err(Cut::Broken("no supervisor is connected".to_owned())) };
    let (run_id, epoch, survey_id) = match &claim.cause {
        Cause::Lease { run, epoch } => (run.to_string(), *epoch, String::new()),
        Cause::Survey(id) => (String::new(), 0, id.clone()),
    };
    let call = FetchRequest {
        worker_id: claim.worker.clone(),
        session: claim.session.clone(),
        run_id,
        epoch,
        survey_id,
        commit: commit.to_string(),
        have: have.iter().map(ToString::to_string).collect(),
        digest: partial.digest.clone(),
        offset: partial.bytes.len() as u64,
    };
    let mut chunks = client.fetch_objects(call).await.map_err(|status| of(&status))?.into_inner();
    loop {
        let next = tokio::time::timeout(SILENCE, chunks.message()).await;
        let next = next.map_err(|_| Cut::Broken(format!("nothing arrived for {} s", SILENCE.as_secs())))?;
        match next.map_err(|status| of(&status))?.and_then(|chunk| chunk.body) {
            Some(fetch_chunk::Body::Header(header)) => {
                if header.size > MAX_PACK {
                    return Err(Cut::Refused(format!("a pack of {} bytes is too large", header.size)));
                }
                if header.offset != partial.bytes.len() as u64 || header.digest != partial.digest {
                    partial.bytes.clear();
                }
                (partial.digest, partial.size) = (header.digest, header.size);
            }
            Some(fetch_chunk::Body::Data(data)) => partial.bytes.extend_from_slice(&data),
            None => break,
        }
        if partial.bytes.len() as u64 > partial.size {
            return Err(Cut::Refused("more bytes than announced".to_owned()));
        }
    }
    if partial.bytes.len() as u64 == partial.size && !partial.digest.is_empty() {
        return Ok(());
    }
    Err(Cut::Broken(format!("{} of {} bytes arrived", partial.bytes.len(), partial.size)))
}

fn of(status: &tonic::Status) -> Cut {
    let why = status.message().to_owned();
    if passes(status) { Cut::Broken(why) } else { Cut::Refused(why) }
}

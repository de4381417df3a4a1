//! What a builder prints, told while it works: the first lines at once, then some at a time, until there have been
//! enough. What was not told is in the transcript.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::Digest;
use autopack_shared::wire::pb;

use super::{EventSink, Job, Runner};
use crate::process::output::{Output, Printed};
use crate::upload;

/// Between two batches of lines.
const PAUSE: Duration = Duration::from_millis(250);

/// Bytes of lines that are told of one attempt, and what a batch costs at least: each is a commit of the store.
const BUDGET: usize = 256 * 1024;
const LEAST: usize = 256;

/// How long it may take to have a transcript kept, also where the lease or its time has ended.
const KEEPING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3));

/// Does work, and tells what it prints meanwhile; with what it printed in all.
pub(super) async fn told<T>(work: impl Future<Output = T>, output: &Output, sink: &EventSink) -> (T, Option<Printed>) {
    // Nothing is dropped half-way: an event has its number before there is room for it.
    let (done, ()) = tokio::join!(
        async {
            let done = work.await;
            output.close();
            done
        },
        tell(output, sink)
    );
    let output = output.clone();
    // A thread that panics has nothing to show.
    let printed = tokio::task::spawn_blocking(move || output.printed()).await.ok().flatten();
    if let Some(printed) = printed.as_ref().filter(|printed| printed.untold > 0) {
        let (run, phase, attempt) = (&sink.job.run, &sink.job.phase, sink.job.attempt);
        let more = format!(
            "... {} bytes more were printed: autopack runs transcript {run} {phase} --attempt {attempt}",
            printed.untold
        );
        sink.send("builder.output", more).await;
    }
    (done, printed)
}

async fn tell(output: &Output, sink: &EventSink) {
    let mut left = BUDGET;
    while left > 0 && output.news().await {
        let lines = output.lines();
        left = left.saturating_sub(lines.len().max(LEAST));
        sink.send("builder.output", lines).await;
        tokio::select! {
            () = output.closed() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

impl Runner {
    /// Has kept what was printed, for as long as that may take; the digest it is kept under. An attempt is not lost for
    /// it.
    pub(super) async fn keep(
        &self,
        job: &Job,
        printed: Printed,
        sink: &EventSink,
        cancel: &CancellationToken,
    ) -> Option<String> {
        let header = pb::TranscriptHeader {
            worker_id: self.worker.clone(),
            session: self.session.clone(),
            run_id: job.run.to_string(),
            epoch: job.epoch,
            phase_id: job.phase.to_string(),
            attempt: job.attempt,
            digest: Digest::of(&printed.body).to_string(),
            size: printed.body.len() as u64,
        };
        let time = if cancel.is_cancelled() { KEEPING.1 } else { KEEPING.0 };
        let sent = tokio::time::timeout(time, upload::transcript(&self.line, &header, printed.body)).await;
        match sent.unwrap_or_else(|_| Err("it took too long".to_owned())) {
            Ok(digest) => Some(digest),
            Err(why) => {
                tracing::warn!(run = header.run_id, why, "a transcript could not be kept");
                sink.send("builder.output", format!("... what it printed could not be kept: {why}")).await;
                None
            }
        }
    }
}

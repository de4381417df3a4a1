//! How a job ends, whatever it hangs in: by itself, when its time is up, with its lease, or by a panic; and as what.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::budget::Stop;
use autopack_shared::domain::record::LeasePurpose;
use autopack_shared::domain::usage::Usage;
use autopack_shared::wire::pb;

use super::verify::Gated;
use super::{Built, Job, JobOutput};
use crate::builder::BuildError;

/// How long work that was told to stop has to wind down: a process group is killed within it.
pub(super) const WIND_DOWN: Duration = Duration::from_secs(8);

/// The wall time of one try at a job.
pub(super) fn wall(job: &Job) -> Duration {
    let gate: u64 = match job.purpose {
        LeasePurpose::Build => 0,
        // Each command may be run three times here, and twice on the base.
        LeasePurpose::Verify => job.gate.iter().map(|command| command.timeout.saturating_mul(5)).sum(),
    };
    Duration::from_secs(job.spec.timeout.saturating_add(gate))
}

/// Does work until its time is up or its lease ends. It is told so by the token that it gets, and left behind where it
/// does not wind down: a call that hangs in the system must not hold a lease.
pub(super) async fn bounded<T, F: Future<Output = Result<T, BuildError>>>(
    (wall, wind_down): (Duration, Duration),
    cancel: &CancellationToken,
    work: impl FnOnce(CancellationToken) -> F,
) -> Result<T, BuildError> {
    let stop = cancel.child_token();
    let work = work(stop.clone());
    tokio::pin!(work);
    let ended = tokio::select! {
        done = &mut work => return done,
        () = cancel.cancelled() => BuildError::new("cancelled", "the lease ended"),
        () = tokio::time::sleep(wall) => {
            BuildError::new("timeout", format!("it was still running after {} s and was ended", wall.as_secs()))
        }
    };
    stop.cancel();
    match tokio::time::timeout(wind_down, work).await {
        Err(_) => tracing::warn!("a job did not wind down and is left behind"),
        // What it was asked for by then is known.
        Ok(Err(own)) => {
            return Err(BuildError {
                usage: own.usage,
                credential: own.credential,
                retry_after: own.retry_after,
                ..ended
            });
        }
        Ok(Ok(_)) => {}
    }
    Err(ended)
}

/// Runs a job to its last word: where it panics, that is said for it.
pub(crate) async fn last_word(
    job: Job,
    out: mpsc::Sender<JobOutput>,
    cancel: CancellationToken,
    run: impl Future<Output = ()>,
) {
    if AssertUnwindSafe(run).catch_unwind().await.is_err() && !cancel.is_cancelled() {
        let error = BuildError::new("panicked", "the worker met a bug in itself; its log says more");
        // A stream that is gone has taken the lease with it.
        let _gone = out.send(JobOutput::Done(Box::new(result(&job, 0, Err(error))))).await;
    }
}

/// Adds what a gate came to.
fn tell(result: &mut pb::AttemptResult, gated: &Gated) {
    if !gated.report.green {
        result.set_outcome(pb::Outcome::Failed);
        "gate_failed".clone_into(&mut result.reason);
        result.message = gated.report.line().chars().take(2000).collect();
    }
    // Plain data, which is always written.
    result.gate_json = serde_json::to_string(&gated.report).unwrap_or_default();
    if !gated.learned.is_empty() {
        result.baselines_json = serde_json::to_string(&gated.learned).unwrap_or_default();
    }
}

/// What is said of a job that ended.
pub(super) fn result(job: &Job, run_seq: u64, done: Result<Built, BuildError>) -> pb::AttemptResult {
    let mut result = pb::AttemptResult {
        run_id: job.run.to_string(),
        epoch: job.epoch,
        phase_id: job.phase.to_string(),
        attempt: job.attempt,
        run_seq,
        base: job.base.to_string(),
        ..Default::default()
    };
    match done {
        Ok(built) => {
            result.set_outcome(pb::Outcome::Ok);
            if let Some(gated) = built.gate {
                tell(&mut result, &gated);
            }
            result.result_tree = built.tree.to_string();
            result.notes = built.notes;
            result.usage = built.usage.map(usage);
            result.credential = built.credential.unwrap_or_default();
        }
        Err(error) => {
            result.set_outcome(pb::Outcome::Failed);
            error.reason.clone_into(&mut result.reason);
            result.message = error.message.chars().take(2000).collect();
            result.usage = error.usage.map(usage);
            result.budget_unit = error.stop.map(Stop::as_str).unwrap_or_default().to_owned();
            result.credential = error.credential.map(String::from).unwrap_or_default();
            let wait = error.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            result.retry_after_ms = wait.unwrap_or_default();
        }
    }
    result
}

const fn usage(usage: Usage) -> pb::Usage {
    let Usage { input_tokens, output_tokens, cost_micros, calls, unsaid } = usage;
    let (tokens_unsaid, cost_unsaid, calls_unsaid) = (unsaid.tokens, unsaid.cost, unsaid.calls);
    pb::Usage { input_tokens, output_tokens, cost_micros, calls, tokens_unsaid, cost_unsaid, calls_unsaid }
}

#[cfg(test)]
pub(super) mod tests {
    use autopack_shared::domain::ids::Oid;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(600);

    pub(in crate::phase) fn job() -> Job {
        let grant = pb::Grant {
            run_id: "r".to_owned(),
            project: "shop".to_owned(),
            epoch: 3,
            phase_id: "p".to_owned(),
            attempt: 2,
            purpose: "build".to_owned(),
            base: Oid::ZERO.to_string(),
            phase_json: r#"{"id":"p","goal":"x","builder":{"kind":"command","argv":["true"]}}"#.to_owned(),
            ..Default::default()
        };
        Job::read(&grant).unwrap()
    }

    #[tokio::test]
    async fn what_hangs_ends_with_its_time_and_with_its_lease() {
        let lease = CancellationToken::new();
        let hangs = |_: CancellationToken| std::future::pending::<Result<(), BuildError>>();
        let error = bounded((SHORT, SHORT), &lease, hangs).await.unwrap_err();
        assert_eq!(error.reason, "timeout");
        assert!(!lease.is_cancelled(), "the lease itself goes on");
        lease.cancel();
        assert_eq!(bounded((LONG, SHORT), &lease, hangs).await.unwrap_err().reason, "cancelled");
    }

    #[tokio::test]
    async fn work_is_told_and_winds_down() {
        let told = CancellationToken::new();
        let listens = |stop: CancellationToken| async {
            stop.cancelled_owned().await;
            told.cancel();
            Ok(())
        };
        let error = bounded((SHORT, LONG), &CancellationToken::new(), listens).await.unwrap_err();
        assert_eq!(error.reason, "timeout");
        assert!(told.is_cancelled());
        let done = bounded((LONG, LONG), &CancellationToken::new(), |_| async { Ok(7) }).await;
        assert_eq!(done.unwrap(), 7);
    }

    #[tokio::test]
    async fn what_was_spent_by_its_end_is_told() {
        let spent = Usage { calls: 2, input_tokens: 700, ..Usage::default() };
        let spends = |stop: CancellationToken| async move {
            stop.cancelled_owned().await;
            Err::<(), _>(BuildError::new("cancelled", "stopped").after(spent).of_credential("main", None))
        };
        let error = bounded((SHORT, LONG), &CancellationToken::new(), spends).await.unwrap_err();
        assert_eq!((error.reason, error.usage, error.credential.as_deref()), ("timeout", Some(spent), Some("main")));
    }

    #[tokio::test]
    async fn a_panic_ends_its_lease_with_a_failure() {
        let (out, mut said) = mpsc::channel(1);
        last_word(job(), out.clone(), CancellationToken::new(), async { panic!("a bug") }).await;
        let Some(JobOutput::Done(result)) = said.recv().await else { panic!("nothing was said") };
        assert_eq!((result.outcome(), result.reason.as_str()), (pb::Outcome::Failed, "panicked"));
        assert_eq!((result.run_id.as_str(), result.epoch, result.attempt), ("r", 3, 2));
        last_word(job(), out, CancellationToken::new(), async {}).await;
        assert!(said.recv().await.is_none(), "who ends by himself has said it himself");
    }
}

//! One run at a time, as a person sees it: submitted, built by a command, decided, applied.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Instant, timeout};
use tonic::Streaming;

use autopack_shared::wire::pb::{
    Choice, DecideRequest, DiffRequest, Event, ListRequestsRequest, Request, SubmitRequest, WatchRequest,
};

use super::cluster::{Cluster, Person, Who};
use super::{Bench, late};
use crate::exit::{CliError, During as _};

/// How long one step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both people, and what they do with runs.
pub(super) struct Life<'a> {
    bench: &'a Bench<'a>,
    author: Person,
    approver: Person,
    kind: &'static str,
    count: u32,
}

/// A run whose change waits for a decision.
pub(super) struct Waiting {
    name: String,
    request: Request,
    events: Streaming<Event>,
    /// From the call to the builder's own clock.
    pub(super) first_byte: Duration,
}

impl<'a> Life<'a> {
    pub(super) async fn new(bench: &'a Bench<'a>, cluster: &Cluster, kind: &'static str) -> Result<Self, CliError> {
        let (author, approver) = (cluster.person(Who::Author).await?, cluster.person(Who::Approver).await?);
        Ok(Self { bench, author, approver, kind, count: 0 })
    }

    /// Submits a run and waits until its change waits.
    pub(super) async fn submit(&mut self) -> Result<Waiting, CliError> {
        self.count += 1;
        let name = format!("{}-{}", self.kind, self.count);
        let path = format!("examples/{name}.txt");
        let phase = json!({
            "id": "one", "goal": format!("write {path}"), "category": "documentation", "scope": { "paths": [path] },
            "builder": { "kind": "command", "argv": ["/bin/sh", "-c", format!("date +%s%N > {path}")] },
        });
        let call = SubmitRequest {
            idempotency_key: self.bench.fresh("submit"),
            run_file_json: json!({ "run_id": name, "phases": [phase] }).to_string(),
            insecure_no_sandbox: true,
            ..SubmitRequest::default()
        };
        let began = wall();
        self.author.runs.submit(call).await.during("submit a run")?;
        let watch = WatchRequest { run_id: name.clone(), after_seq: 0, once: false };
        let mut events = self.author.runs.watch(watch).await.during("watch a run")?.into_inner();
        until(&mut events, "phase.approval_pending").await?;
        let list = ListRequestsRequest { run_id: name.clone(), ..ListRequestsRequest::default() };
        let listed = self.author.governance.list(list).await.during("list what waits")?.into_inner();
        let request = listed.requests.into_iter().next().ok_or_else(|| unexpected("nothing waits for a decision"))?;
        let diff = DiffRequest { run_id: name.clone(), phase_id: "one".to_owned(), ..DiffRequest::default() };
        let diff = self.author.runs.diff(diff).await.during("read a change")?.into_inner();
        let text = String::from_utf8_lossy(&diff.diff).into_owned();
        let nanos = text.lines().find_map(|line| line.strip_prefix('+')?.trim().parse::<u64>().ok());
        let nanos = nanos.ok_or_else(|| unexpected("the builder wrote no time"))?;
        let first_byte = Duration::from_nanos(nanos).saturating_sub(began);
        Ok(Waiting { name, request, events, first_byte })
    }

    /// Approves, and waits for the start of the apply: how long that took.
    pub(super) async fn approve(&mut self, mut waiting: Waiting) -> Result<Duration, CliError> {
        let call = DecideRequest {
            idempotency_key: self.bench.fresh("decide"),
            request_id: waiting.request.id.clone(),
            choice: Choice::Approve.into(),
            expected_digest: waiting.request.subject_digest.clone(),
            reason: "bench".to_owned(),
            reason_code: String::new(),
        };
        let from = Instant::now();
        let (decided, started) = tokio::join!(self.approver.governance.decide(call), async {
            until(&mut waiting.events, "phase.applying").await.map(|()| from.elapsed())
        });
        decided.during("approve")?;
        let took = started?;
        until(&mut waiting.events, "run.succeeded").await?;
        Ok(took)
    }

    /// Cancels a run that was only to begin.
    pub(super) async fn cancel(&mut self, mut waiting: Waiting) -> Result<(), CliError> {
        let call = autopack_shared::wire::pb::SteerRequest {
            idempotency_key: self.bench.fresh("cancel"),
            run_id: waiting.name.clone(),
            op: autopack_shared::wire::pb::SteerOp::Cancel.into(),
            ..Default::default()
        };
        self.author.runs.steer(call).await.during("cancel a run")?;
        until(&mut waiting.events, "run.cancelled").await
    }
}

/// Reads a run's history until something happens.
async fn until(events: &mut Streaming<Event>, kind: &str) -> Result<(), CliError> {
    let found = async {
        while let Some(event) = events.message().await.during("watch a run")? {
            if event.kind == kind {
                return Ok(());
            }
            if matches!(event.kind.as_str(), "run.failed" | "phase.failed" | "phase.blocked") {
                return Err(unexpected(&event.text));
            }
        }
        Err(unexpected(&format!("a run ended before {kind}")))
    };
    timeout(PATIENCE, found).await.map_err(|_| late(kind))?
}

fn unexpected(why: &str) -> CliError {
    CliError::refused("internal", "a run of the benchmark went another way", why, "try again with -v")
}

/// Wall time, which the builder's own clock is compared with.
#[expect(clippy::disallowed_methods, reason = "another process on this machine tells the time by the same clock")]
fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

//! The scan that a supervisor asked for: the commit is fetched into the mirror, checked out beside it, looked at by the
//! same detectors as a work tree, and thrown away. It takes no slot and changes nothing; there is one at a time.

use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::gap::GapReportV1;
use autopack_shared::domain::ids::{Oid, ProjectId, RunId, Timestamp};
use autopack_shared::domain::survey::MAX_REPORT;
use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::wire::pb::{ScanOrder, ScanResult};

use crate::builder::BuildError;
use crate::fetch::Cause;
use crate::link::LinkError;
use crate::runners::Runners;
use crate::scan::{ScanOptions, scan};

/// Answers that may wait for the stream.
const WAITING: usize = 4;

/// The run that a report is for before the supervisor says which.
const NOBODY: &str = "scan";

struct Current {
    survey: String,
    cancel: CancellationToken,
    answer: Option<ScanResult>,
}

/// The newest scan and its answer. They outlive the stream they came by: whoever asks again for the same one is
/// answered with what there is.
pub(crate) struct Scans {
    current: Option<Current>,
    out: mpsc::Sender<ScanResult>,
    from: mpsc::Receiver<ScanResult>,
    // Held while files are read: what was cancelled in the middle of it is waited for.
    turn: Arc<Mutex<()>>,
}

impl Scans {
    pub(crate) fn new() -> Self {
        let (out, from) = mpsc::channel(WAITING);
        Self { current: None, out, from, turn: Arc::default() }
    }

    /// Starts a scan in place of an earlier one.
    pub(crate) fn start(&mut self, order: ScanOrder, runners: &Arc<Runners>, tasks: &Tasks) {
        if let Some(current) = self.current.as_ref().filter(|current| current.survey == order.survey_id) {
            if let Some(answer) = current.answer.clone() {
                // A full channel has it already, and a supervisor that misses it asks again.
                let _there = self.out.try_send(answer);
            }
            return;
        }
        let cancel = CancellationToken::new();
        let current = Current { survey: order.survey_id.clone(), cancel: cancel.clone(), answer: None };
        if let Some(earlier) = self.current.replace(current) {
            earlier.cancel.cancel();
        }
        let (runners, out, turn) = (runners.clone(), self.out.clone(), self.turn.clone());
        tasks.spawn("scan", OnError::Log, async move {
            let survey_id = order.survey_id.clone();
            let Some(scanned) = cancel.run_until_cancelled(scanned(&runners, order, turn)).await else {
                return Ok::<_, LinkError>(());
            };
            // Nobody is left to tell when the worker has ended.
            let _gone = out.send(answer(survey_id, scanned)).await;
            Ok(())
        });
    }

    /// The next answer. Safe to cancel.
    pub(crate) async fn next(&mut self) -> ScanResult {
        let Some(answer) = self.from.recv().await else { return std::future::pending().await };
        if let Some(current) = self.current.as_mut().filter(|current| current.survey == answer.survey_id) {
            current.answer = Some(answer.clone());
        }
        answer
    }
}

/// What came of it as a message; a report that is too large to be sent is a failure.
fn answer(survey_id: String, scanned: Result<GapReportV1, BuildError>) -> ScanResult {
    let json = scanned.and_then(|report| {
        let json = serde_json::to_string(&report).map_err(|e| BuildError::of("scan_failed", &e))?;
        if json.len() > MAX_REPORT {
            let why =
                format!("the report has {} bytes, and {MAX_REPORT} are sent; --since makes it smaller", json.len());
            return Err(BuildError::new("too_large", why));
        }
        Ok(json)
    });
    match json {
        Ok(report_json) => ScanResult { survey_id, report_json, ..ScanResult::default() },
        Err(BuildError { reason, message, .. }) => {
            ScanResult { survey_id, reason: reason.to_owned(), message, ..ScanResult::default() }
        }
    }
}

async fn scanned(runners: &Runners, order: ScanOrder, turn: Arc<Mutex<()>>) -> Result<GapReportV1, BuildError> {
    let unreadable = |why: String| BuildError::new("scan_failed", format!("the order cannot be read: {why}"));
    let project: ProjectId = order.project.parse().map_err(|e| unreadable(format!("{e}")))?;
    let commit: Oid = order.commit.parse().map_err(|e| unreadable(format!("{e}")))?;
    let since = Some(order.since.as_str()).filter(|since| !since.is_empty());
    let since: Option<Oid> = since.map(str::parse).transpose().map_err(|e| unreadable(format!("{e}")))?;
    let anchor = Some(order.anchor_json.as_str()).filter(|text| !text.is_empty()).map(IntentionAnchorV2::parse);
    let anchor = anchor.transpose().map_err(|e| unreadable(e.to_string()))?;
    let run = RunId::new(NOBODY).map_err(|e| unreadable(e.to_string()))?;
    let runner = runners.of(&project).await.map_err(|e| BuildError::of("workspace", &e))?;
    for wanted in [Some(commit), since].into_iter().flatten() {
        runner.fetch(Cause::Survey(order.survey_id.clone()), wanted).await?;
    }
    let turn = turn.lock_owned().await;
    let copy = runner.workspaces.scan_copy(commit, Some(order.branch).filter(|name| !name.is_empty())).await?;
    // Which changes are protected does not matter: a fresh checkout has none.
    let mut options = ScanOptions::new(run, project, Timestamp::from_millis(0));
    (options.deep, options.since, options.anchor) = (order.deep, since, anchor);
    let scanning = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        scan(copy.path(), &options)
    });
    let report = scanning.await.map_err(|e| BuildError::new("scan_failed", format!("it panicked: {e}")))?;
    report.map_err(|error| match error.reason() {
        "not_found" => BuildError::of("not_found", &error),
        _ => BuildError::of("scan_failed", &error),
    })
}

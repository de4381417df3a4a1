//! Files for people and for the seed's tools, derived from the store and never read back: `run.log`,
//! `governance/{request,decision}_<id>.json`. Writing them again gives the same files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::json;

use autopack_shared::domain::ids::RunId;
use autopack_shared::domain::record::{Event, Phase, Request};
use autopack_shared::domain::state::RequestState;

use crate::store::{RequestFilter, Store, StoreError};

/// Events read at a time.
const PAGE: u32 = 500;

/// No line of a log is longer: an event's text has 500 characters, each of at most ten once escaped.
const LONGEST_LINE: u64 = 64 * 1024;

/// Why an export was not written. The store has everything all the same.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A document that is no JSON; a bug.
    #[error("a document cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Writes the exports of runs below a data directory.
#[derive(Debug)]
pub struct Exporter {
    data_dir: PathBuf,
    // The last event written of each run, so that a log is read back once a process. Never held across an await.
    written: Mutex<HashMap<RunId, u64>>,
}

impl Exporter {
    /// Below `<data_dir>/<run_id>/`.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, written: Mutex::new(HashMap::new()) }
    }

    fn written(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, u64>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a run's history has lines that are not known to be written.
    #[must_use]
    pub fn is_behind(&self, run: &RunId, lines: u64) -> bool {
        self.written().get(run).is_none_or(|written| *written < lines)
    }

    /// Brings the files of a run up to date.
    ///
    /// # Errors
    /// When a file cannot be written or the store not read.
    pub async fn sync(&self, store: &dyn Store, run: &RunId) -> Result<(), ExportError> {
        let folder = self.data_dir.join(run.as_str());
        let log = folder.join("run.log");
        let known = self.written().get(run).copied();
        let mut after = known.unwrap_or_else(|| last_seq(&log));
        let mut tx = store.read().await?;
        if tx.run(run).await?.is_none() {
            return Ok(());
        }
        let mut fresh = false;
        loop {
            let events = tx.events(run, after, PAGE).await?;
            let Some(last) = events.last() else { break };
            after = last.seq;
            append(&log, &events)?;
            // At once: where a later file fails, these lines are not written again.
            self.written().insert(run.clone(), after);
            fresh = true;
        }
        if !fresh && known.is_some() {
            return Ok(());
        }
        let filter = RequestFilter { run: Some(run.clone()), ..RequestFilter::default() };
        for request in tx.requests(&filter).await? {
            let governance = folder.join("governance");
            write_json(&governance.join(format!("request_{}.json", request.id)), &request_json(&request))?;
            if !matches!(request.state, RequestState::Pending) {
                write_json(&governance.join(format!("decision_{}.json", request.id)), &decision_json(&request))?;
            }
        }
        for phase in tx.phases(run).await? {
            let name = format!("phase_{}_{}.md", phase.ordinal, phase.id);
            write_text(&folder.join("phases").join(name), &phase_page(&phase))?;
        }
        self.written().insert(run.clone(), after);
        Ok(())
    }
}

/// The number in front of the log's last whole line. A line cut short by a crash is written again after it.
fn last_seq(log: &Path) -> u64 {
    let Ok(text) = std::fs::read_to_string(log) else { return 0 };
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().rev().find_map(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn append(log: &Path, events: &[Event]) -> Result<(), ExportError> {
    let failed = |source| ExportError::Io { path: log.to_path_buf(), source };
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut lines = String::new();
    for event in events {
        let phase = event.phase.as_ref().map_or("-", |p| p.as_str());
        // One event is one line whatever a builder printed.
        let text = event.text.escape_debug();
        lines.push_str(&format!("{} {} {} {phase} {text}\n", event.seq, event.at, event.kind));
    }
    let mut file = std::fs::OpenOptions::new().create(true).read(true).append(true).open(log).map_err(failed)?;
    let before = whole_lines(&mut file).map_err(failed)?;
    let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
    written.map_err(|error| {
        // Half a page would be written again after it; what cannot be cut off now is cut off next time.
        let _cut = file.set_len(before);
        failed(error)
    })
}

/// Cuts off a last line that a crash left half-written; how long the file is then.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let tail = length.min(LONGEST_LINE);
    file.seek(SeekFrom::Start(length - tail))?;
    let mut text = Vec::new();
    file.take(tail).read_to_end(&mut text)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end as u64 + 1);
    let end = length - tail + whole;
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}

/// Writes JSON through a temporary file; an equal file is left alone.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), ExportError> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_text(path, &text)
}

fn write_text(path: &Path, text: &str) -> Result<(), ExportError> {
    let failed = |source| ExportError::Io { path: path.to_path_buf(), source };
    if std::fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// A phase as a page. Words of builders and authors are quoted, so that none of them becomes a heading or a link.
fn phase_page(phase: &Phase) -> String {
    let quote = |text: &str| text.lines().map(|l| format!("    {}\n", l.escape_debug())).collect::<String>();
    let mut page = format!("# Phase {}\n\n", phase.id);
    page.push_str(&format!("- state: {}\n- attempt: {}\n", phase.state.as_str().to_uppercase(), phase.attempt));
    if let (Some(base), Some(tree)) = (phase.base, phase.tree) {
        page.push_str(&format!("- change: commit {base} to tree {tree}\n"));
    }
    if let Some(request) = &phase.request {
        page.push_str(&format!("- request: {request}\n"));
    }
    page.push_str(&format!("\n## Goal\n\n{}", quote(&phase.spec.goal)));
    if let Some(reason) = &phase.reason {
        page.push_str(&format!("\n## Where it stands\n\n{}", quote(reason)));
    }
    if !phase.feedback.is_empty() {
        page.push_str("\n## What earlier attempts were told\n\n");
        phase.feedback.iter().for_each(|words| page.push_str(&quote(words)));
    }
    page
}

/// The seed's request document.
#[must_use]
pub fn request_json(request: &Request) -> serde_json::Value {
    json!({
        "format": "governance_request/1",
        "request_id": request.id,
        "run_id": request.run,
        "phase_id": request.phase,
        "attempt": request.attempt,
        "timestamp": request.created_at,
        "created_at": request.created_at,
        "expires_at": request.expires_at,
        "violated_paths": request.violated_paths,
        "justification": request.justification,
        "risk_level": request.risk_level,
        "risk_assessment": { "level": request.risk_level, "score": request.risk_score, "factors": request.risk_factors },
        "tier": request.tier,
        "subject_digest": request.subject_digest,
        "base": request.base,
        "tree": request.tree,
        "target_ref": request.target_ref,
        "author": request.author.id,
        "approvers_needed": request.approvers_needed,
        "status": request.state.as_str().to_uppercase(),
    })
}

/// The seed's decision document.
#[must_use]
pub fn decision_json(request: &Request) -> serde_json::Value {
    let approved = matches!(request.state, RequestState::Approved | RequestState::Consumed);
    let mut document = request_json(request);
    document["format"] = json!("governance_decision/1");
    document["approved"] = json!(approved);
    document["approved_at"] = json!(request.decided_at);
    document["decision"] = json!({
        "approved": approved,
        "status": request.state.as_str().to_uppercase(),
        "approved_by": request.decided_by.as_ref().map(|p| &p.id),
        "method": request.decided_by.as_ref().map(|p| &p.method),
        "approved_at": request.decided_at,
        "notes": request.notes,
        "reason_code": request.reason_code,
        "carried_from": request.carried_from,
    });
    document
}

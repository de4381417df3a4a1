//! Telling people: at least once, and never in the way of a decision. Notices are rows, written in the transaction
//! that gives the reason; a channel takes them later.

use std::io::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::json;

use autopack_shared::domain::record::Notice;

/// A channel that did not take a notice; it is offered again.
#[derive(Debug, thiserror::Error)]
#[error("{channel} did not take the notice: {why}")]
pub struct NotifyError {
    /// The channel.
    pub channel: &'static str,
    /// Why.
    pub why: String,
}

/// A channel to people.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Hands one notice over.
    async fn send(&self, notice: &Notice) -> Result<(), NotifyError>;
}

/// Appends notices to a file, one JSON object a line, for whoever follows it.
#[derive(Debug)]
pub struct FileNotifier {
    path: PathBuf,
}

impl FileNotifier {
    /// Into this file.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }
}

#[async_trait]
impl Notifier for FileNotifier {
    async fn send(&self, notice: &Notice) -> Result<(), NotifyError> {
        let failed = |e: std::io::Error| NotifyError { channel: "the notice file", why: e.to_string() };
        let line = json!({
            "format": "notice/1", "notice_id": notice.id, "run_id": notice.run, "kind": notice.kind, "text": notice.text,
            "created_at": notice.created_at,
        });
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path).map_err(failed)?;
        file.write_all(format!("{line}\n").as_bytes()).map_err(failed)
    }
}

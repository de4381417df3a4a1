//! The gap scan. One walk lists the tree, one pass reads the text in it, and every detector looks at what they found:
//! pure readers that run nothing of the repository. Two scans of one tree give the same report.

use std::path::Path;
use std::sync::Arc;

use autopack_shared::domain::anchor::{IntentionAnchorV2, Profile};
use autopack_shared::domain::gap::{GapReportV1, HexDigest, ReportHead};
use autopack_shared::domain::ids::{Digest, Oid, ProjectId, RunId, Timestamp};
use autopack_shared::repo::status::StatusError;

mod baseline;
pub(crate) mod beneath;
pub(crate) mod charset;
mod conflicts;
mod content;
mod db_lock;
mod detector;
mod doc_drift;
mod encoding;
mod facts;
#[cfg(test)]
pub(crate) mod fixture;
mod git_state;
pub(crate) mod links;
pub(crate) mod listing;
mod memory_budget;
mod mentions;
pub(crate) mod names;
mod protected;
mod root_clutter;
mod sot_duplicate;
mod test_infra;

pub use protected::protected_by;

/// How much a scan looks at and tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// Files a gap lists when nothing is to be done with them by a remediation.
    pub evidence: usize,
    /// Files a remediation takes at once; the rest is counted in the gap and found by the next scan.
    pub targets: usize,
    /// Files up to this many bytes are read whole; larger ones are streamed, their links not followed.
    pub whole_bytes: usize,
    /// Documents above this many bytes are a gap.
    pub document_bytes: u64,
    /// Reading threads; 0 = one a processor.
    pub threads: usize,
}

impl Default for ScanLimits {
    fn default() -> Self {
        Self { evidence: 10, targets: 50, whole_bytes: 4 << 20, document_bytes: 100_000, threads: 0 }
    }
}

/// Tells whether a path is protected.
pub type IsProtected = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What to scan for, and for whom.
#[derive(Clone)]
pub struct ScanOptions {
    /// The run the report is for.
    pub run_id: RunId,
    /// The project the report is for.
    pub project_id: ProjectId,
    /// The time the report carries.
    pub now: Timestamp,
    /// Whether every stored object is read.
    pub deep: bool,
    /// Only gaps that touch what changed since this commit, uncommitted changes included.
    pub since: Option<Oid>,
    /// Where uncommitted changes are a violation.
    pub protected: IsProtected,
    /// The anchor in force: its protected paths block autopilot where its profile is strict.
    pub anchor: Option<IntentionAnchorV2>,
    /// How much is looked at and told.
    pub limits: ScanLimits,
}

impl ScanOptions {
    /// Options with the predecessor's protected folders and no anchor.
    #[must_use]
    pub fn new(run_id: RunId, project_id: ProjectId, now: Timestamp) -> Self {
        Self {
            run_id,
            project_id,
            now,
            deep: false,
            since: None,
            protected: Arc::new(protected::by_default),
            anchor: None,
            limits: ScanLimits::default(),
        }
    }
}

impl std::fmt::Debug for ScanOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanOptions")
            .field("run_id", &self.run_id)
            .field("project_id", &self.project_id)
            .field("deep", &self.deep)
            .field("since", &self.since)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The folder cannot be scanned at all.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The folder cannot be opened.
    #[error("cannot open the folder to scan")]
    Root(#[source] std::io::Error),
}

impl ScanError {
    /// The stable reason code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Status(error) => error.reason(),
            Self::Root(_) => "unreadable",
        }
    }
}

/// Scans the work tree at `root`, the top folder of a repository.
///
/// # Errors
/// [`ScanError`] where the folder is no repository, is bare, has no commit, or `since` names none. Everything that
/// goes wrong later is a gap that blocks autopilot.
pub fn scan(root: &Path, options: &ScanOptions) -> Result<GapReportV1, ScanError> {
    let facts = facts::gather(root, options)?;
    let mut gaps = detector::run_all(&facts);
    for gap in &mut gaps {
        facts.mark_uncommitted(gap);
    }
    let head = ReportHead {
        project_id: options.project_id.to_string(),
        run_id: options.run_id.to_string(),
        generated_at: options.now,
        digest: facts.digest.as_ref().ok().map(|digest: &Digest| HexDigest::from(*digest)),
        workspace_state: facts.state(),
        notices: facts.notices(),
    };
    let mut report = GapReportV1::assemble(head, gaps);
    if let Some(anchor) = options.anchor.as_ref().filter(|a| a.profile() == Profile::Strict) {
        report.block_protected(protected::by_anchor(anchor));
    }
    Ok(report)
}

#[cfg(test)]
mod tests;

//! The built-in remediations: five kinds of gap, mended on the files of a private worktree. Each first works out
//! every change, then checks all of them against the scope, and only then touches a file: a plan that no longer fits
//! the tree changes nothing.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use autopack_shared::domain::gap::{Gap, GapType};

use crate::scan::beneath::Beneath;

mod baseline;
mod clutter;
mod duplicates;
mod encoding;
mod links;
mod tree;

pub use baseline::BASELINE_POLICY;

/// What to mend, and what may be touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemediationTask {
    /// Which kind of gap.
    pub gap_type: GapType,
    /// Which gap, for the notes.
    pub gap_id: String,
    /// The files the gap is about, in the order of its evidence.
    pub subjects: Vec<String>,
    /// Every path that may be written, created or deleted: the action's target paths.
    pub scope: Vec<String>,
}

impl RemediationTask {
    /// The task that mends a gap; none where no built-in remediation does.
    #[must_use]
    pub fn of(gap: &Gap) -> Option<Self> {
        Some(Self {
            gap_type: gap.gap_type,
            gap_id: gap.gap_id.clone(),
            subjects: gap.evidence.file_paths.clone(),
            scope: gap.safe_remediation.target_paths.clone()?,
        })
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemediationReport {
    /// Paths that were written, created or deleted, sorted.
    pub changed: Vec<String>,
    /// What was left alone, and why.
    pub notes: Vec<String>,
}

/// Why nothing was done. A failure of the file system may leave the worktree half changed: it is thrown away then.
#[derive(Debug, thiserror::Error)]
pub enum RemediationError {
    /// No built-in remediation mends this kind.
    #[error("there is no built-in remediation for {0}")]
    Unsupported(GapType),
    /// The tree has no such gap any more.
    #[error("there is nothing to do{}", .notes.first().map(|n| format!(": {n}")).unwrap_or_default())]
    NothingToDo {
        /// What was looked at, and why it needs nothing.
        notes: Vec<String>,
    },
    /// The tree has changed so that mending the gap would touch more than was planned.
    #[error("{path} would have to be changed and is outside the scope of this action; scan again")]
    OutOfScope {
        /// The first such path.
        path: String,
    },
    /// The file system refuses.
    #[error("cannot change {path}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RemediationError {
    /// The stable reason code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unsupported(_) => "unsupported",
            Self::NothingToDo { .. } => "nothing_to_do",
            Self::OutOfScope { .. } => "out_of_scope",
            Self::Io { .. } => "io",
        }
    }
}

/// One change of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Edit {
    /// Gives a file another place.
    Move {
        from: String,
        to: String,
    },
    /// Gives a file other bytes, or creates it.
    Write {
        path: String,
        bytes: Vec<u8>,
    },
    Remove {
        path: String,
    },
}

/// What a remediation means to do.
#[derive(Debug, Default)]
struct Draft {
    edits: Vec<Edit>,
    notes: Vec<String>,
}

impl Draft {
    fn write(&mut self, path: &str, bytes: Vec<u8>) {
        self.edits.push(Edit::Write { path: path.to_owned(), bytes });
    }

    fn note(&mut self, path: &str, why: &str) {
        self.notes.push(format!("{path}: {why}"));
    }
}

/// Whether a kind of gap has a built-in remediation.
#[must_use]
pub const fn is_supported(kind: GapType) -> bool {
    match kind {
        GapType::DocDrift
        | GapType::RootClutter
        | GapType::SotDuplicate
        | GapType::WindowsEncodingIssue
        | GapType::BaselinePolicyDrift => true,
        GapType::TestInfraDrift
        | GapType::MemoryBudgetCapIssue
        | GapType::ProtectedPathViolation
        | GapType::DbLockContention
        | GapType::GitStateCorruption
        | GapType::Unknown => false,
    }
}

/// Every path that mending a gap touches; empty where no built-in remediation mends it.
#[must_use]
pub fn planned_paths(gap: &Gap) -> Vec<String> {
    gap.safe_remediation.target_paths.clone().unwrap_or_default()
}

/// Mends a gap in the files below `tree`, a private worktree.
///
/// # Errors
/// [`RemediationError`]; nothing was changed unless it is `Io`.
pub fn remediate(tree: &Path, task: &RemediationTask) -> Result<RemediationReport, RemediationError> {
    let files = tree::Tree::open(tree)?;
    let draft = match task.gap_type {
        GapType::DocDrift => links::draft(&files, task)?,
        GapType::RootClutter => clutter::draft(&files, task)?,
        GapType::SotDuplicate => duplicates::draft(&files, task)?,
        GapType::WindowsEncodingIssue => encoding::draft(&files, task)?,
        GapType::BaselinePolicyDrift => baseline::draft(&files),
        kind @ (GapType::TestInfraDrift
        | GapType::MemoryBudgetCapIssue
        | GapType::ProtectedPathViolation
        | GapType::DbLockContention
        | GapType::GitStateCorruption
        | GapType::Unknown) => return Err(RemediationError::Unsupported(kind)),
    };
    if draft.edits.is_empty() {
        return Err(RemediationError::NothingToDo { notes: draft.notes });
    }
    let changed = in_scope(&draft.edits, &task.scope)?;
    apply(files.root(), &draft.edits)?;
    Ok(RemediationReport { changed, notes: draft.notes })
}

/// The paths the edits touch, if all of them may be touched.
fn in_scope(edits: &[Edit], scope: &[String]) -> Result<Vec<String>, RemediationError> {
    let touched: BTreeSet<&String> = edits
        .iter()
        .flat_map(|edit| match edit {
            Edit::Move { from, to } => vec![from, to],
            Edit::Write { path, .. } | Edit::Remove { path } => vec![path],
        })
        .collect();
    match touched.iter().find(|path| !scope.contains(path)) {
        Some(path) => Err(RemediationError::OutOfScope { path: (**path).clone() }),
        None => Ok(touched.into_iter().cloned().collect()),
    }
}

fn apply(root: &Beneath, edits: &[Edit]) -> Result<(), RemediationError> {
    for edit in edits {
        let (path, done) = match edit {
            Edit::Move { from, to } => (from, root.rename(from, to)),
            Edit::Write { path, bytes } => (path, root.write(path, bytes)),
            Edit::Remove { path } => (path, root.remove(path)),
        };
        done.map_err(|source| RemediationError::Io { path: path.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

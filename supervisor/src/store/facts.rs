//! Rows that only `audit verify` reads whole: what the log pins besides the rows of runs.

use serde::Serialize;

use autopack_shared::domain::ids::{RowId, RunId, Timestamp};
use autopack_shared::domain::record::{Command, Notice};

/// All of them, each kind in the order it was written.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// How many records the store says its log has.
    pub leaves: u64,
    /// How many of them have their position in the whole log: a store may give it a moment later.
    pub numbered: u64,
    /// Every fence.
    pub fences: Vec<FenceRow>,
    /// Every row of the size windows.
    pub windows: Vec<WindowRow>,
    /// Starts and ends of active leases, as commits brought them.
    pub leases: Vec<LeaseChange>,
    /// Every command.
    pub commands: Vec<Command>,
    /// Every notice.
    pub notices: Vec<Notice>,
}

/// A fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FenceRow {
    /// What it guards.
    pub scope: String,
    /// Its epoch.
    pub epoch: u64,
    /// Who has it.
    pub holder: String,
    /// Since when.
    pub granted_at: Timestamp,
}

/// Who has the fence that a run is created with.
pub const CREATED: &str = "created";

impl FenceRow {
    /// The chain that a scope's bumps are logged in.
    #[must_use]
    pub fn chain(scope: &str) -> String {
        match scope.split_once('/') {
            Some(("run" | "ws", run)) => format!("run/{run}"),
            _ => "cluster".to_owned(),
        }
    }
}

/// Lines of one path class that an apply adds to the windows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowRow {
    /// The apply.
    pub apply: RowId,
    /// The path class.
    pub class: String,
    /// The run.
    pub run: RunId,
    /// The run's project, as text.
    pub project: String,
    /// How many lines.
    pub lines: u64,
    /// When it was prepared.
    pub at: Timestamp,
}

/// A lease that began or ceased to be active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseChange {
    /// Rises with every commit that changes which leases are active.
    pub commit: u64,
    /// The lease.
    pub lease: String,
    /// Its project.
    pub project: String,
    /// Whether it began.
    pub starts: bool,
}

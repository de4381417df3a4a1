//! Gate commands, and how they report.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::path::RepoPath;

/// One command of a quality gate. It is the operator's, read at the fork commit, but it executes patched files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateCommand {
    /// What it is called in reports.
    pub name: String,
    /// The command line, run by `sh -c` at the root of the tree.
    pub run: String,
    /// How its output is read.
    #[serde(default)]
    pub report: GateReport,
    /// Where in the tree it leaves its JUnit report, for a tool that cannot write to `$AUTOPACK_REPORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_path: Option<String>,
    /// What tests mean that ran on the base and do not any more.
    #[serde(default, skip_serializing_if = "Vanished::is_default")]
    pub vanished: Vanished,
    /// Whether what the base fails too is charged all the same. Left out: only for a phase's own command that has no
    /// report, since that is there to see whether the phase did what it was to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_known: Option<bool>,
    /// Wall seconds.
    #[serde(default = "ten_minutes", alias = "timeout_seconds")]
    pub timeout: u64,
}

impl GateCommand {
    /// Whether the base excuses nothing; `own` says that it is a command of the phase and not of the project.
    #[must_use]
    pub fn is_strict(&self, own: bool) -> bool {
        self.charge_known.unwrap_or(own && self.report == GateReport::None)
    }

    /// What is wrong with how it reports, if anything.
    #[must_use]
    pub fn report_error(&self) -> Option<String> {
        let path = self.report_path.as_ref()?;
        if self.report != GateReport::Junit {
            return Some("report_path is for report = \"junit\"".to_owned());
        }
        RepoPath::parse(path).err().map(|e| format!("report_path: {path}: {e}"))
    }
}

const fn ten_minutes() -> u64 {
    600
}

/// How a gate command reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateReport {
    /// By its exit code alone.
    #[default]
    None,
    /// By a JUnit XML file (cargo-nextest, pytest, ...), at `$AUTOPACK_REPORT` or where `report_path` says.
    Junit,
    /// By what `cargo test` prints.
    Libtest,
}

/// What it means that a test of the base did not run on a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vanished {
    /// It is reported.
    #[default]
    Report,
    /// It blocks the change.
    Block,
}

impl Vanished {
    /// Whether it need not be written down.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

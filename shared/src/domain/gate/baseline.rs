//! What a command showed on the untouched base, and what that excuses: only what every run of it showed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{COMMAND, End, Observation, Reading, SHELL_TROUBLE, TestState};
use crate::domain::ids::Digest;

/// What a command showed on the untouched base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// How it exited.
    pub code: i32,
    /// What failed in every run; [`COMMAND`] stands for the command itself.
    pub failing: BTreeSet<String>,
    /// What failed once and passed once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub flaky: BTreeSet<String>,
    /// The tests that ran.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ran: BTreeSet<String>,
    /// Whether all tests that ran are listed: too many of them are left out, and then none can be told to have vanished.
    pub whole: bool,
}

impl Baseline {
    /// The baseline of one run, and of more where it had failures.
    ///
    /// # Errors
    /// Why there is none: a run of the base did not come to its end, or left a report that cannot be used. Then every
    /// failure of a change is charged to it.
    pub fn of(runs: &[&Observation]) -> Result<Self, String> {
        let mut code = None;
        for run in runs {
            let End::Exit(this) = run.end else { return Err(format!("the command {} on the base", run.end)) };
            if let Reading::Unusable(why) = &run.reading {
                return Err(format!("the report of the base {why}"));
            }
            code = Some(this);
        }
        let code = code.ok_or("the base was not run")?;
        let failed: BTreeSet<String> = runs.iter().flat_map(|run| run.failures()).collect();
        let same = runs.iter().all(|run| run.end == End::Exit(code));
        let always = |name: &&String| runs.iter().all(|run| run.failed(name)) && (*name != COMMAND || same);
        let ran = runs.iter().flat_map(|run| run.tests()).filter(|(_, test)| test.state != TestState::Skipped);
        Ok(Self {
            code,
            failing: failed.iter().filter(always).cloned().collect(),
            flaky: failed.iter().filter(|name| runs.iter().any(|run| run.passed(name))).cloned().collect(),
            ran: ran.map(|(name, _)| name.clone()).collect(),
            whole: true,
        })
    }

    /// The same without the names that only tell what vanished, for where there is too little room.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        self.whole &= self.ran.is_empty();
        self.ran.clear();
        self
    }

    /// The same without its failures: it tells what vanished, and excuses nothing.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.failing.clear();
        self.flaky.clear();
        self
    }

    /// Whether the untouched base fails like this too.
    pub(super) fn excuses(&self, name: &str, runs: &[&Observation]) -> bool {
        if name != COMMAND {
            return self.failing.contains(name);
        }
        // It ends in the same way, and its report can be used: otherwise it may hide anything.
        let same = |run: &&Observation| {
            !run.command_failed() || (run.end == End::Exit(self.code) && !matches!(run.reading, Reading::Unusable(_)))
        };
        self.failing.contains(COMMAND) && self.code < SHELL_TROUBLE && runs.iter().all(same)
    }
}

/// A baseline that was measured, and of which command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The command in its setting, as [`super::command_digest`] names it.
    pub command: Digest,
    /// What it showed.
    pub baseline: Baseline,
}

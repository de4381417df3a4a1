//! The quality gate's judgement: what a command showed on a change, compared with what it showed on the untouched base.
//! Only failures that are new and persistent block. Whatever is not known counts against the change.

mod baseline;
mod command;
mod report;
mod setting;
mod symbol;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use baseline::{Baseline, Measured};
pub use command::{GateCommand, GateReport, Vanished};
pub use report::{CommandReport, Finding, MAX_FEEDBACK, Report, Source};
pub use setting::{BaseData, Setting, command_digest};
pub use symbol::{SymbolRef, has_symbol};

/// The name under which a command itself is judged, beside its tests: no test is called so.
pub const COMMAND: &str = "";

/// Characters of a test's name.
pub const MAX_NAME: usize = 300;

/// Characters of a failure's message that are kept: its first lines.
pub const MAX_TEXT: usize = 400;

/// Bytes of a baseline as JSON; a larger one is trimmed to what failed.
pub const MAX_BASELINE: usize = 512 * 1024;

/// The first exit code by which a shell says that it could not run a command, or that a signal ended it.
const SHELL_TROUBLE: i32 = 126;

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By itself, with this code.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It was still running after so many seconds.
    Timeout(u64),
    /// It could not be started, and why.
    NotRun(String),
}

impl End {
    /// Whether it succeeded by itself.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        matches!(self, Self::Exit(0))
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exit(0) => f.write_str("passed"),
            Self::Exit(code) => write!(f, "exited with {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::Timeout(seconds) => write!(f, "was still running after {seconds} s"),
            Self::NotRun(why) => write!(f, "could not be run: {why}"),
        }
    }
}

/// What became of one test. Of several results of one name the last in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestState {
    /// It did not run.
    Skipped,
    /// It passed.
    Passed,
    /// It failed.
    Failed,
}

/// One test of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// What became of it.
    pub state: TestState,
    /// The first lines of what it said when it failed.
    pub message: String,
}

/// What a report says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The command has none: its exit code decides.
    None,
    /// These tests, at least one.
    Tests(BTreeMap<String, TestResult>),
    /// It was to be there and cannot be used, and why.
    Unusable(String),
}

/// What one run of a command showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// How it ended.
    pub end: End,
    /// Its report.
    pub reading: Reading,
    /// The end of its output.
    pub tail: Vec<String>,
}

impl Observation {
    fn test(&self, name: &str) -> Option<TestState> {
        match &self.reading {
            Reading::Tests(tests) => tests.get(name).map(|test| test.state),
            Reading::None | Reading::Unusable(_) => None,
        }
    }

    fn tests(&self) -> impl Iterator<Item = (&String, &TestResult)> {
        match &self.reading {
            Reading::Tests(tests) => Some(tests.iter()),
            Reading::None | Reading::Unusable(_) => None,
        }
        .into_iter()
        .flatten()
    }

    /// Whether it failed in a way that no test of its report explains.
    fn command_failed(&self) -> bool {
        let explained = self.tests().any(|(_, test)| test.state == TestState::Failed);
        match (&self.end, &self.reading) {
            (_, Reading::Unusable(_)) | (End::Signal(_) | End::Timeout(_) | End::NotRun(_), _) => true,
            (End::Exit(0), _) => false,
            (End::Exit(code), Reading::Tests(_)) => !explained || *code >= SHELL_TROUBLE,
            (End::Exit(_), Reading::None) => true,
        }
    }

    /// Whether it shows that the command itself works: a code that failing tests explain shows neither.
    fn command_passed(&self) -> bool {
        self.end.is_success() && !self.command_failed()
    }

    fn failed(&self, name: &str) -> bool {
        if name == COMMAND { self.command_failed() } else { self.test(name) == Some(TestState::Failed) }
    }

    fn passed(&self, name: &str) -> bool {
        if name == COMMAND { self.command_passed() } else { self.test(name) == Some(TestState::Passed) }
    }

    /// Everything that failed, by name; [`COMMAND`] stands for the command itself.
    #[must_use]
    pub fn failures(&self) -> BTreeSet<String> {
        let tests = self.tests().filter(|(_, test)| test.state == TestState::Failed).map(|(name, _)| name.clone());
        let command = self.command_failed().then(|| COMMAND.to_owned());
        tests.chain(command).collect()
    }

    /// Rewrites every text of it, to take out what must not be told.
    pub fn cover(&mut self, cover: impl Fn(&str) -> String) {
        if let Reading::Tests(tests) = &mut self.reading {
            let covered = std::mem::take(tests)
                .into_iter()
                .map(|(name, test)| (cover(&name), TestResult { message: cover(&test.message), ..test }));
            for (name, test) in covered {
                match tests.get(&name) {
                    // Two that differ in what was taken out alone: the worse one counts.
                    Some(known) if known.state >= test.state => {}
                    Some(_) | None => {
                        tests.insert(name, test);
                    }
                }
            }
        }
        self.tail.iter_mut().for_each(|line| *line = cover(line));
    }

    /// How many tests its report has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tests().count()
    }

    /// What is said of a failure.
    fn message(&self, name: &str) -> String {
        if name != COMMAND {
            return self.tests().find(|(test, _)| *test == name).map(|(_, t)| t.message.clone()).unwrap_or_default();
        }
        let what = match &self.reading {
            Reading::Unusable(why) => format!("{}; its report {why}", self.end),
            Reading::None | Reading::Tests(_) => self.end.to_string(),
        };
        if self.tail.is_empty() { what } else { format!("{what}\n{}", self.tail.join("\n")) }
    }
}

/// What failed and was never seen to pass, and what did both.
fn sorted(runs: &[&Observation]) -> (BTreeSet<String>, BTreeSet<String>) {
    let failed: BTreeSet<String> = runs.iter().flat_map(|run| run.failures()).collect();
    failed.into_iter().partition(|name| !runs.iter().any(|run| run.passed(name)))
}

/// What a command's runs come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GateVerdict {
    /// Whether nothing blocks.
    pub green: bool,
    /// New persistent failures with what they said.
    pub new: BTreeMap<String, String>,
    /// Failures that the base shows as well.
    pub known: BTreeSet<String>,
    /// Tests that failed once and passed once.
    pub flaky: BTreeSet<String>,
    /// Tests that ran on the base and do not any more.
    pub vanished: BTreeSet<String>,
    /// Whether what vanished was to block and cannot be told, which blocks too.
    pub untold: bool,
}

impl GateVerdict {
    /// Whether everything that blocks is known to be flaky: then one run more may show it to pass.
    #[must_use]
    pub fn may_be_flaky(&self, known: &BTreeSet<String>) -> bool {
        !self.new.is_empty() && self.new.keys().all(|name| known.contains(name))
    }
}

/// Judges the runs of a command on a change, of which each but the first followed because of failures. What was never
/// seen to pass counts as persistent.
#[must_use]
pub fn judge(baseline: Option<&Baseline>, runs: &[&Observation], vanished: Vanished) -> GateVerdict {
    let (persistent, mut flaky) = sorted(runs);
    let (known, mut charged): (BTreeSet<_>, BTreeSet<_>) =
        persistent.into_iter().partition(|name| baseline.is_some_and(|base| base.excuses(name, runs)));
    if runs.iter().any(|run| works(run, &known)) {
        flaky.extend(charged.take(COMMAND));
    }
    let said = |name: &String| {
        let run = runs.iter().rev().find(|run| run.failed(name));
        run.map(|run| run.message(name)).unwrap_or_default()
    };
    let new: BTreeMap<String, String> = charged.into_iter().map(|name| (name.clone(), said(&name))).collect();
    let gone = baseline.map(|base| gone(base, runs)).unwrap_or_default();
    let has_tests = runs.iter().any(|run| matches!(run.reading, Reading::Tests(_)));
    let untold = vanished == Vanished::Block && has_tests && !baseline.is_some_and(|base| base.whole);
    let green = new.is_empty() && !untold && (gone.is_empty() || vanished == Vanished::Report);
    GateVerdict { green, new, known, flaky, vanished: gone, untold }
}

/// Whether a run shows that the command works, on a base whose exit code is never 0: known failures explain the code.
fn works(run: &Observation, known: &BTreeSet<String>) -> bool {
    let mut failed = run.tests().filter(|(_, test)| test.state == TestState::Failed).peekable();
    !run.command_failed() && failed.peek().is_some() && failed.all(|(name, _)| known.contains(name))
}

/// Tests of the base that none of the runs has. A run without a report says nothing of it, and takes nothing away from
/// what the others say; where none has one, all would be gone.
fn gone(base: &Baseline, runs: &[&Observation]) -> BTreeSet<String> {
    if !base.whole || !runs.iter().any(|run| matches!(run.reading, Reading::Tests(_))) {
        return BTreeSet::new();
    }
    let ran = |name: &&String| runs.iter().any(|run| run.test(name).is_some_and(|state| state != TestState::Skipped));
    base.ran.iter().filter(|name| !ran(name)).cloned().collect()
}

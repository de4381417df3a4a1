//! What a gate came to, for people, for programs and for the builder's next attempt: bounded, and without secrets.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{COMMAND, End, GateVerdict, MAX_NAME, MAX_TEXT};
use crate::domain::ids::{Digest, Oid};
use crate::domain::secret::redact;

/// Bytes of what the builder is told.
pub const MAX_FEEDBACK: usize = 4096;

/// Bytes of a report with all its lists; a longer one is told without those of green commands.
const MAX_REPORT: usize = 256 * 1024;

/// New failures of a command that are listed.
const MAX_NEW: usize = 50;

/// Items that the builder is told, with the one that says how many more there are.
const MAX_ITEMS: usize = 50;

/// Names of any other list.
const MAX_LISTED: usize = 50;

/// Commands of a report.
const MAX_COMMANDS: usize = 64;

/// A new failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The test; the command itself when empty.
    pub test: String,
    /// The first lines of what it said.
    pub message: String,
}

/// Where the baseline came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nothing failed, so none was needed.
    NotNeeded,
    /// It was measured before.
    Stored,
    /// It was measured for this.
    Measured,
    /// There is none, and why: everything was charged.
    Missing(String),
}

/// How many names each list of a command lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct More {
    /// New failures.
    pub new: usize,
    /// Failures that the base has too.
    pub known: usize,
    /// Flaky tests.
    pub flaky: usize,
    /// Tests that vanished.
    pub vanished: usize,
}

impl More {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandReport {
    /// Its name.
    pub name: String,
    /// Whether it lets the change pass.
    pub green: bool,
    /// How each run of it ended.
    pub runs: Vec<End>,
    /// Tests in the report of its last run.
    pub tests: usize,
    /// New persistent failures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new: Vec<Finding>,
    /// Failures that the base shows as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
    /// Tests that failed once and passed once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flaky: Vec<String>,
    /// Tests of the base that did not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vanished: Vec<String>,
    /// Names that were left out of these lists.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// How many each list lacks.
    #[serde(default, skip_serializing_if = "More::is_none")]
    pub more: More,
    /// Where the baseline came from.
    pub baseline: Source,
    /// The baseline it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline_digest: Option<Digest>,
    /// What it printed, in all of its runs, where that was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript: Option<Digest>,
}

const fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl CommandReport {
    /// Makes a report of a verdict.
    #[must_use]
    pub fn new(name: &str, runs: Vec<End>, tests: usize, mut verdict: GateVerdict, baseline: Source) -> Self {
        if verdict.untold {
            let said = verdict.new.entry(COMMAND.to_owned()).or_default();
            said.insert_str(0, "what vanished blocks, and cannot be told: which tests the base has is not known\n");
        }
        let new = verdict.new.into_iter().map(|(test, message)| Finding { test, message });
        let listed = |names: BTreeSet<String>| names.into_iter().collect();
        let mut report = Self {
            name: name.to_owned(),
            green: verdict.green,
            runs,
            tests,
            new: new.collect(),
            known: listed(verdict.known),
            flaky: listed(verdict.flaky),
            vanished: listed(verdict.vanished),
            left_out: 0,
            more: More::default(),
            baseline,
            baseline_digest: None,
            transcript: None,
        };
        report.bound([MAX_NEW, MAX_LISTED]);
        report
    }

    /// Cuts new failures and the other lists to so many, and counts what goes.
    fn bound(&mut self, [new, listed]: [usize; 2]) {
        fn cut<T>(list: &mut Vec<T>, most: usize, more: &mut usize, left_out: &mut usize) {
            let gone = list.len().saturating_sub(most);
            list.truncate(most);
            *more = more.saturating_add(gone);
            *left_out = left_out.saturating_add(gone);
        }
        let (more, left_out) = (&mut self.more, &mut self.left_out);
        cut(&mut self.new, new, &mut more.new, left_out);
        cut(&mut self.known, listed, &mut more.known, left_out);
        cut(&mut self.flaky, listed, &mut more.flaky, left_out);
        cut(&mut self.vanished, listed, &mut more.vanished, left_out);
    }

    /// One line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = match (self.green, self.runs.last()) {
            (true, Some(end)) if end.is_success() && self.runs.len() == 1 => format!("{} passed", self.name),
            (true, Some(_) | None) => format!("{} passes", self.name),
            (false, Some(end)) => format!("{} {end}", self.name),
            (false, None) => format!("{} did not run", self.name),
        };
        let mut add = |listed: usize, more: usize, what: &str| {
            let count = listed.saturating_add(more);
            if count > 0 {
                // Writing to a String cannot fail.
                let _infallible = write!(text, ", {count} {what}");
            }
        };
        add(self.new.iter().filter(|f| f.test != COMMAND).count(), self.more.new, "new failures");
        add(self.known.len(), self.more.known, "failures that the base has too");
        add(self.flaky.len(), self.more.flaky, "flaky");
        add(self.vanished.len(), self.more.vanished, "tests of the base that did not run");
        if let Source::Missing(why) = &self.baseline {
            let _infallible = write!(text, "; no baseline: {why}");
        }
        text
    }

    fn shorten(&mut self) {
        self.bound([MAX_NEW, 0]);
    }

    fn clean(&mut self) {
        self.name = word(&self.name);
        self.bound([MAX_NEW, MAX_LISTED]);
        for finding in &mut self.new {
            finding.test = word(&finding.test);
            finding.message = lines(&finding.message);
        }
        for names in [&mut self.known, &mut self.flaky, &mut self.vanished] {
            names.iter_mut().for_each(|name| *name = word(name));
        }
        self.runs.truncate(4);
        for end in &mut self.runs {
            if let End::NotRun(why) = end {
                *why = word(why);
            }
        }
        if let Source::Missing(why) = &mut self.baseline {
            *why = word(why);
        }
    }
}

/// A short text on one line, without secrets.
fn word(text: &str) -> String {
    let text = redact(text);
    text.chars().take(MAX_NAME).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The first lines of a text, without secrets.
fn lines(text: &str) -> String {
    let text = redact(text);
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}

/// What a gate came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Whether the change passed.
    pub green: bool,
    /// The untouched base that it was compared with.
    pub base: Oid,
    /// The commands that were run, up to the first one that was red.
    pub commands: Vec<CommandReport>,
}

impl Report {
    /// Reads what a worker sent, and bounds it.
    ///
    /// # Errors
    /// When it is no report.
    pub fn read(json: &str) -> Result<Self, serde_json::Error> {
        let mut report: Self = serde_json::from_str(json)?;
        report.commands.truncate(MAX_COMMANDS);
        report.commands.iter_mut().for_each(CommandReport::clean);
        if serde_json::to_string(&report)?.len() > MAX_REPORT {
            // What was let pass is told shorter than what was not.
            report.commands.iter_mut().filter(|command| command.green).for_each(CommandReport::shorten);
        }
        Ok(report)
    }

    /// One line: the command that was red, or how many were green.
    #[must_use]
    pub fn line(&self) -> String {
        let red: Vec<_> = self.commands.iter().filter(|c| !c.green).map(CommandReport::line).collect();
        if red.is_empty() { format!("the gate is green: {} commands", self.commands.len()) } else { red.join("; ") }
    }

    /// What the builder of the next attempt is told: one line, and an item for each failure and each test that vanished
    /// from a red command. At most [`MAX_FEEDBACK`] bytes of all; the last item says how many more there are.
    #[must_use]
    pub fn told(&self) -> (String, Vec<String>) {
        let mut line = self.line();
        while line.len() > MAX_FEEDBACK / 2 {
            line.pop();
        }
        // Room for what stands before the line, and for the last item.
        let mut room = MAX_FEEDBACK.saturating_sub(line.len() + 64);
        let (mut items, mut left_out) = (Vec::new(), 0_usize);
        for command in self.commands.iter().filter(|c| !c.green) {
            left_out = left_out.saturating_add(command.more.new).saturating_add(command.more.vanished);
            let findings = command.new.iter().map(|finding| match finding.test.as_str() {
                COMMAND => format!("the command {}: {}", command.name, indented(&finding.message)),
                test => format!("{test}: {}", indented(&finding.message)),
            });
            let gone = command.vanished.iter().map(|name| format!("{name} is there in the base and did not run"));
            for item in findings.chain(gone) {
                match room.checked_sub(item.len() + "\n- ".len()) {
                    Some(left) if items.len() + 1 < MAX_ITEMS => {
                        room = left;
                        items.push(item);
                    }
                    Some(_) | None => left_out = left_out.saturating_add(1),
                }
            }
        }
        if left_out > 0 {
            items.push(format!("({left_out} more)"));
        }
        (line, items)
    }

    /// The same as one text.
    #[must_use]
    pub fn feedback(&self) -> String {
        let (line, items) = self.told();
        std::iter::once(format!("gate_failed: {line}")).chain(items).collect::<Vec<_>>().join("\n- ")
    }
}

/// A message below its test.
fn indented(message: &str) -> String {
    message.trim_end().lines().take(12).collect::<Vec<_>>().join("\n    ")
}

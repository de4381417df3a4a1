//! The quality gate: the operator's commands, from the fork commit, run on the committed tree. They execute patched
//! files: what they print is cut short, and what they report is read as hostile.

mod file;
mod junit;
mod libtest;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_shared::domain::gate::{End, MAX_NAME, Observation, Reading, TestResult};
use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::run_file::{GateCommand, GateReport};

use crate::builder::BuildError;
use crate::builder::command::last_lines;
use crate::contact::Frozen;
use crate::process::output::Output;
use crate::process::{self, Cage, ProcEnd, ProcSpec};
use file::ReportFile;

/// The variable that names the file a command may leave its report in.
pub const REPORT: &str = "AUTOPACK_REPORT";

/// Bytes that a report may have, unless the worker is told otherwise.
pub const MAX_REPORT: u64 = 16 * 1024 * 1024;

/// Where and as what the commands run.
#[derive(Debug, Clone)]
pub struct GateContext {
    /// The committed tree.
    pub tree: PathBuf,
    /// A folder of its own beside it.
    pub scratch: PathBuf,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The lease.
    pub lease: String,
    /// Bytes of output that are kept.
    pub log_budget: u64,
    /// How the commands are confined.
    pub cage: Cage,
    /// Whether they stand still.
    pub frozen: Frozen,
    /// Bytes that a report may have.
    pub report_limit: u64,
}

impl GateContext {
    /// Where a command's report is.
    fn report(&self, command: &GateCommand) -> Option<ReportFile> {
        let own = || ReportFile { root: self.scratch.clone(), path: "report".to_owned() };
        match (command.report, &command.report_path) {
            (GateReport::None, _) => None,
            (GateReport::Junit, Some(path)) => Some(ReportFile { root: self.tree.clone(), path: path.clone() }),
            (GateReport::Junit, None) | (GateReport::Libtest, _) => Some(own()),
        }
    }
}

/// Runs a command once and reads what it left; what it prints goes to `output` besides.
///
/// # Errors
/// `cancelled` when the lease ended meanwhile: then it showed nothing.
pub async fn observe(
    context: &GateContext,
    command: &GateCommand,
    output: &Output,
    cancel: &CancellationToken,
) -> Result<Observation, BuildError> {
    let report = context.report(command);
    if let Some(Err(error)) = report.as_ref().map(ReportFile::clear) {
        let why = format!("the place of its report cannot be cleared: {error}");
        return Ok(Observation { end: End::NotRun(why), reading: Reading::None, tail: Vec::new() });
    }
    let mut env = context.env.clone();
    env.push(("TMPDIR".to_owned(), context.scratch.display().to_string()));
    env.push(("CI".to_owned(), "true".to_owned()));
    env.push((REPORT.to_owned(), context.scratch.join("report").display().to_string()));
    let script = match command.report {
        GateReport::None | GateReport::Junit => command.run.clone(),
        GateReport::Libtest => format!("exec >\"${REPORT}\"\n{}", command.run),
    };
    let spec = ProcSpec {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
        cwd: context.tree.clone(),
        env,
        lease: context.lease.clone(),
        timeout: Duration::from_secs(command.timeout),
        log_budget: context.log_budget,
        cage: context.cage.clone(),
        output: output.clone(),
        frozen: context.frozen.clone(),
    };
    // A gate that cannot run is a gate that failed.
    let (end, tail) = match process::run(&spec, cancel).await {
        Ok(done) => match done.end {
            ProcEnd::Exit(code) => (End::Exit(code), done.tail),
            ProcEnd::Signal(signal) => (End::Signal(signal), done.tail),
            ProcEnd::Timeout => (End::Timeout(command.timeout), done.tail),
            ProcEnd::OutOfMemory => (End::NotRun("it wanted more memory than it may have".to_owned()), done.tail),
            ProcEnd::Overfull(why) => (End::NotRun(why), done.tail),
            ProcEnd::Cancelled => return Err(BuildError::new("cancelled", "the lease ended")),
        },
        Err(error) => (End::NotRun(error.to_string()), String::new()),
    };
    let reading = match report {
        None => Reading::None,
        Some(file) => {
            let (kind, limit) = (command.report, context.report_limit);
            let read = tokio::task::spawn_blocking(move || read(&file, kind, limit)).await;
            match read.unwrap_or_else(|_| Err("cannot be read: the reader met a bug in itself".to_owned())) {
                Ok(tests) => Reading::Tests(tests),
                Err(why) => Reading::Unusable(why),
            }
        }
    };
    Ok(Observation { end, reading, tail: last_lines(&tail, 20) })
}

fn read(file: &ReportFile, kind: GateReport, limit: u64) -> Result<BTreeMap<String, TestResult>, String> {
    let bytes = file.read(limit)?;
    let tests = match kind {
        GateReport::None => return Err("was not asked for".to_owned()),
        GateReport::Junit => junit::read(&bytes)?,
        GateReport::Libtest => libtest::read(&bytes)?,
    };
    // Who finds no tests has not tested.
    if tests.is_empty() { Err("has no tests".to_owned()) } else { Ok(tests) }
}

/// A test's name, no longer than names are kept: of a longer one the rest is told by its digest.
fn name_of(name: &str) -> String {
    let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if name.chars().count() <= MAX_NAME {
        return name;
    }
    let digest = Digest::of(name.as_bytes()).to_hex();
    name.chars().take(MAX_NAME - 17).chain(['~']).chain(digest.chars().take(16)).collect()
}

/// Adds a result; of several of one name the worst counts.
fn merge(tests: &mut BTreeMap<String, TestResult>, name: String, result: TestResult) {
    match tests.get_mut(&name) {
        Some(known) if known.state >= result.state => {}
        Some(known) => *known = result,
        None => {
            tests.insert(name, result);
        }
    }
}

//! Builders: each edits files in a private tree and never commits. One contract for all: goal, scope, deliverables,
//! feedback and a deadline in; a changed tree and a short report out.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::budget::Stop;
use autopack_shared::domain::project::BuilderConfig;
use autopack_shared::domain::run_file::{BuilderSpec, PhaseSpec};
use autopack_shared::domain::usage::{Allowance, Usage};
use autopack_shared::repo::disk;

use crate::contact::Frozen;
use crate::process::Cage;
use crate::process::output::Output;
use crate::providers::Providers;

pub mod agent;
pub mod command;
pub mod llm;
pub mod remediation;

/// The reason of a failure that is nobody's fault: there is no room now. The same work succeeds once there is.
pub const DISK_FULL: &str = "disk_full";

/// What a builder is asked.
#[derive(Debug, Clone)]
pub struct Task {
    /// The run, the phase and the attempt, for names and variables.
    pub run: String,
    /// The phase.
    pub phase: PhaseSpec,
    /// The attempt, from 1.
    pub attempt: u32,
    /// What earlier attempts were told.
    pub feedback: Vec<String>,
    /// The lease; marks every process.
    pub lease: String,
    /// The operator allowed builders without a sandbox for this run.
    pub insecure_no_sandbox: bool,
    /// How its processes are confined.
    pub cage: Cage,
    /// Variables that a process gets, as values.
    pub env: Vec<(String, String)>,
    /// A folder of its own beside the tree, for temporary files.
    pub scratch: std::path::PathBuf,
    /// Bytes of output that are kept.
    pub log_budget: u64,
    /// Where the output of its processes goes besides.
    pub output: Output,
    /// Whether its processes stand still.
    pub frozen: Frozen,
    /// Wall seconds of the attempt.
    pub seconds: u64,
    /// What models may be asked for.
    pub allowance: Allowance,
}

impl Task {
    /// The attempt's wall time.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// The wall seconds of an attempt: its phase's, and no more than the builder's entry allows.
#[must_use]
pub fn seconds(phase: &PhaseSpec, entry: Option<&BuilderConfig>) -> u64 {
    entry.map_or(phase.timeout, |entry| phase.timeout.min(u64::from(entry.timeout_seconds)))
}

/// What a builder says of its work; untrusted.
#[derive(Debug, Clone, Default)]
pub struct BuildReport {
    /// A few lines for people.
    pub notes: Vec<String>,
    /// What its models were asked for.
    pub usage: Usage,
    /// The name of the credential they were asked with, never the key.
    pub credential: Option<String>,
    /// A unified diff that is imported strictly; the tree was not touched then.
    pub patch: Option<String>,
}

/// Why a builder came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// A stable code: `disk_full`, `builder_failed`, `timeout`, `unsupported`, `sandbox_required`, ...
    pub reason: &'static str,
    /// For people, and for the next attempt.
    pub message: String,
    /// What its models were asked for all the same; none where it is not known.
    pub usage: Option<Usage>,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// The name of the credential that was used, never the key.
    pub credential: Option<Box<str>>,
    /// Which bound of its allowance ended it, where one did.
    pub stop: Option<Stop>,
}

impl BuildError {
    /// A failure with its stable code.
    #[must_use]
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), usage: None, retry_after: None, credential: None, stop: None }
    }

    /// The same with what its models were asked for before it failed.
    #[must_use]
    pub const fn after(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// The same where its models were asked for nothing yet.
    #[must_use]
    pub fn unasked(self) -> Self {
        self.after(Usage::default())
    }

    /// `budget_exhausted`: a bound of its allowance ended it.
    #[must_use]
    pub fn exhausted(stop: Stop, message: impl Into<String>) -> Self {
        Self { stop: Some(stop), ..Self::new("budget_exhausted", message) }
    }

    /// The same with the name of the credential that was used, and how long its provider asks to wait.
    #[must_use]
    pub fn of_credential(mut self, name: impl Into<String>, retry_after: Option<Duration>) -> Self {
        self.credential = Some(name.into().into_boxed_str());
        self.retry_after = retry_after;
        self
    }

    /// A failure with its causes on one line; `disk_full` where that is the cause, whatever it came to.
    #[must_use]
    pub fn of(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut next = error.source();
        while let Some(source) = next {
            message.push_str(": ");
            message.push_str(&source.to_string());
            next = source.source();
        }
        Self::new(if disk::is_full(error) { DISK_FULL } else { reason }, message)
    }
}

/// A builder.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Does the work in `tree`.
    ///
    /// # Errors
    /// [`BuildError`] when nothing usable came of it; the tree is then thrown away.
    async fn build(&self, task: &Task, tree: &Path, cancel: &CancellationToken) -> Result<BuildReport, BuildError>;
}

/// How a phase's tree comes about.
pub enum Work {
    /// A builder edits files.
    Build(Box<dyn Builder>),
    /// A unified diff is imported strictly; no file is touched.
    Import(String),
}

/// The work that a phase names. `entry` is the `[builders.NAME]` of the fork commit's `autopack.toml`, where the
/// phase names one, and `providers` what this worker may ask.
///
/// # Errors
/// `unsupported` for kinds that this version cannot run: never a silent success.
pub fn make(spec: &BuilderSpec, entry: Option<&BuilderConfig>, providers: &Arc<Providers>) -> Result<Work, BuildError> {
    match spec {
        BuilderSpec::Command { name, argv } => {
            Ok(Work::Build(command::CommandBuilder::make(name.as_deref(), argv, entry)?))
        }
        BuilderSpec::Patch { diff } => Ok(Work::Import(diff.clone())),
        BuilderSpec::Remediation { .. } => Ok(Work::Build(Box::new(remediation::RemediationBuilder))),
        BuilderSpec::Landing { run } => {
            Err(BuildError::new("unsupported", format!("landing {run} is the director's work")))
        }
        BuilderSpec::Agent { preset } => Ok(Work::Build(agent::AgentBuilder::make(preset, entry, providers.clone())?)),
        BuilderSpec::Llm { model } => Ok(Work::Build(llm::LlmBuilder::make(model, entry, providers.clone())?)),
    }
}

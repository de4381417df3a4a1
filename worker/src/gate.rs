//! The quality gate: the operator's commands, from the fork commit, run on the committed tree. They execute patched
//! files, so the first one that fails ends the gate, and what it printed goes to the next reader cut short.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_shared::domain::run_file::GateCommand;

use crate::builder::command::last_lines;
use crate::contact::Frozen;
use crate::process::{self, ProcEnd, ProcSpec};

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
    /// Whether they stand still.
    pub frozen: Frozen,
}

/// What one command did.
#[derive(Debug, Clone)]
pub struct GateOutcome {
    /// The command's name.
    pub name: String,
    /// Whether it passed.
    pub green: bool,
    /// One line for people.
    pub text: String,
    /// The end of its output.
    pub tail: Vec<String>,
}

/// Runs one command.
pub async fn run_command(context: &GateContext, command: &GateCommand, cancel: &CancellationToken) -> GateOutcome {
    let mut env = context.env.clone();
    env.push(("TMPDIR".to_owned(), context.scratch.display().to_string()));
    env.push(("CI".to_owned(), "true".to_owned()));
    let spec = ProcSpec {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), command.run.clone()],
        cwd: context.tree.clone(),
        env,
        lease: context.lease.clone(),
        timeout: Duration::from_secs(command.timeout),
        log_budget: context.log_budget,
        frozen: context.frozen.clone(),
    };
    match process::run(&spec, cancel).await {
        Ok(report) => {
            let (green, text) = match report.end {
                ProcEnd::Exit(0) => (true, "passed".to_owned()),
                ProcEnd::Exit(code) => (false, format!("exited with {code}")),
                ProcEnd::Signal(signal) => (false, format!("was ended by signal {signal}")),
                ProcEnd::Timeout => (false, format!("was still running after {} s", command.timeout)),
                ProcEnd::Cancelled => (false, "was stopped: the lease ended".to_owned()),
            };
            GateOutcome { name: command.name.clone(), green, text, tail: last_lines(&report.tail, 20) }
        }
        // A gate that cannot run is a gate that failed.
        Err(error) => {
            GateOutcome { name: command.name.clone(), green: false, text: error.to_string(), tail: Vec::new() }
        }
    }
}

/// Deliverables that the tree lacks; one that ends in `/` wants a file below it.
#[must_use]
pub fn missing_deliverables(tree: &Path, deliverables: &[String]) -> Vec<String> {
    let present = |name: &str| {
        let path = tree.join(name);
        if name.ends_with('/') {
            std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some())
        } else {
            path.symlink_metadata().is_ok()
        }
    };
    deliverables.iter().filter(|name| !present(name)).cloned().collect()
}

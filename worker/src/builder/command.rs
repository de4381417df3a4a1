//! The `command` builder: any program of the operator's. The task lies beside the tree as JSON, and in the
//! environment.

use std::path::Path;

use async_trait::async_trait;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::project::BuilderConfig;
use autopack_shared::domain::secret::redact;

use super::{BuildError, BuildReport, Builder, Task};
use crate::process::{self, Cage, ProcEnd, ProcSpec};

/// Runs a program in the tree.
#[derive(Debug)]
pub struct CommandBuilder {
    argv: Vec<String>,
}

impl CommandBuilder {
    /// From a named entry or a bare command line.
    ///
    /// # Errors
    /// `unsupported` when the name is not in the policy file or no program is named.
    pub fn make(
        name: Option<&str>,
        argv: &[String],
        entry: Option<&BuilderConfig>,
    ) -> Result<Box<dyn Builder>, BuildError> {
        let argv = match (name, entry) {
            (Some(_), Some(entry)) => entry.argv.clone(),
            (Some(name), None) => {
                let text = format!("autopack.toml at the fork commit has no [builders.{name}]");
                return Err(BuildError::new("unsupported", text));
            }
            (None, _) => argv.to_vec(),
        };
        if argv.is_empty() {
            return Err(BuildError::new("unsupported", "the command builder names no program"));
        }
        Ok(Box::new(Self { argv }))
    }
}

#[async_trait]
impl Builder for CommandBuilder {
    async fn build(&self, task: &Task, tree: &Path, cancel: &CancellationToken) -> Result<BuildReport, BuildError> {
        if matches!(task.cage, Cage::None) && !task.insecure_no_sandbox {
            let text = "a command builder needs a sandbox; --insecure-no-sandbox runs it as you, marks the run, and \
                        makes every patch of it need approval";
            return Err(BuildError::new("sandbox_required", text));
        }
        let file = task.scratch.join("task.json");
        let document = json!({
            "format": "task/1", "run": task.run, "phase": task.phase.id, "attempt": task.attempt, "goal": task.phase.goal,
            "scope": task.phase.scope, "deliverables": task.phase.deliverables, "symbols": task.phase.symbols,
            "feedback": task.feedback,
            "timeout_seconds": task.seconds,
        });
        std::fs::write(&file, document.to_string()).map_err(|e| {
            let BuildError { reason, message, .. } = BuildError::of("workspace", &e);
            BuildError::new(reason, format!("cannot write {}: {message}", file.display()))
        })?;
        let report = process::run(&spec(task, &self.argv, tree, &file), cancel)
            .await
            .map_err(|e| BuildError::new(e.reason(), e.to_string()))?;
        let notes = last_lines(&report.tail, 20);
        match report.end {
            ProcEnd::Exit(0) => Ok(BuildReport { notes, ..BuildReport::default() }),
            ProcEnd::Exit(code) => {
                Err(BuildError::new("builder_failed", format!("it exited with {code}: {}", notes.join(" | "))))
            }
            ProcEnd::Signal(signal) => Err(BuildError::new("builder_failed", format!("signal {signal} ended it"))),
            ProcEnd::Timeout => {
                Err(BuildError::new("timeout", format!("it was still running after {} s and was killed", task.seconds)))
            }
            ProcEnd::Cancelled => Err(BuildError::new("cancelled", "the lease ended")),
            ProcEnd::OutOfMemory => Err(BuildError::new("resource_limit", "it wanted more memory than it may have")),
            ProcEnd::Overfull(why) => Err(BuildError::new("resource_limit", why)),
        }
    }
}

fn spec(task: &Task, argv: &[String], tree: &Path, file: &Path) -> ProcSpec {
    let mut env = task.env.clone();
    env.extend([
        ("TMPDIR".to_owned(), task.scratch.display().to_string()),
        ("AUTOPACK_RUN".to_owned(), task.run.clone()),
        ("AUTOPACK_PHASE".to_owned(), task.phase.id.to_string()),
        ("AUTOPACK_ATTEMPT".to_owned(), task.attempt.to_string()),
        ("AUTOPACK_GOAL".to_owned(), task.phase.goal.clone()),
        ("AUTOPACK_TASK".to_owned(), file.display().to_string()),
    ]);
    ProcSpec {
        argv: argv.to_vec(),
        cwd: tree.to_path_buf(),
        env,
        lease: task.lease.clone(),
        timeout: task.timeout(),
        log_budget: task.log_budget,
        cage: task.cage.clone(),
        output: task.output.clone(),
        frozen: task.frozen.clone(),
    }
}

/// The last lines of an output, for reports, without secrets: in pieces a private key could not be told any more.
#[must_use]
pub fn last_lines(text: &str, count: usize) -> Vec<String> {
    let text = redact(text);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|l| l.chars().take(300).collect()).collect()
}

#[cfg(test)]
mod tests {
    use autopack_shared::domain::usage::Allowance;

    use super::super::DISK_FULL;
    use super::*;

    #[test]
    fn no_line_of_a_private_key_is_told() {
        let name = ["PRIVATE", "KEY"].join(" ");
        let body = "MIIEpAIBAAKCAQEA7bq8x9".repeat(3);
        let text = format!("one\n-----BEGIN {name}-----\n{body}\n{body}\n-----END {name}-----\ntwo\n");
        assert_eq!(last_lines(&text, 20), ["one", "[private key]", "two"]);
        // The end of an output begins anywhere.
        assert_eq!(last_lines(&text[50..], 20), ["[private key]", "two"]);
    }

    #[tokio::test]
    async fn a_task_for_which_there_is_no_room_is_no_failure_of_the_builder() {
        let scratch = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", scratch.path().join("task.json")).unwrap();
        let phase = r#"{"id":"p","goal":"x","builder":{"kind":"command","argv":["true"]}}"#;
        let task = Task {
            run: "r".to_owned(),
            phase: serde_json::from_str(phase).unwrap(),
            attempt: 1,
            feedback: Vec::new(),
            lease: "l".to_owned(),
            insecure_no_sandbox: true,
            cage: Cage::None,
            env: Vec::new(),
            scratch: scratch.path().to_path_buf(),
            log_budget: 1024,
            output: process::output::Output::default(),
            frozen: tokio::sync::watch::channel(false).1,
            seconds: 60,
            allowance: Allowance::default(),
        };
        let builder = CommandBuilder { argv: vec!["true".to_owned()] };
        let error = builder.build(&task, scratch.path(), &CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.reason, DISK_FULL);
        assert!(error.message.contains("task.json"), "{error}");
    }
}

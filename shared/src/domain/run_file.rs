//! A run file: what `runs submit` reads and what autopilot writes for itself (`interfaces.md` 2). Unknown keys are
//! errors; every limit has a default that works.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gate::SymbolRef;
pub use super::gate::{GateCommand, GateReport, Vanished};
use super::ids::{InvalidName, PhaseId, ProjectId, RunId};
use super::path::{PathRoots, RepoPath};

/// The most phases one run may have.
pub const MAX_PHASES: usize = 500;

/// One run as its author describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// The run's name; made up when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub run_id: Option<RunId>,
    /// The project; the only one of an embedded engine when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub project: Option<ProjectId>,
    /// Path of the anchor in the fork commit, when it is not the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// The branch that the run forks from and lands on; the checked-out one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<String>,
    /// The work, in order.
    pub phases: Vec<PhaseSpec>,
    /// Bounds of the whole run.
    #[serde(default)]
    pub limits: RunLimits,
}

/// Bounds of a whole run; absent ones do not bind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunLimits {
    /// Model tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Wall seconds of builder time, summed over attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Changed files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Cost in the currency of the builders' price list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhaseSpec {
    /// The phase's name, unique within its run.
    #[schemars(with = "String")]
    pub id: PhaseId,
    /// What is wanted, for the builder and for approvers.
    pub goal: String,
    /// Where it may write, and what it reads.
    #[serde(default)]
    pub scope: ScopeSpec,
    /// Paths that must exist afterwards; one that ends in `/` wants a file below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliverables: Vec<String>,
    /// Symbols that files must have afterwards, each as `path::name`: the name as a word of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<String>,
    /// The kind of work (`feature`, `docs`, `security`, ...); counts in the verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// A risk its author claims; it can only raise the tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_risk: Option<ClaimedRisk>,
    /// Phases that must be applied first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub depends_on: Vec<PhaseId>,
    /// Who does it.
    pub builder: BuilderSpec,
    /// Gate commands of this phase, beside the project's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gate: Vec<GateCommand>,
    /// Attempts before the phase gives up.
    #[serde(default = "five")]
    pub max_attempts: u32,
    /// Wall seconds of one attempt.
    #[serde(default = "half_an_hour")]
    pub timeout: u64,
    /// Whether an attempt that changes nothing counts as failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub must_change: bool,
}

const fn five() -> u32 {
    5
}

const fn half_an_hour() -> u64 {
    1800
}

/// A claimed risk level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ClaimedRisk {
    /// 0..=29.
    Low,
    /// 30..=49.
    Medium,
    /// 50..=79.
    High,
    /// 80..=100.
    Critical,
}

/// Where a phase may write and what it reads. No path at all means the whole repository.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScopeSpec {
    /// Files, folders or globs it may change.
    #[serde(default)]
    pub paths: Vec<String>,
    /// What it reads besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_only_context: Vec<ReadOnly>,
}

/// A read-only path, bare or with a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ReadOnly {
    /// A path.
    Path(String),
    /// A path and why it is read.
    Reasoned {
        /// The path.
        path: String,
        /// Why it is read.
        reason: String,
    },
}

impl ReadOnly {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Path(path) | Self::Reasoned { path, .. } => path,
        }
    }
}

/// Who does a phase's work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum BuilderSpec {
    /// A program of the operator's.
    Command {
        /// The name of an entry under `[builders]` in `autopack.toml`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Program and arguments, where no entry is named.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        argv: Vec<String>,
    },
    /// A coding agent.
    Agent {
        /// Which preset.
        preset: String,
    },
    /// A model, asked for an edit.
    Llm {
        /// Which model.
        model: String,
    },
    /// A unified diff from a file.
    Patch {
        /// The diff itself.
        diff: String,
    },
    /// None: the phase lands another run's branch. Made by `runs land` only.
    Landing {
        /// The run that lands.
        #[schemars(with = "String")]
        run: RunId,
    },
    /// One of the built-in remediations.
    Remediation {
        /// The gap's type.
        gap_type: String,
        /// The gap's id.
        gap_id: String,
        /// The paths the gap names.
        #[serde(default)]
        paths: Vec<String>,
        /// More facts that the remediation needs.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        facts: BTreeMap<String, String>,
    },
}

/// A run file that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunFileError {
    /// No phases, or too many.
    #[error("phases: a run has 1 to {MAX_PHASES} phases, this one has {0}")]
    PhaseCount(usize),
    /// Two phases share a name.
    #[error("phases: {0} is named twice")]
    Duplicate(PhaseId),
    /// A dependency that is no earlier phase.
    #[error("phases.{phase}.depends_on: {on} is no earlier phase of this run")]
    Dependency {
        /// The phase.
        phase: PhaseId,
        /// What it asks for.
        on: PhaseId,
    },
    /// A value out of range.
    #[error("phases.{phase}.{field}: {why}")]
    Field {
        /// The phase.
        phase: PhaseId,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A name that was refused.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

impl RunFile {
    /// Checks what the types alone do not: counts, unique names, dependencies on earlier phases, ranges.
    ///
    /// # Errors
    /// [`RunFileError`] names the field.
    pub fn validate(&self) -> Result<(), RunFileError> {
        if self.phases.is_empty() || self.phases.len() > MAX_PHASES {
            return Err(RunFileError::PhaseCount(self.phases.len()));
        }
        let mut seen = BTreeSet::new();
        for phase in &self.phases {
            let field = |field, why: &str| RunFileError::Field { phase: phase.id.clone(), field, why: why.to_owned() };
            if let Some(on) = phase.depends_on.iter().find(|on| !seen.contains(*on)) {
                return Err(RunFileError::Dependency { phase: phase.id.clone(), on: on.clone() });
            }
            if !seen.insert(phase.id.clone()) {
                return Err(RunFileError::Duplicate(phase.id.clone()));
            }
            if phase.goal.trim().is_empty() {
                return Err(field("goal", "it is empty: say what is wanted"));
            }
            if !(1..=100).contains(&phase.max_attempts) {
                return Err(field("max_attempts", "it must be 1..=100"));
            }
            if !(1..=86_400).contains(&phase.timeout) {
                return Err(field("timeout", "it must be 1..=86400 seconds"));
            }
            if let BuilderSpec::Command { name: None, argv } = &phase.builder
                && argv.is_empty()
            {
                return Err(field("builder", "a command builder needs 'name' or 'argv'"));
            }
            PathRoots::new(phase.scope.paths.clone()).map_err(|e| field("scope.paths", &e.to_string()))?;
            let reads = phase.scope.read_only_context.iter().map(|r| r.path().to_owned()).collect();
            PathRoots::new(reads).map_err(|e| field("scope.read_only_context", &e.to_string()))?;
            for path in &phase.deliverables {
                RepoPath::parse(path.trim_end_matches('/'))
                    .map_err(|e| field("deliverables", &format!("{path}: {e}")))?;
            }
            if phase.gate.iter().any(|g| g.run.trim().is_empty() || g.name.trim().is_empty()) {
                return Err(field("gate", "a gate command needs 'name' and 'run'"));
            }
            for symbol in &phase.symbols {
                SymbolRef::parse(symbol).map_err(|e| field("symbols", &format!("{symbol}: {e}")))?;
            }
            if let Some(why) = phase.gate.iter().find_map(GateCommand::report_error) {
                return Err(field("gate.report", &why));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> RunFile {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_small_run_file_gets_its_defaults() {
        let run = file(r#"{"phases":[{"id":"a","goal":"x","builder":{"kind":"command","argv":["true"]}}]}"#);
        run.validate().unwrap();
        assert_eq!((run.phases[0].max_attempts, run.phases[0].timeout), (5, 1800));
        let written = serde_json::to_string(&run).unwrap();
        assert!(!run.phases[0].must_change && !written.contains("must_change"), "what is not said changes no digest");
    }

    #[test]
    fn reports_and_symbols_that_cannot_be_are_refused() {
        let with = |extra: &str| {
            let builder = r#""builder":{"kind":"command","argv":["true"]}"#;
            let run = file(&format!(r#"{{"phases":[{{"id":"a","goal":"x",{builder},{extra}}}]}}"#));
            run.validate().map_err(|e| e.to_string())
        };
        let gate = |extra: &str| with(&format!(r#""gate":[{{"name":"t","run":"true",{extra}}}]"#));
        gate(r#""report":"none""#).unwrap();
        gate(r#""report":"junit","report_path":"target/junit.xml","vanished":"block""#).unwrap();
        for bad in [
            r#""report":"none","report_path":"x.xml""#,
            r#""report":"junit","report_path":"../x""#,
            r#""report":"junit","report_path":"/etc/x""#,
        ] {
            let error = gate(bad).unwrap_err();
            assert!(error.starts_with("phases.a.gate.report: "), "{error}");
        }
        with(r#""symbols":["src/lib.rs::parse","src/lib.rs::Type::method"]"#).unwrap();
        for bad in ["src/lib.rs", "../x::y", "a::", "a::b c"] {
            let error = with(&format!(r#""symbols":["{bad}"]"#)).unwrap_err();
            assert!(error.starts_with("phases.a.symbols: "), "{error}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        for text in [
            r#"{"phases":[],"x":1}"#,
            r#"{"phases":[{"id":"a","goal":"x","retries":3,"builder":{"kind":"command","argv":["true"]}}]}"#,
            r#"{"phases":[{"id":"a","goal":"x","builder":{"kind":"command","argv":["true"],"shell":true}}]}"#,
            r#"{"phases":[{"id":"A","goal":"x","builder":{"kind":"command","argv":["true"]}}]}"#,
        ] {
            assert!(serde_json::from_str::<RunFile>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dependencies_point_back() {
        let run = file(
            r#"{"phases":[{"id":"a","goal":"x","depends_on":["b"],"builder":{"kind":"command","argv":["true"]}},
                {"id":"b","goal":"x","builder":{"kind":"command","argv":["true"]}}]}"#,
        );
        assert!(matches!(run.validate(), Err(RunFileError::Dependency { .. })));
    }
}

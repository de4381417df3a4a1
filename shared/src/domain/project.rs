//! The part of `autopack.toml` that belongs to the repository and is read from a commit: `[project] [policy] [gate]
//! [builders.*] [secrets] [egress]`. The sections of the host are known by name and left alone.

mod asked;
mod egress;
mod error;
mod secrets;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::ids::{Digest, ProjectId};
use super::policy::{Policy, PolicySection};
use super::run_file::{self, GateReport, Vanished};

pub use asked::{AnswerForm, ModelConfig, Permission, Preset};
pub use egress::EgressSection;
pub(super) use error::Source;
pub use error::{ConfigError, suggest};
pub use secrets::SecretsSection;

/// The name of the file in the root of the repository.
pub const FILE_NAME: &str = "autopack.toml";
/// Where a repository keeps its anchor.
pub const ANCHOR_PATH: &str = ".autopack/anchor_v2.json";

/// What a commit says about how it may be changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProjectConfig {
    /// Which project this is.
    pub project: ProjectSection,
    /// The path lists; the built-in ones where the file has no `[policy]`.
    pub policy: Policy,
    /// What is run before a change counts as applied.
    pub gate: Gate,
    /// The builders by name.
    pub builders: BTreeMap<String, BuilderConfig>,
    /// The secrets that gate and builders are to have.
    pub secrets: SecretsSection,
    /// The hosts that gate and builders want to reach.
    pub egress: EgressSection,
}

/// `[project]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectSection {
    /// The project's id; absent: the caller takes one from the directory.
    #[schemars(with = "Option<String>")]
    pub id: Option<ProjectId>,
    /// The branch that work starts from and lands on (`refs/heads/main`); absent: the branch that is checked out.
    pub target_ref: Option<String>,
}

/// `[gate]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gate {
    /// Run in this order; all have to succeed.
    pub commands: Vec<GateCommand>,
}

/// One command of the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GateCommand {
    /// Names it in reports; unique.
    pub name: String,
    /// A shell command line.
    pub run: String,
    /// Seconds until it counts as failed.
    #[serde(default = "ten_minutes")]
    pub timeout_seconds: u32,
    /// What it leaves behind to be read.
    #[serde(default)]
    pub report: GateReport,
    /// Where in the tree it leaves its JUnit report, for a tool that cannot write to `$AUTOPACK_REPORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_path: Option<String>,
    /// What tests mean that ran on the base and do not any more.
    #[serde(default, skip_serializing_if = "Vanished::is_default")]
    pub vanished: Vanished,
    /// Whether what the base fails too is charged all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge_known: Option<bool>,
}

impl GateCommand {
    /// The same as a run file has it.
    #[must_use]
    pub fn as_command(&self) -> run_file::GateCommand {
        run_file::GateCommand {
            name: self.name.clone(),
            run: self.run.clone(),
            report: self.report,
            report_path: self.report_path.clone(),
            vanished: self.vanished,
            charge_known: self.charge_known,
            timeout: u64::from(self.timeout_seconds),
        }
    }
}

/// How a builder works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuilderKind {
    /// A program is run in the work tree.
    Command,
    /// A coding agent is run in the work tree.
    Agent,
    /// A model is asked for a patch.
    Llm,
    /// A given patch is taken.
    Patch,
    /// A built-in repair of a gap.
    Remediation,
}

/// `[builders.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuilderConfig {
    /// How it works.
    pub kind: BuilderKind,
    /// The program and its arguments, for `command` and `agent`.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The types of gaps it may take.
    #[serde(default)]
    pub gaps: Vec<String>,
    /// Seconds until it is stopped.
    #[serde(default = "one_hour")]
    pub timeout_seconds: u32,
    /// Which agent; without one, an `agent` speaks the Agent Client Protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// What an agent of that protocol may do; absent: read and search the tree, and edit within the phase's scope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Permission>,
    /// The models of the attempts, in order; the last one stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelConfig>,
    /// How an `llm` writes down a change.
    #[serde(default, skip_serializing_if = "AnswerForm::is_default")]
    pub answer: AnswerForm,
    /// Bytes of files that an `llm` is shown at most.
    #[serde(default = "asked::context_bytes", skip_serializing_if = "asked::is_context_bytes")]
    pub context_bytes: u32,
}

const fn ten_minutes() -> u32 {
    600
}

const fn one_hour() -> u32 {
    3600
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "the host's sections are accepted by name and read elsewhere")]
struct File {
    #[serde(default)]
    project: ProjectSection,
    policy: Option<PolicySection>,
    #[serde(default)]
    gate: Gate,
    #[serde(default)]
    builders: BTreeMap<String, BuilderConfig>,
    #[serde(default)]
    secrets: SecretsSection,
    #[serde(default)]
    egress: EgressSection,
    limits: Option<IgnoredAny>,
    notify: Option<IgnoredAny>,
    supervisor: Option<IgnoredAny>,
    worker: Option<IgnoredAny>,
    store: Option<IgnoredAny>,
    etcd: Option<IgnoredAny>,
    otel: Option<IgnoredAny>,
    auth: Option<IgnoredAny>,
}

impl ProjectConfig {
    /// Reads the file. Without a `[policy]` section the built-in policy holds.
    ///
    /// # Errors
    /// [`ConfigError`] names the place, and for an unknown key the one that was probably meant.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Self::read(text, origin, |_| Ok(Policy::builtin()))
    }

    /// Reads the file and insists on a `[policy]` section.
    pub(super) fn parse_with_policy(text: &str, origin: &str) -> Result<Self, ConfigError> {
        Self::read(text, origin, |source| Err(ConfigError::NoRules { origin: source.origin.to_owned() }))
    }

    fn read(
        text: &str,
        origin: &str,
        without_policy: impl FnOnce(&Source<'_>) -> Result<Policy, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let source = Source { text, origin };
        let file: File = toml::from_str(text).map_err(|error| source.syntax(&error))?;
        let policy = match file.policy {
            Some(section) => section.build(&source)?,
            None => without_policy(&source)?,
        };
        let File { project, gate, builders, secrets, egress, .. } = file;
        let config = Self { project, policy, gate, builders, secrets, egress };
        config.check(&source)?;
        Ok(config)
    }

    fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        if let Some(name) = self.project.target_ref.as_deref()
            && !name.starts_with("refs/heads/")
        {
            return Err(source.invalid("target_ref", "it must start with refs/heads/"));
        }
        for (index, command) in self.gate.commands.iter().enumerate() {
            if command.name.trim().is_empty() || command.run.trim().is_empty() {
                return Err(source.invalid("gate", "a gate command needs a name and something to run"));
            }
            if self.gate.commands[..index].iter().any(|other| other.name == command.name) {
                return Err(source.invalid(&command.name, "two gate commands have this name"));
            }
            if command.timeout_seconds == 0 {
                return Err(source.invalid(&command.name, "its timeout_seconds must be at least 1"));
            }
            if let Some(why) = command.as_command().report_error() {
                return Err(source.invalid("report_path", &why));
            }
        }
        if let Some(name) = self.secrets.unfit() {
            return Err(source.invalid(name, "it cannot name a secret"));
        }
        if let Some((host, why)) = self.egress.unfit() {
            return Err(source.invalid(host, &why));
        }
        for (name, builder) in &self.builders {
            if builder.timeout_seconds == 0 {
                return Err(source.invalid(name, "its timeout_seconds must be at least 1"));
            }
            if let Some(why) = builder.fault() {
                return Err(source.invalid(name, why));
            }
        }
        Ok(())
    }

    /// The SHA-256 of what the file says.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let content = (&self.project, self.policy.digest(), &self.gate, &self.builders);
        Digest::of_json(&content).expect("every map of the file has text keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sections_of_a_repository_are_read_and_the_hosts_are_left_alone() {
        let text = "[project]\nid = \"demo\"\ntarget_ref = \"refs/heads/main\"\n[policy]\nallowed = [\"lib/**\"]\n\
                    [[gate.commands]]\nname = \"tests\"\nrun = \"just test\"\nreport = \"none\"\n\
                    [builders.tidy]\nkind = \"command\"\nargv = [\"tidy\"]\ngaps = [\"root_clutter\"]\n\
                    [limits]\nanything = 1\n[notify.telegram]\nx = 2\n";
        let config = ProjectConfig::parse(text, "autopack.toml").unwrap();
        assert_eq!(config.project.id.as_ref().unwrap().as_str(), "demo");
        assert_eq!(config.gate.commands[0].timeout_seconds, 600);
        assert_eq!(config.gate.commands[0].report, GateReport::None);
        assert_eq!(config.builders["tidy"].kind, BuilderKind::Command);
        assert_ne!(config.digest(), ProjectConfig::default().digest());
        assert_eq!(ProjectConfig::parse("", "x").unwrap(), ProjectConfig::default());
    }

    #[test]
    fn a_report_is_read_where_it_can_be() {
        let with = |extra: &str| {
            let text = format!("[[gate.commands]]\nname = \"tests\"\nrun = \"just test\"\n{extra}\n");
            ProjectConfig::parse(&text, "autopack.toml").map_err(|e| e.to_string())
        };
        let config = with("report = \"junit\"\nreport_path = \"out/junit.xml\"\nvanished = \"block\"").unwrap();
        assert_eq!(config.gate.commands[0].as_command().vanished, Vanished::Block);
        assert_eq!(with("report = \"libtest\"").unwrap().gate.commands[0].report, GateReport::Libtest);
        for bad in ["report_path = \"x.xml\"", "report = \"junit\"\nreport_path = \"../x.xml\""] {
            let error = with(bad).unwrap_err();
            assert!(error.contains("report_path"), "{error}");
        }
    }

    #[test]
    fn a_wrong_key_is_refused_with_the_right_one() {
        let cases = [
            ("[builders.a]\nknd = \"command\"\n", "autopack.toml:2: unknown key `knd`; did you mean `kind`?"),
            (
                "[gate]\n\n[[gate.command]]\nname = \"x\"\n",
                "autopack.toml:3: unknown key `command`; did you mean `commands`?",
            ),
            ("[suprvisor]\n", "autopack.toml:1: unknown key `suprvisor`; did you mean `supervisor`?"),
            ("[zzzzzz]\n", "autopack.toml:1: unknown key `zzzzzz`"),
        ];
        for (text, expected) in cases {
            let error = ProjectConfig::parse(text, "autopack.toml").unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        for text in [
            "[builders.a]\nkind = \"command\"\n",
            "[project]\ntarget_ref = \"main\"\n",
            "[gate]\ncommands = [{ name = \"a\", run = \"x\" }, { name = \"a\", run = \"y\" }]\n",
            "[project]\nid = \"../x\"\n",
        ] {
            assert!(ProjectConfig::parse(text, "f").is_err(), "{text}");
        }
    }
}

//! Settings of one process: defaults < `autopack.toml` < `AUTOPACK_*` environment < flags. Every value remembers
//! where it came from, unknown keys are refused with the one that was probably meant, and nothing here is global:
//! settings are read once and passed as values.

mod file;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

pub use table::{Kind, SETTINGS, Setting};

/// The sections of `autopack.toml` that belong to the repository; they are read from a commit, by the domain.
const PROJECT_SECTIONS: &[&str] = &["project", "policy", "gate", "builders", "secrets", "egress"];

/// Sections that exist for the cluster's parts; a build without them refuses their keys instead of ignoring them.
const HOST_SECTIONS: &[&str] = &["limits", "notify", "supervisor", "worker", "store", "etcd", "otel", "auth"];

/// The environment of the process, taken once.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What the process was started with; variables that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(key, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((key.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(text).collect())
    }

    /// The value of a variable; an empty one counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into())
    }
}

/// Where a value came from; later ones win.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of the file.
    File {
        /// The file as it was named.
        path: String,
        /// From 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One setting as it holds now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// `worker.slots`, ...
    pub key: &'static str,
    /// The value in words; none where it is not set.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: Origin,
    /// What it is for.
    pub about: &'static str,
}

/// A setting that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is no TOML.
    #[error("{origin}: {why}")]
    Syntax {
        /// The place.
        origin: Origin,
        /// What the reader says.
        why: String,
    },
    /// No setting has this name.
    #[error("{origin}: unknown key `{key}`{}", did_you_mean(.meant.as_deref()))]
    Unknown {
        /// The place.
        origin: Origin,
        /// As it was written.
        key: String,
        /// The one that was probably meant.
        meant: Option<String>,
    },
    /// The value does not fit the setting.
    #[error("{origin}: {key} = {value:?}: {why}")]
    Value {
        /// The place.
        origin: Origin,
        /// The setting.
        key: &'static str,
        /// As it was written.
        value: String,
        /// What would fit.
        why: &'static str,
    },
}

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Bounds of a run that names none itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitSettings {
    /// Model tokens.
    pub tokens: Option<u64>,
    /// Builder seconds.
    pub seconds: Option<u64>,
    /// Changed files.
    pub files: Option<u64>,
    /// Cost in the currency of the builders' price list.
    pub cost: Option<f64>,
    /// Calls of models.
    pub calls: Option<u64>,
}

/// Bounds of one scope: a call, an attempt, a phase, a project, a day.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ScopeSettings {
    /// Model tokens.
    pub tokens: Option<u64>,
    /// Cost in the currency of the builders' price list.
    pub cost: Option<f64>,
    /// Calls of models.
    pub calls: Option<u64>,
    /// Builder seconds.
    pub seconds: Option<u64>,
    /// Changed files.
    pub files: Option<u64>,
}

impl ScopeSettings {
    fn read(name: &str, text: impl Fn(&str) -> Option<String>) -> Self {
        let number = |unit| text(&format!("limits.{name}_{unit}")).and_then(|value| value.parse().ok());
        let cost = text(&format!("limits.{name}_cost")).and_then(|value| value.parse().ok());
        let [tokens, calls, seconds, files] = ["tokens", "calls", "seconds", "files"].map(number);
        Self { tokens, cost, calls, seconds, files }
    }
}

/// What attempts may use, and when their builders are left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SpendSettings {
    /// One call.
    pub call: ScopeSettings,
    /// One attempt.
    pub attempt: ScopeSettings,
    /// A phase that names no bound itself.
    pub phase: ScopeSettings,
    /// A project, ever.
    pub project: ScopeSettings,
    /// A project on one day, by UTC.
    pub day: ScopeSettings,
    /// Failures in a row after which a builder is left alone.
    pub breaker_failures: u32,
    /// Seconds until one attempt tries it again.
    pub breaker_seconds: u32,
    /// Attempts that may use one credential at once.
    pub credential_uses: u32,
    /// Days that transcripts are kept which no decision names; 0 for good.
    pub transcript_days: u32,
    /// Mebibytes of a project's transcripts; 0 for any number.
    pub transcript_mib: u32,
}

/// Bounds of what one builder or gate sends to hosts and models and receives from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressSettings {
    /// Mebibytes sent.
    pub up_mb: u64,
    /// Mebibytes received.
    pub down_mb: u64,
    /// Connections at once.
    pub connections: u32,
    /// Kibibytes of the head of one request.
    pub head_kb: u32,
    /// Seconds without a byte.
    pub idle_seconds: u32,
    /// Seconds of one connection.
    pub total_seconds: u32,
}

/// Every setting of the host, ready to use.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// A supervisor elsewhere; none means embedded, in this process.
    pub server: Option<String>,
    /// A file that holds the token for it.
    pub token_file: Option<PathBuf>,
    /// Where runs keep what they leave; none means `<repo>/.autonomous_runs`.
    pub data_dir: Option<PathBuf>,
    /// Providers of models besides the known ones.
    pub providers_file: Option<PathBuf>,
    /// Where mirror and worktrees live; none means the user's state folder.
    pub worker_root: Option<PathBuf>,
    /// How many phases the embedded worker does at once.
    pub worker_slots: u32,
    /// Bubblewrap; none means the one on the search path.
    pub worker_bwrap: Option<PathBuf>,
    /// Folders that builders and gates may read besides the system's.
    pub worker_sandbox_paths: Vec<PathBuf>,
    /// Mebibytes of memory of one builder or gate.
    pub worker_sandbox_memory: u64,
    /// Bounds of what one builder or gate sends and receives.
    pub worker_egress: EgressSettings,
    /// Mebibytes and files of the tree of one builder or gate.
    pub worker_sandbox_tree: (u64, u64),
    /// How much sandboxes let through.
    pub worker_sandbox_profile: String,
    /// Seconds that a self-test of the sandboxes is good.
    pub worker_sandbox_selftest: u64,
    /// What projects may have besides their commits.
    pub provision_file: Option<PathBuf>,
    /// How many worktrees of a project it keeps ready.
    pub worker_warm: u32,
    /// Mebibytes of what a builder or a gate prints that are kept.
    pub worker_transcript_mib: u32,
    /// Mebibytes that the report of a gate command may have.
    pub worker_report_mib: u32,
    /// How long a stopping process waits for its work.
    pub grace_seconds: u32,
    /// A collector for traces, metrics and logs.
    pub otel_endpoint: Option<String>,
    /// Bounds of a run that names none itself.
    pub limits: LimitSettings,
    /// Bounds of everything else, and breakers.
    pub spend: SpendSettings,
    shown: Vec<Resolved>,
}

impl Settings {
    /// Resolves every setting. `file` is the text of `autopack.toml` and how it is called in messages; `flags` are
    /// pairs of key and value that the command line named.
    ///
    /// # Errors
    /// [`ConfigError`] names the place: a key that is none, or a value that does not fit.
    pub fn resolve(
        file: Option<(&str, &str)>,
        env: &Environment,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let written = file.map_or_else(|| Ok(BTreeMap::new()), |(text, path)| file::read(text, path))?;
        let mut shown = Vec::with_capacity(SETTINGS.len());
        for setting in SETTINGS {
            let flag = flags.iter().find(|(key, _)| *key == setting.key);
            let variable = setting.variable();
            let (value, origin) = if let Some((key, value)) = flag {
                (Some(value.clone()), Origin::Flag(key.replace(['_', '.'], "-")))
            } else if let Some(value) = env.get(&variable) {
                (Some(value.to_owned()), Origin::Environment(variable))
            } else if let Some((value, line)) = written.get(setting.key) {
                let path = file.map_or_else(String::new, |(_, path)| path.to_owned());
                (Some(value.clone()), Origin::File { path, line: *line })
            } else {
                (setting.default.map(str::to_owned), Origin::Default)
            };
            if let Some(value) = &value {
                setting.check(value).map_err(|why| ConfigError::Value {
                    origin: origin.clone(),
                    key: setting.key,
                    value: value.clone(),
                    why,
                })?;
            }
            shown.push(Resolved { key: setting.key, value, origin, about: setting.about });
        }
        Ok(Self::from_resolved(shown))
    }

    fn from_resolved(shown: Vec<Resolved>) -> Self {
        let text = |key: &str| shown.iter().find(|r| r.key == key).and_then(|r| r.value.clone());
        // Every value was checked against its kind, so a parse fails only where there is no value.
        let number = |key: &str| text(key).and_then(|value| value.parse::<u64>().ok());
        let small = |key: &str| number(key).and_then(|n| u32::try_from(n).ok());
        let scope = |name: &str| ScopeSettings::read(name, text);
        let worker_egress = EgressSettings {
            up_mb: number("worker.egress_up_mb").unwrap_or(1),
            down_mb: number("worker.egress_down_mb").unwrap_or(1),
            connections: small("worker.egress_connections").unwrap_or(1),
            head_kb: small("worker.egress_head_kb").unwrap_or(8),
            idle_seconds: small("worker.egress_idle_seconds").unwrap_or(1),
            total_seconds: small("worker.egress_total_seconds").unwrap_or(1),
        };
        Self {
            server: text("server"),
            token_file: text("token_file").map(PathBuf::from),
            data_dir: text("data_dir").map(PathBuf::from),
            providers_file: text("providers_file").map(PathBuf::from),
            worker_root: text("worker.root").map(PathBuf::from),
            worker_slots: small("worker.slots").unwrap_or(1),
            worker_bwrap: text("worker.bwrap").map(PathBuf::from),
            worker_sandbox_paths: text("worker.sandbox_paths")
                .map(|paths| std::env::split_paths(&paths).collect())
                .unwrap_or_default(),
            worker_sandbox_memory: small("worker.sandbox_memory_mb").map_or(4096, u64::from),
            worker_egress,
            worker_sandbox_tree: (
                number("worker.sandbox_tree_mb").unwrap_or(16_384),
                number("worker.sandbox_tree_files").unwrap_or(1_000_000),
            ),
            worker_sandbox_profile: text("worker.sandbox_profile").unwrap_or_default(),
            worker_sandbox_selftest: number("worker.sandbox_selftest_seconds").unwrap_or(21_600),
            provision_file: text("provision_file").map(PathBuf::from),
            worker_warm: small("worker.warm").unwrap_or(0),
            worker_transcript_mib: small("worker.transcript_mib").unwrap_or(1),
            worker_report_mib: small("worker.report_mib").unwrap_or(1),
            grace_seconds: small("supervisor.grace_seconds").unwrap_or(0),
            otel_endpoint: text("otel.endpoint"),
            limits: LimitSettings {
                tokens: number("limits.tokens"),
                seconds: number("limits.seconds"),
                files: number("limits.files"),
                cost: text("limits.cost").and_then(|value| value.parse().ok()),
                calls: number("limits.calls"),
            },
            spend: SpendSettings {
                call: scope("call"),
                attempt: scope("attempt"),
                phase: scope("phase"),
                project: scope("project"),
                day: scope("day"),
                breaker_failures: small("limits.breaker_failures").unwrap_or(1),
                breaker_seconds: small("limits.breaker_seconds").unwrap_or(1),
                credential_uses: small("limits.credential_uses").unwrap_or(1),
                transcript_days: small("limits.transcript_days").unwrap_or(0),
                transcript_mib: small("limits.transcript_mib").unwrap_or(0),
            },
            shown,
        }
    }

    /// Every setting with its value and where it came from, in a fixed order.
    #[must_use]
    pub fn shown(&self) -> &[Resolved] {
        &self.shown
    }
}

/// The name of `known` that is closest to `name`, if one is close.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let limit = (name.chars().count() / 3).max(2);
    known
        .into_iter()
        .map(|candidate| (edits(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// The Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;

//! The one list of settings: name, kind, default, and what each is for.

/// What a setting's value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text that is not empty.
    Text,
    /// A file or folder.
    Path,
    /// A whole number within bounds.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A number that is not negative.
    Amount,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name; a dotted one stands in that section of the file, others only in environment and flags.
    pub key: &'static str,
    /// What it must be.
    pub kind: Kind,
    /// What holds when nobody says anything.
    pub default: Option<&'static str>,
    /// What it is for, in one line.
    pub about: &'static str,
}

/// Any whole number that is not 0.
const ANY: Kind = Kind::Count { min: 1, max: u64::MAX };

/// Every setting of this build.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "server",
        kind: Kind::Text,
        default: None,
        about: "a supervisor elsewhere; not set: embedded, in this process",
    },
    Setting { key: "token_file", kind: Kind::Path, default: None, about: "a file with the token for the server" },
    Setting {
        key: "provision_file",
        kind: Kind::Path,
        default: None,
        about: "what the embedded worker lets projects have besides their commits: ignored files, secrets by name",
    },
    Setting {
        key: "data_dir",
        kind: Kind::Path,
        default: None,
        about: "where runs keep what they leave; not set: <repo>/.autonomous_runs",
    },
    // Not of the file: a repository must not say where keys are and where they go.
    Setting {
        key: "providers_file",
        kind: Kind::Path,
        default: None,
        about: "a file with providers of models besides the known ones (docs/BUILDERS.md)",
    },
    Setting {
        key: "worker.root",
        kind: Kind::Path,
        default: None,
        about: "where the mirror and the worktrees live; not set: the user's state folder",
    },
    Setting {
        key: "worker.slots",
        kind: Kind::Count { min: 1, max: 64 },
        default: Some("2"),
        about: "phases that the embedded worker does at once",
    },
    Setting {
        key: "worker.bwrap",
        kind: Kind::Path,
        default: None,
        about: "bubblewrap, or none for the built-in way; not set: the one on the PATH, else none",
    },
    Setting {
        key: "worker.sandbox_paths",
        kind: Kind::Text,
        default: None,
        about: "folders that builders and gates may read besides the system's, such as toolchains; parted by colons",
    },
    Setting {
        key: "worker.sandbox_memory_mb",
        kind: Kind::Count { min: 64, max: 1 << 24 },
        default: Some("4096"),
        about: "mebibytes of memory of one builder or gate",
    },
    Setting {
        key: "worker.egress_up_mb",
        kind: Kind::Count { min: 1, max: 1 << 20 },
        default: Some("256"),
        about: "mebibytes that one builder or gate may send to hosts and models",
    },
    Setting {
        key: "worker.egress_down_mb",
        kind: Kind::Count { min: 1, max: 1 << 20 },
        default: Some("1024"),
        about: "mebibytes that one builder or gate may receive from hosts and models",
    },
    Setting {
        key: "worker.egress_connections",
        kind: Kind::Count { min: 1, max: 1024 },
        default: Some("64"),
        about: "connections of one builder or gate to hosts and models at once",
    },
    Setting {
        key: "worker.egress_head_kb",
        kind: Kind::Count { min: 8, max: 1024 },
        default: Some("64"),
        about: "kibibytes of the head of one request to hosts and models",
    },
    Setting {
        key: "worker.egress_idle_seconds",
        kind: Kind::Count { min: 1, max: 86_400 },
        default: Some("600"),
        about: "seconds without a byte after which such a connection is ended",
    },
    Setting {
        key: "worker.egress_total_seconds",
        kind: Kind::Count { min: 1, max: 604_800 },
        default: Some("7200"),
        about: "seconds after which such a connection is ended",
    },
    Setting {
        key: "worker.sandbox_tree_mb",
        kind: Kind::Count { min: 1, max: 1 << 24 },
        default: Some("16384"),
        about: "mebibytes that the tree of one builder or gate may take up on the disk",
    },
    Setting {
        key: "worker.sandbox_tree_files",
        kind: Kind::Count { min: 1, max: u64::MAX },
        default: Some("1000000"),
        about: "files that the tree of one builder or gate may have",
    },
    Setting {
        key: "worker.sandbox_profile",
        kind: Kind::Text,
        default: Some("default"),
        about: "default, or strict: only system calls that ordinary tools need, and no TCP; a policy may ask for it too",
    },
    Setting {
        key: "worker.sandbox_selftest_seconds",
        kind: Kind::Count { min: 1, max: 7 * 24 * 3600 },
        default: Some("21600"),
        about: "how long a self-test of the sandboxes is good; a changed kernel or bubblewrap is tested at once",
    },
    Setting {
        key: "worker.warm",
        kind: Kind::Count { min: 0, max: 64 },
        default: Some("2"),
        about: "worktrees of a project that are kept ready for the next leases; 0: none",
    },
    Setting {
        key: "worker.transcript_mib",
        kind: Kind::Count { min: 1, max: 16 },
        default: Some("8"),
        about: "mebibytes of what a builder, or a gate's commands together, print that are kept",
    },
    Setting {
        key: "worker.report_mib",
        kind: Kind::Count { min: 1, max: 256 },
        default: Some("16"),
        about: "mebibytes that the report of a gate command may have",
    },
    Setting {
        key: "supervisor.grace_seconds",
        kind: Kind::Count { min: 0, max: 3600 },
        default: Some("10"),
        about: "how long a stopping process waits for its work",
    },
    Setting {
        key: "otel.endpoint",
        kind: Kind::Text,
        default: None,
        about: "a collector for traces, metrics and logs (OTLP over gRPC); not set: OTEL_EXPORTER_OTLP_ENDPOINT",
    },
    Setting {
        key: "limits.tokens",
        kind: Kind::Count { min: 1, max: u64::MAX },
        default: None,
        about: "model tokens of a run that names no bound itself",
    },
    Setting {
        key: "limits.seconds",
        kind: Kind::Count { min: 1, max: u64::MAX },
        default: None,
        about: "builder seconds of a run that names no bound itself",
    },
    Setting {
        key: "limits.files",
        kind: Kind::Count { min: 1, max: u64::MAX },
        default: None,
        about: "changed files of a run that names no bound itself",
    },
    Setting {
        key: "limits.cost",
        kind: Kind::Amount,
        default: None,
        about: "cost of a run that names no bound itself",
    },
    Setting {
        key: "limits.calls",
        kind: ANY,
        default: None,
        about: "calls of models of a run that names no bound itself",
    },
    Setting { key: "limits.call_tokens", kind: ANY, default: None, about: "model tokens of one call" },
    Setting { key: "limits.call_cost", kind: Kind::Amount, default: None, about: "cost of one call" },
    Setting {
        key: "limits.attempt_tokens",
        kind: ANY,
        default: Some("500000"),
        about: "model tokens that one attempt reserves and may use",
    },
    Setting {
        key: "limits.attempt_cost",
        kind: Kind::Amount,
        default: Some("5"),
        about: "cost that one attempt reserves and may use",
    },
    Setting {
        key: "limits.attempt_calls",
        kind: ANY,
        default: Some("200"),
        about: "calls of models that one attempt reserves and may make",
    },
    Setting {
        key: "limits.phase_tokens",
        kind: ANY,
        default: None,
        about: "model tokens of a phase that names no bound itself",
    },
    Setting {
        key: "limits.phase_cost",
        kind: Kind::Amount,
        default: None,
        about: "cost of a phase that names no bound itself",
    },
    Setting {
        key: "limits.phase_calls",
        kind: ANY,
        default: None,
        about: "calls of models of a phase that names no bound itself",
    },
    Setting {
        key: "limits.phase_seconds",
        kind: ANY,
        default: None,
        about: "builder seconds of a phase that names no bound itself",
    },
    Setting {
        key: "limits.phase_files",
        kind: ANY,
        default: None,
        about: "changed files of a phase that names no bound itself",
    },
    Setting { key: "limits.project_tokens", kind: ANY, default: None, about: "model tokens of a project in all" },
    Setting { key: "limits.project_cost", kind: Kind::Amount, default: None, about: "cost of a project in all" },
    Setting { key: "limits.project_calls", kind: ANY, default: None, about: "calls of models of a project in all" },
    Setting { key: "limits.project_seconds", kind: ANY, default: None, about: "builder seconds of a project in all" },
    Setting { key: "limits.project_files", kind: ANY, default: None, about: "changed files of a project in all" },
    Setting {
        key: "limits.day_tokens",
        kind: ANY,
        default: None,
        about: "model tokens of a project on one day, by UTC",
    },
    Setting {
        key: "limits.day_cost",
        kind: Kind::Amount,
        default: None,
        about: "cost of a project on one day, by UTC",
    },
    Setting {
        key: "limits.day_calls",
        kind: ANY,
        default: None,
        about: "calls of models of a project on one day, by UTC",
    },
    Setting {
        key: "limits.day_seconds",
        kind: ANY,
        default: None,
        about: "builder seconds of a project on one day, by UTC",
    },
    Setting {
        key: "limits.day_files",
        kind: ANY,
        default: None,
        about: "changed files of a project on one day, by UTC",
    },
    Setting {
        key: "limits.breaker_failures",
        kind: Kind::Count { min: 1, max: 1000 },
        default: Some("5"),
        about: "failures of its surroundings in a row after which a builder is left alone",
    },
    Setting {
        key: "limits.breaker_seconds",
        kind: Kind::Count { min: 1, max: 86_400 },
        default: Some("300"),
        about: "how long a builder is left alone before one attempt tries it again",
    },
    Setting {
        key: "limits.credential_uses",
        kind: Kind::Count { min: 1, max: 10_000 },
        default: Some("8"),
        about: "attempts that may use one credential at once",
    },
    Setting {
        key: "limits.transcript_days",
        kind: Kind::Count { min: 0, max: 36_500 },
        default: Some("90"),
        about: "days that a transcript is kept which no decision names; 0: for good",
    },
    Setting {
        key: "limits.transcript_mib",
        kind: Kind::Count { min: 0, max: 1 << 30 },
        default: Some("4096"),
        about: "mebibytes of a project's transcripts above which the oldest go that no decision names; 0: any number",
    },
];

impl Setting {
    /// The environment variable that sets it: `AUTOPACK_WORKER_SLOTS`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("AUTOPACK_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// Whether it may stand in the file.
    #[must_use]
    pub fn in_file(&self) -> bool {
        self.key.contains('.')
    }

    /// Checks a value.
    pub(super) fn check(&self, value: &str) -> Result<(), &'static str> {
        match self.kind {
            Kind::Text | Kind::Path if value.trim().is_empty() => Err("it must not be empty"),
            Kind::Text | Kind::Path => Ok(()),
            Kind::Count { min, max } => match value.parse::<u64>() {
                Ok(n) if (min..=max).contains(&n) => Ok(()),
                Ok(n) if n < min => Err("the number is too small"),
                Ok(_) => Err("the number is too large"),
                Err(_) => Err("it must be a whole number"),
            },
            Kind::Amount => match value.parse::<f64>() {
                Ok(n) if n.is_finite() && n >= 0.0 => Ok(()),
                Ok(_) | Err(_) => Err("it must be a number that is not negative"),
            },
        }
    }
}

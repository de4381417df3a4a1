//! The JSON of the cases. An unknown key is an error: a case that is half understood proves nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use autopack_shared::domain::parallelism::PhaseScopePaths;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) context: Context,
    pub(crate) base: Vec<File>,
    pub(crate) change: Option<Vec<Step>>,
    pub(crate) patch_text: Option<String>,
    pub(crate) expect: Expect,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Context {
    pub(crate) profile: Option<String>,
    /// Absent, null or a word.
    #[serde(deserialize_with = "given")]
    pub(crate) risk_tolerance: Option<Option<String>>,
    pub(crate) anchor: Option<bool>,
    pub(crate) allowed_write_roots: Vec<String>,
    pub(crate) protected_paths: Vec<String>,
    pub(crate) never_allow: Vec<String>,
    pub(crate) scope: Vec<String>,
    pub(crate) category: Option<String>,
    pub(crate) description: String,
    pub(crate) claimed_risk: Option<String>,
    pub(crate) window: Option<CaseWindow>,
}

#[expect(clippy::option_option, reason = "absent and null mean different things in a case")]
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(deserializer).map(Some)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseWindow {
    pub(crate) run_size: u64,
    pub(crate) project_24h_size: u64,
}

/// A file of the base, or what a step puts in its place.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    pub(crate) path: Option<String>,
    pub(crate) path_b64: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) seed: Option<String>,
    pub(crate) content: Option<Content>,
    pub(crate) lines: Option<usize>,
    pub(crate) bytes: Option<usize>,
    pub(crate) blob_b64: Option<String>,
    pub(crate) symlink: Option<String>,
    pub(crate) gitlink: Option<String>,
    pub(crate) count: Option<usize>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Part {
    Text(String),
    Repeat { repeat: String, times: usize },
}

/// One step of a change.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Step {
    pub(crate) op: String,
    pub(crate) path: Option<String>,
    pub(crate) path_b64: Option<String>,
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) mode: Option<String>,
    pub(crate) seed: Option<String>,
    pub(crate) content: Option<Content>,
    pub(crate) lines: Option<usize>,
    pub(crate) bytes: Option<usize>,
    pub(crate) blob_b64: Option<String>,
    pub(crate) added: Option<usize>,
    pub(crate) removed: Option<usize>,
    pub(crate) target: Option<String>,
    pub(crate) commit: Option<String>,
    pub(crate) count: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    pub(crate) verdict: Option<String>,
    pub(crate) verdict_one_of: Vec<String>,
    pub(crate) reasons_include: Vec<String>,
    pub(crate) reasons_exclude: Vec<String>,
    pub(crate) reason_paths: BTreeMap<String, Vec<String>>,
    pub(crate) score: Option<u8>,
    pub(crate) severity: Option<String>,
    pub(crate) facts: Option<ExpectFacts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectFacts {
    pub(crate) size: u64,
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) files: u64,
    pub(crate) dirs: u64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum GateLine {
    Overlap { id: String, title: String, a: PhaseScopePaths, b: PhaseScopePaths, expect_overlap: bool },
    Gate(GateCase),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateCase {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) anchor: Option<serde_json::Value>,
    pub(crate) runs: Runs,
    pub(crate) workers: i64,
    #[serde(default)]
    pub(crate) active: i64,
    pub(crate) expect: ExpectGate,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Runs {
    Count(i64),
    Names(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExpectGate {
    pub(crate) allow: bool,
    pub(crate) reason: Option<String>,
    pub(crate) effective: Option<u64>,
}

/// Reads the lines of a file of cases.
pub(crate) fn read<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{file}: {error}: {line}")))
        .collect()
}

//! The gap report: what a scan found, in the predecessor's `GapReportV1` form. Plain data; the order of gaps, the
//! ids and the summary are made here so that two scans of one tree write the same bytes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::ids::Digest;

pub use report::{GapMetadata, GapReportV1, GapSummary, ReportHead};

mod report;

/// The names this build gives its scanner in `metadata.scanner_version`.
pub const SCANNER_VERSION: &str = "2.0.0";

/// The longest preview of an excerpt, in characters.
pub const PREVIEW_CHARS: usize = 200;

/// `format_version` of the three artifacts that came in version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum FormatVersion {
    /// `v1`.
    #[default]
    #[serde(rename = "v1")]
    V1,
}

/// The `format` tag of a gap report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum GapReportFormat {
    /// `gap_report/1`.
    #[default]
    #[serde(rename = "gap_report/1")]
    V1,
}

/// A digest that is neither 16 to 64 characters long nor lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest must be 16 to 64 lower-case hex digits")]
pub struct InvalidHexDigest;

/// A SHA-256 as the artifacts write it: 16 to 64 lower-case hex digits. Ours are always 64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^[a-f0-9]{16,64}$"))]
pub struct HexDigest(String);

impl HexDigest {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Digest> for HexDigest {
    fn from(digest: Digest) -> Self {
        Self(digest.to_hex())
    }
}

impl TryFrom<String> for HexDigest {
    type Error = InvalidHexDigest;
    fn try_from(value: String) -> Result<Self, InvalidHexDigest> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if (16..=64).contains(&value.len()) && value.bytes().all(hex) { Ok(Self(value)) } else { Err(InvalidHexDigest) }
    }
}

impl From<HexDigest> for String {
    fn from(value: HexDigest) -> Self {
        value.0
    }
}

/// The eleven kinds of gap, in the order of the predecessor's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapType {
    /// Documentation that no longer agrees with the tree: relative links to nothing.
    DocDrift,
    /// Notes and scratch files in the root folder.
    RootClutter,
    /// One document kept twice, byte for byte.
    SotDuplicate,
    /// Failures a test run left behind.
    TestInfraDrift,
    /// Documents too large to be read into a builder's context.
    MemoryBudgetCapIssue,
    /// Text that is not UTF-8.
    WindowsEncodingIssue,
    /// The baseline policy is missing.
    BaselinePolicyDrift,
    /// Uncommitted changes under protected paths.
    ProtectedPathViolation,
    /// A lock file of a database lies around.
    DbLockContention,
    /// References, the tree of HEAD or the index do not resolve, or an operation is half done.
    GitStateCorruption,
    /// Anything else, also a detector that failed.
    Unknown,
}

impl GapType {
    /// Every kind, in table order.
    pub const ALL: [Self; 11] = [
        Self::DocDrift,
        Self::RootClutter,
        Self::SotDuplicate,
        Self::TestInfraDrift,
        Self::MemoryBudgetCapIssue,
        Self::WindowsEncodingIssue,
        Self::BaselinePolicyDrift,
        Self::ProtectedPathViolation,
        Self::DbLockContention,
        Self::GitStateCorruption,
        Self::Unknown,
    ];

    /// The name in JSON, in ids and in `autopack.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DocDrift => "doc_drift",
            Self::RootClutter => "root_clutter",
            Self::SotDuplicate => "sot_duplicate",
            Self::TestInfraDrift => "test_infra_drift",
            Self::MemoryBudgetCapIssue => "memory_budget_cap_issue",
            Self::WindowsEncodingIssue => "windows_encoding_issue",
            Self::BaselinePolicyDrift => "baseline_policy_drift",
            Self::ProtectedPathViolation => "protected_path_violation",
            Self::DbLockContention => "db_lock_contention",
            Self::GitStateCorruption => "git_state_corruption",
            Self::Unknown => "unknown",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for GapType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much harm a gap can do; the declared order is the order in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RiskClass {
    /// Work must stop.
    Critical,
    /// Automatic work must wait for a person.
    High,
    /// Worth mending.
    Medium,
    /// Worth knowing.
    Low,
    /// For the record; not counted.
    Info,
}

/// A piece of text that shows the gap. Untrusted: escape before showing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Excerpt {
    /// Where it stands: a path, or `path:line`.
    pub source: String,
    /// The content it was cut from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<String>,
    /// At most 200 characters of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub preview: Option<String>,
}

impl Excerpt {
    /// Cuts a preview to size and replaces characters that could act on a terminal.
    #[must_use]
    pub fn new(source: impl Into<String>, preview: &str) -> Self {
        let harmless = |c: char| {
            if c.is_control() || is_bidi(c) { '\u{fffd}' } else { c }
        };
        let preview = preview.chars().take(PREVIEW_CHARS).map(harmless).collect();
        Self { source: source.into(), content_hash: None, preview: Some(preview) }
    }
}

const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What a command said, in reports of the predecessor. Our detectors run no commands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandEvidence {
    /// The command line.
    pub command: String,
    /// Its exit code.
    pub exit_code: i64,
    /// 16 hex digits of the SHA-256 of its output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_hash: Option<String>,
    /// The first 500 characters of what it complained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500))]
    pub stderr_excerpt: Option<String>,
}

/// What a gap rests on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// The files in question. Complete up to the scan's limit; what is beyond it is counted in `omitted_paths`.
    /// Names that are not UTF-8 are written with `\xNN`.
    #[serde(default)]
    pub file_paths: Vec<String>,
    /// Tests in question.
    #[serde(default)]
    pub test_names: Vec<String>,
    /// Text in question.
    #[serde(default)]
    pub excerpts: Vec<Excerpt>,
    /// Output of a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command_evidence: Option<CommandEvidence>,
    /// How many more files have the same fault; the next scan lists them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted_paths: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

const fn yes() -> bool {
    true
}

/// What could be done about a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SafeRemediation {
    /// The way to go, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approach: Option<String>,
    /// Whether a person has to agree; always true for gaps found by a scan.
    #[serde(default = "yes")]
    pub requires_approval: bool,
    /// How many things would be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_actions: Option<u64>,
    /// Every path the built-in remediation would write, create or delete; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_paths: Option<Vec<String>>,
    /// The files among evidence and targets that differ from HEAD: they must be committed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncommitted_paths: Vec<String>,
}

impl Default for SafeRemediation {
    fn default() -> Self {
        Self {
            approach: None,
            requires_approval: true,
            estimated_actions: None,
            target_paths: None,
            uncommitted_paths: Vec::new(),
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// `<gap_type>-<12 hex>`: the same for the same files in every scan.
    pub gap_id: String,
    /// Which kind it is.
    pub gap_type: GapType,
    /// One line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// A sentence or two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What gave it away.
    #[serde(default)]
    pub detection_signals: Vec<String>,
    /// What it rests on.
    #[serde(default)]
    pub evidence: Evidence,
    /// How much harm it can do.
    pub risk_classification: RiskClass,
    /// Whether automatic work has to wait for it.
    pub blocks_autopilot: bool,
    /// What could be done about it.
    #[serde(default)]
    pub safe_remediation: SafeRemediation,
}

impl Gap {
    /// A gap whose id is derived from its kind and `inputs` (usually the files), in any order.
    #[must_use]
    pub fn new(gap_type: GapType, risk: RiskClass, inputs: &[String]) -> Self {
        Self {
            gap_id: gap_id(gap_type, inputs),
            gap_type,
            title: None,
            description: None,
            detection_signals: Vec::new(),
            evidence: Evidence::default(),
            risk_classification: risk,
            blocks_autopilot: matches!(risk, RiskClass::Critical | RiskClass::High),
            safe_remediation: SafeRemediation::default(),
        }
    }

    /// Whether a built-in remediation exists for what this gap describes.
    #[must_use]
    pub const fn has_remediation(&self) -> bool {
        self.safe_remediation.target_paths.is_some()
    }
}

/// The predecessor's id: the kind, and 12 hex digits of SHA-256 over `kind:` and the sorted inputs joined by `|`.
#[must_use]
pub fn gap_id(gap_type: GapType, inputs: &[String]) -> String {
    let mut sorted: Vec<&str> = inputs.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let text = format!("{gap_type}:{}", sorted.join("|"));
    format!("{gap_type}-{}", &Digest::of(text.as_bytes()).to_hex()[..12])
}

#[cfg(test)]
mod tests;

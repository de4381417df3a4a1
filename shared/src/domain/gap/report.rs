//! The report around the gaps: order, summary, and what an anchor adds.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::gap::{FormatVersion, Gap, GapReportFormat, HexDigest, RiskClass, SCANNER_VERSION};
use crate::domain::ids::Timestamp;

/// How many gaps of which risk; `info` is not counted by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GapSummary {
    /// All of them.
    pub total_gaps: u64,
    /// Critical ones.
    #[serde(default)]
    pub critical_gaps: u64,
    /// High ones.
    #[serde(default)]
    pub high_gaps: u64,
    /// Medium ones.
    #[serde(default)]
    pub medium_gaps: u64,
    /// Low ones.
    #[serde(default)]
    pub low_gaps: u64,
    /// Those that automatic work has to wait for.
    #[serde(default)]
    pub autopilot_blockers: u64,
}

impl GapSummary {
    fn of(gaps: &[Gap]) -> Self {
        let mut sum = Self { total_gaps: gaps.len() as u64, ..Self::default() };
        for gap in gaps {
            match gap.risk_classification {
                RiskClass::Critical => sum.critical_gaps += 1,
                RiskClass::High => sum.high_gaps += 1,
                RiskClass::Medium => sum.medium_gaps += 1,
                RiskClass::Low => sum.low_gaps += 1,
                RiskClass::Info => {}
            }
            sum.autopilot_blockers += u64::from(gap.blocks_autopilot);
        }
        sum
    }
}

/// About the scan itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GapMetadata {
    /// Which scanner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scanner_version: Option<String>,
    /// How long it took; left out by our scanner, because equal trees must give equal reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan_duration_ms: Option<u64>,
    /// What is worth knowing about the checkout: `branch:main`, `detached_head`, `shallow`, `dirty:3`,
    /// `submodules:1`, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workspace_state: Vec<String>,
    /// What the scan left out on purpose, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// What a scan of one tree found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GapReportV1 {
    /// The tag every JSON output carries; reports of the predecessor have none.
    #[serde(default)]
    pub format: GapReportFormat,
    /// Always `v1`.
    pub format_version: FormatVersion,
    /// Which project.
    #[schemars(length(min = 1))]
    pub project_id: String,
    /// Which run the scan was made for.
    #[schemars(length(min = 1))]
    pub run_id: String,
    /// When.
    #[schemars(with = "jiff::Timestamp")]
    pub generated_at: Timestamp,
    /// What was scanned: HEAD, index and every file that differs from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_state_digest: Option<HexDigest>,
    /// Worst first.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Counts.
    #[serde(default)]
    pub summary: GapSummary,
    /// About the scan.
    #[serde(default)]
    pub metadata: GapMetadata,
}

/// What identifies a report: everything but the gaps.
#[derive(Debug, Clone)]
pub struct ReportHead {
    /// Which project.
    pub project_id: String,
    /// Which run.
    pub run_id: String,
    /// When.
    pub generated_at: Timestamp,
    /// What was scanned.
    pub digest: Option<HexDigest>,
    /// See [`GapMetadata::workspace_state`].
    pub workspace_state: Vec<String>,
    /// See [`GapMetadata::notices`].
    pub notices: Vec<String>,
}

impl GapReportV1 {
    /// Sorts the gaps (worst first, then kind, then id), drops exact repeats and counts.
    #[must_use]
    pub fn assemble(head: ReportHead, mut gaps: Vec<Gap>) -> Self {
        gaps.sort_by(|a, b| {
            let key = |g: &Gap| (g.risk_classification, g.gap_type);
            key(a).cmp(&key(b)).then_with(|| a.gap_id.cmp(&b.gap_id))
        });
        gaps.dedup_by(|a, b| a.gap_id == b.gap_id);
        Self {
            format: GapReportFormat::V1,
            format_version: FormatVersion::V1,
            project_id: head.project_id,
            run_id: head.run_id,
            generated_at: head.generated_at,
            workspace_state_digest: head.digest,
            summary: GapSummary::of(&gaps),
            gaps,
            metadata: GapMetadata {
                scanner_version: Some(SCANNER_VERSION.to_owned()),
                scan_duration_ms: None,
                workspace_state: head.workspace_state,
                notices: head.notices,
            },
        }
    }

    /// Makes every gap that touches an anchor's protected path block autopilot. Called where the anchor's profile
    /// is strict; the risk class stays as it is.
    pub fn block_protected(&mut self, is_protected: impl Fn(&str) -> bool) {
        for gap in &mut self.gaps {
            let targets = gap.safe_remediation.target_paths.iter().flatten();
            let hit: BTreeSet<&str> = (gap.evidence.file_paths.iter().chain(targets))
                .map(String::as_str)
                .filter(|path| is_protected(path))
                .collect();
            let Some(first) = hit.first() else { continue };
            let signal = format!("anchor_protected: {first}");
            if !gap.detection_signals.contains(&signal) {
                gap.detection_signals.push(signal);
            }
            gap.blocks_autopilot = true;
        }
        self.summary = GapSummary::of(&self.gaps);
    }
}

//! The gate for parallel runs, and whether two phases may work side by side. One run needs no permission; more than
//! one need an anchor that allows them and isolation that keeps them apart.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::anchor::{IntentionAnchorV2, IsolationModel};
use super::ids::RunId;
use super::path::PathRoot;

/// What is known of the project's anchor.
#[derive(Debug, Clone, Copy)]
pub enum AnchorState<'a> {
    /// There is none.
    Absent,
    /// There is one and it was refused.
    Invalid,
    /// There is one.
    Present(&'a IntentionAnchorV2),
}

/// Which runs are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunsRequest {
    /// That many.
    Count(i64),
    /// These, by name.
    Names(Vec<String>),
}

/// The question put to the gate.
#[derive(Debug, Clone)]
pub struct GateInput<'a> {
    /// The anchor in force.
    pub anchor: AnchorState<'a>,
    /// The runs asked for.
    pub runs: RunsRequest,
    /// How many of them could work at once.
    pub workers: i64,
    /// How many runs of the project hold a lease now.
    pub active: i64,
}

/// What the gate rests its answer on; the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateReason {
    /// Nothing speaks against it.
    Allowed,
    /// A number below 1, a run named twice, or a name that is no run id.
    InvalidInput,
    /// The anchor was refused.
    AnchorInvalid,
    /// More than one run, and no anchor.
    AnchorRequired,
    /// The anchor says nothing about parallel runs.
    PolicyUndefined,
    /// The anchor does not allow parallel runs.
    NotAllowed,
    /// More runs than the anchor allows.
    OverLimit,
    /// The anchor's isolation model does not keep runs apart.
    IsolationInsufficient,
}

impl GateReason {
    /// The reason as JSON shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::InvalidInput => "invalid_input",
            Self::AnchorInvalid => "anchor_invalid",
            Self::AnchorRequired => "anchor_required",
            Self::PolicyUndefined => "policy_undefined",
            Self::NotAllowed => "not_allowed",
            Self::OverLimit => "over_limit",
            Self::IsolationInsufficient => "isolation_insufficient",
        }
    }
}

/// The answer of the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateDecision {
    /// Whether the runs may go.
    pub allow: bool,
    /// Why.
    pub reason: GateReason,
    /// How many runs would be active at once; 0 for invalid input.
    pub effective: u64,
}

/// Decides whether the runs may go.
#[must_use]
pub fn decide(input: &GateInput<'_>) -> GateDecision {
    let Some(effective) = effective(input) else {
        return GateDecision { allow: false, reason: GateReason::InvalidInput, effective: 0 };
    };
    let reason = reason(input.anchor, effective);
    GateDecision { allow: reason == GateReason::Allowed, reason, effective }
}

fn effective(input: &GateInput<'_>) -> Option<u64> {
    let runs = match &input.runs {
        RunsRequest::Count(count) => u64::try_from(*count).ok()?,
        RunsRequest::Names(names) => {
            let distinct: BTreeSet<&String> = names.iter().collect();
            if distinct.len() < names.len() || names.iter().any(|name| RunId::new(name.as_str()).is_err()) {
                return None;
            }
            names.len() as u64
        }
    };
    let workers = u64::try_from(input.workers).ok()?;
    let active = u64::try_from(input.active).ok()?;
    if runs == 0 || workers == 0 { None } else { Some(active.saturating_add(workers.min(runs))) }
}

fn reason(anchor: AnchorState<'_>, effective: u64) -> GateReason {
    let anchor = match anchor {
        AnchorState::Invalid => return GateReason::AnchorInvalid,
        AnchorState::Absent => None,
        AnchorState::Present(anchor) => Some(anchor),
    };
    if effective == 1 {
        return GateReason::Allowed;
    }
    let Some(anchor) = anchor else {
        return GateReason::AnchorRequired;
    };
    let Some(pivot) = &anchor.pivot_intentions.parallelism_isolation else {
        return GateReason::PolicyUndefined;
    };
    if !pivot.allowed {
        return GateReason::NotAllowed;
    }
    if effective > u64::from(pivot.max_concurrent_runs) {
        return GateReason::OverLimit;
    }
    match pivot.isolation_model {
        IsolationModel::FourLayer => GateReason::Allowed,
        IsolationModel::None => GateReason::IsolationInsufficient,
    }
}

/// The paths a phase says it writes and reads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PhaseScopePaths {
    /// What it writes.
    pub write: Vec<String>,
    /// What it only reads.
    pub read: Vec<String>,
}

/// Why two phases may not work side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeOverlap {
    /// One of them has no scope and may touch anything.
    NoScope,
    /// These two entries may name the same file, and at least one is written.
    Paths {
        /// The entry of the first phase.
        first: String,
        /// The entry of the second phase.
        second: String,
    },
}

/// Whether two phases may disturb each other, and where. Two readers do not; what cannot be read as a path overlaps
/// everything.
#[must_use]
pub fn scopes_overlap(a: &PhaseScopePaths, b: &PhaseScopePaths) -> Option<ScopeOverlap> {
    let unscoped = |scope: &PhaseScopePaths| scope.write.is_empty() && scope.read.is_empty();
    if unscoped(a) || unscoped(b) {
        return Some(ScopeOverlap::NoScope);
    }
    first_overlap(&a.write, &b.write)
        .or_else(|| first_overlap(&a.write, &b.read))
        .or_else(|| first_overlap(&a.read, &b.write))
}

fn first_overlap(a: &[String], b: &[String]) -> Option<ScopeOverlap> {
    let roots: Vec<(&String, Option<PathRoot>)> = b.iter().map(|entry| (entry, PathRoot::parse(entry).ok())).collect();
    a.iter().find_map(|first| {
        let own = PathRoot::parse(first).ok();
        let hit = roots.iter().find(|(_, other)| match (&own, other) {
            (Some(own), Some(other)) => own.overlaps(other),
            (None, _) | (_, None) => true,
        });
        hit.map(|(second, _)| ScopeOverlap::Paths { first: first.clone(), second: (*second).clone() })
    })
}

//! The verdict as it is stored, signed and shown, and the subject it is bound to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::change::ChangeFacts;
use crate::domain::ids::{Digest, Oid, PhaseId, RunId};
use crate::domain::policy::PathClass;
use crate::domain::reason::{Reason, ReasonCode};
use crate::domain::score::Severity;

use super::findings::{Findings, Level};

/// The value of `format`.
pub const FORMAT: &str = "verdict/1";

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Decision {
    /// Tier 1: goes on.
    AutoApproved,
    /// Tier 2: goes on, and somebody is told.
    NotifyAndProceed,
    /// Tier 3: waits for an approval.
    ApprovalRequired,
    /// Tier 4: needs an elevated approval.
    Blocked,
    /// Nobody can approve it.
    Rejected,
    /// There is nothing to decide.
    NoChange,
    /// It does not fit the base.
    Conflict,
}

impl Decision {
    /// The tier, for the decisions that have one.
    #[must_use]
    pub const fn tier(self) -> Option<u8> {
        match self {
            Self::AutoApproved => Some(1),
            Self::NotifyAndProceed => Some(2),
            Self::ApprovalRequired => Some(3),
            Self::Blocked => Some(4),
            Self::Rejected | Self::NoChange | Self::Conflict => None,
        }
    }

    /// The word as JSON shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AutoApproved => "AUTO_APPROVED",
            Self::NotifyAndProceed => "NOTIFY_AND_PROCEED",
            Self::ApprovalRequired => "APPROVAL_REQUIRED",
            Self::Blocked => "BLOCKED",
            Self::Rejected => "REJECTED",
            Self::NoChange => "NO_CHANGE",
            Self::Conflict => "CONFLICT",
        }
    }

    /// How strict it is, for comparing verdicts of two policies: nothing to do, then tiers, then refusals.
    #[must_use]
    pub const fn strictness(self) -> u8 {
        match self {
            Self::NoChange => 0,
            Self::AutoApproved => 1,
            Self::NotifyAndProceed => 2,
            Self::ApprovalRequired => 3,
            Self::Blocked => 4,
            Self::Conflict => 5,
            Self::Rejected => 6,
        }
    }
}

impl std::fmt::Display for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The decision about a change, with everything it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Always [`FORMAT`].
    pub format: String,
    /// What was decided.
    pub verdict: Decision,
    /// 1 to 4; absent for `REJECTED`, `NO_CHANGE` and `CONFLICT`.
    pub tier: Option<u8>,
    /// All that apply, in the order of their codes.
    pub reasons: Vec<Reason>,
    /// 0 to 100.
    pub score: u8,
    /// As shown to people.
    pub severity: Severity,
    /// What was judged.
    pub facts: ChangeFacts,
    /// Changed lines by path class, to be added to the window.
    pub class_sizes: BTreeMap<PathClass, u64>,
    /// What it is bound to; set by [`Verdict::bind`].
    #[schemars(with = "Option<String>")]
    pub subject_digest: Option<Digest>,
    /// The policy it was given under.
    #[schemars(with = "String")]
    pub policy_digest: Digest,
    /// The anchor it was given under, if there was one.
    #[schemars(with = "Option<String>")]
    pub anchor_digest: Option<Digest>,
}

impl Verdict {
    pub(super) fn of(
        findings: Findings,
        facts: ChangeFacts,
        score: u8,
        severity: Severity,
        class_sizes: BTreeMap<PathClass, u64>,
        (policy_digest, anchor_digest): (Digest, Option<Digest>),
    ) -> Self {
        let verdict = match findings.level() {
            Level::Pass => Decision::AutoApproved,
            Level::Notify => Decision::NotifyAndProceed,
            Level::Approval => Decision::ApprovalRequired,
            Level::Blocked => Decision::Blocked,
            Level::Rejected => Decision::Rejected,
        };
        Self {
            format: FORMAT.to_owned(),
            verdict,
            tier: verdict.tier(),
            reasons: findings.into_reasons(),
            score,
            severity,
            facts,
            class_sizes,
            subject_digest: None,
            policy_digest,
            anchor_digest,
        }
    }

    /// A verdict without facts: nothing changed, or the change could not be read.
    #[must_use]
    pub fn without_tier(
        verdict: Decision,
        mut reasons: Vec<Reason>,
        (policy_digest, anchor_digest): (Digest, Option<Digest>),
    ) -> Self {
        reasons.sort_by_key(|reason| reason.code);
        Self {
            format: FORMAT.to_owned(),
            verdict,
            tier: None,
            reasons,
            score: 0,
            severity: Severity::Low,
            facts: ChangeFacts::default(),
            class_sizes: BTreeMap::new(),
            subject_digest: None,
            policy_digest,
            anchor_digest,
        }
    }

    /// A patch text that does not parse whole.
    #[must_use]
    pub fn malformed_patch(why: String, digests: (Digest, Option<Digest>)) -> Self {
        let reason = Reason::of_paths(ReasonCode::MalformedPatch, Vec::new(), Some(why));
        Self::without_tier(Decision::Rejected, vec![reason], digests)
    }

    /// A patch text that does not fit the base.
    #[must_use]
    pub fn conflict(path: String, why: String, digests: (Digest, Option<Digest>)) -> Self {
        let reason = Reason::of_paths(ReasonCode::PatchDoesNotApply, vec![path], Some(why));
        Self::without_tier(Decision::Conflict, vec![reason], digests)
    }

    /// An empty change.
    #[must_use]
    pub fn no_change(digests: (Digest, Option<Digest>)) -> Self {
        Self::without_tier(Decision::NoChange, Vec::new(), digests)
    }

    /// Binds the verdict to what it is about.
    #[must_use]
    pub fn bind(mut self, subject: &Subject) -> Self {
        self.subject_digest = Some(subject.digest());
        self
    }

    /// Whether a code is among the reasons.
    #[must_use]
    pub fn has(&self, code: ReasonCode) -> bool {
        self.reasons.iter().any(|reason| reason.code == code)
    }
}

/// What a verdict and an approval are bound to. One changed byte, another base or another attempt voids them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The repository, by the id of its project or, on paper, by its path.
    pub repository: String,
    /// The ref that would move.
    pub target_ref: String,
    /// The commit it would move from.
    #[schemars(with = "String")]
    pub base: Oid,
    /// The tree it would move to.
    #[schemars(with = "String")]
    pub result_tree: Oid,
    /// The policy in force.
    #[schemars(with = "String")]
    pub policy: Digest,
    /// The anchor in force.
    #[schemars(with = "Option<String>")]
    pub anchor: Option<Digest>,
    /// The run; absent on paper.
    #[schemars(with = "Option<String>")]
    pub run: Option<RunId>,
    /// The phase; absent on paper.
    #[schemars(with = "Option<String>")]
    pub phase: Option<PhaseId>,
    /// The attempt; absent on paper.
    pub attempt: Option<u32>,
}

impl Subject {
    /// The SHA-256 of the subject.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_json(&("subject/1", self)).expect("a struct of texts and numbers is JSON")
    }
}

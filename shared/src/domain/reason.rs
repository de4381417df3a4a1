//! Why a verdict is what it is: stable codes, each with the paths or numbers it rests on and the rule it came from.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// A reason code. The names are a contract: they stand in verdicts, in the audit log and, in upper case, in
        /// the errors of the wire.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        pub enum ReasonCode {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }

        impl ReasonCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as JSON shows it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// A path on the never list.
    PathNever => "path_never",
    /// A path on the protected list.
    PathProtected => "path_protected",
    /// A path that no list names.
    PathDefaultDeny => "path_default_deny",
    /// A path outside the scope of the phase.
    OutOfScope => "out_of_scope",
    /// A path that the anchor protects.
    AnchorProtected => "anchor_protected",
    /// A path that the anchor forbids.
    NeverAllow => "never_allow",
    /// A spelling that is not canonical.
    UnsafePath => "unsafe_path",
    /// Git's own directory.
    GitInternal => "git_internal",
    /// A path below an existing symlink.
    SymlinkTraversal => "symlink_traversal",
    /// A new symlink, or another target.
    SymlinkNew => "symlink_new",
    /// A symlink that leaves the repository.
    SymlinkEscape => "symlink_escape",
    /// `.gitmodules` as a symlink.
    GitmodulesSymlink => "gitmodules_symlink",
    /// A submodule, or a path inside one.
    Gitlink => "gitlink",
    /// Content that cannot be read as text.
    Binary => "binary",
    /// The executable bit or the type of a file.
    ModeChange => "mode_change",
    /// A patch text that does not parse whole.
    MalformedPatch => "malformed_patch",
    /// A patch text that does not fit the base.
    PatchDoesNotApply => "patch_does_not_apply",
    /// Two names that some file system takes for one.
    CaseCollision => "case_collision",
    /// A mode that git does not know.
    ModeInvalid => "mode_invalid",
    /// More than anybody can judge.
    TooLarge => "too_large",
    /// 101 to 200 changed lines.
    SizeOver100 => "size_over_100",
    /// More than 200 changed lines.
    SizeOver200 => "size_over_200",
    /// 51 to 200 removed lines.
    RemovedOver50 => "removed_over_50",
    /// More than 200 removed lines.
    RemovedOver200 => "removed_over_200",
    /// 6 to 20 files.
    FilesOver5 => "files_over_5",
    /// More than 20 files.
    FilesOver20 => "files_over_20",
    /// More than 3 directories.
    DirsOver3 => "dirs_over_3",
    /// A category of high risk.
    CategoryHigh => "category_high",
    /// A score of 30 to 49.
    ScoreMedium => "score_medium",
    /// A score of 50 or more.
    ScoreHigh => "score_high",
    /// The strict profile met a tier-2 condition.
    StrictProfile => "strict_profile",
    /// The caller claims more risk than was computed.
    ClaimedRisk => "claimed_risk",
    /// A secret in an added line.
    SecretDetected => "secret_detected",
    /// An added line of more than 2,000 characters.
    LongLine => "long_line",
    /// Many small changes add up.
    BudgetWindow => "budget_window",
    /// Built without the required sandbox.
    Unsandboxed => "unsandboxed",
}

impl ReasonCode {
    /// The code as errors of the wire show it.
    #[must_use]
    pub fn to_upper(self) -> String {
        self.as_str().to_ascii_uppercase()
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One reason of a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// What it is.
    pub code: ReasonCode,
    /// The paths it rests on, in path order.
    pub paths: Vec<String>,
    /// The number it rests on.
    pub value: Option<u64>,
    /// The limit that the number passed.
    pub limit: Option<u64>,
    /// `file:line` of the policy, the field of the anchor, or what the secret is.
    pub rule: Option<String>,
}

impl Reason {
    /// A reason that rests on paths.
    #[must_use]
    pub const fn of_paths(code: ReasonCode, paths: Vec<String>, rule: Option<String>) -> Self {
        Self { code, paths, value: None, limit: None, rule }
    }

    /// A reason that rests on a number above a limit.
    #[must_use]
    pub const fn of_number(code: ReasonCode, value: u64, limit: u64) -> Self {
        Self { code, paths: Vec::new(), value: Some(value), limit: Some(limit), rule: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_text_agree() {
        for code in ReasonCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(code.to_upper().to_lowercase(), code.as_str());
        }
        assert_eq!(ReasonCode::SizeOver100.to_upper(), "SIZE_OVER_100");
    }
}

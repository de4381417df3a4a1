//! A verdict in words: each reason as a sentence, with what it rests on and the rule it came from.

use std::fmt::Write as _;

use autopack_shared::domain::evaluate::{Decision, Verdict};
use autopack_shared::domain::policy::Policy;
use autopack_shared::domain::reason::{Reason, ReasonCode};

use crate::terminal::{Tone, line, paint, tone_of};

/// Paths that are named before the rest is counted.
const SHOWN: usize = 5;

/// The verdict for people; `explain` adds what each reason means and what follows.
pub(crate) fn render(verdict: &Verdict, policy: &Policy, explain: bool, color: bool) -> String {
    let mut text = String::new();
    let word = paint(color, tone_of(verdict.verdict.as_str()), verdict.verdict.as_str());
    let tier = verdict.tier.map_or_else(String::new, |tier| format!(" (tier {tier})"));
    let _ = writeln!(text, "{word}{tier}  risk {}, score {}", verdict.severity, verdict.score);
    let facts = &verdict.facts;
    let _ = writeln!(text, "{} file(s) in {} folder(s), +{} -{}", facts.files, facts.dirs, facts.added, facts.removed);
    for reason in &verdict.reasons {
        let _ = writeln!(text, "  {}", summary(reason, color));
        if explain {
            let _ = writeln!(text, "      {}", sentence(reason.code));
            if let Some(rule) = &reason.rule {
                let pattern = policy.rule_at(rule).map(|rule| format!(": {}", rule.pattern)).unwrap_or_default();
                let _ = writeln!(text, "      rule {}", line(&format!("{rule}{pattern}")));
            }
        }
    }
    if explain {
        let _ = writeln!(text, "{}", consequence(verdict.verdict));
    }
    text
}

/// One reason on one line: its code, what it rests on.
fn summary(reason: &Reason, color: bool) -> String {
    let mut text = paint(color, Tone::Strong, reason.code.as_str());
    if let (Some(value), Some(limit)) = (reason.value, reason.limit) {
        let _ = write!(text, "  {value} > {limit}");
    }
    for path in reason.paths.iter().take(SHOWN) {
        let _ = write!(text, "  {}", line(path));
    }
    if reason.paths.len() > SHOWN {
        let _ = write!(text, "  and {} more", reason.paths.len() - SHOWN);
    }
    text
}

const fn consequence(verdict: Decision) -> &'static str {
    match verdict {
        Decision::AutoApproved => "It would be applied without asking.",
        Decision::NotifyAndProceed => "It would be applied, and somebody is told.",
        Decision::ApprovalRequired => "It would wait for an approval: autopack approvals list",
        Decision::Blocked => "It would be blocked; only an elevated approval with a written reason lets it pass.",
        Decision::Rejected => "Nobody can approve it: the attempt fails and the builder is told why.",
        Decision::NoChange => "There is nothing to apply.",
        Decision::Conflict => "It does not apply to its base; nothing would be written.",
    }
}

/// What a reason means.
pub(crate) const fn sentence(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::PathNever => "These paths are on the never list: secrets, policy, CI and what enforces the rules.",
        ReasonCode::PathProtected => "These paths are on the protected list.",
        ReasonCode::PathDefaultDeny => "No list names these paths; what is not listed needs an approval.",
        ReasonCode::OutOfScope => "These paths are outside the scope that the phase declared.",
        ReasonCode::AnchorProtected => "The anchor protects these paths.",
        ReasonCode::NeverAllow => "The anchor's never_allow forbids these paths for everybody.",
        ReasonCode::UnsafePath => "The spelling of these paths is not canonical and could mean another file somewhere.",
        ReasonCode::GitInternal => "These paths lie in git's own folder, however it is spelt.",
        ReasonCode::SymlinkTraversal => "A parent of these paths is a symlink.",
        ReasonCode::SymlinkNew => "A symlink is new, or points elsewhere than before.",
        ReasonCode::SymlinkEscape => "A symlink points out of the repository.",
        ReasonCode::GitmodulesSymlink => ".gitmodules would be a symlink.",
        ReasonCode::Gitlink => "A submodule, or a path inside one, would change.",
        ReasonCode::Binary => "Binary content cannot be read by an approver line by line.",
        ReasonCode::ModeChange => "The executable bit or the kind of a file would change.",
        ReasonCode::MalformedPatch => "The patch does not parse whole; nothing is guessed or repaired.",
        ReasonCode::PatchDoesNotApply => "The patch does not fit its base.",
        ReasonCode::CaseCollision => "Some file systems would take these names for one.",
        ReasonCode::ModeInvalid => "git knows no such file mode.",
        ReasonCode::TooLarge => "The change is larger than anybody can judge.",
        ReasonCode::SizeOver100 => "More than 100 lines change.",
        ReasonCode::SizeOver200 => "More than 200 lines change.",
        ReasonCode::RemovedOver50 => "More than 50 lines are removed.",
        ReasonCode::RemovedOver200 => "More than 200 lines are removed.",
        ReasonCode::FilesOver5 => "More than 5 files change.",
        ReasonCode::FilesOver20 => "More than 20 files change.",
        ReasonCode::DirsOver3 => "More than 3 folders are touched.",
        ReasonCode::CategoryHigh => "The kind of work is risky by itself: data, access or security.",
        ReasonCode::ScoreMedium => "The risk score is 30 or more.",
        ReasonCode::ScoreHigh => "The risk score is 50 or more.",
        ReasonCode::StrictProfile => "The strict profile asks where the normal one only tells.",
        ReasonCode::ClaimedRisk => "Its author claims more risk than was computed.",
        ReasonCode::SecretDetected => "An added line looks like a secret.",
        ReasonCode::LongLine => "A line of more than 2,000 characters cannot be reviewed.",
        ReasonCode::BudgetWindow => "Many small changes of this kind add up to more than 1,000 lines.",
        ReasonCode::Unsandboxed => "It was built without the sandbox that is required.",
    }
}

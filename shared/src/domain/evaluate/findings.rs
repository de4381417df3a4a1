//! What speaks against a change, gathered while it is looked at.

use crate::domain::reason::{Reason, ReasonCode};

/// What a finding leads to. The order is the order of severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Nothing speaks against it.
    #[default]
    Pass,
    /// Tier 2.
    Notify,
    /// Tier 3.
    Approval,
    /// Tier 4.
    Blocked,
    /// Nobody can approve it.
    Rejected,
}

#[derive(Debug, Default)]
pub(super) struct Findings {
    reasons: Vec<Reason>,
    seen: [bool; 5],
}

impl Findings {
    pub(super) fn add(&mut self, level: Level, reason: Reason) {
        self.seen[level as usize] = true;
        self.reasons.push(reason);
    }

    pub(super) fn add_number(&mut self, level: Level, code: ReasonCode, value: u64, limit: u64) {
        self.add(level, Reason::of_number(code, value, limit));
    }

    /// Adds what needs approval and rests on no path and no number.
    pub(super) fn add_flag(&mut self, code: ReasonCode, rule: Option<String>) {
        self.add(Level::Approval, Reason::of_paths(code, Vec::new(), rule));
    }

    pub(super) fn add_paths(&mut self, level: Level, code: ReasonCode, paths: Vec<String>, rule: Option<String>) {
        self.add(level, Reason::of_paths(code, paths, rule));
    }

    /// Adds a path to the reason of the same code and rule.
    pub(super) fn add_path(&mut self, level: Level, code: ReasonCode, path: String, rule: Option<String>) {
        let same = |reason: &&mut Reason| reason.code == code && reason.value.is_none() && reason.rule == rule;
        match self.reasons.iter_mut().find(same) {
            Some(reason) => {
                if reason.paths.last() != Some(&path) {
                    reason.paths.push(path);
                }
                self.seen[level as usize] = true;
            }
            None => self.add_paths(level, code, vec![path], rule),
        }
    }

    /// Whether there is a finding of exactly this level.
    pub(super) const fn has(&self, level: Level) -> bool {
        self.seen[level as usize]
    }

    /// The most severe level.
    pub(super) fn level(&self) -> Level {
        [Level::Rejected, Level::Blocked, Level::Approval, Level::Notify]
            .into_iter()
            .find(|level| self.has(*level))
            .unwrap_or_default()
    }

    /// The reasons in the order of their codes.
    pub(super) fn into_reasons(mut self) -> Vec<Reason> {
        self.reasons.sort_by_key(|reason| reason.code);
        self.reasons
    }
}

//! Why a run does not move: what the director could not do for it, kept in memory and said again at the next try.

use std::collections::HashSet;
use std::sync::PoisonError;

use autopack_shared::domain::ids::{RunId, Timestamp};
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::Director;
use crate::error::Error;
use crate::hub::HubError;

/// Why a run does not move, for people.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The rule: the gate's reason, `scope_overlap`, `no_slot`, `run_locked`, `locked`, ...
    pub rule: String,
    /// What exactly.
    pub what: String,
    /// What would free it.
    pub remedy: String,
    /// Since when, by the wall.
    pub since: Timestamp,
    /// A step failed: nothing of the run moves until somebody sees to it.
    pub failed: bool,
    /// When it is over by itself, where that is known.
    pub until: Option<Timestamp>,
}

impl Denial {
    /// A step that failed and is tried again.
    pub(crate) fn of(error: &Error) -> Self {
        let remedy = if let Error::Hub(HubError::Locked { file }) = error {
            format!("the end of the git that holds it; if none runs, remove {}", file.display())
        } else if let Error::Hub(HubError::CheckedOut { .. }) = error {
            "check out another branch there".to_owned()
        } else if error.is_full() {
            "free some space".to_owned()
        } else {
            "it is tried again every half second".to_owned()
        };
        Self { failed: true, ..Self::new(error.reason().0, &error.told(), &remedy) }
    }

    pub(crate) fn new(rule: &str, what: &str, remedy: &str) -> Self {
        Self {
            rule: rule.to_owned(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
            since: Timestamp::from_millis(0),
            failed: false,
            until: None,
        }
    }
}

impl Director {
    fn denials(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<RunId, Denial>> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a run does not move, if it is known.
    #[must_use]
    pub fn denial(&self, run: &RunId) -> Option<Denial> {
        self.denials().get(run).cloned()
    }

    pub(crate) fn deny(&self, run: &RunId, mut denial: Denial) {
        let mut denials = self.denials();
        denial.since = match denials.get(run) {
            Some(old) if old.rule == denial.rule => old.since,
            Some(_) | None => {
                if !denial.failed {
                    metrics().denied(&denial.rule);
                }
                self.clock.wall()
            }
        };
        tracing::debug!(run = %run, rule = denial.rule, what = denial.what, "does not move");
        denials.insert(run.clone(), denial);
    }

    /// A step that failed before has been done.
    pub(super) fn eased(&self, run: &RunId) {
        let mut denials = self.denials();
        if denials.get(run).is_some_and(|denial| denial.failed) {
            denials.remove(run);
        }
    }

    /// Forgets what was in the way of runs that are not looked at any more: they have ended.
    pub(super) fn forget_but(&self, seen: &HashSet<RunId>) {
        self.denials().retain(|run, _| seen.contains(run));
        self.pauses().forget_but(seen);
    }

    pub(crate) fn allow(&self, run: &RunId) {
        self.denials().remove(run);
    }
}

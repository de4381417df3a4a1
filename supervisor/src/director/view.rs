//! Everything the director knows of one run when it decides what comes next, read in one transaction.

use std::collections::BTreeMap;

use autopack_shared::domain::ids::{PhaseId, RequestId, RowId};
use autopack_shared::domain::record::{Apply, Command, Decision, Lease, Phase, Request, Run};
use autopack_shared::domain::state::{LeaseState, PhaseState};

/// One run, whole.
#[derive(Debug, Clone)]
pub struct RunView {
    /// The run.
    pub run: Run,
    /// Its phases in order.
    pub phases: Vec<Phase>,
    /// Its lease, GRANTING or HELD.
    pub lease: Option<Lease>,
    /// The newest decision of each phase.
    pub decisions: BTreeMap<RowId, Decision>,
    /// The newest request of each phase.
    pub requests: BTreeMap<RequestId, Request>,
    /// The newest apply of each phase.
    pub applies: BTreeMap<RowId, Apply>,
    /// Wishes not yet dealt with, oldest first.
    pub commands: Vec<Command>,
    /// Whether the run has gate commands of its project.
    pub project_gate: bool,
}

impl RunView {
    /// A phase by name.
    #[must_use]
    pub fn phase(&self, id: &PhaseId) -> Option<&Phase> {
        self.phases.iter().find(|p| p.id == *id)
    }

    /// The newest request of a phase.
    #[must_use]
    pub fn request_of(&self, phase: &Phase) -> Option<&Request> {
        phase.request.as_ref().and_then(|id| self.requests.get(id))
    }

    /// The newest apply of a phase.
    #[must_use]
    pub fn apply_of(&self, phase: &Phase) -> Option<&Apply> {
        phase.apply.as_ref().and_then(|id| self.applies.get(id))
    }

    /// The newest decision of a phase.
    #[must_use]
    pub fn decision_of(&self, phase: &Phase) -> Option<&Decision> {
        phase.decision.as_ref().and_then(|id| self.decisions.get(id))
    }

    /// Whether any command must be run after this phase is applied.
    #[must_use]
    pub fn has_gate(&self, phase: &Phase) -> bool {
        self.project_gate || !phase.spec.gate.is_empty()
    }

    /// Whether a worker has, or is about to get, this run.
    #[must_use]
    pub fn leased(&self) -> bool {
        self.lease.as_ref().is_some_and(|l| matches!(l.state, LeaseState::Granting | LeaseState::Held))
    }

    /// Whether every phase this one depends on is applied.
    #[must_use]
    pub fn deps_applied(&self, phase: &Phase) -> bool {
        phase.spec.depends_on.iter().all(|d| self.phase(d).is_some_and(|p| p.state == PhaseState::Applied))
    }

    /// A dependency that ended other than applied.
    #[must_use]
    pub fn broken_dep<'a>(&self, phase: &'a Phase) -> Option<&'a PhaseId> {
        phase.spec.depends_on.iter().find(|d| {
            self.phase(d)
                .is_some_and(|p| matches!(p.state, PhaseState::RolledBack | PhaseState::Failed | PhaseState::Cancelled))
        })
    }
}

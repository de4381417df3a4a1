//! The director's spans: each step of a run belongs to the trace of the call that created the run.

use tracing::Span;
use tracing::field::Empty;

use autopack_shared::domain::ids::{PhaseId, RowId};
use autopack_shared::domain::record::LeasePurpose;
use autopack_shared::runtime::telemetry::context;

use super::Director;
use super::next::Step;
use super::view::RunView;

impl Director {
    /// The span of a step; its epoch is the director's own. A grant makes its span itself, once there is a place for
    /// it: what only waits leaves no spans behind.
    pub(super) fn span_of(&self, view: &RunView, step: &Step) -> Span {
        match step {
            Step::Obey(_) => self.span("obey", view, None),
            Step::Validate => self.span("validate", view, None),
            Step::Revoke(_) => self.span("revoke", view, None),
            Step::Move(phase, ..) => self.span("move", view, Some(phase)),
            Step::MoveRun(..) => self.span("move run", view, None),
            Step::Judge(phase) => self.span("judge", view, Some(phase)),
            Step::Rebase(phase) => self.span("rebase", view, Some(phase)),
            Step::Expire(_) => self.span("expire", view, None),
            Step::Settle(phase) => self.span("settle", view, Some(phase)),
            Step::Prepare(phase) => self.span("prepare", view, Some(phase)),
            Step::PrepareRevert(phase) => self.span("prepare revert", view, Some(phase)),
            Step::Drive(apply) => self.span("apply", view, applied(view, apply)),
            Step::Land => self.span("land", view, None),
            Step::Grant(..) => Span::none(),
        }
    }

    fn span(&self, name: &str, view: &RunView, phase: Option<&PhaseId>) -> Span {
        let run = &view.run.id;
        let span = tracing::info_span!(
            "director", otel.name = name, run = %run, phase = Empty, epoch = self.epoch, tier = Empty,
            otel.status_code = Empty
        );
        context::adopt(&span, &context::kept(view.run.trace.as_ref()));
        describe(&span, view, phase);
        let decision = phase.and_then(|id| view.phase(id)).and_then(|phase| view.decision_of(phase));
        if let Some(tier) = decision.and_then(|decision| decision.tier) {
            span.record("tier", tier);
        }
        span
    }
}

/// The span of a grant; its epoch is that of the lease, once there is one.
pub(super) fn grant(view: &RunView, phase: &PhaseId, purpose: LeasePurpose) -> Span {
    let span = tracing::info_span!(
        "director", otel.name = "grant", run = %view.run.id, phase = Empty, epoch = Empty, purpose = ?purpose,
        worker = Empty, otel.status_code = Empty
    );
    context::adopt(&span, &context::kept(view.run.trace.as_ref()));
    describe(&span, view, Some(phase));
    span
}

/// The same by the conventions for pipelines and their changes.
fn describe(span: &Span, view: &RunView, phase: Option<&PhaseId>) {
    if span.is_disabled() {
        return;
    }
    let run = view.run.id.to_string();
    let head = view.run.branch.clone();
    context::describe(span, [("cicd.pipeline.run.id", run), ("vcs.ref.head.name", head)]);
    if let Some(phase) = phase {
        span.record("phase", phase.as_str());
        context::describe(span, [("cicd.pipeline.task.name", phase.to_string())]);
    }
}

fn applied<'a>(view: &'a RunView, apply: &RowId) -> Option<&'a PhaseId> {
    view.applies.get(apply).map(|apply| &apply.phase)
}

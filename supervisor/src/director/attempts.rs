//! What becomes of a phase when an attempt came to nothing, and what the next one is told of it.

use autopack_shared::domain::change::{ChangeFacts, Op};
use autopack_shared::domain::feedback::hint::hints;
use autopack_shared::domain::feedback::{self, Feedback, FeedbackKind, Told};
use autopack_shared::domain::record::{Phase, RunKind};
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::state::{AttemptEvent, PhaseEvent, RunState};

use super::view::RunView;
use super::{moves, system};
use crate::error::Error;
use crate::store::Tx;

/// Refuses a change: an attempt that counts, with words for the builder.
pub(super) async fn refuse(
    tx: &mut dyn Tx,
    view: &RunView,
    phase: &mut Phase,
    reason: String,
    told: Told,
) -> Result<(), Error> {
    moves::end_attempt(tx, phase, AttemptEvent::Fail, Some(reason.clone())).await?;
    phase.failed_attempts += 1;
    feedback::add(&mut phase.feedback, told);
    phase.carry = None;
    let more = phase.failed_attempts < phase.spec.max_attempts && view.run.kind == RunKind::Patch;
    moves::phase(tx, phase, if more { PhaseEvent::Retry } else { PhaseEvent::Exhaust }, Some(reason), &system()).await
}

/// Why an attempt failed whose result lacks deliverables, with a hint for each.
pub(super) fn missing(
    phase: &Phase,
    missing: &[String],
    facts: &Result<ChangeFacts, String>,
) -> Option<(String, Told)> {
    if missing.is_empty() {
        return None;
    }
    let entries = facts.as_ref().map(|facts| facts.entries.as_slice()).unwrap_or_default();
    let written = entries.iter().filter(|e| e.op != Op::Delete).map(|e| e.path.shown().to_owned());
    let hints = hints(missing, &written.collect::<Vec<_>>());
    let told = Told::new(FeedbackKind::PathHint, phase.attempt, "deliverables_missing", "", hints);
    Some((format!("deliverables_missing: {}", missing.join(", ")), told))
}

/// Notes that the quality gate failed: an attempt that counts, whose report goes to the next one.
pub(crate) fn gate_failed(phase: &mut Phase, message: &str) {
    let mut lines = message.split(" | ").map(str::to_owned);
    let first = lines.next().unwrap_or_default();
    let told = Told::new(FeedbackKind::GateReport, phase.attempt, "gate_failed", &first, lines.collect());
    phase.failed_attempts += 1;
    feedback::add(&mut phase.feedback, told);
}

/// Whether a phase whose change was taken back is tried again: the gate refused it, attempts are left, and the builder
/// can come to another answer. What a person took back stays so.
pub(super) fn again_after_gate(state: RunState, kind: RunKind, phase: &Phase) -> bool {
    let reported = phase.feedback.iter().any(|told| match told {
        Feedback::Told(told) => told.kind == FeedbackKind::GateReport && told.attempt == phase.attempt,
        Feedback::Words(_) => false,
    });
    let varies =
        matches!(phase.spec.builder, BuilderSpec::Command { .. } | BuilderSpec::Agent { .. } | BuilderSpec::Llm { .. });
    let going = !state.is_terminal() && state != RunState::Cancelling;
    let left = phase.failed_attempts < phase.spec.max_attempts;
    going && kind == RunKind::Patch && reported && varies && left && !phase.rollback_ordered
}

//! What becomes of a phase when an attempt came to nothing, and what the next one is told of it.

use autopack_shared::domain::change::{ChangeFacts, Op};
use autopack_shared::domain::feedback::hint::hints;
use autopack_shared::domain::feedback::{self, FeedbackKind, Told};
use autopack_shared::domain::record::{Phase, RunKind};
use autopack_shared::domain::state::{AttemptEvent, PhaseEvent};

use super::view::RunView;
use super::{budget, moves, system};
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
    if !more {
        // Nothing of it is on any branch.
        budget::forget_files(tx, phase, None).await?;
    }
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

/// Why an attempt failed whose result lacks symbols.
pub(super) fn missing_symbols(phase: &Phase, symbols: Vec<String>) -> Option<(String, Told)> {
    let reason = (!symbols.is_empty()).then(|| format!("symbols_missing: {}", symbols.join(", ")))?;
    let lacking = symbols.into_iter().map(|symbol| format!("{symbol} is not there")).collect();
    Some((reason, Told::new(FeedbackKind::PathHint, phase.attempt, "symbols_missing", "", lacking)))
}

/// Tells the next attempt what the quality gate said of this one.
pub(crate) fn tell_gate(phase: &mut Phase, line: &str, items: Vec<String>) {
    let told = Told::new(FeedbackKind::GateReport, phase.attempt, "gate_failed", line, items);
    feedback::add(&mut phase.feedback, told);
}

/// Why an attempt failed whose change is taken back: for what its phase says then, which is the gate's line or a person's
/// word.
pub(super) fn rolled_back(phase: &Phase) -> String {
    phase.reason.as_ref().map_or_else(|| "rolled back".to_owned(), |why| format!("{why}; rolled back"))
}

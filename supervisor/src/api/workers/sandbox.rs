//! Workers whose sandboxes were measured again: what they say of it is written into their session, where who gives out
//! work finds it.

use autopack_shared::wire::pb;

use super::session::{RENEWAL, SessionTask};
use crate::coordination::SessionFacts;

/// Characters that are kept of what a worker says.
const MOST: usize = 300;

/// What is known of a worker once it says how far its sandboxes hold.
pub(super) fn told(facts: &SessionFacts, state: Option<&pb::SandboxState>) -> SessionFacts {
    let Some(state) = state else { return facts.clone() };
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(MOST).collect::<String>();
    SessionFacts {
        sandbox_level: short(&state.level),
        sandbox_report: (short(&state.digest), state.measured_ms),
        quarantine: short(&state.quarantine),
        ..facts.clone()
    }
}

impl SessionTask {
    /// Writes what a heartbeat says of the sandboxes into the session, where it has changed; what fails is done again
    /// after the next one.
    pub(super) async fn sandbox_news(&self, facts: &mut SessionFacts, state: Option<&pb::SandboxState>) {
        let now = told(facts, state);
        if now == *facts {
            return;
        }
        let written = self.coordinator.open_session(&self.worker, &self.session, &now);
        match tokio::time::timeout(RENEWAL, written).await {
            Ok(Ok(())) => {
                tracing::info!(worker = %self.worker, level = now.sandbox_level, "sandboxes were measured again");
                if now.quarantine.is_empty() != facts.quarantine.is_empty() {
                    tracing::warn!(worker = %self.worker, why = now.quarantine, "quarantined, or no longer");
                }
                *facts = now;
                // Leases may have to go back, or work may come.
                self.workers.nudge();
            }
            Ok(Err(error)) => tracing::warn!(worker = %self.worker, %error, "its sandbox level could not be written"),
            Err(_) => tracing::warn!(worker = %self.worker, "its sandbox level could not be written in time"),
        }
    }
}

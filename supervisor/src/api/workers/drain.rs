//! Workers that get no more work: asked to leave by an operator or by their own machine, they hear of it here.

use autopack_shared::wire::pb::{self, supervisor_message};

use super::session::{RENEWAL, SessionTask};
use crate::coordination::CoordinationError;

impl SessionTask {
    /// What a worker is to hear of that after a heartbeat, where it changed.
    pub(super) async fn drain_news(&self, draining: bool, drained: &mut bool) -> Option<supervisor_message::Body> {
        let drains = self.drains(draining).await.filter(|drains| drains != drained)?;
        *drained = drains;
        Some(supervisor_message::Body::Drain(pb::Drain { undo: !drains }))
    }

    /// Whether the worker gets no more work: it says so itself, or an operator did. None while nobody can say.
    async fn drains(&self, draining: bool) -> Option<bool> {
        let looked = async {
            if draining {
                self.coordinator.drain(&self.worker, &self.session, true).await?;
                self.workers.nudge();
                return Ok::<_, CoordinationError>(true);
            }
            self.coordinator.is_draining(&self.worker, &self.session).await
        };
        if let Ok(Ok(drains)) = tokio::time::timeout(RENEWAL, looked).await {
            return Some(drains);
        }
        // Without coordination nothing is granted, so that a worker that wants to may go as soon as it is done.
        draining.then_some(true)
    }
}

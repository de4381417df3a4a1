//! Workers that get no more work: asked to leave by an operator or by their own machine, they hear of it here.

use autopack_shared::wire::pb::{self, supervisor_message};

use super::session::{RENEWAL, SessionTask};

impl SessionTask {
    /// What a worker is to hear of that after a heartbeat, where it changed: by what it wishes itself, and by what its
    /// session was found to be, where anybody could say.
    pub(super) async fn drain_news(
        &self,
        wishes: bool,
        marked: Option<bool>,
        drained: &mut bool,
    ) -> Option<supervisor_message::Body> {
        let drains = match marked {
            Some(false) if wishes => {
                self.mark().await;
                true
            }
            // Without coordination nothing is granted, so that a worker that wants to may go as soon as it is done.
            None if wishes => true,
            Some(marked) => marked,
            None => return None,
        };
        if std::mem::replace(drained, drains) == drains {
            return None;
        }
        Some(supervisor_message::Body::Drain(pb::Drain { undo: !drains }))
    }

    /// Marks the session, so that nothing more is granted to it; what fails is done again after the next heartbeat.
    async fn mark(&self) {
        let marked = self.coordinator.drain(&self.worker, &self.session, true);
        match tokio::time::timeout(RENEWAL, marked).await {
            Ok(Ok(_)) => self.workers.nudge(),
            Ok(Err(error)) => tracing::warn!(worker = %self.worker, %error, "its session could not be marked"),
            Err(_) => tracing::warn!(worker = %self.worker, "its session could not be marked in time"),
        }
    }
}

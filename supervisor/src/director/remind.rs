//! Reminders of requests that nobody decides, at 50, 75 and 90 % of their time (`governance.md` 5), and the delivery of
//! what is queued for people.

use std::time::Duration;

use autopack_shared::domain::ids::{RowId, Timestamp};
use autopack_shared::domain::record::{Notice, Request};
use autopack_shared::domain::state::RequestState;

use crate::error::Error;
use crate::store::{RequestFilter, StoreError};

use super::{Director, moves};

/// Percent of a request's time, and what is queued then.
const LADDER: [(i64, &str); 3] = [(50, "reminder"), (75, "second_channel"), (90, "fallback_approvers")];

/// Notices handed over in one go.
const BATCH: u32 = 100;

impl Director {
    /// Remembers when a request wants reminding.
    pub(super) fn remember(&self, request: &Request) {
        let span = request.expires_at.millis_since(request.created_at);
        let mut reminders = self.reminders();
        for (percent, _) in LADDER {
            let at = Timestamp::from_millis(request.created_at.as_millis() + span * percent / 100);
            reminders.insert((at, request.id.clone(), percent));
        }
    }

    /// Remembers every request that was pending when this director took over.
    pub(super) async fn remember_pending(&self) -> Result<(), Error> {
        let mut tx = self.store.read().await?;
        let filter = RequestFilter { states: vec![RequestState::Pending], ..RequestFilter::default() };
        for request in tx.requests(&filter).await? {
            self.remember(&request);
        }
        Ok(())
    }

    /// When the next reminder is due.
    pub(super) fn next_reminder(&self, now: Timestamp) -> Option<Duration> {
        let (at, _, _) = self.reminders().first()?.clone();
        Some(Duration::from_millis(u64::try_from(at.millis_since(now)).unwrap_or(0)))
    }

    /// Queues the reminders that are due, each once whatever happens in between.
    pub(super) async fn remind(&self) -> Result<(), Error> {
        let now = self.store.now().await?;
        loop {
            let due = self.reminders().first().filter(|(at, _, _)| *at <= now).cloned();
            let Some(entry) = due else { return Ok(()) };
            let (_, id, percent) = &entry;
            let mut tx = self.fenced(&[]).await?;
            if let Some(request) = tx.request(id).await?
                && request.state == RequestState::Pending
            {
                let kind = LADDER.iter().find(|(p, _)| p == percent).map_or("reminder", |(_, kind)| kind);
                let text =
                    format!("{id} about {}/{} waits; {percent} % of its time is gone", request.run, request.phase);
                let notice = Notice {
                    id: RowId::new(format!("remind-{percent}-{id}"))?,
                    run: request.run.clone(),
                    kind: kind.to_owned(),
                    text,
                    created_at: tx.now(),
                    sent_at: None,
                };
                match moves::notice(tx.as_mut(), &notice).await {
                    Ok(()) => tx.commit().await?,
                    // An earlier director queued it.
                    Err(Error::Store(StoreError::Exists { .. })) => {}
                    Err(error) => return Err(error),
                }
            }
            self.reminders().remove(&entry);
        }
    }

    /// Hands queued notices to the channel. What it does not take is offered again at the next pass.
    pub(super) async fn deliver(&self) -> Result<(), Error> {
        let mut tx = self.store.read().await?;
        let notices = tx.unsent_notices(BATCH).await?;
        drop(tx);
        let mut sent = Vec::new();
        for notice in notices {
            match self.notifier.send(&notice).await {
                Ok(()) => sent.push(notice),
                Err(error) => {
                    tracing::warn!(%error, "a notice waits");
                    break;
                }
            }
        }
        if sent.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.tx(&[]).await?;
        for notice in sent {
            moves::sent(tx.as_mut(), notice).await?;
        }
        Ok(tx.commit().await?)
    }
}

//! Counts what the store holds, for those who watch: by whoever directs, at a slow pace, and only when something
//! changed. No scrape asks the store.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_shared::runtime::process::{OnError, Tasks};
use autopack_shared::runtime::telemetry::{self, instruments::metrics};

use crate::store::{Store, StoreResult};

/// Between two counts; one that takes as long is given up.
const PACE: Duration = Duration::from_secs(5);

/// Takes the count back however the counting ends: another process counts then.
struct Counting;

impl Drop for Counting {
    fn drop(&mut self) {
        metrics().census(Vec::new());
    }
}

/// Counts beside the other tasks, where anybody reads it.
pub(crate) fn start(store: Arc<dyn Store>, tasks: &Tasks) {
    if telemetry::is_on() {
        let stop = tasks.stop().clone();
        tasks.spawn("census", OnError::Log, async move {
            serve(store, &stop).await;
            Ok::<_, Infallible>(())
        });
    }
}

/// Counts until stopped.
pub(crate) async fn serve(store: Arc<dyn Store>, stop: &CancellationToken) {
    let _counting = Counting;
    let mut changes = store.changes();
    loop {
        changes.mark_unchanged();
        tokio::select! {
            () = stop.cancelled() => return,
            counted = tokio::time::timeout(PACE, count(store.as_ref())) => match counted {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the store could not be counted"),
                Err(_) => tracing::debug!("the store could not be counted in time"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PACE) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn count(store: &dyn Store) -> StoreResult<()> {
    let tallies = store.read().await?.census().await?;
    metrics().census(tallies);
    Ok(())
}

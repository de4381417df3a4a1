//! Tells of commits that other processes have made: it looks at the count that every commit leaves in the rows of the
//! clock. The count is read and written under ordinary visibility, so whoever is woken finds the commit; and it is
//! spread over rows, so that commits do not queue for it, as they would for a notification.

use std::time::Duration;

use sqlx::{PgPool, query_scalar};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::{failed, within};
use crate::store::{StoreError, StoreResult};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// How long one look may take on a server that does not answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Looks for commits.
pub(super) struct Watcher {
    pool: PgPool,
    commits: watch::Sender<u64>,
    stop: CancellationToken,
    last: i64,
}

impl Watcher {
    /// Starts from the commits that there are.
    pub(super) async fn new(pool: PgPool, commits: watch::Sender<u64>, stop: CancellationToken) -> StoreResult<Self> {
        let last = count(&pool).await?;
        Ok(Self { pool, commits, stop, last })
    }

    /// Runs until it is stopped. A server that is away for a while is looked at again later: what was missed meanwhile
    /// shows in the count. Commits of this process were told before and are told once more, which does no harm.
    pub(super) async fn watch(mut self) -> Result<(), StoreError> {
        while self.stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            let Some(now) = self.stop.run_until_cancelled(count(&self.pool)).await else { break };
            match now {
                Ok(now) if now != self.last => {
                    self.last = now;
                    self.commits.send_modify(|n| *n = n.wrapping_add(1));
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "commits of other processes cannot be seen now"),
            }
        }
        Ok(())
    }
}

async fn count(pool: &PgPool) -> StoreResult<i64> {
    let sql = "SELECT sum(commits)::bigint FROM autopack.clock";
    within(ANSWER, query_scalar(sql).fetch_one(pool)).await.map_err(|e| failed(&e, None))
}

//! Tells of commits that other processes have made. The truth is the count that every commit leaves in the rows of the
//! clock, which is looked at now and then: it is read and written under ordinary visibility, so whoever is woken finds
//! the commit. What shortens the wait is a hint: each process notifies the others soon after it has committed, in a
//! statement of its own, since a notification inside a transaction takes a lock that all commits of the server would
//! queue for. A hint that is lost costs the time until the next look.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{PgPool, query, query_scalar};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use autopack_shared::runtime::process::{caught, kept_up};

use super::error::{failed, within};
use super::schema;
use crate::store::{StoreError, StoreResult};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(500);

/// How long one look may take on a server that does not answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long after a hint the next one may follow: what is committed meanwhile is told of together.
const PACE: Duration = Duration::from_millis(5);

/// How soon it is tried again to listen.
const AGAIN: Duration = Duration::from_secs(5);

/// After so many looks in a row that found what no hint told of, the connection is given up.
const DEAF: u32 = 3;

/// The channel of hints.
const CHANNEL: &str = "autopack";

/// Looks for commits.
pub(super) struct Watcher {
    pool: PgPool,
    /// How the connection that listens is made; it takes none from those who work.
    hints: PgConnectOptions,
    /// This process, in its hints.
    name: String,
    commits: watch::Sender<u64>,
    stop: CancellationToken,
    last: i64,
    /// The schema under which this program may not go on; 0 where it may.
    outgrown: Arc<AtomicI64>,
}

/// Whether hints are heard at all. A network that is cut and comes back leaves a connection that looks as if it were
/// open, and on which nothing ever comes: who only reads does not find out.
#[derive(Debug, Default)]
struct Ear {
    /// Since the last look.
    heard: bool,
    /// Looks in a row that found commits of which nothing was heard.
    deaf: u32,
}

impl Ear {
    /// A look was taken; whether nothing is heard where something was told, and it has to be listened anew.
    fn looked(&mut self, changed: bool) -> bool {
        let heard = std::mem::take(&mut self.heard);
        self.deaf = match (heard, changed) {
            (true, _) => 0,
            (false, true) => self.deaf + 1,
            (false, false) => self.deaf,
        };
        let deaf = self.deaf >= DEAF;
        if deaf {
            self.deaf = 0;
        }
        deaf
    }
}

impl Watcher {
    /// Starts from the commits that there are.
    pub(super) async fn new(
        (pool, hints): (PgPool, PgConnectOptions),
        name: String,
        commits: watch::Sender<u64>,
        (stop, outgrown): (CancellationToken, Arc<AtomicI64>),
    ) -> StoreResult<Self> {
        let last = count(&pool).await?;
        Ok(Self { pool, hints, name, commits, stop, last, outgrown })
    }

    /// Runs until it is stopped. A server that is away for a while is looked at again later: what was missed meanwhile
    /// shows in the count. Commits of this process were told before and are told once more, which does no harm.
    pub(super) async fn watch(mut self) -> Result<(), StoreError> {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            while let Err(panic) = caught(Box::pin(self.follow())).await {
                tracing::error!(error = panic, "commits are looked for anew");
                sleep(EVERY).await;
            }
        })
        .await;
        Ok(())
    }

    async fn follow(&mut self) {
        let (mut listener, mut listen, mut ear) = (None, Instant::now(), Ear::default());
        let mut look = Instant::now() + EVERY;
        loop {
            if listener.is_none() && Instant::now() >= listen {
                listener = self.listen().await;
                listen = Instant::now() + AGAIN;
            }
            tokio::select! {
                () = sleep_until(look) => {
                    let changed = self.look().await;
                    look = Instant::now() + EVERY;
                    if ear.looked(changed) && listener.take().is_some() {
                        tracing::debug!("commits are made and nothing is heard of them: it is listened anew");
                    }
                }
                hint = heard(&mut listener) => {
                    ear.heard = true;
                    match hint {
                        Some(from) if from == self.name => {}
                        Some(_) => self.announce(),
                        None => listener = None,
                    }
                }
            }
        }
    }

    async fn listen(&self) -> Option<PgListener> {
        // A pool of its own each time: the connection of the one before may never end.
        let hints = PgPoolOptions::new().max_connections(1).acquire_timeout(ANSWER);
        let hints = hints.connect_lazy_with(self.hints.clone());
        let open = async {
            let mut listener = PgListener::connect_with(&hints).await?;
            listener.listen(CHANNEL).await?;
            Ok(listener)
        };
        match within(ANSWER, open).await {
            Ok(listener) => Some(listener),
            Err(error) => {
                tracing::debug!(%error, "hints of commits cannot be heard now");
                None
            }
        }
    }

    /// Looks whether anything was committed, and whether the schema is still this program's.
    async fn look(&mut self) -> bool {
        match outgrown(&self.pool).await {
            Ok(found) if found > 0 && self.outgrown.swap(found, Ordering::SeqCst) == 0 => {
                tracing::error!(found, "the control store has a schema under which this program may not use it");
                // Whoever waits for a commit finds out now.
                self.announce();
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the schema cannot be seen now"),
        }
        match count(&self.pool).await {
            Ok(now) if now != self.last => {
                self.last = now;
                self.announce();
                self.number().await;
                return true;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "commits of other processes cannot be seen now"),
        }
        false
    }

    /// Sees to it that records of the log get their positions: commits do not wait for that.
    async fn number(&self) {
        let number = query("SELECT autopack.number_pending()");
        if let Err(error) = within(ANSWER, number.execute(&self.pool)).await {
            tracing::debug!(%error, "the log could not be numbered now");
        }
    }

    fn announce(&self) {
        self.commits.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// The sender of the next hint; none where the connection is gone. Without a listener, it never comes.
async fn heard(listener: &mut Option<PgListener>) -> Option<String> {
    match listener {
        Some(listener) => listener.try_recv().await.ok().flatten().map(|hint| hint.payload().to_owned()),
        None => std::future::pending().await,
    }
}

/// Tells other processes of the commits of this one, until stopped.
pub(super) async fn tell(
    pool: PgPool,
    name: String,
    own: Arc<Notify>,
    stop: CancellationToken,
) -> Result<(), StoreError> {
    let telling = kept_up("hints of commits", || async {
        loop {
            own.notified().await;
            let hint = query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(&name);
            if let Err(error) = within(ANSWER, hint.execute(&pool)).await {
                tracing::debug!(%error, "other processes cannot be told of commits now");
            }
            sleep(PACE).await;
        }
    });
    stop.run_until_cancelled(telling).await;
    Ok(())
}

/// The schema under which this program may not go on; 0 where it may.
pub(super) async fn outgrown(pool: &PgPool) -> StoreResult<i64> {
    let found = within(ANSWER, schema::outgrown(pool)).await.map_err(|e| failed(&e, None))?;
    Ok(found.unwrap_or(0))
}

async fn count(pool: &PgPool) -> StoreResult<i64> {
    let sql = "SELECT sum(commits)::bigint FROM autopack.clock";
    within(ANSWER, query_scalar(sql).fetch_one(pool)).await.map_err(|e| failed(&e, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_nothing_of_commits_listens_anew() {
        let mut ear = Ear::default();
        assert!(!(0..10).any(|_| ear.looked(false)), "where nothing is said there is nothing to hear");
        let missed: Vec<bool> = (0..6).map(|_| ear.looked(true)).collect();
        assert_eq!(missed, [false, false, true, false, false, true]);
        for changed in [true, true, false, true] {
            ear.heard = changed;
            assert!(!ear.looked(changed), "it is heard");
        }
        assert!(!ear.looked(true) && !ear.looked(true) && !ear.looked(false), "quiet says nothing of either");
        assert!(ear.looked(true));
    }
}

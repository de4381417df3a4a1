//! What the store has for the sessions of this process, read once for all of them: leases and scans. Each session is
//! woken when its own change, so that a thousand that wait for work cost nothing when somebody else gets some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::WorkerId;
use autopack_shared::domain::record::Lease;
use autopack_shared::domain::survey::Survey;
use autopack_shared::runtime::process::{OnError, Tasks};

use crate::error::Error;
use crate::store::Store;

/// How often it is read without a change that anybody told of: what was missed is found then.
const RECONCILE: Duration = Duration::from_secs(10);

/// How long one look may take, and how soon another one follows where it failed.
const LOOK: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(500);

/// A session: a worker and its own word for it.
type Key = (WorkerId, String);

/// One look at the store.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The count of commits that it has found all of.
    commits: u64,
    leases: HashMap<Key, Vec<Lease>>,
    /// Surveys that nobody has answered.
    pub(super) surveys: Vec<Survey>,
}

/// Looks for everybody.
pub struct Lookout {
    store: Arc<dyn Store>,
    seen: watch::Sender<Option<Arc<Seen>>>,
    // Never held across an await.
    sessions: Mutex<HashMap<Key, (u64, watch::Sender<()>)>>,
}

impl std::fmt::Debug for Lookout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookout").field("sessions", &self.sessions().len()).finish_non_exhaustive()
    }
}

/// The place of one stream of a session; given back when dropped.
pub(super) struct Place {
    lookout: Arc<Lookout>,
    key: Key,
    number: u64,
    woken: watch::Receiver<()>,
}

impl Seen {
    /// The active leases of a session, oldest first.
    pub(super) fn of(&self, worker: &WorkerId, session: &str) -> &[Lease] {
        self.leases.get(&(worker.clone(), session.to_owned())).map_or(&[], Vec::as_slice)
    }
}

impl Lookout {
    /// Starts looking, until the tasks end.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, tasks: &Tasks) -> Arc<Self> {
        let lookout = Arc::new(Self { store, seen: watch::Sender::new(None), sessions: Mutex::default() });
        let (looking, stop) = (lookout.clone(), tasks.stop().clone());
        tasks.spawn("lookout", OnError::Stop, async move {
            looking.serve(&stop).await;
            Ok::<_, Error>(())
        });
        lookout
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Key, (u64, watch::Sender<()>)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, stop: &CancellationToken) {
        let mut changes = self.store.changes();
        let look = async {
            loop {
                // Before the store is read: what was committed before this count is in what is read after it.
                let commits = *changes.borrow_and_update();
                let wait = match timeout(LOOK, self.look(commits)).await {
                    Ok(Ok(())) => RECONCILE,
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "leases could not be looked at");
                        AGAIN
                    }
                    Err(_) => {
                        tracing::warn!("leases could not be looked at in time");
                        AGAIN
                    }
                };
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = sleep(wait) => {}
                }
            }
        };
        stop.run_until_cancelled(look).await;
    }

    async fn look(&self, commits: u64) -> Result<(), Error> {
        let mut tx = self.store.read().await?;
        let mut leases: HashMap<Key, Vec<Lease>> = HashMap::new();
        for lease in tx.active_leases(None).await? {
            leases.entry((lease.worker.clone(), lease.session.clone())).or_default().push(lease);
        }
        let surveys = tx.open_surveys().await?;
        drop(tx);
        let seen = Arc::new(Seen { commits, leases, surveys });
        let before = self.seen.send_replace(Some(seen.clone()));
        let surveys = before.as_ref().is_none_or(|before| before.surveys != seen.surveys);
        for (key, (_, wake)) in self.sessions().iter() {
            if surveys || before.as_ref().is_none_or(|before| before.leases.get(key) != seen.leases.get(key)) {
                wake.send_replace(());
            }
        }
        Ok(())
    }

    /// A place for one stream of a session, which is woken at once.
    pub(super) fn join(self: &Arc<Self>, worker: &WorkerId, session: &str) -> Place {
        let key = (worker.clone(), session.to_owned());
        let wake = watch::Sender::new(());
        let mut woken = wake.subscribe();
        woken.mark_changed();
        let mut sessions = self.sessions();
        let number = sessions.get(&key).map_or(0, |(number, _)| number + 1);
        sessions.insert(key.clone(), (number, wake));
        drop(sessions);
        Place { lookout: self.clone(), key, number, woken }
    }
}

impl Place {
    /// Completes when there is something else for the session than before. None where nobody looks any more, or another
    /// stream of the session has come.
    pub(super) async fn woken(&mut self) -> Option<()> {
        self.woken.changed().await.ok()
    }

    /// A look that has found everything that this process has committed before.
    pub(super) async fn seen(&self) -> Result<Arc<Seen>, Error> {
        let commits = *self.lookout.store.changes().borrow();
        let mut seen = self.lookout.seen.subscribe();
        let enough = |seen: &Option<Arc<Seen>>| seen.as_ref().is_some_and(|seen| seen.commits >= commits);
        let found = seen.wait_for(enough).await.map_err(|_| Error::Bug("nobody looks at leases".to_owned()))?;
        found.clone().ok_or_else(|| Error::Bug("a look that found nothing".to_owned()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = self.lookout.sessions();
        if sessions.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            sessions.remove(&self.key);
        }
    }
}

//! The directorship: a key on a lease of this process, renewed by one task and followed by another. A watch or a
//! closed stream is never evidence: what counts is an answer to a linearizable read, or a renewal that was answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use autopack_shared::runtime::clock::Clock;
use autopack_shared::runtime::process::{OnError, Tasks};

use super::config::Replica;
use super::keys::{DirectorValue, Keys, SupervisorValue, parsed, written};
use super::link::{Link, found, revision};
use super::meta::Incarnation;
use super::watcher::{Seen, follow};
use crate::coordination::timers::Timers;
use crate::coordination::{CoordinationError, Directorship, Evidence};

/// How long the two tasks may take to end; they only wait, so they end at once.
const GRACE: Duration = Duration::from_secs(1);

/// What refusals call it.
const NAME: &str = "the directorship";

/// One process's part in the election.
pub(super) struct Election {
    pub(super) link: Arc<Link>,
    pub(super) keys: Keys,
    pub(super) incarnation: Incarnation,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) replica: Replica,
    pub(super) timers: Timers,
    pub(super) known: watch::Sender<Directorship>,
    /// One campaign or resignation at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    pub(super) seat: Mutex<Option<Seat>>,
    pub(super) tasks: Mutex<Option<Tasks>>,
}

/// A lease of this process.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    /// As whom it campaigned.
    name: String,
    lease: i64,
    /// When the last renewal was sent that was answered.
    answered: Duration,
    /// The revision that made it director.
    leading: Option<i64>,
    /// It ran out, or nobody can say: it is never taken up again.
    lost: bool,
}

impl Election {
    fn seat(&self) -> MutexGuard<'_, Option<Seat>> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Becomes director, or says who is.
    pub(super) async fn campaign(self: &Arc<Self>, name: &str) -> Result<(), CoordinationError> {
        let _turn = self.turn.lock().await;
        let other = self.seat().as_ref().map(|seat| seat.name.clone()).filter(|as_whom| as_whom != name);
        if let Some(other) = other {
            return Err(CoordinationError::Held { lock: NAME.to_owned(), holder: format!("this process, as {other}") });
        }
        let lease = self.sit(name).await?;
        let director = self.keys.director();
        let since_rev = self.link.read(&[]).await?.0;
        let value =
            DirectorValue { replica_id: name.to_owned(), addr: self.replica.addr.clone(), epoch: None, since_rev };
        let value = written(&director, &value)?;
        let free = Compare::create_revision(director.as_str(), CompareOp::Equal, 0);
        let take = TxnOp::put(director.as_str(), value, Some(PutOptions::new().with_lease(lease)));
        let look = [TxnOp::get(director.as_str(), None), TxnOp::get(self.incarnation.key(), None)];
        let txn = Txn::new().when([free, self.incarnation.guard()]).and_then([take]).or_else(look);
        let answer = self.link.txn(txn).await?;
        let now = revision(&answer);
        if answer.succeeded() {
            return self.lead(lease, now, cluster(&answer));
        }
        let [holder, stands] = <[_; 2]>::try_from(found(&answer)).unwrap_or([None, None]);
        self.incarnation.check(&self.link, stands.as_ref())?;
        match holder {
            // An answer was lost on its way, or it is director already.
            Some(kv) if kv.lease() == lease => self.lead(lease, kv.create_revision(), cluster(&answer)),
            Some(kv) => {
                self.observe(now, Some(&kv));
                Err(CoordinationError::Held { lock: NAME.to_owned(), holder: shown(&kv) })
            }
            // The guard compared the incarnation as it was written; it is ours in other words.
            None => Err(CoordinationError::Unavailable(format!("{} was rewritten", self.incarnation.key()))),
        }
    }

    /// Takes a lease for this process, or goes on with the one it has, and starts the tasks that look after it.
    async fn sit(self: &Arc<Self>, name: &str) -> Result<i64, CoordinationError> {
        self.start_following();
        let old = self.seat().clone();
        if let Some(old) = old {
            let fresh = self.clock.monotonic() < old.answered + self.timers.step_down;
            if !old.lost && fresh {
                return Ok(old.lease);
            }
            self.lose(old.lease, "its lease ran out here");
            // What is left of it must not stand in our own way.
            self.link.revoke(old.lease).await?;
        }
        let answered = self.clock.monotonic();
        let lease = self.link.grant(self.timers.director_ttl).await?;
        let key = self.keys.supervisor(&self.replica.id);
        let here = SupervisorValue {
            addr: self.replica.addr.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.clock.wall().as_millis(),
        };
        let put = TxnOp::put(key.as_str(), written(&key, &here)?, Some(PutOptions::new().with_lease(lease)));
        self.link.txn(Txn::new().when([self.incarnation.guard()]).and_then([put])).await?;
        *self.seat() = Some(Seat { name: name.to_owned(), lease, answered, leading: None, lost: false });
        let election = self.clone();
        self.spawn("director-lease", move || async move { election.keep(lease).await });
        Ok(lease)
    }

    fn start_following(self: &Arc<Self>) {
        if self.tasks.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            let election = self.clone();
            self.spawn("director-watch", move || async move {
                let (link, key, silence) = (election.link.clone(), election.keys.director(), election.timers.silence);
                follow(&link, &key, silence, |seen| match seen {
                    Seen::At(revision, kv) => election.observe(revision, kv),
                    Seen::Nothing => election.lose_sight(),
                })
                .await;
            });
        }
    }

    /// Starts a task that ends when this process resigns.
    fn spawn<F>(&self, name: &'static str, task: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let tasks = tasks.get_or_insert_with(Tasks::new);
        let (stop, task) = (tasks.stop().clone(), task());
        tasks.spawn(name, OnError::Log, async move {
            stop.run_until_cancelled(task).await;
            Ok::<_, CoordinationError>(())
        });
    }

    /// Renews a lease until it is lost. The deadline counts from when a renewal was sent: what etcd counts from is
    /// later.
    async fn keep(&self, lease: i64) {
        let Timers { step_down, director_renew: renew, .. } = self.timers;
        loop {
            let Some(answered) = self.seat().as_ref().filter(|s| s.lease == lease && !s.lost).map(|s| s.answered)
            else {
                return;
            };
            let sent = self.clock.monotonic();
            let Some(left) = (answered + step_down).checked_sub(sent).filter(|left| !left.is_zero()) else {
                return self.lose(lease, "no renewal was answered in time");
            };
            match timeout(left.min(renew), self.link.keep_alive(lease)).await {
                Ok(Ok(true)) => {
                    self.renewed(lease, sent);
                    sleep(renew).await;
                }
                Ok(Ok(false)) => return self.lose(lease, "etcd says that its lease is gone"),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the directorship could not be renewed");
                    sleep((renew / 4).min(left)).await;
                }
                Err(_) => {}
            }
        }
    }

    fn renewed(&self, lease: i64, sent: Duration) {
        if let Some(seat) = self.seat().as_mut().filter(|seat| seat.lease == lease) {
            seat.answered = sent;
        }
    }

    /// Is director from now on, if the lease still is good.
    fn lead(&self, lease: i64, created: i64, cluster: u64) -> Result<(), CoordinationError> {
        let mut seat = self.seat();
        let good = |seat: &&mut Seat| {
            seat.lease == lease && !seat.lost && self.clock.monotonic() < seat.answered + self.timers.step_down
        };
        let Some(seat) = seat.as_mut().filter(good) else {
            return Err(CoordinationError::Unavailable("etcd answered, but too late to rely on it".to_owned()));
        };
        if seat.leading != Some(created) {
            seat.leading = Some(created);
            let evidence = Some(Evidence { cluster, revision: u64::try_from(created).unwrap_or(0) });
            self.known.send_replace(Directorship::Leading { since: self.clock.wall(), evidence });
        }
        Ok(())
    }

    /// Stops acting: the lease is gone, or nobody can say.
    fn lose(&self, lease: i64, why: &str) {
        let mut seat = self.seat();
        let Some(seat) = seat.as_mut().filter(|seat| seat.lease == lease && !seat.lost) else { return };
        seat.lost = true;
        if seat.leading.take().is_some() {
            tracing::warn!(replica = seat.name, why, "stepping down as director");
            self.known.send_replace(Directorship::Unknown);
        }
    }

    /// Nobody answers; who leads goes on until its own deadline.
    fn lose_sight(&self) {
        let seat = self.seat();
        if seat.as_ref().is_none_or(|seat| seat.leading.is_none()) {
            self.tell(Directorship::Unknown);
        }
    }

    /// What a linearizable read found.
    pub(super) fn observe(&self, at: i64, kv: Option<&KeyValue>) {
        let mut seat = self.seat();
        if let Some(seat) = seat.as_mut()
            && let Some(mine) = seat.leading
        {
            // Older than our own key, or our own key.
            if at < mine || kv.is_some_and(|kv| kv.create_revision() == mine) {
                return;
            }
            tracing::warn!(replica = seat.name, "stepping down as director: its key is gone");
            (seat.leading, seat.lost) = (None, true);
        }
        // A key of our own that we gave up is in nobody's way: the next campaign takes it away.
        let left = seat.as_ref().filter(|seat| seat.lost).map(|seat| seat.lease);
        let holder = kv.filter(|kv| Some(kv.lease()) != left).map(shown);
        self.tell(Directorship::Following { holder });
    }

    fn tell(&self, now: Directorship) {
        self.known.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }

    /// Whether it still is director: by its own deadline, and by what etcd says now.
    pub(super) async fn is_director(&self) -> Result<bool, CoordinationError> {
        let Some((lease, created)) = self.leading() else { return Ok(false) };
        let (at, found) = self.link.read(&[self.keys.director()]).await?;
        let stands = found.first().and_then(Option::as_ref);
        if stands.is_none_or(|kv| kv.create_revision() != created || kv.lease() != lease) {
            self.observe(at, stands);
        }
        Ok(self.leading().is_some())
    }

    fn leading(&self) -> Option<(i64, i64)> {
        let seat = self.seat().clone()?;
        let created = seat.leading?;
        if self.clock.monotonic() >= seat.answered + self.timers.step_down {
            self.lose(seat.lease, "no renewal was answered in time");
            return None;
        }
        Some((seat.lease, created))
    }

    /// Gives up lease, key and tasks. Whatever etcd answers, this process is director no more.
    pub(super) async fn resign(&self) -> Result<(), CoordinationError> {
        let _turn = self.turn.lock().await;
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take();
        let seat = self.seat().take();
        self.known.send_replace(Directorship::Unknown);
        if let Some(tasks) = tasks {
            tasks.shutdown(GRACE).await;
            // The last look of the one that follows may have come in between.
            self.tell(Directorship::Unknown);
        }
        match seat {
            Some(seat) => self.link.revoke(seat.lease).await,
            None => Ok(()),
        }
    }

    /// Ends the tasks of a process that does not resign: what it holds runs out.
    pub(super) fn abandon(&self) {
        drop(self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.known.send_replace(Directorship::Unknown);
    }
}

fn cluster(answer: &etcd_client::TxnResponse) -> u64 {
    answer.header().map_or(0, etcd_client::ResponseHeader::cluster_id)
}

/// A holder in the words of a refusal.
fn shown(kv: &KeyValue) -> String {
    match parsed::<DirectorValue>("", kv.value()) {
        Ok(value) => format!("{} at {}", value.replica_id, value.addr),
        Err(_) => "somebody who does not say who it is".to_owned(),
    }
}

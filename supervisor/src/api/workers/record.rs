//! What a session stores: events and results, each under its run's epoch and from the lease's holder, in the order they
//! were said, and acknowledged once they are committed. And what the store has for its worker: leases, and their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use autopack_shared::domain::ids::{Fence, PhaseId, RunId, Scope};
use autopack_shared::domain::record::{Lease, Principal};
use autopack_shared::domain::state::{LeaseState, RunEvent};
use autopack_shared::runtime::telemetry::instruments::metrics;
use autopack_shared::wire::pb::{self, supervisor_message};

use super::missed::Missed;
use super::place::{Heard, Next, catch_up, line, since};
use super::said::{Pulse, Said};
use super::seen::Place;
use super::session::{Out, SessionTask, tell};
use crate::director::{Denial, lease, moves};
use crate::error::Error;
use crate::store::{StoreError, Tx};

/// How long one look at the leases may take.
const LOOK: Duration = Duration::from_secs(2);

/// How long one try to store something may take, on a store that answers nothing.
const TRY: Duration = Duration::from_secs(20);

/// Heartbeats between two comparisons of leases.
const RECONCILE_BEATS: u64 = 5;

/// A lease that is so young may not have reached its worker.
const YOUNG_MS: i64 = 10_000;

/// Pauses between tries; the last one again and again, where the worker can wait.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1600), Duration::from_millis(5000)];

/// The leases that this stream has brought to the worker: run and epoch.
pub(super) type Sent = BTreeMap<RunId, u64>;

/// What one stream's record knows.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) sent: Sent,
    pub(super) heard: BTreeMap<(RunId, u64), Heard>,
    /// Where something is missing and was asked for.
    asked: BTreeSet<(String, u64)>,
    /// Whether it has named an epoch that was never given.
    pub(super) forged: bool,
    /// What the worker did not say it works on.
    missed: Missed,
}

/// What storing came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Everything up to this number is committed.
    Upto(u64),
    /// Something between this number and what was said is missing; nothing was stored.
    Missing(u64),
}

/// Whether an error says nothing about the message: the store is full, busy or away.
fn is_of_the_store(error: &Error) -> bool {
    matches!(error, Error::Store(StoreError::Full(_) | StoreError::Unavailable { .. }))
}

/// One try, on a store that may not answer.
async fn tried<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let silent = || StoreError::Unavailable {
        why: format!("no answer within {} s", TRY.as_secs()),
        hint: "check that the database server can be reached",
    };
    timeout(TRY, work).await.unwrap_or_else(|_| Err(silent().into()))
}

impl SessionTask {
    /// Stores what is said until no more comes, and brings what the store has for the worker.
    pub(super) async fn record(&self, mut todo: mpsc::Receiver<Said>, mut beats: watch::Receiver<Pulse>, out: Out) {
        let mut place = self.lookout.join(&self.worker, &self.session);
        let mut book = Book::default();
        if let Err(error) = self.begin(&mut book).await {
            // Whether it hears of it or not, its stream ends.
            let _gone = out.try_send(Err(error.into()));
            return;
        }
        loop {
            let answers = tokio::select! {
                said = todo.recv() => match said {
                    Some(said) => Vec::from_iter(Box::pin(self.store(said, &mut book)).await),
                    None => return,
                },
                woken = place.woken() => match woken {
                    Some(()) => self.look(&place, &mut book).await,
                    // Another stream of this session has come: this one ends by itself.
                    None => std::future::pending().await,
                },
                Ok(()) = beats.changed() => {
                    let (count, held) = {
                        let pulse = beats.borrow_and_update();
                        (pulse.count(), pulse.held().to_vec())
                    };
                    if count.is_multiple_of(RECONCILE_BEATS)
                        && let Err(error) = tried(Box::pin(self.reconcile(&place, &held, &mut book))).await
                    {
                        tracing::warn!(worker = %self.worker, %error, "leases could not be compared");
                    }
                    if count.is_multiple_of(RECONCILE_BEATS)
                        && let Err(error) = tried(self.renew_scan()).await
                    {
                        tracing::warn!(worker = %self.worker, %error, "a scan could not be renewed");
                    }
                    self.look(&place, &mut book).await
                }
            };
            for answer in answers {
                if tell(&out, answer).await.is_err() {
                    return;
                }
            }
        }
    }

    /// What the worker works on when it comes, once the store answers.
    async fn begin(&self, book: &mut Book) -> Result<(), Error> {
        let mut pauses = PAUSES.iter();
        let mut pause = PAUSES[0];
        loop {
            match tried(Box::pin(self.compare(&self.held, true, book))).await {
                Err(error) if is_of_the_store(&error) => {
                    tracing::warn!(worker = %self.worker, %error, "its leases cannot be read yet");
                }
                done => return done,
            }
            pause = pauses.next().copied().unwrap_or(pause);
            tokio::time::sleep(pause).await;
        }
    }

    /// News for the worker; where they cannot be had now, it is looked again at the next change or heartbeat.
    async fn look(&self, place: &Place, book: &mut Book) -> Vec<supervisor_message::Body> {
        let news = async { self.news(place.seen().await?.as_ref(), &book.sent).await };
        match timeout(LOOK, news).await {
            Ok(Ok((news, after))) => {
                for (run, epoch) in &after {
                    if book.sent.get(run) != Some(epoch) {
                        book.missed.forget(run, *epoch);
                    }
                }
                book.sent = after;
                // Of leases that ended, nothing more is taken.
                let sent = &book.sent;
                book.heard.retain(|(run, epoch), _| sent.get(run) == Some(epoch));
                return news;
            }
            Ok(Err(error)) => tracing::warn!(worker = %self.worker, %error, "leases could not be looked at"),
            Err(_) => tracing::warn!(worker = %self.worker, "leases could not be looked at in time"),
        }
        Vec::new()
    }

    /// Compares what the worker says it works on with its leases. Mostly they are the same, which needs no question.
    async fn reconcile(&self, place: &Place, held: &[pb::HeldLease], book: &mut Book) -> Result<(), Error> {
        let seen = place.seen().await?;
        let works = |lease: &Lease| held.iter().any(|h| h.run_id == lease.run.as_str() && h.epoch == lease.epoch);
        let leases = seen.of(&self.worker, &self.session);
        if leases.iter().all(|lease| lease.state != LeaseState::Held || works(lease)) {
            book.missed = Missed::default();
            book.sent.extend(leases.iter().filter(|l| works(l)).map(|lease| (lease.run.clone(), lease.epoch)));
            return Ok(());
        }
        self.compare(held, false, book).await
    }

    /// Gives up the leases that the worker does not say it works on; when it just came or leaves, at once.
    async fn compare(&self, held: &[pb::HeldLease], at_once: bool, book: &mut Book) -> Result<(), Error> {
        let mut tx = self.cores.store().read().await?;
        let now = tx.now();
        let leases = tx.active_leases(None).await?;
        drop(tx);
        let missed_before = std::mem::take(&mut book.missed);
        for lease in leases.iter().filter(|l| l.worker == self.worker && l.session == self.session) {
            let works = held.iter().any(|h| h.run_id == lease.run.as_str() && h.epoch == lease.epoch);
            if works {
                book.sent.insert(lease.run.clone(), lease.epoch);
            } else if lease.state == LeaseState::Held {
                let young = now.millis_since(lease.granted_at) <= YOUNG_MS;
                if !at_once && (young || !missed_before.has(&lease.run, lease.epoch)) {
                    book.missed.add(lease.run.clone(), lease.epoch);
                    continue;
                }
                let why = "its worker no longer works on it";
                lease::give_up(self.cores.store().as_ref(), self.coordinator.as_ref(), lease, why).await?;
            }
        }
        if at_once {
            // What it works on and has no lease for is taken from it at the first look.
            for held in held {
                book.sent.entry(RunId::new(held.run_id.clone())?).or_insert(held.epoch);
            }
        }
        Ok(())
    }

    /// Stores what was said, however long the store is away, and what the worker is told of it.
    async fn store(&self, said: Said, book: &mut Book) -> Option<supervisor_message::Body> {
        let mut pauses = PAUSES.iter();
        let mut pause = PAUSES[0];
        loop {
            let stored = match &said {
                Said::Event(event) => tried(self.event(event, book)).await,
                Said::Result(result) => tried(self.result(result, book)).await,
                Said::Scan(result) => match tried(self.scanned(result)).await {
                    Err(error) if is_of_the_store(&error) => Err(error),
                    Err(error) => {
                        tracing::warn!(worker = %self.worker, %error, "a scan could not be taken");
                        return None;
                    }
                    Ok(()) => return None,
                },
                Said::Goodbye => {
                    // It has stopped everything: its leases can be granted again at once.
                    if self.lingers
                        && let Err(error) = tried(Box::pin(self.compare(&[], true, book))).await
                    {
                        tracing::warn!(worker = %self.worker, %error, "its leases run out with its session");
                    }
                    return None;
                }
            };
            let error = match stored {
                Ok(stored) => return self.told(&said, stored, book),
                Err(error) if is_of_the_store(&error) => error,
                Err(error) => {
                    if let Some((Ok(run), epoch)) = said.place().map(|(run, epoch)| (RunId::new(run.to_owned()), epoch))
                    {
                        // It is told to stop, so that one look is enough.
                        book.missed.add(run, epoch);
                    }
                    if let Err(error) = tried(self.forged(&said, &error, book)).await {
                        tracing::warn!(worker = %self.worker, %error, "a forged epoch could not be written down");
                    }
                    return Some(self.refused(&said, &error));
                }
            };
            self.deny(&said, &error);
            pause = match pauses.next() {
                Some(pause) => *pause,
                None if self.lingers => pause,
                None => return self.dropped(&said, &error, book),
            };
            tracing::warn!(worker = %self.worker, %error, "a worker's message is stored later");
            tokio::time::sleep(pause).await;
        }
    }

    /// What the worker is told of something that was stored, or could not be for want of what comes before it.
    fn told(&self, said: &Said, stored: Stored, book: &mut Book) -> Option<supervisor_message::Body> {
        let (run_id, epoch) = said.place()?;
        let place = (run_id.to_owned(), epoch);
        match stored {
            Stored::Upto(upto) => {
                book.asked.remove(&place);
                Some(supervisor_message::Body::Ack(pb::Ack { run_id: place.0, epoch, upto, resend: false }))
            }
            // Asked for once: everything that is under way behind it says the same.
            Stored::Missing(upto) if book.asked.insert(place.clone()) => {
                tracing::warn!(worker = %self.worker, run = place.0, upto, "messages of a worker are missing");
                Some(supervisor_message::Body::Ack(pb::Ack { run_id: place.0, epoch, upto, resend: true }))
            }
            Stored::Missing(_) => None,
        }
    }

    /// A worker in this process does not wait for ever: a line of the history is worth less than the work it tells of.
    fn dropped(&self, said: &Said, error: &Error, book: &mut Book) -> Option<supervisor_message::Body> {
        let event = match said {
            Said::Event(event) => event,
            Said::Scan(_) => return None,
            Said::Result(_) | Said::Goodbye => return Some(self.refused(said, error)),
        };
        tracing::warn!(run = event.run_id, %error, "a worker's event could not be stored and is dropped");
        if let Ok(run) = RunId::new(event.run_id.clone()) {
            book.heard.entry((run, event.epoch)).or_default().skip_to(event.run_seq);
        }
        self.told(said, Stored::Upto(event.run_seq), book)
    }

    fn refused(&self, said: &Said, error: &Error) -> supervisor_message::Body {
        let (run, epoch) = said.place().unwrap_or_default();
        tracing::warn!(run, worker = %self.worker, %error, "a worker's message was refused");
        self.deny(said, error);
        let reason = error.reason().0.to_owned();
        supervisor_message::Body::Revoke(pb::Revoke { run_id: run.to_owned(), epoch, reason })
    }

    /// What cannot be written down has to be told to whoever asks why nothing moves.
    fn deny(&self, said: &Said, error: &Error) {
        let Some(Ok(run)) = said.place().map(|(run, _)| RunId::new(run.to_owned())) else { return };
        if error.is_full() {
            for director in self.cores.opened().iter().filter_map(|core| core.director()) {
                director.deny(&run, Denial::of(error));
            }
        }
    }

    /// Stores an event under the run's epoch: once, and only right after the one before it. The first one of an epoch
    /// starts the run.
    async fn event(&self, event: &pb::RunEvent, book: &mut Book) -> Result<Stored, Error> {
        let (run, phase) = (RunId::new(event.run_id.clone())?, PhaseId::new(event.phase_id.clone())?);
        let (store, fence) = (self.cores.store(), Fence { scope: Scope::Run(run.clone()), epoch: event.epoch });
        let tx = store.turn(std::slice::from_ref(&fence), &run, None).await?;
        match self.write_event(tx, event, (&run, &phase), book).await {
            // Somebody else wrote to the run meanwhile: now nobody can.
            Err(Error::Store(StoreError::Conflict { .. })) => {
                let mut tx = store.tx(&[fence]).await?;
                tx.defer();
                self.write_event(tx, event, (&run, &phase), book).await
            }
            done => done,
        }
    }

    async fn write_event(
        &self,
        mut tx: Box<dyn Tx>,
        event: &pb::RunEvent,
        (run, phase): (&RunId, &PhaseId),
        book: &mut Book,
    ) -> Result<Stored, Error> {
        let lease = self.own(tx.as_mut(), run, event.epoch).await?;
        let key = (run.clone(), event.epoch);
        let heard = self.heard(tx.as_mut(), &lease, event.run_seq, book).await?;
        match heard.next(event.run_seq) {
            // Said again after a stream that broke: it is in the history already.
            Next::Again => return Ok(Stored::Upto(heard.last())),
            Next::Missing => return Ok(Stored::Missing(heard.last())),
            Next::New => {}
        }
        if let Some(mut found) = tx.gather(&[(run.clone(), None)]).await?.pop().and_then(|found| found.run)
            && found.state.next(RunEvent::Start).is_ok()
        {
            moves::run(tx.as_mut(), &mut found, RunEvent::Start, None, &Principal::system()).await?;
        }
        let mut stored = line(event, run.clone(), phase.clone(), tx.as_ref());
        tx.append_event(&mut stored).await?;
        // From here on nobody else writes to this run; who did in between may be this session's other stream.
        let now = catch_up(tx.as_mut(), run, event.epoch, heard, stored.seq).await?;
        if now.next(event.run_seq) != Next::New {
            return Ok(Stored::Upto(now.last()));
        }
        tx.commit().await?;
        book.heard.insert(key, now.and(event.run_seq, stored.seq));
        Ok(Stored::Upto(event.run_seq))
    }

    /// What is stored of an epoch; read anew where what is known does not lead to what was said.
    pub(super) async fn heard(
        &self,
        tx: &mut dyn Tx,
        lease: &Lease,
        said: u64,
        book: &mut Book,
    ) -> Result<Heard, Error> {
        let key = (lease.run.clone(), lease.epoch);
        let known = book.heard.get(&key).copied();
        if let Some(known) = known.filter(|known| known.next(said) != Next::Missing) {
            return Ok(known);
        }
        let known = match known {
            Some(known) => known,
            None => Heard::from(since(tx, &lease.run, lease.granted_at).await?),
        };
        let heard = catch_up(tx, &lease.run, lease.epoch, known, u64::MAX).await?;
        book.heard.insert(key, heard);
        Ok(heard)
    }

    /// Only the holder of the lease speaks for it.
    pub(super) async fn own(&self, tx: &mut dyn Tx, run: &RunId, epoch: u64) -> Result<Lease, Error> {
        let lease = tx.leases(run).await?.into_iter().find(|l| l.epoch == epoch && !l.state.is_terminal());
        match lease {
            Some(lease) if lease.worker == self.worker && lease.session == self.session => Ok(lease),
            Some(lease) => Err(Error::Forbidden {
                reason: "lease_not_yours",
                why: format!("the lease of {run} belongs to {}", lease.worker),
            }),
            None => {
                metrics().fenced("api");
                Err(Error::Forbidden { reason: "fenced", why: format!("no lease of {run} is open at epoch {epoch}") })
            }
        }
    }
}

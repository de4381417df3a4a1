//! Leading: stand for election, direct every project while elected, step down at once when the seat is in doubt.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::{FencingToken, ProjectId, Scope};
use autopack_shared::domain::record::Project;
use autopack_shared::runtime::clock::{Clock, IdSource};
use autopack_shared::runtime::telemetry;

use crate::census;
use crate::coordination::{CoordinationError, Coordinator, Directorship};
use crate::director::{Claim, Director, DirectorConfig, DirectorParts, Home, run_blocking};
use crate::error::Error;
use crate::export::Exporter;
use crate::hub::HubError;
use crate::notify::FileNotifier;
use crate::run_data::RunDatabases;
use crate::run_data::keeper::Keeper;
use crate::services::Services;
use crate::store::{Store, StoreError};

use super::fences;

/// A director whose store does not answer for so long gives its seat up: another one may reach it.
const STORE_AWAY: Duration = Duration::from_secs(8);

/// How long the store may take to answer once.
const ANSWER: Duration = Duration::from_secs(2);

/// Between two such questions.
const ASK: Duration = Duration::from_secs(1);

/// The longest a follower waits before it looks again whether the seat is free.
const LOOK: Duration = Duration::from_secs(2);

/// How long a hub may take to be taken over, before it is said that it hangs: more than a git server may take.
const TAKING: Duration = Duration::from_secs(30);

/// How long a director that was told to stop has to end what it does.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// How the direction of one project ended.
enum Ended {
    /// It was directed, and is no more.
    Served(Result<(), Error>),
    /// It could not be taken over.
    NotTaken(ProjectId),
}

/// What leading needs.
pub(super) struct Lead {
    pub(super) id: String,
    /// The cluster whose hubs these are.
    pub(super) cluster: String,
    /// Where the store's supervisors meet, as it was when this one came.
    pub(super) home: Home,
    pub(super) services: Services,
    pub(super) store: Arc<dyn Store>,
    pub(super) coordinator: Arc<dyn Coordinator>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ids: Arc<dyn IdSource>,
    pub(super) state_dir: PathBuf,
    /// The server for data of runs, and how long it keeps that of ended ones.
    pub(super) run_data: Option<(Arc<dyn RunDatabases>, Duration)>,
    pub(super) director: DirectorConfig,
}

/// Completes when the seat is lost and what was done on it did not end in time: a repository that does not answer must
/// not keep a supervisor at directing what another one directs.
async fn seat_lost(mut seat: watch::Receiver<Directorship>, time: Duration) -> Error {
    let _lost = seat.wait_for(|seat| !matches!(seat, Directorship::Leading { .. })).await.is_ok();
    sleep(time).await;
    CoordinationError::Unavailable("the seat is lost, and what was under way did not end in time".to_owned()).into()
}

impl Lead {
    /// Follows and leads in turn until stopped.
    pub(super) async fn run(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), Error> {
        let mut seat = self.coordinator.directorship();
        while !stop.is_cancelled() {
            // Who cannot reach the store would only keep the seat from others.
            if !self.store_answers().await {
                tracing::debug!(replica = self.id, "the store does not answer: no candidate");
                sleep(ASK).await;
                continue;
            }
            match self.coordinator.campaign(&self.id).await {
                Ok(()) => {
                    tracing::info!(replica = self.id, "elected");
                    let led = tokio::select! {
                        led = self.lead(stop) => led,
                        away = self.store_away() => Err(away),
                        hangs = seat_lost(self.coordinator.directorship(), 2 * WIND_DOWN) => Err(hangs),
                    };
                    self.let_go();
                    if let Err(error) = &led {
                        tracing::warn!(replica = self.id, %error, "stepped down");
                    }
                    if let Err(error) = self.coordinator.resign().await {
                        tracing::warn!(%error, "the seat could not be given back; it runs out by itself");
                    }
                    if let Err(error @ Error::Store(StoreError::Elsewhere { .. } | StoreError::Rewound { .. })) = led {
                        // The store is another life's: there is nothing more to do here.
                        return Err(error);
                    }
                }
                Err(refusal) => tracing::debug!(replica = self.id, %refusal, "not elected"),
            }
            seat.mark_unchanged();
            tokio::select! {
                () = stop.cancelled() => {}
                _changed = seat.changed() => {}
                () = sleep(LOOK) => {}
            }
        }
        Ok(())
    }

    async fn store_answers(&self) -> bool {
        matches!(timeout(ANSWER, self.store.now()).await, Ok(Ok(_)))
    }

    /// Completes when the store has been away for too long.
    async fn store_away(&self) -> Error {
        let mut answered = Instant::now();
        while answered.elapsed() < STORE_AWAY {
            if self.store_answers().await {
                answered = Instant::now();
            }
            sleep(ASK).await;
        }
        let why = format!("no answer for {} s: the seat is given up", STORE_AWAY.as_secs());
        StoreError::Unavailable { why, hint: "check that the database server can be reached" }.into()
    }

    fn let_go(&self) {
        for core in self.services.cores.opened() {
            core.direct(None);
            core.hub.retire();
        }
    }

    /// Directs every project until the seat is lost or a director was fenced off.
    async fn lead(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), Error> {
        let found = self.highest().await?;
        let claim = Claim::raise(self.store.as_ref(), &self.id, found, Some(&self.home)).await?;
        let mut seat = self.coordinator.directorship();
        let mut changes = self.store.changes();
        let term = stop.child_token();
        // However this ends: nobody directs on, and nobody begins to.
        let _ended = term.clone().drop_guard();
        let mut directors: JoinSet<Ended> = JoinSet::new();
        let mut directed: BTreeSet<ProjectId> = BTreeSet::new();
        if let Some((databases, retention)) = &self.run_data {
            let keeper = Keeper::new(self.store.clone(), databases.clone(), *retention);
            let term = term.clone();
            directors.spawn(async move {
                keeper.serve(&term).await;
                Ended::Served(Ok(()))
            });
        }
        if telemetry::is_on() {
            let (store, term) = (self.store.clone(), term.clone());
            directors.spawn(async move {
                census::serve(store, &term).await;
                Ended::Served(Ok(()))
            });
        }
        let ended = loop {
            seat.borrow_and_update();
            if !matches!(*self.coordinator.directorship().borrow(), Directorship::Leading { .. }) {
                break Ok(());
            }
            changes.mark_unchanged();
            if let Err(error) = self.take_in(claim, &term, &mut directors, &mut directed).await {
                break Err(error);
            }
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                _changed = seat.changed() => {}
                changed = changes.changed() => if changed.is_err() { break Ok(()) },
                Some(ended) = directors.join_next() => match ended {
                    Ok(Ended::Served(done)) => break done,
                    Ok(Ended::NotTaken(project)) => { directed.remove(&project); }
                    Err(panic) => break Err(Error::Bug(format!("a director panicked: {panic}"))),
                },
            }
        };
        term.cancel();
        let all = async { while directors.join_next().await.is_some() {} };
        if timeout(WIND_DOWN, all).await.is_err() {
            directors.abort_all();
        }
        ended
    }

    /// The highest token of the hubs that can be read, for a store that never had a director. Any other knows its own,
    /// and does not wait for hubs.
    async fn highest(&self) -> Result<Option<FencingToken>, Error> {
        let mut tx = self.store.read().await?;
        if tx.epoch(&Scope::Director).await?.is_some() {
            return Ok(None);
        }
        drop(tx);
        let found = fences::of_hubs(&self.services.cores).await?;
        Ok(found.into_iter().filter_map(|hub| hub.fence).max())
    }

    /// Starts to direct the projects that are not directed yet.
    async fn take_in(
        self: &Arc<Self>,
        claim: Claim,
        term: &CancellationToken,
        directors: &mut JoinSet<Ended>,
        directed: &mut BTreeSet<ProjectId>,
    ) -> Result<(), Error> {
        let projects = self.store.read().await?.projects().await?;
        for project in projects {
            if directed.insert(project.id.clone()) {
                let (lead, term) = (self.clone(), term.clone());
                directors.spawn(async move { lead.direct(project, claim, &term).await });
            }
        }
        Ok(())
    }

    /// Directs one project. A hub that is away keeps no other project waiting; it is tried again in a moment. One that
    /// hangs is not: it is said that it does, and what waits for it goes on waiting, for more of that would only take up
    /// more threads.
    async fn direct(&self, project: Project, claim: Claim, term: &CancellationToken) -> Ended {
        let mut late = false;
        let taken = {
            let taking = self.director_of(&project, claim, term);
            tokio::pin!(taking);
            loop {
                tokio::select! {
                    taken = &mut taking => break Some(taken),
                    () = sleep(TAKING), if !late => {
                        late = true;
                        let silent = HubError::Silent { project: project.id.to_string(), seconds: TAKING.as_secs() };
                        self.not_directed(&project, &silent.into());
                    }
                    () = term.cancelled() => break None,
                }
            }
        };
        let Some(taken) = taken else { return Ended::NotTaken(project.id) };
        match taken {
            Ok(director) => Ended::Served(director.serve(term).await),
            Err(error) => {
                self.not_directed(&project, &error);
                tokio::select! {
                    () = sleep(LOOK) => {}
                    () = term.cancelled() => {}
                }
                Ended::NotTaken(project.id)
            }
        }
    }

    /// Says why a project does not move; where it is not open, whoever opens it hears why.
    fn not_directed(&self, project: &Project, error: &Error) {
        tracing::error!(project = %project.id, %error, "the project cannot be directed");
        if let Some(core) = self.services.cores.known(&project.id) {
            core.undirected(error);
        }
    }

    async fn director_of(
        &self,
        project: &Project,
        claim: Claim,
        term: &CancellationToken,
    ) -> Result<Arc<Director>, Error> {
        let core = self.services.cores.named(&project.id).await?;
        let (hub, cluster) = (core.hub.clone(), self.cluster.clone());
        run_blocking(move || {
            // A life that ended while it marked the hub has left the mark locked. In a hub that is another cluster's,
            // locks are not ours to clear; one that is ours is not marked again.
            if hub.cluster()?.is_none() {
                for lock in hub.recover()? {
                    tracing::info!(lock = %lock.display(), "removed a ref lock that an earlier life left");
                }
            }
            hub.claim(&cluster)
        })
        .await?;
        let exports = self.state_dir.join("projects").join(project.id.as_str());
        let parts = DirectorParts {
            project: project.id.clone(),
            store: self.store.clone(),
            hub: core.hub.clone(),
            coordinator: self.coordinator.clone(),
            workers: self.services.workers.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            book: core.book.clone(),
            run_data: self.run_data.as_ref().map(|(databases, _)| databases.clone()),
            exporter: Arc::new(Exporter::new(exports)),
            notifier: Arc::new(FileNotifier::new(self.state_dir.join("notices.jsonl"))),
            config: self.director.clone(),
        };
        let director = Arc::new(Director::take_over(parts, claim).await?);
        core.direct(Some(director.clone()));
        if term.is_cancelled() {
            // The seat was let go of at this moment.
            core.direct(None);
        }
        Ok(director)
    }
}

#[cfg(test)]
mod tests {
    use autopack_shared::domain::ids::Timestamp;

    use super::*;

    #[tokio::test]
    async fn what_hangs_on_a_seat_that_is_lost_is_let_go() {
        let leading = Directorship::Leading { since: Timestamp::from_millis(1), evidence: None };
        let known = watch::Sender::new(leading);
        let time = Duration::from_millis(20);
        assert!(timeout(time * 2, seat_lost(known.subscribe(), time)).await.is_err(), "not while it leads");
        known.send_replace(Directorship::Unknown);
        let lost = timeout(Duration::from_secs(30), seat_lost(known.subscribe(), time)).await.unwrap();
        assert!(lost.to_string().contains("did not end in time"), "{lost}");
    }
}

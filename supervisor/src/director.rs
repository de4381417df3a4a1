//! The director: the one that grants, judges, applies, reverts and lets requests run out. It is a reconciler: for each
//! run it reads what is stored, takes the one next step in a fenced transaction, and asks again. A crash anywhere
//! leaves a state that the same loop goes on from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::{Fence, FencingToken, ProjectId, RequestId, RunId, Scope, Timestamp};
use autopack_shared::domain::parallelism::PhaseScopePaths;
use autopack_shared::domain::record::{Phase, Principal, Run, RunKind};
use autopack_shared::domain::state::{PhaseState, RunState};
use autopack_shared::runtime::clock::{Clock, IdSource};

use crate::coordination::{CoordinationError, Coordinator};
use crate::error::Error;
use crate::export::Exporter;
use crate::hub::{Hub, HubError, RefName};
use crate::notify::Notifier;
use crate::policy::{PolicyBook, PolicyInForce};
use crate::run_data::RunDatabases;
use crate::store::{RunFilter, Store, StoreError, Tx};
use crate::workers::Workers;

mod apply;
mod ask;
mod data;
mod denial;
pub(crate) mod grant;
mod judge;
mod land;
pub(crate) mod lease;
mod limits;
mod liveness;
pub(crate) mod locks;
pub(crate) mod moves;
pub mod next;
mod obey;
mod pause;
mod perform;
mod rebase;
mod remind;
mod revert;
mod takeover;
mod trace;
pub(crate) mod uploaded;
pub mod view;

use data::Rest;
pub use denial::Denial;
use locks::SWEEP;
pub(crate) use revert::shown;
pub use takeover::Claim;
use view::RunView;

/// Steps of one run before others get their turn.
const BURST: usize = 64;

/// The longest the director sleeps with something left undone.
const RETRY: Duration = Duration::from_millis(500);

/// Limits of the director.
#[derive(Debug, Clone)]
pub struct DirectorConfig {
    /// Seconds before a request ends as a rejection.
    pub approval_seconds: i64,
    /// Distinct approvers for tier 4.
    pub elevated_approvers: u32,
    /// The longest diff facts may take are bounded elsewhere; this bounds one hub call.
    pub hub_deadline: Duration,
    /// Whether sessions can end without a word: then leases are looked after all the time.
    pub reap: bool,
    /// How long a worker's builders may live on after its last heartbeat; zero where they end with its session.
    pub worker_self: Duration,
}

impl Default for DirectorConfig {
    fn default() -> Self {
        Self {
            approval_seconds: 3600,
            elevated_approvers: 1,
            hub_deadline: Duration::from_secs(600),
            reap: false,
            worker_self: Duration::ZERO,
        }
    }
}

/// The director of one project.
pub struct Director {
    pub(crate) project: ProjectId,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<dyn Hub>,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn IdSource>,
    pub(crate) book: Arc<PolicyBook>,
    pub(crate) run_data: Option<Arc<dyn RunDatabases>>,
    pub(crate) exporter: Arc<Exporter>,
    pub(crate) config: DirectorConfig,
    pub(crate) epoch: u64,
    pub(crate) token: FencingToken,
    pub(crate) notifier: Arc<dyn Notifier>,
    // None is held across an await.
    reminders: Mutex<BTreeSet<(Timestamp, RequestId, i64)>>,
    denials: Mutex<HashMap<RunId, Denial>>,
    swept: Mutex<Option<tokio::time::Instant>>,
    sightings: Mutex<liveness::Sightings>,
    pauses: Mutex<pause::Pauses>,
    data_rests: Mutex<Option<Rest>>,
}

/// What a director is made of.
pub struct DirectorParts {
    /// The project.
    pub project: ProjectId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The hub.
    pub hub: Arc<dyn Hub>,
    /// Liveness.
    pub coordinator: Arc<dyn Coordinator>,
    /// Connected workers.
    pub workers: Arc<Workers>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdSource>,
    /// Policies by commit.
    pub book: Arc<PolicyBook>,
    /// The server for data of runs, where there is one.
    pub run_data: Option<Arc<dyn RunDatabases>>,
    /// Files for people.
    pub exporter: Arc<Exporter>,
    /// The channel for notices.
    pub notifier: Arc<dyn Notifier>,
    /// Limits.
    pub config: DirectorConfig,
}

impl Director {
    /// The director's epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    fn pauses(&self) -> std::sync::MutexGuard<'_, pause::Pauses> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reminders(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Timestamp, RequestId, i64)>> {
        self.reminders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until stopped, or until another director has fenced this one off.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] or [`HubError::Fenced`] when another one took over.
    pub async fn serve(&self, stop: &CancellationToken) -> Result<(), Error> {
        let mut stored = self.store.changes();
        let mut connected = self.workers.changes();
        loop {
            stored.mark_unchanged();
            connected.mark_unchanged();
            let undone = match self.pass().await {
                Ok(undone) => undone,
                Err(error @ Error::Coordination(CoordinationError::LockReplaced { .. })) => return Err(error),
                Err(error) if self.is_fenced(&error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "a pass failed and is tried again");
                    true
                }
            };
            // A store that cannot be read now is asked again soon.
            let wait = self.until_next(undone).await.unwrap_or(RETRY);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = stored.changed() => if changed.is_err() { return Ok(()) },
                changed = connected.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// How long nothing will happen by itself.
    async fn until_next(&self, undone: bool) -> Result<Duration, Error> {
        const IDLE: Duration = Duration::from_secs(3600);
        let mut tx = self.store.read().await?;
        let now = tx.now();
        let expiry = tx
            .next_expiry()
            .await?
            .map_or(IDLE, |at| Duration::from_millis(u64::try_from(at.millis_since(now)).unwrap_or(0)).max(RETRY));
        let expiry = self.next_reminder(now).map_or(expiry, |wait| expiry.min(wait.max(RETRY)));
        let idle = if self.config.reap { SWEEP } else { IDLE };
        Ok(if undone { expiry.min(RETRY) } else { expiry.min(idle) })
    }

    /// One pass over every run that may have something to do; true when something failed and is to be tried again.
    ///
    /// # Errors
    /// When this director is fenced off, or its locks were replaced.
    pub async fn pass(&self) -> Result<bool, Error> {
        // Locks that were replaced under us are noticed before anything is done on their strength.
        if !self.coordinator.is_director().await? {
            return Err(Error::Coordination(CoordinationError::Unavailable("the directorship was lost".to_owned())));
        }
        // What is due for the whole project must not keep any run from its next step.
        let leased = match self.reap().await {
            Err(error) => self.tried("leases", Err(error)).await?,
            Ok(leased) => leased && self.config.reap,
        };
        let mut undone = self.tried("locks", self.sweep().await).await?;
        undone |= self.tried("expiries", self.expire_due().await).await?;
        undone |= self.tried("reminders", self.remind().await).await?;
        for run in self.interesting().await? {
            match self.work_on(&run).await {
                Ok(spent) => {
                    undone |= spent;
                    self.eased(&run);
                }
                Err(error) if self.is_fenced(&error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(run = %run, %error, "a step failed and will be tried again");
                    if self.config.reap && matches!(error, Error::Hub(HubError::Locked { .. })) {
                        // Another supervisor may have been killed while it kept an upload alive.
                        let hub = self.hub.clone();
                        self.tried("locks", self.blocking(move || hub.recover()).await.map(|_| ())).await?;
                    }
                    self.deny(&run, Denial::of(&error));
                    undone = true;
                }
            }
            if let Err(error) = self.exporter.sync(self.store.as_ref(), &run).await {
                tracing::warn!(run = %run, %error, "exports could not be written");
            }
        }
        undone |= self.pauses().any(self.clock.monotonic());
        undone |= leased | self.tried("notices", self.deliver().await).await?;
        Ok(undone)
    }

    /// Whether a step of the whole project failed and is to be tried again; fails itself only when fenced off.
    async fn tried(&self, what: &str, done: Result<(), Error>) -> Result<bool, Error> {
        match done {
            Ok(()) => Ok(false),
            Err(error) if self.is_fenced(&error).await => Err(error),
            Err(error) => {
                tracing::warn!(what, %error, "could not be seen to and is tried again");
                Ok(true)
            }
        }
    }

    /// Whether an error says that another director has taken over. A run's fence alone does not.
    async fn is_fenced(&self, error: &Error) -> bool {
        if !matches!(error, Error::Store(StoreError::Fenced { .. }) | Error::Hub(HubError::Fenced { .. })) {
            return false;
        }
        match self.store.read().await {
            Ok(mut tx) => !matches!(tx.epoch(&Scope::Director).await, Ok(epoch) if epoch == Some(self.epoch)),
            Err(_) => false,
        }
    }

    async fn interesting(&self) -> Result<BTreeSet<RunId>, Error> {
        let mut tx = self.store.read().await?;
        let states = RunState::ALL.iter().copied().filter(|s| !s.is_terminal()).collect();
        let filter = RunFilter { project: Some(self.project.clone()), states, limit: 0 };
        let mut runs: BTreeSet<RunId> = tx.runs(&filter).await?.into_iter().map(|r| r.id).collect();
        runs.extend(tx.open_commands(None).await?.into_iter().map(|c| c.run));
        for state in [PhaseState::RollingBack, PhaseState::Applying, PhaseState::Verifying] {
            runs.extend(tx.runs_with_phase(state).await?);
        }
        runs.extend(tx.prepared_applies().await?.into_iter().map(|a| a.run));
        Ok(runs)
    }

    /// Takes the steps of one run; true when there are more than fit into one burst.
    async fn work_on(&self, run: &RunId) -> Result<bool, Error> {
        for _ in 0..BURST {
            let Some((view, now)) = self.load(run).await? else { return Ok(false) };
            let Some(step) = next::next_step(&view, now) else {
                if view.run.state.is_terminal() {
                    let (hub, token, id) = (self.hub.clone(), self.token, view.run.id.clone());
                    self.blocking(move || hub.release(token, &id)).await?;
                }
                return Ok(false);
            };
            match self.perform(&view, step).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                // Somebody else moved it in between: look again.
                Err(Error::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads a run whole.
    pub(crate) async fn load(&self, id: &RunId) -> Result<Option<(RunView, Timestamp)>, Error> {
        let mut tx = self.store.read().await?;
        // Each project has a director of its own, with a hub of its own.
        let Some(run) = tx.run(id).await?.filter(|run| run.project == self.project) else { return Ok(None) };
        let phases = tx.phases(id).await?;
        let (mut decisions, mut requests, mut applies) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for phase in &phases {
            if let Some(id) = &phase.decision
                && let Some(decision) = tx.decision(id).await?
            {
                decisions.insert(id.clone(), decision);
            }
            if let Some(id) = &phase.request
                && let Some(request) = tx.request(id).await?
            {
                requests.insert(id.clone(), request);
            }
            if let Some(id) = &phase.apply
                && let Some(apply) = tx.apply(id).await?
            {
                applies.insert(id.clone(), apply);
            }
        }
        let lease = tx.active_leases(Some(&run.project)).await?.into_iter().find(|l| l.run == *id);
        let commands = tx.open_commands(Some(id)).await?;
        let now = tx.now();
        drop(tx);
        let verifying = phases.iter().any(|p| p.state == PhaseState::Verifying);
        let project_gate = verifying && !self.policy_of(&run).await?.config.gate.commands.is_empty();
        Ok(Some((RunView { run, phases, lease, decisions, requests, applies, commands, project_gate }, now)))
    }

    pub(crate) async fn policy_of(&self, run: &Run) -> Result<Arc<PolicyInForce>, Error> {
        self.book.at_with(run.fork_commit, run.file.anchor.as_deref(), &run.registered).await
    }

    /// A transaction under the director's fence and others.
    pub(crate) async fn fenced(&self, more: &[Fence]) -> Result<Box<dyn Tx>, Error> {
        let mut fences = vec![Fence { scope: Scope::Director, epoch: self.epoch }];
        fences.extend_from_slice(more);
        Ok(self.store.tx(&fences).await?)
    }

    pub(crate) async fn blocking<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, HubError> + Send + 'static,
    {
        tokio::time::timeout(self.config.hub_deadline, run_blocking(work)).await.map_err(|_| {
            Error::Bug(format!("the hub did not answer within {} s", self.config.hub_deadline.as_secs()))
        })?
    }
}

/// Runs blocking work off the async threads.
pub(crate) async fn run_blocking<T, E, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    E: Into<Error> + Send + 'static,
    F: FnOnce() -> Result<T, E> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Bug(format!("blocking work panicked: {e}")))?
        .map_err(Into::into)
}

/// The scope of a phase, as the gate compares it.
pub(crate) fn scope_of(phase: &Phase) -> PhaseScopePaths {
    if phase.spec.scope.paths.is_empty() {
        // No declared writes means that it may write anything.
        return PhaseScopePaths::default();
    }
    PhaseScopePaths {
        write: phase.spec.scope.paths.clone(),
        read: phase.spec.scope.read_only_context.iter().map(|r| r.path().to_owned()).collect(),
    }
}

/// The ref that a run's changes move: its branch, or the merge that a landing prepares.
pub(crate) fn ref_of(run: &Run) -> RefName {
    match run.kind {
        RunKind::Patch => RefName::run(&run.id),
        RunKind::Landing => RefName::landing(&run.id),
    }
}

/// The director as an actor.
pub(crate) fn system() -> Principal {
    Principal::system()
}

//! The director: the one that grants, judges, applies, reverts and lets requests run out. It is a reconciler: for each
//! run it reads what is stored, takes the one next step in a fenced transaction, and asks again. A crash anywhere
//! leaves a state that the same loop goes on from.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use autopack_shared::domain::ids::{
    Fence, FencingToken, PhaseId, ProjectId, RequestId, RowId, RunId, Scope, Timestamp,
};
use autopack_shared::domain::parallelism::PhaseScopePaths;
use autopack_shared::domain::record::{Phase, Principal, Run, RunKind};
use autopack_shared::domain::state::PhaseState;
use autopack_shared::runtime::clock::{Clock, IdSource};

use crate::coordination::Coordinator;
use crate::error::Error;
use crate::export::Exporter;
use crate::hub::{Hub, HubError, RefName};
use crate::notify::Notifier;
use crate::policy::{PolicyBook, PolicyInForce};
use crate::run_data::RunDatabases;
use crate::store::{Store, StoreError, Tx};
use crate::workers::Workers;

mod admit;
mod apply;
mod ask;
pub(crate) mod attempts;
mod board;
pub(crate) mod breaker;
pub(crate) mod budget;
mod data;
mod denial;
pub(crate) mod grant;
mod judge;
mod land;
pub(crate) mod lease;
mod limits;
mod liveness;
pub(crate) mod locks;
mod look;
pub(crate) mod moves;
pub mod next;
mod obey;
mod pass;
mod pause;
mod perform;
mod rebase;
mod remind;
mod retain;
mod revert;
mod takeover;
mod trace;
pub(crate) mod uploaded;
pub mod view;

pub use budget::Governing;
use data::Rest;
pub use denial::Denial;
pub use retain::Retention;
pub(crate) use revert::shown;
pub use takeover::{Claim, Home};
use view::RunView;

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
    /// What attempts may use.
    pub governing: Governing,
}

impl Default for DirectorConfig {
    fn default() -> Self {
        Self {
            approval_seconds: 3600,
            elevated_approvers: 1,
            hub_deadline: Duration::from_secs(600),
            reap: false,
            worker_self: Duration::ZERO,
            governing: Governing::default(),
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

    /// Reads a run whole.
    pub(crate) async fn load(&self, id: &RunId) -> Result<Option<(RunView, Timestamp)>, Error> {
        let mut tx = self.store.read().await?;
        // Each project has a director of its own, with a hub of its own.
        let Some(run) = tx.run(id).await?.filter(|run| run.project == self.project) else { return Ok(None) };
        let phases = tx.phases(id).await?;
        let decisions: Vec<RowId> = phases.iter().filter_map(|phase| phase.decision.clone()).collect();
        let decisions = tx.decisions_of(&decisions).await?.into_iter().map(|row| (row.id.clone(), row)).collect();
        let requests: Vec<RequestId> = phases.iter().filter_map(|phase| phase.request.clone()).collect();
        let requests = tx.requests_of(&requests).await?.into_iter().map(|row| (row.id.clone(), row)).collect();
        let applies: Vec<RowId> = phases.iter().filter_map(|phase| phase.apply.clone()).collect();
        let applies = tx.applies_of(&applies).await?.into_iter().map(|row| (row.id.clone(), row)).collect();
        let lease = tx.leases(id).await?.into_iter().find(|lease| next::is_active(lease.state));
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
        let mut tx = self.store.tx(&fences).await?;
        // Here a refusal always gives the whole up.
        tx.defer();
        Ok(tx)
    }

    /// The same about one run and mostly nothing else. Where somebody writes to it meanwhile, it is refused with a
    /// conflict, and the run is looked at again.
    pub(crate) async fn turn(&self, run: &RunId, phase: Option<&PhaseId>) -> Result<Box<dyn Tx>, Error> {
        let fence = Fence { scope: Scope::Director, epoch: self.epoch };
        Ok(self.store.turn(&[fence], run, phase).await?)
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

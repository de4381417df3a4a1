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

use crate::coordination::Coordinator;
use crate::error::Error;
use crate::export::Exporter;
use crate::hub::{Hub, HubError, RefName};
use crate::notify::Notifier;
use crate::policy::{PolicyBook, PolicyInForce};
use crate::store::{RunFilter, Store, StoreError, Tx};
use crate::workers::Workers;

mod apply;
mod ask;
pub(crate) mod grant;
mod judge;
mod land;
mod limits;
pub(crate) mod moves;
pub mod next;
mod obey;
mod perform;
mod rebase;
mod remind;
mod revert;
mod takeover;
pub mod view;

pub(crate) use revert::shown;
use view::RunView;

/// Steps of one run before others get their turn.
const BURST: usize = 64;

/// The longest the director sleeps with something left undone.
const RETRY: Duration = Duration::from_millis(500);

/// Why a run is not granted, for people.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The rule: the gate's reason, `scope_overlap`, `no_slot`, `run_locked`, `locked`, ...
    pub rule: String,
    /// What exactly.
    pub what: String,
    /// What would free it.
    pub remedy: String,
    /// Since when, by the wall.
    pub since: Timestamp,
}

impl Denial {
    /// A step that failed and is tried again.
    pub(crate) fn of(error: &Error) -> Self {
        let remedy = if error.is_full() { "free some space" } else { "it is tried again every half second" };
        Self::new(error.reason().0, &error.told(), remedy)
    }

    fn new(rule: &str, what: &str, remedy: &str) -> Self {
        Self {
            rule: rule.to_owned(),
            what: what.to_owned(),
            remedy: remedy.to_owned(),
            since: Timestamp::from_millis(0),
        }
    }
}

/// Limits of the director.
#[derive(Debug, Clone)]
pub struct DirectorConfig {
    /// Seconds before a request ends as a rejection.
    pub approval_seconds: i64,
    /// Distinct approvers for tier 4.
    pub elevated_approvers: u32,
    /// The longest diff facts may take are bounded elsewhere; this bounds one hub call.
    pub hub_deadline: Duration,
}

impl Default for DirectorConfig {
    fn default() -> Self {
        Self { approval_seconds: 3600, elevated_approvers: 1, hub_deadline: Duration::from_secs(600) }
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
    pub(crate) exporter: Arc<Exporter>,
    pub(crate) config: DirectorConfig,
    pub(crate) epoch: u64,
    pub(crate) token: FencingToken,
    pub(crate) notifier: Arc<dyn Notifier>,
    // Neither is held across an await.
    reminders: Mutex<BTreeSet<(Timestamp, RequestId, i64)>>,
    denials: Mutex<HashMap<RunId, Denial>>,
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

    /// Why a run waits for a worker, if it does.
    #[must_use]
    pub fn denial(&self, run: &RunId) -> Option<Denial> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).get(run).cloned()
    }

    pub(crate) fn deny(&self, run: &RunId, mut denial: Denial) {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        denial.since = match denials.get(run) {
            Some(old) if old.rule == denial.rule => old.since,
            Some(_) | None => self.clock.wall(),
        };
        tracing::debug!(run = %run, rule = denial.rule, what = denial.what, "not granted");
        denials.insert(run.clone(), denial);
    }

    fn reminders(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Timestamp, RequestId, i64)>> {
        self.reminders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A full disk has room again.
    fn eased(&self, run: &RunId) {
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if denials.get(run).is_some_and(|denial| denial.rule == "disk_full") {
            denials.remove(run);
        }
    }

    pub(crate) fn allow(&self, run: &RunId) {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
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
        Ok(if undone { expiry.min(RETRY) } else { expiry.min(IDLE) })
    }

    /// One pass over every run that may have something to do; true when something failed and is to be tried again.
    ///
    /// # Errors
    /// Only when this director is fenced off.
    pub async fn pass(&self) -> Result<bool, Error> {
        let mut undone = false;
        self.expire_due().await?;
        self.remind().await?;
        for run in self.interesting().await? {
            match self.work_on(&run).await {
                Ok(spent) => {
                    undone |= spent;
                    self.eased(&run);
                }
                Err(error) if self.is_fenced(&error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(run = %run, %error, "a step failed and will be tried again");
                    self.deny(&run, Denial::of(&error));
                    undone = true;
                }
            }
            if let Err(error) = self.exporter.sync(self.store.as_ref(), &run).await {
                tracing::warn!(run = %run, %error, "exports could not be written");
            }
        }
        self.deliver().await?;
        Ok(undone)
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
        let Some(run) = tx.run(id).await? else { return Ok(None) };
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

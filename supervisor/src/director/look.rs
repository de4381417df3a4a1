//! One look at everything of a project that may have something to do, in a few questions however many runs there are.
//! What has a step to take is read again by itself before the step is taken.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use autopack_shared::domain::breaker::builder_key;
use autopack_shared::domain::ids::{PhaseId, RequestId, RowId, RunId, Timestamp};
use autopack_shared::domain::record::{Apply, Command, Lease, LeasePurpose, Phase, Request, Run};
use autopack_shared::domain::sandbox::SandboxLevel;
use autopack_shared::domain::state::{LeaseState, PhaseState, RunState};

use super::Director;
use super::next::{Step, next_step, resumes_at};
use super::view::RunView;
use crate::error::Error;
use crate::store::{RunFilter, Tx};

/// A phase that wants a worker.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) view: RunView,
    pub(super) phase: PhaseId,
    pub(super) purpose: LeasePurpose,
    /// The weakest sandbox that it may run in; known when it is about to be let in.
    pub(super) sandbox: Option<SandboxLevel>,
    /// Whether its processes have data on the server for runs; known then too.
    pub(super) data: bool,
}

impl Candidate {
    /// The phase as it was read.
    pub(super) fn phase(&self) -> Option<&Phase> {
        self.view.phase(&self.phase)
    }

    /// The builder that it wants, as breakers know it.
    pub(super) fn builder(&self) -> Option<String> {
        let phase = self.phase().filter(|_| self.purpose == LeasePurpose::Build)?;
        Some(builder_key(&phase.spec.builder))
    }
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Those that want a worker and nothing else, oldest first.
    pub(super) candidates: Vec<Candidate>,
    /// Runs with another step to take, by name.
    pub(super) busy: BTreeSet<RunId>,
    /// Runs that wait for somebody else.
    pub(super) waiting: BTreeSet<RunId>,
    /// When the first of these goes on by itself, where one does.
    pub(super) wake: Option<Timestamp>,
    /// How long the history of each is.
    pub(super) lines: HashMap<RunId, u64>,
}

/// Rows that are read for many runs at once.
struct Rows {
    phases: HashMap<RunId, Vec<Phase>>,
    leases: HashMap<RunId, Lease>,
    commands: HashMap<RunId, Vec<Command>>,
    requests: HashMap<RequestId, Request>,
    applies: HashMap<RowId, Apply>,
}

fn by_run<T>(rows: Vec<T>, run: impl Fn(&T) -> &RunId) -> HashMap<RunId, Vec<T>> {
    let mut sorted: HashMap<RunId, Vec<T>> = HashMap::new();
    for row in rows {
        sorted.entry(run(&row).clone()).or_default().push(row);
    }
    sorted
}

impl Rows {
    async fn read(tx: &mut dyn Tx, runs: &[Run], commands: Vec<Command>, leases: Vec<Lease>) -> Result<Self, Error> {
        let ids: Vec<RunId> = runs.iter().map(|run| run.id.clone()).collect();
        let phases = tx.phases_of(&ids).await?;
        let requests: Vec<RequestId> = phases.iter().filter_map(|phase| phase.request.clone()).collect();
        let applies: Vec<RowId> = phases.iter().filter_map(|phase| phase.apply.clone()).collect();
        Ok(Self {
            phases: by_run(phases, |phase| &phase.run),
            leases: leases.into_iter().map(|lease| (lease.run.clone(), lease)).collect(),
            commands: by_run(commands, |command| &command.run),
            requests: tx.requests_of(&requests).await?.into_iter().map(|row| (row.id.clone(), row)).collect(),
            applies: tx.applies_of(&applies).await?.into_iter().map(|row| (row.id.clone(), row)).collect(),
        })
    }

    /// All of a run but the documents of its decisions, which say nothing of what comes next.
    fn view(&mut self, run: Run) -> RunView {
        let phases = self.phases.remove(&run.id).unwrap_or_default();
        let (mut requests, mut applies) = (BTreeMap::new(), BTreeMap::new());
        for phase in &phases {
            requests.extend(phase.request.as_ref().and_then(|id| self.requests.remove_entry(id)));
            applies.extend(phase.apply.as_ref().and_then(|id| self.applies.remove_entry(id)));
        }
        let lease = self.leases.remove(&run.id);
        let commands = self.commands.remove(&run.id).unwrap_or_default();
        RunView { run, phases, lease, decisions: BTreeMap::new(), requests, applies, commands, project_gate: false }
    }
}

impl Director {
    /// Looks at every run that may have something to do.
    pub(super) async fn look(&self) -> Result<Look, Error> {
        let mut tx = self.store.read().await?;
        let (mut runs, commands, leases) = self.interesting(tx.as_mut()).await?;
        if runs.is_empty() {
            return Ok(Look::default());
        }
        // Who came first is served first.
        runs.sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
        let mut rows = Rows::read(tx.as_mut(), &runs, commands, leases).await?;
        let ids: Vec<RunId> = runs.iter().map(|run| run.id.clone()).collect();
        let lines = tx.lines_of(&ids).await?.into_iter().collect();
        let now = tx.now();
        drop(tx);
        let mut look = Look { lines, ..Look::default() };
        for run in runs {
            let mut view = rows.view(run);
            if view.phases.iter().any(|phase| phase.state == PhaseState::Verifying) {
                // A policy that cannot be read is a failure of that run alone, told when its step is taken.
                let Ok(policy) = self.policy_of(&view.run).await else {
                    look.busy.insert(view.run.id);
                    continue;
                };
                view.project_gate = !policy.config.gate.commands.is_empty();
            }
            look.sort(view, now);
        }
        Ok(look)
    }

    /// The runs that may have something to do, the wishes that nobody has dealt with, and all active leases.
    async fn interesting(&self, tx: &mut dyn Tx) -> Result<(Vec<Run>, Vec<Command>, Vec<Lease>), Error> {
        let states = RunState::ALL.iter().copied().filter(|s| !s.is_terminal()).collect();
        let filter = RunFilter { project: Some(self.project.clone()), states, limit: 0 };
        let mut runs = tx.runs(&filter).await?;
        let commands = tx.open_commands(None).await?;
        let mut more: BTreeSet<RunId> = commands.iter().map(|command| command.run.clone()).collect();
        for state in [PhaseState::RollingBack, PhaseState::Applying, PhaseState::Verifying] {
            more.extend(tx.runs_with_phase(state).await?);
        }
        more.extend(tx.prepared_applies().await?.into_iter().map(|apply| apply.run));
        // A grant that was not completed holds its place, although its run has ended meanwhile.
        let leases = tx.active_leases(None).await?;
        more.extend(leases.iter().filter(|one| one.state == LeaseState::Granting).map(|lease| lease.run.clone()));
        for run in &runs {
            more.remove(&run.id);
        }
        // Each project has a director of its own, with a hub of its own.
        let more = tx.runs_of(&more.into_iter().collect::<Vec<_>>()).await?;
        runs.extend(more.into_iter().filter(|run| run.project == self.project));
        Ok((runs, commands, leases))
    }
}

impl Look {
    /// Everything that was looked at.
    pub(super) fn seen(&self) -> HashSet<RunId> {
        let wanting = self.candidates.iter().map(|one| &one.view.run.id);
        wanting.chain(&self.busy).chain(&self.waiting).cloned().collect()
    }

    fn sort(&mut self, view: RunView, now: Timestamp) {
        match next_step(&view, now) {
            Some(Step::Grant(phase, purpose)) => {
                self.candidates.push(Candidate { view, phase, purpose, sandbox: None, data: false })
            }
            Some(_) => {
                self.busy.insert(view.run.id);
            }
            None => {
                self.wake = self.wake.into_iter().chain(resumes_at(&view)).min();
                self.waiting.insert(view.run.id);
            }
        }
    }
}

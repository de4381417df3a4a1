//! Who may be given work: the gate of a project, the scopes of those who work, and the slots of workers, as pure
//! functions of what was read. Whoever is let in here counts for the next one, so that many can be let in at once.

use std::collections::{BTreeMap, BTreeSet};

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::ids::{ProjectId, RowId, RunId, WorkerId};
use autopack_shared::domain::parallelism::{self, AnchorState, GateInput, PhaseScopePaths, RunsRequest, ScopeOverlap};
use autopack_shared::domain::record::{Lease, LeasePurpose, Phase};
use autopack_shared::domain::sandbox::SandboxLevel;

use super::view::RunView;
use super::{Denial, scope_of};
use crate::coordination::Seated;
use crate::error::Error;
use crate::sandbox;
use crate::store::Tx;

/// What helps where every sandbox is too weak.
const STRONGER: &str = "a worker with a stronger one (autopack sandbox selftest says what is missing), or min_sandbox \
                        under [policy] in autopack.toml";

/// A lease that is active, as the gate sees it.
#[derive(Debug, Clone)]
struct Active {
    run: RunId,
    anchor: Option<IntentionAnchorV2>,
    /// Where its builder writes; none for those who only look.
    writes: Option<PhaseScopePaths>,
}

/// Where somebody may work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) worker: WorkerId,
    pub(super) session: String,
}

/// All that is counted when work is given.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The active leases of the project.
    active: BTreeMap<RowId, Active>,
    /// Slots that are taken, by worker; of all projects.
    taken: BTreeMap<WorkerId, u32>,
    /// Those let in here; they have no row yet.
    let_in: Vec<Active>,
}

impl Board {
    /// Reads what is active. What is known of a lease already is not read again: neither the anchor of a run nor the
    /// scope of a phase that is leased ever changes.
    pub(super) async fn read(&mut self, tx: &mut dyn Tx, project: &ProjectId) -> Result<(), Error> {
        let leases = tx.active_leases(None).await?;
        self.let_in.clear();
        self.taken.clear();
        for lease in &leases {
            *self.taken.entry(lease.worker.clone()).or_default() += 1;
        }
        let mine: Vec<&Lease> = leases.iter().filter(|lease| lease.project == *project).collect();
        let ids: BTreeSet<&RowId> = mine.iter().map(|lease| &lease.id).collect();
        self.active.retain(|id, _| ids.contains(id));
        let unknown: Vec<&Lease> = mine.into_iter().filter(|lease| !self.active.contains_key(&lease.id)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let runs: Vec<RunId> = unknown.iter().map(|lease| lease.run.clone()).collect();
        let mut anchors: BTreeMap<RunId, Option<IntentionAnchorV2>> =
            tx.runs_of(&runs).await?.into_iter().map(|run| (run.id, run.anchor)).collect();
        let phases = tx.phases_of(&runs).await?;
        for lease in unknown {
            let phase = phases.iter().find(|phase| phase.run == lease.run && phase.id == lease.phase);
            let anchor = anchors.remove(&lease.run).flatten();
            self.active.insert(lease.id.clone(), active(&lease.run, anchor, lease.purpose, phase));
        }
        Ok(())
    }

    /// Lets a phase of a run in, or says what is in its way.
    pub(super) fn let_in(
        &mut self,
        view: &RunView,
        (phase, purpose): (&Phase, LeasePurpose),
        needed: Option<SandboxLevel>,
        seats: &[Seated],
    ) -> Result<Slot, Denial> {
        let mine = active(&view.run.id, view.run.anchor.clone(), purpose, Some(phase));
        self.gate(&mine)?;
        self.overlap(&mine)?;
        let needed = needed.unwrap_or(SandboxLevel::S0);
        if let Some(what) = sandbox::too_weak(seats, needed) {
            return Err(Denial::new("sandbox_too_weak", &what, STRONGER));
        }
        let Some(seat) = self.with_room(seats, needed) else {
            return Err(Denial::new("no_slot", full(seats), "a worker that becomes free"));
        };
        *self.taken.entry(seat.worker.clone()).or_default() += 1;
        self.let_in.push(mine);
        Ok(Slot { worker: seat.worker.clone(), session: seat.session.clone() })
    }

    /// The one that was let in last gets nothing after all, nor its slot.
    pub(super) fn let_out(&mut self, slot: &Slot) {
        if self.let_in.pop().is_some()
            && let Some(taken) = self.taken.get_mut(&slot.worker)
        {
            *taken = taken.saturating_sub(1);
        }
    }

    fn all(&self) -> impl Iterator<Item = &Active> {
        self.active.values().chain(&self.let_in)
    }

    /// The strictest anchor of all that are active holds: each must allow one more.
    fn gate(&self, mine: &Active) -> Result<(), Denial> {
        let active = i64::try_from(self.all().count()).unwrap_or(i64::MAX);
        for anchor in std::iter::once(&mine.anchor).chain(self.all().map(|other| &other.anchor)) {
            let decision = parallelism::decide(&GateInput {
                anchor: anchor.as_ref().map_or(AnchorState::Absent, AnchorState::Present),
                runs: RunsRequest::Count(1),
                workers: 1,
                active,
            });
            if !decision.allow {
                let what = format!(
                    "{}: {} runs of this project would hold a lease",
                    decision.reason.as_str(),
                    decision.effective
                );
                let remedy = "the end of a lease, or an anchor that allows more at once";
                return Err(Denial::new(decision.reason.as_str(), &what, remedy));
            }
        }
        Ok(())
    }

    fn overlap(&self, mine: &Active) -> Result<(), Denial> {
        let Some(writes) = &mine.writes else { return Ok(()) };
        for (run, other) in self.all().filter_map(|other| Some((&other.run, other.writes.as_ref()?))) {
            let Some(overlap) = parallelism::scopes_overlap(writes, other) else { continue };
            let what = match overlap {
                ScopeOverlap::NoScope => format!("it or {run} declares no scope, which overlaps everything"),
                ScopeOverlap::Paths { first, second } => format!("its {first} overlaps {second} of {run}"),
            };
            return Err(Denial::new("scope_overlap", &what, "the end of that lease"));
        }
        Ok(())
    }

    /// The live session with the most free slots.
    fn with_room<'a>(&self, seats: &'a [Seated], needed: SandboxLevel) -> Option<&'a Seated> {
        let free =
            |seat: &Seated| i64::from(seat.slots) - i64::from(self.taken.get(&seat.worker).copied().unwrap_or(0));
        let roomy = seats.iter().filter(|seat| !seat.draining && sandbox::level_of(seat) >= needed);
        let roomy = roomy.map(|seat| (free(seat), seat));
        roomy.filter(|(free, _)| *free > 0).max_by_key(|(free, _)| *free).map(|(_, seat)| seat)
    }
}

fn active(run: &RunId, anchor: Option<IntentionAnchorV2>, purpose: LeasePurpose, phase: Option<&Phase>) -> Active {
    let writes = phase.filter(|_| purpose == LeasePurpose::Build).map(scope_of);
    Active { run: run.clone(), anchor, writes }
}

/// Why nobody has room.
fn full(seats: &[Seated]) -> &'static str {
    match seats {
        [] => "no worker is connected",
        all if all.iter().all(|seat| seat.draining) => "every worker that is connected is draining",
        _ => "every worker slot is taken",
    }
}

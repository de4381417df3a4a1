//! Grants, many at a time (`coordination.md` 3.5): one transaction counts and writes the leases of all that are let in,
//! the locks of all are taken together, and one more transaction says that they are held. Each grant keeps the order of
//! a single one: store, locks, store; what fails for one is taken back for that one.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::Span;

use autopack_shared::domain::budget::{Ending, Spend};
use autopack_shared::domain::ids::{Fence, Oid, Scope};
use autopack_shared::domain::record::{Lease, Phase, Principal, Run};
use autopack_shared::domain::state::LeaseEvent;
use autopack_shared::runtime::telemetry::context;
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::board::{Board, Slot};
use super::budget::{self, Afford, Batch};
use super::data::{self, Asking};
use super::grant::note_granting;
use super::locks::unlock;
use super::look::Candidate;
use super::{Denial, Director, moves, trace};
use crate::coordination::Seated;
use crate::error::Error;
use crate::sandbox;
use crate::store::Tx;

/// Grants at once. The transaction that gives them locks a row each, and etcd is asked in turns of fewer.
const BATCH: usize = 64;

/// One that may start from a commit.
struct Ready {
    candidate: Candidate,
    base: Oid,
    /// What its attempt reserves.
    spend: Option<Box<Spend>>,
}

/// A grant that takes its time: a run's data has to be made. One in a pass, after all else.
pub(super) struct Slow {
    ready: Ready,
    seats: Vec<Seated>,
    /// Whether others wait for the same.
    more: bool,
}

/// A grant between its two transactions.
struct Granting {
    run: Run,
    phase: Phase,
    lease: Lease,
    base: Oid,
    data: bool,
    waited: Duration,
    span: Span,
}

impl Director {
    /// Gives work to all that can get some; what is in the way of the others is remembered for `runs explain`. Whether
    /// something failed and is to be tried again, and the grant that is left for later.
    pub(super) async fn admit(&self, candidates: Vec<Candidate>) -> Result<(bool, Option<Box<Slow>>), Error> {
        let runs: Vec<_> = candidates.iter().map(|one| one.view.run.id.clone()).collect();
        let error = match Box::pin(self.admit_all(candidates)).await {
            Ok(slow) => return Ok((false, slow)),
            Err(error) if self.is_fenced(&error).await => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(%error, "grants failed and are tried again");
        runs.iter().for_each(|run| self.deny(run, Denial::of(&error)));
        Ok((true, None))
    }

    /// Does the grant that was left; whether it is to be looked again soon.
    pub(super) async fn admit_slow(&self, slow: Option<Box<Slow>>) -> Result<bool, Error> {
        let Some(slow) = slow else { return Ok(false) };
        let Slow { ready, seats, more } = *slow;
        let run = ready.candidate.view.run.id.clone();
        let error = match Box::pin(self.grant_all(vec![ready], &mut Board::default(), &seats)).await {
            Ok(()) => return Ok(more),
            Err(error) if self.is_fenced(&error).await => return Err(error),
            Err(error) => error,
        };
        tracing::warn!(run = %run, %error, "a grant failed and is tried again");
        self.deny(&run, Denial::of(&error));
        Ok(true)
    }

    async fn admit_all(&self, candidates: Vec<Candidate>) -> Result<Option<Box<Slow>>, Error> {
        let now = self.clock.monotonic();
        let free: Vec<Candidate> =
            candidates.into_iter().filter(|one| !self.pauses().holds(&one.view.run.id, now)).collect();
        if free.is_empty() {
            return Ok(None);
        }
        let seats = self.coordinator.seats().await?;
        let mut board = Board::default();
        board.read(self.store.read().await?.as_mut(), &self.project).await?;
        let free = self.known(free).await?;
        let likely = self.likely(free, &mut board, &seats).await?;
        let (mut plain, mut with_data) = (Vec::new(), Vec::new());
        for one in likely {
            let run = one.view.run.id.clone();
            match self.ready(one).await {
                Ok(Some(ready)) if ready.candidate.data => with_data.push(ready),
                Ok(ready) => plain.extend(ready),
                // What cannot be read of one run holds up no other.
                Err(error) if self.is_fenced(&error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(run = %run, %error, "it cannot be granted now");
                    self.deny(&run, Denial::of(&error));
                }
            }
        }
        self.grant_all(plain, &mut board, &seats).await?;
        let more = with_data.len() > 1;
        Ok(with_data.into_iter().next().map(|ready| Box::new(Slow { ready, seats, more })))
    }

    /// Those that would be let in as things stand, as many as are granted at once. Runs whose budget is used up pause.
    async fn likely(&self, free: Vec<Candidate>, board: &mut Board, seats: &[Seated]) -> Result<Vec<Candidate>, Error> {
        let (mut likely, mut batch, mut short) = (Vec::new(), Batch::looking(), Vec::new());
        let mut asking = Asking::now();
        let mut view = self.store.read().await?;
        for one in free {
            if likely.len() >= BATCH {
                // The commit of this batch wakes us for the rest.
                break;
            }
            // Most of a long queue ends here, where nothing is read.
            let slot = match self.let_in(board, &one, seats) {
                Ok(slot) => slot,
                Err(denial) => {
                    self.deny(&one.view.run.id, denial);
                    continue;
                }
            };
            match self.afford(view.as_mut(), &one, &mut batch).await? {
                Afford::Yes(spend) => {
                    if one.data
                        && let Some(denial) = self.data_denied(&one.view, &mut asking).await
                    {
                        // What waits for its data holds nobody's place.
                        board.let_out(&slot);
                        self.deny(&one.view.run.id, denial);
                        continue;
                    }
                    batch.take(spend.as_deref());
                    likely.push(one);
                }
                Afford::Waits => board.let_out(&slot),
                Afford::Exhausted(hit) => {
                    board.let_out(&slot);
                    short.push((one.view.run.id.clone(), hit));
                }
            }
        }
        drop(view);
        self.pause_all(short).await?;
        Ok(likely)
    }

    fn let_in(&self, board: &mut Board, one: &Candidate, seats: &[Seated]) -> Result<Slot, Denial> {
        let gone = || Denial::new("no_phase", "its phase is gone", "a look at the run");
        let phase = one.phase().ok_or_else(gone)?;
        board.let_in(&one.view, (phase, one.purpose), one.sandbox, seats)
    }

    /// What each needs, sandbox and data, by the policy of its fork commit; what cannot be read of one run holds up no
    /// other.
    async fn known(&self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, Error> {
        let mut known = Vec::new();
        for mut one in candidates {
            match self.policy_of(&one.view.run).await {
                Ok(policy) => {
                    one.sandbox =
                        one.phase().and_then(|phase| sandbox::needed(&policy, &one.view.run, phase, one.purpose));
                    one.data = data::needed(&policy, &one);
                    known.push(one);
                }
                Err(error) if self.is_fenced(&error).await => return Err(error),
                Err(error) => {
                    tracing::warn!(run = %one.view.run.id, %error, "it cannot be granted now");
                    self.deny(&one.view.run.id, Denial::of(&error));
                }
            }
        }
        Ok(known)
    }

    /// Whether a phase can start now, and from which commit. None where it was moved instead, or has to wait.
    async fn ready(&self, candidate: Candidate) -> Result<Option<Ready>, Error> {
        let Candidate { view, phase, purpose, .. } = &candidate;
        let base = self.startable(view, phase, *purpose).await?;
        Ok(base.map(|base| Ready { candidate, base, spend: None }))
    }

    /// Grants what still can be granted when the gate is held.
    async fn grant_all(&self, ready: Vec<Ready>, board: &mut Board, seats: &[Seated]) -> Result<(), Error> {
        if ready.is_empty() {
            return Ok(());
        }
        let began = self.clock.monotonic();
        let granting = self.begin(ready, board, seats).await?;
        if granting.is_empty() {
            return Ok(());
        }
        let locked = self.lock_all(&granting).await;
        let (mut held, mut failed) = (Vec::new(), Vec::new());
        for (one, locked) in granting.into_iter().zip(locked) {
            let done = match locked {
                Ok(()) if one.data => self.give_data(&one.run, one.lease.epoch).await.map_err(|denial| (denial, true)),
                Ok(()) => Ok(()),
                Err(error) => Err((Denial::new("run_locked", &error.to_string(), "the end of that process"), false)),
            };
            match done {
                Ok(()) => held.push(one),
                Err((denial, locked)) => failed.push((one, denial, locked)),
            }
        }
        self.hold_all(held, began).await?;
        for (one, denial, locked) in failed {
            self.take_back(one, denial, locked).await?;
        }
        Ok(())
    }

    /// The first half: gate, slots, fences and leases in one transaction.
    async fn begin(&self, ready: Vec<Ready>, board: &mut Board, seats: &[Seated]) -> Result<Vec<Granting>, Error> {
        let mut tx = self.fenced(&[]).await?;
        tx.lock_gate(&self.project).await?;
        tx.lock_slots().await?;
        board.read(tx.as_mut(), &self.project).await?;
        let (mut chosen, mut batch) = (Vec::new(), Batch::granting());
        let builders = ready.iter().filter_map(|one| one.candidate.builder()).collect();
        batch.governors.hold(tx.as_mut(), &self.project, builders).await?;
        for mut one in ready {
            let slot = match self.let_in(board, &one.candidate, seats) {
                Ok(slot) => slot,
                Err(denial) => {
                    self.deny(&one.candidate.view.run.id, denial);
                    continue;
                }
            };
            // What is exhausted by now is found so by the next look.
            if let Afford::Yes(spend) = self.afford(tx.as_mut(), &one.candidate, &mut batch).await? {
                batch.take(spend.as_deref());
                one.spend = spend;
                chosen.push((one, slot));
            } else {
                board.let_out(&slot);
            }
        }
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        chosen.sort_by(|(one, _), (other, _)| one.candidate.view.run.id.cmp(&other.candidate.view.run.id));
        let epochs = raise(tx.as_mut(), &chosen).await?;
        let wanted: Vec<_> = chosen
            .iter()
            .map(|(one, _)| (one.candidate.view.run.id.clone(), Some(one.candidate.phase.clone())))
            .collect();
        let found = tx.gather(&wanted).await?;
        let mut granting = Vec::new();
        for (((one, slot), epochs), found) in chosen.into_iter().zip(epochs).zip(found) {
            let same = found.run.as_ref().is_some_and(|run| run.version == one.candidate.view.run.version)
                && found.phase.as_ref().map(|phase| phase.version) == one.candidate.phase().map(|phase| phase.version);
            // Somebody else moved it in between: it is looked at again.
            let (Some(run), Some(phase), true) = (found.run, found.phase, same) else { continue };
            granting.push(self.write(tx.as_mut(), (run, phase), &one, slot, epochs).await?);
        }
        tx.commit().await?;
        Ok(granting)
    }

    /// Writes one lease that is being granted.
    async fn write(
        &self,
        tx: &mut dyn Tx,
        (run, phase): (Run, Phase),
        one: &Ready,
        slot: Slot,
        epochs: (u64, u64),
    ) -> Result<Granting, Error> {
        let Candidate { view, purpose, .. } = &one.candidate;
        let span = trace::grant(view, &phase.id, *purpose);
        let mut lease = self.lease(&phase, &run, *purpose, (&slot.worker, &slot.session), epochs)?;
        lease.granted_at = tx.now();
        lease.trace = span.in_scope(context::current);
        let waited = Duration::from_millis(u64::try_from(lease.granted_at.millis_since(run.updated_at)).unwrap_or(0));
        span.record("epoch", lease.epoch).record("worker", slot.worker.as_str());
        tx.insert_lease(&lease).await?;
        note_granting(tx, &lease).await?;
        budget::reserve(tx, one.spend.as_deref(), &lease).await?;
        Ok(Granting { run, phase, lease, base: one.base, data: one.candidate.data, waited, span })
    }

    /// The second half: all of them in one transaction, or, where that is refused because of one of them, each by
    /// itself.
    async fn hold_all(&self, mut held: Vec<Granting>, began: Duration) -> Result<(), Error> {
        if held.is_empty() {
            return Ok(());
        }
        let done = self.hold_some(&mut held).await;
        let error = match done {
            Ok(()) => {
                held.iter().for_each(|one| self.granted(one, began));
                return Ok(());
            }
            Err(error) => error,
        };
        if held.len() == 1 || self.is_fenced(&error).await {
            for one in &held {
                one.span.record("otel.status_code", "ERROR");
            }
            return Err(error);
        }
        tracing::warn!(%error, grants = held.len(), "grants could not be completed together");
        for one in held {
            let mut alone = vec![one];
            match self.hold_some(&mut alone).await {
                Ok(()) => alone.iter().for_each(|one| self.granted(one, began)),
                Err(error) if self.is_fenced(&error).await => return Err(error),
                // It is taken back when it is next looked at.
                Err(error) => alone.iter().for_each(|one| {
                    one.span.record("otel.status_code", "ERROR");
                    tracing::warn!(run = %one.run.id, %error, "a grant was not completed");
                }),
            }
        }
        Ok(())
    }

    async fn hold_some(&self, held: &mut [Granting]) -> Result<(), Error> {
        let fence = |one: &Granting| Fence { scope: Scope::Run(one.run.id.clone()), epoch: one.lease.epoch };
        let mut tx = self.fenced(&held.iter().map(fence).collect::<Vec<_>>()).await?;
        let wanted: Vec<_> = held.iter().map(|one| (one.run.id.clone(), None)).collect();
        tx.gather(&wanted).await?;
        for one in held.iter_mut() {
            // Of copies: where this is refused, it is tried again from what was read.
            let (mut run, mut phase, mut lease) = (one.run.clone(), one.phase.clone(), one.lease.clone());
            self.hold(tx.as_mut(), &mut run, &mut phase, &mut lease, one.base).await?;
        }
        Ok(tx.commit().await?)
    }

    fn granted(&self, one: &Granting, began: Duration) {
        let Granting { run, phase, lease, .. } = one;
        self.pauses().forget(&run.id);
        self.allow(&run.id);
        let _entered = one.span.enter();
        tracing::info!(run = %run.id, phase = %phase.id, worker = %lease.worker, epoch = lease.epoch, "granted");
        let took = self.clock.monotonic().saturating_sub(began);
        metrics().granted(&format!("{:?}", lease.purpose).to_lowercase(), one.waited, took);
    }

    /// Takes a grant back that could not be completed.
    async fn take_back(&self, mut one: Granting, denial: Denial, locked: bool) -> Result<(), Error> {
        let fence = Fence { scope: Scope::Run(one.run.id.clone()), epoch: one.lease.epoch };
        let mut tx = self.fenced(&[fence]).await?;
        let why = Some(denial.what.clone());
        budget::settle(tx.as_mut(), &one.lease, Ending::NotStarted).await?;
        moves::lease(tx.as_mut(), &mut one.lease, LeaseEvent::Revoke, why, &Principal::system()).await?;
        tx.commit().await?;
        if locked {
            unlock(self.coordinator.as_ref(), &one.lease).await;
        }
        self.pauses().failed(&one.run.id, self.clock.monotonic());
        self.deny(&one.run.id, denial);
        Ok(())
    }

    /// Takes the locks of all, in as few questions as that takes; what ended leases of a run still hold is no obstacle.
    async fn lock_all(&self, granting: &[Granting]) -> Vec<Result<(), Error>> {
        let leases: Vec<&Lease> = granting.iter().map(|one| &one.lease).collect();
        self.lock_many(&leases).await
    }
}

/// Raises the epochs of runs and of their workspaces; both of each, in the order given.
async fn raise(tx: &mut dyn Tx, chosen: &[(Ready, Slot)]) -> Result<Vec<(u64, u64)>, Error> {
    let both = |(one, slot): &(Ready, Slot)| {
        let (run, holder) = (&one.candidate.view.run.id, slot.worker.to_string());
        [(Scope::Run(run.clone()), holder.clone()), (Scope::Workspace(run.clone()), holder)]
    };
    // All in one order: runs before workspaces, each by name.
    let mut scopes: Vec<(Scope, String)> = chosen.iter().flat_map(both).collect();
    scopes.sort();
    let raised = moves::bump_all(tx, &scopes).await?;
    let by_scope: BTreeMap<&Scope, u64> = scopes.iter().map(|(scope, _)| scope).zip(raised).collect();
    let epoch = |scope: Scope| {
        let missing = || Error::Bug(format!("{scope} was not raised"));
        by_scope.get(&scope).copied().ok_or_else(missing)
    };
    let of = |(one, _): &(Ready, Slot)| {
        let run = &one.candidate.view.run.id;
        Ok((epoch(Scope::Run(run.clone()))?, epoch(Scope::Workspace(run.clone()))?))
    };
    chosen.iter().map(of).collect()
}

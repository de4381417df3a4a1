//! Budgets of attempts: reserved in the grant's transaction, settled in the one that ends the lease. What is decided is
//! decided by `shared::domain::budget`; here it is read and written.

use std::collections::BTreeMap;

use autopack_shared::domain::breaker::{BreakerConfig, builder_key};
use autopack_shared::domain::budget::{
    self, Admission, Amounts, Bound, BudgetConfig, BudgetScope, Caps, Ending, Hit, Ledger, Spend, SpendState, Spent,
    Unit,
};
use autopack_shared::domain::change::ChangeFacts;
use autopack_shared::domain::ids::{RunId, Timestamp};
use autopack_shared::domain::record::{Lease, LeasePurpose, Phase, Run};
use autopack_shared::domain::state::{RunEvent, RunState};

use super::breaker::Governors;
use super::look::Candidate;
use super::retain::Retention;
use super::{Denial, Director, moves, system};
use crate::error::Error;
use crate::store::{SpentBy, StoreError, Tx};

/// What attempts may use, and when their builders are left alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Governing {
    /// Budgets.
    pub budgets: BudgetConfig,
    /// Breakers and credentials.
    pub breakers: BreakerConfig,
    /// How long transcripts are kept.
    pub retention: Retention,
}

/// Whether a candidate may be let in.
pub(super) enum Afford {
    /// With this reservation; the gate's check needs none.
    Yes(Option<Box<Spend>>),
    /// Not now; why is remembered for `runs explain`.
    Waits,
    /// A budget is used up.
    Exhausted(Hit),
}

/// What those take that are let in together, before it is written; and what is the same for all of them, read once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Rows are held, to be written.
    writes: bool,
    taken: Vec<Spend>,
    pub(super) governors: Governors,
    /// What has gone of what is wider than a run.
    wide: BTreeMap<BudgetScope, Spent>,
}

impl Batch {
    /// Of a look, which writes nothing.
    pub(super) fn looking() -> Self {
        Self::default()
    }

    /// Of a grant.
    pub(super) fn granting() -> Self {
        Self { writes: true, ..Self::default() }
    }

    /// One more is let in.
    pub(super) fn take(&mut self, spend: Option<&Spend>) {
        self.taken.extend(spend.cloned());
    }

    /// Whether rows may be held.
    pub(super) const fn writes(&self) -> bool {
        self.writes
    }

    /// How many of them use a credential.
    pub(super) fn uses(&self, credential: &str) -> u64 {
        let uses = self.taken.iter().filter(|spend| spend.credential.as_deref() == Some(credential));
        u64::try_from(uses.count()).unwrap_or(u64::MAX)
    }

    /// Whether one of them has this builder.
    pub(super) fn tries(&self, builder: &str) -> bool {
        self.taken.iter().any(|spend| spend.builder == builder)
    }

    /// Adds what they take: each is of another run, so only what is wider than a run is shared.
    fn add_to(&self, ledgers: &mut [Ledger]) {
        for ledger in ledgers.iter_mut().filter(|l| l.scope > BudgetScope::Run) {
            for (spend, unit) in self.taken.iter().flat_map(|spend| Unit::ALL.map(|unit| (spend, unit))) {
                ledger.spent.reserved.add(unit, spend.counted.get(unit));
            }
        }
    }
}

impl Director {
    /// Whether a candidate may be let in beside the others of its batch, as far as its builder's breaker, its
    /// credential and its budgets go. A transaction of a grant holds the project's gate.
    pub(super) async fn afford(&self, tx: &mut dyn Tx, one: &Candidate, batch: &mut Batch) -> Result<Afford, Error> {
        let run = &one.view.run;
        let Some(phase) = one.phase().filter(|_| one.purpose == LeasePurpose::Build) else {
            return Ok(Afford::Yes(None));
        };
        let credential = match self.fit(tx, run, phase, batch).await? {
            Ok(credential) => credential,
            Err((denial, wake)) => {
                self.deny(&run.id, denial);
                self.wake_at(wake);
                return Ok(Afford::Waits);
            }
        };
        let (now, config) = (tx.now(), self.config.governing.budgets);
        let models = budget::asks_models(&phase.spec.builder);
        let most = config.attempt.seconds.map_or(phase.spec.timeout, |most| most.min(phase.spec.timeout));
        let asked = Caps { seconds: Some(most), ..config.attempt };
        let admit = |ledgers: &[Ledger]| budget::admit_again(ledgers, asked, models, phase.budget.short, now);
        // Where what is wide has nothing for anybody, nothing is read of each run.
        let mut wide = wide(tx, run, &config, now, &mut batch.wide).await?;
        batch.add_to(&mut wide);
        let mut admission = admit(&wide);
        if matches!(admission, Admission::Granted(..)) {
            let mut all = narrow(tx, run, Some(phase), &config).await?;
            all.extend(wide);
            admission = admit(&all);
        }
        match admission {
            Admission::Granted(granted, bounds) => {
                let spend = Spend { granted, bounds, ..blank(run, phase, credential, now) };
                Ok(Afford::Yes(Some(Box::new(spend.reserve()))))
            }
            Admission::Wait(hit) => {
                let Hit { scope, unit, limit, used, .. } = hit;
                let of = format!("{used} of {limit} {} of the {}", unit.as_str(), scope.as_str());
                let what = format!("{of} are used or reserved by attempts that are under way");
                self.deny(&run.id, Denial::new("budget_reserved", &what, "the end of one of them"));
                Ok(Afford::Waits)
            }
            Admission::Exhausted(hit) => Ok(Afford::Exhausted(of_phase(hit, phase))),
        }
    }

    /// Settles what was reserved for leases that have ended without saying what was used.
    pub(super) async fn settle_orphans(&self) -> Result<(), Error> {
        let orphans = self.store.read().await?.orphans(&self.project).await?;
        if orphans.is_empty() {
            return Ok(());
        }
        tracing::warn!(project = %self.project, count = orphans.len(), "reservations of leases that have ended are settled");
        let mut tx = self.fenced(&[]).await?;
        for mut orphan in orphans {
            orphan.settle(Ending::Lost);
            tx.update_spend(&mut orphan).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Pauses runs that a budget holds up; all that they did stays.
    pub(super) async fn pause_all(&self, short: Vec<(RunId, Hit)>) -> Result<(), Error> {
        for (run, hit) in short {
            let mut tx = self.fenced(&[]).await?;
            let Some(mut run) = tx.run(&run).await?.filter(|run| run.state == RunState::Queued) else { continue };
            let why = hit.to_string();
            self.notice(tx.as_mut(), &run, "budget_exhausted", format!("{} is paused: {why}", run.id)).await?;
            run.budget.hit = Some(hit);
            let done = match moves::run(tx.as_mut(), &mut run, RunEvent::Pause, Some(why), &system()).await {
                Ok(()) => tx.commit().await.map_err(Error::from),
                refused => refused,
            };
            match done {
                Ok(()) => {}
                // Somebody else moved it: it is looked at again.
                Err(Error::Store(StoreError::Conflict { .. })) => continue,
                Err(error) => return Err(error),
            }
            self.allow(&run.id);
        }
        Ok(())
    }
}

/// A reservation of the next attempt at a phase, of nothing yet.
fn blank(run: &Run, phase: &Phase, credential: Option<String>, now: Timestamp) -> Spend {
    Spend {
        run: run.id.clone(),
        phase: phase.id.clone(),
        attempt: phase.attempt + 1,
        epoch: 0,
        project: run.project.clone(),
        builder: builder_key(&phase.spec.builder),
        credential,
        day: budget::day_of(now),
        at: now,
        state: SpendState::Reserved,
        version: 0,
        counted: Amounts::default(),
        granted: Caps::default(),
        bounds: Vec::new(),
        models: budget::asks_models(&phase.spec.builder),
        reported: None,
    }
}

/// Writes a reservation with the lease that it is for.
pub(super) async fn reserve(tx: &mut dyn Tx, spend: Option<&Spend>, lease: &Lease) -> Result<(), Error> {
    let Some(mut spend) = spend.cloned() else { return Ok(()) };
    spend.attempt = lease.attempt;
    spend.epoch = lease.epoch;
    Ok(tx.insert_spend(&spend).await?)
}

/// Settles what the lease's attempt reserved, if it did; what it came to.
pub(crate) async fn settle(tx: &mut dyn Tx, lease: &Lease, ending: Ending) -> Result<Option<Spend>, Error> {
    let Some(mut spend) = tx.spend(&lease.run, lease.epoch).await? else { return Ok(None) };
    if spend.state == SpendState::Reserved {
        spend.settle(ending);
        tx.update_spend(&mut spend).await?;
    }
    Ok(Some(spend))
}

/// The bounds of a run: the ones that were set later before those of its file.
pub(crate) fn caps_of(run: &Run) -> Caps {
    run.budget.raised.or(Caps::from(&run.file.limits))
}

/// The bounds of a phase, in the same way.
fn caps_of_phase(phase: &Phase) -> Caps {
    phase.budget.raised.or(Caps::from(&phase.spec.limits))
}

/// Every scope that a run's attempts fall in, with what has gone of it, from the narrowest to the widest. Scopes that
/// bind nothing are left out.
pub(crate) async fn ledgers(
    tx: &mut dyn Tx,
    run: &Run,
    phase: Option<&Phase>,
    config: &BudgetConfig,
    now: Timestamp,
) -> Result<Vec<Ledger>, Error> {
    let mut ledgers = narrow(tx, run, phase, config).await?;
    ledgers.extend(wide(tx, run, config, now, &mut BTreeMap::new()).await?);
    Ok(ledgers)
}

/// What is wider than a run, with what is known of it already.
async fn wide(
    tx: &mut dyn Tx,
    run: &Run,
    config: &BudgetConfig,
    now: Timestamp,
    known: &mut BTreeMap<BudgetScope, Spent>,
) -> Result<Vec<Ledger>, Error> {
    let day = budget::day_of(now);
    let scopes = [
        (BudgetScope::Project, config.project, SpentBy::Project(&run.project)),
        (BudgetScope::Day, config.day, SpentBy::Day(&run.project, day)),
    ];
    let mut ledgers = Vec::new();
    for (scope, caps, by) in scopes.into_iter().filter(|(_, caps, _)| *caps != Caps::default()) {
        let spent = match known.get(&scope) {
            Some(spent) => *spent,
            None => tx.spent(by).await?,
        };
        known.insert(scope, spent);
        ledgers.push(Ledger { scope, caps, spent });
    }
    Ok(ledgers)
}

/// A run, and a phase of it.
async fn narrow(
    tx: &mut dyn Tx,
    run: &Run,
    phase: Option<&Phase>,
    config: &BudgetConfig,
) -> Result<Vec<Ledger>, Error> {
    let of_phase = phase.map(|p| (caps_of_phase(p).or(config.phase), SpentBy::Phase(&run.id, &p.id)));
    let scopes = [
        of_phase.map(|(caps, by)| (BudgetScope::Phase, caps, by)),
        // Files of a run are told apart by their names, elsewhere.
        Some((BudgetScope::Run, Caps { files: None, ..caps_of(run) }, SpentBy::Run(&run.id))),
    ];
    let mut ledgers = Vec::new();
    for (scope, caps, by) in scopes.into_iter().flatten() {
        if caps != Caps::default() {
            ledgers.push(Ledger { scope, caps, spent: tx.spent(by).await? });
        }
    }
    Ok(ledgers)
}

/// Counts the files of a change that was judged; why it may not be applied, if with it there were too many.
pub(super) async fn count_files(
    tx: &mut dyn Tx,
    run: &Run,
    phase: &Phase,
    facts: &Result<ChangeFacts, String>,
    config: &BudgetConfig,
) -> Result<Option<String>, Error> {
    let Ok(facts) = facts else { return Ok(None) };
    let Some(attempt) = tx.attempt(&run.id, &phase.id, phase.attempt).await? else { return Ok(None) };
    let Some(mut spend) = tx.spend(&run.id, attempt.epoch).await? else { return Ok(None) };
    tx.lock_gate(&run.project).await?;
    let now = tx.now();
    forget_files(tx, phase, Some(phase.attempt)).await?;
    let before = spend.counted.files;
    for ledger in ledgers(tx, run, Some(phase), config, now).await? {
        let Some(limit) = ledger.caps.files else { continue };
        let counted = ledger.spent.settled.files.saturating_add(ledger.spent.reserved.files);
        // A change that is judged again is counted once; yesterday's attempts are not of today.
        let mine = if ledger.scope == BudgetScope::Day && spend.day != budget::day_of(now) { 0 } else { before };
        let count = counted.saturating_sub(mine).saturating_add(facts.files);
        if count > limit {
            let scope = ledger.scope.as_str();
            return Ok(Some(format!("limit_files: the {scope} would have changed {count} files of {limit}")));
        }
    }
    spend.counted.set(Unit::Files, facts.files);
    tx.update_spend(&mut spend).await?;
    Ok(None)
}

/// Files of a phase's attempts count no more, but for one of them: nothing else of it stays on the branch.
pub(super) async fn forget_files(tx: &mut dyn Tx, phase: &Phase, but: Option<u32>) -> Result<(), Error> {
    let attempts = tx.attempts(&phase.run, &phase.id).await?;
    let gone = attempts.into_iter().filter(|attempt| attempt.result_tree.is_some() && but != Some(attempt.number));
    for attempt in gone {
        let Some(mut spend) = tx.spend(&phase.run, attempt.epoch).await? else { continue };
        if spend.counted.files > 0 {
            spend.counted.set(Unit::Files, 0);
            tx.update_spend(&mut spend).await?;
        }
    }
    Ok(())
}

/// How a budget stands that ended an attempt.
pub(crate) enum Met {
    /// Others hold a part of it that they may give back.
    Held,
    /// It is as good as used up.
    Budget(Hit),
}

/// How the wider budget stands that a builder met in mid-attempt. What it reserved is settled.
pub(crate) async fn met(
    tx: &mut dyn Tx,
    run: &Run,
    phase: &Phase,
    bound: Bound,
    config: &BudgetConfig,
) -> Result<Met, Error> {
    let Bound { unit, scope, limit } = bound;
    let now = tx.now();
    let found = ledgers(tx, run, Some(phase), config, now).await?.into_iter().find(|l| l.scope == scope);
    if found.as_ref().is_some_and(|l| l.spent.reserved.get(unit) > 0) {
        return Ok(Met::Held);
    }
    let used = found.map_or(0, |l| l.spent.settled.get(unit));
    let until = (scope == BudgetScope::Day).then(|| budget::next_day(now));
    Ok(Met::Budget(of_phase(Hit { scope, unit, limit, used, until, phase: None }, phase)))
}

/// A hit with the name of its phase, where it is a phase's.
fn of_phase(hit: Hit, phase: &Phase) -> Hit {
    Hit { phase: (hit.scope == BudgetScope::Phase).then(|| phase.id.clone()), ..hit }
}

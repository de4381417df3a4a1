//! Budgets of attempts: reserved in the grant's transaction, settled in the one that ends the lease. What is decided is
//! decided by `shared::domain::budget`; here it is read and written.

use autopack_shared::domain::breaker::{BreakerConfig, builder_key};
use autopack_shared::domain::budget::{
    self, Admission, Amounts, BudgetConfig, BudgetScope, Caps, Ending, Hit, Ledger, Spend, SpendState, Unit,
};
use autopack_shared::domain::change::ChangeFacts;
use autopack_shared::domain::ids::{PhaseId, Timestamp};
use autopack_shared::domain::record::{Lease, LeasePurpose, Phase, Run};
use autopack_shared::domain::state::RunEvent;

use super::grant::reread_run;
use super::view::RunView;
use super::{Denial, Director, moves, system};
use crate::error::Error;
use crate::store::{SpentBy, Tx};

/// What attempts may use, and when their builders are left alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Governing {
    /// Budgets.
    pub budgets: BudgetConfig,
    /// Breakers and credentials.
    pub breakers: BreakerConfig,
}

/// Whether a grant may go on.
pub(super) enum Admitted {
    /// It may, with this reservation, which is written with its lease; the gate's check needs none.
    Go(Box<dyn Tx>, Option<Box<Spend>>),
    /// It may not; whether the run has moved, so that its next step is asked for.
    Not(bool),
}

impl Director {
    /// Whether a phase may be granted now, as far as its builder's breaker, its credential and its budgets go. The
    /// transaction holds the project's gate.
    pub(super) async fn admitted(
        &self,
        mut tx: Box<dyn Tx>,
        view: &RunView,
        phase: &PhaseId,
        purpose: LeasePurpose,
    ) -> Result<Admitted, Error> {
        let Some(phase) = view.phase(phase).filter(|_| purpose == LeasePurpose::Build) else {
            return Ok(Admitted::Go(tx, None));
        };
        let credential = match self.fit(tx.as_mut(), view, phase).await? {
            Ok(credential) => credential,
            Err((denial, wake)) => {
                self.deny(&view.run.id, denial);
                self.wake_at(wake);
                return Ok(Admitted::Not(false));
            }
        };
        let run = reread_run(tx.as_mut(), &view.run).await?;
        let (now, config) = (tx.now(), self.config.governing.budgets);
        let ledgers = ledgers(tx.as_mut(), &run, Some(phase), &config, now).await?;
        let models = budget::asks_models(&phase.spec.builder);
        let most = config.attempt.seconds.map_or(phase.spec.timeout, |most| most.min(phase.spec.timeout));
        let asked = Caps { seconds: Some(most), ..config.attempt };
        match budget::admit(&ledgers, asked, models, now) {
            Admission::Granted(granted, bounds) => {
                let spend = Spend {
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
                    granted,
                    bounds,
                    models,
                    reported: None,
                };
                Ok(Admitted::Go(tx, Some(Box::new(spend.reserve()))))
            }
            Admission::Wait(hit) => {
                let what = format!(
                    "{} of {} {} of the {} are used or reserved by attempts that are under way",
                    hit.used,
                    hit.limit,
                    hit.unit.as_str(),
                    hit.scope.as_str()
                );
                self.deny(&view.run.id, Denial::new("budget_reserved", &what, "the end of one of them"));
                Ok(Admitted::Not(false))
            }
            Admission::Exhausted(hit) => self.pause_for(tx, run, hit).await.map(|()| Admitted::Not(true)),
        }
    }

    /// Pauses a run that a budget holds up; all that it did stays.
    async fn pause_for(&self, mut tx: Box<dyn Tx>, mut run: Run, hit: Hit) -> Result<(), Error> {
        let why = hit.to_string();
        self.notice(tx.as_mut(), &run, "budget_exhausted", format!("{} is paused: {why}", run.id)).await?;
        run.budget.hit = Some(hit);
        moves::run(tx.as_mut(), &mut run, RunEvent::Pause, Some(why), &system()).await?;
        tx.commit().await?;
        self.allow(&run.id);
        Ok(())
    }
}

/// Writes a reservation with the lease that it is for.
pub(super) async fn reserve(tx: &mut dyn Tx, spend: Option<Box<Spend>>, lease: &Lease) -> Result<(), Error> {
    let Some(mut spend) = spend else { return Ok(()) };
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

/// Every scope that a run's attempts fall in, with what has gone of it. Scopes that bind nothing are left out.
pub(crate) async fn ledgers(
    tx: &mut dyn Tx,
    run: &Run,
    phase: Option<&Phase>,
    config: &BudgetConfig,
    now: Timestamp,
) -> Result<Vec<Ledger>, Error> {
    let day = budget::day_of(now);
    let of_phase = phase.map(|p| (Caps::from(&p.spec.limits).or(config.phase), SpentBy::Phase(&run.id, &p.id)));
    let scopes = [
        of_phase.map(|(caps, by)| (BudgetScope::Phase, caps, by)),
        // Files of a run are told apart by their names, elsewhere.
        Some((BudgetScope::Run, Caps { files: None, ..caps_of(run) }, SpentBy::Run(&run.id))),
        Some((BudgetScope::Project, config.project, SpentBy::Project(&run.project))),
        Some((BudgetScope::Day, config.day, SpentBy::Day(&run.project, day))),
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

/// The hit that a builder met in mid-attempt, if a budget wider than its own attempt was it.
pub(crate) async fn hit_of(
    tx: &mut dyn Tx,
    run: &Run,
    phase: &Phase,
    spend: &Spend,
    config: &BudgetConfig,
) -> Result<Option<Hit>, Error> {
    let Some(bound) = spend.wider() else { return Ok(None) };
    let now = tx.now();
    let found = ledgers(tx, run, Some(phase), config, now).await?.into_iter().find(|l| l.scope == bound.scope);
    let used = found.map_or(0, |l| l.spent.settled.get(bound.unit).saturating_add(l.spent.reserved.get(bound.unit)));
    let until = (bound.scope == BudgetScope::Day).then(|| budget::next_day(now));
    Ok(Some(Hit { scope: bound.scope, unit: bound.unit, limit: bound.limit, used, until }))
}

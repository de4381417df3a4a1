//! Builders that are left alone, and credentials that rest: whether a phase may start with them, and what its result
//! says of them.

use std::collections::{BTreeMap, BTreeSet};

use autopack_shared::domain::breaker::{
    self, Breaker, BreakerConfig, BreakerState, Credential, Pass, Word, builder_key, credential_name,
};
use autopack_shared::domain::ids::{ProjectId, RunId, Timestamp};
use autopack_shared::domain::record::{Phase, Run};
use autopack_shared::domain::run_file::BuilderSpec;

use super::budget::Batch;
use super::{Denial, Director, moves, system};
use crate::error::Error;
use crate::store::Tx;

/// Why a phase has to wait, and until when.
type Refusal = (Denial, Option<Timestamp>);

/// What a result says of its builder's surroundings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard<'a> {
    /// What its end says.
    pub(crate) word: Word,
    /// The stable reason of a failure.
    pub(crate) reason: &'a str,
    /// The credential that was used, by the worker's word.
    pub(crate) credential: &'a str,
    /// How long the provider asked to wait, in milliseconds; 0 where it did not say.
    pub(crate) retry_after_ms: u64,
}

/// Breakers and credentials of those that are let in together, read once.
#[derive(Debug, Default)]
pub(super) struct Governors {
    breakers: Option<BTreeMap<String, Breaker>>,
    credentials: BTreeMap<String, Option<Credential>>,
    /// Attempts that use each.
    uses: BTreeMap<String, u64>,
    /// Runs that have a lease.
    at_work: Option<BTreeSet<RunId>>,
}

impl Governors {
    async fn breakers(
        &mut self,
        tx: &mut dyn Tx,
        project: &ProjectId,
    ) -> Result<&mut BTreeMap<String, Breaker>, Error> {
        if self.breakers.is_none() {
            let all = tx.breakers(project).await?;
            self.breakers = Some(all.into_iter().map(|breaker| (breaker.builder.clone(), breaker)).collect());
        }
        Ok(self.breakers.get_or_insert_default())
    }

    async fn works(&mut self, tx: &mut dyn Tx, project: &ProjectId, run: &RunId) -> Result<bool, Error> {
        if self.at_work.is_none() {
            let leases = tx.active_leases(Some(project)).await?;
            self.at_work = Some(leases.into_iter().map(|lease| lease.run).collect());
        }
        Ok(self.at_work.as_ref().is_some_and(|runs| runs.contains(run)))
    }

    async fn credential(&mut self, tx: &mut dyn Tx, name: &str) -> Result<Option<Credential>, Error> {
        if !self.credentials.contains_key(name) {
            let found = tx.credential(name).await?;
            self.credentials.insert(name.to_owned(), found);
        }
        Ok(self.credentials.get(name).cloned().flatten())
    }

    async fn uses(&mut self, tx: &mut dyn Tx, name: &str) -> Result<u64, Error> {
        if !self.uses.contains_key(name) {
            let uses = tx.credential_uses(name).await?;
            self.uses.insert(name.to_owned(), uses);
        }
        Ok(self.uses.get(name).copied().unwrap_or(0))
    }

    /// Holds what a grant of these builders may change or count: breakers before credentials, each by name, which is the
    /// order of everybody, so that nobody waits for another in a circle.
    pub(super) async fn hold(
        &mut self,
        tx: &mut dyn Tx,
        project: &ProjectId,
        builders: BTreeSet<String>,
    ) -> Result<(), Error> {
        self.breakers(tx, project).await?;
        let mut names = BTreeSet::new();
        for key in builders {
            let breakers = self.breakers(tx, project).await?;
            let Some(known) = breakers.get_mut(&key) else { continue };
            if known.state != BreakerState::Closed {
                *known = tx.lock_breaker(project, &key).await?;
            }
            names.extend(known.credential.clone());
        }
        for name in names {
            let held = tx.lock_credential(&name).await?;
            self.credentials.insert(name, Some(held));
        }
        Ok(())
    }
}

impl Director {
    /// Whether a phase's builder and its credential may be used now; the credential, where one is known. A builder that
    /// may be tried again is this run's from now on; whoever grants holds all of them.
    pub(super) async fn fit(
        &self,
        tx: &mut dyn Tx,
        run: &Run,
        phase: &Phase,
        batch: &mut Batch,
    ) -> Result<Result<Option<String>, Refusal>, Error> {
        let (project, key) = (&run.project, builder_key(&phase.spec.builder));
        let found = batch.governors.breakers(tx, project).await?.get(&key).cloned();
        let Some(mut known) = found else { return Ok(Ok(None)) };
        if known.state != BreakerState::Closed {
            let now = tx.now();
            let probing = match known.probe.as_ref().filter(|probe| **probe != run.id) {
                Some(probe) => batch.governors.works(tx, project, probe).await?,
                None => false,
            };
            match known.pass(now, probing) {
                Pass::Free => {}
                // Another one of its batch is the one that tries.
                Pass::Probe if batch.tries(&key) => return Ok(Err(refused(&known, now))),
                Pass::Probe if batch.writes() => {
                    let before = known.state;
                    known.try_with(&run.id);
                    tx.update_breaker(&mut known).await?;
                    batch.governors.breakers(tx, project).await?.insert(key, known.clone());
                    moves::breaker(tx, &known, before, &system()).await?;
                }
                Pass::Probe => {}
                Pass::Refused => return Ok(Err(refused(&known, now))),
            }
        }
        let Some(name) = known.credential else { return Ok(Ok(None)) };
        let now = tx.now();
        let found = batch.governors.credential(tx, &name).await?;
        if let Some(until) = found.and_then(|credential| credential.rests(now)) {
            return Ok(Err((cooling(&name, until), Some(until))));
        }
        let most = u64::from(self.config.governing.breakers.credential_uses.max(1));
        let uses = batch.governors.uses(tx, &name).await?.saturating_add(batch.uses(&name));
        if uses >= most {
            let what = format!("{uses} attempts use the credential {name}, and {most} may");
            return Ok(Err((Denial::new("credential_busy", &what, "the end of one of them"), None)));
        }
        Ok(Ok(Some(name)))
    }
}

fn cooling(credential: &str, until: Timestamp) -> Denial {
    let what = format!("its provider told the credential {credential} to wait until {until}");
    Denial { until: Some(until), ..Denial::new("credential_cooling", &what, "the end of that time") }
}

/// Until when a phase's builder or its credential is left alone, and why, by what is stored.
pub(crate) async fn rests(
    tx: &mut dyn Tx,
    project: &ProjectId,
    spec: &BuilderSpec,
) -> Result<Option<(Timestamp, String)>, Error> {
    let now = tx.now();
    let Some(known) = tx.breaker(project, &builder_key(spec)).await? else { return Ok(None) };
    if known.pass(now, true) == Pass::Refused
        && let Some(until) = known.probes_at.filter(|at| *at > now)
    {
        return Ok(Some((until, refused(&known, now).0.what)));
    }
    let Some(name) = known.credential else { return Ok(None) };
    let until = tx.credential(&name).await?.and_then(|credential| credential.rests(now));
    Ok(until.map(|until| (until, cooling(&name, until).what)))
}

fn refused(breaker: &breaker::Breaker, now: Timestamp) -> Refusal {
    let at = |instant: Option<Timestamp>| instant.map_or_else(|| "now".to_owned(), |instant| instant.to_string());
    let next = match (&breaker.probe, breaker.state) {
        (Some(run), BreakerState::HalfOpen) => format!("{run} tries it now"),
        (Some(_) | None, _) => format!("it is tried again at {}", at(breaker.probes_at)),
    };
    let what = format!(
        "{} failed {} times in a row ({}) and is left alone since {}; {next}",
        breaker.builder,
        breaker.failures,
        breaker.reason.as_deref().unwrap_or("no reason"),
        at(breaker.opened_at),
    );
    let remedy = format!("an attempt that succeeds, or autopack builders reset {} --reason WHY", breaker.builder);
    let wake = breaker.probes_at.filter(|at| *at > now);
    (Denial { until: wake, ..Denial::new("builder_breaker_open", &what, &remedy) }, wake)
}

/// Takes in what a result says of its builder's surroundings and of its credential.
pub(crate) async fn heard(
    tx: &mut dyn Tx,
    phase: &Phase,
    project: &ProjectId,
    heard: Heard<'_>,
    config: &BreakerConfig,
) -> Result<(), Error> {
    let (key, now) = (builder_key(&phase.spec.builder), tx.now());
    let named = credential_name(heard.credential);
    // A provider says how long to wait with other answers too than that there were too many questions.
    let limited = heard.word == Word::Limited || heard.retry_after_ms > 0;
    let known = tx.breaker(project, &key).await?;
    let quiet = known.as_ref().is_none_or(|b| b.failures == 0 && b.state == BreakerState::Closed);
    let new_name = named.is_some() && known.as_ref().is_none_or(|b| b.credential.as_deref() != named);
    let credential = named.map(str::to_owned).or_else(|| known.and_then(|b| b.credential));
    if heard.word == Word::Trouble || new_name || !quiet {
        let mut breaker = tx.lock_breaker(project, &key).await?;
        let before = breaker.state;
        match heard.word {
            Word::Trouble => breaker.failed(&phase.run, heard.reason, now, config),
            // Neither an answer nor a failure, but the one that tried has ended.
            Word::Limited | Word::Nothing => breaker.untried(&phase.run),
            Word::Answer => breaker.close(),
        }
        breaker.credential.clone_from(&credential);
        tx.update_breaker(&mut breaker).await?;
        moves::breaker(tx, &breaker, before, &system()).await?;
        if breaker.state == BreakerState::Open && breaker.opened_at == Some(now) {
            tracing::warn!(%project, builder = key, failures = breaker.failures, "a builder is left alone for a while");
        }
    }
    let Some(name) = credential else { return Ok(()) };
    let stored = tx.credential(&name).await?;
    let eases = heard.word == Word::Answer && stored.is_some_and(|mut c| c.answered(now));
    if limited || eases {
        let mut credential = tx.lock_credential(&name).await?;
        if limited {
            let seconds = i64::try_from(heard.retry_after_ms.div_ceil(1000)).unwrap_or(i64::MAX);
            credential.limited((seconds > 0).then_some(seconds), now);
        } else {
            credential.answered(now);
        }
        tx.update_credential(&mut credential).await?;
        if limited {
            moves::credential(tx, &phase.run, &credential).await?;
        }
    }
    Ok(())
}

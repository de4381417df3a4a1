//! Builders that are left alone, and credentials that rest: whether a phase may start with them, and what its result
//! says of them.

use autopack_shared::domain::breaker::{
    self, BreakerConfig, BreakerState, Pass, builder_key, credential_name, is_of_surroundings,
};
use autopack_shared::domain::ids::{ProjectId, Timestamp};
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
    /// The stable reason of a failure; none for an answer.
    pub(crate) reason: Option<&'a str>,
    /// The credential that was used, by the worker's word.
    pub(crate) credential: &'a str,
    /// How long the provider asked to wait, in milliseconds; 0 where it did not say.
    pub(crate) retry_after_ms: u64,
}

impl Director {
    /// Whether a phase's builder and its credential may be used now; the credential, where one is known. A builder that
    /// may be tried again is held by this run from now on.
    pub(super) async fn fit(
        &self,
        tx: &mut dyn Tx,
        run: &Run,
        phase: &Phase,
        batch: &Batch,
    ) -> Result<Result<Option<String>, Refusal>, Error> {
        let (project, key) = (&run.project, builder_key(&phase.spec.builder));
        let Some(mut known) = tx.breaker(project, &key).await? else { return Ok(Ok(None)) };
        if known.state != BreakerState::Closed {
            if batch.writes() {
                known = tx.lock_breaker(project, &key).await?;
            }
            let now = tx.now();
            let probing = match known.probe.as_ref().filter(|probe| **probe != run.id) {
                Some(probe) => tx.active_leases(Some(project)).await?.iter().any(|lease| lease.run == *probe),
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
                    moves::breaker(tx, &known, before, &system()).await?;
                }
                Pass::Probe => {}
                Pass::Refused => return Ok(Err(refused(&known, now))),
            }
        }
        let Some(name) = known.credential else { return Ok(Ok(None)) };
        let now = tx.now();
        let found = if batch.writes() { Some(tx.lock_credential(&name).await?) } else { tx.credential(&name).await? };
        if let Some(until) = found.and_then(|credential| credential.rests(now)) {
            return Ok(Err((cooling(&name, until), Some(until))));
        }
        let most = u64::from(self.config.governing.breakers.credential_uses.max(1));
        let uses = tx.credential_uses(&name).await?.saturating_add(batch.uses(&name));
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
    let limited = heard.reason == Some("provider_rate_limited");
    let bad = heard.reason.filter(|reason| is_of_surroundings(reason));
    let known = tx.breaker(project, &key).await?;
    let quiet = known.as_ref().is_none_or(|b| b.failures == 0 && b.state == BreakerState::Closed);
    let new_name = named.is_some() && known.as_ref().is_none_or(|b| b.credential.as_deref() != named);
    let credential = named.map(str::to_owned).or_else(|| known.and_then(|b| b.credential));
    if bad.is_some() || new_name || !quiet {
        let mut breaker = tx.lock_breaker(project, &key).await?;
        let before = breaker.state;
        match bad {
            Some(reason) => breaker.failed(&phase.run, reason, now, config),
            // Being told to wait is neither an answer nor a failure, but the one that tried has ended.
            None if limited && breaker.state == BreakerState::HalfOpen => breaker.probe = None,
            None if limited => {}
            None => breaker.close(),
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
    let eases = bad.is_none() && stored.is_some_and(|mut c| c.answered(now));
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

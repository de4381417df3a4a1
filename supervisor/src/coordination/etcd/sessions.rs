//! Worker sessions: a key on a lease of its own, kept alive by whichever replica the worker talks to. Nothing of them is
//! remembered here: each call looks at the key, so that a replica can go on where another one ended.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};

use autopack_shared::domain::ids::{Timestamp, WorkerId};

use super::EtcdCoordinator;
use super::keys::{DirectorValue, SupervisorValue, WorkerValue, parsed, written};
use super::link::found;
use crate::coordination::{CoordinationError, Life, Renewal, SeatEntry, Seated, SessionEntry, SessionFacts};

/// How often a call looks again when somebody else was quicker.
const ROUNDS: usize = 4;

/// A session as it stands in etcd.
pub(super) struct Live {
    pub(super) kv: KeyValue,
    pub(super) value: WorkerValue,
}

impl EtcdCoordinator {
    /// The session of a worker, whichever it is.
    pub(super) async fn live(&self, worker: &WorkerId) -> Result<Option<Live>, CoordinationError> {
        let key = self.keys.worker(worker);
        let Some(kv) = self.link.get(&key).await? else { return Ok(None) };
        let value = parsed(&key, kv.value())?;
        Ok(Some(Live { kv, value }))
    }

    /// The session of a worker, if it is this one.
    async fn live_as(&self, worker: &WorkerId, session: &str) -> Result<Option<Live>, CoordinationError> {
        Ok(self.live(worker).await?.filter(|live| live.value.session_uuid == session))
    }

    pub(super) async fn open(
        &self,
        worker: &WorkerId,
        session: &str,
        facts: &SessionFacts,
    ) -> Result<(), CoordinationError> {
        for _ in 0..ROUNDS {
            let done = match self.live(worker).await? {
                Some(live) if live.value.session_uuid == session => self.adopt(worker, live, facts).await?,
                Some(live) => {
                    let holder = format!("session {} via {}", live.value.session_uuid, live.value.via_replica);
                    return Err(CoordinationError::Held { lock: format!("worker {worker}"), holder });
                }
                None => self.begin(worker, session, facts).await?,
            };
            if done {
                return Ok(());
            }
        }
        Err(CoordinationError::Unavailable(format!("the session of worker {worker} keeps changing")))
    }

    /// Makes the key on a new lease; false when somebody else just did.
    async fn begin(&self, worker: &WorkerId, session: &str, facts: &SessionFacts) -> Result<bool, CoordinationError> {
        let key = self.keys.worker(worker);
        let value = written(&key, &self.value(session, facts, self.clock.wall(), false))?;
        let lease = self.link.grant(self.timers.session_ttl).await?;
        let free = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let txn = Txn::new()
            .when([free, self.incarnation.guard()])
            .and_then([TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(lease)))])
            .or_else([TxnOp::get(key.as_str(), None), TxnOp::get(self.incarnation.key(), None)]);
        let answer = self.link.txn(txn).await?;
        if answer.succeeded() {
            return Ok(true);
        }
        let [taken, stands] = <[_; 2]>::try_from(found(&answer)).unwrap_or([None, None]);
        if taken.is_some_and(|kv| kv.lease() == lease) {
            // An answer was lost on its way.
            return Ok(true);
        }
        self.link.revoke(lease).await?;
        self.incarnation.check(&self.link, stands.as_ref())?;
        Ok(false)
    }

    /// Goes on with a session that is alive: the same lease, so its locks stay. False when it changed meanwhile.
    async fn adopt(&self, worker: &WorkerId, live: Live, facts: &SessionFacts) -> Result<bool, CoordinationError> {
        // First the lease, so that it does not end while we take it.
        if !self.link.keep_alive(live.kv.lease()).await? {
            return Ok(false);
        }
        let key = self.keys.worker(worker);
        let since = Timestamp::from_millis(live.value.since);
        let value = written(&key, &self.value(&live.value.session_uuid, facts, since, live.value.draining))?;
        let put = TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(live.kv.lease())));
        let txn = Txn::new().when([unchanged(&key, &live.kv), self.incarnation.guard()]).and_then([put]);
        let answer = self.link.txn(txn.or_else([TxnOp::get(self.incarnation.key(), None)])).await?;
        if !answer.succeeded() {
            self.incarnation.check(&self.link, found(&answer).pop().flatten().as_ref())?;
        }
        Ok(answer.succeeded())
    }

    fn value(&self, session: &str, facts: &SessionFacts, since: Timestamp, draining: bool) -> WorkerValue {
        WorkerValue {
            session_uuid: session.to_owned(),
            host: facts.host.clone(),
            boot_id: facts.boot_id.clone(),
            slots: facts.slots,
            sandbox_level: facts.sandbox_level.clone(),
            sandbox_report: facts.sandbox_report.clone(),
            quarantine: facts.quarantine.clone(),
            via_replica: self.replica.id.clone(),
            since: since.as_millis(),
            draining,
        }
    }

    /// Writes into a session whether it gets no more work; false when it is gone.
    pub(super) async fn mark(
        &self,
        worker: &WorkerId,
        session: &str,
        draining: bool,
    ) -> Result<bool, CoordinationError> {
        let key = self.keys.worker(worker);
        for _ in 0..ROUNDS {
            let Some(live) = self.live_as(worker, session).await? else { return Ok(false) };
            if live.value.draining == draining {
                return Ok(true);
            }
            let value = written(&key, &WorkerValue { draining, ..live.value })?;
            let put = TxnOp::put(key.as_str(), value, Some(PutOptions::new().with_lease(live.kv.lease())));
            let txn = Txn::new().when([unchanged(&key, &live.kv), self.incarnation.guard()]).and_then([put]);
            let answer = self.link.txn(txn.or_else([TxnOp::get(self.incarnation.key(), None)])).await?;
            if answer.succeeded() {
                return Ok(true);
            }
            self.incarnation.check(&self.link, found(&answer).pop().flatten().as_ref())?;
        }
        Err(CoordinationError::Unavailable(format!("the session of worker {worker} keeps changing")))
    }

    /// Who directs, as its key says.
    pub(super) async fn seat(&self) -> Result<Option<SeatEntry>, CoordinationError> {
        let (key, here) = (self.keys.director(), self.keys.supervisors());
        let Some(kv) = self.link.get(&key).await? else { return Ok(None) };
        let DirectorValue { replica_id: replica, addr, .. } = parsed(&key, kv.value())?;
        // The seat itself does not say since when; what its supervisor said when it got its lease is close.
        let since = self.link.get(&format!("{here}{replica}")).await?.filter(|of| of.lease() == kv.lease());
        let started = since.and_then(|kv| parsed::<SupervisorValue>(&here, kv.value()).ok()).map(|value| value.started);
        let started = started.unwrap_or_else(|| self.clock.wall().as_millis());
        Ok(self.life(kv.lease(), started).await?.map(|life| SeatEntry { replica, addr, life }))
    }

    /// Renews the lease. An etcd that does not answer is an error and no end: a worker outlives that.
    pub(super) async fn renew(&self, worker: &WorkerId, session: &str) -> Result<Renewal, CoordinationError> {
        let key = self.keys.worker(worker);
        let Some(kv) = self.renewals.get(key.clone()).await? else { return Ok(Renewal::Gone) };
        let WorkerValue { session_uuid, draining, .. } = parsed(&key, kv.value())?;
        if session_uuid != session || !self.link.keep_alive(kv.lease()).await? {
            return Ok(Renewal::Gone);
        }
        Ok(Renewal::Kept { draining })
    }

    /// Ends a session, unless another replica took it over.
    pub(super) async fn close(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError> {
        for _ in 0..ROUNDS {
            let Some(live) = self.live_as(worker, session).await? else { return Ok(()) };
            if live.value.via_replica != self.replica.id {
                return Ok(());
            }
            let key = self.keys.worker(worker);
            // First the key, guarded: who adopts it at this moment is either before us or finds nothing. Then its locks.
            let txn = Txn::new().when([unchanged(&key, &live.kv)]).and_then([TxnOp::delete(key.as_str(), None)]);
            if self.link.txn(txn).await?.succeeded() {
                return self.link.revoke(live.kv.lease()).await;
            }
        }
        Err(CoordinationError::Unavailable(format!("the session of worker {worker} keeps changing")))
    }

    pub(super) async fn alive(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError> {
        Ok(self.live_as(worker, session).await?.is_some())
    }

    pub(super) async fn list_sessions(&self) -> Result<Vec<SessionEntry>, CoordinationError> {
        let prefix = self.keys.workers();
        let mut all = Vec::new();
        for kv in self.link.list(&prefix).await? {
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            let Some(Ok(worker)) = key.strip_prefix(&prefix).map(str::parse) else { continue };
            let value: WorkerValue = parsed(&key, kv.value())?;
            let Some(life) = self.life(kv.lease(), value.since).await? else { continue };
            let WorkerValue { session_uuid: session, via_replica: holder, draining, .. } = value;
            let WorkerValue { host, boot_id, slots, sandbox_level, sandbox_report, quarantine, .. } = value;
            let facts = SessionFacts { host, boot_id, slots, sandbox_level, sandbox_report, quarantine };
            all.push(SessionEntry { worker, session, facts, holder, draining, life });
        }
        Ok(all)
    }

    /// The live sessions, by their keys alone.
    pub(super) async fn list_seats(&self) -> Result<Vec<Seated>, CoordinationError> {
        let prefix = self.keys.workers();
        let mut all = Vec::new();
        for kv in self.link.list(&prefix).await? {
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            let Some(Ok(worker)) = key.strip_prefix(&prefix).map(str::parse) else { continue };
            let value: WorkerValue = parsed(&key, kv.value())?;
            let WorkerValue { session_uuid: session, slots, draining, sandbox_level, quarantine, .. } = value;
            all.push(Seated { worker, session, slots, draining, sandbox_level, quarantine });
        }
        Ok(all)
    }

    pub(super) async fn life_of(&self, worker: &WorkerId, session: &str) -> Result<Option<Life>, CoordinationError> {
        let Some(live) = self.live_as(worker, session).await? else { return Ok(None) };
        self.life(live.kv.lease(), live.value.since).await
    }

    /// How long what hangs on a lease lives; none when it just ended.
    pub(super) async fn life(&self, lease: i64, since: i64) -> Result<Option<Life>, CoordinationError> {
        let millis = self.clock.wall().millis_since(Timestamp::from_millis(since));
        let age = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        let left = self.link.time_to_live(lease).await?;
        Ok(left.map(|(ttl, remaining)| Life { age, ttl: Some(ttl), remaining: Some(remaining) }))
    }
}

/// The guard of a change to a key that was read.
fn unchanged(key: &str, kv: &KeyValue) -> Compare {
    Compare::mod_revision(key, CompareOp::Equal, kv.mod_revision())
}

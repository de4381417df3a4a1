//! Locks of runs and workspaces: keys on the lease of the worker session that holds them, so that they end with it.
//! All that a call takes is taken in one transaction.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};

use super::EtcdCoordinator;
use super::keys::{LockValue, WorkerValue, parsed, written};
use crate::coordination::{CoordinationError, LockEntry, LockName, LockOwner};

/// How often a call looks again when somebody else was quicker.
const ROUNDS: usize = 4;

/// A part of a transaction that takes locks.
pub(super) struct Claim {
    pub(super) guards: Vec<Compare>,
    pub(super) puts: Vec<TxnOp>,
}

impl EtcdCoordinator {
    pub(super) async fn take(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        // A name given twice is taken once, and refusals name the first in the order they were asked for.
        let mut seen = BTreeSet::new();
        let names: Vec<&LockName> = names.iter().filter(|name| seen.insert(*name)).collect();
        for _ in 0..ROUNDS {
            if self.try_take(&names, owner).await? {
                return Ok(());
            }
        }
        Err(CoordinationError::Unavailable("the locks keep changing hands".to_owned()))
    }

    /// One look and one transaction; false when something changed in between.
    async fn try_take(&self, names: &[&LockName], owner: &LockOwner) -> Result<bool, CoordinationError> {
        let mut keys = vec![self.keys.worker(&owner.worker), self.incarnation.key().to_owned()];
        keys.extend(names.iter().map(|name| self.keys.lock(name)));
        let (_, mut found) = self.link.read(&keys).await?;
        let held = found.split_off(2.min(found.len()));
        let [session, stands] = <[_; 2]>::try_from(found).unwrap_or([None, None]);
        self.incarnation.check(&self.link, stands.as_ref())?;
        let Claim { mut guards, puts } = self.claim(names, owner, session.as_ref(), &held)?;
        guards.push(self.incarnation.guard());
        Ok(self.link.txn(Txn::new().when(guards).and_then(puts)).await?.succeeded())
    }

    /// What has to hold, and what is then written, for locks to be taken, by what was read of the session and of each.
    pub(super) fn claim(
        &self,
        names: &[&LockName],
        owner: &LockOwner,
        session: Option<&KeyValue>,
        held: &[Option<KeyValue>],
    ) -> Result<Claim, CoordinationError> {
        let worker = self.keys.worker(&owner.worker);
        let gone = || {
            let gone = format!("session {} of worker {} is gone", owner.session, owner.worker);
            CoordinationError::Unavailable(gone)
        };
        let session = session.ok_or_else(gone)?;
        if parsed::<WorkerValue>(&worker, session.value())?.session_uuid != owner.session {
            return Err(gone());
        }
        let created = |key: &str, revision| Compare::create_revision(key, CompareOp::Equal, revision);
        let mut guards = vec![created(&worker, session.create_revision())];
        let mut puts = Vec::new();
        for (name, held) in names.iter().zip(held) {
            let key = self.keys.lock(name);
            guards.push(created(&key, held.as_ref().map_or(0, KeyValue::create_revision)));
            match held {
                Some(kv) => {
                    let holder = parsed::<LockValue>(&key, kv.value())?.owner();
                    if holder != *owner {
                        return Err(CoordinationError::Held { lock: name.to_string(), holder: holder.shown() });
                    }
                }
                None => {
                    let value = written(&key, &self.lock_value(name, owner))?;
                    let on_session = PutOptions::new().with_lease(session.lease());
                    puts.push(TxnOp::put(key, value, Some(on_session)));
                }
            }
        }
        Ok(Claim { guards, puts })
    }

    fn lock_value(&self, name: &LockName, owner: &LockOwner) -> LockValue {
        let (LockName::Run(run) | LockName::Workspace(run)) = name;
        LockValue {
            run_id: run.clone(),
            worker_id: owner.worker.clone(),
            session_uuid: owner.session.clone(),
            epoch: owner.epoch,
            since: self.clock.wall().as_millis(),
        }
    }

    pub(super) async fn give_back(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        for name in names {
            let Some((kv, value)) = self.lock_of(name).await? else { continue };
            if value.owner() == *owner {
                // False: it ended in between, and whoever has it now keeps it.
                self.link.delete(&self.keys.lock(name), kv.create_revision()).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn lock_of(&self, name: &LockName) -> Result<Option<(KeyValue, LockValue)>, CoordinationError> {
        let key = self.keys.lock(name);
        let Some(kv) = self.link.get(&key).await? else { return Ok(None) };
        let value = parsed(&key, kv.value())?;
        Ok(Some((kv, value)))
    }

    pub(super) async fn take_away(
        &self,
        name: &LockName,
        reason: &str,
    ) -> Result<Option<LockOwner>, CoordinationError> {
        let Some((kv, value)) = self.lock_of(name).await? else { return Ok(None) };
        let owner = value.owner();
        if !self.link.delete(&self.keys.lock(name), kv.create_revision()).await? {
            return Ok(None);
        }
        tracing::warn!(lock = %name, holder = owner.shown(), reason, "a lock was broken");
        Ok(Some(owner))
    }

    pub(super) async fn list_lock_names(&self) -> Result<Vec<LockName>, CoordinationError> {
        let mut all = Vec::new();
        for (kind, of) in [("run", LockName::Run as fn(_) -> _), ("ws", LockName::Workspace)] {
            let prefix = self.keys.locks(kind);
            let run = |key: &[u8]| String::from_utf8_lossy(key).strip_prefix(&prefix)?.parse().ok();
            all.extend(self.link.list_keys(&prefix).await?.iter().filter_map(|kv| run(kv.key())).map(of));
        }
        Ok(all)
    }

    pub(super) async fn list_locks(&self) -> Result<Vec<LockEntry>, CoordinationError> {
        let mut all = Vec::new();
        for (kind, of) in [("run", LockName::Run as fn(_) -> _), ("ws", LockName::Workspace)] {
            for kv in self.link.list(&self.keys.locks(kind)).await? {
                let value: LockValue = parsed(&String::from_utf8_lossy(kv.key()), kv.value())?;
                let Some(life) = self.life(kv.lease(), value.since).await? else { continue };
                all.push(LockEntry { owner: value.owner(), name: of(value.run_id), life });
            }
        }
        Ok(all)
    }
}

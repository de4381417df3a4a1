//! What operators do to those who work: break a lease, drain a worker. Both are in the audit log before they happen.

use std::collections::BTreeMap;

use autopack_shared::domain::audit::AuditDraft;
use autopack_shared::domain::ids::{Digest, RowId, RunId, WorkerId};
use autopack_shared::domain::record::{Command, CommandOp, Lease, Principal};
use autopack_shared::wire::pb;

use super::AdminApi;
use crate::api::runs::record_command;
use crate::api::{Core, show};
use crate::coordination::Coordinator;
use crate::director::lease::granted_since;
use crate::director::locks::names;
use crate::error::Error;
use crate::store::Tx;
use crate::workers::WorkerOrder;

/// Characters of a reason that are kept.
const MAX_REASON: usize = 500;

/// The name of the call in the store of answers.
const BREAK: &str = "BreakLease";

/// The chain that tells of workers.
pub(super) const CHAIN: &str = "cluster";

pub(super) fn reason_of(text: &str) -> String {
    text.trim().chars().take(MAX_REASON).collect()
}

impl Core {
    /// Records that a run's lease is to be broken; the director does it, under its fence.
    pub(super) async fn break_lease(
        &self,
        coordinator: &dyn Coordinator,
        call: pb::BreakLeaseRequest,
        principal: Principal,
    ) -> Result<pb::BreakLeaseResponse, Error> {
        let reason = reason_of(&call.reason);
        if reason.is_empty() {
            let why = "say why: it is kept in the audit log".to_owned();
            return Err(Error::Invalid { field: "reason".to_owned(), why });
        }
        let seen = call.epoch.map(|epoch| format!("{epoch}|")).unwrap_or_default();
        let asked = Digest::of(format!("{}|{seen}{reason}", call.run_id).as_bytes());
        // Asked before the transaction: a service that is slow must not hold rows of the store. Only where there is no
        // lease does the answer count, and a service that is away is no reason to refuse where there is one.
        let locked = locked(coordinator, &RunId::new(call.run_id.clone())?).await;
        let mut tx = self.store.tx(&[]).await?;
        let run = self.run(tx.as_mut(), &call.run_id).await?;
        if let Some((before, answer)) = self.idem(tx.as_mut(), &call.idempotency_key, &principal, BREAK).await? {
            if before != asked {
                let hint = "use a fresh key for another call";
                return Err(Error::Exists { what: "idempotency key", id: call.idempotency_key, hint });
            }
            return again(tx.as_mut(), &run.id, &answer).await;
        }
        let open = open_lease(tx.as_mut(), &run.id).await?;
        if open.is_none() && !locked? {
            return Err(Error::State {
                what: "run",
                id: run.id.to_string(),
                state: run.state.as_str().to_uppercase(),
                why: "it has no open lease, and nobody holds its locks".to_owned(),
                reason: "no_lease",
            });
        }
        if let (Some(lease), Some(seen)) = (&open, call.epoch) {
            same_lease(lease, seen)?;
        }
        // Without a word of what was seen, it is what is open now.
        let epoch = Some(call.epoch.unwrap_or_else(|| open.as_ref().map_or(0, |lease| lease.epoch)));
        let command = Command {
            id: RowId::new(self.ids.fresh("cmd"))?,
            run: run.id.clone(),
            op: CommandOp::BreakLease { reason, epoch },
            principal,
            created_at: tx.now(),
            done_at: None,
            result: None,
        };
        tx.insert_command(&command).await?;
        record_command(tx.as_mut(), &command).await?;
        let lease = open.as_ref().map(|lease| lease.id.to_string()).unwrap_or_default();
        if !call.idempotency_key.is_empty() {
            let answer = format!("{} {lease}", command.id);
            tx.put_idem(&call.idempotency_key, &command.principal.id, BREAK, asked, answer.as_bytes()).await?;
        }
        tx.commit().await?;
        let command_id = command.id.to_string();
        Ok(pb::BreakLeaseResponse { command_id, lease: open.as_ref().map(show::lease), result: String::new() })
    }
}

/// Refuses a lease that is not the one that somebody saw.
fn same_lease(lease: &Lease, seen: u64) -> Result<(), Error> {
    if lease.epoch == seen {
        return Ok(());
    }
    Err(Error::State {
        what: "lease of",
        id: lease.run.to_string(),
        state: lease.state.as_str().to_uppercase(),
        why: granted_since(lease, seen),
        reason: "lease_moved",
    })
}

/// The answer that was given before, with the lease as it is now and what became of the command.
async fn again(tx: &mut dyn Tx, run: &RunId, answer: &[u8]) -> Result<pb::BreakLeaseResponse, Error> {
    let answer = String::from_utf8_lossy(answer);
    let (command, lease) = answer.split_once(' ').unwrap_or((&answer, ""));
    let lease = tx.leases(run).await?.into_iter().find(|one| one.id.as_str() == lease);
    let done = tx.command(&RowId::new(command)?).await?.and_then(|command| command.result);
    let (command_id, result) = (command.to_owned(), done.unwrap_or_default());
    Ok(pb::BreakLeaseResponse { command_id, lease: lease.as_ref().map(show::lease), result })
}

async fn open_lease(tx: &mut dyn Tx, run: &RunId) -> Result<Option<Lease>, Error> {
    Ok(tx.leases(run).await?.into_iter().find(|lease| !lease.state.is_terminal()))
}

async fn locked(coordinator: &dyn Coordinator, run: &RunId) -> Result<bool, Error> {
    for name in names(run) {
        if coordinator.holder(&name).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl AdminApi {
    /// Marks a worker's session, so that nothing more is granted to it; whoever serves it tells it so.
    pub(super) async fn drain(&self, call: pb::DrainWorkerRequest, principal: Principal) -> Result<pb::Worker, Error> {
        let worker = WorkerId::new(call.worker_id.clone())?;
        let gone = || Error::NotFound { what: "connected worker", id: worker.to_string() };
        let found = self.coordinator.sessions().await?.into_iter().find(|session| session.worker == worker);
        let mut session = found.ok_or_else(gone)?;
        let word = if call.undo { "worker.undrain" } else { "worker.drain" };
        let mut tx = self.cores.store().tx(&[]).await?;
        tx.append_audit(AuditDraft {
            chain: CHAIN.to_owned(),
            actor: principal,
            op: word.to_owned(),
            object_type: "worker".to_owned(),
            object_id: worker.to_string(),
            before: None,
            after: None,
            fence: None,
            digests: BTreeMap::new(),
            reason: reason_of(&call.reason),
            request: BTreeMap::new(),
        })
        .await?;
        tx.commit().await?;
        if !self.coordinator.drain(&worker, &session.session, !call.undo).await? {
            return Err(gone());
        }
        session.draining = !call.undo;
        // Another supervisor that serves it finds the mark at its next heartbeat.
        let _told = self.workers.send(&worker, WorkerOrder::Drain { undo: call.undo });
        self.workers.nudge();
        let leases = self.cores.store().read().await?.active_leases(None).await?;
        Ok(show::worker(&session, &leases))
    }
}

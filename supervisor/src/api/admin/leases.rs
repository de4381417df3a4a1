//! Leases as people look at them: what the store granted, joined with what liveness says of it now.

use autopack_shared::domain::ids::Timestamp;
use autopack_shared::domain::record::Lease;
use autopack_shared::wire::pb;

use crate::api::Core;
use crate::api::show::{self, ms};
use crate::coordination::{
    CoordinationError, Coordinator, Life, LockEntry, LockName, SUSPECT, SeatEntry, SessionEntry,
};
use crate::error::Error;
use crate::store::RunFilter;

/// What liveness says at one moment.
struct Liveness {
    director: Option<SeatEntry>,
    sessions: Vec<SessionEntry>,
    locks: Vec<LockEntry>,
}

impl Liveness {
    async fn now(coordinator: &dyn Coordinator) -> Result<Self, CoordinationError> {
        let (director, sessions) = (coordinator.director().await?, coordinator.sessions().await?);
        Ok(Self { director, sessions, locks: coordinator.locks().await? })
    }

    /// All that is held; of one run, only its locks.
    fn held(&self, run: &str) -> Vec<pb::Held> {
        let mut all = Vec::new();
        if run.is_empty() {
            all.extend(self.director.iter().map(|seat| held("director", &seat.replica, &seat.addr, 0, seat.life)));
            let session = |s: &SessionEntry| held("session", s.worker.as_str(), &s.holder, 0, s.life);
            all.extend(self.sessions.iter().map(session));
        }
        for lock in &self.locks {
            let (kind, name) = match &lock.name {
                LockName::Run(name) => ("run", name),
                LockName::Workspace(name) => ("workspace", name),
            };
            if run.is_empty() || run == name.as_str() {
                all.push(held(kind, name.as_str(), lock.owner.worker.as_str(), lock.owner.epoch, lock.life));
            }
        }
        all
    }

    /// Adds what is known of an open lease.
    fn add(&self, lease: &Lease, shown: &mut pb::Lease) {
        let name = LockName::Run(lease.run.clone());
        if let Some(lock) = self.locks.iter().find(|lock| lock.name == name) {
            shown.locked_by = format!("{} (epoch {})", lock.owner.worker, lock.owner.epoch);
        }
        match self.sessions.iter().find(|s| s.worker == lease.worker && s.session == lease.session) {
            Some(session) => {
                shown.ttl_ms = session.life.ttl.map_or(0, ms);
                shown.remaining_ms = session.life.remaining.map_or(0, ms);
                shown.suspect = session.life.is_suspect(SUSPECT);
            }
            None => shown.suspect = true,
        }
    }
}

fn held(kind: &str, name: &str, holder: &str, epoch: u64, life: Life) -> pb::Held {
    pb::Held {
        kind: kind.to_owned(),
        name: name.to_owned(),
        holder: holder.to_owned(),
        epoch,
        age_ms: ms(life.age),
        ttl_ms: life.ttl.map_or(0, ms),
        remaining_ms: life.remaining.map_or(0, ms),
        suspect: life.is_suspect(SUSPECT),
    }
}

/// Between two instants of the store.
fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.millis_since(from)).unwrap_or(0)
}

impl Core {
    /// Leases of the project, or of a run, and what is held. A service that is away leaves the store's side.
    pub(super) async fn leases(
        &self,
        coordinator: &dyn Coordinator,
        call: &pb::LeasesRequest,
    ) -> Result<pb::LeasesResponse, Error> {
        let mut tx = self.store.read().await?;
        let peak = tx.peak_leases(&self.project).await?;
        let mut leases = Vec::new();
        if call.run_id.is_empty() && !call.all {
            leases = tx.active_leases(Some(&self.project)).await?;
        } else if call.run_id.is_empty() {
            for run in tx.runs(&RunFilter { project: Some(self.project.clone()), ..RunFilter::default() }).await? {
                leases.extend(tx.leases(&run.id).await?);
            }
        } else {
            let run = self.run(tx.as_mut(), &call.run_id).await?;
            leases = tx.leases(&run.id).await?;
            leases.retain(|l| call.all || !l.state.is_terminal());
        }
        let now = tx.now();
        drop(tx);
        leases.sort_by_key(|l| l.granted_at);
        let (live, blind) = match Liveness::now(coordinator).await {
            Ok(live) => (Some(live), String::new()),
            Err(error) => (None, error.to_string()),
        };
        let mut shown = Vec::new();
        for lease in &leases {
            let mut one = show::lease(lease);
            one.age_ms = between(lease.granted_at, lease.ended_at.unwrap_or(now));
            if let (Some(live), false) = (&live, lease.state.is_terminal()) {
                live.add(lease, &mut one);
            }
            shown.push(one);
        }
        let held = live.map(|live| live.held(&call.run_id)).unwrap_or_default();
        Ok(pb::LeasesResponse { leases: shown, peak, held, blind })
    }
}

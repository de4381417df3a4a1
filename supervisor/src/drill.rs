//! State transitions and nothing else, for `autopack bench`: runs that an operator holds and lets go, each move with its
//! fence, its row, its line of the history and its record in the audit log, as the director makes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;

use autopack_shared::domain::ids::{Digest, Fence, Oid, ProjectId, RunId, Scope};
use autopack_shared::domain::record::{Principal, Run, RunKind};
use autopack_shared::domain::run_data::RunDataModel;
use autopack_shared::domain::run_file::{RunFile, RunLimits};
use autopack_shared::domain::state::{RunEvent, RunState};

use crate::director::moves;
use crate::error::Error;
use crate::store::Store;

/// Some runs of a store that nobody else uses.
pub struct Drill {
    store: Arc<dyn Store>,
    director: Fence,
    runs: Vec<RunId>,
}

impl std::fmt::Debug for Drill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drill").field("runs", &self.runs.len()).finish_non_exhaustive()
    }
}

impl Drill {
    /// Becomes the store's director, and adds so many runs.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn prepare(store: Arc<dyn Store>, runs: u32) -> Result<Self, Error> {
        let mut tx = store.tx(&[]).await?;
        let epoch = moves::bump(tx.as_mut(), &Scope::Director, "bench").await?;
        tx.commit().await?;
        let director = Fence { scope: Scope::Director, epoch };
        let mut names = Vec::new();
        for n in 0..runs {
            let mut tx = store.tx(std::slice::from_ref(&director)).await?;
            let mut run = run(RunId::new(format!("drill-{n}"))?, tx.now())?;
            tx.insert_run(&run).await?;
            moves::run(tx.as_mut(), &mut run, RunEvent::Validate, None, &Principal::system()).await?;
            tx.commit().await?;
            names.push(run.id);
        }
        Ok(Self { store, director, runs: names })
    }

    /// Moves the first `clients` of the runs, all at once, each `each` times.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn transitions(&self, clients: usize, each: u32) -> Result<(), Error> {
        let mut work = JoinSet::new();
        for name in self.runs.iter().take(clients) {
            let (store, director, name) = (self.store.clone(), self.director.clone(), name.clone());
            work.spawn(async move {
                for _ in 0..each {
                    toggle(store.as_ref(), &director, &name).await?;
                }
                Ok::<(), Error>(())
            });
        }
        while let Some(done) = work.join_next().await {
            done.map_err(|error| Error::Bug(format!("a drill ended early: {error}")))??;
        }
        Ok(())
    }
}

async fn toggle(store: &dyn Store, director: &Fence, name: &RunId) -> Result<(), Error> {
    let mut tx = store.turn(std::slice::from_ref(director), name, None).await?;
    let found = tx.gather(&[(name.clone(), None)]).await?.pop().and_then(|found| found.run);
    let mut run = found.ok_or_else(|| Error::NotFound { what: "run", id: name.to_string() })?;
    let event = if run.state == RunState::Paused { RunEvent::Resume } else { RunEvent::Pause };
    moves::run(tx.as_mut(), &mut run, event, Some("drill".to_owned()), &Principal::system()).await?;
    Ok(tx.commit().await?)
}

fn run(id: RunId, now: autopack_shared::domain::ids::Timestamp) -> Result<Run, Error> {
    Ok(Run {
        branch: format!("refs/heads/autopack/{id}"),
        id,
        project: ProjectId::new("drill")?,
        kind: RunKind::Patch,
        state: RunState::Created,
        version: 0,
        fork_commit: Oid::from_bytes([1; 20]),
        target_ref: None,
        policy_digest: Digest::of(b"drill"),
        anchor_digest: None,
        anchor: None,
        registered: BTreeMap::new(),
        plan_digest: None,
        lands: None,
        lands_tip: None,
        checkout: None,
        file: RunFile {
            run_id: None,
            project: None,
            anchor: None,
            target_ref: None,
            phases: Vec::new(),
            limits: RunLimits::default(),
        },
        author: Principal::system(),
        tainted: false,
        run_data: RunDataModel::default(),
        pause_requested: false,
        budget: autopack_shared::domain::budget::RunBudget::default(),
        trace: None,
        reason: None,
        created_at: now,
        updated_at: now,
    })
}

//! The services: one file each. They read and record; what has to be performed is the director's.

use std::sync::{Arc, PoisonError, RwLock};

use autopack_shared::domain::ids::{ProjectId, RunId};
use autopack_shared::domain::record::Run;
use autopack_shared::runtime::clock::{Clock, IdSource};

use crate::director::{Denial, Director, Governing};
use crate::error::Error;
use crate::hub::Hub;
use crate::policy::PolicyBook;
use crate::run_data::RunDatabases;
use crate::store::{Store, Tx};

pub mod admin;
pub mod cores;
pub mod governance;
pub mod runs;
pub mod show;
pub mod workers;

/// Where a core keeps its director, or why it has none though this process is elected. Never held across an await.
#[derive(Default)]
pub struct DirectorSlot {
    director: RwLock<Option<Arc<Director>>>,
    fault: RwLock<Option<Denial>>,
}

/// What every service needs to know of one project.
pub struct Core {
    /// The project.
    pub project: ProjectId,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The hub.
    pub hub: Arc<dyn Hub>,
    /// Policies by commit.
    pub book: Arc<PolicyBook>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ids.
    pub ids: Arc<dyn IdSource>,
    /// The director, while this process is it.
    pub director: DirectorSlot,
    /// The server for data of runs, where there is one.
    pub run_data: Option<Arc<dyn RunDatabases>>,
    /// What attempts may use.
    pub governing: Governing,
    /// `embedded` or `cluster`.
    pub mode: &'static str,
}

impl Core {
    /// The director, while this process is it.
    #[must_use]
    pub fn director(&self) -> Option<Arc<Director>> {
        self.director.director.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a director in, or lets go of the one it has.
    pub fn direct(&self, director: Option<Arc<Director>>) {
        *self.director.director.write().unwrap_or_else(PoisonError::into_inner) = director;
        *self.director.fault.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why the project cannot be directed, where this process should.
    #[must_use]
    pub fn fault(&self) -> Option<Denial> {
        self.director.fault.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers why it cannot be.
    pub fn undirected(&self, error: &Error) {
        let fault = Denial { since: self.clock.wall(), ..Denial::of(error) };
        *self.director.fault.write().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// The run of that name.
    pub(crate) async fn run(&self, tx: &mut dyn Tx, id: &str) -> Result<Run, Error> {
        let id = RunId::new(id)?;
        tx.run(&id).await?.ok_or_else(|| Error::NotFound { what: "run", id: id.to_string() })
    }
}

//! The services: one file each. They read and record; what has to be performed is the director's.

use std::sync::Arc;

use autopack_shared::domain::ids::{ProjectId, RunId};
use autopack_shared::domain::record::{Principal, Run};
use autopack_shared::runtime::clock::{Clock, IdSource};

use crate::director::Director;
use crate::error::Error;
use crate::hub::Hub;
use crate::policy::PolicyBook;
use crate::store::{Store, Tx};

pub mod admin;
pub mod governance;
pub mod runs;
pub mod show;
pub mod workers;

/// What every service needs.
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
    /// The director, where this process is it.
    pub director: Option<Arc<Director>>,
    /// `embedded` or `cluster`.
    pub mode: &'static str,
}

impl Core {
    /// Who calls. An embedded engine has one door, the owner's socket, so the caller is the owner.
    #[must_use]
    pub fn principal(&self) -> Principal {
        Principal { id: "local:owner".to_owned(), method: "socket".to_owned() }
    }

    /// The run of that name.
    pub(crate) async fn run(&self, tx: &mut dyn Tx, id: &str) -> Result<Run, Error> {
        let id = RunId::new(id)?;
        tx.run(&id).await?.ok_or_else(|| Error::NotFound { what: "run", id: id.to_string() })
    }
}

//! Epochs that nobody was ever given. Whoever names one lies, or has lost its way: that is kept in the log of the run,
//! once for each stream, so that the log does not grow with what a hostile worker says.

use std::collections::BTreeMap;

use autopack_shared::domain::ids::{RunId, Scope};
use autopack_shared::domain::record::Principal;

use super::record::Book;
use super::said::Said;
use super::session::SessionTask;
use crate::director::moves::{Note, note};
use crate::error::Error;

impl SessionTask {
    /// Keeps in the log that a worker was refused for an epoch above its run's; one below is merely late.
    pub(super) async fn forged(&self, said: &Said, refused: &Error, book: &mut Book) -> Result<(), Error> {
        let Some((run, epoch)) = said.place().filter(|_| !book.forged && refused.reason().0 == "fenced") else {
            return Ok(());
        };
        let run = RunId::new(run.to_owned())?;
        let mut tx = self.cores.store().tx(&[]).await?;
        let current = tx.epoch(&Scope::Run(run.clone())).await?;
        let Some(current) = current.filter(|current| epoch > *current) else { return Ok(()) };
        book.forged = true;
        let written = Note {
            actor: &Principal { id: format!("worker:{}", self.worker), method: "session".to_owned() },
            run: &run,
            phase: None,
            op: "epoch.forged".to_owned(),
            object: "worker",
            id: self.worker.to_string(),
            moved: None,
            digests: BTreeMap::from([
                ("epoch".to_owned(), current.to_string()),
                ("said".to_owned(), epoch.to_string()),
            ]),
            reason: format!("it named the epoch {epoch}, and {current} is the newest that was given"),
            text: None,
        };
        note(tx.as_mut(), written).await?;
        Ok(tx.commit().await?)
    }
}

//! What a builder made, as a tree that the supervisor has.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use autopack_shared::domain::ids::Oid;

use super::ending::{WIND_DOWN, bounded, wall};
use super::room::Room;
use super::{Built, EventSink, Job, Left, Runner};
use crate::builder::BuildError;
use crate::workspace::Workspace;

impl Runner {
    /// Takes what a builder left. It has worked, and may have cost money: each step is made again by itself where there
    /// is no room for it, and what was spent is told whatever comes of it.
    pub(super) async fn taken(
        &self,
        (job, sink): (&Job, &EventSink),
        cancel: &CancellationToken,
        space: Option<&Workspace>,
        left: Left,
        room: &mut Room<'_>,
    ) -> Result<Built, BuildError> {
        let (usage, credential) = (left.usage, left.credential.clone().map(String::into_boxed_str));
        let taken = self.take(job, sink, cancel, space, left, room).await;
        taken.map_err(|error| BuildError { usage, credential, ..error })
    }

    async fn take(
        &self,
        job: &Job,
        sink: &EventSink,
        cancel: &CancellationToken,
        space: Option<&Workspace>,
        left: Left,
        room: &mut Room<'_>,
    ) -> Result<Built, BuildError> {
        let times = (wall(job), WIND_DOWN);
        // A tree that fills the disk by itself is never collected.
        let end = Instant::now() + wall(job);
        let (tree, notices) = loop {
            match bounded(times, cancel, |_| self.made(job, space, left.patch.clone())).await {
                Err(error) if room.again_until(&error, end).await => {}
                made => break made?,
            }
        };
        for notice in &notices {
            sink.send("collect.note", notice.clone()).await;
        }
        loop {
            let sent = |stop| async move { self.upload(job, tree, &stop).instrument(info_span!("upload")).await };
            match bounded(times, cancel, sent).await {
                Err(error) if room.again(&error).await => {}
                sent => break sent?,
            }
        }
        if left.usage.is_some() {
            sink.send("patch.uploaded", format!("tree {} uploaded", tree.short())).await;
        }
        // Whether its deliverables are there is the supervisor's to say: it has the tree, and tells what was written.
        let notes = left.notes.into_iter().chain(notices).collect();
        Ok(Built { tree, notes, usage: left.usage, credential: left.credential, gate: None })
    }

    /// The tree that a builder made, with what was noticed: from the files it left, or from the patch it wrote.
    async fn made(
        &self,
        job: &Job,
        space: Option<&Workspace>,
        patch: Option<String>,
    ) -> Result<(Oid, Vec<String>), BuildError> {
        if let Some(diff) = patch {
            let tree = self.workspaces.import(job.base, diff).instrument(info_span!("import")).await?;
            return Ok((tree, Vec::new()));
        }
        let Some(space) = space else { return Err(BuildError::new("workspace", "its worktree is gone")) };
        let collected = self.workspaces.collect(space).instrument(info_span!("collect")).await?;
        Ok((collected.tree, collected.notices))
    }
}

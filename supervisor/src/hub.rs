//! The hub: the one repository that results land in. Every ref moves under the fence, by compare-and-set, after its
//! objects are durable; nothing else of a user's repository is ever written. Blocking: call it off the async threads.

use std::path::PathBuf;

use git2::Repository;

use autopack_shared::domain::ids::{FencingToken, Oid, PhaseId, RunId};
use autopack_shared::repo::pack::Quarantine;

pub mod error;
mod fence;
mod journal;
pub mod local;
pub mod names;
mod packing;
pub mod place;
pub mod read;
mod refs;
pub mod remote;

pub use error::HubError;
pub use local::{HubOptions, LocalHub, Ownership};
pub use names::RefName;
pub use place::Place;
pub use read::HubRead;
pub use remote::{RemoteHub, RemoteOptions};

/// What a compare-and-set came to. Only `Moved` changes nothing of what the caller wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CasOutcome {
    /// The ref was moved now.
    Applied,
    /// The ref was there already: an earlier try had succeeded.
    Already,
    /// The ref is elsewhere; nothing was written.
    Moved {
        /// Where it is, `None` when it does not exist.
        tip: Option<Oid>,
    },
}

/// A commit to be made. Equal fields make the equal object, whoever makes it and whenever.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSpec {
    /// The tree.
    pub tree: Oid,
    /// The parents, the first being the branch's tip.
    pub parents: Vec<Oid>,
    /// Ids and digests only; a missing line end is added.
    pub message: String,
    /// Seconds since 1970; the decision's time, never the clock's.
    pub seconds: i64,
}

/// Which attempt at which phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptKey {
    /// The run.
    pub run: RunId,
    /// The epoch of the run's lease.
    pub epoch: u64,
    /// The phase.
    pub phase: PhaseId,
    /// The attempt, counted from 1.
    pub attempt: u32,
}

/// A save point that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavePoint {
    /// The commit it remembers.
    pub commit: Oid,
    /// False when a tag of the user's already has the name `save-before-<run>-<phase>`; it was left alone.
    pub tagged: bool,
}

/// What `HEAD` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadFacts {
    /// The commit; `None` while the branch has none.
    pub oid: Option<Oid>,
    /// The full name of the branch; `None` when the head is detached.
    pub branch: Option<String>,
}

impl HeadFacts {
    /// Whether no branch is checked out.
    #[must_use]
    pub const fn detached(&self) -> bool {
        self.branch.is_none()
    }

    /// Whether the branch has no commit yet.
    #[must_use]
    pub const fn unborn(&self) -> bool {
        self.oid.is_none()
    }
}

/// The repository that results land in, under a fence. Reading verbs are in [`HubRead`].
pub trait Hub: Send + Sync {
    /// Whether the hub can do all that is asked of one; asked once, when it is made known.
    fn check(&self) -> Result<(), HubError> {
        Ok(())
    }

    /// The cluster whose hub it is: the id of its store; none where it is nobody's.
    fn cluster(&self) -> Result<Option<String>, HubError>;
    /// Makes it the hub of a cluster, where it is nobody's; [`HubError::Foreign`] where it is another's. Fences of two
    /// clusters say nothing of each other.
    fn claim(&self, cluster: &str) -> Result<(), HubError>;

    /// The fencing token in force.
    fn fence(&self) -> Result<Option<FencingToken>, HubError>;
    /// Raises the fence; equal is fine, lower is [`HubError::Fenced`].
    fn bump_fence(&self, token: FencingToken) -> Result<(), HubError>;
    /// Removes the locks that an earlier life of this process left, and names them for the audit; its quarantines too.
    /// Only a director may call this, before it opens any quarantine.
    fn recover(&self) -> Result<Vec<PathBuf>, HubError>;

    /// Gives up what [`Hub::recover`] rests on, so that the next director can clear what this one may leave, and what
    /// is believed of refs that others move from now on.
    fn retire(&self);

    /// Where a ref is.
    fn tip(&self, name: &RefName) -> Result<Option<Oid>, HubError>;
    /// Moves a ref from `old` (`None`: it must not exist) to `new` under the fence. Objects are made durable before,
    /// the ref after. A branch moves forward only, and not while it is checked out.
    fn cas_ref(
        &self,
        token: FencingToken,
        name: &RefName,
        old: Option<Oid>,
        new: Oid,
        why: &str,
    ) -> Result<CasOutcome, HubError>;
    /// Remembers a commit under the run's save ref and the tag people look for; replaces those of earlier tries.
    fn save_point(&self, token: FencingToken, at: &AttemptKey, commit: Oid) -> Result<SavePoint, HubError>;
    /// Remembers where a branch is and moves it on, as [`Hub::save_point`] and [`Hub::cas_ref`] do one after the other.
    fn apply(
        &self,
        token: FencingToken,
        at: &AttemptKey,
        name: &RefName,
        (old, new): (Oid, Oid),
        why: &str,
    ) -> Result<CasOutcome, HubError> {
        self.save_point(token, at, old)?;
        self.cas_ref(token, name, Some(old), new, why)
    }
    /// Keeps a pending commit or tree alive, whatever the user's gc does.
    fn keep_alive(&self, token: FencingToken, at: &AttemptKey, object: Oid) -> Result<(), HubError>;
    /// Drops everything that was kept alive for a run; says how many refs that were.
    fn release(&self, token: FencingToken, run: &RunId) -> Result<usize, HubError>;

    /// The branches of runs, and where they are.
    fn run_branches(&self) -> Result<Vec<(String, Oid)>, HubError>;

    /// Makes a commit object; no ref moves.
    fn commit(&self, spec: &CommitSpec) -> Result<Oid, HubError>;
    /// Opens a quarantine over the hub's objects, those of a commit among them.
    fn quarantine(&self, base: Oid) -> Result<Quarantine, HubError>;
    /// Takes what `result_tree` needs over `base_commit` out of a quarantine into the hub.
    fn promote(&self, from: &Quarantine, base_commit: Oid, result_tree: Oid) -> Result<(), HubError>;

    /// The repository for reading objects, opened as bare; these objects, and what they need, are in it if the hub has
    /// them. Its refs may be older than the hub's.
    fn repository(&self, with: &[Oid]) -> Result<Repository, HubError>;
    /// What the hub's `HEAD` says.
    fn head(&self) -> Result<HeadFacts, HubError>;
    /// The work tree, main or linked, that has a branch checked out or in the middle of a rebase.
    fn checked_out(&self, name: &RefName) -> Result<Option<PathBuf>, HubError>;
}

#[cfg(test)]
mod tests;

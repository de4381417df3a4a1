//! One ref change under the fence: barrier, journal, locks in a fixed order, fence check, compare, set, barrier.
//! Exactly one ref file changes in a transaction, so it is one rename: done or not done, never half.

use std::fs::File;
use std::time::Duration;

use git2::{ErrorCode, Repository, Signature, Time, Transaction};

use autopack_shared::domain::ids::{FencingToken, Oid};
use autopack_shared::repo::commit;
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::tree::TreeError;
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::local::{LocalHub, io_error};
use super::names::{CLUSTER, FENCE};
use super::read::COMMITTER;
use super::{CasOutcome, CommitSpec, HubError, RefName, fence};

/// What to do with a ref that is locked and whose value is known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    /// Nothing: it is as it should be, or not as the caller thought.
    Keep(CasOutcome),
    /// Point it at an object.
    Set(Oid),
    /// Remove it.
    Remove,
}

const PAUSE: Duration = Duration::from_millis(20);

impl LocalHub {
    /// Changes one ref under the fence. `decide` sees where the ref is, while it is locked.
    pub(super) fn fenced(
        &self,
        token: FencingToken,
        name: &RefName,
        why: &str,
        decide: impl FnOnce(Option<Oid>) -> Change,
    ) -> Result<CasOutcome, HubError> {
        let repo = self.bare()?;
        self.locked(&repo, &[FENCE, name.as_str()], |tx| {
            let current = read_fence(&repo)?;
            if current != Some(token) {
                metrics().fenced("hub");
                return Err(HubError::Fenced { token, current });
            }
            match decide(direct(&repo, name.as_str())?) {
                Change::Keep(outcome) => return Ok(outcome),
                Change::Set(new) => set(&repo, tx, name.as_str(), new, why)?,
                Change::Remove => tx.remove(name.as_str())?,
            }
            Ok(CasOutcome::Applied)
        })
    }

    /// Raises the fence under its own lock.
    pub(super) fn raise(&self, token: FencingToken) -> Result<(), HubError> {
        let repo = self.bare()?;
        let blob = repo.blob(fence::plain(token).as_bytes())?;
        self.locked(&repo, &[FENCE], |tx| match read_fence(&repo)? {
            Some(current) if current > token => Err(HubError::Fenced { token, current: Some(current) }),
            Some(current) if current == token => Ok(CasOutcome::Already),
            Some(_) | None => {
                set(&repo, tx, FENCE, from_git(blob), "fence")?;
                Ok(CasOutcome::Applied)
            }
        })?;
        Ok(())
    }

    /// Marks the hub as a cluster's, under the mark's own lock.
    pub(super) fn mark(&self, cluster: &str) -> Result<(), HubError> {
        let repo = self.bare()?;
        let blob = repo.blob(fence::owner(cluster).as_bytes())?;
        self.locked(&repo, &[CLUSTER], |tx| match read_owner(&repo)? {
            Some(found) if found == cluster => Ok(CasOutcome::Already),
            Some(found) => {
                let (hub, ours) = (self.common().display().to_string(), cluster.to_owned());
                Err(HubError::Foreign { hub, found, ours })
            }
            None => {
                set(&repo, tx, CLUSTER, from_git(blob), "cluster")?;
                Ok(CasOutcome::Applied)
            }
        })?;
        Ok(())
    }

    /// Runs `act` with the refs locked, between two barriers. Locks are released whatever happens.
    fn locked(
        &self,
        repo: &Repository,
        names: &[&str],
        act: impl FnOnce(&mut Transaction<'_>) -> Result<CasOutcome, HubError>,
    ) -> Result<CasOutcome, HubError> {
        let mut journal = self.journal();
        // The objects that the ref is going to name are durable before it can name them.
        self.barrier()?;
        let mark = journal.begin(names).map_err(io_error(journal.path()))?;
        let outcome = self.transact(repo, names, act);
        journal.end(mark).map_err(io_error(journal.path()))?;
        if matches!(outcome, Ok(CasOutcome::Applied | CasOutcome::Already)) {
            self.barrier()?;
        }
        outcome
    }

    fn transact(
        &self,
        repo: &Repository,
        names: &[&str],
        act: impl FnOnce(&mut Transaction<'_>) -> Result<CasOutcome, HubError>,
    ) -> Result<CasOutcome, HubError> {
        let mut tx = repo.transaction()?;
        for name in names {
            self.lock(&mut tx, name).map_err(|error| collision(repo, name).unwrap_or(error))?;
        }
        let outcome = act(&mut tx)?;
        tx.commit().map_err(|error| self.locked_elsewhere(error, "packed-refs"))?;
        Ok(outcome)
    }

    /// Takes a ref's lock, waiting for the user's git to let go of it.
    fn lock(&self, tx: &mut Transaction<'_>, name: &str) -> Result<(), HubError> {
        let tries = self.options().lock_wait.as_millis() / PAUSE.as_millis();
        let mut error = match tx.lock_ref(name) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        for _ in 0..tries {
            if error.code() != ErrorCode::Locked {
                break;
            }
            std::thread::sleep(PAUSE);
            error = match tx.lock_ref(name) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
        }
        Err(self.locked_elsewhere(error, name))
    }

    fn locked_elsewhere(&self, error: git2::Error, name: &str) -> HubError {
        if error.code() == ErrorCode::Locked {
            HubError::Locked { file: self.common().join(format!("{name}.lock")) }
        } else {
            HubError::Git(error)
        }
    }

    /// Makes everything written to the repository's file system so far durable.
    pub(super) fn barrier(&self) -> Result<(), HubError> {
        let dir = File::open(self.common()).map_err(io_error(self.common()))?;
        rustix::fs::syncfs(&dir).map_err(|error| io_error(self.common())(error.into()))
    }
}

/// The ref that keeps another from being made: git has no branch beside a folder of that name.
fn collision(repo: &Repository, name: &str) -> Option<HubError> {
    let collides = |other: &str| HubError::Collides { name: name.to_owned(), other: other.to_owned() };
    let mut parent = name;
    while let Some((folder, _)) = parent.rsplit_once('/') {
        if repo.find_reference(folder).is_ok() {
            return Some(collides(folder));
        }
        parent = folder;
    }
    let below = repo.references_glob(&format!("{name}/*")).ok()?.next()?.ok()?;
    below.name().ok().map(collides)
}

/// The token in the fence ref.
pub(super) fn read_fence(repo: &Repository) -> Result<Option<FencingToken>, HubError> {
    let Some(oid) = direct(repo, FENCE)? else {
        return Ok(None);
    };
    let blob = repo.find_blob(to_git(oid)).map_err(|_| HubError::BadFence)?;
    fence::parse(blob.content()).map(Some).ok_or(HubError::BadFence)
}

/// Whose hub a repository is.
pub(super) fn read_owner(repo: &Repository) -> Result<Option<String>, HubError> {
    let Some(oid) = direct(repo, CLUSTER)? else {
        return Ok(None);
    };
    let blob = repo.find_blob(to_git(oid)).map_err(|_| HubError::BadFence)?;
    Ok(Some(fence::parse_owner(blob.content())))
}

/// The object that a ref names directly; a ref to a ref is refused.
pub(super) fn direct(repo: &Repository, name: &str) -> Result<Option<Oid>, HubError> {
    match repo.find_reference(name) {
        Ok(reference) => match reference.target() {
            Some(oid) => Ok(Some(from_git(oid))),
            None => Err(HubError::Symbolic { name: name.to_owned() }),
        },
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Refuses to point a ref at something that is not there, or a branch at something that is no commit.
pub(super) fn check_object(repo: &Repository, name: &RefName, oid: Oid) -> Result<(), HubError> {
    let object = repo.find_object(to_git(oid), None).map_err(|error| TreeError::reading(error, oid))?;
    if name.is_branch() && object.as_commit().is_none() {
        return Err(TreeError::WrongKind { oid, wanted: "commit" }.into());
    }
    Ok(())
}

/// Points a locked ref at an object. The reflog's time is the commit's, so that nothing here reads a clock.
fn set(repo: &Repository, tx: &mut Transaction<'_>, name: &str, new: Oid, why: &str) -> Result<(), HubError> {
    let seconds = repo.find_commit(to_git(new)).map_or(0, |commit| commit.time().seconds());
    tx.set_target(name, to_git(new), Some(&signature(seconds)?), why)?;
    Ok(())
}

/// Makes the object of a commit.
pub(super) fn write_commit(repo: &Repository, spec: &CommitSpec) -> Result<Oid, HubError> {
    let who = signature(spec.seconds)?;
    let mut message = spec.message.clone();
    if !message.ends_with('\n') {
        message.push('\n');
    }
    Ok(commit::write(repo, &who, &message, spec.tree, &spec.parents)?)
}

/// Who makes every commit and every reflog entry.
fn signature(seconds: i64) -> Result<Signature<'static>, HubError> {
    Ok(Signature::new("autopack", COMMITTER, &Time::new(seconds, 0))?)
}

//! A hub on a git server. The server's refs are the truth: every write is one atomic push of what moves together with
//! the fence (`coordination.md` 3.6). Objects are read from a cache of this supervisor's own, by the same code as those
//! of a hub on this machine.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use git2::Repository;

use autopack_shared::domain::ids::{FencingToken, Oid, PhaseId, RunId};
use autopack_shared::repo::open::from_git;
use autopack_shared::repo::pack::{self, Quarantine};
use autopack_shared::runtime::clock::{Clock, IdSource};

use super::names::RUNS;
use super::place::Address;
use super::read::descends;
use super::{AttemptKey, CasOutcome, CommitSpec, HeadFacts, Hub, HubError, RefName, SavePoint, refs};

mod cache;
mod credentials;
mod git;
mod listing;
mod reading;
mod writing;

use cache::Cache;
use credentials::Access;
use git::Git;
use listing::Listing;
use reading::Known;
use writing::{AT_ONCE, Move, Plan, Settle};

/// How a hub on a git server is used.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// The project: its own credentials come before those of all.
    pub project: String,
    /// The git program.
    pub program: PathBuf,
    /// Where the cache is: a folder of this process alone.
    pub cache: PathBuf,
    /// Where quarantines are made.
    pub scratch: PathBuf,
    /// The folder of credentials.
    pub credentials: Option<PathBuf>,
    /// How old what is read may be.
    pub recent: Duration,
    /// How long a conversation may take in which no objects travel.
    pub talk: Duration,
    /// How long objects may travel.
    pub carry: Duration,
    /// Bytes by which the cache grows, besides doubling, before what no ref needs any more is dropped from it.
    pub slack: u64,
    /// How long it is kept all the same: what is on its way to the server is in no ref yet.
    pub expiry: Duration,
}

impl RemoteOptions {
    /// For a supervisor with this state folder.
    #[must_use]
    pub fn cluster(state_dir: &std::path::Path, project: &str, credentials: Option<PathBuf>) -> Self {
        Self {
            project: project.to_owned(),
            program: PathBuf::from("git"),
            cache: state_dir.join("hubs").join(format!("{project}.git")),
            scratch: state_dir.join("tmp").join(project),
            credentials,
            recent: Duration::from_secs(1),
            talk: Duration::from_secs(20),
            carry: Duration::from_secs(180),
            slack: 256 << 20,
            expiry: Duration::from_secs(24 * 3600),
        }
    }
}

/// [`Hub`] over a git server.
pub struct RemoteHub {
    git: Git,
    cache: Cache,
    options: RemoteOptions,
    clock: Arc<dyn Clock>,
    /// Tells this process's fences from those of every other.
    writer: String,
    count: AtomicU64,
    /// Held during a write: the writes of one process do not get in each other's way.
    turn: Mutex<()>,
    /// Held while the server is asked: the others get what the first one hears.
    asking: Mutex<()>,
    known: Mutex<Known>,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is as valid after a panic as before.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteHub {
    /// Prepares the cache. The server is not asked: it may be away now and there when it is needed.
    ///
    /// # Errors
    /// When the folder cannot be written, or the credentials cannot be used.
    pub fn open(
        address: Address,
        options: RemoteOptions,
        clock: Arc<dyn Clock>,
        ids: &dyn IdSource,
    ) -> Result<Self, HubError> {
        let access = Access::find(options.credentials.as_deref(), &options.project, &address)?;
        let cache = Cache::open(&options.cache)?;
        pack::sweep_quarantines(&options.scratch);
        Ok(Self {
            git: Git::new(&options.program, cache.path(), address, access, clock.clone()),
            cache,
            options,
            clock,
            writer: ids.fresh("hub"),
            count: AtomicU64::new(0),
            turn: Mutex::default(),
            asking: Mutex::default(),
            known: Mutex::default(),
        })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        held(&self.turn)
    }

    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// Moves a ref to a commit or object wherever it was.
    fn put(&self, refs: &Listing, name: RefName, new: Oid, into: &mut Vec<Move>) -> Result<(), HubError> {
        let old = refs.tip(name.as_str())?;
        if old != Some(new) {
            into.push(Move { name, old, new: Some(new) });
        }
        Ok(())
    }

    /// What remembers a commit before an attempt: the save ref, and the tag where that is not the user's own.
    fn save(&self, refs: &Listing, at: &AttemptKey, commit: Oid) -> Result<(Vec<Move>, SavePoint), HubError> {
        let tag = RefName::save_tag(&at.run, &at.phase);
        let there = refs.tip(tag.as_str())?;
        let tagged = there.is_none_or(|there| there == commit || saved(refs, &at.run, &at.phase).any(|o| o == there));
        let mut moves = Vec::new();
        if tagged {
            self.put(refs, tag, commit, &mut moves)?;
        }
        self.put(refs, RefName::save(&at.run, &at.phase, at.attempt), commit, &mut moves)?;
        Ok((moves, SavePoint { commit, tagged }))
    }

    /// Refuses what no hub does: a branch to something that is no commit, or not forward.
    fn check_move(&self, name: &RefName, old: Option<Oid>, new: Oid) -> Result<(), HubError> {
        let objects: Vec<Oid> = old.into_iter().chain([new]).collect();
        let repo = self.repository(&objects)?;
        refs::check_object(&repo, name, new)?;
        match old {
            Some(old) if name.is_branch() && old != new && !descends(&repo, new, old)? => {
                Err(HubError::NotForward { name: name.clone(), old, new })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Moves a ref, after `before` and together with it.
    fn cas(
        &self,
        token: FencingToken,
        (name, old, new): (&RefName, Option<Oid>, Oid),
        before: impl Fn(&Listing) -> Result<Vec<Move>, HubError>,
    ) -> Result<CasOutcome, HubError> {
        self.check_move(name, old, new)?;
        self.write(token, Settle::Now, |refs| {
            let tip = refs.tip(name.as_str())?;
            if tip == Some(new) {
                return Ok(Plan::Settled(CasOutcome::Already));
            }
            if tip != old {
                return Ok(Plan::Settled(CasOutcome::Moved { tip }));
            }
            let mut moves = before(refs)?;
            moves.push(Move { name: name.clone(), old, new: Some(new) });
            Ok(Plan::Move(moves, CasOutcome::Applied))
        })
    }
}

/// Where the save points of a phase are.
fn saved<'a>(refs: &'a Listing, run: &RunId, phase: &PhaseId) -> impl Iterator<Item = Oid> + use<'a> {
    let folder = format!("refs/autopack/save/{run}/{phase}/");
    refs.below(&folder).map(|(_, oid)| oid).collect::<Vec<_>>().into_iter()
}

impl Hub for RemoteHub {
    fn check(&self) -> Result<(), HubError> {
        self.read()?;
        self.is_atomic()?;
        let repo = self.cache.repository()?;
        let (one, two) = (from_git(repo.blob(b"probe 1\n")?), from_git(repo.blob(b"probe 2\n")?));
        let name = format!("refs/autopack/probe/{}", self.writer);
        for (old, new) in [(None, Some(one)), (Some(one), Some(two)), (Some(two), None)] {
            self.push_all(&[(&name, old, new)])?;
        }
        Ok(())
    }

    fn cluster(&self) -> Result<Option<String>, HubError> {
        self.owner(&self.recent()?)
    }

    fn claim(&self, cluster: &str) -> Result<(), HubError> {
        self.mark(cluster)
    }

    fn fence(&self) -> Result<Option<FencingToken>, HubError> {
        Ok(self.read()?.fence)
    }

    fn bump_fence(&self, token: FencingToken) -> Result<(), HubError> {
        self.raise(token)
    }

    fn recover(&self) -> Result<Vec<PathBuf>, HubError> {
        // The server's locks are the server's.
        Ok(Vec::new())
    }

    fn retire(&self) {
        self.forget();
    }

    fn tip(&self, name: &RefName) -> Result<Option<Oid>, HubError> {
        self.recent()?.tip(name.as_str())
    }

    fn cas_ref(
        &self,
        token: FencingToken,
        name: &RefName,
        old: Option<Oid>,
        new: Oid,
        _why: &str,
    ) -> Result<CasOutcome, HubError> {
        self.cas(token, (name, old, new), |_| Ok(Vec::new()))
    }

    fn apply(
        &self,
        token: FencingToken,
        at: &AttemptKey,
        name: &RefName,
        (old, new): (Oid, Oid),
        _why: &str,
    ) -> Result<CasOutcome, HubError> {
        self.cas(token, (name, Some(old), new), |refs| Ok(self.save(refs, at, old)?.0))
    }

    fn save_point(&self, token: FencingToken, at: &AttemptKey, commit: Oid) -> Result<SavePoint, HubError> {
        let name = RefName::save(&at.run, &at.phase, at.attempt);
        refs::check_object(&self.repository(&[commit])?, &name, commit)?;
        // Whose the tag is must be seen; a tag that is as it should be is in no push that would say so.
        self.recent()?;
        self.write(token, Settle::Recently, |refs| {
            let (moves, point) = self.save(refs, at, commit)?;
            Ok(if moves.is_empty() { Plan::Settled(point) } else { Plan::Move(moves, point) })
        })
    }

    fn keep_alive(&self, token: FencingToken, at: &AttemptKey, object: Oid) -> Result<(), HubError> {
        let name = RefName::pending(at);
        refs::check_object(&self.repository(&[object])?, &name, object)?;
        self.write(token, Settle::Recently, |refs| {
            let mut moves = Vec::new();
            self.put(refs, name.clone(), object, &mut moves)?;
            Ok(if moves.is_empty() { Plan::Settled(()) } else { Plan::Move(moves, ()) })
        })
    }

    fn release(&self, token: FencingToken, run: &RunId) -> Result<usize, HubError> {
        let folder = format!("refs/autopack/q/{run}/");
        let mut released = 0;
        loop {
            let some = self.write(token, Settle::Recently, |refs| {
                let mut moves = Vec::new();
                for (name, oid) in refs.below(&folder).take(AT_ONCE) {
                    moves.push(Move { name: RefName::listed(name)?, old: Some(oid), new: None });
                }
                let count = moves.len();
                Ok(if count == 0 { Plan::Settled(0) } else { Plan::Move(moves, count) })
            })?;
            released += some;
            if some == 0 {
                return Ok(released);
            }
        }
    }

    fn run_branches(&self) -> Result<Vec<(String, Oid)>, HubError> {
        Ok(self.read()?.below(RUNS).map(|(name, oid)| (name.to_owned(), oid)).collect())
    }

    fn commit(&self, spec: &CommitSpec) -> Result<Oid, HubError> {
        let objects: Vec<Oid> = spec.parents.iter().copied().chain([spec.tree]).collect();
        refs::write_commit(&self.repository(&objects)?, spec)
    }

    fn quarantine(&self, base: Oid) -> Result<Quarantine, HubError> {
        self.need(&[base])?;
        Ok(Quarantine::new(&self.cache.objects(), &self.options.scratch)?)
    }

    fn promote(&self, from: &Quarantine, base_commit: Oid, result_tree: Oid) -> Result<(), HubError> {
        // They reach the server with the ref that keeps them alive.
        let (repo, _alone) = (self.repository(&[base_commit])?, self.cache.alone()?);
        Ok(from.promote(&repo, base_commit, result_tree)?)
    }

    fn repository(&self, with: &[Oid]) -> Result<Repository, HubError> {
        self.need(with)?;
        self.cache.repository()
    }

    fn head(&self) -> Result<HeadFacts, HubError> {
        Ok(self.recent()?.head())
    }

    fn checked_out(&self, _name: &RefName) -> Result<Option<PathBuf>, HubError> {
        // A server's work tree, if it has one, is its own business: it refuses what it does not want.
        Ok(None)
    }
}

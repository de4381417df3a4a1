//! Coordination on one machine: `flock` on files that are never unlinked (`coordination.md` 3.12). The kernel gives a
//! lock back when its process ends, however it ends; a lock is a quick answer, the store's epochs give safety.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use autopack_shared::domain::ids::{RunId, Timestamp, WorkerId};
use autopack_shared::runtime::clock::Clock;

use self::file::{LockFile, holder_of};
use self::folders::{ignore_everything, private_folder};
use super::{
    CoordinationError, Coordinator, Directorship, Life, LockEntry, LockName, LockOwner, Renewal, SeatEntry, Seated,
    SessionEntry, SessionFacts,
};

mod file;
mod filesystem;
mod folders;
mod home;

/// The lock of a data directory's one supervisor.
const DIRECTOR: &str = "autopack.lock";
/// The lock of a repository, beside the workspaces of all its data directories.
const REPOSITORY: &str = "repo.lock";

/// Locks and sessions of one data directory.
pub struct FileCoordinator {
    data: PathBuf,
    worker_root: PathBuf,
    clock: Arc<dyn Clock>,
    // Never held across an await: every operation is a few system calls that do not wait.
    state: Mutex<State>,
    directorship: watch::Sender<Directorship>,
}

#[derive(Default)]
struct State {
    director: Option<Seat>,
    sessions: HashMap<WorkerId, Session>,
    locks: HashMap<LockName, Held>,
}

struct Seat {
    replica: String,
    since: Timestamp,
    files: [LockFile; 2],
}

struct Session {
    id: String,
    facts: SessionFacts,
    draining: bool,
    since: Timestamp,
}

/// A lock of this process; given back when dropped.
struct Held {
    owner: LockOwner,
    since: Timestamp,
    _file: LockFile,
}

impl State {
    fn is_live(&self, worker: &WorkerId, session: &str) -> bool {
        self.sessions.get(worker).is_some_and(|live| live.id == session)
    }
}

impl std::fmt::Debug for FileCoordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileCoordinator").field("data", &self.data).finish_non_exhaustive()
    }
}

impl FileCoordinator {
    /// Makes the folders a data directory needs and looks whether locks work there. Takes no lock yet.
    ///
    /// # Errors
    /// [`CoordinationError::Unusable`] when a folder cannot be made or lies on a file system of another machine.
    pub fn open(data_dir: &Path, worker_root: &Path, clock: Arc<dyn Clock>) -> Result<Self, CoordinationError> {
        for folder in [data_dir, worker_root] {
            private_folder(folder)?;
            filesystem::refuse_remote(folder)?;
        }
        for kind in ["run", "ws"] {
            private_folder(&data_dir.join("locks").join(kind))?;
        }
        ignore_everything(data_dir)?;
        let (data, worker_root) = (data_dir.to_owned(), worker_root.to_owned());
        let directorship = watch::Sender::new(Directorship::Unknown);
        Ok(Self { data, worker_root, clock, state: Mutex::default(), directorship })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &LockName) -> PathBuf {
        let (kind, run) = match name {
            LockName::Run(run) => ("run", run),
            LockName::Workspace(run) => ("ws", run),
        };
        self.data.join("locks").join(kind).join(format!("{run}.lock"))
    }

    /// Takes one of the director's two files, or says who has it.
    fn take(&self, folder: &Path, file: &str, replica: &str) -> Result<LockFile, CoordinationError> {
        let path = folder.join(file);
        let Some(lock) = LockFile::try_lock(&path)? else {
            return Err(CoordinationError::DataDirLocked {
                path: folder.display().to_string(),
                holder: holder_of(&path).unwrap_or_else(|| "it does not say who it is".to_owned()),
            });
        };
        let (pid, host) = (std::process::id(), home::host());
        lock.write(&format!("pid {pid} on {host}, since {}, as {replica}\n", self.clock.wall()))?;
        Ok(lock)
    }

    /// Takes one lock for a session, or says who has it.
    fn take_one(&self, name: &LockName, owner: &LockOwner) -> Result<LockFile, CoordinationError> {
        let path = self.path(name);
        let Some(lock) = LockFile::try_lock(&path)? else {
            let holder = holder_of(&path).unwrap_or_else(|| "another process".to_owned());
            return Err(CoordinationError::Held { lock: name.to_string(), holder });
        };
        lock.write(&format!("{} {} {}\n", owner.worker, owner.epoch, owner.session))?;
        Ok(lock)
    }

    /// Both of the director's locks, always in this order; if the second is taken, the first is given back by being
    /// dropped.
    fn sit(&self, replica: &str) -> Result<Seat, CoordinationError> {
        let data = self.take(&self.data, DIRECTOR, replica)?;
        let repository = self.take(&self.worker_root, REPOSITORY, replica)?;
        home::only(&self.data, &self.worker_root)?;
        Ok(Seat { replica: replica.to_owned(), since: self.clock.wall(), files: [data, repository] })
    }

    /// Nothing here runs out: it lives as long as its process.
    fn life(&self, since: Timestamp) -> Life {
        let millis = u64::try_from(self.clock.wall().millis_since(since)).unwrap_or(0);
        Life { age: Duration::from_millis(millis), ttl: None, remaining: None }
    }

    /// Every run that has a lock file of a kind; whether somebody holds it is another question.
    fn known(&self, kind: &str, of: fn(RunId) -> LockName) -> Vec<LockName> {
        let Ok(folder) = fs::read_dir(self.data.join("locks").join(kind)) else { return Vec::new() };
        let name = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".lock")?.parse().ok().map(of);
        folder.flatten().filter_map(name).collect()
    }
}

#[async_trait]
impl Coordinator for FileCoordinator {
    async fn campaign(&self, replica: &str) -> Result<(), CoordinationError> {
        let mut state = self.state();
        if let Some(director) = &state.director {
            return if director.replica == replica {
                Ok(())
            } else {
                Err(CoordinationError::DataDirLocked {
                    path: self.data.display().to_string(),
                    holder: format!("this process, as {}", director.replica),
                })
            };
        }
        match self.sit(replica) {
            Ok(seat) => {
                state.director = Some(seat);
                let leading = Directorship::Leading { since: self.clock.wall(), evidence: None };
                self.directorship.send_replace(leading);
                Ok(())
            }
            Err(refusal) => {
                // Nothing tells when a lock of another process is given back: who waits has to campaign again.
                let following = if let CoordinationError::DataDirLocked { holder, .. } = &refusal {
                    Directorship::Following { holder: Some(holder.clone()) }
                } else {
                    Directorship::Unknown
                };
                self.directorship.send_replace(following);
                Err(refusal)
            }
        }
    }

    async fn is_director(&self) -> Result<bool, CoordinationError> {
        let state = self.state();
        let Some(director) = &state.director else { return Ok(false) };
        let checked = director.files.iter().try_for_each(LockFile::check);
        if checked.is_err() {
            self.directorship.send_replace(Directorship::Unknown);
        }
        checked.map(|()| true)
    }

    fn directorship(&self) -> watch::Receiver<Directorship> {
        self.directorship.subscribe()
    }

    async fn director(&self) -> Result<Option<SeatEntry>, CoordinationError> {
        let seat = |seat: &Seat| SeatEntry {
            replica: seat.replica.clone(),
            addr: "this process".to_owned(),
            life: self.life(seat.since),
        };
        Ok(self.state().director.as_ref().map(seat))
    }

    async fn resign(&self) -> Result<(), CoordinationError> {
        self.state().director = None;
        self.directorship.send_replace(Directorship::Unknown);
        Ok(())
    }

    async fn open_session(
        &self,
        worker: &WorkerId,
        session: &str,
        facts: &SessionFacts,
    ) -> Result<(), CoordinationError> {
        let mut state = self.state();
        match state.sessions.get(worker) {
            Some(live) if live.id != session => {
                let holder = format!("session {}", live.id);
                Err(CoordinationError::Held { lock: format!("worker {worker}"), holder })
            }
            Some(_) => {
                if let Some(live) = state.sessions.get_mut(worker) {
                    live.facts = facts.clone();
                }
                Ok(())
            }
            None => {
                let (id, facts, since) = (session.to_owned(), facts.clone(), self.clock.wall());
                let opened = Session { id, facts, draining: false, since };
                state.sessions.insert(worker.clone(), opened);
                Ok(())
            }
        }
    }

    async fn renew_session(&self, worker: &WorkerId, session: &str) -> Result<Renewal, CoordinationError> {
        let state = self.state();
        let live = state.sessions.get(worker).filter(|live| live.id == session);
        Ok(live.map_or(Renewal::Gone, |live| Renewal::Kept { draining: live.draining }))
    }

    async fn close_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError> {
        let mut state = self.state();
        if state.is_live(worker, session) {
            state.sessions.remove(worker);
        }
        state.locks.retain(|_, held| held.owner.worker != *worker || held.owner.session != session);
        Ok(())
    }

    async fn session_alive(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError> {
        Ok(self.state().is_live(worker, session))
    }

    async fn drain(&self, worker: &WorkerId, session: &str, drain: bool) -> Result<bool, CoordinationError> {
        let mut state = self.state();
        let live = state.sessions.get_mut(worker).filter(|live| live.id == session);
        Ok(live.map(|live| live.draining = drain).is_some())
    }

    async fn sessions(&self) -> Result<Vec<SessionEntry>, CoordinationError> {
        let state = self.state();
        let entry = |(worker, live): (&WorkerId, &Session)| SessionEntry {
            worker: worker.clone(),
            session: live.id.clone(),
            facts: live.facts.clone(),
            holder: "this process".to_owned(),
            draining: live.draining,
            life: self.life(live.since),
        };
        let mut all: Vec<SessionEntry> = state.sessions.iter().map(entry).collect();
        all.sort_by(|a, b| a.worker.cmp(&b.worker));
        Ok(all)
    }

    async fn seats(&self) -> Result<Vec<Seated>, CoordinationError> {
        let seated = |(worker, live): (&WorkerId, &Session)| Seated {
            worker: worker.clone(),
            session: live.id.clone(),
            slots: live.facts.slots,
            draining: live.draining,
            sandbox_level: live.facts.sandbox_level.clone(),
            quarantine: live.facts.quarantine.clone(),
        };
        let mut all: Vec<Seated> = self.state().sessions.iter().map(seated).collect();
        all.sort_by(|a, b| a.worker.cmp(&b.worker));
        Ok(all)
    }

    async fn session_life(&self, worker: &WorkerId, session: &str) -> Result<Option<Life>, CoordinationError> {
        let state = self.state();
        let live = state.sessions.get(worker).filter(|live| live.id == session);
        Ok(live.map(|live| self.life(live.since)))
    }

    async fn lock_names(&self) -> Result<Vec<LockName>, CoordinationError> {
        Ok(self.locks().await?.into_iter().map(|entry| entry.name).collect())
    }

    async fn lock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        let mut state = self.state();
        if !state.is_live(&owner.worker, &owner.session) {
            let gone = format!("session {} of worker {} is gone", owner.session, owner.worker);
            return Err(CoordinationError::Unavailable(gone));
        }
        let mut taken = Vec::new();
        for name in names {
            match state.locks.get(name) {
                Some(held) if held.owner == *owner => {}
                Some(held) => {
                    return Err(CoordinationError::Held { lock: name.to_string(), holder: held.owner.shown() });
                }
                // A name given twice is taken once.
                None if taken.iter().any(|(mine, _)| mine == name) => {}
                None => taken.push((name.clone(), self.take_one(name, owner)?)),
            }
        }
        let since = self.clock.wall();
        let held = |(name, file)| (name, Held { owner: owner.clone(), since, _file: file });
        state.locks.extend(taken.into_iter().map(held));
        Ok(())
    }

    async fn unlock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        let mut state = self.state();
        state.locks.retain(|name, held| held.owner != *owner || !names.contains(name));
        Ok(())
    }

    async fn holder(&self, name: &LockName) -> Result<Option<LockOwner>, CoordinationError> {
        if let Some(held) = self.state().locks.get(name) {
            return Ok(Some(held.owner.clone()));
        }
        let path = self.path(name);
        if !path.exists() || LockFile::try_lock(&path)?.is_some() {
            return Ok(None);
        }
        let text = holder_of(&path).unwrap_or_default();
        parse_owner(&text).map(Some).ok_or_else(|| CoordinationError::Unusable {
            path: path.display().to_string(),
            why: "another process holds it and does not say for whom".to_owned(),
        })
    }

    async fn locks(&self) -> Result<Vec<LockEntry>, CoordinationError> {
        let mut names = self.known("run", LockName::Run);
        names.extend(self.known("ws", LockName::Workspace));
        names.sort();
        let mut all = Vec::new();
        for name in names {
            // When another process took its lock, nobody wrote down.
            let Some(owner) = self.holder(&name).await? else { continue };
            let since = self.state().locks.get(&name).map_or_else(|| self.clock.wall(), |held| held.since);
            all.push(LockEntry { name, owner, life: self.life(since) });
        }
        Ok(all)
    }

    async fn break_lock(&self, name: &LockName, reason: &str) -> Result<Option<LockOwner>, CoordinationError> {
        if let Some(held) = self.state().locks.remove(name) {
            tracing::warn!(lock = %name, holder = held.owner.shown(), reason, "a lock was broken");
            return Ok(Some(held.owner));
        }
        match self.holder(name).await? {
            None => Ok(None),
            Some(owner) => {
                let holder = format!("{} in another process, and ends with that", owner.shown());
                Err(CoordinationError::Held { lock: name.to_string(), holder })
            }
        }
    }
}

fn parse_owner(text: &str) -> Option<LockOwner> {
    let mut words = text.splitn(3, ' ');
    let worker = words.next()?.parse().ok()?;
    let epoch = words.next()?.parse().ok()?;
    Some(LockOwner { worker, session: words.next()?.to_owned(), epoch })
}

#[cfg(test)]
mod tests;

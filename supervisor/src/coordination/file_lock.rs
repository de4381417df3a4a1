//! Coordination on one machine: `flock` on files that are never unlinked (`coordination.md` 3.12). The kernel gives a
//! lock back when its process ends, however it ends; a lock is a quick answer, the store's epochs give safety.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tempfile::NamedTempFile;

use autopack_shared::domain::ids::WorkerId;
use autopack_shared::runtime::clock::Clock;

use self::file::{LockFile, holder_of};
use super::{CoordinationError, Coordinator, LockName, LockOwner};

mod file;
mod filesystem;

/// The lock of a data directory's one supervisor.
const DIRECTOR: &str = "autopack.lock";
/// The lock of a repository, beside the workspaces of all its data directories.
const REPOSITORY: &str = "repo.lock";
/// The record of the data directory that has a repository's runs, beside its lock.
const HOME: &str = "data_dir";
/// What a data directory has once there were runs.
const STORE: &str = "autopack.db";

/// Locks and sessions of one data directory.
pub struct FileCoordinator {
    data: PathBuf,
    worker_root: PathBuf,
    clock: Arc<dyn Clock>,
    // Never held across an await: every operation is a few system calls that do not wait.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    director: Option<Directorship>,
    sessions: HashMap<WorkerId, String>,
    locks: HashMap<LockName, (LockOwner, LockFile)>,
}

struct Directorship {
    replica: String,
    files: [LockFile; 2],
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
        Ok(Self { data, worker_root, clock, state: Mutex::default() })
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
        let (pid, host) = (std::process::id(), host());
        lock.write(&format!("pid {pid} on {host}, since {}, as {replica}\n", self.clock.wall()))?;
        Ok(lock)
    }

    /// Two stores over one repository would fence each other off for good: the first one stays its home while it is
    /// there. Called under the repository's lock.
    fn only_home(&self) -> Result<(), CoordinationError> {
        let record = self.worker_root.join(HOME);
        let failed = |error: &io::Error| CoordinationError::of(&record, error);
        let own = self.data.canonicalize().map_err(|error| failed(&error))?;
        let known = match fs::read(&record) {
            Ok(bytes) => PathBuf::from(OsString::from_vec(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => PathBuf::new(),
            Err(error) => return Err(failed(&error)),
        };
        if known == own {
            return Ok(());
        }
        if !known.as_os_str().is_empty() && known.join(STORE).exists() {
            let (path, other) = (own.display().to_string(), known.display().to_string());
            return Err(CoordinationError::OtherDataDir { path, other });
        }
        let write = || {
            let mut file = NamedTempFile::new_in(&self.worker_root)?;
            file.write_all(own.as_os_str().as_bytes())?;
            file.persist(&record)?;
            Ok(())
        };
        write().map_err(|error: io::Error| failed(&error))
    }

    /// Takes one lock for a session, or says who has it.
    fn take_one(&self, name: &LockName, owner: &LockOwner) -> Result<LockFile, CoordinationError> {
        let path = self.path(name);
        let Some(lock) = LockFile::try_lock(&path)? else {
            let holder = holder_of(&path).unwrap_or_else(|| "another process".to_owned());
            return Err(CoordinationError::Held { lock: shown(name), holder });
        };
        lock.write(&format!("{} {} {}\n", owner.worker, owner.epoch, owner.session))?;
        Ok(lock)
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
        // Always in this order; if the second is taken, the first is given back by being dropped.
        let data = self.take(&self.data, DIRECTOR, replica)?;
        let repository = self.take(&self.worker_root, REPOSITORY, replica)?;
        self.only_home()?;
        state.director = Some(Directorship { replica: replica.to_owned(), files: [data, repository] });
        Ok(())
    }

    async fn is_director(&self) -> Result<bool, CoordinationError> {
        let state = self.state();
        let Some(director) = &state.director else { return Ok(false) };
        director.files.iter().try_for_each(LockFile::check)?;
        Ok(true)
    }

    async fn resign(&self) -> Result<(), CoordinationError> {
        self.state().director = None;
        Ok(())
    }

    async fn open_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError> {
        let mut state = self.state();
        match state.sessions.get(worker) {
            Some(live) if live != session => {
                Err(CoordinationError::Held { lock: format!("worker {worker}"), holder: format!("session {live}") })
            }
            Some(_) | None => {
                state.sessions.insert(worker.clone(), session.to_owned());
                Ok(())
            }
        }
    }

    async fn renew_session(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError> {
        self.session_alive(worker, session).await
    }

    async fn close_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError> {
        let mut state = self.state();
        if state.sessions.get(worker).is_some_and(|live| live == session) {
            state.sessions.remove(worker);
        }
        state.locks.retain(|_, (owner, _)| owner.worker != *worker || owner.session != session);
        Ok(())
    }

    async fn session_alive(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError> {
        Ok(self.state().sessions.get(worker).is_some_and(|live| live == session))
    }

    async fn lock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        let mut state = self.state();
        if state.sessions.get(&owner.worker) != Some(&owner.session) {
            let gone = format!("session {} of worker {} is gone", owner.session, owner.worker);
            return Err(CoordinationError::Unavailable(gone));
        }
        let mut taken = Vec::new();
        for name in names {
            match state.locks.get(name) {
                Some((holder, _)) if holder == owner => {}
                Some((holder, _)) => {
                    let holder = format!("worker {} (epoch {})", holder.worker, holder.epoch);
                    return Err(CoordinationError::Held { lock: shown(name), holder });
                }
                // A name given twice is taken once.
                None if taken.iter().any(|(mine, _)| mine == name) => {}
                None => taken.push((name.clone(), self.take_one(name, owner)?)),
            }
        }
        state.locks.extend(taken.into_iter().map(|(name, file)| (name, (owner.clone(), file))));
        Ok(())
    }

    async fn unlock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        let mut state = self.state();
        state.locks.retain(|name, (holder, _)| holder != owner || !names.contains(name));
        Ok(())
    }

    async fn holder(&self, name: &LockName) -> Result<Option<LockOwner>, CoordinationError> {
        if let Some((owner, _)) = self.state().locks.get(name) {
            return Ok(Some(owner.clone()));
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
}

fn parse_owner(text: &str) -> Option<LockOwner> {
    let mut words = text.splitn(3, ' ');
    let worker = words.next()?.parse().ok()?;
    let epoch = words.next()?.parse().ok()?;
    Some(LockOwner { worker, session: words.next()?.to_owned(), epoch })
}

fn shown(name: &LockName) -> String {
    match name {
        LockName::Run(run) => format!("run {run}"),
        LockName::Workspace(run) => format!("the workspace of run {run}"),
    }
}

/// This machine's name; only ever shown.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "this machine".to_owned() } else { name.trim().to_owned() }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> CoordinationError + '_ {
    move |error| CoordinationError::of(path, &error)
}

/// Makes a folder that only its owner may enter, and closes an existing one to others.
fn private_folder(path: &Path) -> Result<(), CoordinationError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable(path))?;
    file::close_to_others(path, 0o700).map_err(unusable(path))
}

/// Keeps the data directory out of the user's repository, without a word in their own files.
fn ignore_everything(data: &Path) -> Result<(), CoordinationError> {
    let path = data.join(".gitignore");
    if fs::metadata(&path).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    // Whole or not at all: an empty one would hide nothing. Who comes second writes the same.
    let write = || {
        let mut file = NamedTempFile::new_in(data)?;
        file.write_all(b"*\n")?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(unusable(&path))
}

#[cfg(test)]
mod tests;

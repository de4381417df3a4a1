//! A hub on this machine: the user's own repository in embedded mode, or a bare one that Autopack owns. In the user's
//! repository only objects, `refs/heads/autopack/**`, `refs/autopack/**`, `save-before-*` tags and the target of a
//! landing are written: no configuration, no `HEAD`, no index, no work tree.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use git2::{ErrorCode, Repository};
use rustix::fs::{Access, access};

use autopack_shared::domain::ids::{FencingToken, Oid, RunId};
use autopack_shared::repo::open::{self, from_git};
use autopack_shared::repo::pack::{self, Quarantine};

use super::journal::{Journal, locks_below, stays};
use super::packing::{self, Packing};
use super::read::descends;
use super::refs::{self, Change};
use super::{AttemptKey, CasOutcome, CommitSpec, HeadFacts, Hub, HubError, RefName, SavePoint};

/// The file whose lock is the right to remove locks from a hub of ours; never unlinked.
const TURN: &str = "autopack.flock";

/// Whose repository the hub is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The user's: only locks named in our journal and in our places are ours to remove.
    Users,
    /// Autopack's: every lock that is there when we start is stale.
    Ours,
}

/// How a hub is used.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// The journal of locks: a file in the data directory, one a repository.
    pub journal: PathBuf,
    /// Where quarantines are made: a folder in the data directory, outside of the repository.
    pub scratch: PathBuf,
    /// How long a lock that the user's git holds is waited for.
    pub lock_wait: Duration,
    /// Whose repository it is.
    pub ownership: Ownership,
}

impl HubOptions {
    /// For a bare repository that only supervisors write, with what this process needs in its state folder.
    #[must_use]
    pub fn cluster(state_dir: &Path, project: &str) -> Self {
        Self {
            journal: state_dir.join("hubs").join(format!("{project}.journal")),
            scratch: state_dir.join("tmp").join(project),
            lock_wait: Duration::from_secs(5),
            ownership: Ownership::Ours,
        }
    }

    /// For the user's own repository, with everything of ours in places of the data directory that no run can be
    /// named like.
    #[must_use]
    pub fn embedded(data_dir: &Path) -> Self {
        Self {
            journal: data_dir.join("locks/hub.journal"),
            scratch: data_dir.join("tmp"),
            lock_wait: Duration::from_secs(5),
            ownership: Ownership::Users,
        }
    }
}

/// [`Hub`] over a repository on this machine.
#[derive(Debug)]
pub struct LocalHub {
    /// As registered: a work tree or a git folder.
    path: PathBuf,
    /// The folder with the objects and refs, shared by all work trees of the repository.
    common: PathBuf,
    options: HubOptions,
    /// Held during a ref change: one writer a process, so that the journal says what is locked now.
    journal: Mutex<Journal>,
    /// The right to remove locks from a hub that several hosts' supervisors share: a file lock beside its refs.
    turn: Mutex<Option<File>>,
}

impl LocalHub {
    /// Opens the repository at exactly `path` as a hub.
    ///
    /// # Errors
    /// [`HubError::Open`] when it is no repository, of another user or in a format that is not supported;
    /// [`HubError::ReadOnly`] when its objects or refs cannot be written.
    pub fn open(path: &Path, options: HubOptions) -> Result<Self, HubError> {
        let repo = open::open(path)?;
        let common = repo.commondir().canonicalize().map_err(io_error(repo.commondir()))?;
        for part in [common.clone(), common.join("objects"), common.join("refs")] {
            if access(&part, Access::WRITE_OK | Access::EXEC_OK).is_err() {
                return Err(HubError::ReadOnly { path: part });
            }
        }
        let journal = Journal::open(&options.journal).map_err(io_error(&options.journal))?;
        Ok(Self { path: path.to_path_buf(), common, options, journal: Mutex::new(journal), turn: Mutex::default() })
    }

    /// Makes the bare repository of a cluster at `path`, or opens it, and sets what `coordination.md` 3.6 asks for.
    ///
    /// # Errors
    /// As [`LocalHub::open`], or when the folder cannot be written.
    pub fn create(path: &Path, options: HubOptions) -> Result<Self, HubError> {
        let mut config = open::init_bare(path)?.config()?.open_level(git2::ConfigLevel::Local)?;
        let yes = ["core.fsyncObjectFiles", "receive.denyNonFastForwards", "receive.denyDeletes"];
        for key in yes.into_iter().chain(["transfer.fsckObjects", "core.protectHFS", "core.protectNTFS"]) {
            config.set_bool(key, true)?;
        }
        config.set_str("core.logAllRefUpdates", "always")?;
        config.set_str("core.hooksPath", "/dev/null")?;
        config.set_i32("gc.auto", 0)?;
        Self::open(path, options)
    }

    /// The folder of the repository's objects, for a mirror that borrows them.
    #[must_use]
    pub fn objects_dir(&self) -> PathBuf {
        self.common.join("objects")
    }

    /// Whether the right to remove locks is ours; the kernel frees it when its holder ends.
    fn take_turn(&self) -> Result<bool, HubError> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.is_some() {
            return Ok(true);
        }
        let path = self.common.join(TURN);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(io_error(&path))?;
        match file.try_lock() {
            Ok(()) => *turn = Some(file),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(io_error(&path)(error)),
        }
        Ok(true)
    }

    /// Removes the quarantines that an earlier life left; nothing of this process may be in one yet.
    pub fn sweep_scratch(&self) {
        pack::sweep_quarantines(&self.options.scratch);
    }

    /// Where it is said that a pack is being stored: beside the journal.
    fn packing_mark(&self) -> PathBuf {
        self.options.journal.with_extension("packing")
    }

    pub(super) fn common(&self) -> &Path {
        &self.common
    }

    pub(super) const fn options(&self) -> &HubOptions {
        &self.options
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        // The journal is a file: a panic in another thread leaves it as valid as a crash does.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bare(&self) -> Result<Repository, HubError> {
        // It could be opened when it was registered: it was moved since, or may not be read.
        open::open_bare(&self.common).map_err(|source| HubError::Away { path: self.common.clone(), source })
    }

    /// Points a ref at an object, wherever it was.
    fn put(&self, token: FencingToken, name: &RefName, new: Oid, why: &str) -> Result<(), HubError> {
        refs::check_object(&self.bare()?, name, new)?;
        let decide = |tip| {
            if tip == Some(new) { Change::Keep(CasOutcome::Already) } else { Change::Set(new) }
        };
        self.fenced(token, name, why, decide)?;
        Ok(())
    }

    /// A branch moves to a descendant, and not under somebody's work tree.
    fn check_branch(&self, repo: &Repository, name: &RefName, old: Option<Oid>, new: Oid) -> Result<(), HubError> {
        if let Some(old) = old {
            let forward = old == new || descends(repo, new, old)?;
            if !forward {
                return Err(HubError::NotForward { name: name.clone(), old, new });
            }
        }
        match self.checked_out(name)? {
            Some(path) if refs::direct(repo, name.as_str())? != Some(new) => {
                Err(HubError::CheckedOut { name: name.clone(), path })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The locks that can be removed: our own by name, or all of them in a repository of ours.
    fn stale_locks(&self, names: Vec<String>) -> Vec<PathBuf> {
        let lock = |name: String| self.common.join(format!("{name}.lock"));
        let mut locks: Vec<PathBuf> = names.into_iter().filter(|name| RefName::is_ours(name)).map(lock).collect();
        if self.options.ownership == Ownership::Ours {
            locks.extend(["packed-refs", "index", "HEAD", "config"].map(|name| lock(name.to_owned())));
            locks_below(&self.common.join("refs"), &mut locks);
        }
        locks.sort();
        locks.dedup();
        locks
    }
}

impl Hub for LocalHub {
    fn cluster(&self) -> Result<Option<String>, HubError> {
        refs::read_owner(&self.bare()?)
    }

    fn claim(&self, cluster: &str) -> Result<(), HubError> {
        if self.cluster()?.as_deref() == Some(cluster) { Ok(()) } else { self.mark(cluster) }
    }

    fn fence(&self) -> Result<Option<FencingToken>, HubError> {
        refs::read_fence(&self.bare()?)
    }

    fn bump_fence(&self, token: FencingToken) -> Result<(), HubError> {
        self.raise(token)
    }

    fn retire(&self) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn recover(&self) -> Result<Vec<PathBuf>, HubError> {
        if self.options.ownership == Ownership::Ours && !self.take_turn()? {
            // A director that was replaced is still there and may be in the middle of a move: its locks are not stale.
            return Ok(Vec::new());
        }
        let mut journal = self.journal();
        let names = journal.names().map_err(io_error(journal.path()))?;
        let mut removed = Vec::new();
        for file in self.stale_locks(names) {
            // The user's `git pack-refs` locks our refs too, for a moment: what goes away by itself was not ours.
            if stays(&file, self.options.lock_wait) {
                fs::remove_file(&file).map_err(io_error(&file))?;
                removed.push(file);
            }
        }
        journal.clear().map_err(io_error(journal.path()))?;
        let mark = self.packing_mark();
        packing::sweep(&mark, &self.objects_dir()).map_err(io_error(&mark))?;
        if self.options.ownership == Ownership::Users {
            // A supervisor of a cluster may be taking in packs while it is elected: it sweeps when it starts.
            self.sweep_scratch();
        }
        Ok(removed)
    }

    fn tip(&self, name: &RefName) -> Result<Option<Oid>, HubError> {
        refs::direct(&self.bare()?, name.as_str())
    }

    fn cas_ref(
        &self,
        token: FencingToken,
        name: &RefName,
        old: Option<Oid>,
        new: Oid,
        why: &str,
    ) -> Result<CasOutcome, HubError> {
        let repo = self.bare()?;
        refs::check_object(&repo, name, new)?;
        if name.is_branch() {
            self.check_branch(&repo, name, old, new)?;
        }
        self.fenced(token, name, why, |tip| {
            if tip == Some(new) {
                Change::Keep(CasOutcome::Already)
            } else if tip == old {
                Change::Set(new)
            } else {
                Change::Keep(CasOutcome::Moved { tip })
            }
        })
    }

    fn save_point(&self, token: FencingToken, at: &AttemptKey, commit: Oid) -> Result<SavePoint, HubError> {
        let repo = self.bare()?;
        let tag = RefName::save_tag(&at.run, &at.phase);
        let earlier = repo.references_glob(&format!("refs/autopack/save/{}/{}/*", at.run, at.phase))?;
        let mut ours: Vec<Oid> = earlier.filter_map(|found| found.ok()?.target().map(from_git)).collect();
        ours.push(commit);
        let tagged = refs::direct(&repo, tag.as_str())?.is_none_or(|there| ours.contains(&there));
        // The tag first: until the save ref moves, the old one still proves that an old tag is ours.
        if tagged {
            self.put(token, &tag, commit, "save point")?;
        }
        self.put(token, &RefName::save(&at.run, &at.phase, at.attempt), commit, "save point")?;
        Ok(SavePoint { commit, tagged })
    }

    fn keep_alive(&self, token: FencingToken, at: &AttemptKey, object: Oid) -> Result<(), HubError> {
        self.put(token, &RefName::pending(at), object, "pending")
    }

    fn release(&self, token: FencingToken, run: &RunId) -> Result<usize, HubError> {
        let mut released = 0;
        for name in self.pending_of(run)? {
            let outcome = self.fenced(token, &name, "released", |tip| {
                tip.map_or(Change::Keep(CasOutcome::Already), |_| Change::Remove)
            })?;
            released += usize::from(outcome == CasOutcome::Applied);
        }
        Ok(released)
    }

    fn run_branches(&self) -> Result<Vec<(String, Oid)>, HubError> {
        self.branches_of_runs()
    }

    fn commit(&self, spec: &CommitSpec) -> Result<Oid, HubError> {
        refs::write_commit(&self.bare()?, spec)
    }

    fn quarantine(&self, _base: Oid) -> Result<Quarantine, HubError> {
        Ok(Quarantine::new(&self.objects_dir(), &self.options.scratch)?)
    }

    fn promote(&self, from: &Quarantine, base_commit: Oid, result_tree: Oid) -> Result<(), HubError> {
        let mark = self.packing_mark();
        let packing = Packing::begin(&mark).map_err(io_error(&mark))?;
        from.promote(&self.bare()?, base_commit, result_tree)?;
        drop(packing);
        self.barrier()
    }

    fn repository(&self, _with: &[Oid]) -> Result<Repository, HubError> {
        self.bare()
    }

    fn head(&self) -> Result<HeadFacts, HubError> {
        let away = |source| HubError::Away { path: self.path.clone(), source };
        let repo = open::open(&self.path).map_err(away)?;
        let branch = repo.find_reference("HEAD")?.symbolic_target()?.map(str::to_owned);
        match repo.head() {
            Ok(head) => Ok(HeadFacts { oid: Some(from_git(head.peel_to_commit()?.id())), branch }),
            Err(error) if error.code() == ErrorCode::UnbornBranch => Ok(HeadFacts { oid: None, branch }),
            Err(error) => Err(error.into()),
        }
    }

    fn checked_out(&self, name: &RefName) -> Result<Option<PathBuf>, HubError> {
        super::read::checked_out(&self.common, name)
    }
}

/// Says which file or folder an I/O error is about.
pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> HubError + use<> {
    let path = path.to_path_buf();
    move |source| HubError::Io { path, source }
}

//! Worktrees of this worker: made from its mirror, handed to a builder or a gate, collected, thrown away. Everything
//! that touches git or many files runs off the async threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use autopack_shared::domain::ids::{Oid, RunId};
use autopack_shared::repo::collect::{CollectError, CollectLimits, Skipped};
use autopack_shared::repo::import::{ImportError, import_patch};
use autopack_shared::repo::include::{IncludeLimits, Included};
use autopack_shared::repo::mirror::{self, Mirror, MirrorError, Purpose, ScanCopy, WorkspaceKey};

use crate::builder::{BuildError, DISK_FULL};
use crate::pool::{Pool, WarmLimits};
use crate::provision;

/// The folder of scratch folders.
const SCRATCH: &str = ".scratch";

/// Where worktrees are made.
#[derive(Debug)]
pub struct Workspaces {
    mirror: Arc<Mirror>,
    root: PathBuf,
    pool: Arc<Pool>,
}

/// One worktree and the scratch folder beside it.
#[derive(Debug)]
pub struct Workspace {
    inner: Arc<mirror::Workspace>,
    scratch: PathBuf,
}

/// What a builder left.
#[derive(Debug)]
pub struct Collected {
    /// The tree.
    pub tree: Oid,
    /// What was left out or found, for people.
    pub notices: Vec<String>,
}

impl Workspace {
    /// The tree, without any git metadata.
    #[must_use]
    pub fn tree(&self) -> &Path {
        self.inner.path()
    }

    /// A folder for temporary files, outside of the tree.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Whether it is of a gate's base, before the change.
    #[must_use]
    pub fn is_baseline(&self) -> bool {
        self.inner.key().purpose == Purpose::Baseline
    }

    /// The folder above which no git of a builder may look for a repository.
    #[must_use]
    pub fn ceiling(&self) -> String {
        self.inner.path().parent().map_or_else(String::new, |p| p.display().to_string())
    }
}

impl Workspaces {
    /// Opens the mirror below `root`, which borrows the objects in `objects`, and removes what earlier workers left.
    /// `wish` is told when worktrees could be prepared.
    ///
    /// # Errors
    /// When the mirror cannot be opened or made.
    pub fn open(root: &Path, objects: Option<&Path>, warm: WarmLimits, wish: Arc<Notify>) -> Result<Self, MirrorError> {
        let mirror = Arc::new(Mirror::open_or_create(root, objects)?);
        for key in mirror.cleanup(&[])? {
            tracing::info!(run = %key.run, epoch = key.epoch, "removed a worktree that an earlier worker left");
        }
        for scratch in [root.join(SCRATCH), mirror.scan_copies()] {
            if let Err(error) = mirror::delete_folder(&scratch) {
                tracing::warn!(%error, "scratch folders could not be swept");
            }
        }
        let pool = Arc::new(Pool::new(mirror.clone(), root.to_path_buf(), warm, wish));
        Ok(Self { mirror, root: root.to_path_buf(), pool })
    }

    /// What is prepared of it.
    pub(crate) fn pool(&self) -> Arc<Pool> {
        self.pool.clone()
    }

    /// Whether a commit is here whole, for a mirror that fetches; and if not, what need not be sent for it.
    ///
    /// # Errors
    /// `workspace` when the mirror cannot be read.
    pub(crate) async fn lacks(&self, commit: Oid) -> Result<Option<Vec<Oid>>, BuildError> {
        let mirror = self.mirror.clone();
        blocking("workspace", move || {
            let failed = |e: MirrorError| BuildError::of("workspace", &e);
            if mirror.has_base(commit).map_err(failed)? {
                return Ok(None);
            }
            mirror.bases().map(Some).map_err(failed)
        })
        .await
    }

    /// Takes in the pack of a commit that was fetched.
    ///
    /// # Errors
    /// `workspace` when it cannot be stored, or is not that commit's.
    pub(crate) async fn take(&self, commit: Oid, pack: Vec<u8>) -> Result<(), BuildError> {
        let mirror = self.mirror.clone();
        blocking("workspace", move || mirror.take_base(commit, &pack).map_err(|e| BuildError::of("workspace", &e)))
            .await
    }

    /// A checkout of a commit to be scanned.
    ///
    /// # Errors
    /// `unsafe_path` for a commit that is not checked out, `workspace` when it cannot be made.
    pub(crate) async fn scan_copy(&self, commit: Oid, branch: Option<String>) -> Result<ScanCopy, BuildError> {
        let mirror = self.mirror.clone();
        blocking("workspace", move || {
            mirror.scan_copy(commit, branch.as_deref()).map_err(|error| {
                let unsafe_path = matches!(error, MirrorError::UnsafePath { .. });
                BuildError::of(if unsafe_path { "unsafe_path" } else { "workspace" }, &error)
            })
        })
        .await
    }

    /// A worktree at a commit: one that was prepared, or a fresh one.
    ///
    /// # Errors
    /// `workspace` when it cannot be made.
    pub async fn create(
        &self,
        run: &RunId,
        epoch: u64,
        attempt: u32,
        base: Oid,
        purpose: Purpose,
    ) -> Result<Workspace, BuildError> {
        let mirror = self.mirror.clone();
        let key = WorkspaceKey { run: run.clone(), epoch, attempt, purpose };
        // What runs on the base while the change's worktree stands leaves nothing in its scratch folder.
        let beside = if purpose == Purpose::Baseline { "-baseline" } else { "" };
        let scratch = self.root.join(SCRATCH).join(format!("{run}-{epoch}-{attempt}{beside}"));
        let (made, pool) = (scratch.clone(), self.pool.clone());
        let inner = blocking("workspace", move || {
            std::fs::create_dir_all(&made).map_err(|e| BuildError::of("workspace", &e))?;
            let created = match pool.take(base) {
                Some(prepared) => mirror.create_from(&key, base, prepared),
                None => mirror.create(&key, base),
            };
            let created = created.map_err(|e| BuildError::of("workspace", &e));
            match &created {
                Err(error) if error.reason == DISK_FULL => pool.make_room(),
                Ok(_) | Err(_) => {}
            }
            created
        })
        .await?;
        self.pool.served(base);
        Ok(Workspace { inner: Arc::new(inner), scratch })
    }

    /// Brings the ignored files that the trusted base lists from a folder into a worktree that no builder has had.
    ///
    /// # Errors
    /// `include` when they cannot be brought.
    pub(crate) async fn include(
        &self,
        space: &Workspace,
        trusted: Oid,
        folder: PathBuf,
    ) -> Result<Included, BuildError> {
        let (mirror, inner) = (self.mirror.clone(), space.inner.clone());
        blocking("include", move || {
            let brought = mirror.include(&inner, trusted, &folder, &IncludeLimits::default());
            brought.map_err(|e| BuildError::of("include", &e))
        })
        .await
    }

    /// The tree that a builder left, as objects in the mirror.
    ///
    /// # Errors
    /// The collection's reason when the workspace cannot be taken whole; `git_internal` names what git would refuse.
    pub async fn collect(&self, space: &Workspace) -> Result<Collected, BuildError> {
        let (mirror, inner) = (self.mirror.clone(), space.inner.clone());
        let found = blocking("workspace", move || {
            mirror.collect(&inner, &CollectLimits::default()).map_err(|e| BuildError::of(collect_reason(&e), &e))
        })
        .await?;
        if !found.nested_git.is_empty() {
            let named: Vec<_> = found.nested_git.iter().take(20).map(|path| String::from_utf8_lossy(path)).collect();
            return Err(BuildError::new("git_internal", format!("remove git's own folder: {}", named.join(", "))));
        }
        let mut notices: Vec<String> = found.skipped.iter().take(20).map(skipped).collect();
        if found.root_git {
            notices.push("a .git in the root was discarded".to_owned());
        }
        Ok(Collected { tree: found.result_tree, notices })
    }

    /// Imports a unified diff onto a commit; no file is touched.
    ///
    /// # Errors
    /// `malformed_patch`, `patch_refused` or `conflict`.
    pub async fn import(&self, base: Oid, diff: String) -> Result<Oid, BuildError> {
        let mirror = self.mirror.clone();
        blocking("workspace", move || {
            let repo = mirror.repository().map_err(|e| BuildError::of("workspace", &e))?;
            import_patch(&repo, base, diff.as_bytes()).map_err(|e| BuildError::of(import_reason(&e), &e))
        })
        .await
    }

    /// What the supervisor lacks of a tree, as a pack.
    ///
    /// # Errors
    /// `workspace` when an object cannot be read.
    pub async fn pack(&self, base: Oid, tree: Oid) -> Result<Vec<u8>, BuildError> {
        let mirror = self.mirror.clone();
        blocking("workspace", move || mirror.pack(base, tree).map_err(|e| BuildError::of("workspace", &e))).await
    }

    /// Throws a worktree away. What cannot be removed now is removed at the next start.
    pub async fn remove(&self, space: Workspace) {
        let mirror = self.mirror.clone();
        let removed = blocking("workspace", move || {
            let gone = mirror.remove(space.inner.key());
            // Secrets first; what else there is may have been made by a builder. Swept at the next start where this fails.
            let swept = mirror::delete_folder(&provision::folder(&space.scratch))
                .and_then(|()| mirror::delete_folder(&space.scratch));
            if let Err(error) = swept {
                tracing::warn!(%error, folder = %space.scratch.display(), "a scratch folder could not be removed");
            }
            gone.map_err(|e| BuildError::of("workspace", &e))
        })
        .await;
        if let Err(error) = removed {
            tracing::warn!(%error, "a worktree could not be removed");
        }
    }
}

async fn blocking<T, F>(reason: &'static str, work: F) -> Result<T, BuildError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, BuildError> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|e| BuildError::new(reason, format!("it panicked: {e}")))?
}

fn skipped(entry: &Skipped) -> String {
    format!("{:?} {} was left out", entry.kind, String::from_utf8_lossy(&entry.path)).to_lowercase()
}

fn collect_reason(error: &CollectError) -> &'static str {
    match error {
        CollectError::Swapped { .. } => "workspace_swapped",
        CollectError::Unstable { .. } => "workspace_unstable",
        CollectError::TooLarge { .. } => "too_large",
        CollectError::TooComplex { .. } => "too_complex",
        CollectError::Unreadable { .. }
        | CollectError::Mount { .. }
        | CollectError::Io { .. }
        | CollectError::Tree(_)
        | CollectError::Open(_)
        | CollectError::Git(_) => "workspace_unreadable",
    }
}

fn import_reason(error: &ImportError) -> &'static str {
    match error {
        ImportError::Malformed { .. } => "malformed_patch",
        ImportError::Refused { .. } => "patch_refused",
        ImportError::Conflict { .. } => "conflict",
        ImportError::Object(_) | ImportError::Write(_) => "workspace",
    }
}

//! Hostile builders at work in a real worktree of a real mirror: what they leave is collected, sent through quarantine
//! and judged, and the threat that each test stands for says what has to come of it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use git2::build::TreeUpdateBuilder;
use git2::{FileMode, ObjectType, Repository, Signature, Time};
use tempfile::TempDir;

use autopack_shared::domain::evaluate::{Decision, PhaseScope, Verdict, Window, evaluate};
use autopack_shared::domain::ids::{Oid, RunId};
use autopack_shared::domain::policy::Policy;
use autopack_shared::repo::collect::{CollectError, CollectLimits, Collected};
use autopack_shared::repo::facts::{Limits, change_facts};
use autopack_shared::repo::import::import_patch;
use autopack_shared::repo::mirror::{Mirror, MirrorError, Purpose, Workspace, WorkspaceKey};
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::pack::{PackBudget, PackError, Quarantine};
use autopack_shared::repo::tree::{self, Entry};

mod content;
mod git;
mod links;
mod names;
mod patches;
mod special;
mod trees;

/// What stands in the base of every attack.
const FILES: &[(&str, &str)] = &[
    ("README.md", "# Site\n"),
    ("docs/guide.md", "# Guide\n"),
    ("examples/a.txt", "one\ntwo\nthree\n"),
    ("examples/deep/b.txt", "b\n"),
    ("src/autopack/main.py", "print('core')\n"),
];

/// A hub with one commit, and a builder's worktree of it.
struct Attack {
    dir: TempDir,
    hub: Repository,
    mirror: Mirror,
    space: Workspace,
    base: Oid,
}

impl Attack {
    fn new() -> Self {
        Self::on(&[])
    }

    /// With files besides the usual ones.
    fn on(more: &[(&str, &[u8])]) -> Self {
        Self::at_place(&std::env::temp_dir(), more)
    }

    /// The same below a folder of one's choice.
    fn at_place(place: &Path, more: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir_in(place).unwrap();
        let hub = Repository::init_bare(dir.path().join("hub")).unwrap();
        let mut update = TreeUpdateBuilder::new();
        for (path, text) in FILES.iter().map(|(path, text)| (*path, text.as_bytes())).chain(more.iter().copied()) {
            update.upsert(path, hub.blob(text).unwrap(), FileMode::Blob);
        }
        let empty = hub.find_tree(hub.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let root = hub.find_tree(update.create_updated(&hub, &empty).unwrap()).unwrap();
        let who = Signature::new("t", "t@example.invalid", &Time::new(0, 0)).unwrap();
        let base = from_git(hub.commit(Some("refs/heads/main"), &who, &who, "base", &root, &[]).unwrap());
        drop((empty, root));
        let mirror = Mirror::open_or_create(&dir.path().join("worker"), Some(&dir.path().join("hub/objects"))).unwrap();
        let key = WorkspaceKey { run: RunId::new("r").unwrap(), epoch: 1, attempt: 1, purpose: Purpose::Build };
        let space = mirror.create(&key, base).unwrap();
        Self { dir, hub, mirror, space, base }
    }

    /// A place in the worktree.
    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.space.path().join(path)
    }

    /// Writes a file with the folders above it.
    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A file outside of the worktree that must stay as it is.
    fn canary(&self) -> PathBuf {
        let path = self.dir.path().join("canary");
        if !path.exists() {
            fs::write(&path, "alive\n").unwrap();
        }
        path
    }

    fn collect(&self) -> Result<Collected, CollectError> {
        self.mirror.collect(&self.space, &CollectLimits::default())
    }

    /// The paths that came of it, and nothing else.
    fn changed(&self) -> Vec<String> {
        let found = self.collect().unwrap();
        found.changed.iter().map(|change| String::from_utf8_lossy(&change.path).into_owned()).collect()
    }

    /// Sends a tree of the worker's to the hub's quarantine.
    fn quarantined(&self, tree: Oid) -> Result<Quarantine, PackError> {
        let pack = self.mirror.pack(self.base, tree).map_err(|error| {
            let MirrorError::Pack(refused) = error else { panic!("{error}") };
            refused
        })?;
        let quarantine = Quarantine::new(&self.dir.path().join("hub/objects"), &self.dir.path().join("scratch"))?;
        quarantine.ingest(&pack, &PackBudget::default())?;
        quarantine.verify(self.base, tree)?;
        Ok(quarantine)
    }

    /// The verdict on a tree of the worker's.
    fn judged_tree(&self, tree: Oid) -> Verdict {
        let quarantine = self.quarantined(tree).unwrap();
        judged(quarantine.repo(), self.base, tree)
    }

    /// The verdict on what stands in the worktree.
    fn judged(&self) -> Verdict {
        self.judged_tree(self.collect().unwrap().result_tree)
    }

    /// The verdict on a patch text.
    fn judged_patch(&self, text: &str) -> Verdict {
        let repo = self.mirror.repository().unwrap();
        match import_patch(&repo, self.base, text.as_bytes()) {
            Ok(tree) => self.judged_tree(tree),
            Err(refused) => refused.into_verdict((Policy::builtin().digest(), None)).unwrap(),
        }
    }

    /// The base's tree with some more entries in its root, made by hand.
    fn by_hand(&self, more: &[(u32, &str, Oid)]) -> Oid {
        let repo = self.mirror.repository().unwrap();
        let odb = repo.odb().unwrap();
        let mut entries = tree::read(&odb, tree::tree_of(&repo, self.base).unwrap()).unwrap();
        entries.extend(more.iter().map(|(mode, name, oid)| entry(*mode, name, *oid)));
        tree::write(&odb, entries).unwrap()
    }

    /// A blob in the worker's mirror.
    fn blob(&self, bytes: &[u8]) -> Oid {
        from_git(self.mirror.repository().unwrap().odb().unwrap().write(ObjectType::Blob, bytes).unwrap())
    }

    /// A tree in the worker's mirror, names and modes exactly as written.
    fn tree(&self, entries: &[(u32, &str, Oid)]) -> Oid {
        let entries = entries.iter().map(|(mode, name, oid)| entry(*mode, name, *oid)).collect();
        tree::write(&self.mirror.repository().unwrap().odb().unwrap(), entries).unwrap()
    }

    /// Whether the hub has anything of it, and whether its branch is where it was.
    fn hub_is_as_it_was(&self, tree: Oid) -> bool {
        let hub = Repository::open_bare(self.hub.path()).unwrap();
        let main = hub.refname_to_id("refs/heads/main").unwrap();
        !hub.odb().unwrap().exists(to_git(tree)) && from_git(main) == self.base
    }
}

fn entry(mode: u32, name: &str, oid: Oid) -> Entry {
    Entry { mode, name: name.as_bytes().to_vec(), oid }
}

fn judged(repo: &Repository, base: Oid, tree: Oid) -> Verdict {
    let facts = change_facts(repo, base, tree, &Limits::default()).unwrap();
    evaluate(&facts, &Policy::builtin(), None, &PhaseScope::default(), &Window::default())
}

/// A verdict as `DECISION code code`.
fn said(verdict: &Verdict) -> String {
    let codes = verdict.reasons.iter().map(|reason| reason.code.as_str());
    std::iter::once(verdict.verdict.as_str()).chain(codes).collect::<Vec<_>>().join(" ")
}

/// Whether a verdict lets nothing through without a person, for one of these reasons.
fn stops(verdict: &Verdict, code: &str) -> bool {
    let names = verdict.reasons.iter().any(|reason| reason.code.as_str() == code);
    names && verdict.verdict.strictness() >= Decision::ApprovalRequired.strictness()
}

/// Ends what another thread does, also where the test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A name of any bytes.
fn raw(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

//! Mirrors over a source repository, and workspaces made from them.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use git2::{ObjectType, Signature, Time};
use tempfile::TempDir;

use super::super::open::from_git;
use super::super::tree::Entry;
use super::*;

/// A source repository with a commit, and an empty worker root.
pub(in crate::repo) struct Fixture {
    pub(in crate::repo) dir: TempDir,
    pub(in crate::repo) source: Repository,
}

impl Fixture {
    pub(in crate::repo) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = open::init_bare(&dir.path().join("source.git")).unwrap();
        Self { dir, source }
    }

    pub(in crate::repo) fn mirror(&self) -> Mirror {
        Mirror::open_or_create(&self.dir.path().join("worker"), Some(&self.dir.path().join("source.git/objects")))
            .unwrap()
    }

    /// Writes a tree of (mode, path, content); a gitlink's content is ignored.
    pub(in crate::repo) fn tree(&self, files: &[(u32, &str, &str)]) -> Oid {
        let odb = self.source.odb().unwrap();
        let mut entries = Vec::new();
        let mut folders: std::collections::BTreeMap<&str, Vec<(u32, &str, &str)>> = std::collections::BTreeMap::new();
        for (mode, path, text) in files {
            if let Some((folder, rest)) = path.split_once('/') {
                folders.entry(folder).or_default().push((*mode, rest, text));
                continue;
            }
            let oid = from_git(odb.write(ObjectType::Blob, text.as_bytes()).unwrap());
            entries.push(Entry { mode: *mode, name: path.as_bytes().to_vec(), oid });
        }
        for (folder, files) in folders {
            entries.push(Entry { mode: 0o040_000, name: folder.as_bytes().to_vec(), oid: self.tree(&files) });
        }
        tree::write(&odb, entries).unwrap()
    }

    pub(in crate::repo) fn commit(&self, files: &[(u32, &str, &str)]) -> Oid {
        let tree = self.source.find_tree(to_git(self.tree(files))).unwrap();
        let who = Signature::new("u", "u@example.com", &Time::new(0, 0)).unwrap();
        from_git(self.source.commit(None, &who, &who, "m\n", &tree, &[]).unwrap())
    }
}

pub(in crate::repo) fn key(run: &str, epoch: u64) -> WorkspaceKey {
    WorkspaceKey { run: RunId::new(run).unwrap(), epoch, attempt: 1, purpose: Purpose::Build }
}

const FILES: &[(u32, &str, &str)] = &[
    (0o100_644, ".gitattributes", "* text eol=crlf filter=evil ident\n"),
    (0o100_644, "crlf.txt", "a\r\n$Id$\n"),
    (0o100_755, "bin/run", "#!/bin/sh\n"),
    (0o120_000, "bin/link", "../crlf.txt"),
    (0o160_000, "sub", ""),
];

#[test]
fn a_workspace_holds_raw_bytes_and_no_git() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 3), commit).unwrap();
    assert!(ws.path().ends_with("r/3-1/tree"));
    assert_eq!(fs::read(ws.path().join("crlf.txt")).unwrap(), b"a\r\n$Id$\n");
    assert_eq!(fs::metadata(ws.path().join("bin/run")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_link(ws.path().join("bin/link")).unwrap(), Path::new("../crlf.txt"));
    assert!(ws.path().join("sub").read_dir().unwrap().next().is_none());
    assert!(!ws.path().join(".git").exists());
    assert!(ws.git_link().starts_with(b"gitdir: "));

    let repo = mirror.repository().unwrap();
    let admin = repo.find_worktree("r.3.1.tree").unwrap();
    assert_eq!(admin.path(), ws.path());
    assert_eq!(repo.refname_to_id("refs/heads/wt/r/3-1/tree").unwrap(), to_git(commit));
    assert_eq!(mirror.collect(&ws, &CollectLimits::default()).unwrap().changed, []);
}

#[test]
fn the_source_repository_is_only_read() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let count = || walk(&f.dir.path().join("source.git"));
    let before = count();
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 1), commit).unwrap();
    fs::write(ws.path().join("new"), "n\n").unwrap();
    let collected = mirror.collect(&ws, &CollectLimits::default()).unwrap();
    assert!(!f.source.odb().unwrap().exists(to_git(collected.result_tree)));
    mirror.remove(ws.key()).unwrap();
    assert_eq!(count(), before);
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn parallel_creations_never_fail() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mirror = f.mirror();
    let other = f.mirror();
    std::thread::scope(|scope| {
        let make = |n: u64| {
            let mirror = if n.is_multiple_of(2) { &mirror } else { &other };
            scope.spawn(move || {
                mirror.create(&key(&format!("run-{}", n / 2), n), commit).map(|ws| ws.path().join("bin/run").exists())
            })
        };
        let threads: Vec<_> = (0..8).map(make).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap().unwrap()));
    });
    assert_eq!(mirror.list().unwrap().len(), 8);
    assert_eq!(mirror.repository().unwrap().worktrees().unwrap().len(), 8);
}

#[test]
fn hostile_paths_are_refused_before_anything_is_written() {
    let f = Fixture::new();
    let mirror = f.mirror();
    for bad in ["..", ".git", ".GIT", "git~1"] {
        let inner = f.tree(&[(0o100_644, bad, "owned\n")]);
        let odb = f.source.odb().unwrap();
        let tree = tree::write(&odb, vec![Entry { mode: 0o040_000, name: b"d".to_vec(), oid: inner }]).unwrap();
        let error = mirror.create(&key("r", 1), tree).unwrap_err();
        assert!(matches!(&error, MirrorError::UnsafePath { path } if *path == format!("d/{bad}")), "{error}");
    }
    assert_eq!(mirror.list().unwrap(), []);
    // The mirror's own folder is no name for a run.
    assert!(RunId::new("mirror.git").is_err());
}

#[test]
fn removal_takes_everything_and_can_be_repeated() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mirror = f.mirror();
    let ws = mirror.create(&key("r", 1), commit).unwrap();
    // A builder may leave links out of the workspace and folders nobody can enter.
    let outside = f.dir.path().join("outside");
    fs::write(&outside, "keep\n").unwrap();
    symlink(f.dir.path(), ws.path().join("out")).unwrap();
    fs::create_dir(ws.path().join("shut")).unwrap();
    fs::write(ws.path().join("shut/x"), "").unwrap();
    fs::set_permissions(ws.path().join("shut"), fs::Permissions::from_mode(0o000)).unwrap();

    mirror.remove(ws.key()).unwrap();
    mirror.remove(ws.key()).unwrap();
    assert!(outside.exists());
    assert!(!f.dir.path().join("worker/r").exists());
    let repo = mirror.repository().unwrap();
    assert_eq!(repo.worktrees().unwrap().len(), 0);
    assert!(repo.refname_to_id("refs/heads/wt/r/1-1/tree").is_err());
    assert!(walk(&f.dir.path().join("worker/.trash")).is_empty());
}

#[test]
fn leftovers_of_dead_epochs_are_cleaned_up() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mirror = f.mirror();
    for (run, epoch) in [("a", 1), ("a", 2), ("b", 1)] {
        mirror.create(&key(run, epoch), commit).unwrap();
    }
    // A life that was killed between moving a workspace away and forgetting it, and one in the middle of deleting.
    fs::remove_dir_all(f.dir.path().join("worker/b")).unwrap();
    fs::create_dir_all(f.dir.path().join("worker/.trash/half/tree")).unwrap();
    fs::create_dir_all(f.dir.path().join("worker/a/notes")).unwrap();

    let removed = mirror.cleanup(&[(RunId::new("a").unwrap(), 2)]).unwrap();
    assert_eq!(removed, [key("a", 1)]);
    assert_eq!(mirror.list().unwrap(), [key("a", 2)]);
    let repo = mirror.repository().unwrap();
    let names: Vec<String> = repo.worktrees().unwrap().iter().flatten().flatten().map(str::to_owned).collect();
    assert_eq!(names, ["a.2.1.tree"]);
    assert!(walk(&f.dir.path().join("worker/.trash")).is_empty());
    assert!(f.dir.path().join("worker/a/notes").exists(), "what is not a workspace is left alone");
}

#[test]
fn branches_whose_workspace_is_forgotten_go_too() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mirror = f.mirror();
    let kept = mirror.create(&key("a", 2), commit).unwrap();
    let repo = mirror.repository().unwrap();
    for name in ["refs/heads/wt/a/1-1/tree", "refs/heads/wt/b.x/7-2/gate", "refs/heads/wt/odd", "refs/heads/other"] {
        repo.reference(name, to_git(commit), true, "left").unwrap();
    }
    assert_eq!(mirror.cleanup(&[(RunId::new("a").unwrap(), 2)]).unwrap(), []);
    let repo = mirror.repository().unwrap();
    let names: Vec<String> =
        repo.references().unwrap().map(|found| found.unwrap().name().unwrap().to_owned()).collect();
    assert_eq!(names, ["refs/heads/other".to_owned(), kept.key().branch()]);
}

#[test]
fn the_turn_is_not_waited_for_for_ever() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mut mirror = f.mirror();
    mirror.turn_wait = Duration::from_millis(50);
    // Another process that hangs while it has the turn.
    let held = File::options().write(true).open(f.dir.path().join("worker/mirror.lock")).unwrap();
    held.lock().unwrap();
    assert!(matches!(mirror.create(&key("r", 1), commit), Err(MirrorError::Busy { .. })));
    drop(held);
    mirror.create(&key("r", 1), commit).unwrap();
}

#[test]
fn an_earlier_workspace_of_the_same_name_is_replaced() {
    let f = Fixture::new();
    let mirror = f.mirror();
    let first = mirror.create(&key("r", 1), f.commit(FILES)).unwrap();
    fs::write(first.path().join("left"), "").unwrap();
    let second = mirror.create(&key("r", 1), f.tree(&[(0o100_644, "only", "o\n")])).unwrap();
    assert!(second.path().join("only").exists() && !second.path().join("left").exists());
    // The first one's handle no longer is what stands at its path.
    let error = mirror.collect(&first, &CollectLimits::default()).unwrap_err();
    assert!(matches!(error, CollectError::Swapped { .. }), "{error}");
}

#[test]
fn a_mirror_without_a_source_lives_on_packs() {
    let f = Fixture::new();
    let commit = f.commit(FILES);
    let mirror = Mirror::open_or_create(&f.dir.path().join("remote"), None).unwrap();
    assert!(!mirror.has(commit).unwrap());
    mirror.import(&pack::pack_history(&f.source, commit, &[], |_| Ok(())).unwrap()).unwrap();
    let ws = mirror.create(&key("r", 1), commit).unwrap();
    fs::write(ws.path().join("new"), "n\n").unwrap();
    let collected = mirror.collect(&ws, &CollectLimits::default()).unwrap();
    assert!(!mirror.pack(commit, collected.result_tree).unwrap().is_empty());
}

#[test]
fn what_an_earlier_life_left_half_done_keeps_nothing() {
    let fixture = Fixture::new();
    let (mirror, key) = (fixture.mirror(), key("r", 1));
    let _left = mirror.create(&key, fixture.commit(FILES)).unwrap();
    let locks = [format!("{}.lock", key.branch()), "packed-refs.lock".to_owned(), "config.lock".to_owned()]
        .map(|name| mirror.git_dir().join(name));
    for lock in &locks {
        std::fs::write(lock, "").unwrap();
    }
    let half_made = mirror.git_dir().join("worktrees/r.2.1.tree");
    std::fs::create_dir(&half_made).unwrap();
    let about_to_be_made = fixture.dir.path().join("worker/other/7-1");
    std::fs::create_dir_all(&about_to_be_made).unwrap();
    assert_eq!(fixture.mirror().cleanup(&[]).unwrap(), [key]);
    assert!(!half_made.exists());
    assert!(!about_to_be_made.parent().unwrap().exists());
    assert!(locks.iter().all(|lock| !lock.exists()));
}

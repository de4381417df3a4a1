//! Worktrees that were prepared: what is given away is what a fresh one would be, whoever was at them.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::super::super::tree::TreeError;
use super::super::tests::{Fixture, key};
use super::*;

const OLD: &[(u32, &str, &str)] = &[
    (0o100_644, ".gitignore", "*.log\n"),
    (0o100_644, "a.txt", "a\n"),
    (0o100_755, "bin/run", "#!/bin/sh\n"),
    (0o100_644, "folder/deep/x", "x\n"),
    (0o100_644, "becomes/a/folder", "f\n"),
    (0o100_644, "becomes-file/one", "1\n"),
    (0o120_000, "link", "a.txt"),
    (0o160_000, "sub", ""),
    (0o160_000, "gone-sub", ""),
];

const NEW: &[(u32, &str, &str)] = &[
    (0o100_644, ".gitignore", "*.log\n"),
    (0o100_755, "a.txt", "a\n"),
    (0o100_755, "bin/run", "#!/bin/sh\necho\n"),
    (0o100_644, "fresh/deep/x", "x\n"),
    (0o100_644, "becomes", "f\n"),
    (0o100_644, "becomes-file/one/two", "2\n"),
    (0o120_000, "link", "bin/run"),
    (0o160_000, "sub", ""),
    (0o160_000, "new-sub", ""),
];

const ALL: u64 = u64::MAX;

fn yes() -> bool {
    true
}

/// Every path below a folder with its mode and what it holds.
fn listing(root: &Path) -> Vec<(PathBuf, u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in walk(root) {
        let stat = entry.symlink_metadata().unwrap();
        let holds = match () {
            () if stat.is_symlink() => fs::read_link(&entry).unwrap().into_os_string().into_encoded_bytes(),
            () if stat.is_file() => fs::read(&entry).unwrap(),
            () => Vec::new(),
        };
        found.push((entry.strip_prefix(root).unwrap().to_path_buf(), stat.permissions().mode(), holds));
    }
    found
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let below: Vec<PathBuf> =
        found.iter().filter(|path| path.symlink_metadata().unwrap().is_dir()).flat_map(|path| walk(path)).collect();
    found.extend(below);
    found.sort();
    found
}

/// What somebody does to a prepared tree.
type Touch<'a> = &'a dyn Fn(&Path);

/// A worktree for `base` from one that was prepared for `from`, which `touch` was at in between.
fn given(f: &Fixture, mirror: &Mirror, from: Oid, base: Oid, touch: impl FnOnce(&Path)) -> (Workspace, bool) {
    let prepared = mirror.prepare(from, ALL, &yes).unwrap();
    let place = prepared.place.clone();
    touch(&place.join("tree"));
    let inode = fs::metadata(place.join("tree")).map(|stat| std::os::unix::fs::MetadataExt::ino(&stat)).ok();
    let ws = mirror.create_from(&key("r", 1), base, prepared).unwrap();
    let used = fs::metadata(ws.path()).map(|stat| std::os::unix::fs::MetadataExt::ino(&stat)).ok() == inode;
    assert!(!place.exists(), "nothing of it is left");
    let fresh = mirror.create(&key("fresh", 1), base).unwrap();
    assert_eq!(listing(ws.path()), listing(fresh.path()));
    assert_eq!(mirror.collect(&ws, &CollectLimits::default()).unwrap().changed, []);
    let repo = mirror.repository().unwrap();
    assert_eq!(repo.find_worktree("r.1.1.tree").unwrap().path(), ws.path());
    assert_eq!(ws.base(), base);
    drop(repo);
    assert!(f.dir.path().exists());
    (ws, used)
}

#[test]
fn a_prepared_worktree_becomes_any_commit() {
    let f = Fixture::new();
    let (old, new) = (f.commit(OLD), f.commit(NEW));
    for (from, to) in [(old, old), (old, new), (new, old)] {
        let mirror = f.mirror();
        let (ws, used) = given(&f, &mirror, from, to, |_| {});
        assert!(used, "it was used, and not made anew");
        // What a builder does in it is seen, in files that were there before and in those that were moved to.
        fs::write(ws.path().join("bin/run"), "evil\n").unwrap();
        fs::write(ws.path().join("new.txt"), "n\n").unwrap();
        let changed = mirror.collect(&ws, &CollectLimits::default()).unwrap().changed;
        let names: Vec<_> = changed.iter().map(|change| String::from_utf8_lossy(&change.path).into_owned()).collect();
        assert_eq!(names, ["bin/run", "new.txt"]);
        mirror.cleanup(&[]).unwrap();
    }
}

#[test]
fn one_that_somebody_was_at_is_not_given_away() {
    let f = Fixture::new();
    let base = f.commit(OLD);
    let mirror = f.mirror();
    let outside = f.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let touches: [(&str, Touch<'_>); 8] = [
        ("content", &|tree| fs::write(tree.join("a.txt"), "b\n").unwrap()),
        ("content, with its old time", &|tree| {
            let file = fs::File::options().write(true).open(tree.join("a.txt")).unwrap();
            let was = file.metadata().unwrap().modified().unwrap();
            std::os::unix::fs::FileExt::write_at(&file, b"b", 0).unwrap();
            file.set_modified(was).unwrap();
        }),
        ("a file that would be ignored", &|tree| fs::write(tree.join("planted.log"), "x\n").unwrap()),
        ("a git folder", &|tree| fs::create_dir(tree.join(".git")).unwrap()),
        ("a file less", &|tree| fs::remove_file(tree.join("folder/deep/x")).unwrap()),
        ("a mode", &|tree| fs::set_permissions(tree.join("a.txt"), fs::Permissions::from_mode(0o755)).unwrap()),
        ("a link in place of a folder", &|tree| {
            fs::remove_dir_all(tree.join("bin")).unwrap();
            symlink(&outside, tree.join("bin")).unwrap();
        }),
        ("another tree", &|tree| {
            fs::rename(tree, outside.join("moved")).unwrap();
            symlink(outside.join("moved"), tree).unwrap();
        }),
    ];
    for (what, touch) in touches {
        let (_, used) = given(&f, &mirror, base, base, touch);
        assert!(!used, "{what}");
        mirror.cleanup(&[]).unwrap();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "nothing was written outside");
}

#[test]
fn a_name_that_leads_outside_is_not_written_into_a_prepared_one() {
    let f = Fixture::new();
    let (base, evil) = (f.commit(OLD), f.commit(&[(0o100_644, "a.txt", "a\n"), (0o100_644, ".git", "owned\n")]));
    let mirror = f.mirror();
    let prepared = mirror.prepare(base, ALL, &yes).unwrap();
    let refused = mirror.create_from(&key("r", 1), evil, prepared);
    assert!(matches!(refused, Err(MirrorError::UnsafePath { .. })));
    assert!(mirror.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(mirror.root.join(POOL)).unwrap().count(), 0);
}

#[test]
fn what_is_too_large_or_not_wanted_leaves_nothing() {
    let f = Fixture::new();
    let base = f.commit(OLD);
    let mirror = f.mirror();
    assert!(matches!(mirror.prepare(base, 3, &yes), Err(MirrorError::TooMuch { limit: 3 })));
    assert!(matches!(mirror.prepare(base, ALL, &|| false), Err(MirrorError::Unwanted)));
    assert!(matches!(mirror.prepare(Oid::ZERO, ALL, &yes), Err(MirrorError::Tree(TreeError::Missing { .. }))));
    let prepared = mirror.prepare(base, ALL, &yes).unwrap();
    assert_eq!((prepared.base(), prepared.bytes()), (base, 29));
    mirror.discard(prepared);
    assert_eq!(fs::read_dir(mirror.root.join(POOL)).unwrap().count(), 0);
    let left = mirror.prepare(base, ALL, &yes).unwrap();
    mirror.cleanup(&[]).unwrap();
    assert!(!left.place.exists(), "the next life starts without it");
}

#[test]
fn many_at_once_never_fail() {
    let f = Fixture::new();
    let (old, new) = (f.commit(OLD), f.commit(NEW));
    let mirror = f.mirror();
    std::thread::scope(|scope| {
        let make = |n: u64| {
            let prepared = n.is_multiple_of(3).then(|| mirror.prepare(old, ALL, &yes).unwrap());
            let mirror = &mirror;
            scope.spawn(move || {
                let key = key(&format!("run-{n}"), n);
                match prepared {
                    Some(prepared) => mirror.create_from(&key, new, prepared),
                    None => mirror.create(&key, new),
                }
                .map(|ws| listing(ws.path()).len())
            })
        };
        let threads: Vec<_> = (0..16).map(make).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap().unwrap() == 14));
    });
    assert_eq!(mirror.list().unwrap().len(), 16);
}

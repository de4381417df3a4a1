//! Checkouts, reading, and what a user's repository must never notice.

use std::collections::BTreeMap;

use autopack_shared::domain::ids::Digest;
use autopack_shared::repo::merge::Merged;
use autopack_shared::repo::pack::{PackBudget, pack_new_objects};

use super::*;

#[test]
fn a_branch_that_is_checked_out_stays() {
    let f = Fixture::new();
    let main = RefName::target("refs/heads/main").unwrap();
    let one = f.commit_on(f.base, "1\n");
    let error = f.hub.cas_ref(token(1), &main, Some(f.base), one, "land").unwrap_err();
    assert!(matches!(&error, HubError::CheckedOut { path, .. } if path.ends_with("repo")), "{error}");

    let repo = f.repo();
    let linked = repo.worktree("w", &f.dir.path().join("linked"), None).unwrap();
    let found = f.hub.checked_out(&RefName::target("refs/heads/w").unwrap()).unwrap().unwrap();
    assert_eq!(found, linked.path());

    repo.set_head_detached(to_git(f.base)).unwrap();
    assert!(f.hub.head().unwrap().detached());
    assert_eq!(f.hub.checked_out(&main).unwrap(), None);
    fs::create_dir(repo.path().join("rebase-merge")).unwrap();
    fs::write(repo.path().join("rebase-merge/head-name"), "refs/heads/main\n").unwrap();
    assert!(f.hub.checked_out(&main).unwrap().is_some(), "a rebase will write the branch when it ends");
    fs::remove_dir_all(repo.path().join("rebase-merge")).unwrap();
    assert_eq!(f.hub.cas_ref(token(1), &main, Some(f.base), one, "land").unwrap(), CasOutcome::Applied);
}

#[test]
fn reading_at_a_commit() {
    let f = Fixture::new();
    let one = f.commit_on(f.base, "1\n");
    assert_eq!(f.hub.read_file_at(one, "b.txt", 10).unwrap().unwrap(), b"1\n");
    for absent in ["c.txt", "a.txt/x", "", "../a.txt"] {
        assert_eq!(f.hub.read_file_at(one, absent, 10).unwrap(), None, "{absent}");
    }
    assert!(matches!(f.hub.read_file_at(one, "b.txt", 1), Err(HubError::TooLarge { .. })));
    assert!(f.hub.is_ancestor(f.base, one).unwrap() && !f.hub.is_ancestor(one, f.base).unwrap());
    assert_eq!(f.hub.merge_base(f.commit_on(f.base, "2\n"), one).unwrap(), Some(f.base));
    f.hub.verify(one).unwrap();
    let head = f.hub.head().unwrap();
    assert_eq!((head.oid, head.branch.as_deref()), (Some(f.base), Some("refs/heads/main")));
}

/// Every file of the checkout and of its git folder that is not an object, a ref of ours or an empty folder.
fn snapshot(dir: &Path, root: &Path, into: &mut BTreeMap<String, Digest>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let ours = [
            ".git/logs/refs/heads/autopack",
            ".git/objects",
            ".git/refs/autopack",
            ".git/refs/heads/autopack",
            ".git/refs/tags",
        ];
        if ours.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            snapshot(&path, root, into);
        } else {
            into.insert(name, Digest::of(&fs::read(&path).unwrap()));
        }
    }
}

/// A worker's repository borrows the hub's objects, makes a result and sends it as a pack.
fn made_by_a_worker(f: &Fixture) -> (Oid, Vec<u8>) {
    let worker_dir = f.dir.path().join("worker.git");
    let worker = autopack_shared::repo::open::init_bare(&worker_dir).unwrap();
    autopack_shared::repo::open::borrow_objects(&worker_dir, &f.hub.objects_dir()).unwrap();
    drop(worker);
    let worker = autopack_shared::repo::open::open_bare(&worker_dir).unwrap();
    let odb = worker.odb().unwrap();
    let blob = from_git(odb.write(ObjectType::Blob, b"made by a worker\n").unwrap());
    let result = tree::write(&odb, vec![Entry { mode: 0o100_644, name: b"w.txt".to_vec(), oid: blob }]).unwrap();
    (result, pack_new_objects(&worker, f.base, result).unwrap())
}

#[test]
fn a_full_cycle_leaves_the_users_repository_as_it_was() {
    let f = Fixture::new();
    let root = f.dir.path().join("repo");
    let look = || {
        let mut files = BTreeMap::new();
        snapshot(&root, &root, &mut files);
        files
    };
    let before = look();

    let (result, pack) = made_by_a_worker(&f);
    let branch = RefName::run(&run());
    f.hub.cas_ref(token(1), &branch, None, f.base, "fork").unwrap();
    let quarantine = f.hub.quarantine(f.base).unwrap();
    quarantine.ingest(&pack, &PackBudget::default()).unwrap();
    f.hub.promote(&quarantine, f.base, result).unwrap();
    drop(quarantine);
    f.hub.keep_alive(token(1), &attempt(1), result).unwrap();
    let spec = CommitSpec { tree: result, parents: vec![f.base], message: "apply".into(), seconds: 5 };
    let commit = f.hub.commit(&spec).unwrap();
    f.hub.save_point(token(1), &attempt(1), f.base).unwrap();
    assert_eq!(f.hub.cas_ref(token(1), &branch, Some(f.base), commit, "apply").unwrap(), CasOutcome::Applied);
    let base_tree = f.hub.tree_of(f.base).unwrap();
    assert_eq!(f.hub.revert_tree(base_tree, result, result).unwrap(), Merged::Clean(base_tree));
    f.hub.release(token(1), &run()).unwrap();
    assert_eq!(f.hub.recover().unwrap(), Vec::<std::path::PathBuf>::new());

    let after = look();
    let differ: Vec<_> =
        before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(differ.is_empty(), "{differ:?}");
    assert!(fs::read_dir(f.dir.path().join("data/tmp")).unwrap().next().is_none(), "the quarantine is gone");
}

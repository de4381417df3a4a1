//! The hub on real repositories: fences, races, crashes, and what a user's repository must never notice.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Barrier;

use git2::{ObjectType, Repository};
use tempfile::TempDir;

use autopack_shared::domain::ids::{Digest, PhaseId, RunId};
use autopack_shared::repo::merge::Merged;
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::pack::{PackBudget, pack_new_objects};
use autopack_shared::repo::tree::{self, Entry};

use super::*;

mod crash;

const fn token(epoch: u64) -> FencingToken {
    FencingToken {
        incarnation: 1,
        epoch,
    }
}

fn run() -> RunId {
    RunId::new("fix-docs").unwrap()
}

fn attempt(number: u32) -> AttemptKey {
    AttemptKey {
        run: run(),
        epoch: 4,
        phase: PhaseId::new("p1").unwrap(),
        attempt: number,
    }
}

/// A user's repository with one commit on `main`, checked out, and a hub over it with the fence at 1.1.
struct Fixture {
    dir: TempDir,
    hub: LocalHub,
    base: Oid,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repository::init_opts(
            dir.path().join("repo"),
            git2::RepositoryInitOptions::new().initial_head("main"),
        )
        .unwrap();
        fs::write(dir.path().join("repo/a.txt"), "a\n").unwrap();
        let mut index = repo.index().unwrap();
        index.add_path(Path::new("a.txt")).unwrap();
        index.write().unwrap();
        let tree = repo.find_tree(index.write_tree().unwrap()).unwrap();
        let who =
            git2::Signature::new("u", "u@example.com", &git2::Time::new(1_700_000_000, 0)).unwrap();
        let base = from_git(
            repo.commit(Some("HEAD"), &who, &who, "first\n", &tree, &[])
                .unwrap(),
        );
        let hub = Self::open_hub(dir.path(), "one");
        hub.bump_fence(token(1)).unwrap();
        Self { dir, hub, base }
    }

    fn open_hub(dir: &Path, name: &str) -> LocalHub {
        LocalHub::open(&dir.join("repo"), Self::options(dir, name)).unwrap()
    }

    fn options(dir: &Path, name: &str) -> HubOptions {
        let data = dir.join("data");
        HubOptions {
            journal: data.join(format!("{name}.locks")),
            scratch: data.join("tmp"),
            lock_wait: std::time::Duration::from_millis(60),
            ownership: Ownership::Users,
        }
    }

    fn repo(&self) -> Repository {
        Repository::open(self.dir.path().join("repo")).unwrap()
    }

    /// A tree with one file more than the base's.
    fn tree_with(&self, name: &str, text: &str) -> Oid {
        let repo = self.repo();
        let odb = repo.odb().unwrap();
        let mut entries = tree::read(&odb, tree::tree_of(&repo, self.base).unwrap()).unwrap();
        let oid = from_git(odb.write(ObjectType::Blob, text.as_bytes()).unwrap());
        entries.push(Entry {
            mode: 0o100_644,
            name: name.as_bytes().to_vec(),
            oid,
        });
        tree::write(&odb, entries).unwrap()
    }

    fn commit_on(&self, parent: Oid, text: &str) -> Oid {
        let tree = self.tree_with("b.txt", text);
        self.hub
            .commit(&CommitSpec {
                tree,
                parents: vec![parent],
                message: "apply x".into(),
                seconds: 1_767_225_600,
            })
            .unwrap()
    }
}

#[test]
fn compare_and_set_under_the_fence() {
    let f = Fixture::new();
    let branch = RefName::run(&run());
    let (one, other) = (f.commit_on(f.base, "1\n"), f.commit_on(f.base, "2\n"));
    let cas = |epoch, old, new| f.hub.cas_ref(token(epoch), &branch, old, new, "test");

    assert_eq!(cas(1, None, f.base).unwrap(), CasOutcome::Applied);
    assert_eq!(cas(1, None, f.base).unwrap(), CasOutcome::Already);
    assert_eq!(
        cas(1, None, one).unwrap(),
        CasOutcome::Moved { tip: Some(f.base) }
    );
    assert_eq!(cas(1, Some(f.base), one).unwrap(), CasOutcome::Applied);
    assert_eq!(cas(1, Some(f.base), one).unwrap(), CasOutcome::Already);
    assert_eq!(
        cas(1, Some(f.base), other).unwrap(),
        CasOutcome::Moved { tip: Some(one) }
    );

    f.hub.bump_fence(token(2)).unwrap();
    let next = f.commit_on(one, "3\n");
    let zombie = cas(1, Some(one), next).unwrap_err();
    assert!(
        matches!(zombie, HubError::Fenced { current: Some(current), .. } if current == token(2)),
        "{zombie}"
    );
    let early = cas(3, Some(one), next).unwrap_err();
    assert!(
        matches!(early, HubError::Fenced { .. }),
        "a token that was never granted is no better: {early}"
    );
    assert_eq!(f.hub.tip(&branch).unwrap(), Some(one));
    assert_eq!(cas(2, Some(one), next).unwrap(), CasOutcome::Applied);
}

#[test]
fn branches_move_forward_only_and_only_to_commits_that_exist() {
    let f = Fixture::new();
    let branch = RefName::run(&run());
    let one = f.commit_on(f.base, "1\n");
    f.hub.cas_ref(token(1), &branch, None, one, "test").unwrap();
    let back = f
        .hub
        .cas_ref(token(1), &branch, Some(one), f.base, "test")
        .unwrap_err();
    assert!(matches!(back, HubError::NotForward { .. }), "{back}");
    let absent = Oid::from_bytes([9; 20]);
    let error = f
        .hub
        .cas_ref(token(1), &branch, Some(one), absent, "test")
        .unwrap_err();
    assert!(
        matches!(error, HubError::Tree(TreeError::Missing { oid }) if oid == absent),
        "{error}"
    );
    let tree = f.tree_with("b.txt", "x");
    let error = f
        .hub
        .cas_ref(token(1), &branch, Some(one), tree, "test")
        .unwrap_err();
    assert!(
        matches!(error, HubError::Tree(TreeError::WrongKind { .. })),
        "{error}"
    );
}

#[test]
fn the_fence_never_goes_back() {
    let f = Fixture::new();
    let high = FencingToken {
        incarnation: 2,
        epoch: 1,
    };
    f.hub.bump_fence(token(7)).unwrap();
    f.hub.bump_fence(token(7)).unwrap();
    f.hub.bump_fence(high).unwrap();
    let error = f.hub.bump_fence(token(9)).unwrap_err();
    assert!(
        matches!(error, HubError::Fenced { current: Some(current), .. } if current == high),
        "{error}"
    );
    assert_eq!(f.hub.fence().unwrap(), Some(high));
    let repo = f.repo();
    let blob = repo
        .find_reference("refs/autopack/fence")
        .unwrap()
        .peel_to_blob()
        .unwrap();
    assert_eq!(blob.content(), b"2 1\n");
}

#[test]
fn of_racing_writers_exactly_one_wins() {
    let f = Fixture::new();
    let branch = RefName::run(&run());
    f.hub
        .cas_ref(token(1), &branch, None, f.base, "test")
        .unwrap();
    let mut tip = f.base;
    for round in 0..5 {
        let news: Vec<Oid> = (0..3)
            .map(|n| f.commit_on(tip, &format!("{round}.{n}\n")))
            .collect();
        let start = Barrier::new(news.len());
        let outcomes: Vec<CasOutcome> = std::thread::scope(|scope| {
            let race = |(n, new): (usize, &Oid)| {
                let (new, branch, start, dir) = (*new, &branch, &start, f.dir.path());
                scope.spawn(move || {
                    let mut options = Fixture::options(dir, &format!("racer-{n}"));
                    options.lock_wait = std::time::Duration::from_secs(30);
                    let hub = LocalHub::open(&dir.join("repo"), options).unwrap();
                    start.wait();
                    hub.cas_ref(token(1), branch, Some(tip), new, "race")
                        .unwrap()
                })
            };
            let racers: Vec<_> = news.iter().enumerate().map(race).collect();
            racers
                .into_iter()
                .map(|racer| racer.join().unwrap())
                .collect()
        });
        let winner = outcomes
            .iter()
            .position(|outcome| *outcome == CasOutcome::Applied)
            .unwrap();
        tip = f.hub.tip(&branch).unwrap().unwrap();
        assert_eq!(tip, news[winner]);
        let lost = CasOutcome::Moved { tip: Some(tip) };
        assert_eq!(
            outcomes.iter().filter(|outcome| **outcome == lost).count(),
            2,
            "{outcomes:?}"
        );
    }
}

#[test]
fn equal_specs_make_the_equal_commit() {
    let f = Fixture::new();
    let (one, again) = (f.commit_on(f.base, "1\n"), f.commit_on(f.base, "1\n"));
    assert_eq!(one, again);
    let repo = f.repo();
    let raw = repo
        .odb()
        .unwrap()
        .read(to_git(one))
        .unwrap()
        .data()
        .to_vec();
    let raw = String::from_utf8(raw).unwrap();
    let who = "autopack <apply@cluster> 1767225600 +0000";
    assert!(
        raw.ends_with(&format!("author {who}\ncommitter {who}\n\napply x\n")),
        "{raw}"
    );
}

#[test]
fn save_points_follow_the_last_attempt_and_spare_the_users_tags() {
    let f = Fixture::new();
    let one = f.commit_on(f.base, "1\n");
    assert_eq!(
        f.hub.save_point(token(1), &attempt(1), f.base).unwrap(),
        SavePoint {
            commit: f.base,
            tagged: true
        }
    );
    assert!(f.hub.save_point(token(1), &attempt(2), one).unwrap().tagged);
    let phase = PhaseId::new("p1").unwrap();
    assert_eq!(
        f.hub.tip(&RefName::save(&run(), &phase, 1)).unwrap(),
        Some(f.base)
    );
    assert_eq!(
        f.hub.tip(&RefName::save(&run(), &phase, 2)).unwrap(),
        Some(one)
    );
    assert_eq!(
        f.hub.tip(&RefName::save_tag(&run(), &phase)).unwrap(),
        Some(one)
    );

    let foreign = f.commit_on(f.base, "the user's\n");
    f.repo()
        .reference(
            "refs/tags/save-before-fix-docs-p1",
            to_git(foreign),
            true,
            "",
        )
        .unwrap();
    assert!(!f.hub.save_point(token(1), &attempt(3), one).unwrap().tagged);
    assert_eq!(
        f.hub.tip(&RefName::save_tag(&run(), &phase)).unwrap(),
        Some(foreign)
    );
}

#[test]
fn pending_objects_are_kept_until_the_run_ends() {
    let f = Fixture::new();
    let tree = f.tree_with("pending.txt", "p\n");
    f.hub.keep_alive(token(1), &attempt(1), tree).unwrap();
    f.hub.keep_alive(token(1), &attempt(2), f.base).unwrap();
    let repo = f.repo();
    assert_eq!(
        repo.refname_to_id("refs/autopack/q/fix-docs/4/1/p1")
            .unwrap(),
        to_git(tree)
    );
    assert!(matches!(
        f.hub.release(token(2), &run()),
        Err(HubError::Fenced { .. })
    ));
    assert_eq!(
        f.hub
            .release(token(1), &RunId::new("other").unwrap())
            .unwrap(),
        0
    );
    assert_eq!(f.hub.release(token(1), &run()).unwrap(), 2);
    assert_eq!(f.hub.release(token(1), &run()).unwrap(), 0);
    assert!(
        f.repo()
            .refname_to_id("refs/autopack/q/fix-docs/4/1/p1")
            .is_err()
    );
}

#[test]
fn a_branch_that_is_checked_out_stays() {
    let f = Fixture::new();
    let main = RefName::target("refs/heads/main").unwrap();
    let one = f.commit_on(f.base, "1\n");
    let error = f
        .hub
        .cas_ref(token(1), &main, Some(f.base), one, "land")
        .unwrap_err();
    assert!(
        matches!(&error, HubError::CheckedOut { path, .. } if path.ends_with("repo")),
        "{error}"
    );

    let repo = f.repo();
    let linked = repo
        .worktree("w", &f.dir.path().join("linked"), None)
        .unwrap();
    let found = f
        .hub
        .checked_out(&RefName::target("refs/heads/w").unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(found, linked.path());

    repo.set_head_detached(to_git(f.base)).unwrap();
    assert!(f.hub.head().unwrap().detached());
    assert_eq!(f.hub.checked_out(&main).unwrap(), None);
    fs::create_dir(repo.path().join("rebase-merge")).unwrap();
    fs::write(
        repo.path().join("rebase-merge/head-name"),
        "refs/heads/main\n",
    )
    .unwrap();
    assert!(
        f.hub.checked_out(&main).unwrap().is_some(),
        "a rebase will write the branch when it ends"
    );
    fs::remove_dir_all(repo.path().join("rebase-merge")).unwrap();
    assert_eq!(
        f.hub
            .cas_ref(token(1), &main, Some(f.base), one, "land")
            .unwrap(),
        CasOutcome::Applied
    );
}

#[test]
fn reading_at_a_commit() {
    let f = Fixture::new();
    let one = f.commit_on(f.base, "1\n");
    assert_eq!(
        f.hub.read_file_at(one, "b.txt", 10).unwrap().unwrap(),
        b"1\n"
    );
    for absent in ["c.txt", "a.txt/x", "", "../a.txt"] {
        assert_eq!(
            f.hub.read_file_at(one, absent, 10).unwrap(),
            None,
            "{absent}"
        );
    }
    assert!(matches!(
        f.hub.read_file_at(one, "b.txt", 1),
        Err(HubError::TooLarge { .. })
    ));
    assert!(f.hub.is_ancestor(f.base, one).unwrap() && !f.hub.is_ancestor(one, f.base).unwrap());
    assert_eq!(
        f.hub.merge_base(f.commit_on(f.base, "2\n"), one).unwrap(),
        Some(f.base)
    );
    f.hub.verify(one).unwrap();
    let head = f.hub.head().unwrap();
    assert_eq!(
        (head.oid, head.branch.as_deref()),
        (Some(f.base), Some("refs/heads/main"))
    );
}

/// Every file of the checkout and of its git folder that is not an object, a ref of ours or an empty folder.
fn snapshot(dir: &Path, root: &Path, into: &mut BTreeMap<String, Digest>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
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

    // A worker's repository borrows the hub's objects, makes a result and sends it as a pack.
    let worker_dir = f.dir.path().join("worker.git");
    let worker = autopack_shared::repo::open::init_bare(&worker_dir).unwrap();
    autopack_shared::repo::open::borrow_objects(&worker_dir, &f.hub.objects_dir()).unwrap();
    drop(worker);
    let worker = autopack_shared::repo::open::open_bare(&worker_dir).unwrap();
    let odb = worker.odb().unwrap();
    let blob = from_git(odb.write(ObjectType::Blob, b"made by a worker\n").unwrap());
    let result = tree::write(
        &odb,
        vec![Entry {
            mode: 0o100_644,
            name: b"w.txt".to_vec(),
            oid: blob,
        }],
    )
    .unwrap();
    let pack = pack_new_objects(&worker, f.base, result).unwrap();

    let branch = RefName::run(&run());
    f.hub
        .cas_ref(token(1), &branch, None, f.base, "fork")
        .unwrap();
    let quarantine = f.hub.quarantine().unwrap();
    quarantine.ingest(&pack, &PackBudget::default()).unwrap();
    f.hub.promote(&quarantine, f.base, result).unwrap();
    drop(quarantine);
    f.hub.keep_alive(token(1), &attempt(1), result).unwrap();
    let spec = CommitSpec {
        tree: result,
        parents: vec![f.base],
        message: "apply".into(),
        seconds: 5,
    };
    let commit = f.hub.commit(&spec).unwrap();
    f.hub.save_point(token(1), &attempt(1), f.base).unwrap();
    assert_eq!(
        f.hub
            .cas_ref(token(1), &branch, Some(f.base), commit, "apply")
            .unwrap(),
        CasOutcome::Applied
    );
    let base_tree = f.hub.tree_of(f.base).unwrap();
    assert_eq!(
        f.hub.revert_tree(base_tree, result, result).unwrap(),
        Merged::Clean(base_tree)
    );
    f.hub.release(token(1), &run()).unwrap();
    assert_eq!(f.hub.recover().unwrap(), Vec::<std::path::PathBuf>::new());

    let after = look();
    let differ: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
    assert!(
        fs::read_dir(f.dir.path().join("data/tmp"))
            .unwrap()
            .next()
            .is_none(),
        "the quarantine is gone"
    );
}

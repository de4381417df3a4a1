//! The hub on real repositories: fences, races, crashes, and what a user's repository must never notice.

use std::fs;
use std::path::Path;
use std::sync::Barrier;

use git2::{ObjectType, Repository};
use tempfile::TempDir;

use autopack_shared::domain::ids::{PhaseId, RunId};
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::tree::{self, Entry, TreeError};

use super::*;

mod crash;
mod cycle;

const fn token(epoch: u64) -> FencingToken {
    FencingToken { incarnation: 1, epoch }
}

fn run() -> RunId {
    RunId::new("fix-docs").unwrap()
}

fn attempt(number: u32) -> AttemptKey {
    AttemptKey { run: run(), epoch: 4, phase: PhaseId::new("p1").unwrap(), attempt: number }
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
        let repo =
            Repository::init_opts(dir.path().join("repo"), git2::RepositoryInitOptions::new().initial_head("main"))
                .unwrap();
        fs::write(dir.path().join("repo/a.txt"), "a\n").unwrap();
        let mut index = repo.index().unwrap();
        index.add_path(Path::new("a.txt")).unwrap();
        index.write().unwrap();
        let tree = repo.find_tree(index.write_tree().unwrap()).unwrap();
        let who = git2::Signature::new("u", "u@example.com", &git2::Time::new(1_700_000_000, 0)).unwrap();
        let base = from_git(repo.commit(Some("HEAD"), &who, &who, "first\n", &tree, &[]).unwrap());
        let hub = Self::open_hub(dir.path(), "one");
        hub.bump_fence(token(1)).unwrap();
        Self { dir, hub, base }
    }

    fn open_hub(dir: &Path, name: &str) -> LocalHub {
        LocalHub::open(&dir.join("repo"), Self::options(dir, name)).unwrap()
    }

    fn options(dir: &Path, name: &str) -> HubOptions {
        HubOptions {
            journal: dir.join(format!("data/{name}.locks")),
            lock_wait: std::time::Duration::from_millis(60),
            ..HubOptions::embedded(&dir.join("data"))
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
        entries.push(Entry { mode: 0o100_644, name: name.as_bytes().to_vec(), oid });
        tree::write(&odb, entries).unwrap()
    }

    fn commit_on(&self, parent: Oid, text: &str) -> Oid {
        let tree = self.tree_with("b.txt", text);
        self.hub
            .commit(&CommitSpec { tree, parents: vec![parent], message: "apply x".into(), seconds: 1_767_225_600 })
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
    assert_eq!(cas(1, None, one).unwrap(), CasOutcome::Moved { tip: Some(f.base) });
    assert_eq!(cas(1, Some(f.base), one).unwrap(), CasOutcome::Applied);
    assert_eq!(cas(1, Some(f.base), one).unwrap(), CasOutcome::Already);
    assert_eq!(cas(1, Some(f.base), other).unwrap(), CasOutcome::Moved { tip: Some(one) });

    f.hub.bump_fence(token(2)).unwrap();
    let next = f.commit_on(one, "3\n");
    let zombie = cas(1, Some(one), next).unwrap_err();
    assert!(matches!(zombie, HubError::Fenced { current: Some(current), .. } if current == token(2)), "{zombie}");
    let early = cas(3, Some(one), next).unwrap_err();
    assert!(matches!(early, HubError::Fenced { .. }), "a token that was never granted is no better: {early}");
    assert_eq!(f.hub.tip(&branch).unwrap(), Some(one));
    assert_eq!(cas(2, Some(one), next).unwrap(), CasOutcome::Applied);
}

#[test]
fn branches_move_forward_only_and_only_to_commits_that_exist() {
    let f = Fixture::new();
    let branch = RefName::run(&run());
    let one = f.commit_on(f.base, "1\n");
    f.hub.cas_ref(token(1), &branch, None, one, "test").unwrap();
    let back = f.hub.cas_ref(token(1), &branch, Some(one), f.base, "test").unwrap_err();
    assert!(matches!(back, HubError::NotForward { .. }), "{back}");
    let absent = Oid::from_bytes([9; 20]);
    let error = f.hub.cas_ref(token(1), &branch, Some(one), absent, "test").unwrap_err();
    assert!(matches!(error, HubError::Tree(TreeError::Missing { oid }) if oid == absent), "{error}");
    let tree = f.tree_with("b.txt", "x");
    let error = f.hub.cas_ref(token(1), &branch, Some(one), tree, "test").unwrap_err();
    assert!(matches!(error, HubError::Tree(TreeError::WrongKind { .. })), "{error}");
}

#[test]
fn the_fence_never_goes_back() {
    let f = Fixture::new();
    let high = FencingToken { incarnation: 2, epoch: 1 };
    f.hub.bump_fence(token(7)).unwrap();
    f.hub.bump_fence(token(7)).unwrap();
    f.hub.bump_fence(high).unwrap();
    let error = f.hub.bump_fence(token(9)).unwrap_err();
    assert!(matches!(error, HubError::Fenced { current: Some(current), .. } if current == high), "{error}");
    assert_eq!(f.hub.fence().unwrap(), Some(high));
    let repo = f.repo();
    let blob = repo.find_reference("refs/autopack/fence").unwrap().peel_to_blob().unwrap();
    assert_eq!(blob.content(), b"2 1\n");
}

#[test]
fn of_racing_writers_exactly_one_wins() {
    let f = Fixture::new();
    let branch = RefName::run(&run());
    f.hub.cas_ref(token(1), &branch, None, f.base, "test").unwrap();
    let mut tip = f.base;
    for round in 0..5 {
        let news: Vec<Oid> = (0..3).map(|n| f.commit_on(tip, &format!("{round}.{n}\n"))).collect();
        let start = Barrier::new(news.len());
        let outcomes: Vec<CasOutcome> = std::thread::scope(|scope| {
            let race = |(n, new): (usize, &Oid)| {
                let (new, branch, start, dir) = (*new, &branch, &start, f.dir.path());
                scope.spawn(move || {
                    let mut options = Fixture::options(dir, &format!("racer-{n}"));
                    options.lock_wait = std::time::Duration::from_secs(30);
                    let hub = LocalHub::open(&dir.join("repo"), options).unwrap();
                    start.wait();
                    hub.cas_ref(token(1), branch, Some(tip), new, "race").unwrap()
                })
            };
            let racers: Vec<_> = news.iter().enumerate().map(race).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let winner = outcomes.iter().position(|outcome| *outcome == CasOutcome::Applied).unwrap();
        tip = f.hub.tip(&branch).unwrap().unwrap();
        assert_eq!(tip, news[winner]);
        let lost = CasOutcome::Moved { tip: Some(tip) };
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == lost).count(), 2, "{outcomes:?}");
    }
}

#[test]
fn equal_specs_make_the_equal_commit() {
    let f = Fixture::new();
    let (one, again) = (f.commit_on(f.base, "1\n"), f.commit_on(f.base, "1\n"));
    assert_eq!(one, again);
    let repo = f.repo();
    let raw = repo.odb().unwrap().read(to_git(one)).unwrap().data().to_vec();
    let raw = String::from_utf8(raw).unwrap();
    let who = "autopack <apply@cluster> 1767225600 +0000";
    assert!(raw.ends_with(&format!("author {who}\ncommitter {who}\n\napply x\n")), "{raw}");
}

//! The hub on real repositories: what every hub does (`contract`), and what only those of a kind do: one in a user's
//! repository, one on a git server.

use std::fs;
use std::path::Path;

use git2::{ObjectType, Repository};
use tempfile::TempDir;

use autopack_shared::domain::ids::{PhaseId, RunId};
use autopack_shared::repo::open::{from_git, to_git};
use autopack_shared::repo::tree::{self, Entry};

use super::*;

mod contract;
mod crash;
mod cycle;
mod server;
mod site;

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
fn the_fence_of_a_hub_on_this_machine_is_two_numbers() {
    let f = Fixture::new();
    f.hub.bump_fence(FencingToken { incarnation: 2, epoch: 1 }).unwrap();
    let repo = f.repo();
    let blob = repo.find_reference("refs/autopack/fence").unwrap().peel_to_blob().unwrap();
    assert_eq!(blob.content(), b"2 1\n");
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

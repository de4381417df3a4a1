//! Locks: held by the user's git, or left behind by a life of ours that was killed.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use super::*;

fn lock(f: &Fixture, name: &str) -> std::path::PathBuf {
    let file = f.dir.path().join("repo/.git").join(format!("{name}.lock"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "").unwrap();
    file
}

#[test]
fn a_lock_of_the_users_git_is_waited_for_and_named() {
    let f = Fixture::new();
    let file = lock(&f, "refs/heads/autopack/fix-docs");
    let error = f.hub.cas_ref(token(1), &RefName::run(&run()), None, f.base, "test").unwrap_err();
    assert!(
        matches!(&error, HubError::Locked { file: named } if named.canonicalize().unwrap() == file.canonicalize().unwrap()),
        "{error}"
    );
    // Nothing of the failed try is left: neither the fence's lock nor a note that would claim the user's lock.
    assert!(f.hub.recover().unwrap().is_empty() && file.exists());
    fs::remove_file(file).unwrap();
    assert_eq!(f.hub.cas_ref(token(1), &RefName::run(&run()), None, f.base, "test").unwrap(), CasOutcome::Applied);
}

#[test]
fn after_a_crash_only_our_own_journaled_locks_go() {
    let f = Fixture::new();
    let ours = [lock(&f, "refs/autopack/fence"), lock(&f, "refs/heads/autopack/fix-docs")];
    let users = [
        lock(&f, "refs/heads/main"),
        lock(&f, "refs/heads/autopack/unnamed"),
        lock(&f, "index"),
        lock(&f, "packed-refs"),
    ];
    // What a life that was killed between taking its locks and moving the ref leaves in its journal.
    let note = "\nrefs/autopack/fence\nrefs/heads/autopack/fix-docs\nrefs/heads/main\nindex\n../../evil\n";
    fs::write(f.dir.path().join("data/two.locks"), note).unwrap();
    let hub = Fixture::open_hub(f.dir.path(), "two");
    let removed = hub.recover().unwrap();
    assert_eq!(removed.len(), 2, "{removed:?}");
    assert!(ours.iter().all(|file| !file.exists()) && users.iter().all(|file| file.exists()));
    assert!(hub.recover().unwrap().is_empty());
    fs::remove_file(f.dir.path().join("repo/.git/packed-refs.lock")).unwrap();
    assert_eq!(hub.cas_ref(token(1), &RefName::run(&run()), None, f.base, "test").unwrap(), CasOutcome::Applied);
}

#[test]
fn in_a_repository_of_ours_every_stale_lock_goes() {
    let dir = tempfile::tempdir().unwrap();
    let options = HubOptions { ownership: Ownership::Ours, ..Fixture::options(dir.path(), "ours") };
    let hub = LocalHub::create(&dir.path().join("hub.git"), options).unwrap();
    hub.bump_fence(token(1)).unwrap();
    for name in ["packed-refs", "HEAD", "refs/heads/x"] {
        fs::write(dir.path().join(format!("hub.git/{name}.lock")), "").unwrap();
    }
    assert_eq!(hub.recover().unwrap().len(), 3);
    hub.bump_fence(token(2)).unwrap();
    assert_eq!(hub.checked_out(&RefName::target("refs/heads/none").unwrap()).unwrap(), None);
}

#[test]
fn a_commit_that_cannot_be_written_has_no_id() {
    let f = Fixture::new();
    let id = f.commit_on(f.base, "1\n").to_string();
    let folder = f.dir.path().join("repo/.git/objects").join(&id[..2]);
    // Room for everything but the commit: where its folder should be there is a file.
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    let spec = CommitSpec {
        tree: f.tree_with("b.txt", "1\n"),
        parents: vec![f.base],
        message: "apply x".into(),
        seconds: 1_767_225_600,
    };
    assert!(matches!(f.hub.commit(&spec), Err(HubError::Git(_))));
}

#[test]
fn quarantines_of_an_earlier_life_go() {
    let f = Fixture::new();
    let scratch = f.dir.path().join("data/tmp");
    fs::create_dir_all(scratch.join("quarantine-k1lled/objects/pack")).unwrap();
    fs::write(scratch.join("quarantine-k1lled/objects/pack/x"), "x").unwrap();
    fs::write(scratch.join("notes"), "").unwrap();
    f.hub.recover().unwrap();
    let left: Vec<_> = fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);
}

#[test]
fn a_fence_that_is_not_a_token_or_not_direct_is_refused() {
    let f = Fixture::new();
    let repo = f.repo();
    let blob = repo.blob(b"1 1").unwrap();
    repo.reference("refs/autopack/fence", blob, true, "").unwrap();
    assert!(matches!(f.hub.bump_fence(token(9)), Err(HubError::BadFence)));
    repo.reference_symbolic("refs/autopack/fence", "refs/heads/main", true, "").unwrap();
    assert!(matches!(f.hub.bump_fence(token(9)), Err(HubError::Symbolic { .. })));
    assert_eq!(f.hub.tip(&RefName::target("refs/heads/main").unwrap()).unwrap(), Some(f.base));
}

#[test]
fn packed_refs_are_seen_and_deleted() {
    let f = Fixture::new();
    f.hub.keep_alive(token(1), &attempt(1), f.base).unwrap();
    // As `git pack-refs` leaves it.
    let git = f.dir.path().join("repo/.git");
    let fence = f.repo().refname_to_id("refs/autopack/fence").unwrap();
    let packed = format!(
        "# pack-refs with: peeled fully-peeled sorted \n{fence} refs/autopack/fence\n{} refs/autopack/q/fix-docs/4/1/p1\n",
        f.base
    );
    fs::write(git.join("packed-refs"), packed).unwrap();
    fs::remove_dir_all(git.join("refs/autopack")).unwrap();
    assert_eq!(f.hub.fence().unwrap(), Some(token(1)));
    f.hub.bump_fence(token(2)).unwrap();
    assert_eq!(f.hub.release(token(2), &run()).unwrap(), 1);
    assert!(!fs::read_to_string(git.join("packed-refs")).unwrap().contains("fix-docs"));
    assert_eq!(f.hub.fence().unwrap(), Some(token(2)));
}

const CHILD: &str = "AUTOPACK_TEST_HUB_CHILD";

/// Moves the run's branch forward until it is killed, saying so after each move. Does nothing unless it is asked to.
#[test]
#[ignore = "run by the test that kills it"]
fn child_that_applies_for_ever() {
    let Some(dir) = std::env::var_os(CHILD) else {
        return;
    };
    let hub = Fixture::open_hub(Path::new(&dir), "child");
    let branch = RefName::run(&run());
    let token = hub.fence().unwrap().unwrap();
    for round in 0.. {
        let tip = hub.tip(&branch).unwrap().unwrap();
        let spec = CommitSpec {
            tree: hub.tree_of(tip).unwrap(),
            parents: vec![tip],
            message: format!("{round}"),
            seconds: round,
        };
        hub.cas_ref(token, &branch, Some(tip), hub.commit(&spec).unwrap(), "round").unwrap();
        std::io::stdout().write_all(b"#").unwrap();
        std::io::stdout().flush().unwrap();
    }
}

#[test]
fn killed_at_any_moment_the_branch_is_whole_and_the_next_life_goes_on() {
    let f = Fixture::new();
    let branch = RefName::run(&run());
    f.hub.cas_ref(token(1), &branch, None, f.base, "fork").unwrap();
    let fence_lock = f.dir.path().join("repo/.git/refs/autopack/fence.lock");
    let (mut last, mut life, mut left_locks) = (f.base, 1, 0);
    while left_locks < 3 {
        life += 1;
        assert!(life < 100, "no kill hit the moment in which the locks are held");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hub::tests::crash::child_that_applies_for_ever", "--ignored", "--nocapture"])
            .env(CHILD, f.dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(child.stdout.take().unwrap()).bytes();
        while said.next().unwrap().unwrap() != b'#' {}
        // The child never stops taking the lock, so this ends.
        while !fence_lock.exists() && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();

        let hub = Fixture::open_hub(f.dir.path(), "child");
        left_locks += usize::from(!hub.recover().unwrap().is_empty());
        hub.bump_fence(token(life)).unwrap();
        let tip = hub.tip(&branch).unwrap().unwrap();
        assert!(tip != last && hub.is_ancestor(last, tip).unwrap());
        hub.verify(tip).unwrap();
        last = tip;
    }
}

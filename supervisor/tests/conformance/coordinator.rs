//! Sessions, locks and the election: the same answers from every coordinator.

use std::sync::Arc;

use autopack_shared::runtime::clock::ManualClock;
use autopack_supervisor::coordination::file_lock::FileCoordinator;
use autopack_supervisor::coordination::{CoordinationError, Coordinator, LockName, LockOwner};

use crate::fixtures::name;

/// One kind of coordinator, and as many members of the same cluster as a case asks for.
pub(crate) trait Cluster {
    fn start() -> Self;
    fn member(&self) -> Arc<dyn Coordinator>;
}

/// Lock files in a temporary folder.
pub(crate) struct Files(tempfile::TempDir);

impl Cluster for Files {
    fn start() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn member(&self) -> Arc<dyn Coordinator> {
        let (data, workers) = (self.0.path().join("data"), self.0.path().join("workers"));
        Arc::new(FileCoordinator::open(&data, &workers, Arc::new(ManualClock::at(0))).unwrap())
    }
}

fn owner(worker: &str, session: &str, epoch: u64) -> LockOwner {
    LockOwner { worker: name(worker), session: session.to_owned(), epoch }
}

fn locks(run: &str) -> [LockName; 2] {
    [LockName::Run(name(run)), LockName::Workspace(name(run))]
}

fn held<T: std::fmt::Debug>(answer: Result<T, CoordinationError>) -> String {
    match answer {
        Err(CoordinationError::Held { lock, .. }) => lock,
        other => panic!("not held: {other:?}"),
    }
}

pub(crate) async fn there_is_one_director(cluster: &impl Cluster) {
    let (first, second) = (cluster.member(), cluster.member());
    assert!(!first.is_director().await.unwrap());
    first.campaign("r-1").await.unwrap();
    first.campaign("r-1").await.unwrap();
    assert!(first.is_director().await.unwrap());
    assert!(matches!(second.campaign("r-2").await, Err(CoordinationError::DataDirLocked { .. })));
    assert!(!second.is_director().await.unwrap());
    second.resign().await.unwrap();
    assert!(first.is_director().await.unwrap(), "nobody resigns for somebody else");
    first.resign().await.unwrap();
    assert!(!first.is_director().await.unwrap());
    second.campaign("r-2").await.unwrap();
    drop(second);
    first.campaign("r-1").await.unwrap();
}

pub(crate) async fn a_worker_has_one_session(cluster: &impl Cluster) {
    let member = cluster.member();
    let worker = name("w-1");
    assert!(!member.session_alive(&worker, "s-1").await.unwrap());
    assert!(!member.renew_session(&worker, "s-1").await.unwrap());
    member.open_session(&worker, "s-1").await.unwrap();
    member.open_session(&worker, "s-1").await.unwrap();
    assert_eq!(held(member.open_session(&worker, "s-2").await), "worker w-1");
    assert!(member.renew_session(&worker, "s-1").await.unwrap());
    assert!(!member.renew_session(&worker, "s-2").await.unwrap());
    member.close_session(&worker, "s-2").await.unwrap();
    assert!(member.session_alive(&worker, "s-1").await.unwrap());
    member.close_session(&worker, "s-1").await.unwrap();
    assert!(!member.session_alive(&worker, "s-1").await.unwrap());
    member.open_session(&worker, "s-2").await.unwrap();
    assert!(!member.renew_session(&worker, "s-1").await.unwrap());
}

pub(crate) async fn locks_are_taken_all_or_none(cluster: &impl Cluster) {
    let member = cluster.member();
    for (worker, session) in [("w-1", "s-1"), ("w-2", "s-2")] {
        member.open_session(&name(worker), session).await.unwrap();
    }
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 2));
    member.lock(&locks("a")[1..], &theirs).await.unwrap();
    assert_eq!(held(member.lock(&locks("a"), &mine).await), "the workspace of run a");
    assert_eq!(member.holder(&locks("a")[0]).await.unwrap(), None);
    assert_eq!(member.holder(&locks("a")[1]).await.unwrap(), Some(theirs.clone()));
    member.unlock(&locks("a"), &theirs).await.unwrap();
    member.lock(&locks("a"), &mine).await.unwrap();
    member.lock(&locks("b"), &theirs).await.unwrap();
    for lock in &locks("a") {
        assert_eq!(member.holder(lock).await.unwrap(), Some(mine.clone()));
    }
}

pub(crate) async fn a_lock_is_evidence_for_one_epoch(cluster: &impl Cluster) {
    let member = cluster.member();
    member.open_session(&name("w-1"), "s-1").await.unwrap();
    let (old, new) = (owner("w-1", "s-1", 1), owner("w-1", "s-1", 2));
    member.lock(&locks("a"), &old).await.unwrap();
    member.lock(&locks("a"), &old).await.unwrap();
    assert_eq!(held(member.lock(&locks("a"), &new).await), "run a");
    member.unlock(&locks("a"), &new).await.unwrap();
    assert_eq!(member.holder(&locks("a")[0]).await.unwrap(), Some(old.clone()), "nobody unlocks for somebody else");
    member.unlock(&locks("a"), &old).await.unwrap();
    member.unlock(&locks("a"), &old).await.unwrap();
    member.unlock(&locks("never"), &old).await.unwrap();
    member.lock(&locks("a"), &new).await.unwrap();
}

pub(crate) async fn a_session_takes_its_locks_along(cluster: &impl Cluster) {
    let member = cluster.member();
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 1));
    assert!(matches!(member.lock(&locks("a"), &mine).await, Err(CoordinationError::Unavailable(_))));
    member.open_session(&name("w-1"), "s-1").await.unwrap();
    member.open_session(&name("w-2"), "s-2").await.unwrap();
    member.lock(&locks("a"), &mine).await.unwrap();
    member.lock(&locks("b"), &theirs).await.unwrap();
    member.close_session(&name("w-1"), "s-1").await.unwrap();
    assert_eq!(member.holder(&locks("a")[0]).await.unwrap(), None);
    assert_eq!(member.holder(&locks("b")[0]).await.unwrap(), Some(theirs));
    assert!(matches!(member.lock(&locks("a"), &mine).await, Err(CoordinationError::Unavailable(_))));
}

pub(crate) async fn a_member_that_ends_gives_everything_back(cluster: &impl Cluster) {
    let (first, second) = (cluster.member(), cluster.member());
    first.open_session(&name("w-1"), "s-1").await.unwrap();
    second.open_session(&name("w-2"), "s-2").await.unwrap();
    let (mine, theirs) = (owner("w-1", "s-1", 5), owner("w-2", "s-2", 6));
    first.lock(&locks("a"), &mine).await.unwrap();
    assert_eq!(second.holder(&locks("a")[0]).await.unwrap(), Some(mine));
    assert_eq!(held(second.lock(&locks("a"), &theirs).await), "run a");
    drop(first);
    assert_eq!(second.holder(&locks("a")[0]).await.unwrap(), None);
    second.lock(&locks("a"), &theirs).await.unwrap();
}

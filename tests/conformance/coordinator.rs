//! Sessions, locks and the election: the same answers from every coordinator.

use std::sync::Arc;
use std::time::Duration;

use autopack_shared::domain::ids::WorkerId;
use autopack_shared::runtime::clock::SystemClock;
use autopack_supervisor::coordination::file_lock::FileCoordinator;
use autopack_supervisor::coordination::{
    CoordinationError, Coordinator, Directorship, LockName, LockOwner, Renewal, SessionFacts,
};

use self::many::{many_locks_are_taken_at_once, of_a_hundred_one_has_a_lock};
use super::etcd::EtcdCluster;

mod many;

/// One kind of coordinator, and as many members of the same cluster as a case asks for.
pub(super) trait Cluster {
    /// A cluster without members.
    async fn start() -> Self;
    /// One more process of it.
    async fn member(&self, replica: &str) -> Arc<dyn Coordinator>;
}

/// Lock files in a temporary folder.
struct Files(tempfile::TempDir);

impl Cluster for Files {
    async fn start() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn member(&self, _: &str) -> Arc<dyn Coordinator> {
        let (data, workers) = (self.0.path().join("data"), self.0.path().join("workers"));
        Arc::new(FileCoordinator::open(&data, &workers, Arc::new(SystemClock::default())).unwrap())
    }
}

/// Every case, once for each engine.
macro_rules! suite {
    ($($case:ident)+) => {
        mod files {
            use super::Cluster as _;

            suite! { @on super::Files; $($case)+ }
        }

        mod etcd {
            use super::Cluster as _;

            suite! { @on super::EtcdCluster; $($case)+ }
        }
    };
    (@on $cluster:ty; $($case:ident)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            super::$case(&<$cluster>::start().await).await;
        })+
    };
}

suite! {
    there_is_one_director a_worker_has_one_session locks_are_taken_all_or_none a_lock_is_evidence_for_one_epoch
    a_session_takes_its_locks_along a_member_that_ends_gives_everything_back what_is_held_is_listed
    a_lock_can_be_broken a_session_that_drains_stays_so many_locks_are_taken_at_once
    who_is_there_is_known_at_a_glance a_session_says_anew_what_its_sandboxes_are of_a_hundred_one_has_a_lock
}

pub(super) fn worker(text: &str) -> WorkerId {
    text.parse().unwrap()
}

pub(super) fn owner(who: &str, session: &str, epoch: u64) -> LockOwner {
    LockOwner { worker: worker(who), session: session.to_owned(), epoch }
}

pub(super) fn locks(run: &str) -> [LockName; 2] {
    [LockName::Run(run.parse().unwrap()), LockName::Workspace(run.parse().unwrap())]
}

pub(super) fn facts() -> SessionFacts {
    SessionFacts {
        host: "h".to_owned(),
        boot_id: "b".to_owned(),
        slots: 3,
        sandbox_level: "S2".to_owned(),
        ..SessionFacts::default()
    }
}

pub(super) async fn open(member: &Arc<dyn Coordinator>, owner: &LockOwner) {
    member.open_session(&owner.worker, &owner.session, &facts()).await.unwrap();
}

/// Which lock a refusal is about.
pub(super) fn held<T: std::fmt::Debug>(answer: Result<T, CoordinationError>) -> String {
    match answer {
        Err(CoordinationError::Held { lock, .. }) => lock,
        other => panic!("not held: {other:?}"),
    }
}

/// Asks until the answer is as wanted; what has to happen by itself happens within this.
pub(super) async fn until<T: std::fmt::Debug>(
    limit: Duration,
    mut ask: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "still {answer:?} after {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// More than any lease of the suites lives, on a machine that does much else.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Whether a campaign was refused because there is a director.
pub(super) fn is_taken(answer: &Result<(), CoordinationError>) -> bool {
    // On one machine the data directory is taken, and the exit code says so.
    matches!(answer, Err(CoordinationError::Held { .. } | CoordinationError::DataDirLocked { .. }))
}

async fn there_is_one_director(cluster: &impl Cluster) {
    let (first, second) = (cluster.member("r-1").await, cluster.member("r-2").await);
    let (one, two) = (first.directorship(), second.directorship());
    assert_eq!(*one.borrow(), Directorship::Unknown);
    assert!(!first.is_director().await.unwrap());
    first.campaign("r-1").await.unwrap();
    let leading = one.borrow().clone();
    assert!(matches!(leading, Directorship::Leading { .. }), "{leading:?}");
    first.campaign("r-1").await.unwrap();
    assert_eq!(*one.borrow(), leading, "asking again changes nothing");
    assert!(first.is_director().await.unwrap());
    assert!(is_taken(&first.campaign("r-3").await), "one process is one replica");
    let refusal = second.campaign("r-2").await;
    assert!(is_taken(&refusal) && refusal.unwrap_err().to_string().contains("r-1"));
    assert!(matches!(&*two.borrow(), Directorship::Following { holder: Some(who) } if who.contains("r-1")));
    assert!(!second.is_director().await.unwrap());
    second.resign().await.unwrap();
    assert_eq!(*two.borrow(), Directorship::Unknown);
    assert!(first.is_director().await.unwrap(), "nobody resigns for somebody else");
    first.resign().await.unwrap();
    assert_eq!(*one.borrow(), Directorship::Unknown);
    assert!(!first.is_director().await.unwrap());
    first.resign().await.unwrap();
    second.campaign("r-2").await.unwrap();
    drop(second);
    until(SOON, async || first.campaign("r-1").await, Result::is_ok).await;
}

async fn a_worker_has_one_session(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let (one, facts) = (worker("w-1"), facts());
    assert!(!member.session_alive(&one, "s-1").await.unwrap());
    assert!(!member.renew_session(&one, "s-1").await.unwrap().is_kept());
    member.open_session(&one, "s-1", &facts).await.unwrap();
    member.open_session(&one, "s-1", &facts).await.unwrap();
    assert_eq!(held(member.open_session(&one, "s-2", &facts).await), "worker w-1");
    assert!(member.renew_session(&one, "s-1").await.unwrap().is_kept());
    assert!(!member.renew_session(&one, "s-2").await.unwrap().is_kept());
    member.close_session(&one, "s-2").await.unwrap();
    assert!(member.session_alive(&one, "s-1").await.unwrap());
    member.close_session(&one, "s-1").await.unwrap();
    member.close_session(&one, "s-1").await.unwrap();
    assert!(!member.session_alive(&one, "s-1").await.unwrap());
    member.open_session(&one, "s-2", &facts).await.unwrap();
    assert!(!member.renew_session(&one, "s-1").await.unwrap().is_kept());
}

async fn locks_are_taken_all_or_none(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 2));
    open(&member, &mine).await;
    open(&member, &theirs).await;
    member.lock(&locks("a")[1..], &theirs).await.unwrap();
    assert_eq!(held(member.lock(&locks("a"), &mine).await), "the workspace of run a");
    assert_eq!(member.holder(&locks("a")[0]).await.unwrap(), None);
    assert_eq!(member.holder(&locks("a")[1]).await.unwrap(), Some(theirs.clone()));
    member.unlock(&locks("a"), &theirs).await.unwrap();
    let twice = [locks("a"), locks("a")].concat();
    member.lock(&twice, &mine).await.unwrap();
    member.lock(&locks("b"), &theirs).await.unwrap();
    for lock in &locks("a") {
        assert_eq!(member.holder(lock).await.unwrap(), Some(mine.clone()));
    }
}

async fn a_lock_is_evidence_for_one_epoch(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let (old, new) = (owner("w-1", "s-1", 1), owner("w-1", "s-1", 2));
    open(&member, &old).await;
    member.lock(&locks("a")[..1], &old).await.unwrap();
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

async fn a_session_takes_its_locks_along(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 1));
    assert!(matches!(member.lock(&locks("a"), &mine).await, Err(CoordinationError::Unavailable(_))));
    open(&member, &mine).await;
    open(&member, &theirs).await;
    member.lock(&locks("a"), &mine).await.unwrap();
    member.lock(&locks("b"), &theirs).await.unwrap();
    member.close_session(&mine.worker, &mine.session).await.unwrap();
    assert_eq!(member.holder(&locks("a")[0]).await.unwrap(), None);
    assert_eq!(member.holder(&locks("b")[0]).await.unwrap(), Some(theirs));
    assert!(matches!(member.lock(&locks("a"), &mine).await, Err(CoordinationError::Unavailable(_))));
}

async fn a_member_that_ends_gives_everything_back(cluster: &impl Cluster) {
    let (first, second) = (cluster.member("r-1").await, cluster.member("r-2").await);
    let (mine, theirs) = (owner("w-1", "s-1", 5), owner("w-2", "s-2", 6));
    open(&first, &mine).await;
    open(&second, &theirs).await;
    first.lock(&locks("a"), &mine).await.unwrap();
    assert_eq!(second.holder(&locks("a")[0]).await.unwrap(), Some(mine));
    assert_eq!(held(second.lock(&locks("a"), &theirs).await), "run a");
    drop(first);
    // Not before its lease ran out, where there is one; the other session goes on meanwhile.
    let ask = async || {
        assert!(second.renew_session(&theirs.worker, &theirs.session).await.unwrap().is_kept());
        second.holder(&locks("a")[0]).await.unwrap()
    };
    until(SOON, ask, Option::is_none).await;
    second.lock(&locks("a"), &theirs).await.unwrap();
}

async fn what_is_held_is_listed(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    assert!(member.sessions().await.unwrap().is_empty() && member.locks().await.unwrap().is_empty());
    let (mine, theirs) = (owner("w-1", "s-1", 7), owner("w-2", "s-2", 8));
    open(&member, &theirs).await;
    open(&member, &mine).await;
    member.lock(&locks("b"), &theirs).await.unwrap();
    member.lock(&locks("a"), &mine).await.unwrap();
    member.lock(&locks("gone"), &mine).await.unwrap();
    member.unlock(&locks("gone"), &mine).await.unwrap();
    assert_eq!(member.director().await.unwrap(), None);
    member.campaign("r-1").await.unwrap();
    let seat = member.director().await.unwrap().unwrap();
    assert!(seat.replica == "r-1" && !seat.addr.is_empty() && seat.life.age < SOON, "{seat:?}");
    let sessions = member.sessions().await.unwrap();
    let who: Vec<_> = sessions.iter().map(|s| (s.worker.as_str(), s.session.as_str())).collect();
    assert_eq!(who, [("w-1", "s-1"), ("w-2", "s-2")]);
    assert!(sessions.iter().all(|session| session.facts == facts() && !session.holder.is_empty()));
    let held = member.locks().await.unwrap();
    let what: Vec<_> = held.iter().map(|lock| (lock.name.clone(), lock.owner.clone())).collect();
    let [run_a, ws_a] = locks("a").map(|name| (name, mine.clone()));
    let [run_b, ws_b] = locks("b").map(|name| (name, theirs.clone()));
    assert_eq!(what, [run_a, run_b, ws_a, ws_b]);
    for life in sessions.iter().map(|s| s.life).chain(held.iter().map(|l| l.life)) {
        assert!(life.age < SOON, "{life:?}");
        assert_eq!(life.ttl.is_some(), life.remaining.is_some());
        assert!(life.remaining <= life.ttl, "{life:?}");
    }
}

async fn a_session_that_drains_stays_so(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let (one, facts) = (worker("w-1"), facts());
    assert!(!member.drain(&one, "s-1", true).await.unwrap());
    assert_eq!(member.renew_session(&one, "s-1").await.unwrap(), Renewal::Gone);
    member.open_session(&one, "s-1", &facts).await.unwrap();
    let drains = async || {
        let listed = member.sessions().await.unwrap()[0].draining;
        assert_eq!(member.renew_session(&one, "s-1").await.unwrap(), Renewal::Kept { draining: listed });
        listed
    };
    assert!(!drains().await);
    assert!(member.drain(&one, "s-1", true).await.unwrap() && drains().await);
    member.open_session(&one, "s-1", &facts).await.unwrap();
    assert!(drains().await, "it goes with the session");
    assert!(member.drain(&one, "s-1", false).await.unwrap() && !drains().await);
    assert!(!member.drain(&one, "s-2", true).await.unwrap() && !drains().await, "another session is none of it");
}

/// Said again, it is the same session with what is true now; another session says nothing of it.
async fn a_session_says_anew_what_its_sandboxes_are(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let one = worker("w-1");
    open(&member, &owner("w-1", "s-1", 1)).await;
    let fallen = SessionFacts {
        sandbox_level: "S1".to_owned(),
        sandbox_report: ("sha256:r".to_owned(), 1_800_000_000_000),
        quarantine: "it fell".to_owned(),
        ..facts()
    };
    assert!(member.open_session(&one, "s-2", &fallen).await.is_err());
    assert_eq!(member.seats().await.unwrap()[0].quarantine, "");
    member.open_session(&one, "s-1", &fallen).await.unwrap();
    assert_eq!(member.sessions().await.unwrap()[0].facts, fallen);
    let seat = member.seats().await.unwrap().remove(0);
    assert_eq!((seat.quarantine.as_str(), seat.sandbox_level.as_str()), ("it fell", "S1"));
    member.open_session(&one, "s-1", &facts()).await.unwrap();
    assert_eq!(member.sessions().await.unwrap()[0].facts, facts());
}

async fn who_is_there_is_known_at_a_glance(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    assert!(member.seats().await.unwrap().is_empty());
    assert_eq!(member.session_life(&worker("w-1"), "s-1").await.unwrap(), None);
    for (who, session) in [("w-2", "s-2"), ("w-1", "s-1")] {
        open(&member, &owner(who, session, 1)).await;
    }
    member.drain(&worker("w-2"), "s-2", true).await.unwrap();
    let seats = member.seats().await.unwrap();
    let seen: Vec<_> = seats.iter().map(|s| (s.worker.as_str(), s.session.as_str(), s.slots, s.draining)).collect();
    assert_eq!(seen, [("w-1", "s-1", facts().slots, false), ("w-2", "s-2", facts().slots, true)]);
    let life = member.session_life(&worker("w-1"), "s-1").await.unwrap().unwrap();
    assert!(
        life.age < SOON && life.ttl.is_some() == life.remaining.is_some() && life.remaining <= life.ttl,
        "{life:?}"
    );
    assert_eq!(member.session_life(&worker("w-1"), "s-2").await.unwrap(), None, "it is another session");
    member.close_session(&worker("w-1"), "s-1").await.unwrap();
    assert_eq!(member.seats().await.unwrap().len(), 1);
}

async fn a_lock_can_be_broken(cluster: &impl Cluster) {
    let member = cluster.member("r-1").await;
    let (mine, theirs) = (owner("w-1", "s-1", 1), owner("w-2", "s-2", 2));
    open(&member, &mine).await;
    open(&member, &theirs).await;
    let [run, workspace] = locks("a");
    assert_eq!(member.break_lock(&run, "nobody has it").await.unwrap(), None);
    member.lock(&locks("a"), &mine).await.unwrap();
    assert_eq!(member.break_lock(&run, "it hangs").await.unwrap(), Some(mine.clone()));
    assert_eq!(member.holder(&run).await.unwrap(), None);
    assert_eq!(member.holder(&workspace).await.unwrap(), Some(mine.clone()), "only what was named");
    member.lock(&locks("a")[..1], &theirs).await.unwrap();
    // Whoever lost it gives back only what it still has.
    member.unlock(&locks("a"), &mine).await.unwrap();
    assert_eq!(member.holder(&run).await.unwrap(), Some(theirs));
}

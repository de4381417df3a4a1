//! Locks of a service that was away for a moment, and grants that a lock is in the way of.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use autopack_shared::domain::ids::WorkerId;
use autopack_shared::runtime::clock::SystemClock;
use autopack_shared::wire::pb::{self, supervisor_message, worker_message};
use autopack_supervisor::coordination::{
    CoordinationError, Coordinator, Directorship, Life, LockEntry, LockName, LockOwner, Renewal, SeatEntry, Seated,
    SessionEntry, SessionFacts,
};

use super::hand::Hand;
use super::harness::{Rig, Site};

/// Stands in front of the locks.
struct Flaky {
    locks: Arc<dyn Coordinator>,
    /// Locks that are not given back, for want of the service.
    kept: Mutex<usize>,
    /// Whether every lock is somebody else's.
    taken: bool,
    /// When locks were asked for.
    asked: watch::Sender<Vec<Instant>>,
    /// How often a session was marked.
    marked: watch::Sender<usize>,
}

impl Flaky {
    fn over(locks: Arc<dyn Coordinator>, kept: usize, taken: bool) -> Self {
        Self { locks, kept: Mutex::new(kept), taken, asked: watch::Sender::default(), marked: watch::Sender::default() }
    }
}

#[tonic::async_trait]
impl Coordinator for Flaky {
    async fn campaign(&self, replica: &str) -> Result<(), CoordinationError> {
        self.locks.campaign(replica).await
    }

    async fn is_director(&self) -> Result<bool, CoordinationError> {
        self.locks.is_director().await
    }

    fn directorship(&self) -> watch::Receiver<Directorship> {
        self.locks.directorship()
    }

    async fn director(&self) -> Result<Option<SeatEntry>, CoordinationError> {
        self.locks.director().await
    }

    async fn resign(&self) -> Result<(), CoordinationError> {
        self.locks.resign().await
    }

    async fn open_session(
        &self,
        worker: &WorkerId,
        session: &str,
        facts: &SessionFacts,
    ) -> Result<(), CoordinationError> {
        self.locks.open_session(worker, session, facts).await
    }

    async fn renew_session(&self, worker: &WorkerId, session: &str) -> Result<Renewal, CoordinationError> {
        self.locks.renew_session(worker, session).await
    }

    async fn close_session(&self, worker: &WorkerId, session: &str) -> Result<(), CoordinationError> {
        self.locks.close_session(worker, session).await
    }

    async fn session_alive(&self, worker: &WorkerId, session: &str) -> Result<bool, CoordinationError> {
        self.locks.session_alive(worker, session).await
    }

    async fn drain(&self, worker: &WorkerId, session: &str, drain: bool) -> Result<bool, CoordinationError> {
        self.marked.send_modify(|marked| *marked += 1);
        self.locks.drain(worker, session, drain).await
    }

    async fn sessions(&self) -> Result<Vec<SessionEntry>, CoordinationError> {
        self.locks.sessions().await
    }

    async fn seats(&self) -> Result<Vec<Seated>, CoordinationError> {
        self.locks.seats().await
    }

    async fn session_life(&self, worker: &WorkerId, session: &str) -> Result<Option<Life>, CoordinationError> {
        self.locks.session_life(worker, session).await
    }

    async fn lock_names(&self) -> Result<Vec<LockName>, CoordinationError> {
        self.locks.lock_names().await
    }

    async fn lock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        self.asked.send_modify(|asked| asked.push(Instant::now()));
        if self.taken {
            return Err(CoordinationError::Held { lock: names[0].to_string(), holder: "somebody".to_owned() });
        }
        self.locks.lock(names, owner).await
    }

    async fn unlock(&self, names: &[LockName], owner: &LockOwner) -> Result<(), CoordinationError> {
        {
            let mut kept = self.kept.lock().unwrap();
            if *kept > 0 {
                *kept -= 1;
                return Err(CoordinationError::Unavailable("away for a moment".to_owned()));
            }
        }
        self.locks.unlock(names, owner).await
    }

    async fn holder(&self, name: &LockName) -> Result<Option<LockOwner>, CoordinationError> {
        self.locks.holder(name).await
    }

    async fn locks(&self) -> Result<Vec<LockEntry>, CoordinationError> {
        self.locks.locks().await
    }

    async fn break_lock(&self, name: &LockName, reason: &str) -> Result<Option<LockOwner>, CoordinationError> {
        self.locks.break_lock(name, reason).await
    }
}

#[tokio::test]
async fn a_lock_that_could_not_be_given_back_is_in_nobodys_way() {
    let site = Site::new("[project]\nid = \"site\"\n\n[policy]\nallowed = [\"examples/**\"]\n");
    let clock = Arc::new(SystemClock::default());
    let mut rig = Rig::open_over(&site, clock, |locks| Arc::new(Flaky::over(locks, 1, false))).await;
    // The first attempt's lease keeps its locks; the second one of the same run needs them.
    rig.submit("r", &[("p", "exit 3", json!({ "max_attempts": 2 }))]).await;
    let run = rig.until_state("r", "FAILED").await;
    assert_eq!(run.phases[0].attempt, 2, "{run:#?}");
    rig.close().await;
}

#[tokio::test]
async fn a_grant_that_a_lock_is_in_the_way_of_waits_longer_each_time() {
    let site = Site::new("");
    let clock = Arc::new(SystemClock::default());
    let mut flaky = None;
    let mut rig =
        Rig::open_over(&site, clock, |locks| flaky.insert(Arc::new(Flaky::over(locks, 0, true))).clone()).await;
    rig.submit("r", &[("p", "true", json!({}))]).await;
    let mut asked = flaky.unwrap().asked.subscribe();
    let thrice = tokio::time::timeout(Duration::from_secs(60), asked.wait_for(|asked| asked.len() >= 3)).await;
    let asked = thrice.expect("it is tried again").unwrap().clone();
    let pauses = [asked[1] - asked[0], asked[2] - asked[1]];
    assert!(pauses[0] >= Duration::from_millis(490) && pauses[1] >= Duration::from_millis(990), "{pauses:?}");
    rig.close().await;
}

#[tokio::test]
async fn a_worker_that_wants_to_leave_is_marked_once() {
    let site = Site::new("");
    let clock = Arc::new(SystemClock::default());
    let mut flaky = None;
    let mut rig =
        Rig::open_over(&site, clock, |locks| flaky.insert(Arc::new(Flaky::over(locks, 0, false))).clone()).await;
    let mut hand = Hand::open(&mut rig).await;
    let answered = |body| matches!(body, supervisor_message::Body::Ack(_)).then_some(());
    let leaves = || worker_message::Body::Heartbeat(pb::Heartbeat { held: Vec::new(), draining: true, sandbox: None });
    hand.say(leaves()).await;
    assert!(hand.drained().await);
    for _ in 0..3 {
        hand.say(leaves()).await;
        hand.hears("an answer", answered).await;
    }
    // What a heartbeat brings is done when the next one is answered. Each mark wakes every director.
    hand.say(leaves()).await;
    hand.hears("an answer", answered).await;
    assert_eq!(*flaky.unwrap().marked.borrow(), 1);
    rig.close().await;
}

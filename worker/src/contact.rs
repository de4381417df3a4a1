//! How long this worker has been without an answer, and what that does to its builders: after the first limit they are
//! frozen and nothing new is begun, after the second one they are stopped (`coordination.md` 3.3). What is heard in
//! between lets them go on.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Whether builders are to stand still.
pub type Frozen = watch::Receiver<bool>;

/// How long a worker may be without an answer.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Until its builders are frozen.
    soft: Duration,
    /// Until they are stopped.
    end: Duration,
}

/// When the supervisor was last asked something that it answered; not counted where it is in this process.
#[derive(Debug)]
pub(crate) struct Contact {
    limits: Option<Limits>,
    answered: Instant,
    asked: VecDeque<Instant>,
    /// When builders have to be frozen.
    soft: watch::Sender<Option<Instant>>,
}

impl Contact {
    pub(crate) fn new() -> Self {
        Self { limits: None, answered: Instant::now(), asked: VecDeque::new(), soft: watch::Sender::new(None) }
    }

    /// Whether jobs live on without a stream.
    pub(crate) const fn lingers(&self) -> bool {
        self.limits.is_some()
    }

    /// When builders have to be stopped, if nothing is heard before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.limits.map(|limits| self.answered + limits.end)
    }

    /// When they have to be frozen, as it changes.
    pub(crate) fn soft(&self) -> watch::Receiver<Option<Instant>> {
        self.soft.subscribe()
    }

    /// What the supervisor asks for; no end where it is in this process.
    pub(crate) fn limit(&mut self, soft: Duration, end: Duration) {
        self.limits = (!end.is_zero()).then(|| Limits { soft: soft.min(end), end });
        self.publish();
    }

    /// A stream was opened by a question of this moment.
    pub(crate) fn opened(&mut self, asked: Instant) {
        self.asked.clear();
        self.answered = asked;
        self.publish();
    }

    /// A question of now.
    pub(crate) fn asks(&mut self) {
        self.asked.push_back(Instant::now());
    }

    /// The time that counts is that of the question: an answer may have been long on its way.
    pub(crate) fn heard(&mut self) {
        if let Some(asked) = self.asked.pop_front() {
            self.answered = asked;
            self.publish();
        }
    }

    fn publish(&self) {
        // A worker of a supervisor of before, which says none, has no soft limit.
        let soft = self.limits.filter(|limits| !limits.soft.is_zero());
        self.soft.send_replace(soft.map(|limits| self.answered + limits.soft));
    }
}

/// Completes at an instant, or never.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Freezes builders at the soft limit, and while what they say finds no room; lets them go on when something was heard.
/// Until stopped.
pub(crate) async fn freeze(
    mut soft: watch::Receiver<Option<Instant>>,
    mut full: watch::Receiver<bool>,
    frozen: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        let deadline = *soft.borrow_and_update();
        let full_now = *full.borrow_and_update();
        let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        let still = late || full_now;
        if frozen.send_if_modified(|was| std::mem::replace(was, still) != still) {
            tracing::warn!(still, late, full = full_now, "builders stand still while no supervisor hears of them");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = soft.changed() => if changed.is_err() { return },
            changed = full.changed() => if changed.is_err() { return },
            () = at(deadline), if !late => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn builders_stand_still_between_the_two_limits() {
        let (mut contact, frozen, stop) = (Contact::new(), watch::Sender::new(false), CancellationToken::new());
        let full = watch::Sender::new(false);
        let watched = freeze(contact.soft(), full.subscribe(), frozen.clone(), stop.clone());
        let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
        let told = async {
            let mut seen = frozen.subscribe();
            let mut comes = async |wanted: bool| {
                let come = seen.wait_for(|now| *now == wanted);
                assert!(tokio::time::timeout(Duration::from_secs(30), come).await.is_ok(), "{wanted} does not come");
            };
            contact.opened(ago(3000));
            assert!(contact.deadline().is_none() && !contact.lingers(), "no limit was said");
            contact.limit(Duration::from_secs(1000), Duration::from_secs(9000));
            comes(true).await;
            assert!(contact.deadline().unwrap() > Instant::now(), "they live on");
            // Asked long ago, and answered now: it is the question that counts.
            contact.asked.push_back(ago(2000));
            contact.heard();
            tokio::time::sleep(Duration::from_millis(50)).await;
            comes(true).await;
            contact.asks();
            contact.heard();
            comes(false).await;
            // By itself, when the time has come.
            contact.limit(Duration::from_millis(50), Duration::from_secs(9000));
            comes(true).await;
            contact.limit(Duration::ZERO, Duration::from_secs(9000));
            comes(false).await;
            // What is said finds no room, and then some.
            full.send_replace(true);
            comes(true).await;
            contact.limit(Duration::ZERO, Duration::from_secs(8000));
            comes(true).await;
            full.send_replace(false);
            comes(false).await;
            stop.cancel();
        };
        tokio::join!(watched, told);
    }
}

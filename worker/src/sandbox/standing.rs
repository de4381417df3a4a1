//! How far the sandboxes of a worker hold, for as long as it runs: measured at its start, again every few hours, and as
//! soon as what the measure depends on is another one (the kernel, bubblewrap, this program). A worker whose sandboxes
//! hold less than they did is quarantined, until they are measured to hold as much again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use autopack_shared::domain::ids::Digest;
use autopack_shared::domain::sandbox::SandboxLevel;
use autopack_shared::runtime::clock::{Clock as _, SystemClock};

use super::config::Sandbox;
use super::selftest::{Report, cache};

/// How often it is looked whether anything has changed, and how soon a quarantined worker measures again.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What was measured last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What came of it.
    pub report: Report,
    /// When, in milliseconds since 1970.
    pub measured_ms: i64,
    /// The best that was measured since this worker started.
    pub best: SandboxLevel,
    /// What it depends on.
    key: String,
}

impl Standing {
    /// Why nothing may run in these sandboxes: they hold less than they did. None where they do not.
    #[must_use]
    pub fn quarantine(&self) -> Option<String> {
        let Report { level, trouble, attempts, .. } = &self.report;
        (*level < self.best).then(|| {
            let reached: Vec<&str> = attempts.iter().filter(|a| !a.denied).map(|a| a.name.as_str()).collect();
            let why = trouble.clone().unwrap_or_else(|| format!("not denied: {}", reached.join(" ")));
            format!("its sandbox fell from {} to {level}: {why}", self.best)
        })
    }

    /// The digest of what came of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        // A report is texts and numbers, which always are JSON.
        Digest::of(&serde_json::to_vec(&self.report).unwrap_or_default())
    }

    /// Whether it has to be measured again: it is too old, of another kernel or program, or less than it was.
    fn is_stale(&self, key: &str, now_ms: i64, every: Duration) -> bool {
        let age = u64::try_from(now_ms.saturating_sub(self.measured_ms)).map(Duration::from_millis);
        self.key != key || self.report.level < self.best || age.map_or(true, |age| age >= every)
    }
}

fn now_ms() -> i64 {
    SystemClock::default().wall().as_millis()
}

impl Sandbox {
    /// How far it holds here: what was measured under the same conditions and is not too old, or what is measured now.
    pub async fn level(self: &Arc<Self>) -> Arc<Standing> {
        let known = self.standing.borrow().clone();
        match known {
            Some(known) => known,
            None => self.look().await,
        }
    }

    /// Measures where that is due; what holds now.
    async fn look(self: &Arc<Self>) -> Arc<Standing> {
        // One at a time: each takes processes and memory, and two would find each other's.
        let _one = self.measuring.lock().await;
        let (key, every) = (cache::key(self), self.config().selftest_every);
        let known = self.standing.borrow().clone();
        if let Some(known) = known.as_ref().filter(|known| !known.is_stale(&key, now_ms(), every)) {
            return known.clone();
        }
        let kept = if known.is_none() { cache::read(self, &key, now_ms(), every) } else { None };
        let (report, measured_ms) = match kept {
            Some(kept) => kept,
            None => {
                let fell = |report: &Report| known.as_ref().is_some_and(|known| report.level < known.best);
                let mut report = self.measure().await;
                // A machine that has much to do makes attempts fail that would have been denied.
                if fell(&report) {
                    report = self.measure().await;
                }
                let at = now_ms();
                // The next start finds out by itself what is wrong.
                if report.trouble.is_none() && !fell(&report) {
                    cache::write(self, &key, &report, at);
                }
                (report, at)
            }
        };
        let best = known.as_ref().map_or(report.level, |known| known.best.max(report.level));
        let standing = Arc::new(Standing { report, measured_ms, best, key });
        let (now, before) = (standing.quarantine(), known.and_then(|known| known.quarantine()));
        match (&now, &before) {
            (Some(why), None) => tracing::error!(why, "this worker is quarantined"),
            (None, Some(_)) => tracing::info!(level = %standing.report.level, "this worker is no longer quarantined"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        self.standing.send_replace(Some(standing.clone()));
        standing
    }

    /// What was measured last, as it changes.
    pub(crate) fn standing(&self) -> watch::Receiver<Option<Arc<Standing>>> {
        self.standing.subscribe()
    }

    /// Measures whenever that is due, until stopped.
    pub(crate) async fn keep_measured(self: Arc<Self>, stop: CancellationToken) {
        let pause = LOOK_EVERY.min(self.config().selftest_every).max(Duration::from_millis(100));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _standing = self.look() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(level: SandboxLevel, best: SandboxLevel) -> Standing {
        let report = Report { level, means: String::new(), trouble: None, attempts: Vec::new() };
        Standing { report, measured_ms: 1_000, best, key: "k".to_owned() }
    }

    #[test]
    fn it_is_measured_again_when_it_is_old_or_of_something_else_or_less() {
        let every = Duration::from_secs(6 * 3600);
        let good = standing(SandboxLevel::S2, SandboxLevel::S2);
        assert!(good.quarantine().is_none() && !good.is_stale("k", 1_000 + 21_599_999, every));
        assert!(good.is_stale("k", 1_000 + 21_600_000, every));
        assert!(good.is_stale("another bubblewrap", 1_000, every));
        assert!(good.is_stale("k", 0, every), "a clock that was set back proves nothing");
        let fallen = standing(SandboxLevel::S2, SandboxLevel::S3);
        assert!(fallen.is_stale("k", 1_000, every));
        assert!(fallen.quarantine().unwrap().contains("from S3 to S2"), "{fallen:?}");
        assert_ne!(fallen.digest(), standing(SandboxLevel::S3, SandboxLevel::S3).digest());
    }
}

//! Somebody who approves whatever asks, again and again, whatever breaks meanwhile; and who counts leases.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::Value;

use super::site::Desk;
use super::{LOOK, text};

/// What the person saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The requests whose approval was acknowledged.
    pub(super) acknowledged: BTreeSet<String>,
    /// The most active leases in one look.
    pub(super) most_leases: i64,
    looks: usize,
    failed: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, most_leases, looks, failed } = self;
        let count = acknowledged.len();
        write!(f, "{count} approvals in {looks} looks, {failed} calls failed; at most {most_leases} leases seen")
    }
}

/// The person at work, in a thread.
pub(super) struct Approver {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Approver {
    pub(super) fn start(desk: Desk) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !asked.load(Ordering::Relaxed) {
                seen.look(&desk);
                std::thread::sleep(LOOK);
            }
            seen
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Seen {
    fn look(&mut self, desk: &Desk) {
        self.looks += 1;
        if let Some(leases) = self.list(desk, &["leases", "list", "-o", "json"], "leases") {
            self.most_leases = self.most_leases.max(i64::try_from(leases.len()).unwrap());
        }
        for request in self.list(desk, &["approvals", "list", "-o", "json"], "requests").unwrap_or_default() {
            let (id, digest) = (text(&request, "request_id"), text(&request, "subject_digest"));
            let ran = desk.run(&["approvals", "approve", id, "--expect-digest", digest, "--reason", "fine"]);
            match ran.code {
                0 => assert!(self.acknowledged.insert(id.to_owned()), "{id} was approved twice"),
                // 6: decided already, by a call whose answer was lost, or replaced; 7: a service is away.
                6 | 7 => self.failed += 1,
                _ => panic!("{ran:?}"),
            }
        }
    }

    /// What a listing has; none where a service is away.
    fn list(&mut self, desk: &Desk, args: &[&str], key: &str) -> Option<Vec<Value>> {
        let ran = desk.run(args);
        if ran.code != 0 {
            assert_eq!(ran.code, 7, "{ran:?}");
            self.failed += 1;
            return None;
        }
        ran.json()[key].as_array().cloned()
    }
}

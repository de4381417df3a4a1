//! Commands that are killed: when, what had happened by then, and how often a kill hit something.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout};

use super::SLACK;
use super::chance::Chance;
use super::site::Site;

/// How long the commands take when nobody kills them.
#[derive(Debug, Clone, Default)]
pub(super) struct Durations {
    /// `autopilot run`.
    pub(super) run: Duration,
    /// `approvals approve`.
    pub(super) approve: Duration,
    /// `runs resume`.
    pub(super) resume: Duration,
}

/// A request that waits for a decision.
#[derive(Debug)]
pub(super) struct Waiting {
    id: String,
    digest: String,
}

impl Waiting {
    /// The command that approves it.
    pub(super) fn approval(&self) -> Vec<&str> {
        vec!["approvals", "approve", &self.id, "--expect-digest", &self.digest, "--reason", "x"]
    }
}

/// How often what had happened when a kill came.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    kills: usize,
    late: usize,
    failed: bool,
    after: BTreeMap<String, usize>,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills that ended a living process which had an engine that works; one that only records does not count.
    pub(super) fn kills(&self) -> usize {
        self.counts().kills
    }

    /// Whether a round failed, so that the others can end.
    pub(super) fn failed(&self) -> bool {
        self.counts().failed
    }

    fn killed(&self, engine: bool, after: String) {
        let mut counts = self.counts();
        counts.kills += usize::from(engine);
        *counts.after.entry(after).or_default() += 1;
    }

    /// As text, what happened most first.
    pub(super) fn report(&self) -> String {
        let counts = self.counts();
        let mut text = format!(
            "{} kills of a working engine, {} came too late; the last thing shown before:\n",
            counts.kills, counts.late
        );
        let mut after: Vec<_> = counts.after.iter().collect();
        after.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
        for (what, times) in after {
            writeln!(text, "{times:5}  {what}").unwrap();
        }
        text
    }
}

/// One round: its site, its chance, and what was done so far.
pub(super) struct Fire<'a> {
    site: &'a Site,
    chance: Chance,
    calm: Durations,
    tally: &'a Tally,
    runtime: Runtime,
    story: Vec<String>,
    survived: bool,
}

impl<'a> Fire<'a> {
    /// Begins a round.
    pub(super) fn new(site: &'a Site, chance: Chance, calm: Durations, tally: &'a Tally) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { site, chance, calm, tally, runtime, story: Vec::new(), survived: false }
    }

    /// Runs a command, kills it up to `most` times, and repeats it until it ends by itself, in an expected way.
    pub(super) fn step(&mut self, args: &[&str], usually: Duration, most: u64, codes: &[i32]) -> i32 {
        // The command that mends what the last kill left is killed as well.
        for _ in 0..=self.chance.below(most) {
            let moment = self.chance.moment(usually);
            if let Some(status) = self.start(args, moment) {
                self.tally.counts().late += 1;
                self.check(args, status, codes);
            }
        }
        let status = self.start(args, SLACK).unwrap_or_else(|| panic!("{args:?} did not end"));
        self.check(args, status, codes)
    }

    /// Runs a command to its end; returns how long it took.
    pub(super) fn calmly(&mut self, args: &[&str], codes: &[i32]) -> Duration {
        let guard = self.runtime.enter();
        let begin = Instant::now();
        drop(guard);
        let status = self.start(args, SLACK).unwrap_or_else(|| panic!("{args:?} did not end"));
        self.check(args, status, codes);
        begin.elapsed()
    }

    /// The requests that wait.
    pub(super) fn pending(&mut self) -> Vec<Waiting> {
        self.calmly(&["approvals", "list", "-o", "json"], &[0]);
        let listed: Value = serde_json::from_slice(&fs::read(self.site.output()).unwrap()).unwrap();
        let text = |request: &Value, key: &str| request[key].as_str().unwrap().to_owned();
        let requests = listed["requests"].as_array().unwrap().iter();
        requests.map(|one| Waiting { id: text(one, "request_id"), digest: text(one, "subject_digest") }).collect()
    }

    /// Whether a request is approved, or used already.
    pub(super) fn decided(&mut self, request: &Waiting) -> bool {
        self.calmly(&["approvals", "show", &request.id, "-o", "json"], &[0]);
        let shown = fs::read_to_string(self.site.output()).unwrap();
        ["\"APPROVED\"", "\"CONSUMED\""].iter().any(|state| shown.contains(state))
    }

    /// Ends a round that went well.
    pub(super) fn survived(mut self) {
        self.survived = true;
    }

    fn check(&self, args: &[&str], status: ExitStatus, codes: &[i32]) -> i32 {
        let code = status.code().unwrap_or_else(|| panic!("{args:?} ended by {status}"));
        assert!(codes.contains(&code), "{args:?} gave {code}:\n{}", self.site.messages());
        code
    }

    /// Runs a command for a while at most; the end it came to, or none where it was killed.
    fn start(&mut self, args: &[&str], moment: Duration) -> Option<ExitStatus> {
        let mut command = Command::from(self.site.command());
        command
            .args(args)
            .stdout(File::create(self.site.output()).unwrap())
            .stderr(File::create(self.site.errors()).unwrap())
            .stdin(Stdio::null())
            .process_group(0);
        let ended = self.runtime.block_on(async {
            let mut child = command.spawn().unwrap();
            match timeout(moment, child.wait()).await {
                Ok(status) => Some(status.unwrap()),
                Err(_) => {
                    child.start_kill().unwrap();
                    let status = child.wait().await.unwrap();
                    // It may have ended between the deadline and the kill.
                    status.code().is_some().then_some(status)
                }
            }
        });
        let name = args[..2].join(" ");
        let last = self.site.last_message();
        match ended {
            Some(status) => self.story.push(format!("{name}: {status}")),
            None => {
                self.story.push(format!("{name}: killed after {moment:?}, {last}"));
                self.tally.killed(name != "approvals approve", format!("{name}: {last}"));
            }
        }
        ended
    }
}

impl Drop for Fire<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tally.counts().failed = true;
            self.site.keep();
            println!("{}\nwhat happened:\n{}", self.site.path().display(), self.story.join("\n"));
            println!("undisturbed: {:?}", self.calm);
        }
    }
}

//! Every instrument of this program. Recorded at the edges: the director, the services, the worker; never in the
//! domain. Without telemetry they cost next to nothing.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::metrics::{AsyncInstrument, Counter, Gauge, Histogram, Meter};
use opentelemetry::{KeyValue, global};

use crate::domain::record::{Counts, Tally};

/// What an instrument measures.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// Its unit, by the conventions of OpenTelemetry.
    pub unit: &'static str,
    /// In words.
    pub about: &'static str,
}

const fn described(name: &'static str, unit: &'static str, about: &'static str) -> Described {
    Described { name, unit, about }
}

const RUNS: Described = described("autopack.runs", "{run}", "runs by state");
const PHASES: Described = described("autopack.phases", "{phase}", "phases by state");
const GATE_LEASES: Described = described("autopack.gate.leases", "{lease}", "leases that the gate counts");
const GATE_DENIALS: Described =
    described("autopack.gate.denials", "{denial}", "times that a run began to wait at the gate, by reason");
const GRANT_WAIT: Described =
    described("autopack.grant.wait.duration", "s", "time from the queue to a lease that is held");
const GRANT: Described = described("autopack.grant.duration", "s", "time that granting itself took");
const APPROVAL_WAIT: Described =
    described("autopack.approval.wait.duration", "s", "time from a request to its decision, by tier and channel");
const VERDICTS: Described = described("autopack.verdicts", "{verdict}", "verdicts by tier");
const VERDICT_REASONS: Described = described("autopack.verdict.reasons", "{reason}", "reasons of verdicts by tier");
const APPLY: Described = described("autopack.apply.duration", "s", "time from a prepared apply to its record");
const ROLLBACKS: Described = described("autopack.rollbacks", "{rollback}", "changes taken back, by cause");
const LEASE_LOSSES: Described =
    described("autopack.lease.losses", "{lease}", "leases that ended without a result, by how they ended");
const FENCED: Described =
    described("autopack.fenced_writes", "{write}", "writes refused because a newer epoch is in force, by guard");
const SLOTS: Described = described("autopack.worker.slots", "{slot}", "slots of a worker, used and free");
const WORKSPACE: Described =
    described("autopack.workspace.ready.duration", "s", "time from a grant's arrival to a worktree that is ready");
const DROPPED: Described =
    described("autopack.telemetry.dropped", "{item}", "spans, log records and metric exports dropped, by reason");

/// All of them.
pub const INSTRUMENTS: [Described; 16] = [
    RUNS,
    PHASES,
    GATE_LEASES,
    GATE_DENIALS,
    GRANT_WAIT,
    GRANT,
    APPROVAL_WAIT,
    VERDICTS,
    VERDICT_REASONS,
    APPLY,
    ROLLBACKS,
    LEASE_LOSSES,
    FENCED,
    SLOTS,
    WORKSPACE,
    DROPPED,
];

/// The instruments, ready to record.
#[derive(Debug)]
pub struct Metrics {
    denials: Counter<u64>,
    grant_wait: Histogram<f64>,
    grant: Histogram<f64>,
    approval_wait: Histogram<f64>,
    verdicts: Counter<u64>,
    verdict_reasons: Counter<u64>,
    apply: Histogram<f64>,
    rollbacks: Counter<u64>,
    lease_losses: Counter<u64>,
    fenced: Counter<u64>,
    slots: Gauge<u64>,
    workspace: Histogram<f64>,
    census: Arc<Mutex<Vec<Tally>>>,
}

/// The instruments of this process. Telemetry is started before anything is recorded.
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::of(&global::meter("autopack")));
    &METRICS
}

/// A pair of an attribute's name and value.
fn pair(key: &'static str, value: impl Into<opentelemetry::Value>) -> KeyValue {
    KeyValue::new(key, value)
}

const TIER: &str = "autopack.tier";
const REASON: &str = "autopack.reason";
const STATE: &str = "autopack.state";
const PROJECT: &str = "autopack.project";
const PURPOSE: &str = "autopack.purpose";

impl Metrics {
    fn of(meter: &Meter) -> Self {
        let census: Arc<Mutex<Vec<Tally>>> = Arc::default();
        for (what, noun) in [(RUNS, Counts::Runs), (PHASES, Counts::Phases), (GATE_LEASES, Counts::Leases)] {
            let census = census.clone();
            let gauge = meter.u64_observable_gauge(what.name).with_unit(what.unit).with_description(what.about);
            // The provider keeps the callback.
            let _kept = gauge.with_callback(move |observer| observe(&census, noun, observer)).build();
        }
        let counter =
            |what: Described| meter.u64_counter(what.name).with_unit(what.unit).with_description(what.about).build();
        let histogram =
            |what: Described| meter.f64_histogram(what.name).with_unit(what.unit).with_description(what.about).build();
        Self {
            denials: counter(GATE_DENIALS),
            grant_wait: histogram(GRANT_WAIT),
            grant: histogram(GRANT),
            approval_wait: histogram(APPROVAL_WAIT),
            verdicts: counter(VERDICTS),
            verdict_reasons: counter(VERDICT_REASONS),
            apply: histogram(APPLY),
            rollbacks: counter(ROLLBACKS),
            lease_losses: counter(LEASE_LOSSES),
            fenced: counter(FENCED),
            slots: meter.u64_gauge(SLOTS.name).with_unit(SLOTS.unit).with_description(SLOTS.about).build(),
            workspace: histogram(WORKSPACE),
            census,
        }
    }

    /// A lease is held: how long its run waited in the queue, and how long granting took.
    pub fn granted(&self, purpose: &str, waited: Duration, took: Duration) {
        let purpose = [pair(PURPOSE, purpose.to_owned())];
        self.grant_wait.record(waited.as_secs_f64(), &purpose);
        self.grant.record(took.as_secs_f64(), &purpose);
    }

    /// A run began to wait at the gate.
    pub fn denied(&self, reason: &str) {
        self.denials.add(1, &[pair(REASON, reason.to_owned())]);
    }

    /// A request was decided, or its time ran out.
    pub fn decided(&self, tier: u8, channel: &str, outcome: &str, waited: Duration) {
        let channel = pair("autopack.channel", channel.to_owned());
        let pairs = [pair(TIER, i64::from(tier)), channel, pair("autopack.outcome", outcome.to_owned())];
        self.approval_wait.record(waited.as_secs_f64(), &pairs);
    }

    /// A change was judged. What is refused outright has no tier: 0.
    pub fn judged<'a>(&self, verdict: &str, tier: Option<u8>, reasons: impl IntoIterator<Item = &'a str>) {
        let tier = pair(TIER, i64::from(tier.unwrap_or(0)));
        self.verdicts.add(1, &[tier.clone(), pair("autopack.verdict", verdict.to_owned())]);
        for reason in reasons {
            self.verdict_reasons.add(1, &[tier.clone(), pair(REASON, reason.to_owned())]);
        }
    }

    /// A branch was moved.
    pub fn applied(&self, kind: &str, took: Duration) {
        self.apply.record(took.as_secs_f64(), &[pair("autopack.apply.kind", kind.to_owned())]);
    }

    /// A change was taken back.
    pub fn rolled_back(&self, cause: &'static str) {
        self.rollbacks.add(1, &[pair(REASON, cause)]);
    }

    /// A lease ended without a result.
    pub fn lease_lost(&self, how: &str) {
        self.lease_losses.add(1, &[pair(REASON, how.to_owned())]);
    }

    /// A write was refused for its epoch, by `store` or `hub`.
    pub fn fenced(&self, guard: &'static str) {
        self.fenced.add(1, &[pair("autopack.guard", guard)]);
    }

    /// The slots of this worker.
    pub fn slots(&self, all: u32, used: usize) {
        let used = used as u64;
        self.slots.record(used, &[pair(STATE, "used")]);
        self.slots.record(u64::from(all).saturating_sub(used), &[pair(STATE, "free")]);
    }

    /// A worktree is ready.
    pub fn workspace_ready(&self, purpose: &str, took: Duration) {
        self.workspace.record(took.as_secs_f64(), &[pair(PURPOSE, purpose.to_owned())]);
    }

    /// What the store holds, as counted last; nothing once this process does not count any more.
    pub fn census(&self, tallies: Vec<Tally>) {
        *self.census.lock().unwrap_or_else(PoisonError::into_inner) = tallies;
    }
}

fn observe(census: &Mutex<Vec<Tally>>, noun: Counts, observer: &dyn AsyncInstrument<u64>) {
    let census = census.lock().unwrap_or_else(PoisonError::into_inner);
    for tally in census.iter().filter(|tally| tally.noun == noun) {
        let pairs = [pair(PROJECT, tally.project.clone()), pair(STATE, tally.state.clone())];
        observer.observe(tally.count, &pairs);
    }
}

/// Reports what was dropped, as `dropped` says it: signal, reason, count.
pub(super) fn watch_dropped(
    meter: &Meter,
    dropped: impl Fn() -> Vec<(&'static str, &'static str, u64)> + Send + Sync + 'static,
) {
    let counter = meter.u64_observable_counter(DROPPED.name).with_unit(DROPPED.unit).with_description(DROPPED.about);
    let callback = move |observer: &dyn AsyncInstrument<u64>| {
        for (signal, reason, count) in dropped() {
            observer.observe(count, &[pair("autopack.signal", signal), pair(REASON, reason)]);
        }
    };
    let _kept = counter.with_callback(callback).build();
}

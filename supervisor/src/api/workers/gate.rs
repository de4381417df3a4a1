//! What a verification came to: the phase moves on or back, and what was learned of the base and of flaky tests is kept.
//! A report decides nothing that the outcome does not say too, and where the two differ the gate has not answered.

use std::collections::BTreeSet;

use autopack_shared::domain::gate::{BaseData, MAX_BASELINE, Measured, Report, Setting, command_digest};
use autopack_shared::domain::ids::{Oid, ProjectId};
use autopack_shared::domain::record::{Lease, LeasePurpose, Phase, Principal, Run, RunKind};
use autopack_shared::domain::run_file::GateCommand;
use autopack_shared::domain::sandbox::SandboxLevel;
use autopack_shared::domain::state::{AttemptEvent, PhaseEvent};
use autopack_shared::wire::pb;

use crate::director::lease::lose_verify;
use crate::director::{attempts, moves};
use crate::error::Error;
use crate::policy::PolicyInForce;
use crate::sandbox;
use crate::store::{Store, Tx};

/// Bytes of all baselines that go with a grant.
const MAX_BASELINES: usize = 2 * 1024 * 1024;

/// Flaky tests that go with a grant.
const MAX_FLAKY: u32 = 1000;

/// Baselines that a result may bring.
const MAX_MEASURED: usize = 64;

/// The untouched base that a gate's failures are compared with: where the run forked, and for a landing the target that
/// it merges into.
pub(super) fn base_of(run: &Run, phase: &Phase, purpose: LeasePurpose) -> Option<Oid> {
    match (purpose, run.kind) {
        (LeasePurpose::Build, _) => None,
        (LeasePurpose::Verify, RunKind::Patch) => Some(run.fork_commit),
        (LeasePurpose::Verify, RunKind::Landing) => Some(phase.base.unwrap_or(run.fork_commit)),
    }
}

/// Where the processes of a lease will run, as far as that is known before a worker has it: the weakest sandbox that will
/// do, and the kind of database.
pub(super) fn setting(policy: &PolicyInForce, run: &Run, phase: &Phase, purpose: LeasePurpose) -> Setting {
    let weakest = || sandbox::needed(policy, run, phase, purpose).unwrap_or(SandboxLevel::S0);
    let secrets = &policy.config.secrets;
    Setting {
        sandbox: (!run.tainted).then(weakest),
        secrets: secrets.asked_by(purpose, &phase.spec).into_iter().collect(),
        withheld: secrets.withheld(purpose, &phase.spec),
        data: if run.run_data.is_sqlite() { BaseData::Own } else { BaseData::OfTheRun },
        lists: (base_of(run, phase, purpose) != Some(run.fork_commit)).then_some(run.fork_commit),
    }
}

/// What is known of a base, of the commands that are about to run, in any setting that this may turn out to be. What is
/// too large goes without the tests that only tell what vanished.
pub(super) async fn known(
    store: &dyn Store,
    project: &ProjectId,
    base: Option<Oid>,
    commands: &[GateCommand],
    setting: &Setting,
) -> Result<Vec<Measured>, Error> {
    let Some(base) = base.filter(|_| !commands.is_empty()) else { return Ok(Vec::new()) };
    let bug = |e: serde_json::Error| Error::Bug(e.to_string());
    let settings = setting.on_any_worker();
    let each = commands.iter().flat_map(|command| settings.iter().map(move |setting| (command, setting)));
    let wanted = each.map(|(command, setting)| command_digest(command, setting)).collect::<Result<Vec<_>, _>>();
    let found = store.read().await?.baselines_of(project, base, &wanted.map_err(bug)?).await?;
    let mut room = MAX_BASELINES;
    let mut fitting = Vec::new();
    for mut one in found {
        if size_of(&one) > room {
            one.baseline = one.baseline.trimmed();
        }
        if let Some(left) = room.checked_sub(size_of(&one)) {
            room = left;
            fitting.push(one);
        }
    }
    Ok(fitting)
}

/// Bytes of a baseline as JSON.
fn size_of(known: &Measured) -> usize {
    serde_json::to_string(known).map_or(usize::MAX, |json| json.len())
}

/// The tests that were flaky last, of commands that are about to run: command and test.
pub(super) async fn flaky(
    store: &dyn Store,
    project: &ProjectId,
    base: Option<Oid>,
    commands: &[GateCommand],
) -> Result<Vec<(String, String)>, Error> {
    if base.is_none() {
        return Ok(Vec::new());
    }
    let found = store.read().await?.flaky_tests(project, MAX_FLAKY).await?;
    let runs = |name: &str| commands.iter().any(|command| command.name == name);
    Ok(found.into_iter().filter(|test| runs(&test.command)).map(|test| (test.command, test.test)).collect())
}

/// Takes the answer of a gate.
pub(super) async fn accept(
    tx: &mut dyn Tx,
    lease: &Lease,
    phase: &mut Phase,
    result: &pb::AttemptResult,
    reason: Option<String>,
) -> Result<(), Error> {
    let ok = reason.is_none();
    let report = match result.gate_json.as_str() {
        "" => None,
        json => match Report::read(json) {
            Ok(report) if report.green == ok => Some(report),
            Ok(_) => return lose_verify(tx, phase, "the report and the outcome of the gate differ").await,
            Err(error) => {
                return lose_verify(tx, phase, &format!("the report of the gate cannot be read: {error}")).await;
            }
        },
    };
    if !ok && result.reason != "gate_failed" {
        return lose_verify(tx, phase, &result.reason).await;
    }
    let mut report = report;
    for command in report.iter_mut().flat_map(|report| &mut report.commands) {
        // What was not kept for this run cannot be shown to anybody.
        if let Some(digest) = command.transcript
            && !tx.has_transcript(&phase.run, &digest).await?
        {
            command.transcript = None;
        }
    }
    if let Some(report) = &report {
        learn(tx, lease, phase, report, &result.baselines_json).await?;
    }
    let said = reason.unwrap_or_else(|| "the gate is green".to_owned());
    keep(tx, phase, report.clone(), ok).await?;
    if ok {
        return moves::phase(tx, phase, PhaseEvent::Pass, Some(said), &Principal::system()).await;
    }
    phase.failed_attempts += 1;
    let (line, items) = report.map_or_else(|| (said.clone(), Vec::new()), |report| report.told());
    attempts::tell_gate(phase, &line, items);
    moves::phase(tx, phase, PhaseEvent::RollBack, Some(said), &Principal::system()).await
}

/// Writes the report to its attempt, which a green one ends. A red one is ended by the rollback.
async fn keep(tx: &mut dyn Tx, phase: &Phase, report: Option<Report>, ok: bool) -> Result<(), Error> {
    let Some(mut attempt) = tx.attempt(&phase.run, &phase.id, phase.attempt).await? else { return Ok(()) };
    attempt.gate = report;
    if ok && attempt.state.next(AttemptEvent::Succeed).is_ok() {
        return moves::attempt(tx, &mut attempt, AttemptEvent::Succeed, None).await;
    }
    moves::update_attempt(tx, &mut attempt, "its gate has answered").await
}

/// Keeps what was learned: nothing of it is run state.
async fn learn(tx: &mut dyn Tx, lease: &Lease, phase: &Phase, report: &Report, measured: &str) -> Result<(), Error> {
    let flaky: BTreeSet<_> =
        report.commands.iter().flat_map(|c| c.flaky.iter().map(|test| (c.name.clone(), test.clone()))).collect();
    tx.note_flaky(&lease.project, &flaky, &lease.run).await?;
    if measured.is_empty() {
        return Ok(());
    }
    let Some(run) = tx.run(&lease.run).await? else { return Ok(()) };
    let Some(base) = base_of(&run, phase, lease.purpose).filter(|base| *base == report.base) else { return Ok(()) };
    let found: Vec<Measured> = match serde_json::from_str(measured) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(run = %lease.run, worker = %lease.worker, %error, "baselines that cannot be read");
            return Ok(());
        }
    };
    for mut known in found.into_iter().take(MAX_MEASURED) {
        if size_of(&known) > MAX_BASELINE {
            known.baseline = known.baseline.trimmed();
        }
        // One that fails in so many tests is measured again each time.
        if size_of(&known) <= 2 * MAX_BASELINE {
            tx.put_baseline(&lease.project, base, &known).await?;
        }
    }
    Ok(())
}

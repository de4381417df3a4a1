//! Stored things as wire messages, and diffs as text.

use autopack_shared::domain::breaker::{Breaker, Credential};
use autopack_shared::domain::budget::{BudgetScope, Ledger, Spend, Unit, next_day};
use autopack_shared::domain::feedback::Feedback;
use autopack_shared::domain::gate::Report;
use autopack_shared::domain::ids::{Oid, Timestamp};
use autopack_shared::domain::record::{Attempt, Decision, Event, Lease, Phase, Project, Request, Run};
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::secret::redact;
use autopack_shared::repo::diff::{tree_diff, unified_diff};
use autopack_shared::wire::pb;

use crate::coordination::{SUSPECT, SessionEntry};
use crate::error::Error;
use crate::hub::{Hub, HubError, Place};

/// Bytes of a diff that are sent.
pub const MAX_DIFF: usize = 2 * 1024 * 1024;

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

/// The builder's kind.
#[must_use]
pub fn builder_word(spec: &BuilderSpec) -> String {
    match spec {
        BuilderSpec::Command { name: Some(name), .. } => format!("command:{name}"),
        BuilderSpec::Command { name: None, .. } => "command".to_owned(),
        BuilderSpec::Agent { preset } => format!("agent:{preset}"),
        BuilderSpec::Llm { model } => format!("llm:{model}"),
        BuilderSpec::Patch { .. } => "patch".to_owned(),
        BuilderSpec::Landing { run } => format!("landing:{run}"),
        BuilderSpec::Remediation { gap_type, .. } => format!("remediation:{gap_type}"),
    }
}

/// A run without its phases.
#[must_use]
pub fn run(run: &Run, tip: Option<Oid>) -> pb::Run {
    pb::Run {
        id: run.id.to_string(),
        project: run.project.to_string(),
        kind: format!("{:?}", run.kind).to_lowercase(),
        state: run.state.as_str().to_uppercase(),
        fork_commit: run.fork_commit.to_string(),
        target_ref: run.target_ref.clone().unwrap_or_default(),
        branch: run.branch.clone(),
        tip: text(tip),
        author: run.author.id.clone(),
        tainted: run.tainted,
        reason: run.reason.clone().unwrap_or_default(),
        created_at_ms: run.created_at.as_millis(),
        updated_at_ms: run.updated_at.as_millis(),
        policy_digest: run.policy_digest.to_string(),
        anchor_digest: text(run.anchor_digest),
        plan_digest: text(run.plan_digest),
        phases: Vec::new(),
        budgets: Vec::new(),
        budget_hit: text(run.budget.hit.as_ref()),
        rests_until_ms: 0,
        rests: String::new(),
    }
}

/// A phase with its newest decision, the commit that carries it, and what its gate came to.
#[must_use]
pub fn phase(phase: &Phase, decision: Option<&Decision>, commit: Option<Oid>, gate: Option<&Report>) -> pb::Phase {
    pb::Phase {
        id: phase.id.to_string(),
        ordinal: phase.ordinal,
        state: phase.state.as_str().to_uppercase(),
        goal: phase.spec.goal.clone(),
        builder: builder_word(&phase.spec.builder),
        attempt: phase.attempt,
        base: text(phase.base),
        tree: text(phase.tree),
        request_id: phase.request.as_ref().map(ToString::to_string).unwrap_or_default(),
        verdict: decision.map(|d| d.verdict.clone()).unwrap_or_default(),
        tier: decision.and_then(|d| d.tier).map_or(0, u32::from),
        reason: phase.reason.clone().unwrap_or_default(),
        feedback: phase.feedback.iter().map(Feedback::render).collect(),
        feedback_json: serde_json::to_string(&phase.feedback).unwrap_or_default(),
        attempts: Vec::new(),
        commit: text(commit),
        scope: phase.spec.scope.paths.clone(),
        transcript: String::new(),
        // Plain data, which is always written.
        gate_json: gate.and_then(|gate| serde_json::to_string(gate).ok()).unwrap_or_default(),
    }
}

/// One attempt, with what its builder says it used.
#[must_use]
pub fn attempt(attempt: &Attempt, spend: Option<&Spend>) -> pb::Attempt {
    pb::Attempt {
        number: attempt.number,
        state: attempt.state.as_str().to_uppercase(),
        base: attempt.base.to_string(),
        tree: text(attempt.result_tree),
        reason: attempt.reason.clone().unwrap_or_default(),
        started_at_ms: attempt.started_at.as_millis(),
        ended_at_ms: attempt.ended_at.map(|t| t.as_millis()).unwrap_or_default(),
        usage: spend.and_then(|spend| spend.reported).map(|usage| pb::Usage {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cost_micros: usage.cost_micros,
            calls: usage.calls,
            ..Default::default()
        }),
        transcript: text(attempt.transcript),
        // Plain data, which is always written.
        gate_json: attempt.gate.as_ref().and_then(|gate| serde_json::to_string(gate).ok()).unwrap_or_default(),
    }
}

/// The budgets that bind, unit by unit.
#[must_use]
pub fn budgets(ledgers: &[Ledger], now: Timestamp) -> Vec<pb::Budget> {
    let of = |ledger: &Ledger| {
        let (scope, caps, spent) = (ledger.scope, ledger.caps, ledger.spent);
        let bounds = Unit::ALL.into_iter().filter_map(move |unit| caps.get(unit).map(|limit| (unit, limit)));
        bounds.map(move |(unit, limit)| pb::Budget {
            scope: scope.as_str().to_owned(),
            unit: unit.as_str().to_owned(),
            limit,
            used: spent.settled.get(unit),
            reserved: spent.reserved.get(unit),
            resets_at_ms: if scope == BudgetScope::Day { next_day(now).as_millis() } else { 0 },
        })
    };
    ledgers.iter().flat_map(of).collect()
}

/// A builder by its breaker, with its credential.
#[must_use]
pub fn builder(breaker: &Breaker, credential: Option<&Credential>, now: Timestamp) -> pb::Builder {
    let at = |instant: Option<Timestamp>| instant.map(Timestamp::as_millis).unwrap_or_default();
    pb::Builder {
        builder: breaker.builder.clone(),
        state: breaker.state.as_str().to_owned(),
        failures: breaker.failures,
        reason: breaker.reason.clone().unwrap_or_default(),
        opened_at_ms: at(breaker.opened_at),
        probes_at_ms: at(breaker.probes_at),
        probe: text(breaker.probe.as_ref()),
        credential: breaker.credential.clone().unwrap_or_default(),
        credential_rests_until_ms: at(credential.and_then(|credential| credential.rests(now))),
    }
}

/// A request.
#[must_use]
pub fn request(request: &Request, votes: u32) -> pb::Request {
    pb::Request {
        id: request.id.to_string(),
        run_id: request.run.to_string(),
        phase_id: request.phase.to_string(),
        attempt: request.attempt,
        tier: u32::from(request.tier),
        state: request.state.as_str().to_uppercase(),
        subject_digest: request.subject_digest.to_string(),
        base: request.base.to_string(),
        tree: request.tree.to_string(),
        target_ref: request.target_ref.clone(),
        violated_paths: request.violated_paths.clone(),
        justification: request.justification.clone(),
        risk_level: request.risk_level.clone(),
        risk_score: u32::from(request.risk_score),
        risk_factors: request.risk_factors.clone(),
        author: request.author.id.clone(),
        approvers_needed: request.approvers_needed,
        approvers_so_far: votes,
        created_at_ms: request.created_at.as_millis(),
        expires_at_ms: request.expires_at.as_millis(),
        decided_by: request.decided_by.as_ref().map(|p| p.id.clone()).unwrap_or_default(),
        decided_at_ms: request.decided_at.map(|t| t.as_millis()).unwrap_or_default(),
        notes: request.notes.clone().unwrap_or_default(),
        reason_code: request.reason_code.clone().unwrap_or_default(),
        carried_from: request.carried_from.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// An event.
#[must_use]
pub fn event(event: &Event) -> pb::Event {
    pb::Event {
        seq: event.seq,
        run_id: event.run.to_string(),
        phase_id: event.phase.as_ref().map(ToString::to_string).unwrap_or_default(),
        kind: event.kind.clone(),
        text: event.text.clone(),
        data_json: event.data.to_string(),
        at_ms: event.at.as_millis(),
    }
}

/// A lease as the store has it.
#[must_use]
pub fn lease(lease: &Lease) -> pb::Lease {
    pb::Lease {
        id: lease.id.to_string(),
        run_id: lease.run.to_string(),
        phase_id: lease.phase.to_string(),
        purpose: format!("{:?}", lease.purpose).to_lowercase(),
        worker_id: lease.worker.to_string(),
        epoch: lease.epoch,
        state: lease.state.as_str().to_uppercase(),
        granted_at_ms: lease.granted_at.as_millis(),
        ended_at_ms: lease.ended_at.map(|t| t.as_millis()).unwrap_or_default(),
        reason: lease.reason.clone().unwrap_or_default(),
        ..pb::Lease::default()
    }
}

/// The diff between a commit and a tree, in git format, cut at [`MAX_DIFF`].
///
/// # Errors
/// When an object cannot be read.
pub fn diff(hub: &dyn Hub, base: Oid, tree: Oid) -> Result<(Vec<u8>, bool), Error> {
    let repo = hub.repository(&[base, tree])?;
    Ok(hidden(unified_diff(&repo, base, tree, MAX_DIFF).map_err(HubError::from)?))
}

/// The diff from one tree to another, in the same way.
///
/// # Errors
/// When an object cannot be read.
pub fn interdiff(hub: &dyn Hub, from: Oid, to: Oid) -> Result<(Vec<u8>, bool), Error> {
    let repo = hub.repository(&[from, to])?;
    Ok(hidden(tree_diff(&repo, from, to, MAX_DIFF).map_err(HubError::from)?))
}

fn hidden((text, cut): (Vec<u8>, bool)) -> (Vec<u8>, bool) {
    let shown = String::from_utf8_lossy(&text);
    let redacted = redact(&shown);
    // Bytes that are no UTF-8 stay as they are unless there is something to hide.
    if redacted == shown { (text, cut) } else { (redacted.into_bytes(), cut) }
}

/// A project.
#[must_use]
pub fn project(project: &Project) -> pb::Project {
    let kind = Place::parse(&project.repo).map_or("local", |place| place.kind()).to_owned();
    pb::Project {
        name: project.id.to_string(),
        repo: project.repo.clone(),
        created_ms: project.created_at.as_millis(),
        kind,
    }
}

/// A worker's session, with how many of these leases it has.
#[must_use]
pub fn worker(session: &SessionEntry, leases: &[Lease]) -> pb::Worker {
    let taken = leases.iter().filter(|l| l.worker == session.worker && l.session == session.session).count();
    pb::Worker {
        worker_id: session.worker.to_string(),
        session: session.session.clone(),
        slots: session.facts.slots,
        taken: u32::try_from(taken).unwrap_or(u32::MAX),
        sandbox_level: session.facts.sandbox_level.clone(),
        via: session.holder.clone(),
        age_ms: ms(session.life.age),
        remaining_ms: session.life.remaining.map_or(0, ms),
        draining: session.draining,
        suspect: session.life.is_suspect(SUSPECT),
        sandbox_measured_ms: session.facts.sandbox_report.1,
        sandbox_digest: session.facts.sandbox_report.0.clone(),
        quarantine: session.facts.quarantine.clone(),
    }
}

/// A time as the wire has it.
#[must_use]
pub fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

//! Rows to put into a store, each valid and none with a field at its default.

#![allow(dead_code, reason = "not every test binary uses every row")]
use std::collections::BTreeMap;

use serde_json::json;

use autopack_shared::domain::anchor::IntentionAnchorV2;
use autopack_shared::domain::audit::{AuditDraft, EVENT, ORIGIN, PHASE, ROW, row_digest};
use autopack_shared::domain::budget::{Caps, PhaseBudget, RunBudget};
use autopack_shared::domain::feedback::{Feedback, FeedbackKind, Told};
use autopack_shared::domain::gate;
use autopack_shared::domain::ids::{Digest, Fence, Oid, Scope, Timestamp};
use autopack_shared::domain::record::{
    Apply, ApplyKind, Attempt, Command, CommandOp, Decision, Event, Lease, LeasePurpose, Notice, Phase, Principal,
    Project, Request, Run, RunKind, Vote,
};
use autopack_shared::domain::run_data::RunDataModel;
use autopack_shared::domain::run_file::RunFile;
use autopack_shared::domain::state::{ApplyState, AttemptState, LeaseState, PhaseState, RequestState, RunState};
use autopack_shared::domain::trace::TraceContext;
// The port comes through the parent, since the crate's own tests use these rows too.
use super::{FenceRow, Store, Tx};

/// A checked name.
pub(crate) fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

pub(crate) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + millis)
}

pub(crate) fn oid(n: u8) -> Oid {
    Oid::from_bytes([n; 20])
}

pub(crate) fn ann() -> Principal {
    Principal { id: "local:ann".to_owned(), method: "socket".to_owned() }
}

pub(crate) fn project(id: &str) -> Project {
    let registered = BTreeMap::from([("autopack.toml".to_owned(), "[policy]\n".to_owned())]);
    Project { id: name(id), repo: format!("/srv/{id}"), registered, created_at: at(1) }
}

fn run_file() -> RunFile {
    serde_json::from_value(json!({
        "phases": [{ "id": "p", "goal": "tidy up ✓", "scope": { "paths": ["docs/**"] }, "timeout": 60,
                     "builder": { "kind": "command", "argv": ["true"] } }],
        "limits": { "tokens": 7, "cost": 1.5 }
    }))
    .unwrap()
}

fn anchor() -> IntentionAnchorV2 {
    IntentionAnchorV2::parse(
        r#"{"format_version":"v2","project_id":"shop","created_at":"2026-01-01T00:00:00Z","raw_input_digest":"0123456789abcdef",
            "pivot_intentions":{"north_star":{"desired_outcomes":["x"]}},"custom_pivots":{"ours":[1,null,"y"]}}"#,
    )
    .unwrap()
}

pub(crate) fn run(id: &str) -> Run {
    Run {
        id: name(id),
        project: name("shop"),
        kind: RunKind::Patch,
        state: RunState::Created,
        version: 0,
        fork_commit: oid(1),
        target_ref: Some("refs/heads/main".to_owned()),
        branch: format!("refs/heads/autopack/{id}"),
        policy_digest: Digest::of(b"policy"),
        anchor_digest: Some(Digest::of(b"anchor")),
        anchor: Some(anchor()),
        plan_digest: Some(Digest::of(b"plan")),
        registered: BTreeMap::from([("autopack.toml".to_owned(), "[policy]\n".to_owned())]),
        lands: Some(name("other")),
        lands_tip: Some(oid(9)),
        file: run_file(),
        author: ann(),
        tainted: true,
        run_data: RunDataModel::Schema,
        pause_requested: true,
        budget: RunBudget { raised: Caps { tokens: Some(9), ..Caps::default() }, hit: None },
        trace: Some(TraceContext { parent: "00-aa-bb-01".to_owned(), state: "v=1".to_owned() }),
        reason: Some("line one\nline 'two'; --".to_owned()),
        checkout: None,
        created_at: at(10),
        updated_at: at(11),
    }
}

fn told() -> Feedback {
    Told::new(FeedbackKind::Review, 1, "style", "say it nicely", vec!["line 3".to_owned()]).into()
}

pub(crate) fn phase(run: &str, id: &str, ordinal: u32) -> Phase {
    Phase {
        run: name(run),
        id: name(id),
        ordinal,
        state: PhaseState::Queued,
        version: 0,
        spec: run_file().phases.remove(0),
        attempt: 1,
        failed_attempts: 2,
        lost_attempts: 3,
        base: Some(oid(2)),
        tree: Some(oid(3)),
        decision: Some(name("d-1")),
        request: Some(name("q-1")),
        apply: Some(name("a-1")),
        carry: Some(name("q-0")),
        feedback: vec![Feedback::Words("again".to_owned()), told()],
        rollback_ordered: true,
        retried: true,
        budget: PhaseBudget { raised: Caps { tokens: Some(9), ..Caps::default() }, short: None },
        reason: Some("because".to_owned()),
        updated_at: at(12),
    }
}

pub(crate) fn attempt(run: &str, phase: &str, number: u32) -> Attempt {
    Attempt {
        run: name(run),
        phase: name(phase),
        number,
        epoch: 1 << 33,
        state: AttemptState::Created,
        version: 0,
        base: oid(4),
        result_tree: Some(oid(5)),
        notes: vec!["skipped a socket".to_owned()],
        transcript: None,
        gate: Some(gate::Report { green: true, base: oid(3), commands: Vec::new() }),
        reason: Some("exit 1".to_owned()),
        started_at: at(13),
        ended_at: Some(at(14)),
    }
}

pub(crate) fn lease(id: &str, run: &str) -> Lease {
    Lease {
        id: name(id),
        run: name(run),
        project: name("shop"),
        phase: name("p"),
        purpose: LeasePurpose::Verify,
        attempt: 1,
        worker: name("w-1"),
        session: "s-1".to_owned(),
        epoch: 2,
        ws_epoch: 3,
        state: LeaseState::Granting,
        version: 0,
        trace: Some(TraceContext { parent: "00-aa-cc-01".to_owned(), state: String::new() }),
        granted_at: at(15),
        ended_at: Some(at(16)),
        reason: Some("gone".to_owned()),
    }
}

pub(crate) fn decision(id: &str, run: &str) -> Decision {
    Decision {
        id: name(id),
        run: name(run),
        phase: name("p"),
        attempt: 1,
        base: oid(6),
        tree: oid(7),
        subject_digest: Digest::of(id.as_bytes()),
        policy_digest: Digest::of(b"policy"),
        anchor_digest: Some(Digest::of(b"anchor")),
        verdict: "APPROVAL_REQUIRED".to_owned(),
        tier: Some(3),
        document: json!({ "schema": "verdict/1", "findings": [{ "path": "a" }] }),
        class_sizes: BTreeMap::from([("code".to_owned(), 12)]),
        transcript: Some(Digest::of(b"printed")),
        decided_at: at(17),
    }
}

/// A request of its own subject.
pub(crate) fn request(id: &str, run: &str) -> Request {
    Request {
        id: name(id),
        run: name(run),
        phase: name("p"),
        attempt: 1,
        decision: name("d-1"),
        tier: 3,
        state: RequestState::Pending,
        version: 0,
        subject_digest: Digest::of(id.as_bytes()),
        base: oid(6),
        tree: oid(7),
        target_ref: format!("refs/heads/autopack/{run}"),
        violated_paths: vec!["src/a.rs".to_owned()],
        justification: "the builder says".to_owned(),
        risk_level: "HIGH".to_owned(),
        risk_score: 61,
        risk_factors: vec!["R1".to_owned()],
        author: ann(),
        approvers_needed: 2,
        created_at: at(18),
        expires_at: at(3_600_018),
        decided_by: Some(ann()),
        decided_at: Some(at(19)),
        notes: Some("ok".to_owned()),
        reason_code: Some("other".to_owned()),
        carried_from: Some(name("q-0")),
    }
}

pub(crate) fn vote(request: &str, who: &str) -> Vote {
    Vote {
        request: name(request),
        principal: Principal { id: who.to_owned(), method: "token".to_owned() },
        approve: true,
        subject_digest: Digest::of(request.as_bytes()),
        notes: "seen".to_owned(),
        at: at(20),
    }
}

pub(crate) fn command(id: &str, run: &str) -> Command {
    Command {
        id: name(id),
        run: name(run),
        op: CommandOp::Retry {
            phase: Some(name("p")),
            feedback: "try b".to_owned(),
            scope: Some(vec!["b/**".to_owned()]),
        },
        principal: ann(),
        created_at: at(21),
        done_at: None,
        result: None,
    }
}

/// An apply on a branch of its own.
pub(crate) fn apply(id: &str, run: &str) -> Apply {
    Apply {
        id: name(id),
        run: name(run),
        phase: name("p"),
        attempt: 1,
        kind: ApplyKind::Patch,
        target_ref: format!("refs/heads/autopack/{id}"),
        old: oid(6),
        new: oid(8),
        tree: oid(7),
        decision: Some(name("d-1")),
        request: None,
        state: ApplyState::Prepared,
        version: 0,
        decided_at: at(17),
        prepared_at: at(22),
        finished_at: Some(at(23)),
        reason: Some("moved".to_owned()),
    }
}

pub(crate) fn event(run: &str, text: &str) -> Event {
    Event {
        seq: 0,
        run: name(run),
        phase: Some(name("p")),
        kind: "phase.state".to_owned(),
        text: text.to_owned(),
        data: json!({ "before": "queued", "n": 1 }),
        at: at(24),
        prev: None,
    }
}

pub(crate) fn notice(id: &str, run: &str) -> Notice {
    let (kind, text) = ("approval_needed".to_owned(), "look".to_owned());
    Notice { id: name(id), run: name(run), kind, text, created_at: at(25), sent_at: None }
}

pub(crate) fn draft(chain: &str, op: &str, object: &str, id: &str, after: Option<&str>) -> AuditDraft {
    AuditDraft {
        chain: chain.to_owned(),
        actor: ann(),
        op: op.to_owned(),
        object_type: object.to_owned(),
        object_id: id.to_owned(),
        before: None,
        after: after.map(str::to_owned),
        fence: Some("director#1".to_owned()),
        digests: BTreeMap::from([("subject".to_owned(), "sha256:00".to_owned())]),
        reason: "because".to_owned(),
        request: BTreeMap::new(),
    }
}

/// The draft with the digest that pins a row.
pub(crate) fn pinned(mut draft: AuditDraft, row: &impl serde::Serialize) -> AuditDraft {
    draft.digests.insert(ROW.to_owned(), row_digest(row).unwrap());
    draft
}

/// The draft that tells of the creation of a run with one phase `p`.
pub(crate) fn created(id: &str) -> AuditDraft {
    let (chain, run) = (format!("run/{id}"), run(id));
    let mut draft = draft(&chain, "run.created", "run", id, Some("created"));
    draft.digests.insert(ORIGIN.to_owned(), row_digest(&run.origin()).unwrap());
    draft.digests.insert(format!("{PHASE}p"), row_digest(&phase(id, "p", 0)).unwrap());
    pinned(draft, &run)
}

pub(crate) fn run_fence(run: &str, epoch: u64) -> Fence {
    Fence { scope: Scope::Run(name(run)), epoch }
}

/// Raises an epoch, and logs it.
pub(crate) async fn bump(tx: &mut dyn Tx, scope: &Scope, holder: &str) -> u64 {
    let epoch = tx.bump(scope, holder).await.unwrap();
    let fence = FenceRow { scope: scope.to_string(), epoch, holder: holder.to_owned(), granted_at: tx.now() };
    let mut bumped = draft(&FenceRow::chain(&fence.scope), "fence.bump", "fence", &fence.scope, None);
    bumped.digests.insert("epoch".to_owned(), epoch.to_string());
    tx.append_audit(pinned(bumped, &fence)).await.unwrap();
    epoch
}

/// Becomes director; the fence to write with.
pub(crate) async fn director(store: &dyn Store) -> Fence {
    let mut tx = store.tx(&[]).await.unwrap();
    let epoch = bump(tx.as_mut(), &Scope::Director, "test").await;
    tx.commit().await.unwrap();
    Fence { scope: Scope::Director, epoch }
}

/// A transaction of a fresh director.
pub(crate) async fn directing(store: &dyn Store) -> Box<dyn Tx> {
    let fence = director(store).await;
    store.tx(&[fence]).await.unwrap()
}

/// Adds a run with one phase `p`.
pub(crate) async fn add_run(store: &dyn Store, id: &str) {
    let mut tx = store.tx(&[]).await.unwrap();
    tx.insert_run(&run(id)).await.unwrap();
    tx.insert_phase(&phase(id, "p", 0)).await.unwrap();
    tx.commit().await.unwrap();
}

/// The same, with everything that the log has to say of it: two records, after the director's.
pub(crate) async fn add_logged_run(store: &dyn Store, id: &str) {
    let mut tx = directing(store).await;
    tx.insert_run(&run(id)).await.unwrap();
    tx.insert_phase(&phase(id, "p", 0)).await.unwrap();
    tx.insert_attempt(&attempt(id, "p", 1)).await.unwrap();
    tx.append_audit(created(id)).await.unwrap();
    let tried = draft(&format!("run/{id}"), "attempt.created", "attempt", &format!("{id}/p/1"), Some("created"));
    tx.append_audit(pinned(tried, &attempt(id, "p", 1))).await.unwrap();
    tx.commit().await.unwrap();
}

/// One row of every table, each with its record in the log.
pub(crate) async fn fill(store: &dyn Store) {
    let mut tx = store.tx(&[]).await.unwrap();
    for n in ["1", "2", "3"] {
        tx.append_audit(draft("run/a", "x.y", "run", n, None)).await.unwrap();
    }
    tx.insert_run(&run("a")).await.unwrap();
    tx.append_audit(created("a")).await.unwrap();
    tx.insert_phase(&phase("a", "p", 0)).await.unwrap();
    tx.insert_attempt(&attempt("a", "p", 1)).await.unwrap();
    let tried = draft("run/a", "attempt.created", "attempt", "a/p/1", Some("created"));
    tx.append_audit(pinned(tried, &attempt("a", "p", 1))).await.unwrap();
    tx.insert_lease(&lease("l-1", "a")).await.unwrap();
    tx.append_audit(pinned(draft("run/a", "lease.granting", "lease", "l-1", None), &lease("l-1", "a"))).await.unwrap();
    tx.insert_decision(&decision("d-1", "a")).await.unwrap();
    let decided = draft("run/a", "decision.recorded", "decision", "d-1", None);
    tx.append_audit(pinned(decided, &decision("d-1", "a"))).await.unwrap();
    tx.insert_request(&request("q-1", "a")).await.unwrap();
    let created = draft("run/a", "request.created", "request", "q-1", None);
    tx.append_audit(pinned(created, &request("q-1", "a"))).await.unwrap();
    tx.insert_vote(&vote("q-1", "local:ann")).await.unwrap();
    let voted = draft("run/a", "vote.recorded", "request", "q-1", None);
    tx.append_audit(pinned(voted, &vote("q-1", "local:ann"))).await.unwrap();
    tx.insert_command(&command("c-1", "a")).await.unwrap();
    let asked = draft("run/a", "command.recorded", "command", "c-1", Some("open"));
    tx.append_audit(pinned(asked, &command("c-1", "a"))).await.unwrap();
    let apply = Apply { prepared_at: tx.now(), ..apply("a-1", "a") };
    tx.insert_apply(&apply).await.unwrap();
    tx.add_window(&run("a"), &name("a-1"), &decision("d-1", "a").class_sizes).await.unwrap();
    let mut line = event("a", "x");
    tx.append_event(&mut line).await.unwrap();
    let mut prepared = pinned(draft("run/a", "apply.prepared", "apply", "a-1", None), &apply);
    prepared.digests.insert(EVENT.to_owned(), row_digest(&line).unwrap());
    tx.append_audit(prepared).await.unwrap();
    tx.append_audit(draft("cluster", "x.y", "run", "a", None)).await.unwrap();
    tx.commit().await.unwrap();
}

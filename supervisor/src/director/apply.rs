//! Exactly-once application (`coordination.md` 3.10): prepare in the store, move the ref under the fence, record. Each
//! half can be done again without harm: the commit is deterministic, the move is a compare-and-set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use autopack_shared::domain::audit::ROW;
use autopack_shared::domain::evaluate::WINDOW_LIMIT;
use autopack_shared::domain::ids::{Digest, Oid, PhaseId, RowId, Timestamp};
use autopack_shared::domain::record::{Apply, ApplyKind, Decision, Phase, Request, Run};
use autopack_shared::domain::run_file::BuilderSpec;
use autopack_shared::domain::state::{
    ApplyEvent, ApplyState, AttemptEvent, PhaseEvent, PhaseState, RequestEvent, RequestState, RunState,
};
use autopack_shared::runtime::telemetry::instruments::metrics;

use super::attempts::rolled_back;
use super::grant::{reread_phase, reread_run};
use super::judge::judgement_of;
use super::moves::{self, Note, note, pin};
use super::view::RunView;
use super::{Director, budget, ref_of, system};
use crate::error::Error;
use crate::hub::{AttemptKey, CasOutcome, CommitSpec, HubError, HubRead as _};
use crate::store::Tx;

impl Director {
    /// Prepares the apply of an approved change, or sends it back because its base or policy moved.
    pub(super) async fn prepare(&self, view: &RunView, id: &PhaseId) -> Result<(), Error> {
        let Some(phase) = view.phase(id) else { return Ok(()) };
        let (Some(base), Some(tree), Some(decision)) = (phase.base, phase.tree, view.decision_of(phase)) else {
            return Err(Error::Bug(format!("{} is approved without base, tree or decision", phase.id)));
        };
        let branch = ref_of(&view.run);
        let (hub, name) = (self.hub.clone(), branch.clone());
        let tip = self.blocking(move || hub.tip(&name)).await?;
        let fork = self.policy_of(&view.run).await?;
        let in_force = judgement_of(&fork, self.policy_of_target(&view.run).await?.as_deref());
        if tip != Some(base) || in_force != decision.policy_digest {
            let why = if tip == Some(base) { "the policy changed" } else { "the branch moved on" };
            return self.stale(view, id, why).await;
        }
        let request = view.request_of(phase).filter(|_| decision.tier.is_none_or(|t| t >= 3));
        let decided_at = request.and_then(|r| r.decided_at).unwrap_or(decision.decided_at);
        let spec = spec(&view.run, phase, (decision, request), (base, tree), decided_at);
        let hub = self.hub.clone();
        let new = self.blocking(move || hub.commit(&spec)).await?;
        let mut tx = self.fenced(&[]).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        let run = reread_run(tx.as_mut(), &view.run).await?;
        if decision.tier.is_none_or(|t| t >= 3) {
            if !self.consume(tx.as_mut(), &phase, decision).await? {
                return Ok(());
            }
        } else if window_is_full(tx.as_mut(), &run, decision).await? {
            // Others filled the window since the verdict: it is given anew.
            let reason = Some("the size window filled up".to_owned());
            moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Stale, reason, &system()).await?;
            return Ok(tx.commit().await?);
        }
        let apply = Apply {
            id: apply_id(&format!("{}|{branch}|{}", decision.subject_digest, decision.id))?,
            run: run.id.clone(),
            phase: phase.id.clone(),
            attempt: phase.attempt,
            kind: ApplyKind::Patch,
            target_ref: branch.to_string(),
            old: base,
            new,
            tree,
            decision: Some(decision.id.clone()),
            request: request.map(|r| r.id.clone()),
            state: ApplyState::Prepared,
            version: 0,
            decided_at,
            prepared_at: tx.now(),
            finished_at: None,
            reason: None,
        };
        insert(tx.as_mut(), &apply).await?;
        tx.add_window(&run, &apply.id, &decision.class_sizes).await?;
        phase.apply = Some(apply.id);
        moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Prepare, None, &system()).await?;
        Ok(tx.commit().await?)
    }

    /// Uses the approval: every condition is checked again here, in the transaction that prepares the apply.
    async fn consume(&self, tx: &mut dyn Tx, phase: &Phase, decision: &Decision) -> Result<bool, Error> {
        let Some(id) = &phase.request else { return Err(Error::Bug(format!("{} has no request", phase.id))) };
        let Some(mut request) = tx.request(id).await? else { return Ok(false) };
        let fits = request.state == RequestState::Approved
            && request.subject_digest == decision.subject_digest
            && tx.now() < request.expires_at
            && decision.tier.is_none_or(|t| request.tier >= t)
            && self.votes_hold(tx, &request).await?;
        if !fits {
            tracing::warn!(approval = %id, "an approval no longer fits and is not used");
            return Ok(false);
        }
        moves::request(tx, &mut request, RequestEvent::Consume, None, &system()).await?;
        Ok(true)
    }

    /// Whether enough distinct people approved exactly this. A carried approval rests on the votes it carries.
    async fn votes_hold(&self, tx: &mut dyn Tx, request: &Request) -> Result<bool, Error> {
        let mut voted = request.clone();
        while let Some(from) = voted.carried_from.clone() {
            let Some(earlier) = tx.request(&from).await? else { return Ok(false) };
            voted = earlier;
        }
        let votes = tx.votes(&voted.id).await?;
        let people: BTreeSet<&str> = votes
            .iter()
            .filter(|v| v.approve && v.subject_digest == voted.subject_digest)
            .map(|v| v.principal.id.as_str())
            .collect();
        Ok(people.len() >= usize::try_from(request.approvers_needed).unwrap_or(usize::MAX))
    }

    async fn stale(&self, view: &RunView, id: &PhaseId, why: &str) -> Result<(), Error> {
        let mut tx = self.turn(&view.run.id, Some(id)).await?;
        let mut phase = reread_phase(tx.as_mut(), &view.run, id).await?;
        moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Stale, Some(why.to_owned()), &system()).await?;
        Ok(tx.commit().await?)
    }

    /// How the commit of a prepared apply is made, as it was made when it was prepared.
    async fn spec_of(&self, view: &RunView, apply: &Apply) -> Result<Option<CommitSpec>, Error> {
        let Some(phase) = view.phase(&apply.phase) else { return Ok(None) };
        if apply.kind == ApplyKind::Revert {
            let Some(undone) = self.undone(view, &apply.phase).await? else { return Ok(None) };
            let message = revert_message(&view.run, phase, &undone, apply.decided_at, apply.old);
            let (tree, parents) = (apply.tree, vec![apply.old]);
            return Ok(Some(CommitSpec { tree, parents, message, seconds: apply.decided_at.as_seconds() }));
        }
        let Some(decision) = apply.decision.as_ref().and_then(|id| view.decisions.get(id)) else { return Ok(None) };
        let request = apply.request.as_ref().and_then(|id| view.requests.get(id));
        Ok(Some(spec(&view.run, phase, (decision, request), (apply.old, apply.tree), apply.decided_at)))
    }

    /// Moves the branch for a prepared apply and records what came of it.
    pub(super) async fn drive(&self, view: &RunView, id: &RowId) -> Result<(), Error> {
        let Some(apply) = view.applies.get(id).cloned() else { return Ok(()) };
        let name = ref_of(&view.run);
        let (hub, token, job) = (self.hub.clone(), self.token, apply.clone());
        let key = AttemptKey { run: apply.run.clone(), epoch: 0, phase: apply.phase.clone(), attempt: apply.attempt };
        let again = self.spec_of(view, &apply).await?;
        let outcome = self
            .blocking(move || {
                // Until the ref names it nothing keeps the commit: a full disk or the user's gc may have had it.
                if !hub.has(job.new)?
                    && let Some(spec) = again
                {
                    hub.commit(&spec)?;
                }
                if hub.tip(&name)? == Some(job.old) {
                    // What was judged may have been damaged since: a person may have taken their time.
                    hub.verify_change(job.old, job.tree)?;
                }
                let why = format!("autopack: apply {}", job.id);
                let outcome = if job.kind == ApplyKind::Patch {
                    hub.apply(token, &key, &name, (job.old, job.new), &why)?
                } else {
                    hub.cas_ref(token, &name, Some(job.old), job.new, &why)?
                };
                // Moved on, but over our commit: it was applied and more came after it.
                if let CasOutcome::Moved { tip: Some(tip) } = outcome
                    && hub.is_ancestor(job.new, tip)?
                {
                    return Ok(CasOutcome::Already);
                }
                Ok(outcome)
            })
            .await;
        let outcome = match outcome {
            Err(Error::Hub(error)) if error.is_damage() && view.run.state == RunState::Cancelling => {
                return self.abort(view, id, error).await;
            }
            outcome => outcome?,
        };
        let mut tx = self.fenced(&[]).await?;
        let Some(mut apply) = tx.apply(id).await? else { return Ok(()) };
        let mut phase = reread_phase(tx.as_mut(), &view.run, &apply.phase).await?;
        match outcome {
            CasOutcome::Applied | CasOutcome::Already => {
                moves::apply(tx.as_mut(), &mut apply, ApplyEvent::Commit, None).await?;
                settle_committed(tx.as_mut(), &mut phase, &apply).await?;
                tx.commit().await?;
                measure(&apply, &phase);
                return Ok(());
            }
            CasOutcome::Moved { tip } => {
                let at = tip.map_or_else(|| "gone".to_owned(), |t| format!("at {}", t.short()));
                let reason = format!("{} is {at}, not at {}", apply.target_ref, apply.old.short());
                moves::apply(tx.as_mut(), &mut apply, ApplyEvent::Conflict, Some(reason.clone())).await?;
                if phase.state == PhaseState::Applying {
                    moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Stale, Some(reason), &system()).await?;
                }
            }
        }
        Ok(tx.commit().await?)
    }
}

impl Director {
    /// Gives a prepared change of a cancelled run up, where its objects cannot be read and its branch is where it was:
    /// it would be waited for for ever. What takes a change back is not given up.
    async fn abort(&self, view: &RunView, id: &RowId, error: HubError) -> Result<(), Error> {
        let Some(apply) = view.applies.get(id) else { return Ok(()) };
        let (hub, name) = (self.hub.clone(), ref_of(&view.run));
        let tip = self.blocking(move || hub.tip(&name)).await?;
        if apply.kind == ApplyKind::Revert || tip != Some(apply.old) {
            return Err(error.into());
        }
        let mut tx = self.fenced(&[]).await?;
        let Some(mut apply) = tx.apply(id).await? else { return Ok(()) };
        let mut phase = reread_phase(tx.as_mut(), &view.run, &apply.phase).await?;
        let reason = format!("the run is cancelled, and its change cannot be read: {error}");
        moves::apply(tx.as_mut(), &mut apply, ApplyEvent::Abort, Some(reason.clone())).await?;
        if phase.state == PhaseState::Applying {
            moves::phase(tx.as_mut(), &mut phase, PhaseEvent::Stale, Some(reason), &system()).await?;
        }
        Ok(tx.commit().await?)
    }
}

fn measure(apply: &Apply, phase: &Phase) {
    let finished = apply.finished_at.unwrap_or(apply.prepared_at);
    let took = Duration::from_millis(u64::try_from(finished.millis_since(apply.prepared_at)).unwrap_or(0));
    tracing::info!(run = %apply.run, phase = %apply.phase, commit = %apply.new, target = apply.target_ref, "applied");
    metrics().applied(&format!("{:?}", apply.kind).to_lowercase(), took);
    if apply.kind == ApplyKind::Revert {
        metrics().rolled_back(if phase.rollback_ordered { "ordered" } else { "gate" });
    }
}

/// The commit of an applied change: nothing in it but what is stored.
fn spec(
    run: &Run,
    phase: &Phase,
    (decision, request): (&Decision, Option<&Request>),
    (base, tree): (Oid, Oid),
    decided_at: Timestamp,
) -> CommitSpec {
    let mut parents = vec![base];
    parents.extend(run.lands_tip);
    let message = message(run, phase, decision, request);
    CommitSpec { tree, parents, message, seconds: decided_at.as_seconds() }
}

/// Whether this change, which nobody is asked about, would now pass the window's limit unseen.
async fn window_is_full(tx: &mut dyn Tx, run: &Run, decision: &Decision) -> Result<bool, Error> {
    let told = decision.document["reasons"].as_array().is_some_and(|r| r.iter().any(|r| r["code"] == "budget_window"));
    if told {
        return Ok(false);
    }
    let sums = tx.window(run, tx.now().plus_seconds(-86_400)).await?;
    let spent = |class: &String| {
        let of = |sums: &BTreeMap<String, u64>| sums.get(class).copied().unwrap_or(0);
        of(&sums.run).max(of(&sums.project_24h))
    };
    Ok(decision.class_sizes.iter().any(|(class, size)| spent(class) + size > WINDOW_LIMIT))
}

async fn settle_committed(tx: &mut dyn Tx, phase: &mut Phase, apply: &Apply) -> Result<(), Error> {
    match (apply.kind, phase.state) {
        (ApplyKind::Patch | ApplyKind::Land, PhaseState::Applying) => {
            moves::phase(tx, phase, PhaseEvent::Commit, Some(format!("commit {}", apply.new.short())), &system()).await
        }
        (ApplyKind::Revert, PhaseState::RollingBack) => {
            moves::end_attempt(tx, phase, AttemptEvent::Fail, Some(rolled_back(phase))).await?;
            budget::forget_files(tx, phase, None).await?;
            let reason = phase.reason.clone();
            let again = another_attempt(tx, phase).await?;
            let event = if again { PhaseEvent::Retry } else { PhaseEvent::RolledBack };
            moves::phase(tx, phase, event, reason, &system()).await
        }
        (_, state) => Err(Error::Bug(format!("apply {} was committed while {} is {state}", apply.id, phase.id))),
    }
}

/// Whether a phase whose gate was red, and which is now taken back, is tried again with what the gate said.
async fn another_attempt(tx: &mut dyn Tx, phase: &Phase) -> Result<bool, Error> {
    let attempt = tx.attempt(&phase.run, &phase.id, phase.attempt).await?;
    let refused = attempt.and_then(|attempt| attempt.gate).is_some_and(|gate| !gate.green);
    // These would do the same again.
    let fixed = match phase.spec.builder {
        BuilderSpec::Patch { .. } | BuilderSpec::Remediation { .. } | BuilderSpec::Landing { .. } => true,
        BuilderSpec::Command { .. } | BuilderSpec::Agent { .. } | BuilderSpec::Llm { .. } => false,
    };
    let live =
        tx.run(&phase.run).await?.is_some_and(|run| !run.state.is_terminal() && run.state != RunState::Cancelling);
    Ok(refused && live && !fixed && !phase.rollback_ordered && phase.failed_attempts < phase.spec.max_attempts)
}

/// Records a prepared apply.
pub(super) async fn insert(tx: &mut dyn Tx, apply: &Apply) -> Result<(), Error> {
    tx.insert_apply(apply).await?;
    note(
        tx,
        Note {
            actor: &system(),
            run: &apply.run,
            phase: Some(&apply.phase),
            op: "apply.prepared".to_owned(),
            object: "apply",
            id: apply.id.to_string(),
            moved: None,
            digests: BTreeMap::from([
                ("commit".to_owned(), apply.new.to_string()),
                ("tree".to_owned(), apply.tree.to_string()),
                ("base".to_owned(), apply.old.to_string()),
                (ROW.to_owned(), pin(apply)?),
            ]),
            reason: apply.target_ref.clone(),
            text: None,
        },
    )
    .await
}

/// An apply's id from what it does.
pub(super) fn apply_id(what: &str) -> Result<RowId, Error> {
    Ok(RowId::new(&Digest::of(what.as_bytes()).to_hex()[..32])?)
}

/// Ids and digests only: no free text of anybody reaches a commit message (T044).
fn message(run: &Run, phase: &Phase, decision: &Decision, request: Option<&Request>) -> String {
    let mut text = format!("autopack: {}/{} attempt {}\n\n", run.id, phase.id, phase.attempt);
    let mut line = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "{key}: {value}");
    };
    line("Autopack-Run", run.id.as_str());
    line("Autopack-Phase", phase.id.as_str());
    line("Autopack-Decision", decision.id.as_str());
    line("Autopack-Verdict", &decision.verdict);
    if let Some(request) = request {
        line("Autopack-Request", request.id.as_str());
    }
    line("Autopack-Subject", &decision.subject_digest.to_string());
    line("Autopack-Policy", &decision.policy_digest.to_string());
    text
}

/// The message of a revert commit.
pub(super) fn revert_message(run: &Run, phase: &Phase, undone: &Apply, at: Timestamp, onto: Oid) -> String {
    format!(
        "autopack: roll back {}/{} attempt {}\n\nAutopack-Run: {}\nAutopack-Phase: {}\nAutopack-Reverts: {}\nAutopack-Onto: {onto}\nAutopack-At: {at}\n",
        run.id, phase.id, undone.attempt, run.id, phase.id, undone.new
    )
}
